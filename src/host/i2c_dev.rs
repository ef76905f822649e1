//! `i2c-dev`: the kernel module that gives each i2c bus its device node.

use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};

use super::{Host, HostError};
use crate::deadline::Deadline;

/// There while the module is, also where it is built into the kernel.
const CLASS: &str = "/sys/class/i2c-dev";
/// Only modules that were loaded have this.
pub(super) const MODULE: &str = "/sys/module/i2c_dev/initstate";

/// Whether buses have device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum I2cDev {
    /// They have none: the module is not loaded.
    Absent,
    /// The module is loaded.
    Loaded,
    /// It is a part of the kernel.
    BuiltIn,
}

/// How unloading a module went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unloaded {
    /// It is gone, or was never there.
    Gone,
    /// A program uses it; it stays.
    InUse,
}

impl Host {
    /// Whether `i2c-dev` is there.
    #[must_use]
    pub fn i2c_dev(&self) -> I2cDev {
        if self.is_present(MODULE) {
            I2cDev::Loaded
        } else if self.is_present(CLASS) {
            I2cDev::BuiltIn
        } else {
            I2cDev::Absent
        }
    }

    /// Loads `i2c-dev`, where it is not there.
    ///
    /// # Errors
    /// There is no `modprobe`, it fails, or the kernel has no such module.
    pub fn load_i2c_dev(&mut self, deadline: Deadline) -> Result<(), HostError> {
        if self.i2c_dev() != I2cDev::Absent {
            return Ok(());
        }
        if self.root() != Path::new("/") {
            return self.make_file(MODULE.as_ref(), b"live\n");
        }
        self.load_module("i2c-dev", deadline)
    }

    /// Unloads `i2c-dev`, where it is loaded and nobody uses it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unload_i2c_dev(&mut self) -> Result<Unloaded, HostError> {
        if self.i2c_dev() != I2cDev::Loaded {
            return Ok(Unloaded::Gone);
        }
        if self.root() != Path::new("/") {
            self.remove_if_present(MODULE.as_ref())?;
            self.remove_empty_folder_of(MODULE.as_ref());
            return Ok(Unloaded::Gone);
        }
        match delete_module(c"i2c_dev", DeleteModuleFlags::O_NONBLOCK) {
            Ok(()) | Err(Errno::ENOENT) => Ok(Unloaded::Gone),
            Err(Errno::EWOULDBLOCK | Errno::EBUSY) => Ok(Unloaded::InUse),
            Err(errno) => Err(HostError::call("delete_module", "i2c_dev", errno.desc())),
        }
    }
}

//! Writes that may take the kernel long, made by a child that can be left behind.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::children::{OwnedChild, Wake};
use super::{Host, HostError};
use crate::deadline::Deadline;

/// The hidden first argument of the child.
pub const WRITE_ATTRIBUTE: &str = "write-attribute";

/// How a bounded write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounded {
    /// The kernel took it.
    Done,
    /// The kernel refused it.
    Refused,
    /// It took too long; the child was killed.
    TimedOut,
}

impl Host {
    /// Writes a kernel attribute in a child process, which is killed at the deadline: memory compaction of a large
    /// node takes seconds and cannot be interrupted otherwise.
    ///
    /// # Errors
    /// No process can be started.
    pub fn write_bounded(
        &mut self,
        path: &Path,
        value: &str,
        deadline: Deadline,
    ) -> Result<Bounded, HostError> {
        let real = self.files.locate(path);
        if real != path {
            // A host in a folder has no slow kernel.
            return Ok(self.files.write(path, value).map_or(Bounded::Refused, |()| Bounded::Done));
        }
        let failed = |error| HostError::write(path, value, error);
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("vfio-hook")
            .args([WRITE_ATTRIBUTE.as_ref(), path.as_os_str(), value.as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let child = OwnedChild::spawn(&mut command).map_err(failed)?;
        if child.wait(deadline, None).map_err(failed)? != Wake::Ended {
            // It may be in a state no signal reaches; it holds none of our pipes, so nobody waits for it.
            child.signal_group(Signal::SIGKILL);
            return Ok(Bounded::TimedOut);
        }
        let status = child.reap().map_err(failed)?;
        Ok(if status.success() { Bounded::Done } else { Bounded::Refused })
    }
}

/// What the child does.
///
/// # Errors
/// The kernel refuses the value.
pub fn write_attribute(path: &Path, value: &str) -> Result<(), HostError> {
    super::files::write_existing(path, value).map_err(|error| HostError::write(path, value, error))
}

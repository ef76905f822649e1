//! Platform devices of a host in a folder: `bind` and `unbind` of their drivers.

use std::fs;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::SimulatedFiles;
use crate::host::files::{Files, make_link, remove_any};

/// Where the folders of platform drivers are.
pub(super) const DRIVERS: &str = "/sys/bus/platform/drivers";
const DEVICES: &str = "/sys/bus/platform/devices";

impl SimulatedFiles {
    /// `bind_store` and `unbind_store` in `drivers/base/bus.c`. A driver takes every device it is given that has none.
    pub(super) fn bind_platform_device(&self, path: &Path, device: &str) -> io::Result<()> {
        let there = self.locate(path);
        let driver = there.parent().and_then(Path::file_name);
        let folder = self.locate(&Path::new(DEVICES).join(device));
        let link = folder.join("driver");
        let now = fs::read_link(&link).ok();
        fs::metadata(&there)?;
        let (Some(driver), true) = (driver, folder.exists()) else { return Err(Errno::ENODEV.into()) };
        match now {
            Some(_) if there.ends_with("bind") => Err(Errno::EBUSY.into()),
            None if there.ends_with("bind") => {
                let sys = fs::canonicalize(self.locate("/sys".as_ref()))?;
                let real = fs::canonicalize(&folder)?;
                let depth = real.strip_prefix(&sys).map_or(0, |below| below.components().count());
                let up: PathBuf = iter::repeat_n("..", depth).collect();
                make_link(&link, &up.join("bus/platform/drivers").join(driver))
            }
            Some(now) if now.file_name() == Some(driver) => remove_any(&link),
            _ => Err(Errno::ENODEV.into()),
        }
    }
}

//! How long all CPUs may take to wake up.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Host, HostError};

impl Host {
    /// Asks the kernel to keep all CPUs from idle states that take longer to leave than so many microseconds. The
    /// request lasts as long as the descriptor is open (`Documentation/power/pm_qos_interface.rst`).
    ///
    /// # Errors
    /// The kernel has no `/dev/cpu_dma_latency`.
    pub fn hold_cpu_dma_latency(&self, micros: u32) -> Result<OwnedFd, HostError> {
        let path = Path::new("/dev/cpu_dma_latency");
        let ask = || {
            let mut file = OpenOptions::new().write(true).open(self.files.locate(path))?;
            file.write_all(&i32::try_from(micros).unwrap_or(i32::MAX).to_ne_bytes())?;
            Ok(file.into())
        };
        ask().map_err(|error| HostError::write(path, &micros.to_string(), error))
    }
}

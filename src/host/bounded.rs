//! Writes that may take the kernel long, made by a child that can be left behind.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Host, HostError};
use crate::deadline::Deadline;

/// The hidden first argument of the child.
pub const WRITE_ATTRIBUTE: &str = "write-attribute";

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(2);

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
        let mut child = Command::new("/proc/self/exe")
            .arg0("vfio-hook")
            .args([WRITE_ATTRIBUTE.as_ref(), path.as_os_str(), value.as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| HostError::write(path, value, error))?;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(Bounded::Done),
                Ok(Some(_)) => return Ok(Bounded::Refused),
                Ok(None) if deadline.has_passed() => {
                    // It may be in a state no signal reaches; it holds none of our pipes, so nobody waits for it.
                    let _ = child.kill();
                    return Ok(Bounded::TimedOut);
                }
                Ok(None) => deadline.pause(LOOK),
                Err(error) => return Err(HostError::write(path, value, error)),
            }
        }
    }
}

/// What the child does.
///
/// # Errors
/// The kernel refuses the value.
pub fn write_attribute(path: &Path, value: &str) -> Result<(), HostError> {
    super::files::write_existing(path, value).map_err(|error| HostError::write(path, value, error))
}

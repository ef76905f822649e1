//! Loading kernel modules.

use super::command::{CommandEnd, CommandLine};
use super::{Host, HostError};
use crate::deadline::Deadline;

/// The kernel's own word for where `modprobe` is.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

impl Host {
    /// Loads a module with `modprobe`, on the machine; a host in a folder runs no programs.
    ///
    /// # Errors
    /// There is no `modprobe`, it fails, or the kernel has no such module.
    pub(super) fn load_module(&mut self, module: &str, deadline: Deadline) -> Result<(), HostError> {
        let failed = |reason: &str| HostError::call("modprobe", module, reason);
        let modprobe = self.text(MODPROBE)?;
        if modprobe.is_empty() {
            return Err(failed("this kernel loads no modules"));
        }
        let command = CommandLine {
            program: modprobe.into(),
            arguments: vec![module.into()],
            environment: Vec::new(),
            user: None,
            stdin: None,
        };
        let end = self.run_command(&command, deadline, None, |line| tracing::warn!("modprobe: {line}"));
        match end {
            CommandEnd::Exited(0) => Ok(()),
            end => Err(failed(&end.to_string())),
        }
    }
}

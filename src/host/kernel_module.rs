//! Kernel modules: loading one, and how one was loaded.

use std::collections::BTreeMap;

use super::command::{CommandEnd, CommandLine};
use super::{Host, HostError};
use crate::deadline::Deadline;

/// The kernel's own word for where `modprobe` is.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

impl Host {
    /// Whether a module is there, loaded or built in (`/sys/module/NAME`; one that is built in has it where it has
    /// parameters).
    #[must_use]
    pub fn has_module(&self, module: &str) -> bool {
        self.is_present(format!("/sys/module/{module}"))
    }

    /// `/sys/module/NAME/parameters`: names and values, those left out that cannot be read. None where there is no such
    /// module, or it has no parameters.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn module_parameters(&self, module: &str) -> Result<BTreeMap<String, String>, HostError> {
        let folder = format!("/sys/module/{module}/parameters");
        let mut parameters = BTreeMap::new();
        for name in self.names_if_present(&folder)? {
            // Some are only for writing.
            if let Ok(value) = self.text(format!("{folder}/{name}")) {
                parameters.insert(name, value);
            }
        }
        Ok(parameters)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    #[test]
    fn a_module_is_there_with_its_parameters_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "/sys/module/vfio_pci/parameters/ids = 1002:73bf,1002:ab28\n\
                        /sys/module/vfio_pci/parameters/disable_idle_d3 = N\n\
                        /sys/module/vfio/initstate = live\n";
        lay_out(manifest, folder.path()).unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let parameters = host.module_parameters("vfio_pci").unwrap();
        let shown: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["disable_idle_d3=N", "ids=1002:73bf,1002:ab28"]);
        for (module, is_there) in [("vfio_pci", true), ("vfio", true), ("vendor_reset", false)] {
            assert_eq!(host.has_module(module), is_there, "{module}");
        }
        assert!(host.module_parameters("vfio").unwrap().is_empty());
        assert!(host.module_parameters("vendor_reset").unwrap().is_empty());
    }
}

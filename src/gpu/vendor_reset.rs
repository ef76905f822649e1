//! What the module vendor-reset says of its resets.

use super::device_names::DeviceNames;
use super::line_pattern::message;
use crate::kernel_log::KernelLog;
use crate::pci::PciAddress;

/// What each of its resets begins with, after the name of the family (`vendor_reset_dev_locked` in its
/// `src/vendor-reset-dev.c`: `AMD_NAVI10: performing reset`).
const BEGINS: &str = "performing reset";

/// Whether the module says in a part of the kernel's log that it has reset a function, with whatever result. A function
/// whose `reset_method` is `device_specific` is reset by it whenever QEMU takes it or lets go of it.
#[must_use]
pub fn has_line_of_vendor_reset(log: &KernelLog, function: PciAddress) -> bool {
    let names = DeviceNames::of(function);
    log.records.iter().filter(|record| names.is_function_in(&record.text)).any(|record| {
        let message = message(&record.text).split_once(": ");
        message.is_some_and(|(family, rest)| family.starts_with("AMD_") && rest.starts_with(BEGINS))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_log::{Beginning, LogRecord};

    #[test]
    fn only_its_own_line_about_the_function_counts() {
        let said = |line: &str| {
            let record = LogRecord { sequence: 0, microseconds: 0, priority: 6, text: line.to_owned() };
            let log = KernelLog { records: vec![record], beginning: Beginning::Kept };
            has_line_of_vendor_reset(&log, "0000:0c:00.0".parse().unwrap())
        };
        assert!(said("vfio-pci 0000:0c:00.0: AMD_POLARIS10: performing reset"));
        assert!(!said("vfio-pci 0000:0c:00.0: AMD_POLARIS10: version 1.1"));
        assert!(!said("vfio-pci 0000:0d:00.0: AMD_POLARIS10: performing reset"));
        assert!(!said("vfio-pci 0000:0c:00.0: resetting"));
        assert!(!said("amdgpu 0000:0c:00.0: amdgpu: performing reset"));
    }
}

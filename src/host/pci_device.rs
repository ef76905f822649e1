//! PCI functions as sysfs shows them.

use super::Host;
use crate::pci::PciAddress;

impl Host {
    /// `numa_node` of a function; none where there is no such function or the firmware does not say (`-1`).
    #[must_use]
    pub fn pci_numa_node(&self, address: PciAddress) -> Option<u32> {
        self.value(format!("/sys/bus/pci/devices/{address}/numa_node")).ok()
    }
}

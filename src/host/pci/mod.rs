//! PCI devices: what they are, which driver has them, whether they answer, and what brings back one that does not.
//!
//! The only place that touches them. What sysfs tells from memory is read right away; what makes the kernel ask the
//! device (its configuration space) or wait for a driver (`unbind`, `drivers_probe`, `reset` and the like) is done by a
//! worker, which can be left behind.

mod attribute;
mod bar;
mod binding;
mod card;
mod config_space;
mod driver_name;
mod function;
mod model_name;
mod modules_alias;
mod probe;
mod recovery;
mod reserved_regions;
mod sriov;
#[cfg(test)]
mod tests;
mod trouble;
mod vfio_driver;

use std::path::PathBuf;
use std::time::Duration;

pub use attribute::PciAttribute;
pub use bar::{AskedBars, OfferedSizes};
pub use binding::{Binding, Bindings};
pub use card::{BusReset, PortsAbove};
pub use config_space::Link;
pub use driver_name::{DriverName, DriverNameError};
pub use function::{PciFunction, PowerState};
pub use model_name::PciModelName;
pub use probe::{Expected, Health, ProbeReport, Probed};
pub(in crate::host) use probe::{Look, look_at_each};
pub use recovery::RescanBinding;
pub use reserved_regions::{IommuMaker, ReservedRegion};
pub use sriov::{HostDrivers, SriovCapability, VirtualFunctions};
pub use trouble::{BarReason, PciTrouble};

use crate::pci::PciAddress;

/// A link for each function.
const DEVICES: &str = "/sys/bus/pci/devices";

/// A folder for each driver.
const DRIVERS: &str = "/sys/bus/pci/drivers";

/// How long one step of a driver may take: amdgpu's `probe` takes some seconds where it loads firmware, and the kernel
/// itself waits up to 60 s for a device that does not answer after a reset (`PCIE_RESET_READY_POLL_MS` in
/// `drivers/pci/pci.c`), which is then as good as never.
const STEP: Duration = Duration::from_secs(30);

/// How long putting something back may take where no time is left.
const PUT_BACK: Duration = Duration::from_secs(5);

fn folder(address: PciAddress) -> PathBuf {
    PathBuf::from(format!("{DEVICES}/{address}"))
}

fn file(address: PciAddress, name: &str) -> PathBuf {
    PathBuf::from([DEVICES, "/", &address.to_string(), "/", name].concat())
}

//! Names of drivers.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// The name of a PCI driver: that of its folder in `/sys/bus/pci/drivers`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverName(String);

/// Why a text is no driver's name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{}` is no name of a driver", .0.escape_debug())]
pub struct DriverNameError(String);

impl DriverName {
    /// The driver that hands any device to a guest.
    #[must_use]
    pub fn vfio_pci() -> Self {
        Self("vfio-pci".to_owned())
    }

    /// No driver has this name: as `driver_override` it keeps every driver away
    /// (`Documentation/ABI/testing/sysfs-bus-pci`).
    #[must_use]
    pub fn none() -> Self {
        Self("none".to_owned())
    }

    /// As `/sys/bus/pci/drivers` has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is vfio-pci or one of its variants for one kind of device, which the kernel names `*_vfio_pci`
    /// (`drivers/vfio/pci/`).
    #[must_use]
    pub fn is_vfio(&self) -> bool {
        let name = self.0.replace('-', "_");
        name == "vfio_pci" || name.ends_with("_vfio_pci")
    }

    /// The driver of a module. Modules have no hyphens; of vfio's drivers only vfio-pci itself has one.
    pub(super) fn of_module(module: &str) -> Result<Self, DriverNameError> {
        if module == "vfio_pci" { Ok(Self::vfio_pci()) } else { module.parse() }
    }
}

impl FromStr for DriverName {
    type Err = DriverNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The kernel itself forbids only `/`; what is none of these characters would be a trap in a message.
        let is_plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'`' | b'\'' | b'"' | b'\\');
        let is_name = !text.is_empty()
            && text.len() <= 64
            && !text.starts_with('.')
            && !text.starts_with('(')
            && text.bytes().all(is_plain);
        if is_name { Ok(Self(text.to_owned())) } else { Err(DriverNameError(text.to_owned())) }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(DriverName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_folder() {
        for name in ["amdgpu", "vfio-pci", "snd_hda_intel", "i2c-designware-pci", "xhci-pci-renesas", "none"]
        {
            assert_eq!(name.parse::<DriverName>().unwrap().to_string(), name);
        }
        for name in ["", ".", "..", "a/b", "a b", "a\n", "(null)", "`id`", "\u{e9}", &"x".repeat(65)] {
            assert!(name.parse::<DriverName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn tells_vfio_drivers() {
        for name in ["vfio-pci", "vfio_pci", "mlx5_vfio_pci", "nvgrace_gpu_vfio_pci"] {
            assert!(name.parse::<DriverName>().unwrap().is_vfio(), "{name}");
        }
        for name in ["amdgpu", "none", "vfio", "xvfio-pci-y"] {
            assert!(!name.parse::<DriverName>().unwrap().is_vfio(), "{name}");
        }
    }

    #[test]
    fn is_text_in_json() {
        let json = serde_json::to_string(&DriverName::vfio_pci()).unwrap();
        assert_eq!(json, "\"vfio-pci\"");
        assert_eq!(serde_json::from_str::<DriverName>(&json).unwrap(), DriverName::vfio_pci());
        assert!(serde_json::from_str::<DriverName>("\"../x\"").is_err());
    }
}

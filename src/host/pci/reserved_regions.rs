//! Addresses that the IOMMU keeps back in a group (`Documentation/ABI/testing/sysfs-kernel-iommu_groups`).

use std::fmt;

use super::file;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// A range of addresses that no guest can use in an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedRegion {
    /// The first address.
    pub start: u64,
    /// The last one.
    pub end: u64,
    /// Why, in the kernel's word: `direct`, `direct-relaxable`, `reserved`, `msi`.
    pub kind: String,
}

/// Whose IOMMU a function is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IommuMaker {
    /// Intel's VT-d.
    Intel,
    /// Any other, such as AMD-Vi.
    Other,
}

impl ReservedRegion {
    /// Whether the firmware wants it mapped 1:1 at all times. `direct-relaxable` is what a guest may take away: that of
    /// graphics and USB on Intel, since Linux 5.3 (`device_rmrr_is_relaxable` in `drivers/iommu/intel/iommu.c`).
    #[must_use]
    pub fn is_identity_map(&self) -> bool {
        self.kind == "direct"
    }
}

impl fmt::Display for ReservedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

impl Host {
    /// What is kept back in an IOMMU group; nothing where the kernel has no such file (before Linux 4.11).
    ///
    /// # Errors
    /// The file cannot be read, or has a line of another form.
    pub fn reserved_regions(&self, group: u32) -> Result<Vec<ReservedRegion>, HostError> {
        let path = format!("/sys/kernel/iommu_groups/{group}/reserved_regions");
        let text = self.text_if_present(&path)?.unwrap_or_default();
        let region = |line: &str| {
            let address = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
            let mut fields = line.split_whitespace();
            let (start, end) = (address(fields.next()?)?, address(fields.next()?)?);
            Some(ReservedRegion { start, end, kind: fields.next()?.to_owned() })
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines
            .map(|line| {
                let wrong =
                    || HostError::content(path.as_ref(), format!("`{}` is no region", line.escape_debug()));
                region(line).ok_or_else(wrong)
            })
            .collect()
    }

    /// Whose IOMMU a function is behind, by its link `iommu` (`dmar0` of Intel's driver, `ivhd0` of AMD's).
    ///
    /// # Errors
    /// The link cannot be read.
    pub fn iommu_maker(&self, address: PciAddress) -> Result<IommuMaker, HostError> {
        let name = self.link_name(&file(address, "iommu"))?;
        Ok(match name {
            Some(name) if name.starts_with("dmar") => IommuMaker::Intel,
            _ => IommuMaker::Other,
        })
    }
}

//! How lines of the kernel's log name a device.

use crate::pci::{PciAddress, PciSlot};

/// The names of one function.
#[derive(Clone, Debug)]
pub(super) struct DeviceNames {
    /// The function.
    pub(super) address: PciAddress,
    /// `0000:03:00.0`, as nearly all do.
    whole: String,
    /// `PCI:0000:03:00`, as NVIDIA's driver does: the whole card.
    card: String,
    /// What only functions of the first domain have.
    short: Option<ShortNames>,
}

#[derive(Clone, Debug)]
struct ShortNames {
    /// `[03:00.0]` of Intel's IOMMU (`dmar_fault_do_one` in `drivers/iommu/intel/dmar.c`).
    brackets: String,
    /// `device=03:00.0` of AMD's, up to Linux 5.19 (`iommu_print_event` in `drivers/iommu/amd/iommu.c`).
    device: String,
    /// `SID 300` of Intel's: bus, device and function as one number (`qi_dump_fault` in `drivers/iommu/intel/dmar.c`).
    source: String,
}

impl DeviceNames {
    pub(super) fn of(address: PciAddress) -> Self {
        let whole = address.to_string();
        let short = whole.strip_prefix("0000:").map(|short| ShortNames {
            brackets: format!("[{short}]"),
            device: format!("device={short}"),
            source: format!("SID {:x}", source_id(address, short)),
        });
        Self { address, card: card_name(address.slot()), whole, short }
    }

    /// Whether a line names this very function.
    pub(super) fn is_function_in(&self, line: &str) -> bool {
        stands_alone(line, &self.whole)
            || self.short.as_ref().is_some_and(|short| {
                line.contains(&short.brackets)
                    || stands_alone(line, &short.device)
                    || stands_alone(line, &short.source)
            })
    }

    /// Whether a line names its card and none of its functions.
    pub(super) fn is_card_in(&self, line: &str) -> bool {
        let is_card = |at: usize| !line[at + self.card.len()..].starts_with('.');
        stands_alone(line, &self.card) && line.find(&self.card).is_some_and(is_card)
    }
}

/// Whether a line is about a card: it names the card or one of its functions, in any of the ways.
pub(super) fn is_about_card(line: &str, card: PciSlot, functions: &[DeviceNames]) -> bool {
    stands_alone(line, &card.to_string()) || functions.iter().any(|function| function.is_function_in(line))
}

fn card_name(card: PciSlot) -> String {
    format!("PCI:{card}")
}

/// Bus, device and function as the IOMMU has them; `short` is the address without its domain.
fn source_id(address: PciAddress, short: &str) -> u16 {
    let device = short.get(3..5).and_then(|digits| u16::from_str_radix(digits, 16).ok()).unwrap_or_default();
    u16::from(address.bus()) << 8 | device << 3 | u16::from(address.function())
}

/// Whether a name is no part of a longer one: `0000:03:00.1` is not in `10000:03:00.1`.
pub(super) fn stands_alone(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(address: &str) -> DeviceNames {
        DeviceNames::of(address.parse().unwrap())
    }

    #[test]
    fn a_function_has_many_names() {
        let function = names("0000:63:05.1");
        for line in [
            "vfio-pci 0000:63:05.1: x",
            "NVRM: GPU 0000:63:05.1: x",
            "NVRM: The NVIDIA GPU 0000:63:05.1\\x0aNVRM: x",
            "DMAR: [DMA Read NO_PASID] Request device [63:05.1] fault addr 0x0",
            "AMD-Vi: Event logged [IO_PAGE_FAULT device=63:05.1 domain=0x0010]",
            "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:63:05.1 domain=0x0010]",
            "DMAR: VT-d detected Invalidation Time-out Error: SID 6329",
        ] {
            assert!(function.is_function_in(line), "{line}");
        }
        for line in [
            "x 10000:63:05.1: x",
            "x 0000:63:05.10: x",
            "x [163:05.1]",
            "device=63:05.0",
            "SID 63290",
            "NVRM: Xid (PCI:0000:63:05): 79",
        ] {
            assert!(!function.is_function_in(line), "{line}");
        }
        assert!(!names("0001:63:05.1").is_function_in("Request device [63:05.1] fault"), "another domain");
    }

    #[test]
    fn a_card_is_named_without_a_function() {
        let function = names("0000:0b:00.0");
        assert!(function.is_card_in("NVRM: Xid (PCI:0000:0b:00): 79, x"));
        assert!(function.is_card_in("NVRM: Xid (PCI:0000:0b:00 GPU-I:05): 94, x"));
        assert!(!function.is_card_in("NVRM: PCI:0000:0b:00.1 x"));
        assert!(!function.is_card_in("NVRM: Xid (PCI:0000:0b:01): 79, x"));
    }
}

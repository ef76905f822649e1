//! Families of graphics cards: what a reset does to their cards, and what is known to fail.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::guest_reboot::GuestReboot;
use super::id_range::IdRange;
use crate::given_name::given_name;
use crate::pci::PciId;
use crate::serde_as_text::serde_as_text;

/// A family's name, such as `navi-2x`: letters, digits, `-` and `_`, a letter first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyName(String);

/// Cards that behave in the same way when they are reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// What `gpu_families` in host.yaml calls it.
    pub name: FamilyName,
    /// Its models.
    pub ids: Vec<IdRange>,
    /// What a reboot that the guest makes by itself, in the same QEMU, does to a card.
    pub reboot: Robustness,
    /// Whether the module vendor-reset knows its cards.
    pub vendor_reset: VendorReset,
    /// What being bound to the host's driver again, after a guest, does to a card.
    pub host_driver: Robustness,
    /// Whether its cards are cards of their own.
    pub integration: Integration,
    /// Which resets there are, in words.
    pub resets: Option<String>,
    /// Which reset the host's driver makes by itself when it takes a card that still runs its firmware, in words.
    pub driver_reset: Option<String>,
    /// What is known to fail, in words.
    pub fails: Option<String>,
    /// Anything else that a person should know.
    pub note: Option<String>,
    /// Where this is from.
    pub sources: Vec<String>,
}

/// What something is known to do to a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Robustness {
    /// Nothing bad.
    #[default]
    Fine,
    /// It may leave it in disorder until the host is rebooted.
    Fragile,
}

/// Where graphics are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Integration {
    /// On a card of their own, whose slot has nothing else in it.
    #[default]
    Discrete,
    /// In the processor: the slot may have functions of the platform's beside them, such as its USB.
    Integrated,
}

/// The kernel module that resets some cards of AMD.
pub const VENDOR_RESET: &str = "vendor_reset";

/// Whether the module vendor-reset (<https://github.com/gnif/vendor-reset>) can reset a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VendorReset {
    /// It cannot.
    #[default]
    Unsupported,
    /// It can; it has to be loaded, and `reset_method` to be `device_specific`.
    Supported,
}

impl FamilyName {
    /// As files have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Family {
    /// Cards of which nothing is known, and whose maker is known for no trouble.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            name: FamilyName("unknown".to_owned()),
            ids: Vec::new(),
            reboot: Robustness::Fine,
            vendor_reset: VendorReset::Unsupported,
            host_driver: Robustness::Fine,
            integration: Integration::Discrete,
            resets: None,
            driver_reset: None,
            fails: None,
            note: None,
            sources: Vec::new(),
        }
    }

    /// Whether a model is of this family.
    #[must_use]
    pub fn contains(&self, id: PciId) -> bool {
        self.ids.iter().any(|range| range.contains(id))
    }

    /// Whether its cards are a part of AMD's processors, which have other things of the host in the same slot.
    #[must_use]
    pub fn is_of_processor(&self) -> bool {
        self.integration == Integration::Integrated
    }

    /// What happens to a guest that reboots itself, where its file does not say it.
    #[must_use]
    pub const fn guest_reboot(&self) -> GuestReboot {
        match self.reboot {
            Robustness::Fragile => GuestReboot::Restart,
            Robustness::Fine => GuestReboot::Allow,
        }
    }
}

impl FromStr for FamilyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        given_name(text).map(Self)
    }
}

impl fmt::Display for FamilyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(FamilyName);

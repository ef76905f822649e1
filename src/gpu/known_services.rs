//! Services that keep a card's driver busy although they may have none of its device nodes open, or only now and then.
//!
//! They are named to people whose card is in use. Where a guest's file names units that are to stop for the card, those of
//! them that run are stopped, too: between the last look at the card's users and its unbinding they may open it again, and
//! NVIDIA's driver then hangs for ever.

/// The units of each kernel driver. Reports of passthrough setups that they kept from working: `nvidia-persistenced`
/// ipaqmaster/vfio#13 and kubernetes-sigs/dra-driver-nvidia-gpu#1037, `nvidia-powerd` Askannz/optimus-manager#549,
/// `lactd` ilya-zlobintsev/LACT#828 and #1119. `xpum` is the daemon of Intel's XPU Manager, which samples its cards all
/// the time.
const SERVICES: [(&str, &[&str]); 4] = [
    ("nvidia", &["nvidia-persistenced.service", "nvidia-powerd.service", "lactd.service"]),
    ("amdgpu", &["lactd.service"]),
    ("i915", &["xpum.service", "lactd.service"]),
    ("xe", &["xpum.service", "lactd.service"]),
];

/// The units of a user's desktop that talk to the monitors of every card, whatever its driver: KDE's power manager asks
/// them for their brightness (rockowitz/ddcutil#582).
const OF_DESKTOPS: [&str; 1] = ["plasma-powerdevil.service"];

/// The units that are known to keep cards of this kernel driver busy; none for other drivers.
#[must_use]
pub fn services_of_driver(driver: &str) -> &'static [&'static str] {
    SERVICES.iter().find(|(name, _)| *name == driver).map_or(&[], |(_, units)| units)
}

/// The units of users that are known to open cards now and then.
#[must_use]
pub const fn services_of_desktops() -> &'static [&'static str] {
    &OF_DESKTOPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit_file_name::UnitFileName;

    #[test]
    fn units_can_be_written_into_a_guests_file() {
        for (driver, units) in SERVICES {
            assert!(units.iter().all(|unit| UnitFileName::new(unit).is_ok()), "{driver}");
            assert_eq!(services_of_driver(driver), units);
        }
        assert!(services_of_driver("nvidia").contains(&"nvidia-persistenced.service"));
        assert!(services_of_driver("vfio-pci").is_empty());
        assert!(services_of_desktops().iter().all(|unit| UnitFileName::new(unit).is_ok()));
    }
}

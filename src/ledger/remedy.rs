//! What a person can do about an error of the host: at the machine, which the host knows, and in the YAML file. The key
//! that asked for what failed is known to the claim: see [`super::ClaimTerms`].

use crate::host::{BarReason, HostError, PciTrouble};

/// What a person can do about it.
#[must_use]
pub fn remedy(error: &HostError) -> Option<String> {
    let in_file = in_yaml(error);
    match (error.help(), in_file) {
        (Some(at_machine), Some(in_file)) => Some(format!("{at_machine}{}{in_file}", separator(error))),
        (None, Some(in_file)) => Some(in_file.to_owned()),
        (at_machine, None) => at_machine.map(str::to_owned),
    }
}

/// What stands between what can be done at the machine and in the file: of two ways one is enough.
fn separator(error: &HostError) -> &'static str {
    let bar = error.pci_trouble();
    let is_bar =
        matches!(bar, Some(PciTrouble::BarSize { reason, .. }) if *reason != BarReason::NotResizable);
    if is_bar { ", or " } else { "; " }
}

/// Which key of the YAML file changes that.
fn in_yaml(error: &HostError) -> Option<&'static str> {
    match error.pci_trouble()? {
        PciTrouble::BarSize { reason: BarReason::NotOffered, .. } => None,
        PciTrouble::BarSize { .. } => Some("leave the size out"),
        PciTrouble::Others { .. } => Some("leave this step out of `recover`, or hand those over too"),
        PciTrouble::NoPort(_) => Some("leave this step out of `recover`; `reset` may work"),
        PciTrouble::BoundWhenFound(_) => Some("with `return_to: host` it goes there anyway"),
        PciTrouble::NoOwnSwitch(_) => {
            Some("leave `rescan-card` out of `recover`; `rescan` finds its functions anew")
        }
        PciTrouble::NoSlotPower(_) => Some("leave `slot-power` out of `recover`"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_the_file_can_do_beside_what_the_machine_can() {
        let port = || "0000:03:00.0".parse().unwrap();
        for (error, told) in [
            (HostError::pci(PciTrouble::NoSlotPower(port())), "leave `slot-power` out of `recover`"),
            (
                HostError::pci(PciTrouble::BoundWhenFound(vec!["amdgpu".to_owned()])),
                "Linux 6.19 and later let it be looked at first (`drivers_autoprobe`); with `return_to: host` it goes \
                 there anyway",
            ),
            (
                HostError::pci(PciTrouble::AlarmTaken("1".to_owned())),
                "`echo 0 > /sys/class/rtc/rtc0/wakealarm` clears it",
            ),
        ] {
            assert_eq!(remedy(&error).as_deref(), Some(told), "{error}");
        }
    }
}

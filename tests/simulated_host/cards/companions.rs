//! Other devices that the guest gets with its card.

use super::{CARD, ON_VFIO, USB, machine, player};
use crate::support::Life;

fn with_usb(yaml: &str) -> Life {
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    player(1, &devices, "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>", yaml)
}

#[test]
fn they_are_bound_with_the_card_and_come_back_with_it() {
    for control in ["auto", "on"] {
        for return_to in ["host", "host-if-clean"] {
            let machine = machine();
            machine.set(&format!("/sys/bus/pci/devices/{USB}/power/control"), control);
            let before = machine.files();
            let life =
                with_usb(&format!("gpu: {{return_to: {return_to}, holders: {{stop: [ollama.service]}}}}"));
            let outcome = machine.prepare(&life).unwrap();
            assert_eq!(machine.drivers(), ON_VFIO);
            assert_eq!(machine.driver(USB), "vfio-pci");
            // Each is done once.
            let mut settings: Vec<String> =
                outcome.changes.iter().map(|change| change.setting.to_string()).collect();
            let all = settings.len();
            settings.sort();
            settings.dedup();
            assert_eq!(settings.len(), all, "{:?}", outcome.changes);
            machine.release(&life).unwrap();
            machine.assert_is(&before, &format!("{control}, {return_to}"));
        }
    }
}

#[test]
fn libvirt_may_bind_them() {
    let machine = machine();
    let before = machine.files();
    let life = with_usb("gpu: {other_devices: libvirt}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    assert_eq!(machine.driver(USB), "xhci_hcd");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn one_that_is_dead_does_not_keep_the_card() {
    let machine = machine();
    let life = with_usb("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.breaks(USB, "dead");
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), super::HOST_DRIVERS);
    assert_eq!(machine.driver(USB), "vfio-pci");
    let quarantine = machine.quarantine().unwrap();
    assert_eq!(quarantine.terms.name, "device 0000:0f:00.3 (1022:15b7)");
    // The card without it is to be had.
    let life = super::gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), super::HOST_DRIVERS);
}

//! A processor's graphics, which share their slot with what is the platform's.

use super::{machine_with, player};
use crate::support::Machine;

const XML: &str = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
const SLOT: &str = "/sys/devices/pci0000:00/0000:00:08.1";

/// A function of the platform's beside the graphics: its model, class, driver and IOMMU group.
fn beside(function: u8, vendor: &str, class: &str, driver: &str, group: u32) -> String {
    let address = format!("0000:0e:00.{function}");
    let folder = format!("{SLOT}/{address}");
    format!(
        "{folder}/vendor = {vendor}\n\
         {folder}/device = 0x1649\n\
         {folder}/class = {class}\n\
         {folder}/resource =\n\
         {folder}/driver_override = (null)\n\
         {folder}/power_state = D0\n\
         {folder}/d3cold_allowed = 1\n\
         {folder}/power/control = auto\n\
         {folder}/driver -> ../../../../bus/pci/drivers/{driver}\n\
         {folder}/iommu_group -> ../../../../kernel/iommu_groups/{group}\n\
         /sys/bus/pci/devices/{address} -> ../../../devices/pci0000:00/0000:00:08.1/{address}\n\
         /sys/bus/pci/drivers/{driver}/{address} -> ../../../../devices/pci0000:00/0000:00:08.1/{address}\n\
         /sys/kernel/iommu_groups/{group}/devices/{address} -> ../../../../devices/pci0000:00/0000:00:08.1/{address}\n"
    )
}

/// The desktop whose processor has its security processor and a USB controller in the slot of its graphics.
fn machine(crypto_group: u32) -> Machine {
    let crypto = beside(2, "0x1022", "0x108000", "ccp", crypto_group);
    machine_with(&format!("{crypto}{}", beside(3, "0x1022", "0x0c0330", "xhci_hcd", 41)))
}

#[test]
fn a_guest_may_have_them_without_the_rest_of_their_slot() {
    let machine = machine(40);
    let before = machine.files();
    let life = player(1, &["0000:0e:00.0", "0000:0e:00.1"], XML, "gpu: {}");
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!(machine.driver("0000:0e:00.0"), "vfio-pci", "{outcome:?}");
    assert_eq!(machine.driver("0000:0e:00.1"), "vfio-pci");
    // The host keeps its own.
    assert_eq!(machine.driver("0000:0e:00.2"), "ccp");
    assert_eq!(machine.driver("0000:0e:00.3"), "xhci_hcd");
    let words = "nothing can reset 0000:0e:00.{0,1}";
    assert!(outcome.notes.iter().any(|note| note.text.starts_with(words)), "{:?}", outcome.notes);
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn their_iommu_groups_decide() {
    let machine = machine(28);
    let before = machine.files();
    let life = player(1, &["0000:0e:00.0", "0000:0e:00.1"], XML, "gpu: {}");
    let error = machine.prepare(&life).unwrap_err().to_string();
    assert!(
        error.contains("0000:0e:00.0 shares IOMMU group 28 with 0000:0e:00.2, which the host uses (ccp)"),
        "{error}"
    );
    machine.assert_is(&before, "refused");
}

/// Of a model that nobody knows, the functions beside it tell; the host's configuration may say it too.
#[test]
fn an_unknown_model_is_told_by_what_is_beside_it() {
    let functions = ["0000:0e:00.0", "0000:0e:00.1"];
    let life = || player(1, &functions, XML, "gpu: {}");
    unknown(machine(40)).prepare(&life()).unwrap();

    // A card of one maker that shares its slot with nothing else.
    let alike = |lines: &str| {
        unknown(machine_with(&format!("{}{lines}", beside(2, "0x1002", "0x0c0330", "ccp", 40))))
    };
    let error = alike("").prepare(&life()).unwrap_err().to_string();
    assert!(error.contains("leaves out 0000:0e:00.2 (ccp) of the card 0000:0e:00"), "{error}");
    let family = "{mine: {ids: \"1002:fff0\", reboot: fragile, integrated: true}}";
    alike(&format!("/etc/vfio-hook/host.yaml = gpu_families: {family}\n")).prepare(&life()).unwrap();
}

/// The same with graphics of another model: 1002:fff0.
fn unknown(machine: Machine) -> Machine {
    let folder = format!("{SLOT}/0000:0e:00.0");
    machine.set(&format!("{folder}/device"), "0xfff0");
    let config = machine.get(&format!("{folder}/config"));
    machine.set(&format!("{folder}/config"), &config.replacen("02104e16", "0210f0ff", 1));
    machine
}

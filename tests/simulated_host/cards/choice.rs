//! Which cards a guest may have.

use super::{CARD, DISPLAY, HOST_DRIVERS, ON_VFIO, USB, gamer, machine, machine_with, player};
use crate::support::{Machine, life};

const XML: &str = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";

/// The refusal; the host is left alone.
fn refusal(machine: &Machine, functions: &[&str], yaml: &str) -> String {
    let before = machine.files();
    let error = machine.prepare(&player(1, functions, XML, yaml)).unwrap_err().to_string();
    machine.assert_is(&before, &error);
    error
}

#[test]
fn what_cannot_be_handed_over_is_refused() {
    let plain = machine();
    let mut told = vec![
        ("functions left out", refusal(&plain, &CARD[..2], "gpu: {}")),
        ("no such card", refusal(&plain, &["0000:05:00.0", "0000:05:00.1"], "gpu: {}")),
        ("no card", refusal(&plain, &[USB], "gpu: {}")),
        ("nothing at all", refusal(&plain, &[], "gpu: {}")),
        ("not in the XML", refusal(&plain, &CARD, "gpu:\n  devices:\n  - 0000:03:00.0\n  - 0000:0e:00.0\n")),
        ("a BAR that cannot be resized", refusal(&plain, &CARD, "gpu:\n  bars:\n    5: 1 GiB\n")),
        ("a size that is not offered", refusal(&plain, &CARD, "gpu:\n  bars:\n    0: 8 GiB\n    2: 1 MiB\n")),
        ("no resets to choose among", refusal(&plain, &CARD, "gpu:\n  reset_method: pm\n")),
    ];
    let resettable = machine_with(&format!("{DISPLAY}/reset_method = pm bus\n"));
    let lists = "gpu:\n  reset_method:\n  - pm\n  - flr\n  - device_specific\n  - bus\n";
    told.push(("resets that the card has not", refusal(&resettable, &CARD, lists)));
    told.push((
        "one reset that the card has not",
        refusal(&resettable, &CARD, "gpu:\n  reset_method: acpi\n"),
    ));
    let crowded = machine_with(
        "/sys/kernel/iommu_groups/24/devices/0000:0f:00.3 -> ../../../../devices/pci0000:00/0000:00:08.3/0000:0f:00.3\n\
         /sys/kernel/iommu_groups/24/devices/0000:02:00.0 -> ../../../../devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0\n",
    );
    told.push(("another device in the group", refusal(&crowded, &CARD, "gpu: {}")));
    let bare = machine();
    std::fs::remove_file(bare.path(&format!("{DISPLAY}/iommu_group"))).unwrap();
    told.push(("no IOMMU", refusal(&bare, &CARD, "gpu: {}")));
    let told: Vec<String> = told.into_iter().map(|(what, error)| format!("{what}\n{error}")).collect();
    insta::assert_snapshot!("refused", told.join("\n\n"));

    // Handed over too, the other one in the group is no obstacle, whatever binds it.
    let all: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let before = crowded.files();
    for yaml in ["gpu: {}", "gpu: {other_devices: libvirt}"] {
        let both = player(1, &all, XML, yaml);
        crowded.prepare(&both).unwrap();
        crowded.release(&both).unwrap();
        crowded.assert_is(&before, yaml);
    }
}

#[test]
fn one_card_is_for_one_guest() {
    let machine = machine();
    let before = machine.files();
    let (first, second) = (gamer("gpu: {}"), player(2, &CARD, XML, "gpu: {}"));
    machine.prepare(&first).unwrap();
    let taken = machine.files();
    let error = machine.prepare(&second).unwrap_err().to_string();
    insta::assert_snapshot!("taken", error);
    machine.release(&second).unwrap();
    crate::support::assert_same(&machine.files(), &taken, "refused");
    machine.release(&first).unwrap();
    machine.assert_is(&before, "released");
    machine.prepare(&second).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.release(&second).unwrap();
    machine.assert_is(&before, "released again");
}

#[test]
fn two_cards_are_for_two_guests() {
    let machine = machine();
    let before = machine.files();
    let (first, second) = (gamer("gpu: {}"), player(2, &["0000:0e:00.0", "0000:0e:00.1"], XML, "gpu: {}"));
    machine.prepare(&first).unwrap();
    machine.prepare(&second).unwrap();
    assert_eq!(machine.driver("0000:0e:00.0"), "vfio-pci");
    machine.release(&first).unwrap();
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    assert_eq!(machine.driver("0000:0e:00.0"), "vfio-pci");
    machine.release(&second).unwrap();
    machine.assert_is(&before, "both released");
    // Or for one.
    let both: Vec<&str> = CARD.into_iter().chain(["0000:0e:00.0", "0000:0e:00.1"]).collect();
    let greedy = player(1, &both, XML, "gpu: {}");
    machine.prepare(&greedy).unwrap();
    assert_eq!(machine.record().unwrap().leases[&greedy.guest.uuid].cards.len(), 2);
    machine.release(&greedy).unwrap();
    machine.assert_is(&before, "one has both");
}

#[test]
fn virtual_functions_are_left_to_libvirt() {
    let virtual_function = "/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.1";
    let machine = machine_with(&format!("{virtual_function}/physfn -> ../0000:0e:00.0\n"));
    let before = machine.files();
    let all: Vec<&str> = CARD.into_iter().chain(["0000:0e:00.1"]).collect();
    let life = player(1, &all, XML, "gpu: {}");
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!(machine.driver("0000:0e:00.1"), "snd_hda_intel");
    let words = "0000:0e:00.1 is a virtual function: it is left to libvirt";
    assert!(outcome.notes.iter().any(|note| note.text == words), "{outcome:?}");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
    let error = refusal(&machine, &all, "gpu:\n  devices:\n  - 0000:03:00.0\n  - 0000:0e:00.1\n");
    assert_eq!(
        error,
        "/etc/vfio-hook/hooks.d/guest.yaml:4:5: 0000:0e:00.1 is a virtual function, which is no card of its own\n\
         help: take it out of this list: libvirt hands it over, as `managed=` of the XML says"
    );
}

#[test]
fn an_unmanaged_device_is_bound_all_the_same() {
    let machine = machine();
    let before = machine.files();
    let devices = super::hostdevs(&CARD).replacen("managed='yes'", "managed='no'", 2);
    let life = life(crate::support::guest(1, "2-3", &format!("{XML}{devices}")), "gpu: {}");
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    let words = "0000:03:00.0, 0000:03:00.1: managed='yes' in the guest's XML is safer, should this hook ever be missing";
    assert!(outcome.notes.iter().any(|note| note.text == words), "{outcome:?}");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn bars_and_resets_are_as_the_file_says_and_come_back() {
    let machine = machine_with(&format!(
        "{DISPLAY}/reset_method = pm bus\n\
         /simulated/pci/{0}/reset_methods = pm bus\n\
         /simulated/pci/{0}/room = 16 GiB\n",
        CARD[0]
    ));
    let before = machine.files();
    let life = player(1, &CARD, XML, "gpu: {bars: {0: 256 MiB, 2: 8 MiB}, reset_method: [pm]}");
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!(machine.attribute(CARD[0], "reset_method"), "pm");
    assert!(outcome.notes.iter().any(|note| note.text == "reset: 0000:03:00.0 by pm, or the whole bus"));
    let last = outcome.changes.last().unwrap().to_string();
    assert!(
        last.ends_with(" -> vfio-pci, BAR 0 of 0000:03:00.0 256 MiB, BAR 2 of 0000:03:00.0 8 MiB"),
        "{last}"
    );
    machine.release(&life).unwrap();
    // Another place for the BAR is as good.
    let same = |files: crate::support::Files| {
        files.into_iter().filter(|(path, _)| !path.ends_with("/resource")).collect::<crate::support::Files>()
    };
    crate::support::assert_same(&same(machine.files()), &same(before), "released");
    assert!(!machine.has_ledger());
}

/// The reset of vendor-reset is not listed before it was chosen.
#[test]
fn a_reset_of_vendor_reset_is_chosen_by_the_file_or_by_the_family() {
    let mine = "/etc/vfio-hook/host.yaml = gpu_families: {mine: {ids: [\"1002:73bf\"], reboot: fine, vendor_reset: \
                supported}}\n";
    let resets = format!(
        "{DISPLAY}/reset_method = pm\n/simulated/pci/{}/reset_methods = device_specific pm\n",
        CARD[0]
    );
    for (family, yaml) in [("", "gpu: {reset_method: device_specific}"), (mine, "gpu: {}")] {
        let machine = machine_with(&format!("/sys/module/vendor_reset/initstate = live\n{family}{resets}"));
        let before = machine.files();
        let life = gamer(yaml);
        let outcome = machine.prepare(&life).unwrap();
        assert_eq!(machine.attribute(CARD[0], "reset_method"), "device_specific", "{yaml}");
        let told = "reset: 0000:03:00.0 by device_specific, or the whole bus";
        assert!(outcome.notes.iter().any(|note| note.text == told), "{yaml}: {:?}", outcome.notes);
        machine.release(&life).unwrap();
        machine.assert_is(&before, yaml);
    }
    // A kernel without such a file resets as it always did, where nothing else was asked for.
    let machine = machine_with(&format!("/sys/module/vendor_reset/initstate = live\n{mine}"));
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "no file");
}

#[test]
fn a_card_that_suffers_from_the_hosts_driver_is_warned_of() {
    let warning = "0000:0e:00.0: amdgpu may leave a card of the family amd-apu in disorder when it gets it back after a \
                   guest; `return_to: vfio` avoids that";
    for (yaml, functions, expected) in [
        ("gpu: {}", &["0000:0e:00.0", "0000:0e:00.1"][..], 1),
        ("gpu: {return_to: host}", &["0000:0e:00.0", "0000:0e:00.1"], 1),
        ("gpu: {return_to: vfio}", &["0000:0e:00.0", "0000:0e:00.1"], 0),
        ("gpu: {}", &CARD, 0),
    ] {
        let outcome = machine().prepare(&player(1, functions, XML, yaml)).unwrap();
        let warnings = outcome.notes.iter().filter(|note| note.text == warning);
        assert_eq!(warnings.count(), expected, "{yaml}, {functions:?}: {:?}", outcome.notes);
    }
}

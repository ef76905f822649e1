//! Cards that do not answer, before the guest or after it.

use super::{CARD, DISPLAY, HOST_DRIVERS, ON_VFIO, PORTS, gamer, machine, machine_with};
use nix::errno::Errno;

use crate::support::{Machine, assert_same};
use vfio_hook::ledger::{Cleared, SettingKey};

pub(super) const LOG: &str = "/simulated/pci/log";

/// The host with a log of what is done to PCI functions.
pub(super) fn logging() -> Machine {
    machine_with(&format!("{LOG} =\n"))
}

pub(super) fn forget_log(machine: &Machine) {
    machine.set(LOG, "");
}

#[test]
fn a_card_that_is_dead_before_the_guest_is_not_touched() {
    let machine = logging();
    let life = gamer("gpu: {}");
    machine.breaks(CARD[0], "dead");
    let dead = machine.files();
    insta::assert_snapshot!("dead_before", machine.prepare(&life).unwrap_err().to_string());
    assert_same(&machine.files(), &dead, "refused");
    let quarantine = machine.quarantine().unwrap();
    assert_eq!(quarantine.guest, "guest1");
    assert_eq!(quarantine.evidence, ["0000:03:00.0: config space reads ff"]);
    assert!(machine.record().unwrap().leases.is_empty());
    // libvirt's `release` after a refused `prepare`.
    machine.release(&life).unwrap();
    assert_same(&machine.files(), &dead, "released");

    // A process that asked the card again would hang, and say so.
    machine.breaks(CARD[0], "config-hangs");
    let error = machine.prepare(&life).unwrap_err().to_string();
    assert!(error.contains("is in quarantine since guest guest1, "), "{error}");
    assert!(error.contains(" s ago: 0000:03:00.0: config space reads ff"), "{error}");
    assert_eq!(machine.record().unwrap().quarantines.len(), 1);

    machine.breaks(CARD[0], "dead");
    let Cleared::No { evidence } = machine.clear_quarantine() else { panic!("cleared") };
    assert_eq!(evidence, ["0000:03:00.0: config space reads ff"]);
    machine.heals(CARD[0]);
    let healed = machine.files();
    assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
    machine.assert_is(&healed, "cleared");
    assert!(matches!(machine.clear_quarantine(), Cleared::NotThere));
    machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), HOST_DRIVERS);
}

/// A host without descriptors for a while says nothing of the card.
#[test]
fn a_card_that_could_not_be_asked_is_asked_again() {
    let machine = logging();
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.faults.refuse_read(format!("/sys/bus/pci/devices/{DISPLAY}/config"), Errno::EMFILE);
    let faults = machine.faults.clone();
    let healer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        faults.clear();
    });
    let outcome = machine.release(&life).unwrap();
    healer.join().unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    assert!(machine.quarantine().is_none(), "{outcome:?}");
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    machine.set(LOG, "");
    machine.assert_is(&before, "released");
}

/// What wedges while the guest runs: which function or port, and how the evidence begins.
const WEDGED: [(&str, &str); 4] = [
    (CARD[0], "0000:03:00.0: config space reads ff"),
    (CARD[1], "0000:03:00.1: config space reads ff"),
    (PORTS[0], "port 0000:02:00.0: config space reads ff"),
    (PORTS[2], "port 0000:00:01.1: config space reads ff"),
];

#[test]
fn a_card_that_dies_with_the_guest_is_kept_from_all_drivers_until_it_answers() {
    for (address, evidence) in WEDGED {
        for return_to in ["host", "host-if-clean", "vfio"] {
            let machine = logging();
            let before = machine.files();
            let life = gamer(&format!("gpu: {{return_to: {return_to}}}"));
            machine.prepare(&life).unwrap();
            let taken = machine.files();
            forget_log(&machine);
            machine.started(&life).unwrap();
            machine.breaks(address, "dead");
            let outcome = machine.release(&life).unwrap();
            let context = format!("{address}, {return_to}");
            assert_eq!(outcome.failures, [""; 0], "{context}");
            // Nothing was done to it at all.
            assert_eq!(machine.get(LOG), "", "{context}");
            let words = format!("is in quarantine: {evidence}; `vfio-hook gpu clear 0000:03:00` looks again");
            assert!(outcome.notes.iter().any(|note| note.text.ends_with(&words)), "{context}: {outcome:?}");
            let record = machine.record().unwrap();
            assert!(record.leases.is_empty(), "{context}");
            assert_eq!(record.quarantines.len(), 1, "{context}");
            // What it was before is still known.
            assert_eq!(record.entries().filter(|entry| is_of_card(&entry.key())).count(), 15, "{context}");
            for awake in CARD.iter().chain(&PORTS) {
                assert_eq!(machine.attribute(awake, "power/control"), "on", "{context}");
            }

            // Later events leave it alone.
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.prepare(&life).unwrap_err();
            let other = crate::support::greedy(&machine, 2, "4-5", 10);
            machine.prepare(&other).unwrap();
            machine.release(&other).unwrap();
            assert_eq!(machine.get(LOG), "", "{context}");
            assert_eq!(machine.record().unwrap(), record, "{context}");

            machine.heals(address);
            let Cleared::Yes(outcome) = machine.clear_quarantine() else { panic!("{context}: not cleared") };
            assert_eq!(outcome.failures, [""; 0]);
            let kept_awake = machine.record().map_or(0, |record| record.kept_awake.len());
            assert_eq!(kept_awake, usize::from(return_to == "vfio"), "{context}");
            assert_eq!(machine.has_ledger(), return_to == "vfio", "{context}");
            if return_to == "vfio" {
                assert_eq!(machine.drivers(), ON_VFIO);
                assert_same(&but_power(&machine), &but_power_of(taken), &context);
            } else {
                machine.set(LOG, "");
                machine.assert_is(&before, &context);
            }
            machine.prepare(&life).unwrap();
            machine.release(&life).unwrap();
        }
    }
}

fn is_of_card(setting: &SettingKey) -> bool {
    matches!(setting, SettingKey::PciBindings(_) | SettingKey::Attribute(_))
}

fn but_power_of(mut files: crate::support::Files) -> crate::support::Files {
    files.retain(|path, _| {
        !path.ends_with("/d3cold_allowed")
            && !path.ends_with("/power/control")
            && !path.starts_with("/simulated")
    });
    files
}

fn but_power(machine: &Machine) -> crate::support::Files {
    but_power_of(machine.files())
}

#[test]
fn what_the_kernels_log_says_decides_where_a_card_goes() {
    for (return_to, drivers) in [("host", HOST_DRIVERS), ("host-if-clean", ON_VFIO), ("vfio", ON_VFIO)] {
        let machine = machine();
        let life = gamer(&format!("gpu: {{return_to: {return_to}}}"));
        machine.kernel_says("pcieport 0000:02:00.0: AER: Uncorrectable (Fatal) error message received");
        let outcome = machine.prepare(&life).unwrap();
        assert!(
            outcome.notes.iter().all(|note| !note.text.contains("AER")),
            "what was said before: {outcome:?}"
        );
        machine.kernel_says("vfio-pci 0000:03:00.0: not ready 1023ms after bus reset; waiting");
        machine.kernel_says("vfio-pci 0000:0f:00.3: not ready 65535ms after bus reset; giving up");
        let outcome = machine.release(&life).unwrap();
        assert_eq!(machine.drivers(), drivers, "{return_to}");
        assert!(!machine.has_ledger());
        let told: Vec<_> =
            outcome.notes.iter().filter(|note| note.text.contains("not ready 1023ms")).collect();
        assert_eq!(told.len(), 1, "{outcome:?}");
        assert_eq!(told[0].text.ends_with("; it stays with VFIO"), drivers == ON_VFIO, "{outcome:?}");
    }
}

#[test]
fn a_card_that_the_hosts_driver_is_not_content_with_stays_with_vfio() {
    for fault in ["probe-fails amdgpu", "", "log"] {
        let machine = machine();
        let life = gamer("gpu: {}");
        machine.prepare(&life).unwrap();
        match fault {
            // The driver ends without having made a DRM device.
            "" => std::fs::remove_dir_all(machine.path(&format!("{DISPLAY}/drm"))).unwrap(),
            "log" => {
                let log = machine.path("/dev/kmsg");
                machine.faults.interrupt("/sys/bus/pci/drivers_probe", move || {
                    let text = std::fs::read_to_string(&log).unwrap();
                    let line = "3,3000,1,-;[drm:psp_hw_start [amdgpu]] *ERROR* amdgpu 0000:03:00.0: PSP load kdb failed!";
                    std::fs::write(&log, format!("{}\n{line}\n", text.trim_end())).unwrap();
                });
            }
            fault => machine.breaks(CARD[0], fault),
        }
        let outcome = machine.release(&life).unwrap();
        assert_eq!(outcome.failures, [""; 0]);
        assert!(machine.quarantine().is_none(), "{fault}: {outcome:#?}");
        let expected = match fault {
            "" => "graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x): its driver made no DRM device",
            "log" => "its security processor does not start (the kernel: ",
            _ => "driver amdgpu did not take 0000:03:00.0",
        };
        let words = "it answers, and stays with VFIO for the next guest";
        let told =
            |note: &vfio_hook::ledger::Note| note.text.contains(expected) && note.text.ends_with(words);
        assert!(outcome.notes.iter().any(told), "{fault}: {outcome:#?}");
        assert_eq!(machine.drivers(), ON_VFIO, "{fault}");
        for function in CARD {
            assert_eq!(machine.attribute(function, "driver_override"), "vfio-pci", "{fault}");
        }
        let left = machine.files();
        machine.prepare(&life).unwrap();
        machine.release(&life).unwrap();
        machine.assert_is(&left, fault);
    }
}

#[test]
fn a_card_that_the_host_never_lost_is_cleared_while_the_host_uses_it() {
    let machine = machine();
    let life = gamer("gpu: {}");
    machine.breaks(CARD[0], "dead");
    machine.prepare(&life).unwrap_err();
    machine.heals(CARD[0]);
    let user =
        super::process(901, "firefox", "/user.slice/user-1000.slice/session-2.scope", "/dev/dri/card1");
    vfio_hook::host::manifest::lay_out(&user, &machine.root()).unwrap();
    let before = machine.files();
    assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
    machine.assert_is(&before, "cleared");
}

#[test]
fn a_card_that_dies_on_its_way_to_the_guest_refuses_the_start() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    let fault = machine.path(&format!("/simulated/pci/{}/fault", CARD[0]));
    machine.faults.interrupt("/sys/bus/pci/drivers_probe", move || {
        std::fs::create_dir_all(fault.parent().unwrap()).unwrap();
        std::fs::write(fault, "dead\n").unwrap();
    });
    let error = machine.prepare(&life).unwrap_err().to_string();
    assert_eq!(
        error,
        "graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x) does not answer once it is handed over: \
         0000:03:00.0: config space reads ff"
    );
    assert_eq!(machine.drivers(), ON_VFIO);
    assert!(machine.quarantine().is_some());
    machine.release(&life).unwrap();
    machine.heals(CARD[0]);
    assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
    machine.assert_is(&before, "cleared");
}

/// Nothing may keep the other card of a guest from coming home.
#[test]
fn of_two_cards_only_the_dead_one_stays() {
    let machine = machine();
    let both: Vec<&str> = CARD.into_iter().chain(["0000:0e:00.0", "0000:0e:00.1"]).collect();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    let life = super::player(1, &both, xml, "gpu: {}");
    machine.prepare(&life).unwrap();
    machine.breaks("0000:03:00.2", "dead");
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    assert_eq!(machine.driver("0000:0e:00.0"), "amdgpu");
    assert_eq!(machine.driver("0000:0e:00.1"), "snd_hda_intel");
    let record = machine.record().unwrap();
    assert!(record.leases.is_empty());
    assert_eq!(record.quarantines.len(), 1);
}

#[test]
fn a_start_that_meets_its_own_dead_card_is_told_so() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.breaks(CARD[0], "dead");
    // No event in between: libvirt was killed with its guest.
    let error = machine.prepare(&life).unwrap_err().to_string();
    let (_, since) =
        error.split_once("is in quarantine since guest guest1, ").unwrap_or_else(|| panic!("{error}"));
    let (age, evidence) = since.split_once(" s ago: ").unwrap();
    assert!(age.parse::<u32>().unwrap() < 60, "{error}");
    assert!(evidence.starts_with("0000:03:00.0: config"), "{error}");
    machine.heals(CARD[0]);
    assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
    machine.assert_is(&before, "cleared");
}

#[test]
fn a_card_that_died_when_qemu_reset_it_is_told_when_the_guest_is_up() {
    let machine = logging();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    let line = "4,2000,12345678,-;vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up";
    machine.set("/dev/kmsg", line);
    machine.qemu_runs(life.guest.uuid);
    let notes = machine.started(&life).unwrap();
    let told =
        notes.iter().filter(|note| note.text.contains("the guest may not get a picture from it")).count();
    assert_eq!(told, 1, "{notes:?}");
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
}

/// Where VFIO had it before, nothing tells by its driver that a guest had it.
#[test]
fn a_card_that_was_with_vfio_before_is_looked_at_after_the_guest_too() {
    let machine = logging();
    let life = gamer("gpu: {return_to: vfio, recover: [bus-reset]}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    for fault in ["dead until reset_subordinate", "dead"] {
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.breaks(CARD[0], fault);
        forget_log(&machine);
        machine.release(&life).unwrap();
        assert!(machine.get(LOG).contains("0000:02:00.0 reset_subordinate"), "{fault}");
        assert_eq!(machine.quarantine().is_some(), fault == "dead", "{fault}");
    }
}

#[test]
fn a_card_that_the_kernel_gave_up_is_dead_even_where_it_answers() {
    let line = "vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up";
    for (recover, is_lost) in [("", true), (", recover: [bus-reset]", false)] {
        let machine = logging();
        let life = gamer(&format!("gpu: {{return_to: host{recover}}}"));
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.kernel_says(line);
        let outcome = machine.release(&life).unwrap();
        assert_eq!(machine.quarantine().is_some(), is_lost, "{recover}: {outcome:#?}");
        let drivers = if is_lost { ON_VFIO } else { HOST_DRIVERS };
        assert_eq!(machine.drivers(), drivers, "{recover}: {outcome:#?}");
    }
}

#[test]
fn what_the_hosts_driver_said_when_it_let_go_is_told_and_forgotten() {
    let machine = logging();
    let life = gamer("gpu: {return_to: host-if-clean}");
    let log = machine.get("/dev/kmsg");
    let path = machine.path("/dev/kmsg");
    machine.faults.interrupt("/sys/bus/pci/drivers/amdgpu/unbind", move || {
        let number = log.lines().count() + 2000;
        let line = format!(
            "{log}\n3,{number},9999,-;amdgpu 0000:03:00.0: amdgpu: suspend of IP block <smu> failed -62\n"
        );
        std::fs::write(&path, line).unwrap();
    });
    let outcome = machine.prepare(&life).unwrap();
    assert!(
        outcome.notes.iter().any(|note| note.text.contains("suspend of IP block <smu> failed")),
        "{outcome:#?}"
    );
    machine.started(&life).unwrap();
    let outcome = machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), HOST_DRIVERS, "{outcome:#?}");
}

#[test]
fn a_log_that_is_overwritten_is_no_clean_log() {
    for (return_to, drivers) in [("host", HOST_DRIVERS), ("host-if-clean", ON_VFIO)] {
        let machine = logging();
        let life = gamer(&format!("gpu: {{return_to: {return_to}}}"));
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.set("/dev/kmsg", "6,9000,99999,-;usb 1-1: new high-speed USB device");
        let outcome = machine.release(&life).unwrap();
        let words = "the kernel has overwritten what it said in the meantime";
        assert!(outcome.notes.iter().any(|note| note.text.contains(words)), "{outcome:#?}");
        assert_eq!(machine.drivers(), drivers, "{return_to}");
    }
}

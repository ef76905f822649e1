//! Desktops with their picture on another card: with `compositors: udev-remove` they are told that this one is removed.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use vfio_hook::host::manifest;
use vfio_hook::ledger::Record;
use vfio_hook::lifecycle::{self, LifecycleError};

use super::{CARD, HOST_DRIVERS, ON_VFIO, drm_of, gamer, machine_with, process};
use crate::support::{Killed, Machine, soon};

const SCOPE: &str = "/user.slice/user-1000.slice/session-2.scope";
const UDEV: &str = "gpu: {compositors: udev-remove}";

/// Hyprland with its picture elsewhere and this card open, logind that opened it for it, and what udev is told.
fn desktop() -> Machine {
    machine_with(&format!(
        "{}{}{}/simulated/uevents =\n",
        drm_of("/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0", 0),
        process(900, "Hyprland", SCOPE, "/dev/dri/card1"),
        process(700, "systemd-logind", "/system.slice/systemd-logind.service", "/dev/dri/card1"),
    ))
}

/// The same, where both let go of a card that is removed, and open it again when it is added.
fn following() -> Machine {
    let machine = desktop();
    let lines = "/simulated/desktops/900/follows =\n/simulated/desktops/700/follows =\n";
    manifest::lay_out(lines, &machine.root()).unwrap();
    machine
}

/// What udev was told since the last call.
fn told(machine: &Machine) -> Vec<String> {
    let lines = machine.get("/simulated/uevents").lines().map(str::to_owned).collect();
    machine.set("/simulated/uevents", "");
    lines
}

fn has_card_open(machine: &Machine) -> bool {
    machine.path("/proc/900/fd/9").is_symlink() && machine.path("/proc/700/fd/9").is_symlink()
}

#[test]
fn a_desktop_that_follows_lets_go_and_has_the_card_again_afterwards() {
    let machine = following();
    told(&machine);
    let before = machine.files();
    let life = gamer(UDEV);
    let taken = machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    assert!(!has_card_open(&machine));
    // The second one is the kernel's own, when the driver lets go.
    assert_eq!(told(&machine), ["remove card1 (synthetic)", "remove card1"]);
    let changes: Vec<String> = taken.changes.iter().map(ToString::to_string).collect();
    let at = |words: &str| {
        changes.iter().position(|change| change.starts_with(words)).unwrap_or_else(|| panic!("{changes:#?}"))
    };
    let event = at("last udev event of the display 0000:03:00.0: add -> remove");
    let users = at("users of 0000:03:00.{0,1,2,3}: systemd-logind (process 700");
    assert!(event < users && users < at("driver of "), "{changes:#?}");
    // Nothing of it is left to be given back: the display is gone with its driver.
    let record = machine.record().unwrap();
    assert!(!record.entries().any(|entry| entry.key().to_string().starts_with("last udev event")));

    machine.started(&life).unwrap();
    let returned = machine.release(&life).unwrap();
    assert_eq!((machine.drivers(), returned.failures.as_slice()), (HOST_DRIVERS.map(str::to_owned), &[][..]));
    // The driver's own, and no second one.
    assert_eq!(told(&machine), ["add card1"]);
    assert!(has_card_open(&machine));
    machine.assert_is(&before, "released");
    // As often as the guest starts.
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    told(&machine);
    machine.assert_is(&before, "released again");
}

#[test]
fn test_shows_the_event_and_sends_none() {
    let machine = following();
    let before = machine.files();
    let (host, life) = (machine.host(), gamer(UDEV));
    let record = Record::empty(host.boot_id().unwrap());
    let prepared = lifecycle::plan_prepare(&host, &record, &life.loaded, &life.guest, soon()).unwrap();
    let shown: Vec<String> = prepared.plan.changes.iter().map(ToString::to_string).collect();
    assert!(
        shown.contains(&"last udev event of the display 0000:03:00.0: add -> remove".to_owned()),
        "{shown:#?}"
    );
    let said = "Hyprland (process 900, session-2.scope of user 1000) has /dev/dri/card1 open: udev tells it that \
                0000:03:00.{0,1,2,3} is removed; whether it lets go of a real card was not seen";
    assert!(prepared.notes.iter().any(|note| note.text == said), "{:#?}", prepared.notes);
    machine.assert_is(&before, "shown");
}

#[test]
fn one_that_does_not_react_refuses_the_start_and_the_card_is_there_again_for_it() {
    let machine = desktop();
    told(&machine);
    let before = machine.files();
    let begun = Instant::now();
    let refused = machine.prepare(&gamer(UDEV)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let error = refused.to_string();
    assert!(error.contains("Hyprland does not react to udev's event that the card is removed"), "{error}");
    assert!(error.contains("Hyprland (process 900, session-2.scope"), "{error}");
    assert_eq!(
        refused.help().unwrap(),
        "`gpu.holders.wait` gives it more time; `AQ_DRM_DEVICES=/dev/dri/cardN` in Hyprland's environment, with the host's \
         own card keeps it from the card at all, with `return_to: vfio` from the first guest on; `display_manager: stop` \
         ends it; `gpu.compositors` of the YAML file asks for the event"
    );
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    assert_eq!(told(&machine), ["remove card1 (synthetic)", "add card1 (synthetic)"]);
    machine.assert_is(&before, "refused");
}

/// Whether it was sent all the same is not known: it is taken back as soon as the kernel takes an event.
#[test]
fn an_event_that_the_kernel_refuses_refuses_the_start_and_is_taken_back() {
    let machine = following();
    told(&machine);
    let before = machine.files();
    let uevent = format!("{}/drm/card1/uevent", super::DISPLAY);
    machine.faults.refuse(&uevent, Errno::EACCES);
    let life = gamer(UDEV);
    let refused = machine.prepare(&life).unwrap_err().to_string();
    assert!(refused.contains(&uevent) && refused.contains("remove"), "{refused}");
    assert_eq!((machine.drivers(), told(&machine)), (HOST_DRIVERS.map(str::to_owned), Vec::new()));
    machine.faults.clear();
    machine.release(&life).unwrap();
    assert_eq!(told(&machine), ["add card1 (synthetic)"]);
    machine.assert_is(&before, "refused");
}

/// The program is named as ever; the desktop has done what it was asked.
#[test]
fn another_program_that_stays_is_no_desktop_that_does_not_react() {
    let machine = following();
    told(&machine);
    let before = machine.files();
    let (blender, root) = (process(905, "blender", "/user.slice", "/dev/dri/card1"), machine.root());
    machine.faults.interrupt(format!("{}/drm/card1/uevent", super::DISPLAY), move || {
        manifest::lay_out(&blender, &root).unwrap();
    });
    let error = machine.prepare(&gamer(UDEV)).unwrap_err().to_string();
    assert!(error.contains("still in use: blender (process 905)"), "{error}");
    assert!(!error.contains("react"), "{error}");
    assert_eq!(told(&machine), ["remove card1 (synthetic)", "add card1 (synthetic)"]);
    std::fs::remove_dir_all(machine.path("/proc/905")).unwrap();
    machine.assert_is(&before, "refused");
}

#[test]
fn other_programs_are_refused_before_anybody_is_told_anything() {
    let machine = following();
    let ollama = process(901, "ollama", "/system.slice/ollama.service", "/dev/dri/card1");
    manifest::lay_out(&ollama, &machine.root()).unwrap();
    let before = machine.files();
    let error = machine.prepare(&gamer(UDEV)).unwrap_err();
    assert!(matches!(error, LifecycleError::Refused(_)), "{error}");
    let error = error.to_string();
    assert!(error.contains("ollama (process 901") && !error.contains("Hyprland"), "{error}");
    machine.assert_is(&before, "refused");
}

/// The desktop of a host with this one card would end with it.
#[test]
fn a_desktop_without_another_card_is_told_nothing() {
    let machine = machine_with(&format!(
        "{}/simulated/desktops/900/follows =\n/simulated/uevents =\n",
        process(900, "Hyprland", SCOPE, "/dev/dri/card1")
    ));
    let before = machine.files();
    let error = machine.prepare(&gamer(UDEV)).unwrap_err();
    assert!(matches!(error, LifecycleError::Refused(_)), "{error}");
    machine.assert_is(&before, "refused");
}

#[test]
fn without_the_key_and_without_a_desktop_nobody_is_told_anything() {
    let machine = following();
    let before = machine.files();
    let error = machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string();
    assert!(error.contains("is in use: ") && error.contains("`compositors: udev-remove`"), "{error}");
    machine.assert_is(&before, "refused");

    let alone = machine_with("/simulated/uevents =\n");
    alone.prepare(&gamer(UDEV)).unwrap();
    assert_eq!(told(&alone), ["remove card1"], "the kernel's own");
}

#[test]
fn a_later_step_that_fails_has_the_desktop_open_the_card_again() {
    let machine = following();
    told(&machine);
    let before = machine.files();
    machine.breaks(CARD[0], "probe-fails vfio-pci");
    machine.prepare(&gamer(UDEV)).unwrap_err();
    machine.heals(CARD[0]);
    assert!(has_card_open(&machine));
    told(&machine);
    machine.assert_is(&before, "refused");
}

/// The desktop is told `add` once it was told `remove`, wherever the program was killed; a second `add` is no change.
#[test]
fn a_killed_program_leaves_no_desktop_without_the_card() {
    let machine = following();
    told(&machine);
    let before = machine.files();
    let life = gamer(UDEV);
    for nth in 1.. {
        machine.faults.panic_at_write(nth);
        let lived: Result<(), Killed> = machine.until_killed(|| drop(machine.prepare(&life).unwrap()));
        machine.faults.clear();
        let events = told(&machine);
        if nth % 2 == 0 {
            machine.open_and_close();
        }
        machine.release(&life).unwrap();
        let all: Vec<String> = events.into_iter().chain(told(&machine)).collect();
        let last = all.last().is_none_or(|last| last.starts_with("add"));
        assert!(last, "killed at write {nth}: {all:?}");
        machine.assert_is(&before, &format!("killed at write {nth}"));
        if lived.is_ok() {
            assert!(nth > 40, "{nth}");
            return;
        }
    }
}

/// A desktop that hears of a card that hangs would open it.
#[test]
fn nobody_is_told_of_a_card_in_quarantine() {
    let machine = following();
    told(&machine);
    let before = machine.files();
    let mut hanging = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    machine.breaks(CARD[0], &format!("unbind-hangs {}", hanging.id()));
    machine.prepare(&gamer(UDEV)).unwrap_err();
    assert!(machine.quarantine().is_some());
    assert_eq!(told(&machine), ["remove card1 (synthetic)"]);
    machine.open_and_close();
    assert_eq!(told(&machine), [""; 0]);
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    machine.heals(CARD[0]);
    machine.clear_quarantine();
    assert!(has_card_open(&machine), "{:#?}", machine.record());
    told(&machine);
    machine.assert_is(&before, "cleared");
}

//! `gpu clear`: which cards leave the quarantine.

use std::time::Duration;

use super::*;

#[test]
fn a_card_that_answers_again_leaves_the_quarantine() {
    let machine = Machine::new();
    machine.quarantine(None);
    let (text, exit) = clear(&machine, None, soon());
    let mut lines = text.lines();
    let first = "graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x) is out of quarantine";
    assert_eq!(lines.next(), Some(first));
    let drivers = lines.find(|line| line.starts_with("  driver of 0000:03:00.{0,1,2,3} ")).unwrap();
    assert!(drivers.contains("  vfio-pci"), "{drivers}");
    let then = drivers.split_once(" -> ").unwrap().1;
    assert!(then.starts_with("amdgpu, snd_hda_intel, xhci_hcd, i2c-designware-pci"), "{drivers}");
    assert_eq!(exit, Exit::Done);
    assert_eq!(Ledger::peek(&machine.host()).unwrap(), None);
    let driver = machine.host().pci_driver("0000:03:00.0".parse().unwrap()).unwrap();
    assert_eq!(driver.unwrap().as_str(), "amdgpu");
}

#[test]
fn a_card_that_does_not_stays() {
    let machine = Machine::new();
    machine.quarantine(None);
    machine.fault("0000:03:00.0", "dead");
    let (text, exit) = clear(&machine, Some("03:00.1"), Deadline::after(Duration::from_millis(100)));
    insta::assert_snapshot!(text, @"
    graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x) stays in quarantine
      0000:03:00.0: config space reads ff
    help: a card that stays dead needs the host's power switched off and on; `vfio-hook gpu report 0000:03:00` prints what a report of the problem needs
    ");
    assert_eq!(exit, Exit::Failed);
    assert_eq!(machine.record().quarantines.len(), 1);
}

#[test]
fn a_card_that_hangs_stays_and_is_not_asked() {
    let machine = Machine::new();
    machine.quarantine(Some(stuck()));
    machine.fault("0000:03:00.0", "config-hangs 4711");
    let (text, exit) = clear(&machine, None, soon());
    insta::assert_snapshot!(text, @"
    graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x) stays in quarantine
      failed to write `0000:03:00.0` to /sys/bus/pci/drivers/vfio-pci/unbind: the kernel has not come back within 30 s (process 1)
    help: process 1 hangs in the kernel and cannot be ended: only restarting the host frees the card; `vfio-hook gpu report 0000:03:00` prints what a report of the problem needs
    ");
    assert_eq!(exit, Exit::Failed);
}

#[test]
fn a_card_that_hangs_while_it_is_cleared_is_not_asked_again() {
    let machine = Machine::new();
    machine.quarantine(None);
    machine.fault("0000:03:00.0", "config-hangs");
    let (text, exit) = clear(&machine, None, soon());
    assert_eq!(exit, Exit::Failed);
    assert!(text.contains("process 1 hangs in the kernel"), "{text}");
    assert!(text.contains("only restarting the host frees the card"), "{text}");
    assert!(shown(&machine).contains("not asked: the kernel already hangs on it"));
}

#[test]
fn without_a_quarantine_nothing_is_done() {
    let machine = Machine::new();
    assert_eq!(clear(&machine, None, soon()), ("no card is in quarantine".to_owned(), Exit::Done));
    let (text, exit) = clear(&machine, Some("03:00"), soon());
    assert_eq!((text.as_str(), exit), ("0000:03:00 is not in quarantine", Exit::Done));
    assert!(!machine.path(STATE_DIR).exists(), "looking has made a folder on the host");
}

#[test]
fn of_several_cards_one_has_to_be_named() {
    let machine = Machine::new();
    machine.quarantine(None);
    let mut record = machine.record();
    let mut other = record.quarantines[0].clone();
    other.terms.functions = PciFunctions::new(["0000:0e:00.0".parse().unwrap()]).unwrap();
    other.terms.name = "graphics card 0000:0e:00.0".to_owned();
    record.quarantines.push(other);
    machine.write(record);
    let error = clear::carry_out(&mut machine.host(), None, soon()).unwrap_err();
    insta::assert_snapshot!(error, @"
    several cards are in quarantine: say which
    help: there is graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x), graphics card 0000:0e:00.0
    ");
    assert_eq!(machine.record().quarantines.len(), 2);
}

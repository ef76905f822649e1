//! What people see of the ledger, on hosts in folders.

use std::fs;

use super::*;
use crate::gpu::RecoveryStep;
use crate::host::ProcessId;
use crate::host::hung_peer::{HungPeer, Kind};
use crate::host::manifest::lay_out;
use crate::host::simulated::SimulatedMonitor;
use crate::ledger::{Evidence, IrqbalanceBan, MonitorClaim, MonitorTurn, Repair, RepairKind, Writer};
use crate::lifecycle::testing::{GUEST, Machine, stuck};
use crate::monitor::{FeatureControl, VcpValue};

fn shown(machine: &Machine, only: Option<&str>) -> String {
    shown_of(machine, machine.record(), Writer::Nobody, only)
}

fn shown_of(machine: &Machine, record: Record, writer: Writer, only: Option<&str>) -> String {
    lines(&view(&machine.host(), &Glance { record, writer }, only)).join("\n")
}

#[test]
fn cards_in_quarantine_are_shown_although_nobody_holds_anything() {
    let machine = Machine::new();
    machine.quarantine(None);
    insta::assert_snapshot!(shown(&machine, None), @"
    no guest holds anything
    graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x): in quarantine since 2 h, guest win11
      0000:03:00.0: config space reads ff
      `vfio-hook gpu 0000:03:00` shows it, `vfio-hook gpu clear 0000:03:00` looks at it again
    ");
    assert_eq!(shown(&machine, Some("win11")), shown(&machine, None));
    assert_eq!(shown(&machine, Some("other")), "no guest holds anything");
}

#[test]
fn what_hangs_is_shown_at_the_end() {
    let machine = Machine::new();
    machine.quarantine(Some(stuck()));
    insta::assert_snapshot!(shown(&machine, None), @"
    no guest holds anything
    graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x): in quarantine since 2 h, guest win11
      0000:03:00.0: config space reads ff
      `vfio-hook gpu 0000:03:00` shows it, `vfio-hook gpu clear 0000:03:00` looks at it again
    graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x): an operation on it has not ended
      process 1 since 2 h: failed to write `0000:03:00.0` to /sys/bus/pci/drivers/vfio-pci/unbind: the kernel has not come back within 30 s (process 1)
      process 1 hangs in the kernel and cannot be ended: only restarting the host frees the card
    ");

    let machine = Machine::new();
    machine.prepare().unwrap();
    let mut record = machine.record();
    for lease in record.leases.values_mut() {
        lease.cards[0].stuck = Some(stuck());
    }
    machine.write(record);
    let shown = shown(&machine, Some("win11"));
    assert!(
        shown.starts_with("win11 (7950f00d-0011-4a5e-8b3c-5f0e1d2c3b4a): prepared, since 2 h"),
        "{shown}"
    );
    let lines: Vec<&str> = shown.lines().collect();
    insta::assert_snapshot!(lines[lines.len() - 3..].join("\n"), @"
    graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x): an operation on it has not ended
      process 1 since 2 h: failed to write `0000:03:00.0` to /sys/bus/pci/drivers/vfio-pci/unbind: the kernel has not come back within 30 s (process 1)
      process 1 hangs in the kernel and cannot be ended: only restarting the host frees the card
    ");
}

#[test]
fn a_card_that_waits_for_libvirt_is_told() {
    let machine = Machine::new();
    machine.prepare().unwrap();
    let mut record = machine.record();
    record.leases.get_mut(&GUEST).unwrap().phase = LeaseState::Started;
    machine.write(record);
    let first_lines = || shown(&machine, None).lines().take(3).collect::<Vec<_>>().join("\n");
    assert!(!first_lines().contains("libvirt"), "{}", first_lines());
    let folder = machine.path("/run/libvirt/qemu");
    fs::create_dir_all(&folder).unwrap();
    let status = format!("<domstatus pid='7'><domain><uuid>{GUEST}</uuid></domain></domstatus>");
    fs::write(folder.join("win11.xml"), status).unwrap();
    insta::assert_snapshot!(first_lines(), @"
    win11 (7950f00d-0011-4a5e-8b3c-5f0e1d2c3b4a): started, since 2 h, does not run
      waits for libvirt, which has not noticed that the guest is gone, and resets
      its card when it does: start libvirt, or restart it where it hangs
    ");
}

#[test]
fn a_repair_is_shown_while_it_is_made_and_when_its_process_was_killed() {
    let machine = Machine::new();
    machine.prepare().unwrap();
    machine.write(machine.record());
    let alive = machine.host().this_process();
    for (by, expected) in [
        (alive, "`rescan` of RX 6800 since 2 h (process PID)"),
        (
            ProcessId { start_time: alive.start_time + 1, ..alive },
            "`rescan` of RX 6800 since 2 h (process PID, which has ended)",
        ),
    ] {
        let mut record = machine.record();
        let lease = record.leases.get_mut(&GUEST).unwrap();
        let kind = RepairKind::WakeCard { card: "RX 6800".to_owned(), step: RecoveryStep::Rescan };
        lease.repair = Some(Repair { kind, by, since: lease.since });
        machine.write(record);
        let shown = shown(&machine, None).replace(&alive.pid.to_string(), "PID");
        assert_eq!(shown.lines().nth(1).map(str::trim), Some(expected), "{shown}");
    }
}

/// A ledger whose guest's card is on its way home, which this process or one that is dead brings it.
fn giving_back(machine: &Machine, by: ProcessId) -> Record {
    machine.prepare().unwrap();
    machine.write(machine.record());
    let mut record = machine.record();
    record.leases.get_mut(&GUEST).unwrap().phase = LeaseState::GivingBack(by);
    for entry in record.entries_mut() {
        if !matches!(entry.key(), SettingKey::PciBindings(_) | SettingKey::Keeper(_)) {
            entry.drop_claim(GUEST);
            entry.announce_baseline();
        }
    }
    record
}

#[test]
fn what_a_process_is_giving_back_is_told_from_what_a_killed_one_left() {
    let machine = Machine::new();
    let alive = machine.host().this_process();
    let dead = ProcessId { start_time: alive.start_time + 1, ..alive };
    let record = giving_back(&machine, alive);
    let headings = |record: Record, writer| {
        let shown = shown_of(&machine, record, writer, None).replace(&alive.pid.to_string(), "PID");
        let headings: Vec<&str> = shown.lines().filter(|line| !line.starts_with(' ')).collect();
        headings.join("\n")
    };
    let by = |by| {
        let mut record = record.clone();
        record.leases.get_mut(&GUEST).unwrap().phase = LeaseState::GivingBack(by);
        record
    };
    insta::assert_snapshot!(headings(by(alive), Writer::Nobody), @"
    win11 (7950f00d-0011-4a5e-8b3c-5f0e1d2c3b4a): giving back (process PID), since 2 h, does not run
    15 changes still to be made by process PID:
    ");
    insta::assert_snapshot!(headings(by(dead), Writer::Nobody), @"
    win11 (7950f00d-0011-4a5e-8b3c-5f0e1d2c3b4a): giving back (process PID, which has ended), since 2 h, does not run
    15 changes half done by a run that was killed; the next event or `vfio-hook undo --stale` settles it:
    ");

    // An event is just settling what is left.
    let mut left = record.clone();
    left.leases.clear();
    for entry in left.entries_mut() {
        entry.drop_claim(GUEST);
    }
    insta::assert_snapshot!(headings(left, Writer::AtWork), @"
    no guest holds anything
    17 changes still to be made by another run of vfio-hook:
    ");
}

#[test]
fn a_card_on_its_way_was_changed_by_nobody_else() {
    let machine = Machine::new();
    let record = giving_back(&machine, machine.host().this_process());
    for function in 0..4 {
        let link = format!("/sys/bus/pci/devices/0000:03:00.{function}/driver");
        std::fs::remove_file(machine.path(&link)).unwrap();
    }
    let shown = shown_of(&machine, record, Writer::Nobody, None);
    assert!(!shown.contains("changed from outside"), "{shown}");
}

#[test]
fn a_daemon_that_hangs_is_not_gone() {
    let machine = Machine::new();
    machine.prepare().unwrap();
    let mut record = machine.record();
    let socket = serde_json::from_str("\"irqbalance1.sock\"").unwrap();
    let mut entry = Entry::new(IrqbalanceBan(socket), "7".parse().unwrap());
    entry.claims.insert(GUEST, "2-3".parse().unwrap());
    record.put(entry);
    machine.write(record);
    let shown = |remark: &str| {
        let shown = shown(&machine, None);
        let line = shown.lines().find(|line| line.contains("irqbalance")).unwrap();
        assert!(line.ends_with(&format!("7 -> 7   {remark}")), "{shown}");
    };
    shown("gone");
    let folder = machine.path("/run/irqbalance");
    std::fs::create_dir_all(&folder).unwrap();
    let _peer = HungPeer::start(&folder.join("irqbalance1.sock"), Kind::SaysNothing);
    shown("does not answer now");
}

#[test]
fn a_monitor_whose_word_is_worth_nothing_is_not_said_to_be_changed() {
    let machine = Machine::new();
    machine.prepare().unwrap();
    let lines = SimulatedMonitor::lg("0000:41:00.0", "DP-1", 7).manifest();
    lay_out(&format!("/sys/module/i2c_dev/initstate = live\n{lines}"), &machine.path("/")).unwrap();
    let found = machine.host().monitors(Deadline::after(PATIENCE)).unwrap();
    let monitor = found.monitors[0].key.clone();
    let setting = MonitorSetting(MonitorFeature { monitor, control: FeatureControl::default() });
    for (evidence, remark) in
        [(Evidence::None, "not verifiable"), (Evidence::Seen, "changed from outside: now hdmi-2")]
    {
        // It says another input than those of the host and the guest.
        std::fs::write(machine.path("/simulated/i2c/i2c-7/features/0x60"), "0x12\n").unwrap();
        let mut record = machine.record();
        let mut entry = Entry::new(setting.clone(), setting.shown(VcpValue(0x0f)));
        let claim = MonitorClaim { value: VcpValue(0x11), turn: MonitorTurn::FIRST, evidence };
        entry.claims.insert(GUEST, claim);
        record.put(entry);
        let shown = shown_of(&machine, record, Writer::Nobody, None);
        let line = shown.lines().find(|line| line.contains("input of")).unwrap();
        assert!(line.ends_with(remark), "{shown}");
    }
}

#[test]
fn programs_read_the_same() {
    let machine = Machine::new();
    machine.quarantine(Some(stuck()));
    let mut record = machine.record();
    record.quarantines[0].since = 1_700_000_000;
    record.quarantines[0].terms.stuck.as_mut().unwrap().since = 1_700_000_000;
    let view = view(&machine.host(), &Glance { record, writer: Writer::Nobody }, None);
    insta::assert_snapshot!(serde_json::to_string_pretty(&view).unwrap(), @r#"
    {
      "leases": [],
      "unsettled": [],
      "quarantines": [
        {
          "card": "graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x)",
          "functions": [
            "0000:03:00.0",
            "0000:03:00.1",
            "0000:03:00.2",
            "0000:03:00.3"
          ],
          "guest": "win11",
          "since": 1700000000,
          "evidence": [
            "0000:03:00.0: config space reads ff"
          ]
        }
      ],
      "stuck": [
        {
          "card": "graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x)",
          "process": 1,
          "what": "failed to write `0000:03:00.0` to /sys/bus/pci/drivers/vfio-pci/unbind: the kernel has not come back within 30 s (process 1)",
          "since": 1700000000,
          "kind": "in-kernel",
          "help": "process 1 hangs in the kernel and cannot be ended: only restarting the host frees the card"
        }
      ]
    }
    "#);
}

#[test]
fn a_card_that_is_kept_awake_is_listed() {
    let machine = Machine::new();
    machine.quarantine(None);
    let mut record = machine.record();
    let terms = record.quarantines.remove(0).terms;
    record.kept_awake.push(KeptAwake {
        owner: GuestUuid::from_bytes([1; 16]),
        card: terms.name,
        functions: terms.functions,
        guest: "win11".to_owned(),
        since: 0,
    });
    let shown = |only| {
        let glance = Glance { record: record.clone(), writer: Writer::Nobody };
        lines(&view(&machine.host(), &glance, only)).join("\n")
    };
    let all = shown(None);
    assert!(all.contains("navi-2x): stays with VFIO, and awake, since "), "{all}");
    assert!(all.ends_with("`keep_awake: never` lets it sleep"), "{all}");
    assert!(shown(Some("win11")).contains("awake"));
    assert!(!shown(Some("other")).contains("awake"));
}

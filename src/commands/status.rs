//! `vfio-hook status`: who holds what, since when, and what differs from the ledger.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use serde::Serialize;

use super::lock::LockView;
use super::output::{self, Format};
use super::quarantines::{self, QuarantineView, StuckView};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::guest::{GuestName, GuestUuid};
use crate::host::Host;
use crate::ledger::{Entry, Glance, Knob, Ledger, Phase, Record, Value, Want};
use crate::lifecycle;
use crate::monitor::MonitorFeature;
use crate::wall_clock::age;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Serialize)]
struct View {
    leases: Vec<LeaseView>,
    /// Changes that are made just now, or that nobody makes any more.
    unsettled: Vec<String>,
    /// Those among them that a process is at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    under_way: Vec<String>,
    /// The processes that give something back.
    #[serde(skip)]
    workers: Vec<i32>,
    quarantines: Vec<QuarantineView>,
    stuck: Vec<StuckView>,
    /// The ledger's lock, while it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<LockView>,
}

#[derive(Debug, Serialize)]
struct LeaseView {
    guest: String,
    uuid: GuestUuid,
    /// Seconds since 1970.
    since: u64,
    phase: &'static str,
    /// Who takes or gives back what is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<WorkerView>,
    runs: bool,
    held: Vec<HeldView>,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    process: i32,
    alive: bool,
}

#[derive(Debug, Serialize)]
struct HeldView {
    knob: String,
    baseline: String,
    written: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<String>,
    wants: String,
    differs: bool,
    /// Whether it is there but may not answer: a monitor, a daemon that hangs.
    #[serde(skip)]
    is_silent: bool,
    /// Whether it lives in the guest's keeper.
    #[serde(skip)]
    is_kept: bool,
}

pub(super) fn run(name: Option<&OsStr>, format: Format) -> anyhow::Result<Exit> {
    let host = Host::real();
    let glance = Ledger::glance(&host)?;
    let mut view = glance.map_or_else(View::default, |glance| {
        let only = name.map(|name| GuestName::new(name).to_string());
        view(&host, &glance, only.as_deref())
    });
    view.lock = LockView::of(Ledger::locked_by(&host)?);
    match format {
        Format::Json => output::json(&view),
        Format::Text => lines(&view).iter().for_each(output::line),
    }
    Ok(Exit::Done)
}

fn view(host: &Host, glance: &Glance, only: Option<&str>) -> View {
    let record = &glance.record;
    let deadline = Deadline::after(PATIENCE);
    let is_meant =
        |uuid: &GuestUuid, name: &str| only.is_none_or(|only| name == only || uuid.to_string() == only);
    let leases: Vec<_> = record.leases.iter().filter(|(uuid, lease)| is_meant(uuid, &lease.name)).collect();
    let quarantines = record.quarantines.iter();
    let quarantines: Vec<_> =
        quarantines.filter(|quarantine| only.is_none_or(|only| quarantine.guest == only)).collect();
    let cards = quarantines.iter().map(|quarantine| &quarantine.terms);
    let stuck = quarantines::stuck(host, cards.chain(leases.iter().flat_map(|(_, lease)| &lease.cards)));
    let shown = look_at_monitors(host, record, deadline);
    let leases = leases.into_iter().map(|(uuid, lease)| LeaseView {
        guest: GuestName::new(&lease.name).to_string(),
        uuid: *uuid,
        since: lease.since,
        phase: phase(lease.phase),
        by: worker(host, lease.phase),
        runs: lifecycle::guest_runs(host, record, *uuid),
        held: record
            .entries_of(*uuid)
            .filter(|entry| entry.knob.is_put_back())
            .map(|entry| held(host, entry, *uuid, &shown, deadline).while_in(host, lease.phase))
            .collect(),
    });
    let unsettled =
        record.entries.iter().filter(|entry| !record.is_at_rest(entry, host) && !entry.is_fading());
    let under_way = unsettled.clone().filter(|entry| glance.is_under_way(entry, host));
    View {
        leases: leases.collect(),
        under_way: under_way.map(|entry| entry.knob.to_string()).collect(),
        unsettled: unsettled.map(|entry| entry.knob.to_string()).collect(),
        workers: glance.giving_back(host),
        quarantines: quarantines.into_iter().map(QuarantineView::from).collect(),
        stuck,
        lock: None,
    }
}

pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing(_) => "preparing",
        Phase::Prepared => "prepared",
        Phase::Started => "started",
        Phase::GivingBack(_) => "giving back",
    }
}

/// The process whose work a phase is.
fn worker(host: &Host, phase: Phase) -> Option<WorkerView> {
    match phase {
        Phase::Preparing(by) | Phase::GivingBack(by) => {
            Some(WorkerView { process: by.pid, alive: host.is_alive(by) })
        }
        Phase::Prepared | Phase::Started => None,
    }
}

/// What the monitors say, all at once: each takes its time.
fn look_at_monitors(host: &Host, record: &Record, deadline: Deadline) -> BTreeMap<Knob, Option<Value>> {
    let features: Vec<MonitorFeature> = record
        .entries
        .iter()
        .filter_map(|entry| match &entry.knob {
            Knob::MonitorFeature(feature) => Some(feature.clone()),
            _ => None,
        })
        .collect();
    let seen = host.vcp_features(&features, deadline);
    let shown = features.into_iter().map(Knob::MonitorFeature).zip(seen);
    shown.map(|(knob, seen)| (knob.clone(), seen.ok().map(|value| knob.value_of_vcp(value)))).collect()
}

fn held(
    host: &Host,
    entry: &Entry,
    uuid: GuestUuid,
    shown: &BTreeMap<Knob, Option<Value>>,
    deadline: Deadline,
) -> HeldView {
    let monitor = shown.get(&entry.knob);
    let mut is_silent = monitor.is_some();
    let now = monitor.map_or_else(
        || {
            let read = entry.knob.read(host, deadline);
            is_silent = read.as_ref().is_err_and(|error| !error.is_absent());
            read.ok()
        },
        Clone::clone,
    );
    let is_delayed = matches!(entry.knob, Knob::IrqbalanceBan(_));
    // What was announced may be written, or not yet.
    let is_in_between = is_delayed || entry.pending.is_some();
    // What does not answer may hold what was written.
    let differs = now.as_ref().map_or(!is_silent, |now| {
        !(entry.written.means_the_same(now) || (is_in_between && entry.is_ours(now)))
    });
    HeldView {
        knob: entry.knob.to_string(),
        baseline: entry.baseline.to_string(),
        written: entry.written.to_string(),
        now: now.as_ref().map(Value::to_string),
        wants: entry.claims.get(&uuid).map(wants).unwrap_or_default(),
        differs,
        is_silent,
        is_kept: matches!(entry.knob, Knob::Keeper(_) | Knob::SleepLock(_) | Knob::CpuDmaLatency(_)),
    }
}

impl HeldView {
    /// While a process is at it, a knob goes through values that are nobody else's.
    fn while_in(self, host: &Host, phase: Phase) -> Self {
        let is_moving = worker(host, phase).is_some_and(|worker| worker.alive);
        Self { differs: self.differs && !is_moving, ..self }
    }
}

fn wants(want: &Want) -> String {
    match want {
        Want::Cpus(cpus) => format!("CPUs {cpus}"),
        Want::Text(text) => text.clone(),
        Want::Pages(share) => format!("{} pages, {} of them added", share.promised, share.added),
        Want::Monitor(claim) => claim.value.to_string(),
        Want::Bindings(bindings) => bindings.to_string(),
    }
}

fn lines(view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    if view.leases.is_empty() {
        lines.push("no guest holds anything".to_owned());
    }
    for lease in &view.leases {
        lines.push(format!(
            "{} ({}): {}{}, since {}{}",
            lease.guest,
            lease.uuid,
            lease.phase,
            match &lease.by {
                Some(WorkerView { process, alive: true }) => format!(" (process {process})"),
                Some(WorkerView { process, alive: false }) =>
                    format!(" (process {process}, which has ended)"),
                None => String::new(),
            },
            age(lease.since),
            if lease.runs { "" } else { ", does not run" }
        ));
        let width = lease.held.iter().map(|held| held.knob.chars().count()).max().unwrap_or(0);
        for held in &lease.held {
            lines.push(format!(
                "  {:width$}  {} -> {}{}",
                held.knob,
                held.baseline,
                held.written,
                remark(held)
            ));
        }
    }
    if !view.under_way.is_empty() {
        let processes: Vec<String> =
            view.workers.iter().map(|process| format!("process {process}")).collect();
        let who =
            if processes.is_empty() { "another run of vfio-hook".to_owned() } else { processes.join(", ") };
        lines.push(format!("{} still to be made by {who}:", output::count(view.under_way.len(), "change")));
        lines.extend(view.under_way.iter().map(|knob| format!("  {knob}")));
    }
    let left: Vec<&String> = view.unsettled.iter().filter(|knob| !view.under_way.contains(knob)).collect();
    if !left.is_empty() {
        lines.push(format!(
            "{} half done by a run that was killed; the next event or `vfio-hook undo --stale` settles it:",
            output::count(left.len(), "change")
        ));
        lines.extend(left.iter().map(|knob| format!("  {knob}")));
    }
    lines.extend(quarantines::lines(&view.quarantines, &view.stuck));
    lines.extend(view.lock.as_ref().map(LockView::line));
    lines
}

fn remark(held: &HeldView) -> String {
    match (&held.now, held.differs) {
        (Some(_), true) if held.is_kept => {
            "   lost with a keeper that was killed; the next event brings it back".to_owned()
        }
        (Some(now), true) => format!("   changed by somebody else: now {now}"),
        (None, _) if held.is_silent => "   does not answer now".to_owned(),
        (None, _) => "   gone".to_owned(),
        (Some(_), false) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ProcessId;
    use crate::host::hung_peer::{HungPeer, Kind};
    use crate::ledger::{Pending, Writer};
    use crate::lifecycle::testing::{GUEST, Machine, stuck};

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

    /// A ledger whose guest's card is on its way home, which this process or one that is dead brings it.
    fn giving_back(machine: &Machine, by: ProcessId) -> Record {
        machine.prepare().unwrap();
        machine.write(machine.record());
        let mut record = machine.record();
        record.leases.get_mut(&GUEST).unwrap().phase = Phase::GivingBack(by);
        for entry in &mut record.entries {
            if !matches!(entry.knob, Knob::PciBindings(_) | Knob::Keeper(_)) {
                entry.claims.clear();
                entry.pending = Some(Pending { value: entry.baseline.clone(), beneficiary: None });
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
            record.leases.get_mut(&GUEST).unwrap().phase = Phase::GivingBack(by);
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
        left.entries.iter_mut().for_each(|entry| entry.claims.clear());
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
        assert!(!shown.contains("changed by somebody else"), "{shown}");
    }

    #[test]
    fn a_daemon_that_hangs_is_not_gone() {
        let machine = Machine::new();
        machine.prepare().unwrap();
        let mut record = machine.record();
        let socket = serde_json::from_str("\"irqbalance1.sock\"").unwrap();
        let mut entry = Entry::new(Knob::IrqbalanceBan(socket), Value::Cpus("7".parse().unwrap()));
        entry.claims.insert(GUEST, Want::Cpus("2-3".parse().unwrap()));
        record.entries.push(entry);
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
              "help": "process 1 hangs in the kernel and cannot be ended: only restarting the host frees the card"
            }
          ]
        }
        "#);
    }
}

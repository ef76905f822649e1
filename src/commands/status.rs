//! `vfio-hook status`: who holds what, since when, and what differs from the ledger.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use serde::Serialize;

use super::grouped;
use super::lock::LockView;
use super::output::{self, Format};
use super::quarantines::{self, QuarantineView, StuckView};
use super::reach;
use crate::commands::user_error::UserResult;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::guest::{GuestName, GuestUuid};
use crate::host::Host;
use crate::ledger::{
    AnyEntry, Entry, Glance, KeptAwake, Lease, LeaseState, Ledger, Listed, MonitorSetting, Place, Record,
    Sameness, Seen, SeenState, SettingKey, Shown,
};
use crate::lifecycle;
use crate::monitor::MonitorFeature;
use crate::pci::PciAddress;
use crate::wall_clock::age;

const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to give back what keeps a card awake that a driver of the host's has by now.
const LETS_SLEEP: Duration = Duration::from_secs(5);

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
    /// Cards that stay with VFIO, and awake, although no guest has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept_awake: Vec<KeptAwakeView>,
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
    /// Whether its files say something else now than when it was taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_other_configuration: bool,
    /// Who takes or gives back what is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<WorkerView>,
    /// What is done to the machine for it just now that is no setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairView>,
    runs: bool,
    /// Whether its card goes back only once libvirt has noticed that it is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    waits_for_libvirt: bool,
    held: Vec<HeldView>,
    /// What is run when it is gone, and takes its commands back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undos: Vec<String>,
}

#[derive(Debug, Serialize)]
struct KeptAwakeView {
    /// What it is, for people.
    card: String,
    functions: Vec<PciAddress>,
    /// The guest that had it.
    guest: String,
    /// Seconds since 1970.
    since: u64,
}

#[derive(Debug, Serialize)]
struct RepairView {
    what: String,
    /// Seconds since 1970.
    since: u64,
    by: WorkerView,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    process: i32,
    alive: bool,
}

#[derive(Debug, Serialize)]
struct HeldView {
    #[serde(skip)]
    key: SettingKey,
    setting: String,
    baseline: String,
    written: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<String>,
    wants: String,
    differs: bool,
    /// Whether it is there but may not answer: a monitor, a daemon that hangs.
    #[serde(skip)]
    is_silent: bool,
    /// Whether nothing can be said of it: a monitor whose reading is worth nothing.
    #[serde(skip)]
    is_not_verifiable: bool,
    /// Whether it lives in the guest's keeper.
    #[serde(skip)]
    is_kept: bool,
}

pub(super) fn run(name: Option<&OsStr>, format: Format) -> UserResult<Exit> {
    let mut host = Host::real();
    let mut glance = Ledger::glance(&host)?;
    let is_awake_for_nothing = |glance: &Glance| !glance.record.awake_for_nothing(&host).is_empty();
    let lets_sleep = glance.as_ref().is_some_and(is_awake_for_nothing);
    // A user who is not root only looks.
    if lets_sleep && Ledger::open(&mut host, Deadline::after(LETS_SLEEP)).is_ok() {
        glance = Ledger::glance(&host)?;
    }
    let mut view = glance.map_or_else(View::default, |glance| {
        let only = name.map(|name| GuestName::new(name).to_string());
        view(&host, &glance, only.as_deref())
    });
    view.lock = LockView::of(Ledger::locked_by(&host)?);
    reach::tell(&host, name.map(GuestName::new).as_ref(), format);
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
    let looking = Looking {
        shown: look_at_monitors(host, record, deadline),
        online: host.online_cpus().unwrap_or_default(),
        deadline,
    };
    let leases = leases.into_iter().map(|(uuid, lease)| lease_view(host, record, *uuid, lease, &looking));
    let unsettled: Vec<&dyn AnyEntry> = record
        .entries()
        .filter(|entry| !record.is_at_rest(*entry, host) && !entry.is_fading())
        .map(|entry| entry as &dyn AnyEntry)
        .collect();
    let under_way = unsettled.iter().filter(|entry| glance.is_under_way(**entry, host));
    View {
        leases: leases.collect(),
        under_way: under_way.map(|entry| entry.key().to_string()).collect(),
        unsettled: unsettled.iter().map(|entry| entry.key().to_string()).collect(),
        workers: glance.giving_back(host),
        quarantines: quarantines.into_iter().map(QuarantineView::from).collect(),
        stuck,
        kept_awake: record
            .kept_awake
            .iter()
            .filter(|kept| only.is_none_or(|only| kept.guest == only))
            .map(KeptAwakeView::from)
            .collect(),
        lock: None,
    }
}

fn lease_view(host: &Host, record: &Record, uuid: GuestUuid, lease: &Lease, looking: &Looking) -> LeaseView {
    let runs = lifecycle::guest_runs(host, record, uuid);
    let is_starting = matches!(lease.phase, LeaseState::Preparing(_) | LeaseState::Prepared);
    LeaseView {
        guest: GuestName::new(&lease.name).to_string(),
        uuid,
        since: lease.since,
        phase: if lease.is_held_by_hand() { "held by hand" } else { phase(lease.phase) },
        has_other_configuration: lifecycle::configuration_since(host, lease) == Some(Sameness::Changed),
        by: worker(host, lease.phase),
        repair: lease.repair.as_ref().map(|repair| RepairView {
            what: repair.kind.to_string(),
            since: repair.since,
            by: WorkerView { process: repair.by.pid, alive: host.is_alive(repair.by) },
        }),
        runs,
        waits_for_libvirt: !runs && !is_starting && record.waits_for_libvirt(uuid, host),
        held: record
            .entries_of(uuid)
            .chain(record.owed_by(uuid))
            .filter(|entry| entry.is_put_back())
            .map(|entry| held(host, entry, uuid, looking).while_in(host, lease.phase))
            .collect(),
        undos: lease.commands.due_undos().map(|undo| undo.command.to_string()).collect(),
    }
}

pub(super) fn phase(phase: LeaseState) -> &'static str {
    match phase {
        LeaseState::Preparing(_) => "preparing",
        LeaseState::Prepared => "prepared",
        LeaseState::Started => "started",
        LeaseState::GivingBack(_) => "giving back",
        LeaseState::Unfinished => "not all given back",
    }
}

/// The process whose work a state is.
fn worker(host: &Host, phase: LeaseState) -> Option<WorkerView> {
    match phase {
        LeaseState::Preparing(by) | LeaseState::GivingBack(by) => {
            Some(WorkerView { process: by.pid, alive: host.is_alive(by) })
        }
        LeaseState::Prepared | LeaseState::Started | LeaseState::Unfinished => None,
    }
}

/// What held settings are looked at with.
struct Looking {
    /// What the monitors say.
    shown: BTreeMap<SettingKey, Option<Shown>>,
    online: CpuSet,
    deadline: Deadline,
}

/// What the monitors say, all at once: each takes its time. Those whose word is worth nothing are not asked.
fn look_at_monitors(host: &Host, record: &Record, deadline: Deadline) -> BTreeMap<SettingKey, Option<Shown>> {
    let worth_asking = record.each::<MonitorSetting>().filter(|entry| entry.tells_what_it_shows());
    let settings: Vec<MonitorSetting> = worth_asking.map(|entry| entry.setting.clone()).collect();
    let features: Vec<MonitorFeature> = settings.iter().map(|setting| setting.0.clone()).collect();
    let seen = host.vcp_features(&features, deadline);
    let shown = settings.into_iter().zip(seen);
    shown
        .map(|(setting, seen)| {
            let shown = seen.ok().map(|value| setting.shown(value));
            (setting.key(), shown)
        })
        .collect()
}

fn held(host: &Host, entry: &dyn AnyEntry, uuid: GuestUuid, looking: &Looking) -> HeldView {
    let setting = entry.key();
    let monitor = entry.as_any().downcast_ref::<Entry<MonitorSetting>>();
    let Seen { now, state } = match (monitor, looking.shown.get(&setting)) {
        (Some(monitor), Some(Some(shown))) => monitor.compare(shown, &looking.online),
        (Some(_), Some(None)) => Seen { now: None, state: SeenState::Silent },
        (Some(_), None) => Seen { now: None, state: SeenState::NotVerifiable },
        (None, _) => entry.look(host, &looking.online, looking.deadline),
    };
    HeldView {
        setting: setting.to_string(),
        key: setting.clone(),
        baseline: entry.baseline(),
        written: entry.written(),
        now,
        wants: entry.want(uuid),
        differs: state == SeenState::Differs,
        is_silent: state == SeenState::Silent,
        is_not_verifiable: state == SeenState::NotVerifiable,
        is_kept: matches!(setting.place(), Place::Keeper | Place::SleepLock | Place::CpuDmaLatency),
    }
}

impl HeldView {
    /// While a process is at it, a setting goes through values that are no external change.
    fn while_in(self, host: &Host, phase: LeaseState) -> Self {
        let is_moving = worker(host, phase).is_some_and(|worker| worker.alive);
        Self { differs: self.differs && !is_moving, ..self }
    }
}

impl From<&KeptAwake> for KeptAwakeView {
    fn from(kept: &KeptAwake) -> Self {
        Self {
            card: kept.card.clone(),
            functions: kept.functions.as_slice().to_vec(),
            guest: GuestName::new(&kept.guest).to_string(),
            since: kept.since,
        }
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
        if let Some(RepairView { what, since, by: WorkerView { process, alive } }) = &lease.repair {
            let ended = if *alive { "" } else { ", which has ended" };
            lines.push(format!("  {what} since {} (process {process}{ended})", age(*since)));
        }
        if lease.phase == phase(LeaseState::Unfinished) {
            lines.push(
                "  tried again by its keeper and at its next start; `vfio-hook undo` tries now:".to_owned(),
            );
        }
        if lease.has_other_configuration {
            lines.push("  its file has changed since: that counts from its next start on".to_owned());
        }
        if lease.waits_for_libvirt {
            lines.push(
                "  waits for libvirt, which has not noticed that the guest is gone, and resets\n  its card \
                 when it does: start libvirt, or restart it where it hangs"
                    .to_owned(),
            );
        }
        let way = |held: &HeldView| format!("{} -> {}{}", held.baseline, held.written, remark(held));
        let held = grouped::lines(lease.held.iter().map(|held| (&held.key, way(held))));
        lines.extend(held.into_iter().map(|line| format!("  {line}")));
        lines.extend(lease.undos.iter().map(|undo| format!("  undo at its end: {undo}")));
    }
    if !view.under_way.is_empty() {
        let processes: Vec<String> =
            view.workers.iter().map(|process| format!("process {process}")).collect();
        let who =
            if processes.is_empty() { "another run of vfio-hook".to_owned() } else { processes.join(", ") };
        lines.push(format!("{} still to be made by {who}:", output::count(view.under_way.len(), "change")));
        lines.extend(view.under_way.iter().map(|setting| format!("  {setting}")));
    }
    let left: Vec<&String> =
        view.unsettled.iter().filter(|setting| !view.under_way.contains(setting)).collect();
    if !left.is_empty() {
        lines.push(format!(
            "{} half done by a run that was killed; the next event or `vfio-hook undo --stale` settles it:",
            output::count(left.len(), "change")
        ));
        lines.extend(left.iter().map(|setting| format!("  {setting}")));
    }
    lines.extend(quarantines::lines(&view.quarantines, &view.stuck));
    for KeptAwakeView { card, guest, since, .. } in &view.kept_awake {
        lines.push(format!("{card}: stays with VFIO, and awake, since {}, after guest {guest}", age(*since)));
        lines.push("  until a driver of the host has it; `keep_awake: never` lets it sleep".to_owned());
    }
    lines.extend(view.lock.as_ref().map(LockView::line));
    lines
}

fn remark(held: &HeldView) -> String {
    match (&held.now, held.differs) {
        (Some(_), true) if held.is_kept => {
            "   lost with a keeper that was killed; the next event brings it back".to_owned()
        }
        (Some(now), true) => format!("   changed from outside: now {now}"),
        (None, _) if held.is_silent => "   does not answer now".to_owned(),
        (None, _) if held.is_not_verifiable => "   not verifiable".to_owned(),
        (None, _) => "   gone".to_owned(),
        (Some(_), false) => String::new(),
    }
}

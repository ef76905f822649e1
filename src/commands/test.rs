//! `vfio-hook test`: what would happen, from the same code that makes it happen.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::output::{self, ChangeView, Format};
use crate::command::Command;
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::exit::Exit;
use crate::guest::{Guest, GuestName, MAX_XML_BYTES};
use crate::host::{Host, HostError, read_given_file};
use crate::ledger::{AT_THE_END, Change, Extent, Ledger, MonitorWish, Note, Plan, Record, Value};
use crate::lifecycle::{self, LifecycleError, PreparePlan};
use crate::monitor::VcpValue;

/// Where libvirt keeps its guests' XML (`SYSCONFDIR/libvirt/qemu`).
const LIBVIRT_DIR: &str = "/etc/libvirt/qemu";

#[derive(Serialize)]
struct View {
    guest: String,
    operation: &'static str,
    changes: Vec<ChangeView>,
    /// What would be run, in this order.
    commands: Vec<String>,
    /// What the guest's keeper would do once the guest is up.
    later: Vec<String>,
    notes: Vec<Note>,
}

/// How long monitors may take to say what they show.
const LOOK_AT_MONITORS: Duration = Duration::from_secs(3);

/// What an event leads to.
#[derive(Default)]
struct Foreseen {
    changes: Vec<Change>,
    commands: Vec<String>,
    later: Vec<String>,
    notes: Vec<Note>,
}

pub(super) fn run(
    name: &OsStr,
    operation: Operation,
    xml: Option<&Path>,
    format: Format,
) -> anyhow::Result<Exit> {
    let host = Host::real();
    let name = GuestName::new(name);
    let guest = read_guest(&name, xml)?;
    let deadline = Deadline::after(operation.budget());
    let record = match Ledger::peek(&host)? {
        Some(record) => record,
        None => Record::empty(host.boot_id()?),
    };
    let foreseen = foresee(&host, &record, &name, &guest, operation, deadline)?;
    match format {
        Format::Json => output::json(&View {
            guest: guest.name,
            operation: operation.as_str(),
            changes: ChangeView::of(&foreseen.changes),
            commands: foreseen.commands,
            later: foreseen.later,
            notes: foreseen.notes,
        }),
        Format::Text => print(&name, operation, &foreseen),
    }
    Ok(Exit::Done)
}

fn foresee(
    host: &Host,
    record: &Record,
    name: &GuestName,
    guest: &Guest,
    operation: Operation,
    deadline: Deadline,
) -> anyhow::Result<Foreseen> {
    let lease = record.leases.get(&guest.uuid);
    let commands = |events: &[Operation]| -> Result<Vec<String>, LifecycleError> {
        let Some(lease) = lease else { return from_file(host, record, name, guest, events, deadline) };
        Ok(events.iter().flat_map(|event| described(lease.commands.at(*event), *event)).collect())
    };
    let give_back = || -> anyhow::Result<Foreseen> {
        let plan = Plan::give_back(record, host, &[guest.uuid].into(), Extent::Whole, deadline)?;
        let Plan { changes, mut notes, failures, .. } = plan;
        notes.extend(failures.into_iter().map(Note::warning));
        Ok(Foreseen { changes, commands: commands(&AT_THE_END)?, notes, ..Foreseen::default() })
    };
    let note = |text: &str| Foreseen { notes: vec![Note::info(text)], ..Foreseen::default() };
    match operation {
        Operation::Prepare if lease.is_some() => {
            let mut foreseen = give_back()?;
            foreseen.notes.push(Note::warning(
                "the guest already holds these: `prepare` would give them back first and then take all again",
            ));
            Ok(foreseen)
        }
        Operation::Prepare => {
            let Some(loaded) = lifecycle::load_config(host, name)? else {
                return Ok(note(&match lifecycle::config_path(name) {
                    Some(path) => {
                        format!("there is no {}: the hook does nothing for this guest", path.display())
                    }
                    None => {
                        "a guest with this name can have no file: the hook does nothing for it".to_owned()
                    }
                }));
            };
            let PreparePlan { plan, mut notes } =
                lifecycle::plan_prepare(host, record, &loaded, guest, deadline)?;
            let commands = plan.commands(guest.uuid).map(|all| described(all.at(operation), operation));
            let commands = commands.unwrap_or_default();
            let later = switched_later(host, plan.monitors(guest.uuid), deadline);
            notes.extend(plan.notes);
            Ok(Foreseen { changes: plan.changes, commands, later, notes })
        }
        Operation::Start => {
            lifecycle::verify_pages(host, record, guest.uuid)?;
            lifecycle::verify_cards(host, record, guest.uuid, deadline)?;
            Ok(Foreseen { commands: commands(&[operation])?, ..Foreseen::default() })
        }
        Operation::Started => {
            let notes = lifecycle::verify_isolation(host, record, guest.uuid, deadline);
            let wishes = lease.map_or(&[][..], |lease| &lease.monitors);
            let later = switched_later(host, wishes, deadline);
            Ok(Foreseen { commands: commands(&[operation])?, later, notes, ..Foreseen::default() })
        }
        Operation::Stopped => Ok(Foreseen { commands: commands(&[operation])?, ..Foreseen::default() }),
        Operation::Release if lease.is_some() => give_back(),
        Operation::Release => {
            let commands = commands(&[operation])?;
            Ok(Foreseen { commands, ..note("the guest holds nothing") })
        }
        _ => Ok(Foreseen::default()),
    }
}

/// What would be run for a guest that holds nothing yet, once it is started. A file that is there and cannot be read is
/// an error; why a start would be refused, `test GUEST prepare` tells.
fn from_file(
    host: &Host,
    record: &Record,
    name: &GuestName,
    guest: &Guest,
    events: &[Operation],
    deadline: Deadline,
) -> Result<Vec<String>, LifecycleError> {
    let Some(loaded) = lifecycle::load_config(host, name)? else { return Ok(Vec::new()) };
    let Ok(prepared) = lifecycle::plan_prepare(host, record, &loaded, guest, deadline) else {
        return Ok(Vec::new());
    };
    let Some(commands) = prepared.plan.commands(guest.uuid) else { return Ok(Vec::new()) };
    let at = |event: Operation| commands.list.iter().filter(move |command| command.when == event);
    Ok(events.iter().flat_map(|event| described(at(*event), *event)).collect())
}

/// Monitors that the guest's keeper switches, a line each.
fn switched_later(host: &Host, wishes: &[MonitorWish], deadline: Deadline) -> Vec<String> {
    let features: Vec<_> = wishes.iter().map(|wish| wish.feature.clone()).collect();
    let seen = host.vcp_features(&features, Deadline::after(LOOK_AT_MONITORS).earlier(deadline));
    let line = |(wish, seen): (&MonitorWish, Result<VcpValue, HostError>)| {
        let now = seen.map_or(Value::Unknown, |value| wish.holds(value));
        let change = Change { knob: wish.knob(), now, then: wish.holds(wish.value) };
        format!("{change}, {} s after the guest is up", wish.delay.as_secs_f32())
    };
    wishes.iter().zip(seen).map(line).collect()
}

/// Commands of an event, a line each.
fn described<'a>(commands: impl Iterator<Item = &'a Command>, event: Operation) -> Vec<String> {
    commands.map(|command| format!("{}: {command}", event.as_str())).collect()
}

fn print(name: &GuestName, operation: Operation, foreseen: &Foreseen) {
    let what = match foreseen.changes.len() {
        0 => "nothing would be changed".to_owned(),
        number => output::count(number, "change"),
    };
    output::line(format_args!("{name}, {}: {what}", operation.as_str()));
    output::notes(&foreseen.notes);
    output::changes(&foreseen.changes);
    for later in &foreseen.later {
        output::line(format_args!("  later: {later}"));
    }
    for command in &foreseen.commands {
        output::line(format_args!("  runs at {command}"));
    }
}

fn read_guest(name: &GuestName, xml: Option<&Path>) -> anyhow::Result<Guest> {
    let path = match xml {
        Some(path) => path.to_owned(),
        None => libvirt_path(name)?,
    };
    given_guest(&path)
}

/// The guest of a file that a person names.
pub(super) fn given_guest(path: &Path) -> anyhow::Result<Guest> {
    let bytes = read_given_file(path, MAX_XML_BYTES)
        .with_context(|| format!("failed to read the guest's XML from {}", path.display()))?;
    Guest::parse(&bytes).with_context(|| path.display().to_string())
}

fn libvirt_path(name: &GuestName) -> anyhow::Result<PathBuf> {
    // libvirt refuses names with a slash, and so does this: nothing outside the folder is read.
    anyhow::ensure!(
        !name.as_os_str().as_encoded_bytes().contains(&b'/'),
        "no guest can be called `{name}`: a name has no slash (a file is given with --xml)"
    );
    let mut file = name.as_os_str().to_owned();
    file.push(".xml");
    Ok(Path::new(LIBVIRT_DIR).join(file))
}

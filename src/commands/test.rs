//! `vfio-hook test`: what would happen, from the same code that makes it happen.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::check::start_with_wrong_groups;
use super::given_guest::{GivenGuest, guest_of, is_of};
use super::output::{self, ChangeView, Format};
use super::reach;
use super::reading::Reading;
use crate::actions::scripts_at;
use crate::command::{Command, Program};
use crate::commands::user_error::{UserError, UserResult};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::exit::Exit;
use crate::guest::{Guest, GuestName};
use crate::host::{Host, HostError};
use crate::ledger::{AT_THE_END, Change, Extent, GuestSchedule, Ledger, MonitorWish, Note, Plan, Record};
use crate::lifecycle::{self, GROUPS_FILE, LifecycleError, PreparePlan};
use crate::monitor::VcpValue;

#[derive(Serialize)]
struct View {
    guest: String,
    operation: &'static str,
    /// The guest as its XML was read.
    read: Reading,
    changes: Vec<ChangeView>,
    /// What would be done beside them that is no setting.
    repairs: Vec<String>,
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
    repairs: Vec<String>,
    commands: Vec<String>,
    later: Vec<String>,
    notes: Vec<Note>,
}

pub(super) fn run(
    name: &OsStr,
    operation: Operation,
    xml: Option<&Path>,
    format: Format,
) -> UserResult<Exit> {
    let host = Host::real();
    let name = GuestName::new(name);
    let GivenGuest { guest, notes: mut of_reading, .. } = guest_of(&name, xml)?;
    if !is_of(&guest, &name) {
        let other = GuestName::new(&guest.name);
        let text = format!("the XML is of guest {other}; what follows is the file of {name} with it");
        of_reading.push(Note::warning(text));
    }
    let reading = Reading::of(&guest, &host);
    // Before all that may refuse the guest: what is wrong with it may be that it was meant in another way.
    if format == Format::Text {
        output::line(format_args!("{name} as its XML is read:"));
        reading.lines().iter().for_each(output::line);
        output::notes(&of_reading);
    }
    let deadline = Deadline::after(operation.budget());
    let record = match Ledger::peek(&host)? {
        Some(record) => record,
        None => Record::empty(host.boot_id()?),
    };
    reach::tell(&host, Some(&name), format);
    let foreseen = foresee(&host, &record, &name, &guest, operation, deadline);
    if let Err(UserError { mistakes: Some(_), exit: Exit::Usage, .. }) = &foreseen
        && lifecycle::config_path(&name).is_none_or(|path| !host.is_named(path))
    {
        let is_in_group = lifecycle::is_in_wrong_group(&host, &name, &guest);
        output::aside(format_args!("note: {}", start_with_wrong_groups(&name, is_in_group)));
    }
    let foreseen = foreseen?;
    match format {
        Format::Json => output::json(&View {
            guest: guest.name,
            operation: operation.as_str(),
            read: reading,
            changes: ChangeView::of(&foreseen.changes),
            repairs: foreseen.repairs,
            commands: foreseen.commands,
            later: foreseen.later,
            notes: of_reading.into_iter().chain(foreseen.notes).collect(),
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
) -> UserResult<Foreseen> {
    let lease = record.leases.get(&guest.uuid);
    let commands = |events: &[Operation]| -> Result<Vec<String>, LifecycleError> {
        let Some(lease) = lease else { return from_file(host, record, name, guest, events, deadline) };
        let at = |event: &Operation| named(host, guest, lease.commands.at(*event), *event);
        let undos = lease.commands.due_undos().map(|undo| &undo.command);
        let undos = undos.filter(|undo| events.contains(&undo.when));
        Ok(events.iter().flat_map(at).chain(described(undos, Operation::Release)).collect())
    };
    let give_back = || -> UserResult<Foreseen> {
        let plan =
            Plan::give_back(record, host, Some(guest.uuid), &[guest.uuid].into(), Extent::Whole, deadline)?;
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
            let unfit = lifecycle::why_no_group_has(host, name, guest)?;
            let unfit = unfit.into_iter().map(|why| Note::info(format!("in {GROUPS_FILE}, {why}")));
            let Some(loaded) = lifecycle::load_config(host, name, guest)? else {
                let mut foreseen = note(&match lifecycle::config_path(name) {
                    Some(path) => {
                        format!("there is no {}: the hook does nothing for this guest", path.display())
                    }
                    None => {
                        "a guest with this name can have no file: the hook does nothing for it".to_owned()
                    }
                });
                foreseen.notes.extend(unfit);
                return Ok(foreseen);
            };
            let PreparePlan { plan, mut notes, .. } =
                lifecycle::plan_prepare(host, record, &loaded, guest, deadline)?;
            let commands =
                plan.commands(guest.uuid).map(|all| named(host, guest, all.at(operation), operation));
            let commands = commands.unwrap_or_default();
            notes.extend(unfit);
            let mut later = scheduled_later(plan.schedule(guest.uuid));
            later.extend(switched_later(host, plan.monitors(guest.uuid), deadline));
            let repairs = plan.repairs.iter().map(ToString::to_string).collect();
            notes.extend(plan.notes);
            Ok(Foreseen { changes: plan.changes, repairs, commands, later, notes })
        }
        Operation::Start => {
            lifecycle::verify_pages(host, record, guest.uuid)?;
            lifecycle::verify_cards(host, record, guest.uuid, deadline)?;
            Ok(Foreseen { commands: commands(&[operation])?, ..Foreseen::default() })
        }
        Operation::Started => {
            let notes = lifecycle::verify_isolation(host, record, guest.uuid, deadline);
            let wishes = lease.map_or(&[][..], |lease| &lease.monitors);
            let mut later = scheduled_later(lease.and_then(|lease| lease.schedule.as_ref()));
            later.extend(switched_later(host, wishes, deadline));
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
    let Some(loaded) = lifecycle::load_config(host, name, guest)? else { return Ok(Vec::new()) };
    let Ok(prepared) = lifecycle::plan_prepare(host, record, &loaded, guest, deadline) else {
        return Ok(Vec::new());
    };
    let Some(commands) = prepared.plan.commands(guest.uuid) else { return Ok(Vec::new()) };
    let at = |event: Operation| commands.list.iter().filter(move |command| command.when == event);
    let mut lines: Vec<String> =
        events.iter().flat_map(|event| named(host, guest, at(*event), *event)).collect();
    if events.contains(&Operation::Release) {
        let begun = [Operation::Prepare, Operation::Start, Operation::Started];
        let undos: Vec<Command> = begun.into_iter().flat_map(at).rev().filter_map(Command::undoing).collect();
        lines.extend(described(undos.iter(), Operation::Release));
    }
    Ok(lines)
}

/// Threads that the guest's keeper has scheduled in another way, a line for each kind.
fn scheduled_later(schedule: Option<&GuestSchedule>) -> Vec<String> {
    schedule.into_iter().flat_map(GuestSchedule::lines).collect()
}

/// Monitors that the guest's keeper switches, a line each.
fn switched_later(host: &Host, wishes: &[MonitorWish], deadline: Deadline) -> Vec<String> {
    let features: Vec<_> = wishes.iter().map(|wish| wish.feature.clone()).collect();
    let seen = host.vcp_features(&features, Deadline::after(LOOK_AT_MONITORS).earlier(deadline));
    let line = |(wish, seen): (&MonitorWish, Result<VcpValue, HostError>)| {
        format!("{}, {} s after the guest is up", wish.change(seen.ok()), wish.delay.as_secs_f32())
    };
    wishes.iter().zip(seen).map(line).collect()
}

/// Commands of an event, a line each; scripts are named one by one.
fn named<'a>(
    host: &Host,
    guest: &Guest,
    commands: impl Iterator<Item = &'a Command>,
    event: Operation,
) -> Vec<String> {
    let lines = |command: &'a Command| match &command.program {
        Program::Arguments(_) => described([command].into_iter(), event),
        Program::Scripts(folder) => match scripts_at(host, folder, &guest.name, event) {
            Ok(scripts) => {
                scripts.iter().map(|script| format!("{}: {}", event.as_str(), script.display())).collect()
            }
            Err(_) => described([command].into_iter(), event),
        },
    };
    commands.flat_map(lines).collect()
}

/// Commands of an event, a line each.
fn described<'a>(commands: impl Iterator<Item = &'a Command>, event: Operation) -> Vec<String> {
    commands.map(|command| format!("{}: {}", event.as_str(), command.describe())).collect()
}

fn print(name: &GuestName, operation: Operation, foreseen: &Foreseen) {
    let what = match foreseen.changes.len() {
        0 => "nothing would be changed".to_owned(),
        number => output::count(number, "change"),
    };
    output::line(format_args!("{name}, {}: {what}", operation.as_str()));
    output::notes(&foreseen.notes);
    output::changes(&foreseen.changes);
    for repair in &foreseen.repairs {
        output::line(format_args!("  makes {repair}"));
    }
    for later in &foreseen.later {
        output::line(format_args!("  later: {later}"));
    }
    for command in &foreseen.commands {
        output::line(format_args!("  runs at {command}"));
    }
}

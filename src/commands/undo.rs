//! `vfio-hook undo`: gives back what a guest holds.

use std::time::Duration;

use super::output::{self, Format, OutcomeView};
use crate::commands::user_error::{UserError, UserResult};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::guest::{GuestName, GuestUuid};
use crate::host::Host;
use crate::ledger::{Lease, LeaseState, Ledger, Outcome, Record};
use crate::lifecycle;

const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether a keeper is done.
const LOOK: Duration = Duration::from_millis(50);

/// Whose lease is given back.
#[derive(Debug)]
pub(super) enum Whose {
    /// That of a guest which does not run.
    Stopped(GuestName),
    /// That of a guest, whether it runs or not.
    Forced(GuestName),
    /// Those of all guests that do not run, but for what is held by hand.
    Stale,
    /// The same, but for those that libvirt may just be starting: no person has looked before.
    StaleUnattended,
}

pub(super) fn run(whose: &Whose, format: Format) -> UserResult<Exit> {
    let mut host = Host::real();
    // Looking first: without a ledger nothing is made on the host, not even the folder of its lock.
    let record = Ledger::peek(&host)?;
    if record.is_none() && !Ledger::is_half_removed(&host)? {
        say_who_holds(whose, &[], format);
        return Ok(print(&Outcome::default(), &Outcome::default(), format));
    }
    let leases = record.iter().flat_map(|record| record.leases.values());
    let holders: Vec<String> = leases.map(|lease| lease.name.clone()).collect();
    let deadline = Deadline::after(PATIENCE);
    let mut ledger = Ledger::open(&mut host, deadline)?;
    let mut outcome = ledger.recovered().clone();
    let leaving = leaving(ledger.host(), ledger.record(), whose)?;
    if leaving.is_empty() {
        say_who_holds(whose, &holders, format);
    }
    for uuid in &leaving {
        outcome.absorb(ledger.give_back(*uuid, "unknown", None)?);
    }
    drop(ledger);
    wait_for_keepers(&host, &leaving, deadline)?;
    let again = match whose {
        Whose::Stale | Whose::StaleUnattended => lifecycle::replace_lost_keepers(&mut host, deadline)?,
        Whose::Stopped(_) | Whose::Forced(_) => Outcome::default(),
    };
    Ok(print(&outcome, &again, format))
}

/// A guest that a person names and that holds nothing may be misspelt.
fn say_who_holds(whose: &Whose, holders: &[String], format: Format) {
    let (Whose::Stopped(name) | Whose::Forced(name), Format::Text) = (whose, format) else { return };
    let help = match holders {
        [] => "no guest holds anything".to_owned(),
        others => format!("these do: {}", others.join(", ")),
    };
    output::aside(format_args!("note: {name} holds nothing; {help}"));
}

/// A guest's keeper runs its commands before it gives the rest back.
fn wait_for_keepers(host: &Host, leaving: &[GuestUuid], deadline: Deadline) -> UserResult<()> {
    loop {
        let record = Ledger::peek(host)?;
        let is_under_way = |lease: &&Lease| matches!(lease.phase, LeaseState::GivingBack(_));
        let Some(lease) = record.and_then(|record| {
            leaving.iter().find_map(|uuid| record.leases.get(uuid).filter(is_under_way).cloned())
        }) else {
            return Ok(());
        };
        if deadline.has_passed() {
            let message = format!("the keeper of {} is still at it", GuestName::new(lease.name));
            let help = "`vfio-hook status` shows what is left, `journalctl -t vfio-hook` why";
            return Err(UserError::new(message).with_help(help));
        }
        deadline.pause(LOOK);
    }
}

fn leaving(host: &Host, record: &Record, whose: &Whose) -> UserResult<Vec<GuestUuid>> {
    let runs = |uuid| lifecycle::guest_runs(host, record, uuid);
    match whose {
        Whose::Stale => {
            let is_stale = |uuid: &GuestUuid| {
                !record.leases[uuid].is_held_by_hand()
                    && !runs(*uuid)
                    && !lifecycle::guest_starts(host, record, *uuid)
            };
            Ok(record.leases.keys().copied().filter(is_stale).collect())
        }
        Whose::StaleUnattended => {
            let mut stale = leaving(host, record, &Whose::Stale)?;
            stale.retain(|uuid| !lifecycle::guest_may_start(host, record, *uuid));
            Ok(stale)
        }
        Whose::Forced(name) => {
            let Some(uuid) = find(record, name)? else { return Ok(Vec::new()) };
            let card = record.leases.get(&uuid).and_then(|lease| lease.cards.first());
            if let Some(card) = card.filter(|_| runs(uuid)) {
                let card = &card.name;
                let message =
                    format!("{name} runs and has the {card}, which cannot be taken from a running guest");
                return Err(UserError::new(message).with_help("shut it down"));
            }
            Ok(vec![uuid])
        }
        Whose::Stopped(name) => {
            let Some(uuid) = find(record, name)? else { return Ok(Vec::new()) };
            if runs(uuid) {
                let message = format!("{name} runs: giving back what it holds would take it away under it");
                return Err(UserError::new(message).with_help("shut it down, or add --force"));
            }
            Ok(vec![uuid])
        }
    }
}

/// The lease of a guest by its UUID or name; none where it holds nothing.
fn find(record: &Record, name: &GuestName) -> UserResult<Option<GuestUuid>> {
    let text = name.as_os_str().to_string_lossy();
    if let Ok(uuid) = text.parse::<GuestUuid>() {
        return Ok(record.leases.contains_key(&uuid).then_some(uuid));
    }
    Ok(lifecycle::lease_by_name(record, &text)?)
}

/// What was given back, and what was set again for guests that run.
fn print(outcome: &Outcome, again: &Outcome, format: Format) -> Exit {
    match format {
        Format::Json => {
            let mut both = outcome.clone();
            both.absorb(again.clone());
            output::json(&OutcomeView::from(&both));
        }
        Format::Text => {
            match is_nothing(outcome) {
                true => output::line("nothing to give back"),
                false => print_part(outcome, "given back"),
            }
            if !is_nothing(again) {
                print_part(again, "set again for guests that run");
            }
        }
    }
    if outcome.failures.is_empty() && again.failures.is_empty() { Exit::Done } else { Exit::Failed }
}

fn is_nothing(outcome: &Outcome) -> bool {
    outcome.changes.is_empty() && outcome.notes.is_empty() && outcome.failures.is_empty()
}

fn print_part(outcome: &Outcome, what: &str) {
    match outcome.changes.len() {
        // Commands and what runs for a guest are no changes of the host.
        0 => output::line(format_args!("{what}; no setting of the host had to be changed")),
        number => output::line(format_args!("{} {what}", output::count(number, "change"))),
    }
    output::notes(&outcome.notes);
    output::changes(&outcome.changes);
    for failure in &outcome.failures {
        output::line(format_args!("  failed: {failure}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::simulated::qemu_process;
    use crate::host::{ProcessId, keeper_socket};
    use crate::ledger::LeaseState;
    use crate::lifecycle::testing::{GUEST, Machine, soon};

    #[test]
    fn a_card_is_not_taken_from_a_running_guest() {
        let machine = Machine::new();
        machine.prepare().unwrap();
        let leaving = || leaving(&machine.host(), &machine.record(), &Whose::Forced(GuestName::new("win11")));
        machine.add(&qemu_process(4242, GUEST, "win11"));
        let error = leaving().unwrap_err().to_string();
        assert!(error.starts_with("win11 runs and has the graphics card 0000:03:00"), "{error}");
        fs::remove_dir_all(machine.path("/proc/4242")).unwrap();
        assert_eq!(leaving().unwrap(), [GUEST]);
    }

    #[test]
    fn a_name_that_several_have_says_nothing() {
        let machine = Machine::new();
        machine.prepare().unwrap();
        let mut record = machine.record();
        let name = GuestName::new("win11");
        assert_eq!(find(&record, &name).unwrap(), Some(GUEST));
        assert_eq!(find(&record, &GuestName::new("win12")).unwrap(), None);
        let other = GuestUuid::from_bytes([7; 16]);
        record.leases.insert(other, record.leases[&GUEST].clone());
        let error = find(&record, &name).unwrap_err().to_string();
        assert!(error.starts_with("several guests called win11 hold something\nhelp: "), "{error}");
        assert_eq!(find(&record, &GuestName::new(other.to_string())).unwrap(), Some(other));
    }

    #[test]
    fn nothing_is_left_of_a_keeper_that_was_killed_with_its_guest() {
        let machine = Machine::new();
        machine.prepare_as("isolate_cpus: { cpus: '2-3' }\n").unwrap();
        let socket = machine.path(&keeper_socket(GUEST).display().to_string());
        let give_back = || {
            let mut host = machine.host();
            let mut ledger = Ledger::open(&mut host, soon()).unwrap();
            ledger.give_back(GUEST, "unknown", None).unwrap();
        };
        fs::write(&socket, "").unwrap();
        fs::remove_file(machine.path(&format!("/simulated/keepers/{GUEST}"))).unwrap();
        give_back();
        assert!(!socket.exists());
    }

    /// A keeper that has just been killed knew that libvirt was about to start QEMU.
    #[test]
    fn a_guest_that_libvirt_may_be_starting_is_spared_by_who_does_not_look() {
        let machine = Machine::new();
        machine.prepare().unwrap();
        fs::remove_file(machine.path(&format!("/simulated/keepers/{GUEST}"))).unwrap();
        let leaving = |whose| leaving(&machine.host(), &machine.record(), &whose).unwrap();
        assert_eq!(leaving(Whose::StaleUnattended), [GUEST], "no daemon runs, as at boot");
        machine.add(&format!("/proc/400/stat = 400 (virtqemud) S 1 {}", "0 ".repeat(48)));
        assert_eq!(leaving(Whose::StaleUnattended), []);
        assert_eq!(leaving(Whose::Stale), [GUEST]);
    }

    #[test]
    fn what_somebody_is_still_taking_is_not_stale() {
        let machine = Machine::new();
        machine.prepare().unwrap();
        let host = machine.host();
        let stale = |phase| {
            let mut record = machine.record();
            record.leases.get_mut(&GUEST).unwrap().phase = phase;
            leaving(&host, &record, &Whose::Stale).unwrap()
        };
        let alive = host.this_process();
        let dead = ProcessId { start_time: alive.start_time + 1, ..alive };
        // A keeper that does not answer may be about to see the guest start.
        machine.add(&format!("/simulated/keepers/{GUEST} = no answer"));
        assert_eq!(stale(LeaseState::Prepared), []);
        fs::remove_file(machine.path(&format!("/simulated/keepers/{GUEST}"))).unwrap();
        assert_eq!(stale(LeaseState::Prepared), [GUEST]);
        assert_eq!(stale(LeaseState::Preparing(alive)), []);
        assert_eq!(stale(LeaseState::Preparing(dead)), [GUEST]);
        assert_eq!(stale(LeaseState::Started), [GUEST]);
    }
}

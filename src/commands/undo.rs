//! `vfio-hook undo`: gives back what a guest holds.

use std::ffi::OsString;
use std::time::Duration;

use super::output::{self, Format, OutcomeView};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::guest::{GuestName, GuestUuid};
use crate::host::Host;
use crate::ledger::{Ledger, Outcome, Record};
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
    /// Those of all guests that do not run.
    Stale,
}

impl Whose {
    pub(super) fn new(guest: Option<OsString>, force: bool) -> Self {
        match (guest.map(GuestName::new), force) {
            (None, _) => Self::Stale,
            (Some(guest), true) => Self::Forced(guest),
            (Some(guest), false) => Self::Stopped(guest),
        }
    }
}

pub(super) fn run(whose: &Whose, format: Format) -> anyhow::Result<Exit> {
    let mut host = Host::real();
    // Looking first: without a ledger nothing is made on the host, not even the folder of its lock.
    if Ledger::peek(&host)?.is_none() {
        return Ok(print(&Outcome::default(), format));
    }
    let deadline = Deadline::after(PATIENCE);
    let mut ledger = Ledger::open(&mut host, deadline)?;
    let mut outcome = ledger.recovered().clone();
    let leaving = leaving(ledger.host(), ledger.record(), whose)?;
    for uuid in &leaving {
        outcome.absorb(ledger.give_back(*uuid, "unknown", None)?);
    }
    drop(ledger);
    wait_for_keepers(&host, &leaving, deadline)?;
    Ok(print(&outcome, format))
}

/// A guest's keeper runs its commands before it gives the rest back.
fn wait_for_keepers(host: &Host, leaving: &[GuestUuid], deadline: Deadline) -> anyhow::Result<()> {
    loop {
        let record = Ledger::peek(host)?;
        let Some(lease) =
            record.and_then(|record| leaving.iter().find_map(|uuid| record.leases.get(uuid).cloned()))
        else {
            return Ok(());
        };
        anyhow::ensure!(
            !deadline.has_passed(),
            "the keeper of {} is still at it\nhelp: `vfio-hook status` shows what is left, `journalctl -t vfio-hook` why",
            GuestName::new(lease.name)
        );
        deadline.pause(LOOK);
    }
}

fn leaving(host: &Host, record: &Record, whose: &Whose) -> anyhow::Result<Vec<GuestUuid>> {
    let runs = |uuid| lifecycle::guest_runs(host, record, uuid);
    match whose {
        Whose::Stale => {
            let is_stale = |uuid: &GuestUuid| !runs(*uuid) && !lifecycle::guest_starts(host, record, *uuid);
            Ok(record.leases.keys().copied().filter(is_stale).collect())
        }
        Whose::Forced(name) => {
            let Some(uuid) = find(record, name)? else { return Ok(Vec::new()) };
            let card = record.leases.get(&uuid).and_then(|lease| lease.cards.first());
            if let Some(card) = card.filter(|_| runs(uuid)) {
                anyhow::bail!(
                    "{name} runs and has the {}, which cannot be taken from a running guest\nhelp: shut it down",
                    card.name
                );
            }
            Ok(vec![uuid])
        }
        Whose::Stopped(name) => {
            let Some(uuid) = find(record, name)? else { return Ok(Vec::new()) };
            anyhow::ensure!(
                !runs(uuid),
                "{name} runs: giving back what it holds would take it away under it\nhelp: shut it down, or add --force"
            );
            Ok(vec![uuid])
        }
    }
}

/// The lease of a guest by its UUID or name; none where it holds nothing.
fn find(record: &Record, name: &GuestName) -> anyhow::Result<Option<GuestUuid>> {
    let text = name.as_os_str().to_string_lossy();
    if let Ok(uuid) = text.parse::<GuestUuid>() {
        return Ok(record.leases.contains_key(&uuid).then_some(uuid));
    }
    lifecycle::lease_by_name(record, &text).map_err(|error| {
        let help = error.help().unwrap_or_default();
        anyhow::anyhow!("{error}\nhelp: {help}")
    })
}

fn print(outcome: &Outcome, format: Format) -> Exit {
    match format {
        Format::Json => output::json(&OutcomeView::from(outcome)),
        Format::Text
            if outcome.changes.is_empty() && outcome.notes.is_empty() && outcome.failures.is_empty() =>
        {
            output::line("nothing to give back");
        }
        Format::Text => {
            output::line(format_args!("{} given back", output::count(outcome.changes.len(), "change")));
            output::notes(&outcome.notes);
            output::changes(&outcome.changes);
            for failure in &outcome.failures {
                output::line(format_args!("  failed: {failure}"));
            }
        }
    }
    if outcome.failures.is_empty() { Exit::Done } else { Exit::Failed }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::ProcessId;
    use crate::host::simulated::qemu_process;
    use crate::ledger::Phase;
    use crate::lifecycle::testing::{GUEST, Machine};

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
        assert_eq!(stale(Phase::Prepared), []);
        fs::remove_file(machine.path(&format!("/simulated/keepers/{GUEST}"))).unwrap();
        assert_eq!(stale(Phase::Prepared), [GUEST]);
        assert_eq!(stale(Phase::Preparing(alive)), []);
        assert_eq!(stale(Phase::Preparing(dead)), [GUEST]);
        assert_eq!(stale(Phase::Started), [GUEST]);
    }
}

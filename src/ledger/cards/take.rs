//! Handing cards over: the last look before, and the first one after.

use super::examine::{hear, probe};
use super::{CardHealth, StuckOperation};
use crate::gpu::RecognisedLine;
use crate::guest::GuestUuid;
use crate::ledger::carry_out::Outcome;
use crate::ledger::claim::TakingTerms;
use crate::ledger::entry::Change;
use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;
use crate::ledger::plan::Note;
use crate::ledger::settings::{CardUsers, Listed, SettingKey};
use crate::pci::PciFunctions;

impl Ledger<'_> {
    /// Takes a guest's cards. One that hangs in the kernel is remembered: the undo leaves it alone.
    ///
    /// # Errors
    /// The host refused; a card does not answer once it is handed over.
    pub(in crate::ledger) fn take_cards(
        &mut self,
        uuid: GuestUuid,
        changes: Vec<Change>,
        terms: &mut TakingTerms,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let is_drivers = |change: &Change| matches!(change.setting, SettingKey::PciBindings(_));
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let others = std::iter::from_fn(|| changes.next_if(|change| !is_drivers(change))).collect();
            let ready = self.write_each(uuid, others, terms, outcome);
            ready.map_err(|error| self.name_deaf_desktop(uuid, error))?;
            let Some(change) = changes.next() else { break };
            let SettingKey::PciBindings(drivers) = &change.setting else { continue };
            let functions = drivers.0.clone();
            let unused = self.see_unused(&functions, terms);
            unused.map_err(|error| self.name_deaf_desktop(uuid, error))?;
            let taken = self.write_each(uuid, vec![change], terms, outcome);
            if let Err(error) = &taken
                && let Some(stuck) = error.of_host().and_then(StuckOperation::in_error)
                && let Some(lease) = self.record.leases.get_mut(&uuid)
                && let Some(card) = lease.cards.iter_mut().find(|card| card.functions == functions)
            {
                card.stuck = Some(stuck);
                self.store()?;
            }
            taken.map_err(|error| match error {
                // A program has got at it since the look before: the hint names what gives it time.
                LedgerError::Claim { cause, .. } if cause.is_in_use() => {
                    let terms = Box::new(terms.of(&CardUsers(functions.clone()).key()));
                    LedgerError::Claim { cause, terms }
                }
                error => error,
            })?;
            self.forget_drm_events(&functions);
        }
        let cards = self.record.leases.get(&uuid).map(|lease| lease.cards.clone()).unwrap_or_default();
        for terms in cards {
            // Drivers of the host's may grumble when they let go; whether it answers is what counts.
            let (health, heard) =
                self.unlocked(|host, _| (probe(host, &terms, &[]), hear(host, &terms, terms.log_position)))?;
            let lines = heard.lines.iter().map(RecognisedLine::to_string);
            match health? {
                CardHealth::Clean => outcome.notes.extend(doubts(&terms.name, lines.collect())),
                CardHealth::Doubtful(mut evidence) => {
                    evidence.extend(lines);
                    outcome.notes.extend(doubts(&terms.name, evidence));
                }
                CardHealth::Dead(evidence) => {
                    return Err(LedgerError::CardDoesNotAnswer {
                        card: terms.name,
                        evidence: evidence.join("; "),
                    });
                }
                CardHealth::Stuck(stuck) => {
                    return Err(LedgerError::CardDoesNotAnswer { card: terms.name, evidence: stuck.what });
                }
            }
        }
        self.listen_from_now_on(uuid)
    }

    /// Since it was looked at first, units were stopped and commands were run: a program may use the card by now.
    fn see_unused(&mut self, functions: &PciFunctions, terms: &mut TakingTerms) -> Result<(), LedgerError> {
        let users = CardUsers(functions.clone()).key();
        let limit = terms.time_limit(&users, self.deadline);
        let unused = self.unlocked(|host, end| {
            host.wait_until_unused(functions.as_slice(), limit.deadline().earlier(end))
        })?;
        unused.map_err(|error| LedgerError::from(error).asked_by(&terms.of(&users)))
    }

    /// What the kernel says of the cards from here on is about the guest, and about what comes after it.
    fn listen_from_now_on(&mut self, uuid: GuestUuid) -> Result<(), LedgerError> {
        let Some(lease) = self.record.leases.get_mut(&uuid).filter(|lease| !lease.cards.is_empty()) else {
            return Ok(());
        };
        let now = self.host.kernel_log_position()?;
        for card in &mut lease.cards {
            card.log_position = now;
        }
        self.store()
    }
}

fn doubts(card: &str, evidence: Vec<String>) -> Option<Note> {
    (!evidence.is_empty()).then(|| Note::warning(format!("{card}: {}", evidence.join("; "))))
}

//! Handing cards over: the last look before, and the first one after.

use super::examine::{hear, probe};
use super::{StuckOperation, Verdict};
use crate::deadline::Deadline;
use crate::gpu::Sign;
use crate::guest::GuestUuid;
use crate::ledger::carry_out::Outcome;
use crate::ledger::error::LedgerError;
use crate::ledger::knob::Knob;
use crate::ledger::open::Ledger;
use crate::ledger::plan::{Change, Note};
use crate::pci::PciFunctions;

impl Ledger<'_> {
    /// Takes a guest's cards. One that hangs in the kernel is remembered: whoever undoes this leaves it alone.
    ///
    /// # Errors
    /// The host refused; a card does not answer once it is handed over.
    pub(in crate::ledger) fn take_cards(
        &mut self,
        uuid: GuestUuid,
        changes: Vec<Change>,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        for change in changes {
            let functions = match &change.knob {
                Knob::PciBindings(functions) => Some(functions.clone()),
                _ => None,
            };
            if let Some(functions) = &functions {
                self.see_unused(functions)?;
            }
            let taken = self.write_each(uuid, vec![change], outcome);
            if let (Err(LedgerError::Host(error)), Some(functions)) = (&taken, functions)
                && let Some(stuck) = StuckOperation::in_error(error)
                && let Some(lease) = self.record.leases.get_mut(&uuid)
                && let Some(card) = lease.cards.iter_mut().find(|card| card.functions == functions)
            {
                card.stuck = Some(stuck);
                self.store()?;
            }
            taken?;
        }
        let cards = self.record.leases.get(&uuid).map(|lease| lease.cards.clone()).unwrap_or_default();
        for terms in cards {
            // Drivers of the host's may grumble when they let go; whether it answers is what counts.
            let (verdict, heard) =
                self.unlocked(|host, _| (probe(host, &terms, &[]), hear(host, &terms, terms.log_position)))?;
            let signs = heard.signs.iter().map(Sign::to_string);
            match verdict {
                Verdict::Clean => outcome.notes.extend(doubts(&terms.name, signs.collect())),
                Verdict::Doubtful(mut evidence) => {
                    evidence.extend(signs);
                    outcome.notes.extend(doubts(&terms.name, evidence));
                }
                Verdict::Dead(evidence) => {
                    return Err(LedgerError::CardDoesNotAnswer {
                        card: terms.name,
                        evidence: evidence.join("; "),
                    });
                }
                Verdict::Stuck(stuck) => {
                    return Err(LedgerError::CardDoesNotAnswer { card: terms.name, evidence: stuck.what });
                }
            }
        }
        self.listen_from_now_on(uuid)
    }

    /// Since it was looked at first, units were stopped and commands were run: somebody may use the card by now.
    fn see_unused(&mut self, functions: &PciFunctions) -> Result<(), LedgerError> {
        let patience = self.card_patience.users;
        self.unlocked(|host, end| {
            host.wait_until_unused(functions.as_slice(), Deadline::after(patience).earlier(end))
        })??;
        Ok(())
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

//! Handing cards over: the last look before, and the first one after.

use super::examine::look_at;
use super::{StuckOperation, Verdict};
use crate::guest::GuestUuid;
use crate::ledger::carry_out::Outcome;
use crate::ledger::error::LedgerError;
use crate::ledger::knob::Knob;
use crate::ledger::open::Ledger;
use crate::ledger::plan::Change;

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
            let verdict = self.unlocked(|host, _| look_at(host, &terms))?;
            match verdict {
                Verdict::Clean | Verdict::Doubtful(_) => {}
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
        Ok(())
    }
}

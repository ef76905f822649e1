//! Cards that are known to be wedged: given to no guest and to no host driver until they answer again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{CardTerms, Failure, looks_again};
use crate::gpu::RecoveryStep;
use crate::guest::GuestUuid;
use crate::ledger::carry_out::Outcome;
use crate::ledger::entry::Entry;
use crate::ledger::error::LedgerError;
use crate::ledger::lease_state::LeaseState;
use crate::ledger::open::Ledger;
use crate::ledger::plan::Note;
use crate::ledger::record::{Lease, Record};
use crate::ledger::setting::Setting;
use crate::ledger::settings::{Listed, SettingKey};
use crate::pci::PciFunctions;
use crate::wall_clock::seconds_since_1970;

/// The holder of what `gpu clear` takes. It is no guest: libvirt refuses a UUID of equal bytes (`virUUIDIsValid`). If
/// the command is killed, the card is given back like that of a guest whose start failed.
const CLEARING: GuestUuid = GuestUuid::from_bytes([0; 16]);

/// A card that is known to be wedged. It is forgotten with the boot: a card that lost its power starts anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The card, and what was agreed about it.
    pub terms: CardTerms,
    /// The name of the guest that had it, or was to have it.
    pub guest: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// What was seen, in its order.
    pub evidence: Vec<String>,
}

/// What came of a try to take a card out of quarantine.
#[derive(Debug)]
pub enum Cleared {
    /// It answers, and is where it belongs.
    Yes(Outcome),
    /// It is not in quarantine.
    NotThere,
    /// It stays; this is what is seen now.
    No {
        /// What is seen now.
        evidence: Vec<String>,
    },
}

impl Record {
    /// The quarantine that one of these functions is in.
    #[must_use]
    pub fn quarantine_of(&self, functions: &PciFunctions) -> Option<&Quarantine> {
        self.quarantines.iter().find(|quarantine| quarantine.terms.functions.overlap(functions))
    }

    /// Whether a setting belongs to a card in quarantine: it stays as it is.
    #[must_use]
    pub(in crate::ledger) fn is_quarantined(&self, setting: &SettingKey) -> bool {
        match setting {
            SettingKey::PciBindings(drivers) => self.quarantine_of(&drivers.0).is_some(),
            _ => self.quarantines.iter().any(|quarantine| quarantine.terms.has(setting)),
        }
    }
}

impl Ledger<'_> {
    /// Puts a card that nobody has taken yet into quarantine: it does not answer, and is left as it is.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn quarantine_untouched(
        &mut self,
        guest: &str,
        terms: CardTerms,
        evidence: Vec<String>,
    ) -> Result<(), LedgerError> {
        // Another guest may have found out at the same time, or even have got it just before.
        if self.record.quarantine_of(&terms.functions).is_some()
            || self.record.entry(&terms.drivers()).is_some()
        {
            return Ok(());
        }
        let quarantine = Quarantine { guest: guest.to_owned(), since: seconds_since_1970(), evidence, terms };
        self.record.quarantines.push(quarantine);
        self.store()
    }

    /// Puts a card into quarantine: with VFIO where it has that driver, else without any.
    pub(super) fn quarantine(
        &mut self,
        uuid: GuestUuid,
        terms: &CardTerms,
        failure: Failure,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let (stuck, evidence) = match failure {
            Failure::Stuck(operation) => {
                let evidence = vec![operation.what.clone()];
                (Some(operation), evidence)
            }
            Failure::Refused(evidence) | Failure::ByDriver(evidence) => (None, evidence),
        };
        let guest = self.record.leases.get(&uuid).map(|lease| lease.name.clone()).unwrap_or_default();
        let terms = CardTerms { stuck, ..terms.clone() };
        let words = evidence.first().cloned().unwrap_or_default();
        let advice = terms
            .stuck
            .as_ref()
            .map_or_else(|| looks_again(&terms.functions), |operation| operation.advice(&terms.functions));
        outcome.notes.push(Note::quarantine(format!("{} is in quarantine: {words}; {advice}", terms.name)));
        for entry in self.record.entries_mut().filter(|entry| terms.has(&entry.key())) {
            entry.drop_claim(uuid);
            // What was announced for the guest is not owed to it any more.
            if entry.beneficiary() == Some(uuid) {
                entry.owe(None);
            }
        }
        let quarantine = Quarantine { guest, since: seconds_since_1970(), evidence, terms: terms.clone() };
        self.record.quarantines.push(quarantine);
        self.store()?;
        self.set_aside(&terms, outcome)
    }

    /// Takes a card in quarantine from the host's drivers, unless the kernel hangs in it.
    pub(super) fn set_aside(&mut self, terms: &CardTerms, outcome: &mut Outcome) -> Result<(), LedgerError> {
        if terms.stuck.is_some() {
            return Ok(());
        }
        let Ok(now) = terms.drivers().read(&self.host, self.deadline) else { return Ok(()) };
        let aside = now.without_host_drivers();
        if aside == now {
            return Ok(());
        }
        if let Err(Failure::Stuck(operation)) = self.bind(terms, &aside, outcome)?
            && let Some(quarantine) = self.quarantine_mut(&terms.functions)
        {
            quarantine.evidence.push(operation.what.clone());
            quarantine.terms.stuck = Some(operation);
            self.store()?;
        }
        Ok(())
    }

    /// Looks at a card in quarantine again: one that answers goes where it belongs. With one that does not, the recovery steps
    /// of the steps are tried once more.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn clear_quarantine(&mut self, functions: &PciFunctions) -> Result<Cleared, LedgerError> {
        let Some(quarantine) = self.record.quarantine_of(functions).cloned() else {
            return Ok(Cleared::NotThere);
        };
        // Another process clears, or brings back what a killed one left.
        let other = self.record.leases.get(&CLEARING).map(|lease| lease.phase);
        if let Some(LeaseState::Preparing(other) | LeaseState::GivingBack(other)) = other {
            return Err(LedgerError::BeingCleared(other.pid));
        }
        let lease = Lease::preparing("gpu clear", self.host.this_process());
        self.record.leases.insert(CLEARING, lease);
        self.store()?;
        let cleared = self.look_again(quarantine)?;
        self.record.leases.remove(&CLEARING);
        self.store()?;
        Ok(cleared)
    }

    fn look_again(&mut self, quarantine: Quarantine) -> Result<Cleared, LedgerError> {
        let mut outcome = Outcome::default();
        let guest = quarantine.guest;
        // What the kernel said before is known.
        let terms = CardTerms { log_position: self.host.kernel_log_position()?, ..quarantine.terms };
        let steps = self.recovery_steps_of(&terms);
        match self.find_way_home(CLEARING, &terms, &[], &steps, &mut outcome)? {
            Ok(()) => {}
            Err(Failure::Refused(evidence) | Failure::ByDriver(evidence)) => {
                return Ok(Cleared::No { evidence });
            }
            Err(Failure::Stuck(operation)) => {
                let evidence = vec![operation.what.clone()];
                // The next look would hang too.
                if let Some(quarantine) = self.quarantine_mut(&terms.functions) {
                    quarantine.terms.stuck = Some(operation);
                    self.store()?;
                }
                return Ok(Cleared::No { evidence });
            }
        }
        self.settle_wakefulness(&guest, &terms, &mut outcome)?;
        self.record.remove(&terms.drivers().key());
        outcome.absorb(self.give_back_what_is_left(&BTreeSet::new(), Some(&terms.functions))?);
        Ok(Cleared::Yes(outcome))
    }

    /// The recovery steps that may be tried with a card in quarantine. One that nobody has taken has the driver that it had: the
    /// host's own is not asked to let go of a card that does not answer; any other is remembered, to put it back.
    fn recovery_steps_of(&mut self, terms: &CardTerms) -> Vec<RecoveryStep> {
        let drivers = terms.drivers();
        if terms.recover.is_empty() || self.record.entry(&drivers).is_some() {
            return terms.recover.clone();
        }
        match drivers.read(&self.host, self.deadline) {
            Ok(now) if !now.has_host_driver() => {
                self.record.put(Entry::new(drivers, now));
                terms.recover.clone()
            }
            _ => Vec::new(),
        }
    }

    fn quarantine_mut(&mut self, functions: &PciFunctions) -> Option<&mut Quarantine> {
        self.record.quarantines.iter_mut().find(|quarantine| quarantine.terms.functions == *functions)
    }
}

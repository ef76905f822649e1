//! Cards that stay with VFIO after their guest, and awake: the card itself holds its power settings then, as a guest would,
//! until a driver of the host's has it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CardTerms, CardUsage};
use crate::deadline::Deadline;
use crate::gpu::KeepAwake;
use crate::guest::GuestUuid;
use crate::host::{DriverName, Host, PciAttribute};
use crate::ledger::carry_out::Outcome;
use crate::ledger::claim::{Claim, ClaimTerms};
use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;
use crate::ledger::plan::{Note, Plan};
use crate::ledger::record::Record;
use crate::ledger::settings::{Attribute, AttributeValue, ListedClaim};
use crate::pci::{PciAddress, PciFunctions};
use crate::wall_clock::seconds_since_1970;

/// The first holder of what keeps a card awake, and how many there may be. None is a guest: libvirt refuses a UUID of equal
/// bytes (`virUUIDIsValid`). That of zeros clears quarantines.
const OWNERS: std::ops::RangeInclusive<u8> = 1..=0xff;

/// What an event may spend on it: a driver of the host's that hangs keeps nobody else waiting.
const EVENT: Duration = Duration::from_secs(1);

/// A card that stays with VFIO after its guest, and awake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAwake {
    /// Who holds its power settings: no guest.
    pub owner: GuestUuid,
    /// What the card is, for people.
    pub card: String,
    /// Its functions.
    pub functions: PciFunctions,
    /// The name of the guest that had it.
    pub guest: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// The settings that keep a function or a port awake, and their values: it does not sleep, and does not lose its power.
#[must_use]
pub fn kept_awake_by(address: PciAddress) -> [(Attribute, AttributeValue); 2] {
    [(PciAttribute::D3coldAllowed, "0"), (PciAttribute::PowerControl, "on")]
        .map(|(attribute, value)| (Attribute::of_function(address, attribute), AttributeValue::new(value)))
}

impl Record {
    /// What keeps one of these functions awake although no guest has it.
    #[must_use]
    pub fn kept_awake(&self, functions: &PciFunctions) -> Option<&KeptAwake> {
        self.kept_awake.iter().find(|kept| kept.functions.overlap(functions))
    }

    /// The cards that a driver of the host's has by now, or that are gone: they are kept awake no more.
    #[must_use]
    pub fn awake_for_nothing(&self, host: &Host) -> Vec<PciFunctions> {
        // One in quarantine stays as it is.
        let is_for_nothing = |kept: &&KeptAwake| {
            !may_stay(host, &kept.functions) && self.quarantine_of(&kept.functions).is_none()
        };
        self.kept_awake.iter().filter(is_for_nothing).map(|kept| kept.functions.clone()).collect()
    }

    fn free_owner(&self) -> GuestUuid {
        let is_free = |owner: &GuestUuid| self.kept_awake.iter().all(|kept| kept.owner != *owner);
        let owners = OWNERS.map(|byte| GuestUuid::from_bytes([byte; 16]));
        // A host has fewer cards.
        owners.into_iter().find(is_free).unwrap_or(GuestUuid::from_bytes([1; 16]))
    }
}

/// Whether no driver of the host's has one of the functions, for all that can be seen, and one is there. Reads no register.
fn may_stay(host: &Host, functions: &PciFunctions) -> bool {
    let is_hosts = |driver: &DriverName| !driver.is_vfio();
    let mut is_there = false;
    for function in functions.as_slice() {
        is_there |= host.is_pci_function(*function);
        if host.pci_driver(*function).is_ok_and(|driver| driver.as_ref().is_some_and(is_hosts)) {
            return false;
        }
    }
    is_there
}

impl Ledger<'_> {
    /// Once a card is where it belongs after its guest: it holds its power settings if it stays with VFIO, and lets go of
    /// them if it does not. The guest's own claims are given back after this.
    pub(super) fn settle_wakefulness(
        &mut self,
        guest: &str,
        terms: &CardTerms,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let now = terms.functions.as_slice().iter().map(|function| self.host.pci_driver(*function));
        let has_vfio = now.flatten().flatten().any(|driver| driver.is_vfio());
        let stays = has_vfio && may_stay(&self.host, &terms.functions);
        if terms.keep_awake == KeepAwake::Never || !stays {
            return self.let_sleep(&terms.functions, outcome);
        }
        // A start that failed leaves the card as it was.
        if terms.usage == CardUsage::NotYet {
            return Ok(());
        }
        let known = self.record.kept_awake(&terms.functions).map(|kept| kept.owner);
        let owner = known.unwrap_or_else(|| self.record.free_owner());
        let claims: Vec<ListedClaim> = terms
            .addresses()
            .into_iter()
            .flat_map(kept_awake_by)
            .map(|(setting, value)| Claim::new(setting, value, ClaimTerms::default()).into())
            .collect();
        let mut plan = Plan::add(&self.record, &self.host, owner, &claims, self.deadline)?;
        if known.is_none() {
            plan.record.kept_awake.push(KeptAwake {
                owner,
                card: terms.name.clone(),
                functions: terms.functions.clone(),
                guest: guest.to_owned(),
                since: seconds_since_1970(),
            });
            let text = format!("{} stays with VFIO, and awake until a driver of the host has it", terms.name);
            outcome.notes.push(Note::info(text));
        }
        // What is absent or cannot be set was told when the guest got the card.
        let Outcome { failures, .. } = self.carry_out_reconciling(owner, plan)?;
        outcome.failures.extend(failures);
        Ok(())
    }

    /// Gives back what keeps a card awake.
    fn let_sleep(&mut self, functions: &PciFunctions, outcome: &mut Outcome) -> Result<(), LedgerError> {
        let Some(owner) = self.record.kept_awake(functions).map(|kept| kept.owner) else { return Ok(()) };
        if self.record.quarantine_of(functions).is_some() {
            // What it was before is given back when the quarantine ends.
            for entry in self.record.entries_mut() {
                entry.drop_claim(owner);
            }
        } else {
            outcome.absorb(self.give_back_what_is_left(&[owner].into(), None)?);
        }
        // Last: a process that is killed before leaves it to the next one.
        self.record.kept_awake.retain(|kept| kept.owner != owner);
        self.store()
    }

    /// Gives back what keeps cards awake that a driver of the host's has by now.
    pub(in crate::ledger) fn let_cards_of_the_host_sleep(&mut self) -> Result<(), LedgerError> {
        let cards = self.record.awake_for_nothing(&self.host);
        if cards.is_empty() {
            return Ok(());
        }
        let whole = self.deadline;
        if self.event_of.is_some() {
            self.deadline = Deadline::after(EVENT).earlier(self.half_of_the_time());
        }
        let mut outcome = Outcome::default();
        let done = cards.iter().try_for_each(|functions| self.let_sleep(functions, &mut outcome));
        self.deadline = whole;
        if let Err(error) = done {
            // The event has other things to do; the next one tries again.
            outcome.notes.push(Note::warning(format!("a card of the host is still kept awake: {error}")));
            self.relock()?;
        }
        self.recovered.absorb(outcome);
        Ok(())
    }
}

//! What the ledger's file holds: baselines, claims and leases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::cards::{CardTerms, Quarantine};
use super::commands::Commands;
use super::knob::{Knob, Settles};
use super::monitors::MonitorWish;
use super::value::{MonitorClaim, PageShare, Value, Want};
use crate::cpuset::CpuSet;
use crate::gpu::GuestReboot;
use crate::guest::GuestUuid;
use crate::host::{Host, ProcessId, QemuClues};
use crate::pci::PciAddress;
use crate::wall_clock::seconds_since_1970;

/// The version of the file's format; a program that meets a newer one leaves it alone. 2: leases with keepers; 3:
/// cards.
pub(super) const FORMAT: u32 = 3;

/// Baselines, claims and leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of the format.
    pub format: u32,
    /// The boot it belongs to: after another one the knobs' values are gone.
    pub boot_id: String,
    /// Who holds something.
    pub leases: BTreeMap<GuestUuid, Lease>,
    /// What is held, in the order in which it is taken.
    pub entries: Vec<Entry>,
    /// Cards that are known to be wedged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantines: Vec<Quarantine>,
}

/// All claims of one guest, less the claims: those stand at their knobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The guest's name, for people.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub since: u64,
    /// How far the guest has come.
    pub phase: Phase,
    /// What is still to be run for the guest.
    #[serde(default, skip_serializing_if = "Commands::is_empty")]
    pub commands: Commands,
    /// Where the interrupts of its own devices are to be served, if they are to be moved at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<GuestInterrupts>,
    /// Monitors that are to be switched once the guest is up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitors: Vec<MonitorWish>,
    /// Cards that are handed over, and what was agreed about them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<CardTerms>,
    /// What happens when the guest reboots itself; none where nothing was said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_reboot: Option<GuestReboot>,
    /// The guest's QEMU, once it runs: while the kernel is ending it, nothing else tells that it is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<ProcessId>,
}

/// Where a guest's interrupts are served, and the host's are not. They appear when the guest's drivers load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestInterrupts {
    /// The guest's CPUs.
    pub cpus: CpuSet,
    /// Its passed-through devices whose interrupts go there; none where they are served by the host's CPUs.
    pub devices: Vec<PciAddress>,
    /// Interrupts of the host that were there before the guest and did not have to move: number and users.
    pub there_before: Vec<(u32, String)>,
}

/// How far a guest with a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// This process is taking what the guest needs; when it is dead, it failed.
    Preparing(ProcessId),
    /// All is taken, QEMU may start.
    Prepared,
    /// QEMU runs and has its memory.
    Started,
    /// This process is giving back what it holds; when it is dead, somebody else has to.
    GivingBack(ProcessId),
}

/// One knob that somebody claims, or that is on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Which.
    pub knob: Knob,
    /// Its value before any guest claimed it.
    pub baseline: Value,
    /// Its value when it was last looked at after a write of ours.
    pub written: Value,
    /// What is being written, and for whom; stays when the writer is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// A process that hangs in the kernel over it: whoever touches it next would hang too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<ProcessId>,
    /// Who wants what of it. Nobody: it is on its way back to the baseline.
    pub claims: BTreeMap<GuestUuid, Want>,
}

/// A write that was announced and not yet confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The value.
    pub value: Value,
    /// The guest whose event it belongs to.
    #[serde(rename = "for")]
    pub beneficiary: Option<GuestUuid>,
}

/// Why a ledger cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It is no JSON, or not what this program writes.
    #[error("the ledger is damaged: {0}")]
    Damaged(serde_json::Error),
    /// A later version wrote it.
    #[error("the ledger has format {0}, this vfio-hook knows formats up to {FORMAT}")]
    Newer(u32),
}

impl Record {
    /// A ledger in which nobody holds anything.
    #[must_use]
    pub fn empty(boot_id: String) -> Self {
        Self {
            format: FORMAT,
            boot_id,
            leases: BTreeMap::new(),
            entries: Vec::new(),
            quarantines: Vec::new(),
        }
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// They are damaged, or of a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        // The version first: a newer format need not look like this one in anything else.
        let header: Header = serde_json::from_slice(bytes).map_err(RecordError::Damaged)?;
        if header.format > FORMAT {
            return Err(RecordError::Newer(header.format));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(RecordError::Damaged)?;
        // What is written from here on is of this version.
        Ok(Self { format: FORMAT, ..record })
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in a record can fail to serialise: no map has a key that is not a string.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Whether nobody holds anything and nothing is on its way back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.entries.is_empty() && self.quarantines.is_empty()
    }

    /// Whether nothing is to be settled at an entry: all is written, or a process that lives is about to write it. A
    /// monitor or a card is its guest's keeper's, until it is back; one in quarantine stays as it is, and so does what
    /// the kernel hangs in.
    #[must_use]
    pub fn is_at_rest(&self, entry: &Entry, host: &Host) -> bool {
        let writer = entry.pending.as_ref().and_then(|pending| pending.beneficiary);
        let lease = writer.and_then(|uuid| self.leases.get(&uuid));
        entry.is_settled()
            || entry.stuck.is_some_and(|process| host.is_alive(process))
            || (entry.knob.is_followed() && !entry.claims.is_empty())
            || self.is_quarantined(&entry.knob)
            || lease.is_some_and(|lease| matches!(lease.phase, Phase::Preparing(by) if host.is_alive(by)))
    }

    /// The entry of a knob.
    #[must_use]
    pub fn entry(&self, knob: &Knob) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.knob == *knob)
    }

    pub(super) fn entry_mut(&mut self, knob: &Knob) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.knob == *knob)
    }

    /// The entries a guest has a claim on.
    pub fn entries_of(&self, uuid: GuestUuid) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.claims.contains_key(&uuid))
    }

    /// The pages of a pool that are set aside for guests but may not have been taken yet, one guest left out.
    #[must_use]
    pub fn promised_pages(&self, knob: &Knob, but: GuestUuid) -> u64 {
        let Some(entry) = self.entry(knob) else { return 0 };
        let waiting = entry.claims.iter().filter(|(uuid, _)| {
            **uuid != but && self.leases.get(uuid).is_some_and(|lease| lease.phase != Phase::Started)
        });
        waiting.filter_map(|(_, want)| want.pages()).map(PageShare::set_aside).sum()
    }
}

impl Lease {
    /// Whether the process that took it or was giving it back is dead.
    #[must_use]
    pub fn is_abandoned(&self, host: &Host) -> bool {
        matches!(self.phase, Phase::Preparing(by) | Phase::GivingBack(by) if !host.is_alive(by))
    }

    /// What is known of the guest's QEMU.
    #[must_use]
    pub fn qemu_clues(&self, guest: GuestUuid) -> QemuClues<'_> {
        QemuClues { guest, name: &self.name, known: self.qemu }
    }

    /// A lease that this process is about to take, from now on.
    #[must_use]
    pub fn preparing(name: &str, by: ProcessId) -> Self {
        Self {
            name: name.to_owned(),
            since: seconds_since_1970(),
            phase: Phase::Preparing(by),
            commands: Commands::default(),
            interrupts: None,
            monitors: Vec::new(),
            cards: Vec::new(),
            guest_reboot: None,
            qemu: None,
        }
    }
}

impl Entry {
    /// An entry for a knob that nobody claimed so far.
    #[must_use]
    pub fn new(knob: Knob, now: Value) -> Self {
        Self {
            knob,
            baseline: now.clone(),
            written: now,
            pending: None,
            stuck: None,
            claims: BTreeMap::new(),
        }
    }

    /// Whether somebody claims it and no write is open.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_none() && !self.claims.is_empty()
    }

    /// Whether it was given back, but may still be read as it was before: until it is seen to have come back, nobody
    /// may take what he reads for a baseline.
    #[must_use]
    pub fn is_fading(&self) -> bool {
        self.knob.settles() == Settles::Later
            && self.claims.is_empty()
            && self.pending.is_none()
            && self.written == self.baseline
    }

    /// Whether a value is one that this program wrote or was about to write, or the baseline.
    #[must_use]
    pub fn is_ours(&self, now: &Value) -> bool {
        let pending = self.pending.as_ref().map(|pending| &pending.value);
        [Some(&self.written), Some(&self.baseline), pending]
            .into_iter()
            .flatten()
            .any(|known| known.means_the_same(now))
    }
}

impl Want {
    /// The share of a page pool, if it is one.
    #[must_use]
    pub fn pages(&self) -> Option<PageShare> {
        match self {
            Self::Pages(share) => Some(*share),
            _ => None,
        }
    }

    /// What is wanted of a monitor, if it is one.
    #[must_use]
    pub fn monitor(&self) -> Option<MonitorClaim> {
        match self {
            Self::Monitor(claim) => Some(*claim),
            _ => None,
        }
    }
}

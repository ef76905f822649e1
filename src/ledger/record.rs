//! What the ledger's file holds: baselines, claims and leases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::any_entry::AnyEntry;
use super::cards::{CardTerms, KeptAwake, Quarantine};
use super::commands::Commands;
use super::entry::Entry;
use super::executor::Repair;
use super::format::{self, RecordError};
use super::guest_schedule::GuestSchedule;
use super::lease_state::LeaseState;
use super::monitors::MonitorWish;
use super::setting::Peer;
use super::settings::{Listed, ListedEntry, PagePoolSize, SettingKey};
use crate::cpuset::CpuSet;
use crate::gpu::GuestReboot;
use crate::guest::GuestUuid;
use crate::host::{Host, ProcessId, QemuClues};
use crate::pci::PciAddress;
use crate::wall_clock::seconds_since_1970;

/// What a newer program wrote into the ledger that this one does not know: kept as it is, and written again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Fields of the whole.
    pub(super) fields: Map<String, Json>,
    /// Entries of settings that are not in the list.
    pub(super) entries: Vec<UnknownEntry>,
}

/// An entry of a setting that is not in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownEntry {
    /// The entry as it was written.
    pub(super) row: Json,
    /// Its claims, which stand in a table of their own.
    pub(super) claims: Vec<(GuestUuid, Json)>,
}

impl Unknown {
    fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.entries.is_empty()
    }
}

/// Baselines, claims and leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The boot it belongs to: after another one the settings' values are gone.
    pub boot_id: String,
    /// The guests that hold something.
    pub leases: BTreeMap<GuestUuid, Lease>,
    /// What is held, in the order in which it is taken.
    entries: BTreeMap<SettingKey, ListedEntry>,
    /// Cards that are known to be wedged.
    pub quarantines: Vec<Quarantine>,
    /// Cards that stay with VFIO, and awake, although no guest has them.
    pub kept_awake: Vec<KeptAwake>,
    /// What a newer program wrote, kept as it is.
    pub(super) unknown: Unknown,
}

/// What is known of one guest that holds something. Its claims are not here: each stands at its setting's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The guest's name, for people.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub since: u64,
    /// How far the guest has come.
    pub phase: LeaseState,
    /// What it was taken for.
    #[serde(default, skip_serializing_if = "Purpose::is_start")]
    pub purpose: Purpose,
    /// What it was taken by: the configuration and the guest, as they were then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// What is still to be run for the guest.
    #[serde(default, skip_serializing_if = "Commands::is_untouched")]
    pub commands: Commands,
    /// Where the interrupts of its own devices are to be served, if they are to be moved at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<GuestInterrupts>,
    /// How its threads are to be scheduled, once QEMU runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<GuestSchedule>,
    /// Whether libvirt may choose more of its devices after `prepare`.
    #[serde(default, skip_serializing_if = "NetworkDevices::is_none")]
    pub network_devices: NetworkDevices,
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
    /// What is done to the machine for the guest just now that is no setting; or what its process was killed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// What a newer program wrote, kept as it is.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Json>,
}

/// What a lease was taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A start of the guest.
    #[default]
    Start,
    /// A person wants it without the guest: it stays until it is given back by hand, or the guest starts.
    Hold,
}

impl Purpose {
    fn is_start(&self) -> bool {
        *self == Self::Start
    }
}

/// Fingerprints of what a lease was taken by: equal ones mean that nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// How the fingerprints are made: a program that makes them in another way has another number.
    #[serde(default)]
    pub scheme: u32,
    /// That of all sections that the guest has.
    pub configuration: u64,
    /// That of the guest, as far as its XML is read.
    pub guest: u64,
}

/// Whether two fingerprints are of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// They are.
    Same,
    /// Something has changed.
    Changed,
    /// They were made in two ways, by programs of two versions.
    CannotBeTold,
}

impl Basis {
    /// Whether a guest has the same configuration as then.
    #[must_use]
    pub fn configuration_of(&self, then: &Self) -> Sameness {
        self.compare(then, self.configuration == then.configuration)
    }

    /// Whether a guest has the same configuration as then, and is the same.
    #[must_use]
    pub fn all_of(&self, then: &Self) -> Sameness {
        self.compare(then, self == then)
    }

    fn compare(&self, then: &Self, is_equal: bool) -> Sameness {
        match (self.scheme == then.scheme, is_equal) {
            (false, _) => Sameness::CannotBeTold,
            (true, true) => Sameness::Same,
            (true, false) => Sameness::Changed,
        }
    }
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

/// Devices of a network that hands devices of the host over: libvirt chooses them after `prepare`, and the guest's XML
/// has them from `start` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkDevices {
    /// The guest has no such interface, or its interrupts stay with the host's CPUs.
    #[default]
    None,
    /// What the XML shows when the guest runs is among the devices whose interrupts go to its CPUs.
    Awaited,
}

impl NetworkDevices {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Record {
    /// A ledger in which no guest holds anything.
    #[must_use]
    pub fn empty(boot_id: String) -> Self {
        Self {
            boot_id,
            leases: BTreeMap::new(),
            entries: BTreeMap::new(),
            quarantines: Vec::new(),
            kept_awake: Vec::new(),
            unknown: Unknown::default(),
        }
    }

    /// Reads a ledger's file.
    ///
    /// # Errors
    /// It is damaged, or of a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(format::parse(bytes)?.record)
    }

    /// The ledger's file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes_of(1)
    }

    pub(super) fn to_bytes_of(&self, sequence: u64) -> Vec<u8> {
        format::to_bytes(self, sequence)
    }

    /// Whether nobody holds anything and nothing is on its way back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.entries.is_empty()
            && self.quarantines.is_empty()
            && self.kept_awake.is_empty()
            && self.unknown.is_empty()
    }

    /// Whether nothing is to be settled at an entry: all is written, or a process that lives is about to write it. A
    /// monitor or a card is its guest's keeper's, until it is back; one in quarantine stays as it is, and so does what
    /// the kernel hangs in.
    #[must_use]
    pub fn is_at_rest(&self, entry: &dyn AnyEntry, host: &Host) -> bool {
        let waits_for_its_guest = |uuid: GuestUuid, lease: &Lease| match lease.phase {
            LeaseState::Preparing(by) if host.is_alive(by) => true,
            // What could not be given back for a guest is tried again by that guest alone.
            _ => !entry.has_claim(uuid),
        };
        let guest = entry.beneficiary().and_then(|uuid| Some((uuid, self.leases.get(&uuid)?)));
        entry.is_settled()
            || entry.stuck().is_some_and(|process| host.is_alive(process))
            || (entry.is_followed() && entry.is_claimed())
            || self.is_quarantined(&entry.key())
            || guest.is_some_and(|(uuid, lease)| waits_for_its_guest(uuid, lease))
    }

    /// Whether an event of a guest leaves an entry as it is, half done or not: its peer may hang, and only other guests
    /// have to do with it.
    #[must_use]
    pub fn is_left_to_others(&self, entry: &dyn AnyEntry, uuid: GuestUuid) -> bool {
        let has_owner =
            entry.is_claimed() || entry.beneficiary().is_some_and(|other| self.leases.contains_key(&other));
        entry.traits().peer == Peer::MayHang && !entry.concerns(uuid) && has_owner
    }

    /// All entries, in the order in which they are taken.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &(dyn AnyEntry + 'static)> {
        self.entries.values().map(ListedEntry::any)
    }

    /// The same, to change.
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut (dyn AnyEntry + 'static)> {
        self.entries.values_mut().map(ListedEntry::any_mut)
    }

    /// The entries of one kind of setting.
    pub fn each<S: Listed>(&self) -> impl Iterator<Item = &Entry<S>> {
        self.entries.values().filter_map(S::entry)
    }

    /// The same, to change.
    pub(super) fn each_mut<S: Listed>(&mut self) -> impl Iterator<Item = &mut Entry<S>> {
        self.entries.values_mut().filter_map(S::entry_mut)
    }

    /// The entry of a setting.
    #[must_use]
    pub fn entry<S: Listed>(&self, setting: &S) -> Option<&Entry<S>> {
        self.entries.get(&setting.clone().key()).and_then(S::entry)
    }

    pub(super) fn entry_mut<S: Listed>(&mut self, setting: &S) -> Option<&mut Entry<S>> {
        self.entries.get_mut(&setting.clone().key()).and_then(S::entry_mut)
    }

    /// The entry of a setting, whatever that is.
    #[must_use]
    pub fn any(&self, key: &SettingKey) -> Option<&(dyn AnyEntry + 'static)> {
        self.entries.get(key).map(ListedEntry::any)
    }

    pub(super) fn any_mut(&mut self, key: &SettingKey) -> Option<&mut (dyn AnyEntry + 'static)> {
        self.entries.get_mut(key).map(ListedEntry::any_mut)
    }

    pub(super) fn all_listed(&self) -> impl Iterator<Item = &ListedEntry> {
        self.entries.values()
    }

    pub(super) fn listed(&self, key: &SettingKey) -> Option<&ListedEntry> {
        self.entries.get(key)
    }

    /// Puts an entry in the place of the one that its setting has.
    pub(crate) fn put<S: Listed>(&mut self, entry: Entry<S>) {
        self.entries.insert(entry.setting.clone().key(), S::listed(entry));
    }

    /// Puts an entry where there is none of its setting.
    pub(super) fn put_listed(&mut self, entry: ListedEntry) {
        self.entries.insert(entry.any().key(), entry);
    }

    pub(super) fn remove(&mut self, key: &SettingKey) -> Option<ListedEntry> {
        self.entries.remove(key)
    }

    /// Keeps only these entries.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&(dyn AnyEntry + 'static)) -> bool) {
        self.entries.retain(|_, entry| is_kept(entry.any()));
    }

    /// The entries a guest has a claim on.
    pub fn entries_of(&self, uuid: GuestUuid) -> impl Iterator<Item = &(dyn AnyEntry + 'static)> {
        self.entries().filter(move |entry| entry.has_claim(uuid))
    }

    /// The entries that could not be given back for a guest.
    pub fn owed_by(&self, uuid: GuestUuid) -> impl Iterator<Item = &(dyn AnyEntry + 'static)> {
        let is_owed =
            move |entry: &&dyn AnyEntry| entry.beneficiary() == Some(uuid) && !entry.has_claim(uuid);
        self.entries().filter(move |entry| is_owed(&(*entry as &dyn AnyEntry)))
    }

    /// The entries of one kind that a guest has a claim on, and the claims.
    pub fn claims_of<S: Listed>(&self, uuid: GuestUuid) -> impl Iterator<Item = (&Entry<S>, &S::Want)> {
        self.each::<S>().filter_map(move |entry| Some((entry, entry.claims.get(&uuid)?)))
    }

    /// The pages of a pool that are set aside for guests but may not have been taken yet, one guest left out.
    #[must_use]
    pub fn reserved_pages(&self, pool: PagePoolSize, but: GuestUuid) -> u64 {
        let Some(entry) = self.entry(&pool) else { return 0 };
        let waiting = entry.claims.iter().filter(|(uuid, _)| {
            **uuid != but && self.leases.get(uuid).is_some_and(|lease| lease.phase != LeaseState::Started)
        });
        waiting.map(|(_, share)| share.set_aside()).sum()
    }
}

impl Lease {
    /// Whether the process that took it or was giving it back is dead.
    #[must_use]
    pub fn is_abandoned(&self, host: &Host) -> bool {
        matches!(self.phase, LeaseState::Preparing(by) | LeaseState::GivingBack(by) if !host.is_alive(by))
    }

    /// Whether a person holds it, with or without the guest to come.
    #[must_use]
    pub fn is_held_by_hand(&self) -> bool {
        self.purpose == Purpose::Hold && self.phase == LeaseState::Prepared
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
            phase: LeaseState::Preparing(by),
            purpose: Purpose::default(),
            basis: None,
            commands: Commands::default(),
            interrupts: None,
            schedule: None,
            network_devices: NetworkDevices::None,
            monitors: Vec::new(),
            cards: Vec::new(),
            guest_reboot: None,
            qemu: None,
            repair: None,
            unknown: Map::new(),
        }
    }
}

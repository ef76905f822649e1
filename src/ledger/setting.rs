//! What a setting is: one thing on the host that can be read and written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry::Entry;
use super::error::LedgerError;
use super::record::Record;
use super::rule::Rule;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError};

/// What stands in the ledger, and in messages.
pub trait InLedger: Clone + fmt::Debug + fmt::Display + Eq + Serialize + DeserializeOwned + 'static {}

impl<T: Clone + fmt::Debug + fmt::Display + Eq + Serialize + DeserializeOwned + 'static> InLedger for T {}

/// One thing on the host that can be read and written. Its own fields say which.
pub trait Setting: InLedger + Ord {
    /// What it holds.
    type Value: InLedger;
    /// What one guest wants of it.
    type Want: InLedger;
    /// How a baseline and the wants of several guests become one value.
    type Rule: Rule<Self>;

    /// Its place in the order in which settings are taken.
    fn place(&self) -> Place;

    /// How it is taken, held and given back.
    fn traits(&self) -> Traits;

    /// What it holds.
    ///
    /// # Errors
    /// It is gone ([`HostError::is_absent`]), or does not answer in time.
    fn read(&self, host: &Host, deadline: Deadline) -> Result<Self::Value, HostError>;

    /// What it holds right after a write.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_back(&self, host: &Host, deadline: Deadline) -> Result<Self::Value, HostError> {
        self.read(host, deadline)
    }

    /// Makes it hold a value.
    ///
    /// # Errors
    /// The host refuses, or does not answer in time.
    fn write(&self, host: &mut Host, value: &Self::Value, deadline: Deadline) -> Result<(), HostError>;

    /// Makes it hold what it held before the guests, which left it with another value.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn give_back(
        &self,
        host: &mut Host,
        _from: &Self::Value,
        to: &Self::Value,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.write(host, to, deadline)
    }

    /// What it means when the host refuses a write.
    fn on_refusal(&self, _error: &HostError) -> OnRefusal {
        OnRefusal::Refuse
    }

    /// Whether two values mean the same to all who look from outside.
    fn is_same(left: &Self::Value, right: &Self::Value) -> bool {
        left == right
    }

    /// The CPUs of which one has to be online for the kernel to leave a value as it is; none where it always does.
    fn needs_one_of(_value: &Self::Value) -> Option<&CpuSet> {
        None
    }

    /// The baseline of a setting that no guest has claimed so far.
    fn first_baseline(now: &Self::Value) -> Self::Value {
        now.clone()
    }

    /// Why it stays as it is instead of getting this value when the last guest gives it back; none where it does not.
    fn stays_because(&self, _host: &Host, _then: &Self::Value, _deadline: Deadline) -> Option<String> {
        None
    }

    /// A value in words.
    fn show(value: &Self::Value) -> String {
        value.to_string()
    }

    /// The same, for a reader of the other one beside it: what they have in common is not said twice.
    fn beside(value: &Self::Value, _other: &Self::Value) -> String {
        Self::show(value)
    }

    /// What a guest wants of it, in words.
    fn describe(want: &Self::Want) -> String {
        want.to_string()
    }

    /// A guest's want as it is written down, with what only the ledger knows of it, and the value that follows where
    /// the rule alone does not say.
    ///
    /// # Errors
    /// The host cannot be looked at.
    fn admit(
        _entry: &Entry<Self>,
        want: &Self::Want,
        _admission: &Admission<'_, Self>,
    ) -> Result<Admitted<Self>, LedgerError> {
        Ok(Admitted { want: want.clone(), then: None })
    }
}

/// What a claim is looked at beside.
pub struct Admission<'a, S: Setting> {
    /// Whose claim it is.
    pub uuid: GuestUuid,
    /// What the setting holds.
    pub now: &'a S::Value,
    /// All that is claimed.
    pub record: &'a Record,
    /// The host.
    pub host: &'a Host,
}

/// A guest's want as it is written down.
pub struct Admitted<S: Setting> {
    /// The want.
    pub want: S::Want,
    /// The value that follows, where the rule alone does not say.
    pub then: Option<S::Value>,
}

/// What a rule looks at.
pub struct Combining<'a, S: Setting> {
    /// The setting.
    pub setting: &'a S,
    /// The setting's value before any guest claimed it.
    pub baseline: &'a S::Value,
    /// What the guests want of it.
    pub claims: &'a BTreeMap<GuestUuid, S::Want>,
    /// What it holds.
    pub now: &'a S::Value,
    /// The CPUs of the host.
    pub online: &'a CpuSet,
}

/// The order in which settings are taken; they are given back in the reverse one. The keeper comes before what it holds;
/// a service before the socket that would start it again; pages while all CPUs can still gather them; irqbalance before
/// the interrupts that it would move back; a CPU's preference before the governor that forbids to change it; a card's
/// power before its driver, which would put it to sleep. The guest's commands have their place between the units and the
/// cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The process that lives as long as a guest.
    Keeper,
    /// What it holds against sleep.
    SleepLock,
    /// What it asks of the processors' idle states.
    CpuDmaLatency,
    /// What it asks of the daemon for power profiles.
    PowerProfile,
    /// A kernel module that others need.
    Module,
    /// What the lid does.
    Lid,
    /// What a sleep starts.
    SleepMasks,
    /// Services.
    Services,
    /// What would start them again.
    Triggers,
    /// What is built upon drives: mounts, volumes, arrays.
    Storage,
    /// Settings of the kernel as a whole.
    Kernel,
    /// Memory that guests and programs of the host have in common.
    SharedMemory,
    /// Functions of a device that are made for guests.
    VirtualFunctions,
    /// Desktops on the host's own seat.
    Desktops,
    /// What desktops are told of a card, so that they let go of it.
    DrmEvents,
    /// Programs that use a card.
    CardUsers,
    /// Text consoles on framebuffers.
    TextConsoles,
    /// The firmware's framebuffers.
    Framebuffers,
    /// Attributes of devices.
    Devices,
    /// Whether drivers are bound to what is found.
    Autoprobe,
    /// The drivers of functions.
    Drivers,
    /// Pools of huge pages.
    Pages,
    /// The CPUs that irqbalance keeps away from.
    Irqbalance,
    /// Where new interrupts go.
    NewInterrupts,
    /// Where interrupts go.
    Interrupts,
    /// Where the kernel's own work goes.
    Workqueues,
    /// Where the kernel's own threads run.
    KernelThreads,
    /// Where units run.
    Units,
    /// What a CPU prefers, performance or energy.
    EnergyPreference,
    /// How a CPU's frequency is chosen.
    Governor,
    /// Whether a CPU may exceed its base clock.
    Boost,
    /// How long a CPU may take to wake up.
    ResumeLatency,
    /// Where the interrupts of a guest's own devices go.
    DeviceInterrupts,
    /// How the threads of a guest's QEMU are scheduled.
    Threads,
    /// Monitors.
    Monitors,
}

impl Place {
    /// Whether what is taken within the commands is taken before the cards: values of the kernel, and devices that are made.
    pub(super) fn is_before_cards(self) -> bool {
        matches!(self, Self::Kernel | Self::VirtualFunctions)
    }
}

/// How a setting is taken, held and given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// When, seen from a guest's commands.
    pub phase: Phase,
    /// Whether others may get at the ledger while it is taken.
    pub locking: Locking,
    /// What has to answer when it is read or written.
    pub peer: Peer,
    /// When a value that was written can be read again.
    pub read_back: ReadBack,
    /// Whether it is set again where it is found changed while a guest holds it.
    pub reconciling: Reconciling,
    /// Who looks after it while a guest claims it.
    pub care: Care,
    /// Whether a write is several.
    pub writes: Writes,
    /// What is put back.
    pub afterwards: Afterwards,
    /// What it means when it is gone.
    pub absence: Absence,
}

/// When a setting is taken and given back, seen from a guest's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is taken before the commands of `prepare` and given back after those of `release`.
    AroundCommands,
    /// It is taken after the commands of `prepare` and given back before those of `release`, which may take long: by
    /// the guest's keeper.
    Cards,
    /// It is taken after the commands of `prepare` and given back before those of `release`: no more than a few writes.
    WithinCommands,
}

/// Whether others may get at the ledger while a setting is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    /// They wait: it takes milliseconds.
    Held,
    /// They may: it takes seconds.
    Released,
}

/// What has to answer when a setting is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The kernel alone, at once.
    Kernel,
    /// A program or a device, which may hang.
    MayHang,
}

/// When a value that was written can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// At once.
    AtOnce,
    /// At once, but what is read is not always what acts: it is written again rather than a value trusted that looks
    /// right.
    Untrusted,
    /// Some time later: until then an older value is read, and what was last written counts.
    Later,
}

/// Whether a setting is set again where it is found changed while a guest holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciling {
    /// It is not.
    Never,
    /// It is not, but another value is said: nothing undoes it but a person, who meant it.
    Noticed,
    /// It is: what lives in a process that was killed, and interrupts that a driver has put back.
    Always,
    /// It is where an older value of this program's is found: a `daemon-reload` brings it back. Any other was chosen by
    /// an administrator.
    OldValues,
    /// The same, but only when CPUs came back: nothing else undoes it.
    OldValuesOfCpus,
}

/// Why settings are looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// An event of the guest's, a `daemon-reload`, or some time that has passed.
    Usual,
    /// The host has slept, or a CPU has come online.
    CpusCameBack,
    /// An earlier look left something undecided, and no CPU has come online for some time since.
    NoCpuCame,
}

impl Reconciling {
    /// Whether a setting is looked at on an occasion.
    pub(super) fn applies_on(self, occasion: Occasion) -> bool {
        match self {
            Self::Never => false,
            Self::Always | Self::OldValues | Self::Noticed => true,
            Self::OldValuesOfCpus => occasion == Occasion::CpusCameBack,
        }
    }

    /// Whether a value that is not this program's stays.
    pub(super) fn leaves_others(self) -> bool {
        matches!(self, Self::OldValues | Self::OldValuesOfCpus)
    }
}

/// Who looks after a setting while a guest claims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Any event that finds it half done.
    Anyone,
    /// Only the guest's keeper, or the process that ends the lease without one, ever touches it.
    ItsKeeper,
}

/// Whether a write is several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It is one.
    One,
    /// It is several, so that one that was interrupted leaves a value that nothing ever wanted.
    Several,
}

/// What is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// What was there before.
    Baseline,
    /// Nothing: programs and desktops that had to go do not come back by themselves.
    Nothing,
}

/// What it means when a setting is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is told.
    Told,
    /// Its interrupt is another one from then on, should it come again.
    Forgotten,
    /// It goes with QEMU: that is not told either.
    Expected,
    /// It ends with its guest's keeper, which does not say any more what it holds.
    EndsWithKeeper,
}

/// What it means when the host refuses a write to a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefusal {
    /// The guest does without it, and that is said.
    Skip,
    /// The guest must not start.
    #[default]
    Refuse,
}

impl Traits {
    /// What the kernel takes in this phase at once, in one write, and what is not looked at while it is held.
    #[must_use]
    pub const fn of(phase: Phase) -> Self {
        Self {
            phase,
            locking: Locking::Held,
            peer: Peer::Kernel,
            read_back: ReadBack::AtOnce,
            reconciling: Reconciling::Never,
            care: Care::Anyone,
            writes: Writes::One,
            afterwards: Afterwards::Baseline,
            absence: Absence::Told,
        }
    }

    /// The same, for what a program or a device has to answer.
    #[must_use]
    pub const fn of_peer(phase: Phase) -> Self {
        Self { peer: Peer::MayHang, ..Self::of(phase) }
    }

    /// Whether a write to it may take its time, and any process may make it: others get at the ledger meanwhile.
    #[must_use]
    pub fn is_slow(self) -> bool {
        self.locking == Locking::Released && self.care == Care::Anyone
    }

    /// Something of a card: taken without the lock, and looked after by the guest's keeper until it is back.
    #[must_use]
    pub const fn of_card() -> Self {
        Self { locking: Locking::Released, care: Care::ItsKeeper, ..Self::of_peer(Phase::Cards) }
    }
}

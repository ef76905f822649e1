//! The closed list of settings. One that is forgotten anywhere does not compile.

mod attribute;
mod attribute_table;
mod card;
mod cpus;
mod drm_event;
mod interrupts;
mod keeper;
mod kernel_file;
mod kernel_threads;
mod monitor;
mod pages;
mod shared_memory;
mod sleep;
mod storage;
mod threads;
mod units;
mod virtual_functions;
mod words;

use std::cmp::Ordering;
use std::fmt;

use super::any_entry::AnyEntry;
use super::claim::{Claim, ClaimTerms};
use super::entry::Entry;
use super::error::LedgerError;
use super::plan::{On, Plan};
use super::setting::{Place, Setting, Traits};
use crate::guest::GuestUuid;

pub use attribute::{At, Attribute, AttributeName, AttributeValue};
pub use attribute_table::{Accepts, AttributeRow, Codec, Contact, TUNABLES, Tunable, attributes};
pub use card::{CardUsers, FirmwareFramebufferDriver, GraphicalSessions, PciBindings, TextConsole};
pub use cpus::{IrqbalanceBan, UnitCpus, WorkqueueMask};
pub use drm_event::LastDrmEvent;
pub use interrupts::{DefaultIrqAffinity, IrqAffinity, VfioIrqAffinity};
pub use keeper::{CpuDmaLatency, KeeperPresence, KeeperProcess, PowerProfile, SleepLock};
pub use kernel_file::KernelFile;
pub use kernel_threads::KernelThreadCpus;
pub use monitor::{Evidence, MonitorClaim, MonitorSetting, MonitorTurn, Shown};
pub(super) use pages::adopt_external_pages;
pub use pages::{NodeBinding, PagePoolSize, PageShare};
pub use shared_memory::SharedMemoryAt;
pub use sleep::{LidSwitch, MaskedSleep};
pub use storage::StorageLayer;
pub use threads::ThreadScheduling;
pub use units::{I2cDevModule, ModulePresence, UnitRuns};
pub use virtual_functions::VirtualFunctionsOf;
pub use words::{OrNone, WordList};

/// A setting of the list.
pub trait Listed: Setting {
    /// Its name in the ledger.
    const WORD: &'static str;

    /// Which setting it is.
    fn key(self) -> SettingKey;

    /// The setting of a key, if it is one of these.
    fn of_key(key: &SettingKey) -> Option<&Self>;

    /// An entry of it among all entries.
    fn listed(entry: Entry<Self>) -> ListedEntry;

    /// The entry of it that this is, if it is one.
    fn entry(entry: &ListedEntry) -> Option<&Entry<Self>>;

    /// The same, to change.
    fn entry_mut(entry: &mut ListedEntry) -> Option<&mut Entry<Self>>;
}

/// Something to be done with an entry that needs its type.
pub(super) trait OnEntry {
    /// What comes of it.
    type Output;

    /// What is done with an entry of one kind.
    fn on<S: Listed>(self, entry: &Entry<S>) -> Self::Output;
}

/// Something to be done with a kind of setting.
pub(super) trait OfKind {
    /// What comes of it.
    type Output;

    /// What is done for one kind of setting.
    fn of<S: Listed>(self) -> Self::Output;
}

macro_rules! settings {
    ($($name:ident($type:ty) = $word:literal,)*) => {
        /// The key of a setting, of whatever kind.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum SettingKey {
            $(
                #[doc = concat!("See [`", stringify!($type), "`].")]
                $name($type),
            )*
        }

        /// An entry of any setting.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum ListedEntry {
            $(
                #[doc = concat!("See [`", stringify!($type), "`].")]
                $name(Entry<$type>),
            )*
        }

        impl SettingKey {
            /// Its place in the order in which settings are taken.
            #[must_use]
            pub fn place(&self) -> Place {
                match self { $(Self::$name(setting) => setting.place(),)* }
            }

            /// How it is taken, held and given back.
            #[must_use]
            pub fn traits(&self) -> Traits {
                match self { $(Self::$name(setting) => setting.traits(),)* }
            }

            /// Among those that have one place.
            fn cmp_in_place(&self, other: &Self) -> Ordering {
                match (self, other) {
                    $((Self::$name(this), Self::$name(other)) => this.cmp(other),)*
                    // Settings of several kinds have no place in common.
                    _ => self.word().cmp(other.word()),
                }
            }

            fn word(&self) -> &'static str {
                match self { $(Self::$name(_) => $word,)* }
            }
        }

        impl fmt::Display for SettingKey {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name(setting) => setting.fmt(f),)* }
            }
        }

        impl ListedEntry {
            /// The entry, whatever its setting is.
            #[must_use]
            pub fn any(&self) -> &(dyn AnyEntry + 'static) {
                match self { $(Self::$name(entry) => entry,)* }
            }

            pub(super) fn with<V: OnEntry>(&self, what: V) -> V::Output {
                match self { $(Self::$name(entry) => what.on(entry),)* }
            }

            /// The same, to change.
            pub fn any_mut(&mut self) -> &mut (dyn AnyEntry + 'static) {
                match self { $(Self::$name(entry) => entry,)* }
            }
        }

        /// Does something with the kind of this name; none where there is no such kind.
        pub(super) fn of_kind<K: OfKind>(word: &str, kind: K) -> Option<K::Output> {
            match word {
                $($word => Some(kind.of::<$type>()),)*
                _ => None,
            }
        }

        /// A guest's claim on any setting.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum ListedClaim {
            $(
                #[doc = concat!("See [`", stringify!($type), "`].")]
                $name(Claim<$type>),
            )*
        }

        impl ListedClaim {
            /// Adds it to a plan.
            pub(in crate::ledger) fn add_to(
                &self,
                plan: &mut Plan,
                uuid: GuestUuid,
                on: &On<'_>,
            ) -> Result<(), LedgerError> {
                match self { $(Self::$name(claim) => plan.claim(uuid, claim, on),)* }
            }

            /// Which setting it is on.
            #[must_use]
            pub fn key(&self) -> SettingKey {
                match self { $(Self::$name(claim) => claim.setting.clone().key(),)* }
            }

            /// How it is taken.
            #[must_use]
            pub fn terms(&self) -> &ClaimTerms {
                match self { $(Self::$name(claim) => &claim.terms,)* }
            }

            /// Whether it wants the same of the same setting, on whatever terms.
            #[must_use]
            pub fn wants_the_same(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$name(this), Self::$name(other)) => {
                        this.setting == other.setting && this.want == other.want
                    })*
                    _ => false,
                }
            }
        }

        $(
            impl From<Claim<$type>> for ListedClaim {
                fn from(claim: Claim<$type>) -> Self {
                    Self::$name(claim)
                }
            }

            impl Listed for $type {
                const WORD: &'static str = $word;

                fn key(self) -> SettingKey {
                    SettingKey::$name(self)
                }

                fn of_key(key: &SettingKey) -> Option<&Self> {
                    match key {
                        SettingKey::$name(setting) => Some(setting),
                        _ => None,
                    }
                }

                fn listed(entry: Entry<Self>) -> ListedEntry {
                    ListedEntry::$name(entry)
                }

                fn entry(entry: &ListedEntry) -> Option<&Entry<Self>> {
                    match entry {
                        ListedEntry::$name(entry) => Some(entry),
                        _ => None,
                    }
                }

                fn entry_mut(entry: &mut ListedEntry) -> Option<&mut Entry<Self>> {
                    match entry {
                        ListedEntry::$name(entry) => Some(entry),
                        _ => None,
                    }
                }
            }
        )*
    };
}

settings! {
    Keeper(KeeperProcess) = "keeper",
    SleepLock(SleepLock) = "sleep-lock",
    CpuDmaLatency(CpuDmaLatency) = "cpu-dma-latency",
    PowerProfile(PowerProfile) = "power-profile",
    I2cDev(I2cDevModule) = "i2c-dev",
    LidSwitch(LidSwitch) = "lid-switch",
    SleepMasks(MaskedSleep) = "sleep-masks",
    Unit(UnitRuns) = "unit",
    Storage(StorageLayer) = "storage",
    Attribute(Attribute) = "attribute",
    KernelFile(KernelFile) = "kernel-file",
    SharedMemory(SharedMemoryAt) = "shared-memory",
    VirtualFunctions(VirtualFunctionsOf) = "virtual-functions",
    GraphicalSessions(GraphicalSessions) = "graphical-sessions",
    DrmEvent(LastDrmEvent) = "drm-event",
    CardUsers(CardUsers) = "card-users",
    VtConsole(TextConsole) = "vt-console",
    FirmwareFramebuffer(FirmwareFramebufferDriver) = "firmware-framebuffer",
    PciBindings(PciBindings) = "pci-bindings",
    PagePool(PagePoolSize) = "page-pool",
    IrqbalanceBan(IrqbalanceBan) = "irqbalance-ban",
    DefaultIrqAffinity(DefaultIrqAffinity) = "default-irq-affinity",
    IrqAffinity(IrqAffinity) = "irq-affinity",
    WorkqueueMask(WorkqueueMask) = "workqueue-mask",
    KernelThreadCpus(KernelThreadCpus) = "kernel-thread-cpus",
    AllowedCpus(UnitCpus) = "allowed-cpus",
    VfioIrqAffinity(VfioIrqAffinity) = "vfio-irq-affinity",
    ThreadScheduling(ThreadScheduling) = "thread-scheduling",
    MonitorFeature(MonitorSetting) = "monitor-feature",
}

impl Ord for SettingKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place()).then_with(|| self.cmp_in_place(other))
    }
}

impl PartialOrd for SettingKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

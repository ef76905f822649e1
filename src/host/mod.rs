//! The machine: all that is read or changed of it goes through here.
//!
//! Reading needs `&Host`, changing needs `&mut Host`: the actions get the first, the ledger's
//! executor alone has the second (`tests/layers.rs` keeps it so).
//! Functions are named after the kernel file or systemd property they touch.

mod afterwards;
mod apart;
mod block;
mod bounded_child;
mod bounded_look;
mod card_users;
mod cgroup;
mod children;
mod code_pages;
mod command;
mod cpu;
mod cpu_events;
mod descendants;
mod detached;
mod directory_user;
mod display;
mod early_answers;
mod error;
mod exit_at_once;
mod files;
mod given_file;
mod hugepages;
#[cfg(test)]
pub(crate) mod hung_peer;
mod i2c;
mod i2c_dev;
mod inherited;
mod irq;
mod irqbalance;
mod keeper_service;
mod keepers;
mod kernel_log;
mod kernel_module;
mod kernel_setting;
mod kernel_threads;
mod latency;
mod libvirt;
mod libvirt_hook;
mod lid_switch;
mod local_socket;
mod lock_holder;
mod logind;
pub mod manifest;
mod memory;
mod monitors;
mod pci;
mod power_profiles;
mod presence;
mod process;
mod process_owner;
mod process_search;
mod program_version;
mod qemu;
mod qemu_events;
mod release;
mod required;
mod root_file;
mod root_path;
mod sched;
mod script_tree;
mod service;
mod session;
mod shared_memory;
pub mod simulated;
mod sleep_masks;
mod state_dir;
mod stderr;
mod sysfs;
mod systemd;
mod unit_files;
mod uptime;
mod user;
mod virsh;
mod worker;
mod workqueue;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use afterwards::{Afterwards, afterwards};
pub(crate) use apart::{WorkEnd, apart, block_signals, let_go_of_stdin};
pub use block::{
    BlockDevice, DiskUse, DiskUseKind, DriveIdentity, LayerName, LayerState, MountSharing, MountSpec,
    PathHolder, StackObstacle, StackedLayer, StorageStack,
};
pub use card_users::{
    CardNode, DeviceClass, DeviceNumber, HeldNode, Hold, Holder, HolderUnit, NodeKind, UnitOwner,
};
pub use cgroup::{AllowedCpus, DropIn, TopGroups};
pub(crate) use code_pages::let_go_of_code;
pub use command::{CommandEnd, CommandLine, Orphaned, RUN_PROGRAM, RunAs, WITH_ITS_PARENT, run_program};
pub(crate) use cpu_events::CpuEvents;
pub use descendants::LeftRunning;
pub(crate) use detached::make_detached;
pub use detached::{APART, DetachedProcess, DetachedProcesses};
pub use display::{
    ConnectorActivity, ConnectorStatus, ConsoleBinding, DrmCard, DrmConnector, DrmEvent, FirmwareFramebuffer,
    FramebufferDriver, LoginSession, SessionActivity, SessionClass, SessionId, SessionType,
};
pub use error::HostError;
pub(crate) use exit_at_once::exit_at_once;
pub use given_file::read_given_file;
pub use hugepages::{PagePool, PoolCount};
pub use i2c::{I2cBus, MonitorTrouble};
pub use i2c_dev::{I2cDev, Unloaded};
pub(crate) use inherited::{take_limits, take_signals};
pub use irq::Interrupt;
pub use irqbalance::{Irqbalance, IrqbalanceSocket};
pub use keeper_service::KEEPER;
pub(crate) use keeper_service::send;
pub use keepers::Keepers;
pub(crate) use keepers::{keeper_lock, keeper_socket, xml_file};
pub use kernel_setting::{KernelSetting, NoSetting, check_kernel_path};
pub use kernel_threads::KernelThread;
pub use libvirt::Libvirt;
pub use libvirt_hook::HookTrouble;
pub use lid_switch::LidSwitchHandling;
pub(crate) use local_socket::{Heard, LocalSocket};
pub use lock_holder::{LockHolder, LockState};
pub use logind::{Logind, SleepState};
use monitors::RecentlyFound;
pub use monitors::{MonitorFound, MonitorProblem, MonitorsFound};
pub use pci::{
    AskedBars, BarReason, Binding, Bindings, BusReset, DriverName, DriverNameError, Expected, Health,
    HostDrivers, IommuMaker, Link, OfferedSizes, PciAttribute, PciFunction, PciModelName, PciTrouble,
    PortsAbove, PowerState, ProbeReport, Probed, RescanBinding, ReservedRegion, SriovCapability,
    VirtualFunctions,
};
pub use power_profiles::{HeldPowerProfile, PowerProfiles};
pub(crate) use presence::{is_named, is_named_at_once};
pub use process::StrayTasks;
pub(crate) use process_search::ONE_LOOK;
pub use qemu::{QemuClues, QemuSearch, QemuThread, RealTimeLimit, ThreadId, ThreadRole};
pub use qemu_events::{EndSink, GuestEnd, GuestEndWatch};
pub(crate) use root_path::ROOT_PATH;
pub use service::{
    ServiceUnit, SystemState, UnitActivity, UnitManager, UnitPresence, UnitRelations, UnitState, UnitStatus,
};
pub use session::{Session, Variable};
pub use sleep_masks::SleepMasks;
pub(crate) use state_dir::LOCK_RETRY;
pub use state_dir::{LockFile, STATE_DIR, SharedLock};
pub(crate) use stderr::{write_to_stderr, write_to_stderr_once};
pub use systemd::{BusSignal, UnitName, Units, watch_bus_signals};
pub use unit_files::UnitsOf;
pub(crate) use uptime::time_asleep;
pub use user::User;
pub(crate) use virsh::{Virsh, VirshError};
pub use worker::{WORKER, run_worker};
pub use workqueue::Workqueue;

pub use crate::process_id::ProcessId;

use command::MachinePrograms;
use detached::MachineDetachedProcesses;
use early_answers::EarlyAnswers;
use files::{Files, KernelFiles};
use i2c::{BusThreads, MachineBuses};
use irqbalance::SilentIrqbalances;
use keeper_service::KeeperServices;
use libvirt::MachineLibvirt;
use logind::LoginManager;
use nix::unistd::Uid;
use power_profiles::PowerProfilesDaemon;
use simulated::{
    Faults, SimulatedBuses, SimulatedDetachedProcesses, SimulatedFiles, SimulatedKeepers, SimulatedLibvirt,
    SimulatedLogind, SimulatedPowerProfiles, SimulatedUnits,
};
use systemd::{Bus, SystemUnits};
use worker::Workers;

/// There while systemd is the first process (`sd_booted(3)`).
const RUNNING_SYSTEMD: &str = "/run/systemd/system";

/// The name under which the journal files every line of the program, whatever the hook is installed as.
pub const IDENTIFIER: &str = "vfio-hook";

/// The file of the running program, whatever became of its name.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A machine: the real one, or one in a folder.
pub struct Host {
    files: Box<dyn Files>,
    units: Box<dyn Units>,
    programs: MachinePrograms,
    logind: Box<dyn Logind>,
    power_profiles: Box<dyn PowerProfiles>,
    keepers: Box<dyn Keepers>,
    libvirt: Box<dyn Libvirt>,
    detached: Box<dyn DetachedProcesses>,
    buses: BusThreads,
    recently_found: RecentlyFound,
    early_answers: EarlyAnswers,
    silent_irqbalances: SilentIrqbalances,
    workers: Workers,
}

impl Host {
    /// The machine the program runs on.
    #[must_use]
    pub fn real() -> Self {
        let bus = Arc::new(Bus::default());
        Self {
            files: Box::new(KernelFiles),
            programs: MachinePrograms::default(),
            units: Box::new(SystemUnits::new(Arc::clone(&bus))),
            logind: Box::new(LoginManager::new(Arc::clone(&bus))),
            power_profiles: Box::new(PowerProfilesDaemon::new(Arc::clone(&bus))),
            keepers: Box::new(KeeperServices::new(Arc::clone(&bus))),
            libvirt: Box::new(MachineLibvirt),
            detached: Box::new(MachineDetachedProcesses::new(bus)),
            buses: BusThreads::machine(MachineBuses),
            recently_found: RecentlyFound::default(),
            early_answers: EarlyAnswers::default(),
            silent_irqbalances: SilentIrqbalances::default(),
            workers: Workers::machine(PathBuf::from(THIS_PROGRAM)),
        }
    }

    /// The machine, for a worker, which talks with monitors itself, but not over these buses.
    fn for_worker(found: &[MonitorFound], hanging: &[I2cBus]) -> Self {
        Self {
            buses: BusThreads::machine_but(MachineBuses, hanging),
            recently_found: RecentlyFound::of(found),
            workers: Workers::Itself,
            ..Self::real()
        }
    }

    /// A host in a folder, laid out by [`manifest::lay_out`].
    #[must_use]
    pub fn simulated(root: &Path, faults: &Faults) -> Self {
        let files = SimulatedFiles::new(root.to_owned(), faults.clone());
        Self {
            files: Box::new(files.clone()),
            units: Box::new(SimulatedUnits::new(files.clone())),
            programs: MachinePrograms::default(),
            logind: Box::new(SimulatedLogind::new(files.clone())),
            power_profiles: Box::new(SimulatedPowerProfiles::new(files.clone())),
            keepers: Box::new(SimulatedKeepers::new(files.clone())),
            libvirt: Box::new(SimulatedLibvirt::new(files.clone())),
            detached: Box::new(SimulatedDetachedProcesses::new(files.clone())),
            buses: BusThreads::simulated(SimulatedBuses::new(files)),
            recently_found: RecentlyFound::default(),
            early_answers: EarlyAnswers::default(),
            silent_irqbalances: SilentIrqbalances::default(),
            workers: Workers::simulated(faults.clone()),
        }
    }

    /// Where a path of the machine really is; the same path on a real one.
    #[must_use]
    pub fn locate(&self, path: &Path) -> PathBuf {
        self.files.locate(path)
    }

    /// The folder that stands for `/`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.files.locate("/".as_ref())
    }

    /// Who must own the files that decide what the program does: root, or on a host in a folder the user who made it.
    #[must_use]
    pub fn trusted_owner(&self) -> Uid {
        if self.is_real() { Uid::from_raw(0) } else { Uid::effective() }
    }

    /// Whether it is the machine itself, not one in a folder.
    pub(crate) fn is_real(&self) -> bool {
        self.root() == Path::new("/")
    }

    fn text(&self, path: impl AsRef<Path>) -> Result<String, HostError> {
        let path = path.as_ref();
        let bytes = self.files.read(path).map_err(|error| HostError::read(path, error))?;
        let text = String::from_utf8(bytes).map_err(|error| HostError::content(path, error))?;
        Ok(text.trim_end().to_owned())
    }

    /// Like [`Self::text`]; none where the file is absent.
    fn text_if_present(&self, path: impl AsRef<Path>) -> Result<Option<String>, HostError> {
        match self.text(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn value<T: FromStr<Err: std::fmt::Display>>(&self, path: impl AsRef<Path>) -> Result<T, HostError> {
        let path = path.as_ref();
        self.text(path)?.parse().map_err(|reason| HostError::content(path, reason))
    }

    fn set(&mut self, path: impl AsRef<Path>, value: &str) -> Result<(), HostError> {
        let path = path.as_ref();
        self.files.write(path, value).map_err(|error| HostError::write(path, value, error))
    }

    /// The value of an attribute of the kernel's.
    ///
    /// # Errors
    /// It is not there ([`HostError::is_absent`]), or cannot be read.
    pub fn attribute(&self, path: &Path) -> Result<String, HostError> {
        self.text(path)
    }

    /// Sets an attribute of the kernel's, which takes it at once.
    ///
    /// # Errors
    /// The kernel refuses the value, or has no such attribute.
    pub fn set_attribute(&mut self, path: &Path, value: &str) -> Result<(), HostError> {
        self.set(path, value)
    }

    fn names(&self, folder: impl AsRef<Path>) -> Result<Vec<OsString>, HostError> {
        let folder = folder.as_ref();
        self.files.list(folder).map_err(|error| HostError::list(folder, error))
    }

    fn numbered(&self, folder: &str, prefix: &str) -> Result<Vec<u32>, HostError> {
        let mut numbers: Vec<u32> = self
            .names(folder)?
            .iter()
            .filter_map(|name| name.to_str()?.strip_prefix(prefix)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn remove_if_present(&mut self, path: &Path) -> Result<(), HostError> {
        match self.files.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HostError::remove(path, error)),
            _ => Ok(()),
        }
    }

    /// Makes a small file in a folder of `/run` that is another program's to read.
    fn make_file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), HostError> {
        self.files
            .make(path, bytes)
            .map_err(|error| HostError::write(path, &String::from_utf8_lossy(bytes), error))
    }

    /// Removes the folder a file was in; other files in it keep it.
    fn remove_empty_folder_of(&mut self, path: &Path) {
        if let Some(folder) = path.parent() {
            let _ = self.files.remove(folder);
        }
    }

    /// `/proc/sys/kernel/random/boot_id`: another one after every boot.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn boot_id(&self) -> Result<String, HostError> {
        self.text("/proc/sys/kernel/random/boot_id")
    }

    /// Whether systemd is the first process (`sd_booted(3)`).
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        self.is_present(RUNNING_SYSTEMD)
    }
}

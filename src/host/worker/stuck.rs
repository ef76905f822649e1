//! What is stuck in the kernel: threads of this process and children that were left behind, and what each hangs in.
//!
//! The kernel does not let them end, so nothing waits for them. What one hangs in is not touched again until it has
//! ended: another would hang there too, and a keeper that tries again and again would collect them.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::host::children::OwnedChild;
use crate::host::i2c::I2cBus;

/// What something hangs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) enum StuckIn {
    /// A transfer on a bus.
    Bus(I2cBus),
    /// A look at one of the processes in this folder: the machine's `/proc`, or that of a host in a folder.
    Processes(PathBuf),
    /// A look at the mappings of the process that this folder is of.
    Mappings(PathBuf),
    /// A look whether this path is there.
    Path(PathBuf),
}

impl fmt::Display for StuckIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(bus) => bus.fmt(f),
            Self::Processes(proc) => write!(f, "a look at the processes in {}", proc.display()),
            Self::Path(path) => write!(f, "a look for {}", path.display()),
            Self::Mappings(process) => write!(f, "a look at the mappings of {}", process.display()),
        }
    }
}

/// All that is known to be stuck. Copies know the same.
#[derive(Clone, Default)]
pub(in crate::host) struct StuckRegistry(Arc<Mutex<Vec<LeftBehind>>>);

struct LeftBehind {
    what: Hanging,
    hangs_in: Vec<StuckIn>,
}

enum Hanging {
    Thread(JoinHandle<()>),
    Child(OwnedChild),
}

impl StuckRegistry {
    /// What all of this process knows: the machine is the same for all its hosts but those in a folder.
    pub(in crate::host) fn of_this_process() -> Self {
        static OF_THIS_PROCESS: LazyLock<StuckRegistry> = LazyLock::new(StuckRegistry::default);
        OF_THIS_PROCESS.clone()
    }

    /// Remembers a thread until it ends.
    pub(super) fn add_thread(&self, thread: JoinHandle<()>, hangs_in: StuckIn) {
        self.entries().push(LeftBehind { what: Hanging::Thread(thread), hangs_in: vec![hangs_in] });
    }

    /// Remembers a child until it ends; what it hangs in may be unknown.
    pub(super) fn add_child(&self, child: OwnedChild, hangs_in: Vec<StuckIn>) {
        self.entries().push(LeftBehind { what: Hanging::Child(child), hangs_in });
    }

    /// Whether something still hangs there.
    pub(super) fn is_stuck(&self, place: &StuckIn) -> bool {
        self.places().contains(place)
    }

    /// What is hung in now. What has ended since is forgotten; a child of it is waited for.
    pub(in crate::host) fn places(&self) -> Vec<StuckIn> {
        let mut entries = self.entries();
        for ended in entries.extract_if(.., |entry| entry.what.has_ended()) {
            if let Hanging::Child(child) = ended.what {
                let _ = child.reap();
            }
        }
        entries.iter().flat_map(|entry| entry.hangs_in.iter().cloned()).collect()
    }

    /// The buses among them.
    pub(in crate::host) fn buses(&self) -> Vec<I2cBus> {
        let bus_of = |place| match place {
            StuckIn::Bus(bus) => Some(bus),
            StuckIn::Processes(_) | StuckIn::Mappings(_) | StuckIn::Path(_) => None,
        };
        self.places().into_iter().filter_map(bus_of).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<LeftBehind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StuckRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.places()).finish()
    }
}

impl Hanging {
    fn has_ended(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            // A child that the kernel does not know any more has ended too.
            Self::Child(child) => child.has_ended().unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill};

    use super::*;
    use crate::deadline::Deadline;
    use crate::host::children::inherit_nothing;

    #[test]
    fn a_thread_is_known_until_it_ends() {
        let registry = StuckRegistry::default();
        let (lets_go, hangs) = channel::<()>();
        let place = StuckIn::Bus(I2cBus(7));
        let hang = move || {
            let _ = hangs.recv();
        };
        registry.add_thread(thread::spawn(hang), place.clone());
        assert!(registry.clone().is_stuck(&place), "copies know the same");
        assert!(!registry.is_stuck(&StuckIn::Bus(I2cBus(8))));
        assert!(!StuckRegistry::default().is_stuck(&place), "another host's bus has the same number");
        assert_eq!(registry.buses(), [I2cBus(7)]);
        drop(lets_go);
        let time = Deadline::after(Duration::from_secs(20));
        while registry.is_stuck(&place) {
            assert!(!time.has_passed(), "it is not forgotten");
            thread::yield_now();
        }
    }

    #[test]
    fn a_child_is_known_by_all_it_hangs_in_and_leaves_no_zombie() {
        let registry = StuckRegistry::default();
        let child = OwnedChild::spawn(inherit_nothing(Command::new("/bin/sleep").arg("1000"))).unwrap();
        let pid = child.pid();
        registry.add_child(child, vec![StuckIn::Bus(I2cBus(7)), StuckIn::Bus(I2cBus(8))]);
        assert_eq!(registry.buses(), [I2cBus(7), I2cBus(8)]);
        kill(pid, Signal::SIGKILL).unwrap();
        let time = Deadline::after(Duration::from_secs(20));
        while !registry.places().is_empty() {
            assert!(!time.has_passed(), "it is not forgotten");
            thread::yield_now();
        }
        assert_eq!(kill(pid, None), Err(Errno::ESRCH), "nothing waited for it");
    }
}

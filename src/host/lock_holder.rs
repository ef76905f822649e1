//! Who holds a lock of this program's. The kernel tells nobody but that it is held, so the holder writes into the file
//! who it is.

use std::env;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::process::is_alive;
use crate::printable::excerpt;
use crate::process_id::ProcessId;
use crate::wall_clock::{age, seconds_since_1970};

/// The most that is read of a file.
const MAX_BYTES: usize = 4096;

/// The most that is said of a command and of each of its words, in characters: a guest's name may be of any length.
const MAX_COMMAND: usize = 120;
const MAX_WORD: usize = 40;

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The process that holds the lock.
    pub process: ProcessId,
    /// What it was started as, printable: `qemu win11 prepare begin -`, `vfio-hook undo --stale`.
    pub command: String,
    /// When it took the lock, in seconds since 1970.
    pub since: u64,
}

/// Whether a lock is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Nobody holds it.
    Free,
    /// This process does.
    HeldBy(LockHolder),
    /// A process that does not say so does, such as one that has just taken it.
    HeldByUnknown,
}

impl LockState {
    /// Whether the lock of this file is held, and by whom.
    ///
    /// # Errors
    /// It cannot be locked.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        // A lock that others can share too, and gone at once: who wants it alone tries again.
        match file.try_lock_shared() {
            Ok(()) => Ok(Self::Free),
            Err(TryLockError::WouldBlock) => Ok(Self::held(file)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Who holds a lock that is held. What a process wrote that is dead by now is not believed: it was killed, and
    /// another has the lock.
    pub(super) fn held(file: &File) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let length = file.read_at(&mut bytes, 0).unwrap_or(0);
        match serde_json::from_slice::<LockHolder>(&bytes[..length]) {
            Ok(holder) if is_alive(holder.process) => {
                Self::HeldBy(LockHolder { command: excerpt(&holder.command, MAX_COMMAND), ..holder })
            }
            _ => Self::HeldByUnknown,
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {}) since {}", self.command, self.process.pid, age(self.since))
    }
}

/// Writes who holds the lock: this process. A disk that is full changes nothing but that nobody is told.
pub(super) fn sign(file: &File, process: ProcessId) {
    let holder = LockHolder { process, command: this_command(), since: seconds_since_1970() };
    let _ = erase(file);
    if let Ok(bytes) = serde_json::to_vec(&holder) {
        let _ = file.write_all_at(&bytes, 0);
    }
}

/// Nobody holds it any more. To be written before the lock is given up: nobody shall be taken for the next holder.
pub(super) fn erase(file: &File) -> io::Result<()> {
    file.set_len(0)
}

/// What this process was started as.
fn this_command() -> String {
    let mut words = env::args_os();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_owned();
    let words = std::iter::once(program).chain(words);
    let words: Vec<String> = words.map(|word| excerpt(&word.to_string_lossy(), MAX_WORD)).collect();
    excerpt(&words.join(" "), MAX_COMMAND)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::Host;
    use crate::host::simulated::Faults;

    #[test]
    fn the_holder_is_told_as_long_as_it_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = File::create(&path).unwrap();
        let state = || LockState::of(&File::open(&path).unwrap()).unwrap();
        assert_eq!(state(), LockState::Free);
        file.lock().unwrap();
        assert_eq!(state(), LockState::HeldByUnknown);

        let process = Host::simulated(folder.path(), &Faults::default()).this_process();
        sign(&file, process);
        let LockState::HeldBy(holder) = state() else { panic!("{:?}", state()) };
        assert_eq!(holder.process, process);
        // The name of the test's program.
        assert!(holder.command.starts_with("vfio_hook-"), "{}", holder.command);
        assert!(holder.to_string().contains(&format!("` (process {}) since ", process.pid)), "{holder}");

        erase(&file).unwrap();
        assert_eq!(state(), LockState::HeldByUnknown);
        sign(&file, process);
        drop(file);
        assert_eq!(state(), LockState::Free, "what it says is of one that was killed");
    }

    #[test]
    fn what_cannot_be_true_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        let alive = Host::simulated(folder.path(), &Faults::default()).this_process();
        let dead = ProcessId { start_time: alive.start_time + 1, ..alive };
        let said = |process, command: &str| {
            let holder = LockHolder { process, command: command.to_owned(), since: 1 };
            serde_json::to_string(&holder).unwrap()
        };
        for text in ["", "{}", &said(dead, "qemu"), &said(alive, "qemu")[..20], &"x".repeat(2 * MAX_BYTES)] {
            fs::write(&path, text).unwrap();
            assert_eq!(
                LockState::of(&File::open(&path).unwrap()).unwrap(),
                LockState::HeldByUnknown,
                "{text}"
            );
        }
        fs::write(&path, said(alive, &format!("qemu a\nb\u{1b}[2J{}", "x".repeat(1000)))).unwrap();
        let LockState::HeldBy(holder) = LockState::of(&File::open(&path).unwrap()).unwrap() else { panic!() };
        assert!(holder.command.starts_with(r"qemu a\nb\u{1b}[2Jxxx"), "{}", holder.command);
        assert!(holder.command.chars().count() < 2 * MAX_COMMAND);
    }
}

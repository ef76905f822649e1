//! Who holds the lock on a bus, and whether that process hangs in the kernel.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::stat::{fstat, major, minor};
use serde::{Deserialize, Serialize};

use super::I2cHandle;
use crate::printable::printable;

/// Most locks are free again sooner than this, and nobody is asked who has them.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// A process that is uninterruptible at each look for so long hangs. A transfer takes milliseconds, half a second in a
/// slow monitor, and monitor controls sleep between transfers.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// The process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Its number.
    pub process: u32,
    /// Its name, at most 15 bytes.
    pub program: String,
    /// Whether it may still let go.
    pub state: HolderState,
}

/// What the holder of a lock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HolderState {
    /// It runs, or sleeps by itself.
    Runs,
    /// One of its threads is in the kernel, and no signal ends that.
    Waits,
    /// It hangs: it was killed and does not end, or has waited for long.
    Hangs,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", printable(&self.program), self.process)
    }
}

/// Looks at who holds a lock while that is waited for.
pub(super) struct Watch {
    began: Instant,
    /// Since when the same process has waited in the kernel at each look.
    waits: Option<(u32, Instant)>,
    hangs: Option<LockHolder>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { began: Instant::now(), waits: None, hangs: None }
    }
}

impl Watch {
    /// Whether the holder hangs.
    pub(super) fn hangs(&mut self, handle: &dyn I2cHandle) -> bool {
        if self.began.elapsed() < LOOK_AFTER {
            return false;
        }
        let Some(holder) = handle.lock_holder() else { return false };
        self.waits = match (holder.state, self.waits) {
            (HolderState::Runs, _) => None,
            (_, Some((process, since))) if process == holder.process => Some((process, since)),
            _ => Some((holder.process, Instant::now())),
        };
        let waits_for_long = self.waits.is_some_and(|(_, since)| since.elapsed() >= HANGS_AFTER);
        if holder.state == HolderState::Hangs || waits_for_long {
            self.hangs = Some(LockHolder { state: HolderState::Hangs, ..holder });
        }
        self.hangs.is_some()
    }

    /// Who holds it, where that can be found.
    pub(super) fn holder(self, handle: &dyn I2cHandle) -> Option<LockHolder> {
        self.hangs.or_else(|| handle.lock_holder())
    }
}

/// The holder of a lock on an open file, from the kernel's list of locks. None where no process of this namespace is.
pub(super) fn holder_of(file: &fs::File) -> Option<LockHolder> {
    let stat = fstat(file).ok()?;
    let (major, minor) = (major(stat.st_dev), minor(stat.st_dev));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let process = process_with_lock(&locks, &format!("{major:02x}:{minor:02x}:{}", stat.st_ino))?;
    let program = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(LockHolder { process, program: program.trim_end().to_owned(), state: state_of(process) })
}

/// `1: FLOCK  ADVISORY  WRITE 4711 00:05:1037 0 EOF`; those who wait have an arrow behind the number (`fs/locks.c`,
/// `lock_get_status`).
fn process_with_lock(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, process, of) = (words.next()?, words.nth(2)?, words.next()?);
        (kind == "FLOCK" && of == file).then(|| process.parse().ok())?
    })
}

/// `/proc/PID/stat`, which the kernel shows of a process that hangs too.
fn state_of(process: u32) -> HolderState {
    let state = |path: String| {
        let stat = fs::read_to_string(path).ok()?;
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    };
    // The leader of a process that was killed is gone, and one of its threads is not.
    if state(format!("/proc/{process}/stat")) == Some('Z') {
        return HolderState::Hangs;
    }
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| {
        state(format!("/proc/{process}/task/{}/stat", thread.file_name().to_string_lossy()))
    });
    if states.any(|state| state == 'D') { HolderState::Waits } else { HolderState::Runs }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::super::BusKind;
    use super::*;

    #[test]
    fn finds_who_has_the_lock_and_not_who_waits_for_it() {
        let locks = "1: POSIX  ADVISORY  WRITE 900 00:05:1037 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 00:05:1037 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 4712 00:05:1038 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE -1 00:05:1039 0 EOF\n";
        assert_eq!(process_with_lock(locks, "00:05:1037"), Some(4711));
        assert_eq!(process_with_lock(locks, "00:05:1038"), None);
        assert_eq!(
            process_with_lock(locks, "00:05:1039"),
            None,
            "one of another namespace has no number here"
        );
    }

    #[test]
    fn the_kernel_tells_who_locks_a_file() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(holder_of(&file), None);
        file.try_lock().unwrap();
        let holder = holder_of(&file).unwrap();
        assert_eq!(holder.process, std::process::id());
        assert_ne!(holder.state, HolderState::Hangs);
        assert!(holder.to_string().ends_with(&format!(" (process {})", std::process::id())), "{holder}");
    }

    struct Locked(Cell<HolderState>);

    impl I2cHandle for Locked {
        fn kind(&self) -> io::Result<BusKind> {
            Ok(BusKind::I2c)
        }

        fn try_lock(&self) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn lock_holder(&self) -> Option<LockHolder> {
            Some(LockHolder { process: 4711, program: "ddcutil".to_owned(), state: self.0.get() })
        }

        fn write(&mut self, _: u8, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read(&mut self, _: u8, _: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn write_read(&mut self, _: u8, _: &[u8], _: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn one_that_waits_all_the_time_hangs_and_one_that_works_does_not() {
        let ago = |time| Instant::now().checked_sub(time).unwrap();
        let locked = Locked(Cell::new(HolderState::Waits));
        let mut watch = Watch::default();
        assert!(!watch.hangs(&locked), "nobody is looked at yet");
        watch.began = ago(LOOK_AFTER);
        assert!(!watch.hangs(&locked), "a transfer waits in the kernel too");
        watch.waits = Some((4711, ago(HANGS_AFTER)));
        locked.0.set(HolderState::Runs);
        assert!(!watch.hangs(&locked), "it has come back");
        locked.0.set(HolderState::Waits);
        assert!(!watch.hangs(&locked), "it has come back in between");
        watch.waits = Some((4712, ago(HANGS_AFTER)));
        assert!(!watch.hangs(&locked), "another one waited");
        watch.waits = Some((4711, ago(HANGS_AFTER)));
        assert!(watch.hangs(&locked));
        assert_eq!(watch.holder(&locked).unwrap().state, HolderState::Hangs);

        let killed = Locked(Cell::new(HolderState::Hangs));
        let mut watch = Watch { began: ago(LOOK_AFTER), ..Watch::default() };
        assert!(watch.hangs(&killed), "it was killed and does not end");
    }
}

//! Whether a guest's QEMU runs: whoever does not know must leave alone what the guest has.

use std::fs;
use std::path::Path;

use procfs::process::Process;

use super::process_search::ProcessSearch;
use super::{Host, ProcessId};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;

/// What a look for a QEMU came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuSearch {
    /// It runs, or is being killed and has not ended.
    Runs(ProcessId),
    /// There is none.
    Gone,
    /// Not all processes could be looked at in time: one of them hangs.
    Unknown,
}

impl QemuSearch {
    /// Whether one runs for all that is known.
    #[must_use]
    pub fn may_run(self) -> bool {
        self != Self::Gone
    }

    /// The one that runs.
    #[must_use]
    pub fn found(self) -> Option<ProcessId> {
        match self {
            Self::Runs(process) => Some(process),
            Self::Gone | Self::Unknown => None,
        }
    }
}

impl Host {
    /// The QEMU that runs this guest: the one that is known already, or one found by the `-uuid` that libvirt gives it
    /// on its command line.
    ///
    /// One that the kernel is ending has neither a command line nor descriptors any more, and may still be at the reset
    /// of its devices: only who knew it before finds it.
    #[must_use]
    pub fn qemu_of(&self, guest: GuestUuid, known: Option<ProcessId>, deadline: Deadline) -> QemuSearch {
        match known.filter(|known| self.is_alive(*known)) {
            Some(known) => QemuSearch::Runs(known),
            None => self.search_qemu(deadline, move |uuid| uuid == guest.to_string().as_bytes()),
        }
    }

    /// A QEMU that runs any guest but this one, whoever started it: every QEMU of libvirt's has a `-uuid`.
    #[must_use]
    pub fn qemu_of_others(&self, but: Option<GuestUuid>, deadline: Deadline) -> QemuSearch {
        self.search_qemu(deadline, move |uuid| but.is_none_or(|but| uuid != but.to_string().as_bytes()))
    }

    fn search_qemu(
        &self,
        deadline: Deadline,
        is_wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> QemuSearch {
        let proc = self.files.locate(Path::new("/proc"));
        let folder = proc.clone();
        let look = move |pid: i32| Ok(look_at(&folder.join(pid.to_string()), pid, &is_wanted));
        let found = ProcessSearch::start(proc, look).and_then(|mut search| search.next(deadline));
        match found {
            Ok(found) => found.map_or(QemuSearch::Gone, QemuSearch::Runs),
            Err(_) => QemuSearch::Unknown,
        }
    }
}

/// The process, where it runs a guest that is wanted. What cannot be read has ended meanwhile.
fn look_at(folder: &Path, pid: i32, is_wanted: impl Fn(&[u8]) -> bool) -> Option<ProcessId> {
    let line = fs::read(folder.join("cmdline")).ok()?;
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    if !arguments.windows(2).any(|pair| pair[0] == b"-uuid" && is_wanted(pair[1])) {
        return None;
    }
    let stat = Process::new_with_root(folder.to_owned()).and_then(|process| process.stat()).ok()?;
    Some(ProcessId { pid, start_time: stat.starttime })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::host::manifest;
    use crate::host::process_search::ONE_LOOK;
    use crate::host::simulated::Faults;

    const GUEST: &str = "c0ffee00-1111-4222-8333-44445555666f";

    fn qemu(pid: i32, uuid: &str) -> String {
        let fields = format!("{}4242 {}", "0 ".repeat(18), "0 ".repeat(30));
        format!("/proc/{pid}/cmdline = qemu\0-uuid\0{uuid}\0\n/proc/{pid}/stat = {pid} (qemu) S {fields}\n")
    }

    #[test]
    fn is_told_by_its_uuid_and_by_what_is_known() {
        let root = tempfile::tempdir().unwrap();
        manifest::lay_out(&qemu(300, GUEST), root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let guest: GuestUuid = GUEST.parse().unwrap();
        let other: GuestUuid = "c0ffee00-1111-4222-8333-444455556670".parse().unwrap();
        let soon = || Deadline::after(Duration::from_secs(20));
        let runs = QemuSearch::Runs(ProcessId { pid: 300, start_time: 4242 });
        assert_eq!(host.qemu_of(guest, None, soon()), runs);
        assert_eq!(host.qemu_of(other, None, soon()), QemuSearch::Gone);
        assert_eq!(host.qemu_of_others(Some(guest), soon()), QemuSearch::Gone);
        assert_eq!(host.qemu_of_others(Some(other), soon()), runs);
        assert_eq!(host.qemu_of_others(None, soon()), runs);
        let this = host.this_process();
        assert_eq!(host.qemu_of(other, Some(this), soon()), QemuSearch::Runs(this));
        let ended = ProcessId { start_time: this.start_time + 1, ..this };
        assert_eq!(host.qemu_of(other, Some(ended), soon()), QemuSearch::Gone);
    }

    /// A pipe without a writer keeps its reader waiting, as the lock on a process's memory does.
    #[test]
    fn a_process_that_hangs_leaves_it_unknown() {
        let root = tempfile::tempdir().unwrap();
        manifest::lay_out(&qemu(300, GUEST), root.path()).unwrap();
        let hanging = root.path().join("proc/200");
        fs::create_dir(&hanging).unwrap();
        nix::unistd::mkfifo(&hanging.join("cmdline"), Mode::S_IRWXU).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let guest: GuestUuid = GUEST.parse().unwrap();
        let soon = || Deadline::after(Duration::from_millis(50));
        assert_eq!(host.qemu_of(guest, None, soon()), QemuSearch::Unknown);
        assert_eq!(host.qemu_of_others(None, Deadline::after(ONE_LOOK)), QemuSearch::Unknown);
        assert!(QemuSearch::Unknown.may_run());
    }
}

//! Whether a guest's QEMU runs: where that is not known, what the guest has stays as it is.
//!
//! Anyone can start a process with `-uuid UUID` among its arguments. So these count only beside something that a user
//! of the host cannot imitate, and a user's processes are not even read: their owners could keep the reader waiting.
//!
//! | what is seen | what it means |
//! |---|---|
//! | the process that is known already, in the same life | runs |
//! | libvirt's status file names the process, and has its threads or its arguments | runs |
//! | a process in one of libvirt's machine groups, with the guest's UUID among its arguments | runs |
//! | the same, ending and without arguments, in a group named after the guest | runs |
//! | a process of root or of the user that QEMU runs as by default, with the guest's UUID | runs |
//! | the same with an executable that others than root may write, or that cannot be looked at | unknown |
//! | the same of another user that `qemu.conf` names, outside `user.slice` | unknown |
//! | a set-user-ID program: a user chose its arguments | nothing |
//! | anything else of any other user | nothing |
//! | the process that is known already has ended, and no other is found | gone |
//! | a process, group or file that cannot be read, and no process that runs it | unknown |
//! | none of these | gone |
//!
//! A process that only a static label of the guest's XML gives another owner (`<seclabel type='static' model='dac'>`)
//! is found by libvirt's file and by its group. A QEMU that has neither a group nor, at its end, a file or arguments is
//! found by those who knew it before. The card's own nodes are looked at apart from this ([`Host::holders_of`]).

pub(super) mod machine_group;
pub(super) mod owners;
mod status_file;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use procfs::process::Process;

use super::process::{Life, life_in};
use super::process_owner::{OwnerIn, effective_user, is_gone, users_of};
use super::process_search::ProcessSearch;
use super::{Host, HostError, ProcessId};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use machine_group::{MachineGroup, MachineProcesses};
use owners::{QemuOwners, Standing};
use status_file::StatusFile;
pub use threads::{QemuThread, RealTimeLimit, ThreadId, ThreadRole};

/// The permission bits with which a program runs as another user or group than the one who started it.
const SET_ID: u32 = 0o6000;

/// The permission bits of those who are neither the owner nor root.
const OTHERS_WRITE: u32 = 0o022;

/// What a look for a QEMU came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuSearch {
    /// It runs, or is being killed and has not ended.
    Runs(ProcessId),
    /// There is none.
    Gone,
    /// It cannot be told: not all of the host could be looked at in time, or a process may be it or not.
    Unknown,
}

/// What is known of the QEMU that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct QemuClues<'a> {
    /// Its guest.
    pub guest: GuestUuid,
    /// The guest's name, as libvirt has it.
    pub name: &'a str,
    /// The process, where it was found before.
    pub known: Option<ProcessId>,
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
    /// The QEMU that runs a guest: the one that is known already, or one that libvirt started for it.
    ///
    /// One that the kernel is ending has neither arguments nor descriptors any more, and may still be at the reset of
    /// its devices.
    #[must_use]
    pub fn qemu_of(&self, clues: QemuClues<'_>, deadline: Deadline) -> QemuSearch {
        match clues.known.filter(|known| self.is_alive(*known)) {
            Some(known) => QemuSearch::Runs(known),
            None => {
                let status = self.libvirt_status(clues.guest, clues.name);
                match self.search_qemu(Wanted::guest(clues), status, deadline) {
                    // The one that was known has ended, and a guest has no second one.
                    QemuSearch::Unknown if clues.known.is_some() => QemuSearch::Gone,
                    found => found,
                }
            }
        }
    }

    /// A QEMU of libvirt's that runs any guest but this one.
    #[must_use]
    pub fn qemu_of_others(&self, but: QemuClues<'_>, deadline: Deadline) -> QemuSearch {
        self.search_qemu(Wanted { is_but: true, ..Wanted::guest(but) }, Ok(None), deadline)
    }

    fn search_qemu(
        &self,
        wanted: Wanted,
        status: Result<Option<StatusFile>, HostError>,
        deadline: Deadline,
    ) -> QemuSearch {
        // What cannot be read hides a QEMU, but no other evidence of one.
        let MachineProcesses { groups, is_partial } = MachineProcesses::of(self);
        let mut is_doubtful = is_partial || status.is_err();
        let owners = self.qemu_owners().unwrap_or_else(|_| {
            is_doubtful = true;
            QemuOwners::root(self)
        });
        let status = status.ok().flatten();
        let mut first: Vec<i32> = status.iter().map(|status| status.pid).collect();
        first.extend(groups.keys().filter(|pid| status.as_ref().is_none_or(|status| status.pid != **pid)));
        let proc = self.files.locate(Path::new("/proc"));
        let owner_in = if self.is_real() { OwnerIn::Folder } else { OwnerIn::Status };
        let look = Look { proc: proc.clone(), owner_in, wanted, groups, owners, status };
        let look = move |pid| Ok(Some(look.judge(pid)).filter(|health| *health != CardHealth::Nothing));
        let Ok(mut search) = ProcessSearch::start_at(proc, first, look) else { return QemuSearch::Unknown };
        loop {
            match search.next(deadline) {
                Ok(Some(CardHealth::Is(process))) => return QemuSearch::Runs(process),
                Ok(Some(_)) => is_doubtful = true,
                Ok(None) if !is_doubtful => return QemuSearch::Gone,
                Ok(None) | Err(_) => return QemuSearch::Unknown,
            }
        }
    }
}

/// Whose QEMU is looked for.
struct Wanted {
    uuid: String,
    name: String,
    /// Any but this guest's.
    is_but: bool,
}

impl Wanted {
    fn guest(clues: QemuClues<'_>) -> Self {
        Self { uuid: clues.guest.to_string(), name: clues.name.to_owned(), is_but: false }
    }

    fn has_uuid(&self, uuid: &[u8]) -> bool {
        (uuid == self.uuid.as_bytes()) != self.is_but
    }

    fn has_group(&self, group: &MachineGroup) -> bool {
        group.is_of(&self.name) != self.is_but
    }
}

/// One look at the processes.
struct Look {
    proc: PathBuf,
    owner_in: OwnerIn,
    wanted: Wanted,
    groups: BTreeMap<i32, MachineGroup>,
    owners: QemuOwners,
    status: Option<StatusFile>,
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CardHealth {
    /// The QEMU that is looked for.
    Is(ProcessId),
    /// That one or another: it cannot be told.
    MayBe,
    /// Another process, or none any more.
    Nothing,
}

/// What the arguments of a process say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arguments {
    /// They have the UUID that is looked for.
    Ours,
    /// They have not.
    Others,
    /// The process is ending, and has none any more; or it is the kernel's.
    None,
}

impl Look {
    fn judge(&self, pid: i32) -> CardHealth {
        // What has ended meanwhile is nothing; what cannot be read may be anything.
        match self.look_at(pid) {
            Ok(health) => health,
            Err(error) if is_gone(&error) => CardHealth::Nothing,
            Err(_) => CardHealth::MayBe,
        }
    }

    fn look_at(&self, pid: i32) -> io::Result<CardHealth> {
        let folder = self.proc.join(pid.to_string());
        let group = self.groups.get(&pid);
        let status = self.status.as_ref().filter(|status| status.pid == pid);
        let standing = self.owners.standing(effective_user(&folder, self.owner_in)?);
        if group.is_none() && status.is_none() && standing == Standing::Other {
            return Ok(CardHealth::Nothing);
        }
        let arguments = self.arguments(&folder)?;
        let is_ours = match (group, arguments) {
            (Some(_), Arguments::Ours) => true,
            (Some(group), Arguments::None) => self.wanted.has_group(group) && !is_kernels(&folder)?,
            _ => false,
        };
        if is_ours || status.is_some_and(|status| has_threads_of(&folder, status, arguments)) {
            return self.alive(&folder, pid);
        }
        if standing == Standing::Other || arguments != Arguments::Ours {
            return Ok(CardHealth::Nothing);
        }
        match self.owner_evidence(&folder, standing)? {
            Evidence::Sound => self.alive(&folder, pid),
            Evidence::Doubtful => Ok(CardHealth::MayBe),
            Evidence::None => Ok(CardHealth::Nothing),
        }
    }

    fn arguments(&self, folder: &Path) -> io::Result<Arguments> {
        let line = fs::read(folder.join("cmdline"))?;
        if line.is_empty() {
            return Ok(Arguments::None);
        }
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_ours = arguments.windows(2).any(|pair| pair[0] == b"-uuid" && self.wanted.has_uuid(pair[1]));
        Ok(if is_ours { Arguments::Ours } else { Arguments::Others })
    }

    /// What the owner of a process with the right arguments says.
    fn owner_evidence(&self, folder: &Path, standing: Standing) -> io::Result<Evidence> {
        let executable = match fs::metadata(folder.join("exe")) {
            Ok(executable) => executable,
            Err(error) if is_gone(&error) => return Ok(Evidence::None),
            Err(_) => return Ok(Evidence::Doubtful),
        };
        let users = users_of(folder)?;
        if executable.permissions().mode() & SET_ID != 0 || users.iter().any(|user| *user != users[0]) {
            return Ok(Evidence::None);
        }
        let is_roots = self.owners.is_root(executable.uid());
        let is_safe = is_roots && executable.permissions().mode() & OTHERS_WRITE == 0;
        Ok(match standing {
            Standing::Services if is_safe => Evidence::Sound,
            Standing::Services => Evidence::Doubtful,
            Standing::Named if is_users(folder)? => Evidence::None,
            Standing::Named => Evidence::Doubtful,
            Standing::Other => Evidence::None,
        })
    }

    fn alive(&self, folder: &Path, pid: i32) -> io::Result<CardHealth> {
        let stat = Process::new_with_root(folder.to_owned()).and_then(|process| process.stat());
        let start_time = match stat {
            Ok(stat) => stat.starttime,
            Err(procfs::ProcError::NotFound(_)) => return Ok(CardHealth::Nothing),
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        let process = ProcessId { pid, start_time };
        Ok(match life_in(&self.proc, process) {
            Life::Ended => CardHealth::Nothing,
            Life::Runs | Life::Unknown => CardHealth::Is(process),
        })
    }
}

/// What the owner of a process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// No user of the host can have made it.
    Sound,
    /// A user may have made it, or it cannot be told.
    Doubtful,
    /// A user has made it.
    None,
}

/// Whether it is the process of libvirt's file, and not another that got its number: one of its virtual CPUs' threads
/// is there. With emulation the file may name none.
fn has_threads_of(folder: &Path, status: &StatusFile, arguments: Arguments) -> bool {
    let mut threads = status.threads.values();
    match status.threads.is_empty() {
        true => arguments == Arguments::Ours,
        false => threads.any(|thread| folder.join("task").join(thread.to_string()).exists()),
    }
}

/// Whether a process without arguments is one of the kernel's own: those of a guest are in its group too
/// (`PF_KTHREAD` in `include/linux/sched.h`).
fn is_kernels(folder: &Path) -> io::Result<bool> {
    const PF_KTHREAD: u32 = 0x0020_0000;
    match Process::new_with_root(folder.to_owned()).and_then(|process| process.stat()) {
        Ok(stat) => Ok(stat.flags & PF_KTHREAD != 0),
        Err(procfs::ProcError::NotFound(_)) => Ok(true),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// Whether a process is below `user.slice`, where a user's own manager makes groups of any name.
fn is_users(folder: &Path) -> io::Result<bool> {
    let text = fs::read_to_string(folder.join("cgroup"))?;
    let mut paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    Ok(paths.any(|path| path == "/user.slice" || path.starts_with("/user.slice/")))
}

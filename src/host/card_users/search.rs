//! A look through all processes for those that have certain files open or mapped.
//!
//! A user of the host can make a process that keeps a reader of its `maps` waiting for ever, and give others more
//! descriptors than anyone can look at in time. So where nobody but root and QEMU can have one of the files, the
//! processes of others are not looked at; else their mappings are read by threads that are left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use procfs::process::Process;

use super::nodes::{CardNode, DeviceNumber};
use crate::deadline::Deadline;
use crate::host::process_owner::{OwnerIn, effective_user, is_gone};
use crate::host::process_search::ProcessSearch;
use crate::host::qemu::owners::{QemuOwners, Standing};
use crate::host::worker::{BoundedThread, NotStarted, StuckIn, StuckRegistry, TookTooLong};
use crate::host::{HostError, ProcessId};

/// What the kernel appends to the path of a file that was removed.
const DELETED: &[u8] = b" (deleted)";

/// Files below `/dev` that are no device, and of which programs have very many.
const SHARED_MEMORY: &str = "/dev/shm/";

/// How long the mappings of a user's process may take to be read: those of the largest browser take some milliseconds.
const MAPS: Duration = Duration::from_millis(200);

/// So many processes of users may keep their readers waiting. Then no user's mappings are read any more: without a
/// descriptor hardly any program has a card mapped.
const MOST_HANGING: usize = 4;

/// How a process has a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hold {
    /// A descriptor of it is open.
    Open,
    /// It is mapped into the process's memory, and no descriptor is open any more.
    Mapped,
}

/// How files are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// By the number of the device: a container has its nodes at other paths. By the path where a file is none.
    Number,
    /// By their paths only: a host in a folder has no devices.
    Path,
}

/// Whose processes can have one of the files.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// Anyone's.
    Everyone,
    /// Root's, those of the users that QEMU runs as, and these of libvirt's guests.
    RootAndQemu(QemuOwners, BTreeSet<i32>),
}

/// Which files are looked for, and where.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The folder of the processes.
    pub(super) proc: PathBuf,
    pub(super) nodes: Vec<CardNode>,
    pub(super) tell: Tell,
    pub(super) reach: Reach,
    /// Whose processes cannot be made to hang by a user.
    pub(super) root: u32,
}

/// A process that has some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) process: ProcessId,
    /// `comm`: at most 15 bytes.
    pub(super) name: String,
    /// The path of its control group.
    pub(super) cgroup: Option<String>,
    pub(super) nodes: BTreeMap<CardNode, Hold>,
}

impl Search {
    /// The processes that have one of the files, in the order of their numbers; not this one.
    pub(super) fn run(self, deadline: Deadline) -> Result<Vec<Found>, HostError> {
        let search = Arc::new(self);
        let mut search = ProcessSearch::start(search.proc.clone(), move |pid| search.look_at(pid))?;
        let mut found = Vec::new();
        while let Some(one) = search.next(deadline)? {
            found.push(one);
        }
        Ok(found)
    }

    fn look_at(self: &Arc<Self>, pid: i32) -> Result<Option<Found>, HostError> {
        let folder = self.proc.join(pid.to_string());
        let mut nodes = BTreeMap::new();
        let owner_in = match self.tell {
            Tell::Number => OwnerIn::Folder,
            Tell::Path => OwnerIn::Status,
        };
        let owner = match effective_user(&folder, owner_in) {
            Err(error) if is_gone(&error) => return Ok(None),
            owner => owner.map_err(|error| HostError::read(&folder, error))?,
        };
        if let Reach::RootAndQemu(owners, machines) = &self.reach
            && owners.standing(owner) == Standing::Other
            && !machines.contains(&pid)
        {
            return Ok(None);
        }
        let fds = folder.join("fd");
        unless_gone(self.open(&fds, &mut nodes)).map_err(|error| HostError::list(&fds, error))?;
        let maps = folder.join("maps");
        let mapped = match owner == self.root {
            true => self.mapped(&folder, &maps),
            false => self.mapped_by_user(&folder, &maps),
        };
        for (node, hold) in unless_gone(mapped).map_err(|error| HostError::read(&maps, error))? {
            nodes.entry(node).or_insert(hold);
        }
        if nodes.is_empty() {
            return Ok(None);
        }
        // What has ended meanwhile has let go.
        let Ok(process) = Process::new_with_root(folder) else { return Ok(None) };
        let Ok(stat) = process.stat() else { return Ok(None) };
        Ok(Some(Found {
            process: ProcessId { pid, start_time: stat.starttime },
            name: stat.comm,
            cgroup: cgroup(&process),
            nodes,
        }))
    }

    fn open(&self, fds: &Path, nodes: &mut BTreeMap<CardNode, Hold>) -> io::Result<()> {
        for entry in fs::read_dir(fds)? {
            let link = entry?.path();
            let target = match fs::read_link(&link) {
                Ok(target) => target,
                // It was closed meanwhile.
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            if let Some(node) = self.node(target.as_os_str().as_bytes(), &link) {
                nodes.insert(node.clone(), Hold::Open);
            }
        }
        Ok(())
    }

    /// As [`Self::mapped`], but for a process whose owner may keep the reader waiting: nothing then.
    fn mapped_by_user(self: &Arc<Self>, folder: &Path, maps: &Path) -> io::Result<BTreeMap<CardNode, Hold>> {
        let stuck = StuckRegistry::of_this_process();
        let places = stuck.places();
        if places.iter().filter(|place| matches!(place, StuckIn::Mappings(_))).count() >= MOST_HANGING {
            return Ok(BTreeMap::new());
        }
        let (search, there, file) = (Arc::clone(self), folder.to_owned(), maps.to_owned());
        let read = move |tell: &Sender<_>| drop(tell.send(search.mapped(&there, &file)));
        let mut thread = match BoundedThread::start(&stuck, StuckIn::Mappings(folder.to_owned()), read) {
            Ok(thread) => thread,
            Err(NotStarted::Hangs) => return Ok(BTreeMap::new()),
            Err(NotStarted::NoThread(error)) => return Err(error),
        };
        match thread.next(Deadline::after(MAPS)) {
            Ok(Some(mapped)) => mapped,
            Ok(None) => Err(io::Error::other("the thread that reads it ended without an answer")),
            Err(TookTooLong) => Ok(BTreeMap::new()),
        }
    }

    fn mapped(&self, folder: &Path, maps: &Path) -> io::Result<BTreeMap<CardNode, Hold>> {
        let mut nodes = BTreeMap::new();
        // Not procfs' parser: it makes thousands of values for each browser, and refuses names that are not UTF-8.
        for line in io::BufReader::new(fs::File::open(maps)?).split(b'\n') {
            let line = line?;
            // Five columns without a slash stand before the path.
            let Some(start) = line.iter().position(|byte| *byte == b'/') else { continue };
            let link = folder.join("map_files").join(map_file_name(&line));
            if let Some(node) = self.node(&line[start..], &link) {
                nodes.insert(node.clone(), Hold::Mapped);
            }
        }
        Ok(nodes)
    }

    /// Which of the files it is, by its path as the kernel prints it, and by the link in `/proc` that leads to it.
    fn node(&self, path: &[u8], link: &Path) -> Option<&CardNode> {
        let path = Path::new(OsStr::from_bytes(path.strip_suffix(DELETED).unwrap_or(path)));
        if let Some(number) = self.number(path, link) {
            return self.nodes.iter().find(|node| node.number == Some(number));
        }
        self.nodes.iter().find(|node| node.path == path)
    }

    /// The number of the device, where it may be one. Other files are not asked: their file system may not answer.
    fn number(&self, path: &Path, link: &Path) -> Option<DeviceNumber> {
        let is_below_dev = || path.parent().is_some_and(|folder| folder.iter().any(|part| part == "dev"));
        if self.tell == Tell::Path || path.starts_with(SHARED_MEMORY) || !is_below_dev() {
            return None;
        }
        DeviceNumber::of_link(link)
    }
}

/// A process that has ended, or has no such file on a host in a folder, has nothing there.
fn unless_gone<T: Default>(looked: io::Result<T>) -> io::Result<T> {
    looked.or_else(|error| if is_gone(&error) { Ok(T::default()) } else { Err(error) })
}

/// The name in `map_files` of what a line of `maps` describes: the same range without leading zeros.
fn map_file_name(line: &[u8]) -> String {
    let range = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let range = String::from_utf8_lossy(range);
    let (start, end) = range.split_once('-').unwrap_or((&range, ""));
    let trim = |digits: &str| match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    format!("{}-{}", trim(start), trim(end))
}

/// The path in the hierarchy that systemd keeps: the unified one, or on version 1 the one named after it.
fn cgroup(process: &Process) -> Option<String> {
    let groups = process.cgroups().ok()?.0;
    let of_systemd = groups.iter().find(|group| group.controllers.iter().any(|name| name == "name=systemd"));
    let unified = || groups.iter().find(|group| group.hierarchy == 0);
    of_systemd.or_else(unified).map(|group| group.pathname.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::card_users::nodes::NodeKind;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    /// A device that is on every machine, at a path where it is not.
    fn full_device() -> CardNode {
        let number = DeviceNumber::of_link("/dev/full".as_ref());
        assert_eq!(number.map(|number| number.to_string()).as_deref(), Some("1:7"));
        CardNode { path: "/dev/elsewhere".into(), kind: NodeKind::Other, number }
    }

    fn search(proc: &Path) -> Search {
        let root = nix::unistd::Uid::effective().as_raw();
        let nodes = vec![full_device()];
        Search { proc: proc.to_owned(), nodes, tell: Tell::Number, reach: Reach::Everyone, root }
    }

    /// The real `/proc`: a child of this test has the device open.
    #[test]
    fn tells_devices_by_their_number() {
        let device = fs::File::open("/dev/full").unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(device)
            .spawn()
            .unwrap();
        let looked = |tell| {
            let proc = tempfile::tempdir().unwrap();
            let child = child.id().to_string();
            std::os::unix::fs::symlink(Path::new("/proc").join(&child), proc.path().join(&child)).unwrap();
            Search { tell, ..search(proc.path()) }.run(soon()).unwrap()
        };
        let (by_number, by_path) = (looked(Tell::Number), looked(Tell::Path));
        drop(child.stdin.take());
        child.wait().unwrap();
        let [found] = &by_number[..] else { panic!("{by_number:?}") };
        assert_eq!(found.nodes, BTreeMap::from([(full_device(), Hold::Open)]));
        assert_eq!(by_path, []);
    }

    #[test]
    fn the_process_that_asks_is_left_out() {
        let device = fs::File::open("/dev/full").unwrap();
        let proc = tempfile::tempdir().unwrap();
        let this = std::process::id().to_string();
        std::os::unix::fs::symlink(Path::new("/proc").join(&this), proc.path().join(&this)).unwrap();
        let search = search(proc.path());
        let at_this = Arc::new(search.clone()).look_at(std::process::id().try_into().unwrap()).unwrap();
        assert!(at_this.is_some_and(|found| found.nodes.contains_key(&full_device())));
        assert_eq!(search.run(soon()).unwrap(), []);
        drop(device);
    }

    #[test]
    fn without_a_list_there_is_no_answer() {
        let nobody = search("/nowhere".as_ref());
        assert!(nobody.run(soon()).unwrap_err().is_absent());
    }

    #[test]
    fn names_in_map_files_have_no_leading_zeros() {
        for (line, name) in [
            ("7f0c3c000000-7f0c3c200000 rw-s 100 00:06 512   /dev/dri/card1", "7f0c3c000000-7f0c3c200000"),
            ("00400000-00452000 r-xp 00000000 08:02 173521   /usr/bin/x", "400000-452000"),
            ("00000000-00001000 r-xp 00000000 08:02 173521   /usr/bin/x", "0-1000"),
        ] {
            assert_eq!(map_file_name(line.as_bytes()), name);
        }
    }
}

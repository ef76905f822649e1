//! Who uses a card.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::holder_unit::HolderUnit;
use super::nodes::{CardNode, NodeKind};
use super::search::{Found, Hold, Reach, Search, Tell};
use crate::deadline::Deadline;
use crate::host::qemu::machine_group::MachineProcesses;
use crate::host::qemu::owners::Standing;
use crate::host::{Host, HostError, ProcessId};
use crate::pci::PciAddress;
use crate::printable::printable;

/// The first process, which keeps descriptors for services that restart (`FDSTORE=1` in `sd_notify(3)`).
const FIRST_PROCESS: i32 = 1;

/// The permission bits of all who are not the owner.
const OTHERS: u32 = 0o077;

/// Services that open cards for the sessions of users.
const SESSION_BROKERS: [&str; 3] = ["systemd-logind.service", "elogind.service", "seatd.service"];

/// A process that has a part of a card open or mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process that has the card open.
    pub process: ProcessId,
    /// Its name, as the kernel has it: at most 15 bytes.
    pub name: String,
    /// The unit it belongs to; none where its control group is no unit's.
    pub unit: Option<HolderUnit>,
    /// What it has, sorted.
    pub nodes: Vec<HeldNode>,
}

/// A file of a card that a process has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldNode {
    /// Its path on the host.
    pub path: PathBuf,
    /// What it gives access to.
    pub kind: NodeKind,
    /// How the process has it.
    pub hold: Hold,
}

impl Holder {
    /// Whether it has the card for the sessions of users, and lets go of it when they end: logind and its like, and
    /// systemd, which keeps logind's descriptors. It is not to be stopped.
    #[must_use]
    pub fn is_session_broker(&self) -> bool {
        let is_broker = |unit: &HolderUnit| match unit {
            HolderUnit::System(unit) => SESSION_BROKERS.contains(&unit.as_str()),
            _ => false,
        };
        self.process.pid == FIRST_PROCESS || self.unit.as_ref().is_some_and(is_broker)
    }

    fn paths(&self, hold: Hold) -> Vec<String> {
        let held = self.nodes.iter().filter(|node| node.hold == hold);
        held.map(|node| node.path.display().to_string()).collect()
    }
}

impl fmt::Display for Holder {
    /// `Xorg (process 1234, sddm.service) has /dev/dri/card1 open`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}", printable(&self.name), self.process.pid)?;
        if let Some(unit) = &self.unit {
            write!(f, ", {unit}")?;
        }
        f.write_str(") has ")?;
        let (open, mapped) = (self.paths(Hold::Open), self.paths(Hold::Mapped));
        if !open.is_empty() {
            write!(f, "{} open", open.join(", "))?;
        }
        if !mapped.is_empty() {
            let and = if open.is_empty() { "" } else { " and " };
            write!(f, "{and}{} mapped", mapped.join(", "))?;
        }
        Ok(())
    }
}

impl Host {
    /// The processes that have a part of these functions open or mapped, in the order of their numbers; this process is
    /// left out. The text consoles of the kernel are no process, and are not among them.
    ///
    /// # Errors
    /// sysfs or `/proc` cannot be read, the deadline passes before all processes were looked at, or this process may
    /// not look at some: who is not root does not get half an answer.
    pub fn holders_of(&self, functions: &[PciAddress], deadline: Deadline) -> Result<Vec<Holder>, HostError> {
        self.holders_of_nodes(self.device_nodes_of(functions)?, deadline)
    }

    /// The processes that have the display of some card open or mapped (`/dev/dri/cardN`), in the order of their
    /// numbers. Who only renders or computes on one is not among them.
    ///
    /// # Errors
    /// As [`Self::holders_of`].
    pub(in crate::host) fn holders_of_displays(&self, deadline: Deadline) -> Result<Vec<Holder>, HostError> {
        let mut displays = Vec::new();
        for address in self.pci_functions()? {
            match self.pci_function(address) {
                Ok(function) if function.class.is_display() => displays.push(address),
                Ok(_) => {}
                // It was removed meanwhile.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        let mut nodes = self.device_nodes_of(&displays)?;
        nodes.retain(|node| node.kind == NodeKind::Drm);
        self.holders_of_nodes(nodes, deadline)
    }

    /// The processes of anyone that have a file below `/dev/shm` open or mapped.
    pub(in crate::host) fn holders_of_file(
        &self,
        path: &Path,
        deadline: Deadline,
    ) -> Result<Vec<Holder>, HostError> {
        let search = Search {
            proc: self.locate("/proc".as_ref()),
            reach: Reach::Everyone,
            nodes: vec![CardNode { path: path.to_owned(), kind: NodeKind::Other, number: None }],
            tell: if self.is_real() { Tell::Number } else { Tell::Path },
            root: self.trusted_owner().as_raw(),
        };
        Ok(search.run(deadline)?.into_iter().map(|found| self.holder(found)).collect())
    }

    fn holders_of_nodes(&self, nodes: Vec<CardNode>, deadline: Deadline) -> Result<Vec<Holder>, HostError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let search = Search {
            proc: self.locate("/proc".as_ref()),
            reach: self.reach_of(&nodes),
            nodes,
            tell: if self.is_real() { Tell::Number } else { Tell::Path },
            root: self.trusted_owner().as_raw(),
        };
        Ok(search.run(deadline)?.into_iter().map(|found| self.holder(found)).collect())
    }

    /// Whose processes can have these nodes: those of a card that is with VFIO belong to root, or to QEMU while its guest
    /// runs, and nobody else may open them.
    fn reach_of(&self, nodes: &[CardNode]) -> Reach {
        let MachineProcesses { groups, is_partial } = MachineProcesses::of(self);
        let Ok(owners) = self.qemu_owners() else { return Reach::Everyone };
        let is_theirs = |node: &CardNode| {
            fs::metadata(self.files.locate(&node.path))
                .is_ok_and(|file| owners.standing(file.uid()) != Standing::Other && file.mode() & OTHERS == 0)
        };
        if is_partial || !nodes.iter().all(is_theirs) {
            return Reach::Everyone;
        }
        Reach::RootAndQemu(owners, groups.into_keys().collect())
    }

    fn holder(&self, found: Found) -> Holder {
        let unit = found.cgroup.and_then(|path| HolderUnit::of_cgroup(self, &path));
        let nodes = found.nodes.into_iter();
        let nodes = nodes.map(|(node, hold)| HeldNode { path: node.path, kind: node.kind, hold }).collect();
        Holder { process: found.process, name: found.name, unit, nodes }
    }
}

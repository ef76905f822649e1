//! The control groups that libvirt makes for its guests. Only root makes one there, or moves a process into it.
//!
//! With systemd-machined it is a scope in a slice (`virSystemdMakeScopeName` in libvirt's `virsystemd.c`), else a group
//! in a partition (`virCgroupNewDomainPartition` in `vircgroup.c`):
//!
//! ```text
//! /machine.slice/machine-qemu\x2d3\x2dwin11.scope/libvirt/emulator
//! /machine/qemu-3-win11.libvirt-qemu/emulator
//! ```
//!
//! A user's own manager makes groups of any name too, but only below `user.slice/user-1000.slice/user@1000.service`:
//! a group counts only where all above it are slices or partitions, and `user.slice` is none of them. machined makes a
//! scope of its own for administrators alone (`org.freedesktop.machine1.create-machine`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

use crate::host::{Host, HostError};

const CGROUP: &str = "/sys/fs/cgroup";

/// Slices and partitions in one another that are followed: libvirt's own default is one.
const DEPTH: usize = 8;

/// The groups in a machine's: `libvirt`, and `emulator`, `vcpuN` and `iothreadN` in it.
const DEPTH_OF_MACHINE: usize = 3;

/// The longest name of a machine (`virDomainMachineNameAppendValid` in `src/hypervisor/domain_driver.c`).
const LONGEST_NAME: usize = 64;

/// A group that libvirt made for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct MachineGroup {
    /// `qemu-3-win11`: the name of the guest, without what no host's name may have.
    machine: String,
}

impl MachineGroup {
    /// By the name of its folder.
    fn from_name(name: &str) -> Option<Self> {
        let scope = || {
            let escaped = name.strip_prefix("machine-")?.strip_suffix(".scope")?;
            unescaped(escaped)
        };
        let machine =
            name.strip_suffix(".libvirt-qemu").map(str::to_owned).or_else(scope).filter(|name| {
                let rest = name.strip_prefix("qemu-").unwrap_or_default();
                let id = rest.split('-').next().unwrap_or_default();
                !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit())
            })?;
        Some(Self { machine })
    }

    /// Whether it may be that of a guest of this name. Several names come to the same machine's.
    pub(super) fn is_of(&self, guest: &str) -> bool {
        let name = self.machine.splitn(3, '-').nth(2).unwrap_or_default();
        let (name, guest) = (letters(name), letters(guest));
        name == guest || (self.machine.len() >= LONGEST_NAME && guest.starts_with(&name))
    }
}

/// What of a name surely is in the machine's: versions differ in which dots and dashes they leave out.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// `\x2d` is a dash (`systemd-escape(1)`).
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split("\\x");
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let code = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        text.push(char::from(code));
        text.push_str(&part[2..]);
    }
    Some(text)
}

/// The processes in the machine groups of all guests.
#[derive(Debug, Default)]
pub(in crate::host) struct MachineProcesses {
    /// Each with its group.
    pub(in crate::host) groups: BTreeMap<i32, MachineGroup>,
    /// Whether something could not be read: then there may be more.
    pub(in crate::host) is_partial: bool,
}

impl MachineProcesses {
    /// Looks through the control groups of a host.
    pub(in crate::host) fn of(host: &Host) -> Self {
        let mut found = Self::default();
        let root = Path::new(CGROUP);
        found.look_for_machines(host, root, DEPTH);
        if !host.is_present(root.join("cgroup.controllers")) {
            // Version 1, where each controller has a tree of its own.
            for hierarchy in found.read(host.subfolders(root)) {
                found.look_for_machines(host, &hierarchy, DEPTH);
            }
        }
        found
    }

    fn look_for_machines(&mut self, host: &Host, folder: &Path, depth: usize) {
        // Folders alone: the kernel's own `cpuset.cpus.partition` is named like a partition of libvirt's.
        for group in self.read(host.subfolders(folder)) {
            let Some(name) = group.file_name().and_then(OsStr::to_str) else { continue };
            if let Some(machine) = MachineGroup::from_name(name) {
                self.add(host, &group, &machine, DEPTH_OF_MACHINE);
            } else if depth > 0 && has_machines(name, depth == DEPTH) {
                self.look_for_machines(host, &group, depth - 1);
            }
        }
    }

    fn add(&mut self, host: &Host, folder: &Path, group: &MachineGroup, depth: usize) {
        let owner = fs::metadata(host.locate(folder)).map(|file| Some(file.uid()));
        let owner = self.read(owner.map_err(|error| HostError::read(folder, error)));
        // A group that was handed to a user is not libvirt's.
        if depth == 0 || owner != Some(host.trusted_owner().as_raw()) {
            return;
        }
        let text = self.read(host.text_if_present(folder.join("cgroup.procs"))).unwrap_or_default();
        let pids = text.lines().filter_map(|pid| pid.trim().parse().ok());
        self.groups.extend(pids.map(|pid| (pid, group.clone())));
        for below in self.read(host.subfolders(folder)) {
            self.add(host, &below, group, depth - 1);
        }
    }

    /// What was read; nothing where there was nothing to be read.
    fn read<T: Default>(&mut self, read: Result<T, HostError>) -> T {
        read.unwrap_or_else(|error| {
            self.is_partial |= !is_removed(&error) && !is_threaded(&error);
            T::default()
        })
    }
}

/// Whether guests may be in a group of this name (`virCgroupSetPartitionSuffix` in libvirt's `vircgroup.c`).
fn has_machines(name: &str, is_at_top: bool) -> bool {
    let is_slice = name.ends_with(".slice") && !(is_at_top && name == "user.slice");
    is_slice || name.ends_with(".partition") || (is_at_top && matches!(name, "machine" | "system"))
}

/// A group that was removed while it was read.
fn is_removed(error: &HostError) -> bool {
    error.is_absent() || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

/// A group of threads names no processes: those are in the group above (`cgroup_procs_start` in the kernel's
/// `kernel/cgroup/cgroup.c`).
fn is_threaded(error: &HostError) -> bool {
    error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    #[test]
    fn a_group_is_named_after_its_guest() {
        for (name, guest) in [
            (r"machine-qemu\x2d3\x2dwin11.scope", "win11"),
            (r"machine-qemu\x2d12\x2dwin\x2d11.a.scope", "win-11.a"),
            (r"machine-qemu\x2d3\x2dab.scope", "-a b-"),
            (r"machine-qemu\x2d3.scope", "é"),
            ("qemu-3-win11.libvirt-qemu", "win11"),
        ] {
            let group = MachineGroup::from_name(name).unwrap();
            assert!(group.is_of(guest), "{name} {guest}");
            assert!(!group.is_of("win12"), "{name}");
        }
        let long = "x".repeat(100);
        let cut = format!(r"machine-qemu\x2d3\x2d{}.scope", &long[..57]);
        assert!(MachineGroup::from_name(&cut).unwrap().is_of(&long));
        for name in [
            "machine-qemu.scope",
            r"machine-qemu\x2dwin11.scope",
            r"machine-lxc\x2d3\x2dwin11.scope",
            r"qemu\x2d3\x2dwin11.scope",
            r"machine-qemu\x2d3\x2d\x.scope",
            "qemu-3-win11.libvirt-lxc",
            "qemu-3-win11",
        ] {
            assert_eq!(MachineGroup::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn machines_are_found_in_slices_and_partitions_but_not_at_a_users() {
        let scope = |id: u32| format!(r"machine-qemu\x2d{id}\x2dguest.scope");
        let v2 = format!(
            "/sys/fs/cgroup/cgroup.controllers = cpuset\n\
             /sys/fs/cgroup/machine.slice/cpuset.cpus.partition = member\n\
             /sys/fs/cgroup/machine.slice/{}/libvirt/cgroup.procs = 11\\n12\n\
             /sys/fs/cgroup/a.slice/a-b.slice/{}/cgroup.procs = 21\n\
             /sys/fs/cgroup/machine/qemu-3-guest.libvirt-qemu/emulator/cgroup.procs = 31\n\
             /sys/fs/cgroup/mine.partition/qemu-3-guest.libvirt-qemu/cgroup.procs = 41\n\
             /sys/fs/cgroup/user.slice/user-1000.slice/{}/cgroup.procs = 91\n\
             /sys/fs/cgroup/system.slice/docker-1.scope/machine.slice/{}/cgroup.procs = 92\n\
             /sys/fs/cgroup/cpuset/machine.slice/{}/cgroup.procs = 93\n",
            scope(1),
            scope(2),
            scope(9),
            scope(9),
            scope(9),
        );
        let v1 = format!(
            "/sys/fs/cgroup/systemd/machine.slice/{}/cgroup.procs = 11\n\
             /sys/fs/cgroup/systemd/user.slice/{}/cgroup.procs = 91\n\
             /sys/fs/cgroup/cpuset/machine/qemu-2-guest.libvirt-qemu/emulator/cgroup.procs = 21\n",
            scope(1),
            scope(9),
        );
        for (lines, expected) in [(v2.as_str(), &[11, 12, 21, 31, 41][..]), (&v1, &[11, 21]), ("", &[])] {
            let root = tempfile::tempdir().unwrap();
            lay_out(lines, root.path()).unwrap();
            let found = MachineProcesses::of(&Host::simulated(root.path(), &Faults::default()));
            let pids: Vec<i32> = found.groups.into_keys().collect();
            assert_eq!((pids.as_slice(), found.is_partial), (expected, false), "{lines}");
        }
    }
}

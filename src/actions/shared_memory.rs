//! `shared_memory`: files that a guest and programs of the host have in common, such as Looking Glass.

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{Key, Section, SharedMemoryFile, SharedMemoryFiles};
use crate::host::HostError;
use crate::ledger::{Peer, SharedMemoryAt};
use crate::pages::MemorySize;
use crate::shared_memory::{SharedMemory, SharedMemoryKind};

/// The group that packages of libvirt have QEMU in.
const DEFAULT_GROUP: &str = "kvm";

impl Action for SharedMemoryFiles {
    const SECTION: &'static str = "shared_memory";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.item(Self::SECTION).map(Self::read)
    }

    fn peer(&self) -> Peer {
        if self.files.iter().any(|file| file.owner.is_some()) { Peer::MayHang } else { Peer::Kernel }
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        for file in &self.files {
            propose_file(file, situation, proposal)?;
        }
        Ok(())
    }
}

fn propose_file(
    file: &SharedMemoryFile,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let host = situation.host;
    let now = match host.shared_memory(&file.path) {
        Ok(now) => now,
        Err(error) => {
            proposal.refuse(file.at.key("path"), error.to_string(), "remove that, or choose another name");
            return Ok(());
        }
    };
    let Some(size) = size(file, situation, proposal)? else { return Ok(()) };
    let Some((owner, group)) = owners(file, situation, proposal)? else { return Ok(()) };
    let size = if file.path.kind() == SharedMemoryKind::File { size } else { MemorySize::ZERO };
    match now {
        SharedMemory::Absent if file.path.kind() != SharedMemoryKind::File => {
            proposal.refuse(
                file.at.key("path"),
                format!("{} is not there", file.path),
                "load Looking Glass's module with a size: `modprobe kvmfr static_size_mb=128`",
            );
            return Ok(());
        }
        SharedMemory::There { size: there, .. } if there != size => {
            proposal.refuse(
                file.at.key("path"),
                format!("{} is there with {there}, and the guest needs {size}", file.path),
                format!("`rm {}`, once no program has it open", file.path),
            );
            return Ok(());
        }
        // Its owner may have it open, or wait for root to make it another user's.
        SharedMemory::There { owner: of, .. } if file.path.kind() == SharedMemoryKind::File => {
            let is_known = of == host.trusted_owner().as_raw() || of == owner || host.is_qemu_user(of)?;
            if !is_known {
                let name = host.user_name(of).unwrap_or_else(|| format!("user {of}"));
                proposal.refuse(
                    file.at.key("path"),
                    format!("{} is a file of {name}, who is neither root, QEMU nor its `owner`", file.path),
                    format!("`rm {}`, or write `owner: {name}`", file.path),
                );
                return Ok(());
            }
        }
        _ => {}
    }
    if let Ok(total) = host.mem_total()
        && size.bytes() > total.bytes() / 2
    {
        proposal.warn(format!("{} has {size}, and the host {total} of memory in all", file.path));
    }
    if file.mode & 0o007 != 0 {
        proposal.warn(format!("all users of the host may read what is in {}", file.path));
    }
    let want = SharedMemory::There { size, owner, group, mode: file.mode };
    proposal.claim(SharedMemoryAt(file.path.clone()), want, file.at.clone());
    Ok(())
}

/// How large it is to be; none when that makes no sense, which the proposal then says.
fn size(
    file: &SharedMemoryFile,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<MemorySize>, HostError> {
    let at = file.at.key("size");
    let known = match file.path.kind() {
        SharedMemoryKind::File => {
            let name = file.path.split().1;
            let shmem = situation.guest.shmems.iter().find(|shmem| shmem.name == name);
            shmem.map(|shmem| (shmem.size, "the guest's XML"))
        }
        SharedMemoryKind::Kvmfr(number) => {
            situation.host.kvmfr_size(number)?.map(|size| (size, "its module"))
        }
    };
    match (file.size, known) {
        (Some(size), Some((known, of))) if size != known => {
            let help = "write `size: auto`, or change it there";
            proposal.refuse(at, format!("{} has {known} in {of}, and {size} here", file.path), help);
            Ok(None)
        }
        (Some(size), _) | (None, Some((size, _))) => Ok(Some(size)),
        (None, None) if file.path.kind() == SharedMemoryKind::File => {
            proposal.refuse(
                file.at.key("path"),
                format!("the guest's XML has no <shmem name='{}'> that says its size", file.path.split().1),
                "add it to <devices> (`virsh edit`), or write a `size`",
            );
            Ok(None)
        }
        (None, None) => {
            proposal.refuse(
                file.at.key("path"),
                format!("the module kvmfr is not loaded with a size for {}", file.path),
                "load Looking Glass's module with a size: `modprobe kvmfr static_size_mb=128`",
            );
            Ok(None)
        }
    }
}

/// The numbers of its owner and its group; none where the host has no such, which the proposal then says.
fn owners(
    file: &SharedMemoryFile,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<(u32, u32)>, HostError> {
    let host = situation.host;
    let owner = match &file.owner {
        None => Some(host.trusted_owner().as_raw()),
        Some(name) => host.user(name.as_str())?.map(|user| user.uid),
    };
    let group = file.group.as_ref().map_or(DEFAULT_GROUP, |group| group.as_str());
    let number = host.group_number(group)?;
    match (&file.owner, owner, number) {
        (_, Some(owner), Some(group)) => return Ok(Some((owner, group))),
        (Some(name), None, _) => {
            proposal.refuse(file.at.key("owner"), format!("the host has no user {name}"), "name another one");
        }
        _ => proposal.refuse(
            file.at.key("group"),
            format!("the host has no group {group}"),
            "name one that QEMU is in, or that of the `owner`",
        ),
    }
    Ok(None)
}

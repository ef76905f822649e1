//! `disks.unmount`: what is upon the drives of some mounts is taken down for the guest, and comes back after it.

use std::path::Path;

use crate::actions::{Proposal, Situation};
use crate::config::{Disks, UnmountedPath};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{
    BlockDevice, Host, HostError, LayerName, LayerState, ONE_LOOK, PathHolder, ServiceUnit, StackObstacle,
    StorageStack,
};
use crate::key_path::KeyPath;
use crate::ledger::{ClaimTerms, Patience, StorageLayer};
use crate::unit_file_name::UnitFileName;

const UNMOUNT: &[&str] = &["disks", "unmount"];

/// What unmounting comes to.
pub(super) enum Unmounting {
    /// The guest is refused for it.
    Refused,
    /// Nobody uses these then: they are taken down, or all that is upon them is.
    Frees(Vec<BlockDevice>),
}

/// The most programs of one mount that a message names.
const MOST_NAMED: usize = 5;

pub(super) fn propose(
    disks: &Disks,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Unmounting, HostError> {
    if disks.unmount.is_empty() {
        return Ok(Unmounting::Frees(Vec::new()));
    }
    let host = situation.host;
    let paths: Vec<_> = disks.unmount.iter().map(|unmounted| unmounted.path.clone()).collect();
    let stack = host.storage_stack(&paths)?;
    let is_wrong = tell_obstacles(&stack, proposal) | tell_programs(&stack, situation, proposal);
    let is_busy = tell_holders(&disks.unmount, &stack, situation, proposal)?;
    if is_wrong || is_busy {
        return Ok(Unmounting::Refused);
    }
    let patience = Patience::for_all_together(disks.timeout, &["disks", "timeout"]);
    let mut claim = |layer: StorageLayer, at: KeyPath| {
        proposal.claim(layer, LayerState::Down, ClaimTerms::from(at).within(patience.clone()));
    };
    for stacked in &stack.layers {
        let layer = StorageLayer { height: stacked.height, layer: stacked.layer.clone() };
        claim(layer, place_of(&disks.unmount, &stacked.layer));
    }
    // What was taken down before, for this guest or for another one, is not to be seen any more.
    let known: Vec<(StorageLayer, KeyPath)> = held_with(&stack, situation)
        .into_iter()
        .map(|layer| {
            let at = place_of(&disks.unmount, &layer.layer);
            (layer, at)
        })
        .collect();
    let is_held = |path: &Path| {
        known.iter().any(|(held, _)| match &held.layer {
            LayerName::Mount(at) => Path::new(at) == path,
            LayerName::Swap(at) => is_one_device(Path::new(at), path, situation.host),
            _ => false,
        })
    };
    let absent: Vec<String> =
        stack.absent.iter().filter(|path| !is_held(path)).map(|path| path.display().to_string()).collect();
    for (layer, at) in known {
        claim(layer, at);
    }
    if !absent.is_empty() {
        proposal.inform(format!("nothing is to be unmounted at {}", absent.join(", ")));
    }
    Ok(Unmounting::Frees(stack.upon))
}

/// The layers that a guest has taken down with a path at which nothing is now.
fn held_with(stack: &StorageStack, situation: Situation<'_>) -> Vec<StorageLayer> {
    let record = situation.record;
    let of = |uuid: GuestUuid| -> Vec<StorageLayer> {
        record.claims_of::<StorageLayer>(uuid).map(|(entry, _)| entry.setting.clone()).collect()
    };
    let mut held = Vec::new();
    for uuid in record.leases.keys() {
        let layers = of(*uuid);
        let is_of_path = |layer: &StorageLayer| match &layer.layer {
            LayerName::Mount(at) => stack.absent.iter().any(|path| path == Path::new(at)),
            LayerName::Swap(at) => {
                stack.absent.iter().any(|path| is_one_device(Path::new(at), path, situation.host))
            }
            _ => false,
        };
        if *uuid == situation.guest.uuid || layers.iter().any(is_of_path) {
            held.extend(layers);
        }
    }
    held
}

/// Whether two paths lead to one device: swap is kept by a path that stays, and named by any.
fn is_one_device(one: &Path, other: &Path, host: &Host) -> bool {
    let device = |path: &Path| host.block_device_at(path).ok().flatten();
    one == other || device(one).is_some_and(|one| device(other) == Some(one))
}

/// The key that asks for a layer: that of its own path, or of the path above it, or the list.
fn place_of(unmounted: &[UnmountedPath], layer: &LayerName) -> KeyPath {
    let (LayerName::Mount(at) | LayerName::Swap(at)) = layer else { return KeyPath::from(UNMOUNT) };
    let of = unmounted.iter().find(|unmounted| Path::new(at).starts_with(&unmounted.path));
    of.map_or_else(|| KeyPath::from(UNMOUNT), |unmounted| unmounted.at.clone())
}

fn tell_obstacles(stack: &StorageStack, proposal: &mut Proposal) -> bool {
    for obstacle in &stack.obstacles {
        match obstacle {
            StackObstacle::Other(reason) => proposal.refuse(
                UNMOUNT,
                format!("it cannot be unmounted and brought back: {reason}"),
                "`services: { stop: [NAME.mount] }` stops a mount of /etc/fstab, NAME.automount what mounts it again",
            ),
            StackObstacle::NeedsPerson { volume, reason } => proposal.refuse(
                UNMOUNT,
                format!("encrypted volume {volume} would not come back without a person: {reason}"),
                format!("give it a key file: a line `{volume} UUID=... /etc/cryptsetup-keys.d/{volume}.key` in /etc/crypttab"),
            ),
            StackObstacle::AlsoUsed { device, path } => proposal.refuse(
                UNMOUNT,
                format!("{device} is upon the same drive, and in use at {}", path.display()),
                format!("name {} here, too", path.display()),
            ),
        }
    }
    !stack.obstacles.is_empty()
}

fn tell_programs(stack: &StorageStack, situation: Situation<'_>, proposal: &mut Proposal) -> bool {
    let mut is_wrong = false;
    for stacked in &stack.layers {
        for program in situation.host.missing_storage_programs(&stacked.layer) {
            is_wrong = true;
            proposal.refuse(
                UNMOUNT,
                format!("{} needs the program {program}, which this host does not have", stacked.layer),
                "install it",
            );
        }
    }
    is_wrong
}

/// A mount that programs have in use is not taken from them, unless their units are stopped before.
fn tell_holders(
    unmounted: &[UnmountedPath],
    stack: &StorageStack,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<bool, HostError> {
    let mut is_busy = false;
    for UnmountedPath { at, path } in unmounted {
        if stack.absent.contains(path) || path.starts_with("/dev") {
            continue;
        }
        let deadline = Deadline::after(ONE_LOOK).earlier(situation.deadline);
        let mut holders = situation.host.holders_below(path, deadline)?;
        holders.retain(|holder| !is_stopped(holder, proposal));
        if holders.is_empty() {
            continue;
        }
        is_busy = true;
        let mut names: Vec<String> = holders
            .iter()
            .take(MOST_NAMED)
            .map(|holder| format!("{} (process {}, {})", holder.name, holder.pid, holder.path.display()))
            .collect();
        if holders.len() > MOST_NAMED {
            names.push(format!("and {} more", holders.len() - MOST_NAMED));
        }
        let unit = holders
            .iter()
            .find_map(|holder| holder.unit.as_deref())
            .filter(|unit| unit.ends_with(".service"));
        let help = match unit {
            Some(unit) => {
                format!("end them, or have it stopped for the guest: `services: {{ stop: [{unit}] }}`")
            }
            None => "end them, or have them leave that folder".to_owned(),
        };
        proposal.refuse(at.clone(), format!("{} is in use by {}", path.display(), names.join(", ")), help);
    }
    Ok(is_busy)
}

fn is_stopped(holder: &PathHolder, proposal: &Proposal) -> bool {
    let unit = holder.unit.as_deref().and_then(|unit| UnitFileName::new(unit).ok());
    unit.is_some_and(|unit| proposal.stops(&ServiceUnit { unit, user: None }))
}

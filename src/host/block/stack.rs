//! Which layers are between a mount and its drives, and above those drives beside it.

use std::path::{Path, PathBuf};

use super::device::BlockDevice;
use super::layer::{LayerName, StackedLayer};
use super::mounted::{NotMountable, spec_of};
use super::mounts::InUse;
use super::uses::volume_of;
use crate::host::{Host, HostError};

/// Mounts are above everything else.
const MOUNTS: u16 = 1000;

/// `LVM-`, and the identities of the group and the volume of 32 letters each; what follows is a part of a thin pool, a
/// cache, a mirror.
const PLAIN_VOLUME: usize = "LVM-".len() + 64;

/// What is to be taken down so that nothing of some mounts is left upon their drives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStack {
    /// The layers, those first that are taken down first.
    pub layers: Vec<StackedLayer>,
    /// Paths at which nothing is.
    pub absent: Vec<PathBuf>,
    /// The drives and partitions that are free then, and the volumes that come down.
    pub upon: Vec<BlockDevice>,
    /// Why it cannot be taken down and brought back.
    pub obstacles: Vec<StackObstacle>,
}

/// Why a stack cannot be taken down and brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackObstacle {
    /// Something is in the way, in words.
    Other(String),
    /// An encrypted volume needs a person.
    NeedsPerson {
        /// Its name.
        volume: String,
        /// Why.
        reason: String,
    },
    /// Something upon the same drives is mounted elsewhere or swapped to: `/dev/dm-2 is mounted at /home`.
    AlsoUsed {
        /// Which layer is not free.
        device: String,
        /// The path that would have to be taken down, too.
        path: PathBuf,
    },
}

struct Search<'a> {
    host: &'a Host,
    in_use: InUse,
    paths: &'a [PathBuf],
    stack: StorageStack,
    /// The devices that come down, and the drives that they are upon.
    seen: Vec<BlockDevice>,
    bases: Vec<BlockDevice>,
}

impl Host {
    /// The layers that are taken down for some paths: mounts, those below them, swap, and what is between them and their
    /// drives.
    ///
    /// # Errors
    /// sysfs, `/proc` or `/etc/crypttab` cannot be read.
    pub fn storage_stack(&self, paths: &[PathBuf]) -> Result<StorageStack, HostError> {
        let mut search = Search {
            host: self,
            in_use: InUse::read(self)?,
            paths,
            stack: StorageStack::default(),
            seen: Vec::new(),
            bases: Vec::new(),
        };
        for path in paths {
            search.path(path)?;
        }
        let mut next = 0;
        while let Some(base) = search.bases.get(next).cloned() {
            next += 1;
            search.above(&base)?;
        }
        let mut stack = search.stack;
        stack.upon = search.bases;
        stack.upon.extend(search.seen);
        stack
            .layers
            .sort_by(|one, other| other.height.cmp(&one.height).then_with(|| one.layer.cmp(&other.layer)));
        Ok(stack)
    }
}

impl Search<'_> {
    fn obstacle(&mut self, obstacle: StackObstacle) {
        if !self.stack.obstacles.contains(&obstacle) {
            self.stack.obstacles.push(obstacle);
        }
    }

    fn layer(&mut self, height: u16, layer: LayerName) {
        if self.stack.layers.iter().all(|known| known.layer != layer) {
            self.stack.layers.push(StackedLayer { height, layer });
        }
    }

    fn path(&mut self, path: &Path) -> Result<(), HostError> {
        if path.starts_with("/dev") {
            return self.swap(path);
        }
        let mounts: Vec<_> = self
            .in_use
            .mounts()
            .iter()
            .filter(|mount| mount.mount_point.starts_with(path))
            .cloned()
            .collect();
        if mounts.iter().all(|mount| mount.mount_point != path) {
            self.stack.absent.push(path.to_owned());
            return Ok(());
        }
        for mount in &mounts {
            let at = mount.mount_point.display().to_string();
            let Some(text) = mount.mount_point.to_str() else {
                self.obstacle(StackObstacle::Other(format!("{at} is no text")));
                continue;
            };
            if mount.fs_type == "autofs" {
                self.obstacle(StackObstacle::Other(format!(
                    "{at} is mounted again whenever it is looked at (autofs)"
                )));
                continue;
            }
            if mounts.iter().filter(|other| other.mount_point == mount.mount_point).count() > 1 {
                self.obstacle(StackObstacle::Other(format!("several file systems are mounted at {at}")));
                continue;
            }
            let device = self.in_use.device_of(self.host, mount)?;
            match spec_of(self.host, &self.in_use, mount, device.as_ref())? {
                Err(why) => self.obstacle(StackObstacle::Other(match why {
                    NotMountable::FileSystem(kind) => format!("{at} is mounted as {kind}"),
                    NotMountable::Bind => format!("{at} is a part of a file system (a bind mount)"),
                    NotMountable::Propagation => format!("{at} follows the mounts of another namespace"),
                    NotMountable::NoDevice => format!("{at} has a device that is not to be found"),
                })),
                Ok(_) => {
                    let depth = u16::try_from(mount.mount_point.components().count()).unwrap_or(MOUNTS);
                    self.layer(MOUNTS.saturating_add(depth), LayerName::Mount(text.to_owned()));
                    for device in self.in_use.devices_of(self.host, mount)? {
                        self.below(&device)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn swap(&mut self, path: &Path) -> Result<(), HostError> {
        match self.host.block_device_at(path)?.filter(|device| self.in_use.is_swap(device)) {
            None => self.stack.absent.push(path.to_owned()),
            Some(device) => {
                self.layer(MOUNTS, LayerName::Swap(self.host.lasting_path(&device)?));
                self.below(&device)?;
            }
        }
        Ok(())
    }

    /// The layers below a device, down to the drives or partitions.
    fn below(&mut self, device: &BlockDevice) -> Result<u16, HostError> {
        let made_of = made_of(self.host, device)?;
        if made_of.is_empty() {
            if !self.bases.contains(device) {
                self.bases.push(device.clone());
            }
            return Ok(0);
        }
        let mut height = 0;
        for part in &made_of {
            height = height.max(self.below(part)?.saturating_add(1));
        }
        self.volume(device, height)?;
        Ok(height)
    }

    /// All that is upon a drive or partition: it comes down, too, or is in the way.
    fn above(&mut self, device: &BlockDevice) -> Result<(), HostError> {
        for place in self.in_use.mounted_at(self.host, device)? {
            if !self.paths.iter().any(|path| place.starts_with(path)) {
                self.obstacle(StackObstacle::AlsoUsed { device: device.to_string(), path: place });
            }
        }
        if self.in_use.is_swap(device) {
            let layer = LayerName::Swap(self.host.lasting_path(device)?);
            if self.stack.layers.iter().all(|known| known.layer != layer) {
                self.obstacle(StackObstacle::AlsoUsed { device: device.to_string(), path: device.path() });
            }
        }
        let partitions =
            if self.bases.contains(device) { Vec::new() } else { device.partitions(self.host)? };
        for upon in device.holders(self.host)?.into_iter().chain(partitions) {
            // It may be upon other drives as well.
            self.below(&upon)?;
            self.above(&upon)?;
        }
        Ok(())
    }

    fn volume(&mut self, device: &BlockDevice, height: u16) -> Result<(), HostError> {
        if self.seen.contains(device) || device.is_partition(self.host) {
            return Ok(());
        }
        self.seen.push(device.clone());
        let host = self.host;
        let attribute = |name: &str| host.text_if_present(device.folder().join(name));
        let (name, uuid) = (attribute("dm/name")?, attribute("dm/uuid")?.unwrap_or_default());
        match name {
            Some(name) if uuid.starts_with("CRYPT-") => {
                match host.crypt_line(&name)? {
                    Err(reason) => self.obstacle(StackObstacle::NeedsPerson { volume: name.clone(), reason }),
                    Ok(line) if self.paths.iter().any(|path| line.key_file.starts_with(path)) => {
                        let reason = format!("its key file {} goes with it", line.key_file.display());
                        self.obstacle(StackObstacle::NeedsPerson { volume: name.clone(), reason });
                    }
                    Ok(_) => {}
                }
                self.layer(height, LayerName::Crypt(name));
            }
            Some(name) if uuid.starts_with("LVM-") && uuid.len() <= PLAIN_VOLUME => {
                self.layer(height, LayerName::Volume(volume_of(&name)));
            }
            Some(name) if uuid.starts_with("LVM-") => self.obstacle(StackObstacle::Other(format!(
                "LVM volume {} is a part of a thin pool, a cache, a mirror or a snapshot",
                volume_of(&name)
            ))),
            None if host.is_present(device.folder().join("md")) => {
                match host.udev_property(device, "MD_UUID")? {
                    Some(uuid) => self.layer(height, LayerName::Array(uuid)),
                    None => self
                        .obstacle(StackObstacle::Other(format!("udev does not know the UUID of {device}"))),
                }
            }
            _ => self.obstacle(StackObstacle::Other(format!("it is not known how {device} is brought back"))),
        }
        Ok(())
    }
}

/// The devices that a device is made of; a partition of an array is made of the array.
fn made_of(host: &Host, device: &BlockDevice) -> Result<Vec<BlockDevice>, HostError> {
    if device.is_partition(host) {
        let drive = device.drive(host)?;
        return Ok(if made_of(host, &drive)?.is_empty() { Vec::new() } else { vec![drive] });
    }
    let mut parts = Vec::new();
    for name in host.names_if_present(device.folder().join("slaves"))? {
        parts.extend(BlockDevice::named(host, &name)?);
    }
    Ok(parts)
}

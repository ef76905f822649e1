//! The files through which programs reach a card.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use super::driver_nodes;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// Whether a device is read as a stream or in blocks; the two are numbered apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceClass {
    /// A character device, as nearly everything on a graphics card is.
    Character,
    /// A block device.
    Block,
}

/// What the kernel knows a device by, whatever the path of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// Character or block.
    pub class: DeviceClass,
    /// The driver's number.
    pub major: u64,
    /// The device's number at that driver.
    pub minor: u64,
}

/// What a file gives access to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// `/dev/dri/cardN`: the display.
    Drm,
    /// `/dev/dri/renderDN`: rendering and computing.
    Render,
    /// `/dev/snd/*`: sound over the display's cable.
    Sound,
    /// `/dev/i2c-N`: the buses to monitors.
    I2c,
    /// `/dev/fbN`.
    Framebuffer,
    /// `/dev/vfio/GROUP` and `/dev/vfio/devices/vfioN`: a guest or another program that has the whole function.
    Vfio,
    /// `/dev/kfd`: computing on AMD cards. One node for all of them.
    Kfd,
    /// `/dev/nvidiaN` and `/dev/nvidia-modeset`, of NVIDIA's own driver.
    Nvidia,
    /// `resourceN` in sysfs: the function's memory itself.
    PciResource,
    /// Anything else.
    Other,
}

/// A file through which programs reach a card: a device node, or one of sysfs that can be mapped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardNode {
    /// Its path, as `/proc/PID/fd` shows it.
    pub path: PathBuf,
    /// What it gives access to.
    pub kind: NodeKind,
    /// The device's number; none for a file of sysfs.
    pub number: Option<DeviceNumber>,
}

impl DeviceNumber {
    /// That of the device that a link leads to; none for any other file, or one that cannot be looked at. A file system
    /// that does not answer is not asked.
    pub(in crate::host) fn of_link(link: &Path) -> Option<Self> {
        let file = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE).ok()?;
        let class = match FileType::from_raw_mode(file.stx_mode.into()) {
            FileType::CharacterDevice => DeviceClass::Character,
            FileType::BlockDevice => DeviceClass::Block,
            _ => return None,
        };
        Some(Self { class, major: file.stx_rdev_major.into(), minor: file.stx_rdev_minor.into() })
    }

    /// What the `dev` attribute of a device says: `226:1`.
    #[must_use]
    pub fn from_dev(text: &str, class: DeviceClass) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Self { class, major: u64::from_str(major).ok()?, minor: u64::from_str(minor).ok()? })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl NodeKind {
    /// By `DEVNAME`, the path below `/dev` that the driver gives its node.
    fn of_device_name(name: &str) -> Self {
        const BEGINNINGS: [(&str, NodeKind); 8] = [
            ("dri/card", NodeKind::Drm),
            ("dri/renderD", NodeKind::Render),
            ("snd/", NodeKind::Sound),
            ("i2c-", NodeKind::I2c),
            ("fb", NodeKind::Framebuffer),
            ("vfio/", NodeKind::Vfio),
            ("kfd", NodeKind::Kfd),
            ("nvidia", NodeKind::Nvidia),
        ];
        let known = BEGINNINGS.into_iter().find(|(beginning, _)| name.starts_with(beginning));
        known.map_or(Self::Other, |(_, kind)| kind)
    }
}

impl CardNode {
    /// The node of a device, as a folder of sysfs describes it; none where the device has none.
    pub(super) fn of_device(host: &Host, folder: &Path) -> Result<Option<Self>, HostError> {
        let Some(number) = host.text_if_present(folder.join("dev"))? else { return Ok(None) };
        let uevent = host.text_if_present(folder.join("uevent"))?.unwrap_or_default();
        let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        let Some(name) = name.or_else(|| folder.file_name()?.to_str()) else { return Ok(None) };
        let is_block = host.link_name(&folder.join("subsystem"))?.as_deref() == Some("block");
        let class = if is_block { DeviceClass::Block } else { DeviceClass::Character };
        Ok(Some(Self {
            path: Path::new("/dev").join(name),
            kind: NodeKind::of_device_name(name),
            number: DeviceNumber::from_dev(&number, class),
        }))
    }
}

impl Host {
    /// The files through which programs reach these functions, sorted: the nodes of all devices below them in sysfs and
    /// of firmware framebuffers on them, their mappable memory, and the nodes that drivers keep elsewhere.
    ///
    /// # Errors
    /// sysfs cannot be read. A function that is not there has no nodes.
    pub fn device_nodes_of(&self, functions: &[PciAddress]) -> Result<Vec<CardNode>, HostError> {
        let mut nodes = Vec::new();
        for function in functions {
            let Some(folder) = self.pci_folder(*function)? else { continue };
            self.resource_files(&folder, &mut nodes)?;
            self.nodes_below(&folder, &mut nodes)?;
        }
        for framebuffer in self.firmware_framebuffers_on(functions)? {
            if let Some(folder) = self.real_path(&framebuffer.folder())? {
                self.nodes_below(&folder, &mut nodes)?;
            }
        }
        driver_nodes::add(self, functions, &mut nodes)?;
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes)
    }

    /// `resourceN`, and `resourceN_wc`, its other way to be mapped (`drivers/pci/pci-sysfs.c`).
    fn resource_files(&self, folder: &Path, nodes: &mut Vec<CardNode>) -> Result<(), HostError> {
        let is_number = |text: &str| text.len() == 1 && text.bytes().all(|digit| digit.is_ascii_digit());
        for name in self.names_if_present(folder)? {
            let Some(number) = name.strip_prefix("resource") else { continue };
            if is_number(number.strip_suffix("_wc").unwrap_or(number)) {
                let path = folder.join(name);
                nodes.push(CardNode { path, kind: NodeKind::PciResource, number: None });
            }
        }
        Ok(())
    }

    fn nodes_below(&self, folder: &Path, nodes: &mut Vec<CardNode>) -> Result<(), HostError> {
        nodes.extend(CardNode::of_device(self, folder)?);
        for below in self.subfolders(folder)? {
            // What is behind a bridge is another card's.
            let is_function = |name: &str| name.parse::<PciAddress>().is_ok();
            if !below.file_name().and_then(|name| name.to_str()).is_some_and(is_function) {
                self.nodes_below(&below, nodes)?;
            }
        }
        Ok(())
    }
}

//! What a drive is known by, wherever it is plugged in.

use std::fmt;
use std::path::Path;

use super::device::BlockDevice;
use crate::host::{Host, HostError};

/// The folder in `/dev` whose links have names that stay.
const BY_ID: &str = "disk/by-id/";

/// What a drive is known by. All of it comes from the drive, through the kernel and udev.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveIdentity {
    /// What it is: `Samsung SSD 980 PRO 1TB`.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its World Wide Name: `0x5002538d00000000`, `eui.0025385b01416a5a`.
    pub wwn: Option<String>,
    /// Its names in `/dev/disk/by-id`, and those of the partition that was meant.
    pub by_id: Vec<String>,
}

impl DriveIdentity {
    /// Whether this is its serial number, its World Wide Name, or a name in `/dev/disk/by-id`, with or without the folder.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let link = name.strip_prefix("/dev/").and_then(|name| name.strip_prefix(BY_ID)).unwrap_or(name);
        [&self.serial, &self.wwn].into_iter().flatten().any(|own| own == name)
            || self.by_id.iter().any(|own| own == link)
    }
}

impl fmt::Display for DriveIdentity {
    /// `Samsung SSD 980 PRO 1TB, serial S5GXNF0R123456`; nothing where nothing is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.model, &self.serial) {
            (Some(model), Some(serial)) => write!(f, "{model}, serial {serial}"),
            (Some(model), None) => f.write_str(model),
            (None, Some(serial)) => write!(f, "serial {serial}"),
            (None, None) => Ok(()),
        }
    }
}

impl Host {
    /// What a drive is known by; of a partition, the drive that it is of.
    ///
    /// # Errors
    /// sysfs or udev's database cannot be read.
    pub fn drive_identity(&self, device: &BlockDevice) -> Result<DriveIdentity, HostError> {
        let drive = device.drive(self)?;
        let of_udev = self.udev_properties(&drive)?;
        let of_sysfs = |names: &[&str]| -> Result<Option<String>, HostError> {
            for name in names {
                // Some drivers answer EINVAL or EIO where they have none.
                let text = self.text(drive.folder().join(name)).unwrap_or_default();
                if let Some(text) = plain(&text) {
                    return Ok(Some(text));
                }
            }
            Ok(None)
        };
        let property = |name: &str| of_udev.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let known = |name: &str| property(name).and_then(|value| plain(value));
        let mut by_id = links(&of_udev);
        if drive != *device {
            by_id.extend(links(&self.udev_properties(device)?));
        }
        Ok(DriveIdentity {
            model: of_sysfs(&["device/model"])?.or_else(|| known("ID_MODEL")),
            serial: match known("ID_SERIAL_SHORT") {
                Some(serial) => Some(serial),
                None => of_sysfs(&["serial", "device/serial"])?,
            },
            wwn: match known("ID_WWN") {
                Some(wwn) => Some(wwn),
                None => of_sysfs(&["wwid", "device/wwid"])?,
            },
            by_id,
        })
    }

    /// What udev's database says of a device, the links as properties `S`; nothing where it does not know it. Root alone
    /// writes there.
    pub(super) fn udev_properties(&self, device: &BlockDevice) -> Result<Vec<(String, String)>, HostError> {
        let text = self.text_if_present(format!("/run/udev/data/b{}", device.number()))?.unwrap_or_default();
        let property = |line: &str| {
            let (key, value) = match line.split_once(':')? {
                ("E", property) => property.split_once('=')?,
                ("S", link) => ("S", link),
                _ => return None,
            };
            Some((key.to_owned(), value.to_owned()))
        };
        Ok(text.lines().filter_map(property).collect())
    }

    /// One property of udev's database.
    pub(super) fn udev_property(
        &self,
        device: &BlockDevice,
        name: &str,
    ) -> Result<Option<String>, HostError> {
        let properties = self.udev_properties(device)?;
        Ok(properties.into_iter().find(|(key, _)| key == name).and_then(|(_, value)| plain(&value)))
    }

    /// The drive with one of these names that the host has, wherever it is; none where there is none.
    ///
    /// # Errors
    /// As [`Self::drive_identity`].
    pub fn drive_known_as(&self, name: &str) -> Result<Option<BlockDevice>, HostError> {
        for block in self.names_if_present(Path::new(super::device::BLOCK))? {
            let Some(device) = BlockDevice::named(self, &block)? else { continue };
            // All others are made of drives.
            let is_drive = self.is_present(device.folder().join("device")) || device.is_partition(self);
            if is_drive && self.drive_identity(&device)?.is(name) {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }
}

/// The names in `/dev/disk/by-id` among a device's links.
fn links(properties: &[(String, String)]) -> Vec<String> {
    let links = properties.iter().filter(|(key, _)| key == "S");
    links.filter_map(|(_, link)| link.strip_prefix(BY_ID)).map(str::to_owned).collect()
}

/// A text that a drive says of itself, without the blanks that fill its field, and in one line; none where nothing is
/// left.
fn plain(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let text = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

//! Drives that the guest's XML hands over, for a file with `disks`.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Added, inside, is_free};
use crate::actions::GuestConfig;
use crate::guest::{DriveSource, Guest};
use crate::pci::PciAddress;

/// The first number of a device that the manifest has not: drives of SCSI have 8.
const FIRST_MINOR: u32 = 160;

const MODEL: &str = "Simulated drive";

/// Each has the name that the file expects at its place, as its serial number.
pub(super) fn of(guest: &Guest, config: &GuestConfig, root: &Path) -> Added {
    let mut added = Added::default();
    let Some(disks) = &config.disks else { return added };
    let mut names = disks.expect.iter().map(|drive| drive.name.as_str());
    let mut minor = FIRST_MINOR;
    let mut add = |added: &mut Added, name: &str, folder: &str, serial: Option<&str>, words: String| {
        added.line(format!("{folder}/dev = 8:{minor}"));
        added.line(format!("{folder}/device/model = {MODEL}"));
        added.line(format!("/dev/{name} ="));
        let link = serial.and_then(|serial| serial.strip_prefix("/dev/disk/by-id/"));
        let serial = link.or(serial).filter(|serial| !serial.contains(['\\', '\n'])).unwrap_or("SIMULATED");
        added.line(format!("/run/udev/data/b8:{minor} = S:disk/by-id/{serial}\\nE:ID_SERIAL_SHORT={serial}"));
        added.words.push(words);
        minor += 1;
    };
    let mut known: Vec<&PathBuf> = Vec::new();
    for drive in &guest.host_drives {
        let DriveSource::Block(path) = &drive.source else { continue };
        let Some(place) = inside(root, path).filter(|place| path.starts_with("/dev") && is_free(root, place))
        else {
            continue;
        };
        // Text with characters that a line of a manifest has another meaning for makes no drive.
        let text = path.to_string_lossy();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.:+".contains(&byte);
        if place.as_os_str().is_empty() || known.contains(&path) || !text.bytes().all(is_plain) {
            continue;
        }
        known.push(path);
        let name = match path.strip_prefix("/dev") {
            Ok(name) if name.components().count() == 1 => name.to_string_lossy().into_owned(),
            _ => {
                let name = format!("sdx{}", known.len());
                let up = "../".repeat(path.components().count().saturating_sub(3));
                added.line(format!("{text} -> {up}{name}"));
                name
            }
        };
        add(&mut added, &name, &format!("/sys/class/block/{name}"), names.next(), format!("drive {text}"));
    }
    // A controller of drives has one; one of USB only where the file expects more.
    for start in ["0x01", "0x0c03"] {
        for hostdev in &guest.pci_hostdevs {
            let address = hostdev.address;
            let serial = if class(address, root).starts_with(start) { names.next() } else { continue };
            if start != "0x01" && serial.is_none() {
                continue;
            }
            let name = format!("sdy{}", added.words.len());
            let folder = format!("/sys/bus/pci/devices/{address}/simulated/block/{name}");
            add(&mut added, &name, &folder, serial, format!("a drive on {address}"));
            added.line(format!(
                "/sys/class/block/{name} -> ../../bus/pci/devices/{address}/simulated/block/{name}"
            ));
        }
    }
    added
}

fn class(function: PciAddress, root: &Path) -> String {
    let file = root.join("sys/bus/pci/devices").join(function.to_string()).join("class");
    fs::read_to_string(file).unwrap_or_default()
}

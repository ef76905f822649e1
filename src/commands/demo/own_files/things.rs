//! What `requires` and `shared_memory` name: paths, USB devices, devices of Looking Glass.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::make_file;
use crate::actions::GuestConfig;
use crate::config::{RequiredThing, SharedMemoryFile};
use crate::guest::Guest;
use crate::pages::MemorySize;
use crate::shared_memory::SharedMemoryKind;

/// The size that Looking Glass's guides give.
const USUAL_MIB: u64 = 128;

const MIB: u64 = 1024 * 1024;

/// Makes them; in words what the host did not have.
pub(super) fn make(guest: &Guest, config: &GuestConfig, root: &Path) -> io::Result<Vec<String>> {
    let mut words = Vec::new();
    let things = config.requires.iter().flat_map(|requires| &requires.things);
    for (number, condition) in (1..).zip(things) {
        match &condition.what {
            RequiredThing::Path(path) => {
                let is_new = make_file(root, path, "")?;
                words.extend(is_new.then(|| format!("the path {}", path.display())));
            }
            RequiredThing::Usb(id) => {
                let folder = format!("/sys/bus/usb/devices/1-{number}");
                for (name, id) in [("idVendor", id.vendor), ("idProduct", id.product)] {
                    make_file(root, format!("{folder}/{name}").as_ref(), &format!("{id:04x}"))?;
                }
                words.push(format!("USB device {id}"));
            }
            RequiredThing::Unit { .. } | RequiredThing::Pci(_) => {}
        }
    }
    words.extend(make_kvmfr(guest, config, root)?);
    Ok(words)
}

/// The devices of Looking Glass's module, and what it says of their sizes.
fn make_kvmfr(guest: &Guest, config: &GuestConfig, root: &Path) -> io::Result<Vec<String>> {
    let mut sizes: BTreeMap<usize, u64> = BTreeMap::new();
    let files = config.shared_memory.iter().flat_map(|shared| &shared.files);
    for SharedMemoryFile { path, size, .. } in files {
        if let SharedMemoryKind::Kvmfr(number) = path.kind() {
            let of_xml = guest.shmems.first().map(|shmem| shmem.size);
            let size: Option<MemorySize> = size.or(of_xml);
            sizes.insert(number, size.map_or(USUAL_MIB, |size| (size.bytes() / MIB).max(1)));
        }
    }
    let Some(last) = sizes.keys().max() else { return Ok(Vec::new()) };
    let all: Vec<String> =
        (0..=*last).map(|number| sizes.get(&number).copied().unwrap_or(USUAL_MIB).to_string()).collect();
    make_file(root, "/sys/module/kvmfr/parameters/static_size_mb".as_ref(), &all.join(","))?;
    let mut words = Vec::new();
    for (number, mib) in sizes {
        let path = format!("/dev/kvmfr{number}");
        make_file(root, path.as_ref(), "")?;
        words.push(format!("{path} with {mib} MiB (module kvmfr)"));
    }
    Ok(words)
}

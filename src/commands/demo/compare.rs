//! Whether the simulated host is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::output;
use crate::commands::user_error::{Trying, UserResult};
use crate::config::Gpu;
use crate::exit::Exit;
use crate::gpu::{KeepAwake, ReturnTo};
use crate::guest::Guest;
use crate::host::STATE_DIR;
use crate::pci::PciAddress;

/// The differences shown; one is enough to look for the fault.
const SHOWN: usize = 10;

/// What a host's files hold, by their path on it.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Devices that the file leaves to the next guest.
pub(super) struct Staying {
    devices: Vec<PciAddress>,
    keep_awake: KeepAwake,
    bars: Bars,
}

/// Whether the file resizes BARs of the card: they are as the guest had them as long as VFIO has the card.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bars {
    AsBefore,
    Resized,
}

impl Staying {
    pub(super) fn of(gpu: Option<&Gpu>, guest: &Guest) -> Self {
        let stays = gpu.is_some_and(|gpu| gpu.return_to == ReturnTo::Vfio);
        let devices = guest.pci_hostdevs.iter().filter(|_| stays);
        Self {
            devices: devices.map(|hostdev| hostdev.address).collect(),
            keep_awake: gpu.map_or(KeepAwake::Auto, |gpu| gpu.keep_awake),
            bars: match gpu {
                Some(gpu) if !gpu.bars.is_empty() => Bars::Resized,
                _ => Bars::AsBefore,
            },
        }
    }
}

/// Says whether the host came back, and what did not. Devices that stay with VFIO have another driver, and are kept awake
/// with the ports above them.
pub(super) fn compare(before: &Files, after: &Files, staying: &Staying) -> Exit {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let different = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    let (bound, different): (Vec<_>, Vec<_>) = different.partition(|path| {
        let is_of = |device: &PciAddress| {
            is_about_driver(path, *device)
                || keeps_awake(path, *device, after)
                || (staying.bars == Bars::Resized && has_sizes(path, *device))
        };
        staying.devices.iter().any(is_of)
    });
    if different.is_empty() {
        let files = output::count(before.len(), "file");
        output::line(format_args!("the host is as it was: {files} compared"));
        if !bound.is_empty() {
            let how = match staying.keep_awake {
                KeepAwake::Auto => "stay with VFIO and awake, as `return_to: vfio` asks",
                KeepAwake::Never => {
                    "stay with VFIO, as `return_to: vfio` asks, and may sleep, as `keep_awake: never` does"
                }
            };
            output::line(format_args!("the guest's devices {how}"));
            if staying.bars == Bars::Resized {
                output::line("their BARs stay as `bars` has them, too");
            }
        }
        return Exit::Done;
    }
    let files = output::count(different.len(), "file");
    output::line(format_args!("the host is not as it was: {files} of {} differ", before.len()));
    let show = |files: &Files, path: &Path| match files.get(path) {
        Some(bytes) => format!("`{}`", String::from_utf8_lossy(bytes).trim_end()),
        None => "no file".to_owned(),
    };
    for path in different.into_iter().take(SHOWN) {
        output::line(format_args!("  {}: {} -> {}", path.display(), show(before, path), show(after, path)));
    }
    Exit::Failed
}

/// Whether a file says which driver has a device.
fn is_about_driver(path: &Path, device: PciAddress) -> bool {
    let device = device.to_string();
    let is_its = |path: &Path| path.file_name().is_some_and(|name| name == device.as_str());
    let is_driver = ["driver", "driver_override"].iter().any(|name| path.ends_with(name));
    (is_its(path) && path.starts_with("/sys/bus/pci/drivers"))
        || (is_driver && path.parent().is_some_and(is_its))
}

/// Whether a file says how large the BARs of a device are.
fn has_sizes(path: &Path, device: PciAddress) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    path.ends_with("resource") && folder.is_some_and(|name| name == device.to_string().as_str())
}

/// Whether a file says how a device, or a port above it, may sleep.
fn keeps_awake(path: &Path, device: PciAddress, files: &Files) -> bool {
    let attributes = ["d3cold_allowed", "power/control"];
    let Some(attribute) = attributes.iter().find(|name| path.ends_with(name)) else { return false };
    let Some(folder) = path.ancestors().nth(Path::new(attribute).iter().count()) else { return false };
    let device = device.to_string();
    files.keys().any(|path| path.starts_with(folder) && path.iter().any(|part| part == device.as_str()))
}

/// All files of the host. The program's own are none of the host's, and how its free memory lies is not kept by
/// any program.
pub(super) fn read_files(root: &Path) -> UserResult<Files> {
    fn collect(root: &Path, folder: &Path, files: &mut Files) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let on_host = Path::new("/").join(path.strip_prefix(root).unwrap_or(&path));
            if path.is_symlink() {
                // Devices and their drivers lead to each other.
                files.insert(on_host, fs::read_link(&path)?.into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                if on_host != Path::new(STATE_DIR) {
                    collect(root, &path, files)?;
                }
            } else if on_host.file_name() == Some("resource".as_ref()) {
                files.insert(on_host, sizes_of_bars(&fs::read_to_string(&path)?).into_bytes());
            } else if !is_layout_of_free_memory(&on_host) {
                files.insert(on_host, fs::read(&path)?);
            }
        }
        Ok(())
    }
    let mut files = Files::new();
    collect(root, root, &mut files)
        .trying(|| format!("failed to read the simulated host in {}", root.display()))?;
    Ok(files)
}

/// The lines of a function's `resource` with sizes in the place of addresses: where a BAR comes to lie once it is resized
/// is for the kernel to choose.
fn sizes_of_bars(text: &str) -> String {
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let sizes = |line: &str| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(number).collect();
        match numbers[..] {
            [start, end, flags] => format!("{:#x} {flags:#x}\n", end.wrapping_sub(start)),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(sizes).collect()
}

fn is_layout_of_free_memory(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"simulated_"))
}

//! Mounts and swap that a file with `disks.unmount` names.

use std::path::Path;

use super::{Added, inside};
use crate::actions::GuestConfig;

/// The first number of a device that the manifest has not.
const FIRST_MINOR: usize = 200;

/// The host's own root file system.
const ROOT: &str = "1 0 8:199 / / rw,relatime shared:1 - ext4 /dev/root rw";

pub(super) fn of(config: &GuestConfig, root: &Path) -> Added {
    let mut added = Added::default();
    let Some(disks) = &config.disks else { return added };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.+".contains(&byte);
    let mut paths: Vec<&str> = disks.unmount.iter().filter_map(|unmounted| unmounted.path.to_str()).collect();
    paths.retain(|path| path.bytes().all(is_plain));
    // In the order in which they come back: the outer ones first.
    paths.sort_by_key(|path| (Path::new(path).components().count(), std::cmp::Reverse(*path)));
    let mut mounts = vec![ROOT.to_owned()];
    let mut swaps = Vec::new();
    let mut known: Vec<(&str, usize)> = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let minor = FIRST_MINOR + number;
        let storage = |kind: &str| {
            let name = path.trim_start_matches('/').replace('/', "-");
            format!("/simulated/storage/{kind}-{name}")
        };
        let device = match path.strip_prefix("/dev/") {
            Some(name) if !name.contains('/') => {
                // One that the host has already is no swap.
                if inside(root, Path::new(path)).is_none_or(|place| place.exists()) {
                    continue;
                }
                let line = format!("{path} partition 1048576 0 -2");
                added.line(format!("{}/swap = {line}", storage("swap")));
                added.line(format!("{}/state = up", storage("swap")));
                added.line(format!("{}/device = {name}", storage("swap")));
                added.words.push(format!("swap {path}"));
                swaps.push(line);
                name.to_owned()
            }
            Some(_) => continue,
            None => {
                let name = format!("sdm{number}");
                let is_above = |(above, _): &&(&str, usize)| Path::new(path).starts_with(above);
                let within = known.iter().rev().find(is_above).map_or(1, |(_, id)| *id);
                let line = format!(
                    "{minor} {within} 8:{minor} / {path} rw,relatime shared:{minor} - ext4 /dev/{name} rw"
                );
                added.line(format!("{}/mount = {line}", storage("mount")));
                added.line(format!("{}/state = up", storage("mount")));
                added.line(format!("{}/device = {name}", storage("mount")));
                added.words.push(format!("a file system at {path}"));
                mounts.push(line);
                known.push((path, minor));
                name
            }
        };
        added.line(format!("/sys/class/block/{device}/dev = 8:{minor}"));
        added.line(format!("/dev/{device} ="));
    }
    if !paths.is_empty() {
        added.line(format!("/proc/1/mountinfo = {}", mounts.join("\\n")));
        added.line(format!("/proc/swaps = Filename Type Size Used Priority\\n{}", swaps.join("\\n")));
    }
    added
}

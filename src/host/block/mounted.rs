//! How a file system is mounted, so that it can be mounted so again.

use std::collections::HashMap;
use std::path::Path;

use procfs::process::{MountInfo, MountOptFields};

use super::device::BlockDevice;
use super::layer::{MountSharing, MountSpec};
use super::mounts::InUse;
use crate::host::{Host, HostError};

/// File systems of which `mountinfo` has all options as `mount` takes them, and that the kernel mounts by itself.
const KNOWN: [&str; 10] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ntfs3", "iso9660"];

/// What the kernel shows and does not take: it says that a security module labels the files.
const NOT_TAKEN: &str = "seclabel";

/// Why a mount cannot come back by itself.
pub(super) enum NotMountable {
    /// This kind of file system.
    FileSystem(String),
    /// A part of a file system that is mounted elsewhere, too.
    Bind,
    /// Mounts of another namespace come here.
    Propagation,
    /// Its device is not to be found.
    NoDevice,
}

/// How a mount is, by a path of its device that stays.
pub(super) fn spec_of(
    host: &Host,
    in_use: &InUse,
    mount: &MountInfo,
    device: Option<&BlockDevice>,
) -> Result<Result<MountSpec, NotMountable>, HostError> {
    if !KNOWN.contains(&mount.fs_type.as_str()) {
        return Ok(Err(NotMountable::FileSystem(mount.fs_type.clone())));
    }
    let super_options = options(&mount.super_options);
    let is_whole =
        mount.root == "/" || mount.super_options.contains_key("subvol") && mount.fs_type == "btrfs";
    if !is_whole {
        return Ok(Err(NotMountable::Bind));
    }
    let mut sharing = MountSharing::Private;
    for field in &mount.opt_fields {
        match field {
            MountOptFields::Shared(_) => sharing = MountSharing::Shared,
            _ => return Ok(Err(NotMountable::Propagation)),
        }
    }
    let Some(device) = device else { return Ok(Err(NotMountable::NoDevice)) };
    Ok(Ok(MountSpec {
        source: host.lasting_path(device)?,
        fs_type: mount.fs_type.clone(),
        options: options(&mount.mount_options),
        super_options,
        within: in_use.mount_above(mount),
        sharing,
    }))
}

/// In one order: what the kernel shows in which does not matter to `mount`.
fn options(options: &HashMap<String, Option<String>>) -> String {
    let mut words: Vec<String> = options
        .iter()
        .filter(|(name, _)| *name != NOT_TAKEN)
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        })
        .collect();
    words.sort_unstable();
    words.join(",")
}

impl MountSpec {
    /// The arguments of `mount`: once to mount it, and once more where the mount is read-only and the file system is not.
    pub(super) fn arguments(&self, path: &str) -> Vec<Vec<String>> {
        let all = format!("{},{}", without_access(&self.options), self.super_options);
        let sharing = match self.sharing {
            MountSharing::Shared => "--make-shared",
            MountSharing::Private => "--make-private",
        };
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mount =
            text(&["-t", &self.fs_type, "-o", all.trim_matches(','), sharing, "--", &self.source, path]);
        let access = |options: &str| options.split(',').any(|word| word == "ro");
        match access(&self.options) && !access(&self.super_options) {
            true => {
                let again = format!("remount,bind,ro,{}", without_access(&self.options));
                vec![mount, text(&["-o", again.trim_matches(','), "--", path])]
            }
            false => vec![mount],
        }
    }
}

fn without_access(options: &str) -> String {
    let words: Vec<&str> = options.split(',').filter(|word| !matches!(*word, "ro" | "rw")).collect();
    words.join(",")
}

impl Host {
    /// A path of a device that leads to it also when its drive has another name by then: that of the device mapper, or by
    /// the file system's UUID.
    pub(super) fn lasting_path(&self, device: &BlockDevice) -> Result<String, HostError> {
        if let Some(name) = self.text_if_present(device.folder().join("dm/name"))? {
            return Ok(format!("/dev/mapper/{name}"));
        }
        let links = self.udev_properties(device)?;
        let link = |folder: &str| {
            let link = links.iter().find(|(key, link)| key == "S" && link.starts_with(folder));
            link.map(|(_, link)| format!("/dev/{link}"))
        };
        Ok(link("disk/by-uuid/").or_else(|| link("disk/by-partuuid/")).unwrap_or_else(|| device.to_string()))
    }

    /// How the file system is mounted that is seen at a path; none where none is mounted there.
    pub(super) fn mount_at(
        &self,
        in_use: &InUse,
        path: &Path,
    ) -> Result<Option<Result<MountSpec, NotMountable>>, HostError> {
        // The last one covers those before it.
        let Some(mount) = in_use.mounts().iter().rev().find(|mount| mount.mount_point == path) else {
            return Ok(None);
        };
        if mount.fs_type == "autofs" {
            return Ok(None);
        }
        let device = in_use.device_of(self, mount)?;
        spec_of(self, in_use, mount, device.as_ref()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(options: &str, super_options: &str) -> MountSpec {
        MountSpec {
            source: "/dev/mapper/vg-games".to_owned(),
            fs_type: "ext4".to_owned(),
            options: options.to_owned(),
            super_options: super_options.to_owned(),
            within: None,
            sharing: MountSharing::Shared,
        }
    }

    #[test]
    fn a_mount_has_the_options_that_it_had() {
        let lines = |spec: &MountSpec| -> Vec<String> {
            spec.arguments("/games").iter().map(|words| words.join(" ")).collect()
        };
        assert_eq!(
            lines(&spec("noatime,nosuid,rw", "errors=remount-ro,rw")),
            ["-t ext4 -o noatime,nosuid,errors=remount-ro,rw --make-shared -- /dev/mapper/vg-games /games"]
        );
        assert_eq!(
            lines(&spec("relatime,ro", "ro")),
            ["-t ext4 -o relatime,ro --make-shared -- /dev/mapper/vg-games /games"]
        );
        assert_eq!(
            lines(&spec("relatime,ro", "rw")),
            [
                "-t ext4 -o relatime,rw --make-shared -- /dev/mapper/vg-games /games",
                "-o remount,bind,ro,relatime -- /games",
            ]
        );
    }
}

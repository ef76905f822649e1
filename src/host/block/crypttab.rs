//! `/etc/crypttab`: whether an encrypted volume opens without a person.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::host::{Host, HostError};

const CRYPTTAB: &str = "/etc/crypttab";

/// Where systemd looks for the key of a volume whose line names none (`crypttab(5)`).
const KEYS: &str = "/etc/cryptsetup-keys.d";

/// How long the file system of a key file may take to answer.
const KEY_ANSWERS: Duration = Duration::from_secs(2);

/// The prefixes of devices that are no paths, and the folders of `/dev/disk` that they stand for
/// (`fstab_node_to_udev_node` in systemd's `src/shared/fstab-util.c`).
const TAGS: [(&str, &str); 4] = [
    ("UUID=", "by-uuid"),
    ("PARTUUID=", "by-partuuid"),
    ("LABEL=", "by-label"),
    ("PARTLABEL=", "by-partlabel"),
];

/// Options with which a volume has another content each time, or needs something else than a key file.
const OTHER_KEYS: [&str; 5] = ["tmp", "swap", "tpm2-device", "fido2-device", "pkcs11-uri"];

/// A line of `/etc/crypttab` that opens a volume without a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CryptLine {
    pub(super) device: String,
    /// The key file; `-` where systemd finds it by the volume's name.
    pub(super) key: String,
    pub(super) options: String,
    /// Where the key is.
    pub(super) key_file: PathBuf,
}

impl Host {
    /// The line that opens a volume without a person; why there is none.
    pub(super) fn crypt_line(&self, name: &str) -> Result<Result<CryptLine, String>, HostError> {
        let text = self.text_if_present(CRYPTTAB)?.unwrap_or_default();
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(fields) = lines.find(|fields| fields.first() == Some(&name)) else {
            return Ok(Err(format!("{CRYPTTAB} has no line for it")));
        };
        let field = |number: usize| fields.get(number).copied().unwrap_or("-");
        let (device, key, options) = (field(1), field(2), field(3));
        let options = if options == "-" { "" } else { options };
        let other = options
            .split(',')
            .find(|option| OTHER_KEYS.contains(&option.split('=').next().unwrap_or_default()));
        if let Some(option) = other {
            return Ok(Err(format!("its line in {CRYPTTAB} has the option `{option}`")));
        }
        let key_file = match key {
            "none" | "-" => Path::new(KEYS).join(format!("{name}.key")),
            key => PathBuf::from(key),
        };
        let is_file = key_file.is_absolute() && !key_file.starts_with("/dev") && !key.contains(':');
        // It may be on a file system that does not answer.
        if !is_file || !self.is_path_there(&key_file, Deadline::after(KEY_ANSWERS))? {
            return Ok(Err(format!("its line in {CRYPTTAB} has no key file")));
        }
        let key = if key == "none" { "-" } else { key };
        Ok(Ok(CryptLine {
            device: udev_path(device),
            key: key.to_owned(),
            options: options.to_owned(),
            key_file,
        }))
    }
}

fn udev_path(device: &str) -> String {
    let tagged = TAGS.iter().find_map(|(tag, folder)| Some((device.strip_prefix(tag)?, folder)));
    match tagged {
        Some((value, folder)) => format!("/dev/disk/{folder}/{}", value.trim_matches('"')),
        None => device.to_owned(),
    }
}

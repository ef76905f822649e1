//! What people call a model, from the host's `pci.ids`: the list of the PCI ID Repository (<https://pci-ids.ucw.cz/>),
//! which comes with `lspci`.
//!
//! Every vendor begins a line with its number, each of its devices is a line below with one tab before it, and each
//! subsystem of a device a line with two. A name is a convenience: where none can be found, nothing is said about it.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Serialize;

use crate::host::Host;
use crate::host::files::open_without_waiting;
use crate::pci::PciId;
use crate::printable::excerpt;

/// Where distributions have the list.
const LISTS: [&str; 6] = [
    // Fedora, RHEL, openSUSE, Arch, Gentoo, Alpine, and Debian's package hwdata.
    "/usr/share/hwdata/pci.ids",
    // Debian and Ubuntu (package pci.ids).
    "/usr/share/misc/pci.ids",
    // pciutils as its own Makefile installs it.
    "/usr/share/pci.ids",
    // Older versions of Debian.
    "/var/lib/pciutils/pci.ids",
    // NixOS, where the system has the package.
    "/run/current-system/sw/share/hwdata/pci.ids",
    "/run/current-system/sw/share/pci.ids",
];

/// So much is read at a time, in bytes: a list has 25 times as many.
const PIECE: usize = 64 * 1024;

/// A list is read to here, in bytes: five times the size that it has in 2026.
const MOST: u64 = 8 * 1024 * 1024;

/// A name is cut after so many characters: no device has a longer one.
const LONGEST_NAME: usize = 120;

/// A model's name for people, such as `Navi 31 [Radeon RX 7900 XT/7900 XTX]`, safe to print.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PciModelName(String);

impl PciModelName {
    fn new(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let text = text.trim();
        (!text.is_empty()).then(|| Self(excerpt(text, LONGEST_NAME)))
    }
}

impl fmt::Display for PciModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Host {
    /// The name of a model in the host's `pci.ids`; none where the host has no list, or one that does not know the
    /// model or cannot be read. Reads up to the whole list, about a millisecond: not for an event of a guest without a
    /// card.
    #[must_use]
    pub fn pci_model_name(&self, id: PciId) -> Option<PciModelName> {
        LISTS.iter().find_map(|list| self.model_name_in(list.as_ref(), id))
    }

    fn model_name_in(&self, list: &Path, id: PciId) -> Option<PciModelName> {
        let file = open_without_waiting(&self.locate(list)).ok()?;
        let mut lines = BufReader::with_capacity(PIECE, file.take(MOST));
        let mut search = Search::new(id);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).ok()? > 0 {
            match search.look_at(line.trim_ascii_end()) {
                Found::Name(name) => return PciModelName::new(name),
                Found::End => return None,
                Found::Nothing => line.clear(),
            }
        }
        None
    }
}

/// Goes through the lines of a list, in their order.
struct Search {
    vendor: String,
    device: String,
    /// The lines are about the vendor's devices.
    is_at_vendor: bool,
}

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    Nothing,
    Name(&'a [u8]),
    /// The vendor's devices are over.
    End,
}

impl Search {
    fn new(id: PciId) -> Self {
        let number = |number: u16| format!("{number:04x}");
        Self { vendor: number(id.vendor), device: number(id.device), is_at_vendor: false }
    }

    fn look_at<'a>(&mut self, line: &'a [u8]) -> Found<'a> {
        match line {
            [] | [b'#', ..] | [b'\t', b'\t', ..] => Found::Nothing,
            [b'\t', device @ ..] if self.is_at_vendor => {
                name_after(&self.device, device).map_or(Found::Nothing, Found::Name)
            }
            [b'\t', ..] => Found::Nothing,
            _ if self.is_at_vendor => Found::End,
            vendor => {
                self.is_at_vendor = name_after(&self.vendor, vendor).is_some();
                Found::Nothing
            }
        }
    }
}

/// What stands behind a number and two spaces.
fn name_after<'a>(number: &str, line: &'a [u8]) -> Option<&'a [u8]> {
    let (found, name) = line.split_at_checked(number.len())?;
    let is_it = found.eq_ignore_ascii_case(number.as_bytes());
    name.strip_prefix(b"  ").filter(|_| is_it)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::host::simulated::Faults;

    const LIST: &[u8] = b"# Version: 2026.11.01\n\n\
        1001  Kolter Electronic\n\t744c  Another vendor's\n\
        1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\
        \t0abc  A number that begins with zero\n\
        \t73bf  Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]\n\
        \t\t1002 0e3a  Radeon RX 6900 XT\n\
        \t744C  Navi 31 [Radeon RX 7900 XT/7900 XTX]\n\
        1003  ULSI Systems\n\t0201  US201\n\
        C 03  Display controller\n\t00  VGA compatible controller\n";

    fn host_with(list: &str, bytes: &[u8]) -> (TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(list.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        (folder, host)
    }

    fn name_in(bytes: &[u8], id: &str) -> Option<String> {
        let (_folder, host) = host_with(LISTS[0], bytes);
        host.pci_model_name(id.parse().unwrap()).map(|name| name.to_string())
    }

    #[test]
    fn a_model_has_its_name_from_the_list() {
        for (id, name) in [
            ("1002:73bf", Some("Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]")),
            ("1002:744c", Some("Navi 31 [Radeon RX 7900 XT/7900 XTX]")),
            ("1002:0abc", Some("A number that begins with zero")),
            ("1003:0201", Some("US201")),
            // A subsystem is no device, and a class no vendor.
            ("1002:1002", None),
            ("1002:0201", None),
            ("0003:0000", None),
            ("10de:2684", None),
        ] {
            assert_eq!(name_in(LIST, id).as_deref(), name, "{id}");
        }
        assert_eq!(name_in(&LIST[..LIST.len() - 1], "1003:0201").as_deref(), Some("US201"));
    }

    #[test]
    fn every_distributions_place_is_looked_at_until_one_has_the_name() {
        for list in LISTS {
            let (folder, host) = host_with(list, LIST);
            assert!(host.pci_model_name("1002:744c".parse().unwrap()).is_some(), "{list}");
            drop(folder);
        }
        let (folder, host) = host_with(LISTS[1], LIST);
        let old = folder.path().join(LISTS[0].trim_start_matches('/'));
        fs::create_dir_all(old.parent().unwrap()).unwrap();
        fs::write(old, "1002  ATI Technologies Inc\n\t4150  RV350\n").unwrap();
        assert!(host.pci_model_name("1002:744c".parse().unwrap()).is_some());
    }

    #[test]
    fn a_list_that_is_absent_or_cannot_be_read_gives_no_name() {
        let id = "1002:744c".parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Host::simulated(folder.path(), &Faults::default()).pci_model_name(id), None);
        // A folder can be opened, but not read.
        fs::create_dir_all(folder.path().join(LISTS[0].trim_start_matches('/'))).unwrap();
        assert_eq!(Host::simulated(folder.path(), &Faults::default()).pci_model_name(id), None);
    }

    /// `File::open` would wait for a writer for ever.
    #[test]
    fn a_named_pipe_in_the_lists_place_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pci.ids");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(Host::real().model_name_in(&path, "1002:744c".parse().unwrap()), None);
    }

    #[test]
    fn a_list_is_read_to_its_limit_and_no_further() {
        let (_folder, host) = host_with(LISTS[0], b"");
        let id = "1002:744c".parse().unwrap();
        let line = [&vec![b'#'; 1023][..], b"\n"].concat();
        for (before, is_found) in
            [(PIECE - 1024, true), (8 * 1024 * 1024 - 1024, true), (8 * 1024 * 1024, false)]
        {
            let bytes = [&line.repeat(before / line.len())[..], LIST].concat();
            fs::write(host.locate(LISTS[0].as_ref()), bytes).unwrap();
            assert_eq!(host.pci_model_name(id).is_some(), is_found, "{before}");
        }
        // Without an end of line, and without an end.
        fs::write(host.locate(LISTS[0].as_ref()), vec![b'x'; 9 * 1024 * 1024]).unwrap();
        assert_eq!(host.pci_model_name(id), None);
    }

    #[test]
    fn a_name_is_made_safe_and_cut() {
        let list = |name: &[u8]| [b"1002  AMD\n\t744c  ", name, b"\r\n"].concat();
        let named = |name: &[u8]| name_in(&list(name), "1002:744c");
        assert_eq!(named(b"Navi\x1b[2J 31\xff").as_deref(), Some("Navi\\u{1b}[2J 31\u{fffd}"));
        assert_eq!(named("a\u{202e}b".as_bytes()).as_deref(), Some("a\\u{202e}b"));
        assert_eq!(named(b"").as_deref(), None);
        assert_eq!(named(&[b'x'; 5000]).unwrap().chars().count(), LONGEST_NAME + 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400), id in any::<u16>()) {
            let (_folder, host) = host_with(LISTS[0], &[b"1002  AMD\n\t", &bytes[..]].concat());
            let _ = host.pci_model_name(PciId { vendor: PciId::AMD, device: id });
        }
    }
}

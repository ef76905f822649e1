//! What libvirt says of a guest that it runs: `/run/libvirt/qemu/NAME.xml`.
//!
//! It is there from the fork of QEMU on, and still at `stopped`, when the process is dead and its number may be
//! another's; at `prepare` and `release` it is not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use roxmltree::{Document, Node, ParsingOptions};

use crate::guest::{Guest, GuestUuid};
use crate::host::{Host, HostError};

const FOLDER: &str = "/run/libvirt/qemu";

/// Real ones have some 20 KiB.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// Bounds the memory that a broken file costs.
const MOST_NODES: u32 = 200_000;

/// What libvirt says of a guest's QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusFile {
    pub(super) pid: i32,
    /// The thread of each of its virtual CPUs, by their numbers; none where they are not threads of their own.
    pub(super) threads: BTreeMap<u32, i32>,
}

impl Host {
    /// Whether libvirt still takes a guest for running: it has not noticed yet that it ended, or does not run itself. A
    /// file that cannot be read may say so.
    #[must_use]
    pub fn libvirt_believes_running(&self, guest: GuestUuid, name: &str) -> bool {
        !matches!(self.libvirt_status(guest, name), Ok(None))
    }

    /// libvirt's status file of a guest; none where there is none, it is another guest's, or a user other than root
    /// may have written it.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub(super) fn libvirt_status(
        &self,
        guest: GuestUuid,
        name: &str,
    ) -> Result<Option<StatusFile>, HostError> {
        let Some(bytes) = self.libvirt_status_bytes(name)? else { return Ok(None) };
        // One that makes no sense says nothing: it is replaced as a whole whenever it is written.
        Ok(std::str::from_utf8(&bytes).ok().and_then(|text| parse(text, guest)))
    }

    /// The guest that libvirt says runs under a name; it may have ended since. None where libvirt says nothing, or a user
    /// other than root may have written it.
    ///
    /// # Errors
    /// libvirt's file is there but cannot be read.
    pub fn libvirt_guest(&self, name: &str) -> Result<Option<GuestUuid>, HostError> {
        let bytes = self.libvirt_status_bytes(name)?;
        Ok(bytes.and_then(|bytes| parse_any(std::str::from_utf8(&bytes).ok()?)).map(|(guest, _)| guest))
    }

    /// The guests that libvirt says run, with their XML; some may have ended since. Without those of which a user other
    /// than root may have written the file.
    ///
    /// # Errors
    /// A file of libvirt's is there but cannot be read.
    pub fn libvirt_guests(&self) -> Result<Vec<Guest>, HostError> {
        let mut guests = Vec::new();
        for file in self.names_if_present(FOLDER)? {
            let Some(name) = file.strip_suffix(".xml") else { continue };
            let bytes = self.libvirt_status_bytes(name)?;
            guests.extend(bytes.and_then(|bytes| guest_in(std::str::from_utf8(&bytes).ok()?)));
        }
        Ok(guests)
    }
}

/// The guest in a status file; none where it makes no sense.
fn guest_in(text: &str) -> Option<Guest> {
    let options = ParsingOptions { nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).ok()?;
    let root = Some(document.root_element()).filter(|root| root.has_tag_name("domstatus"))?;
    let domain = root.children().find(|node| node.has_tag_name("domain"))?;
    Guest::parse(text.get(domain.range())?.as_bytes()).ok()
}

impl Host {
    fn libvirt_status_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        if name.is_empty() || name.contains(['/', '\0']) {
            return Ok(None);
        }
        let path = PathBuf::from(format!("{FOLDER}/{name}.xml"));
        self.read_root_file(&path, MOST_BYTES, &self.qemu_service_users()?)
    }
}

/// `<domstatus pid='140'>`, its `<vcpus>` and the `<domain>` in it.
fn parse(text: &str, guest: GuestUuid) -> Option<StatusFile> {
    parse_any(text).filter(|(of, _)| *of == guest).map(|(_, status)| status)
}

fn parse_any(text: &str) -> Option<(GuestUuid, StatusFile)> {
    let options = ParsingOptions { nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).ok()?;
    let root = Some(document.root_element()).filter(|root| root.has_tag_name("domstatus"))?;
    let child = |name| root.children().find(move |node| node.has_tag_name(name));
    let uuid = child("domain")?.children().find(|node| node.has_tag_name("uuid"))?.text()?.parse().ok()?;
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number > 0);
    let threads = child("vcpus").map(|vcpus| {
        let vcpus = vcpus.children().filter(|node| node.has_tag_name("vcpu"));
        // As libvirt reads it: without a number the place counts (`qemuDomainObjPrivateXMLParseVcpu`).
        let of = |(place, vcpu): (u32, Node<'_, '_>)| {
            let id = vcpu.attribute("id").map_or(Some(place), |id| id.parse().ok())?;
            Some((id, vcpu.attribute("pid").and_then(number)?))
        };
        (0..).zip(vcpus).filter_map(of).collect()
    });
    Some((uuid, StatusFile { pid: number(root.attribute("pid")?)?, threads: threads.unwrap_or_default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libvirt_wrote() {
        let guest: GuestUuid = "c0ffee00-1111-4222-8333-444455557777".parse().unwrap();
        let other: GuestUuid = "c0ffee00-1111-4222-8333-444455557778".parse().unwrap();
        for (text, pid, threads) in [
            (
                include_str!(
                    "../../../tests/data/libvirt-events/11.3.0/005.kvmtest_started_begin_-.status.xml"
                ),
                140,
                BTreeMap::from([(0, 145), (1, 146)]),
            ),
            (
                include_str!(
                    "../../../tests/data/libvirt-events/9.0.0/005.kvmtest_started_begin_-.status.xml"
                ),
                157,
                BTreeMap::from([(0, 162), (1, 163)]),
            ),
        ] {
            let status = parse(text, guest).unwrap();
            assert_eq!(status.pid, pid);
            assert_eq!(status.threads, threads);
            assert_eq!(parse(text, other), None);
            assert_eq!(guest_in(text).map(|guest| guest.uuid), Some(guest));
        }
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        let guest: GuestUuid = "c0ffee00-1111-4222-8333-444455557777".parse().unwrap();
        let domain = format!("<domain><uuid>{guest}</uuid></domain>");
        assert!(parse(&format!("<domstatus pid='7'>{domain}</domstatus>"), guest).is_some());
        for text in [
            "".to_owned(),
            "<domstatus".to_owned(),
            domain.clone(),
            format!("<domstatus>{domain}</domstatus>"),
            format!("<domstatus pid='0'>{domain}</domstatus>"),
            format!("<domstatus pid='-1'>{domain}</domstatus>"),
            "<domstatus pid='7'><domain/></domstatus>".to_owned(),
            "<domstatus pid='7'><domain><uuid>x</uuid></domain></domstatus>".to_owned(),
        ] {
            assert_eq!(parse(&text, guest), None, "{text}");
        }
    }
}

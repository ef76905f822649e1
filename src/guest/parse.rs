//! From bytes to a guest.

use roxmltree::{Document, Node, ParsingOptions};

use super::error::{GuestError, MAX_XML_BYTES, Position};
use super::xml::Element;
use super::{Guest, GuestUuid, bounds, hostdev, lifecycle, memory, numa, vcpus};

impl Guest {
    /// Reads a guest's XML as libvirt passes it, or as people write it.
    ///
    /// # Errors
    /// XML that is broken or no guest's, or a value in it that libvirt would not take either.
    pub fn parse(xml: &[u8]) -> Result<Self, GuestError> {
        if xml.len() > MAX_XML_BYTES {
            return Err(GuestError::TooLarge);
        }
        let text = std::str::from_utf8(xml)
            .map_err(|error| GuestError::NotUtf8 { at: Position::of_byte(xml, error.valid_up_to()) })?;
        bounds::check(text)?;
        let options =
            ParsingOptions { allow_dtd: false, nodes_limit: bounds::MAX_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options)?;
        let root = document.root_element();
        check_root(&document, root)?;
        Self::from_domain(&Element::root(root))
    }

    fn from_domain(domain: &Element<'_>) -> Result<Self, GuestError> {
        let name = domain.find("name").map(|name| name.short_text()).transpose()?;
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| domain.missing("name"))?;
        let uuid = domain.find("uuid").ok_or_else(|| domain.missing("uuid"))?;
        let uuid_text = uuid.text();
        let uuid = uuid.judge("", &uuid_text, uuid_text.parse::<GuestUuid>())?;
        let vcpus = vcpus::vcpu_count(domain)?;
        let numa_cells = numa::numa_cells(domain)?;
        let memory_devices = memory::memory_devices(domain)?;
        Ok(Self {
            name,
            uuid,
            memory: memory::total_memory(domain, &numa_cells, &memory_devices)?,
            hugepages: memory::hugepages(domain)?,
            memory_source: memory::memory_source(domain)?,
            numa_memory: numa::numa_memory(domain)?,
            memnodes: numa::memnodes(domain)?,
            vcpu_pins: vcpus::vcpu_pins(domain, &vcpus)?,
            emulator_pin: vcpus::emulator_pin(domain)?,
            iothread_pins: vcpus::iothread_pins(domain)?,
            partition: domain
                .find("resource/partition")
                .map(|partition| partition.short_text())
                .transpose()?,
            pci_hostdevs: hostdev::pci_hostdevs(domain)?,
            mediated_devices: hostdev::mediated_devices(domain)?,
            on_reboot: lifecycle::on_reboot(domain),
            numa_cells,
            memory_devices,
            vcpus,
        })
    }
}

/// Refuses other XML than a guest's; its status file is the likeliest, as it lies where one looks for the XML.
fn check_root(document: &Document<'_>, root: Node<'_, '_>) -> Result<(), GuestError> {
    let at = || document.text_pos_at(root.range().start).into();
    match root.tag_name().name() {
        "domain" => Ok(()),
        "domstatus" => Err(GuestError::StatusFile { at: at() }),
        _ => Err(GuestError::NotADomain { at: at() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(xml: impl AsRef<[u8]>) -> String {
        Guest::parse(xml.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn says_why_bytes_are_no_guest() {
        let uuid = "<uuid>c0ffee00-1111-4222-8333-444455556666</uuid>";
        for (xml, message) in [
            ("", "1:1: the guest's XML is broken: there is no element in it"),
            ("<domain>\n<name>", "1:1: the guest's XML is broken: the root element is not closed"),
            (
                "<domain>\n <a></b></domain>",
                "2:5: the guest's XML is broken: an element is closed under another name",
            ),
            ("<domain>&x;</domain>", "1:9: the guest's XML is broken: a `&` that starts no known entity"),
            (
                "<!DOCTYPE domain [<!ENTITY x 'y'>]><domain/>",
                "the guest's XML has a DOCTYPE; libvirt never writes one",
            ),
            ("<!-- -->\n<network/>", "2:1: the root element is not `domain`"),
            (
                "<!-- -->\n\n<domstatus><domain/></domstatus>",
                "3:1: this is libvirt's status file (`domstatus`), not a guest's XML (`domain`)",
            ),
            ("<domain/>", "the guest's XML has no name"),
            ("<domain><name>a</name></domain>", "the guest's XML has no uuid"),
            ("<domain><name>a</name><uuid>win11</uuid></domain>", "uuid `win11`: not a UUID"),
            (&format!("<domain>{uuid}</domain>"), "the guest's XML has no name"),
            (&format!("<domain><name/>{uuid}</domain>"), "the guest's XML has no name"),
            (&format!("<domain><name>a</name>{uuid}</domain>"), "the guest's XML has no memory"),
        ] {
            assert_eq!(refusal(xml), message, "{xml}");
        }
        assert_eq!(
            refusal(b"<domain>\n<name>\xe9t\xe9</name></domain>"),
            "2:7: the guest's XML is not UTF-8"
        );
        assert_eq!(refusal(vec![b' '; MAX_XML_BYTES + 1]), "the guest's XML is larger than 16 MiB");
    }

    #[test]
    fn names_beyond_reason_are_refused() {
        let uuid = "<uuid>c0ffee00-1111-4222-8333-444455556666</uuid><memory>1</memory>";
        let named = |length| format!("<domain><name>{}</name>{uuid}</domain>", "x".repeat(length));
        assert_eq!(Guest::parse(named(4096).as_bytes()).unwrap().name.len(), 4096);
        let cut = "x".repeat(64);
        assert_eq!(refusal(named(4097)), format!("name `{cut}…`: longer than 4096 bytes"));
    }

    #[test]
    fn messages_stay_on_one_short_line() {
        let long =
            refusal(format!("<domain><name>a</name><uuid>\n\u{9b}{}</uuid></domain>", "x".repeat(100_000)));
        assert_eq!(long, format!(r"uuid `\n\u{{9b}}{}…`: not a UUID", "x".repeat(62)));
        let long = refusal(format!(
            "<domain><name>a</name><uuid>{}</uuid><vcpu cpuset='1&#10;{}'>1</vcpu></domain>",
            "0".repeat(32),
            "x".repeat(100_000)
        ));
        assert!(long.len() < 300 && !long.contains(char::is_control), "{long}");
    }

    #[test]
    fn a_comment_does_not_end_a_name() {
        let uuid = "<uuid>c0ffee00-1111-4222-8333-444455556666</uuid>";
        let xml = format!("<domain><name> win<!-- x -->11&#10;</name>{uuid}<memory>1</memory></domain>");
        assert_eq!(Guest::parse(xml.as_bytes()).unwrap().name, " win11\n");
    }
}

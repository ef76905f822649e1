//! From bytes to a guest.

use std::borrow::Cow;
use std::ops::Range;

use roxmltree::{Document, Error, ParsingOptions};

use super::bounds::Overview;
use super::error::{GuestError, MAX_XML_BYTES, Position};
use super::xml::Element;
use super::{
    Guest, GuestUuid, bounds, drives, hostdev, lifecycle, memory, numa, qemu_threads, schedulers, shmem,
    vcpus,
};

/// Prefixes that are declared nowhere and read all the same: more than a person forgets.
const MAX_UNDECLARED: usize = 16;

impl Guest {
    /// Reads a guest's XML as libvirt passes it.
    ///
    /// # Errors
    /// XML that is broken or no guest's, or a value in it that libvirt would not take either.
    pub fn parse(xml: &[u8]) -> Result<Self, GuestError> {
        parse(xml, |domain, _| Err(domain.missing("uuid")))
    }

    /// Reads a guest's XML as people write it: where it has no `<uuid>`, libvirt makes one, and `uuid_of` says which by
    /// the guest's name.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_written(xml: &[u8], uuid_of: impl FnOnce(&str) -> GuestUuid) -> Result<Self, GuestError> {
        parse(xml, |_, name| Ok(uuid_of(name)))
    }

    fn from_domain(
        domain: &Element<'_>,
        undeclared_prefixes: Vec<String>,
        without_uuid: impl FnOnce(&Element<'_>, &str) -> Result<GuestUuid, GuestError>,
    ) -> Result<Self, GuestError> {
        let name = domain.find("name").map(|name| name.short_text()).transpose()?;
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| domain.missing("name"))?;
        let uuid = match domain.find("uuid") {
            Some(uuid) => uuid.judge("", &uuid.text(), uuid.text().parse::<GuestUuid>())?,
            None => without_uuid(domain, &name)?,
        };
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
            qemu_threads: qemu_threads::qemu_threads(domain)?,
            schedulers: schedulers::schedulers(domain),
            shmems: shmem::shmems(domain)?,
            partition: domain
                .find("resource/partition")
                .map(|partition| partition.short_text())
                .transpose()?,
            pci_hostdevs: hostdev::pci_hostdevs(domain)?,
            host_drives: drives::host_drives(domain)?,
            mediated_devices: hostdev::mediated_devices(domain)?,
            network_interfaces: hostdev::network_interfaces(domain)?,
            on_reboot: lifecycle::on_reboot(domain),
            numa_cells,
            memory_devices,
            vcpus,
            undeclared_prefixes,
        })
    }
}

fn parse(
    xml: &[u8],
    without_uuid: impl FnOnce(&Element<'_>, &str) -> Result<GuestUuid, GuestError>,
) -> Result<Guest, GuestError> {
    if xml.len() > MAX_XML_BYTES {
        return Err(GuestError::TooLarge);
    }
    let text = std::str::from_utf8(xml)
        .map_err(|error| GuestError::NotUtf8 { at: Position::of_byte(xml, error.valid_up_to()) })?;
    if !text.trim_start_matches('\u{feff}').trim_start().starts_with('<') {
        return Err(GuestError::NotXml);
    }
    let Overview { doctype, root } = bounds::check(text)?;
    // What a file is for counts more than that it is cut off.
    if let Some(root) = &root {
        check_root(text, root)?;
    }
    let mut text = doctype.map_or(Cow::Borrowed(text), |doctype| blanked(text, doctype));
    let mut undeclared: Vec<String> = Vec::new();
    loop {
        let options =
            ParsingOptions { allow_dtd: false, nodes_limit: bounds::MAX_NODES, ..ParsingOptions::default() };
        let prefix = match (Document::parse_with_options(&text, options), &root) {
            (Ok(document), _) => {
                return Guest::from_domain(&Element::root(document.root_element()), undeclared, without_uuid);
            }
            (Err(Error::UnclosedRootNode | Error::UnexpectedEndOfStream), _) => {
                return Err(GuestError::CutOff { at: Position::of_byte(xml, xml.len()) });
            }
            (Err(Error::UnknownNamespace(prefix, _)), Some(_)) if undeclared.len() < MAX_UNDECLARED => prefix,
            (Err(error), _) => return Err(error.into()),
        };
        let declaration = format!(" xmlns:{prefix}='urn:undeclared'");
        let mut declared = text.into_owned();
        declared.insert_str(root.as_ref().map_or(0, |root| root.end), &declaration);
        text = Cow::Owned(declared);
        undeclared.push(prefix);
    }
}

/// The text with a part of it replaced by blanks, so that all else stays in its place.
fn blanked(text: &str, part: Range<usize>) -> Cow<'_, str> {
    let blanks = text[part.clone()].chars().map(|character| if character == '\n' { '\n' } else { ' ' });
    Cow::Owned([&text[..part.start], &blanks.collect::<String>(), &text[part.end..]].concat())
}

/// Refuses other XML than a guest's; its status file is the likeliest, as it lies where one looks for the XML.
fn check_root(text: &str, root: &Range<usize>) -> Result<(), GuestError> {
    let at = || Position::of_byte(text.as_bytes(), root.start - 1);
    let name = &text[root.clone()];
    // The writer of the file may choose any prefix for the root.
    match name.rsplit(':').next().unwrap_or(name) {
        "domain" => Ok(()),
        "domstatus" => Err(GuestError::StatusFile { at: at() }),
        other => Err(GuestError::NotADomain { at: at(), root: other.to_owned() }),
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
            ("", "this is no XML"),
            ("isolate_cpus: {}\n", "this is no XML"),
            ("<!-- -->", "1:1: the guest's XML is broken: there is no element in it"),
            ("<domain>\n<name>", "2:7: the guest's XML ends here, before its end: it is cut off"),
            ("<domain>\n<name", "2:6: the guest's XML ends here, before its end: it is cut off"),
            (
                "<domain>\n <a></b></domain>",
                "2:5: the guest's XML is broken: an element is closed under another name",
            ),
            ("<domain>&x;</domain>", "1:9: the guest's XML is broken: a `&` that starts no known entity"),
            (
                "<!DOCTYPE domain [<!ENTITY x 'y'>]><domain/>",
                "the guest's XML has a DOCTYPE with declarations in it, which are not read",
            ),
            (
                "<!-- -->\n<network/>",
                "2:1: this is no guest's XML (`domain`): it describes a network (`network`)",
            ),
            (
                "<network><name>default</name>\n<forw",
                "1:1: this is no guest's XML (`domain`): it describes a network (`network`)",
            ),
            (
                "<domainsnapshot><domain/></domainsnapshot>",
                "1:1: this is no guest's XML (`domain`): it describes a snapshot (`domainsnapshot`)",
            ),
            ("<html lang='en'>", "1:1: this is no guest's XML (`domain`): its root element is `html`"),
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

    const UUID: &str = "<uuid>c0ffee00-1111-4222-8333-444455556666</uuid>";

    #[test]
    fn a_doctype_without_declarations_is_passed_over() {
        for before in [
            "<!DOCTYPE domain>\n",
            "<?xml version='1.0'?>\n<!-- > -->\n<!DOCTYPE domain SYSTEM 'domain.dtd'>",
            "\u{feff}<!DOCTYPE\n domain >",
        ] {
            let xml = format!("{before}<domain><name>a</name>{UUID}<memory>1</memory></domain>");
            assert_eq!(Guest::parse(xml.as_bytes()).unwrap().name, "a", "{before}");
        }
        // What is declared where a look-over does not see it is not read either.
        for hidden in [
            "<!DOCTYPE d SYSTEM \"><!--\" [<!ENTITY x 'y'>]><domain>&x;</domain><!-- -->",
            "<!DOCTYPE d SYSTEM '>' [<!ENTITY x 'y'>]><domain><name>&x;</name></domain>",
            "<!DOCTYPE d><!DOCTYPE d [<!ENTITY x 'y'>]><domain><name>&x;</name></domain>",
            "<domain><!DOCTYPE d><name>a</name></domain>",
        ] {
            assert!(Guest::parse(hidden.as_bytes()).is_err(), "{hidden}");
        }
    }

    #[test]
    fn a_prefix_that_is_declared_nowhere_is_passed_over() {
        let xml = format!(
            "<domain type='kvm'><name>a</name>{UUID}<memory>1</memory><qemu:commandline>\
             <qemu:arg value='-device'/><qemu:arg value='vfio-pci,host=03:00.0'/></qemu:commandline><x:y/></domain>"
        );
        let guest = Guest::parse(xml.as_bytes()).unwrap();
        assert_eq!(guest.undeclared_prefixes, ["qemu", "x"]);
        assert!(guest.pci_hostdevs.is_empty());
        let prefixes = |count: usize| (0..count).map(|number| format!("<p{number}:a/>")).collect::<String>();
        let with = |count| {
            let xml = format!("<domain><name>a</name>{UUID}<memory>1</memory>{}</domain>", prefixes(count));
            Guest::parse(xml.as_bytes()).map(|guest| guest.undeclared_prefixes.len())
        };
        assert_eq!(with(16), Ok(16));
        assert!(with(17).is_err());
    }

    #[test]
    fn libvirt_makes_a_uuid_where_there_is_none() {
        let made = GuestUuid::from_bytes([7; 16]);
        let of = |xml: &str| {
            Guest::parse_written(xml.as_bytes(), |name| {
                assert_eq!(name, "a");
                made
            })
        };
        let uuid = |xml: &str| of(xml).unwrap().uuid;
        assert_eq!(uuid("<domain><name>a</name><memory>1</memory></domain>"), made);
        let own = format!("<domain><name>a</name>{UUID}<memory>1</memory></domain>");
        assert_ne!(uuid(&own), made);
        let wrong = of("<domain><name>a</name><uuid/><memory>1</memory></domain>").unwrap_err();
        assert_eq!(wrong.to_string(), "uuid ``: not a UUID");
    }

    #[test]
    fn every_refusal_has_a_way_out() {
        for xml in ["", "<domain", "<network/>", "<domain/>", "<domain>&x;</domain>", "<!DOCTYPE d [ ]><d/>"]
        {
            let help = Guest::parse(xml.as_bytes()).unwrap_err().help();
            assert!(!help.is_empty() && !help.contains('\n'), "{xml}: {help}");
        }
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

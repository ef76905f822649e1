//! What a guest's memory is made of: pages, source, devices.

use super::error::GuestError;
use super::numa::NumaCell;
use super::xml::{Element, page_size};
use crate::cpuset::NodeSet;
use crate::pages::{MemorySize, PageSize};

/// One `<page>` of `<hugepages>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HugepagesPage {
    /// Its size; none for the host's default.
    pub size: Option<PageSize>,
    /// The cells of the guest (not the host's nodes) it is for; none for all that have no entry of their own.
    pub guest_nodes: Option<NodeSet>,
}

/// What backs the memory: `<memoryBacking><source type=…>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemorySource {
    /// Anonymous memory, or hugetlbfs with `<hugepages>`.
    #[default]
    Anonymous,
    /// A file.
    File,
    /// A memfd; its huge pages need no mounted hugetlbfs.
    Memfd,
}

/// A device that adds memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDevice {
    /// The kind of memory device.
    pub model: MemoryModel,
    /// How much it can hold.
    pub size: MemorySize,
    /// How much of it the guest gets at the start, where that is not all (virtio-mem).
    pub requested: Option<MemorySize>,
    /// The size of its pages; none for that of its cell.
    pub page_size: Option<PageSize>,
    /// The cell it belongs to.
    pub guest_node: Option<u32>,
    /// The host's nodes its memory comes from, if not those of its cell.
    pub source_nodes: Option<NodeSet>,
}

/// The kinds of memory devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryModel {
    /// A memory module.
    Dimm,
    /// A persistent one, kept in a file.
    Nvdimm,
    /// virtio's persistent one, kept in a file.
    VirtioPmem,
    /// virtio's, which grows and shrinks.
    VirtioMem,
    /// Enclave memory.
    SgxEpc,
    /// A kind that this program does not know.
    Other(String),
}

/// Reads `<memory>`. A guest with cells has what these and its devices have, whatever that says, as in libvirt
/// (`virDomainDefPostParseMemory` in `src/conf/domain_postparse.c`).
pub(super) fn total_memory(
    domain: &Element<'_>,
    cells: &[NumaCell],
    devices: &[MemoryDevice],
) -> Result<MemorySize, GuestError> {
    let written = domain.find("memory").map(|memory| memory.text_memory()).transpose()?;
    if cells.is_empty() {
        return written.ok_or_else(|| domain.missing("memory"));
    }
    let parts = cells.iter().map(|cell| cell.memory).chain(devices.iter().map(|device| device.size));
    Ok(parts.fold(MemorySize::ZERO, MemorySize::plus))
}

/// Reads `<hugepages>`.
pub(super) fn hugepages(domain: &Element<'_>) -> Result<Option<Vec<HugepagesPage>>, GuestError> {
    let Some(hugepages) = domain.find("memoryBacking/hugepages") else { return Ok(None) };
    let pages = hugepages.find_all("page")?.into_iter().map(|page| {
        let size = page.memory("size")?.and_then(page_size);
        Ok(HugepagesPage { size, guest_nodes: page.nodes("nodeset")? })
    });
    pages.collect::<Result<_, _>>().map(Some)
}

/// Reads `<memoryBacking><source>`.
pub(super) fn memory_source(domain: &Element<'_>) -> Result<MemorySource, GuestError> {
    let Some(source) = domain.find("memoryBacking/source") else { return Ok(MemorySource::default()) };
    let types = [
        ("anonymous", MemorySource::Anonymous),
        ("file", MemorySource::File),
        ("memfd", MemorySource::Memfd),
    ];
    Ok(source.choice("type", &types, "anonymous, file, memfd")?.unwrap_or_default())
}

/// Reads `<devices><memory>`.
pub(super) fn memory_devices(domain: &Element<'_>) -> Result<Vec<MemoryDevice>, GuestError> {
    (0_u32..)
        .zip(domain.find_all("devices/memory")?)
        .map(|(position, device)| memory_device(&device.known_by("number", position)))
        .collect()
}

fn memory_device(device: &Element<'_>) -> Result<MemoryDevice, GuestError> {
    let model = match device.attribute("model").ok_or_else(|| device.missing("model"))? {
        "dimm" => MemoryModel::Dimm,
        "nvdimm" => MemoryModel::Nvdimm,
        "virtio-pmem" => MemoryModel::VirtioPmem,
        "virtio-mem" => MemoryModel::VirtioMem,
        "sgx-epc" => MemoryModel::SgxEpc,
        other => MemoryModel::Other(other.to_owned()),
    };
    let memory = |path: &str| device.find(path).map(|amount| amount.text_memory()).transpose();
    Ok(MemoryDevice {
        model,
        size: memory("target/size")?.ok_or_else(|| device.missing("target/size"))?,
        requested: memory("target/requested")?,
        page_size: memory("source/pagesize")?.and_then(page_size),
        guest_node: device.find("target/node").map(|node| node.text_number()).transpose()?,
        source_nodes: device.find("source/nodemask").map(|nodes| nodes.text_nodes()).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::{guest, guest_without_memory, refusal};

    #[test]
    fn tells_no_hugepages_from_pages_of_the_default_size() {
        let page = |kib, nodes: Option<&str>| HugepagesPage {
            size: PageSize::from_kib(kib),
            guest_nodes: nodes.map(|nodes| nodes.parse().unwrap()),
        };
        for (xml, pages) in [
            ("", None),
            ("<locked/>", None),
            ("<hugepages/>", Some(vec![])),
            ("<hugepages><page nodeset='1'/></hugepages>", Some(vec![page(0, Some("1"))])),
            ("<hugepages><page size='0'/></hugepages>", Some(vec![page(0, None)])),
            (
                "<hugepages><page size='2' unit='M'/><page size='1' unit='G' nodeset='0-2,^1'/></hugepages>",
                Some(vec![page(2048, None), page(1_048_576, Some("0,2"))]),
            ),
        ] {
            assert_eq!(guest(&format!("<memoryBacking>{xml}</memoryBacking>")).hugepages, pages, "{xml}");
        }
    }

    #[test]
    fn reads_the_source() {
        for (xml, source) in [
            ("", MemorySource::Anonymous),
            ("<source/>", MemorySource::Anonymous),
            ("<source type='anonymous'/>", MemorySource::Anonymous),
            ("<source type='file'/>", MemorySource::File),
            ("<source type='memfd'/>", MemorySource::Memfd),
        ] {
            assert_eq!(
                guest(&format!("<memoryBacking>{xml}</memoryBacking>")).memory_source,
                source,
                "{xml}"
            );
        }
    }

    #[test]
    fn reads_memory_devices() {
        let guest = guest(
            "<devices><memory model='virtio-mem'>
               <source><nodemask>1-3</nodemask><pagesize unit='KiB'>2048</pagesize></source>
               <target dynamicMemslots='yes'><size unit='GiB'>2</size><node>1</node><block unit='MiB'>2</block>
                 <requested unit='GiB'>1</requested><current unit='KiB'>0</current></target>
             </memory><memory model='future'><target><size>1024</size></target></memory></devices>",
        );
        assert_eq!(
            guest.memory_devices,
            [
                MemoryDevice {
                    model: MemoryModel::VirtioMem,
                    size: MemorySize::from_gib(2),
                    requested: Some(MemorySize::from_gib(1)),
                    page_size: Some(PageSize::MIB_2),
                    guest_node: Some(1),
                    source_nodes: Some("1-3".parse().unwrap()),
                },
                MemoryDevice {
                    model: MemoryModel::Other("future".into()),
                    size: MemorySize::from_kib(1024),
                    requested: None,
                    page_size: None,
                    guest_node: None,
                    source_nodes: None,
                },
            ]
        );
    }

    #[test]
    fn sums_the_memory_up_where_the_xml_does_not() {
        let xml = "<cpu><numa><cell memory='1' unit='GiB'/><cell memory='2' unit='GiB'/></numa></cpu>
            <devices><memory model='dimm'><target><size unit='GiB'>4</size></target></memory></devices>";
        assert_eq!(guest_without_memory(xml).unwrap().memory, MemorySize::from_gib(7));
        // Cells count, whatever the XML says of all.
        let cell = "<cpu><numa><cell id='0' cpus='0' memory='4' unit='GiB'/></numa></cpu>";
        let both = guest_without_memory(&format!("<memory unit='GiB'>8</memory>{cell}"));
        assert_eq!(both.unwrap().memory, MemorySize::from_gib(4));
        assert_eq!(guest_without_memory("").unwrap_err().to_string(), "the guest's XML has no memory");
    }

    #[test]
    fn says_what_is_wrong() {
        for (xml, message) in [
            (
                "<memoryBacking><hugepages><page size='2M'/></hugepages></memoryBacking>",
                "memoryBacking/hugepages/page: size `2M`: not a whole number",
            ),
            (
                "<memoryBacking><source type='disk'/></memoryBacking>",
                "memoryBacking/source: type `disk`: not one of anonymous, file, memfd",
            ),
            (
                "<devices><memory model='dimm'><target><size>a</size></target></memory></devices>",
                "devices/memory[number=0]/target/size `a`: not a whole number",
            ),
            (
                "<devices><memory model='dimm'/></devices>",
                "the guest's XML has no devices/memory[number=0]: target/size",
            ),
            ("<devices><memory/></devices>", "the guest's XML has no devices/memory[number=0]: model"),
        ] {
            assert_eq!(refusal(xml), message, "{xml}");
        }
    }
}

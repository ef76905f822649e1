//! The guest's NUMA cells, and the host nodes their memory comes from.

use std::collections::BTreeSet;

use super::error::{GuestError, ValueError};
use super::xml::Element;
use crate::cpuset::NodeSet;
use crate::pages::MemorySize;

/// A NUMA node as the guest sees it: `<cpu><numa><cell id='0' memory='…'/>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaCell {
    /// Its number; counted where the XML gives none.
    pub id: u32,
    /// Its memory.
    pub memory: MemorySize,
}

/// How the kernel is to keep to the nodes named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumaMode {
    /// From these nodes or not at all.
    Strict,
    /// From these nodes if they have any, else from others.
    Preferred,
    /// From these nodes by turns.
    Interleave,
    /// From these nodes, but by the cgroup alone; QEMU sets no policy.
    Restrictive,
}

/// Who chooses the host nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumaPlacement {
    /// The XML.
    Static,
    /// numad, at the start.
    Auto,
}

/// Where the memory of all cells comes from: `<numatune><memory>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaMemory {
    /// How strictly the kernel keeps to the nodes.
    pub mode: NumaMode,
    /// Who chooses the nodes.
    pub placement: NumaPlacement,
    /// The host's nodes.
    pub nodes: Option<NodeSet>,
}

/// Where the memory of one cell comes from: `<numatune><memnode>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemNode {
    /// The guest's cell.
    pub cell: u32,
    /// How strictly the kernel keeps to the nodes.
    pub mode: NumaMode,
    /// The host's nodes.
    pub nodes: NodeSet,
}

/// Reads `<cpu><numa>`.
pub(super) fn numa_cells(domain: &Element<'_>) -> Result<Vec<NumaCell>, GuestError> {
    let mut ids = BTreeSet::new();
    let mut cells = Vec::new();
    for (position, cell) in (0..).zip(domain.find_all("cpu/numa/cell")?) {
        let id = cell.number("id")?.unwrap_or(position);
        let cell = cell.known_by("id", id);
        if !ids.insert(id) {
            return Err(cell.bad("id", &id.to_string(), ValueError::Twice));
        }
        let memory = cell.memory("memory")?.ok_or_else(|| cell.missing("memory"))?;
        cells.push(NumaCell { id, memory });
    }
    Ok(cells)
}

/// Reads `<numatune><memory>`.
pub(super) fn numa_memory(domain: &Element<'_>) -> Result<Option<NumaMemory>, GuestError> {
    let Some(memory) = domain.find("numatune/memory") else { return Ok(None) };
    let placements = [("static", NumaPlacement::Static), ("auto", NumaPlacement::Auto)];
    Ok(Some(NumaMemory {
        mode: mode(&memory)?,
        placement: memory.choice("placement", &placements, "static, auto")?.unwrap_or(NumaPlacement::Static),
        nodes: memory.nodes("nodeset")?,
    }))
}

/// Reads `<numatune><memnode>`.
pub(super) fn memnodes(domain: &Element<'_>) -> Result<Vec<MemNode>, GuestError> {
    let mut cells = BTreeSet::new();
    let mut memnodes = Vec::new();
    for memnode in domain.find_all("numatune/memnode")? {
        let cell = memnode.required_number("cellid")?;
        let memnode = memnode.known_by("cellid", cell);
        if !cells.insert(cell) {
            return Err(memnode.bad("cellid", &cell.to_string(), ValueError::Twice));
        }
        let nodes = memnode.nodes("nodeset")?.ok_or_else(|| memnode.missing("nodeset"))?;
        memnodes.push(MemNode { cell, mode: mode(&memnode)?, nodes });
    }
    Ok(memnodes)
}

/// Reads `mode`; libvirt's default is strict.
fn mode(element: &Element<'_>) -> Result<NumaMode, GuestError> {
    let modes = [
        ("strict", NumaMode::Strict),
        ("preferred", NumaMode::Preferred),
        ("interleave", NumaMode::Interleave),
        ("restrictive", NumaMode::Restrictive),
    ];
    let mode = element.choice("mode", &modes, "strict, preferred, interleave, restrictive")?;
    Ok(mode.unwrap_or(NumaMode::Strict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::{guest, refusal};

    #[test]
    fn counts_cells_without_a_number() {
        let guest =
            guest("<cpu><numa><cell memory='1' unit='GiB'/><cell memory='2097152' cpus='1'/></numa></cpu>");
        assert_eq!(
            guest.numa_cells,
            [
                NumaCell { id: 0, memory: MemorySize::from_gib(1) },
                NumaCell { id: 1, memory: MemorySize::from_gib(2) },
            ]
        );
    }

    #[test]
    fn reads_the_tuning_with_its_defaults() {
        let nodes = |text: &str| text.parse::<NodeSet>().unwrap();
        for (xml, mode, placement, set) in [
            ("<memory nodeset='0-1'/>", NumaMode::Strict, NumaPlacement::Static, Some("0-1")),
            (
                "<memory mode='interleave' nodeset='1'/>",
                NumaMode::Interleave,
                NumaPlacement::Static,
                Some("1"),
            ),
            ("<memory mode='preferred' placement='auto'/>", NumaMode::Preferred, NumaPlacement::Auto, None),
        ] {
            let guest = guest(&format!("<numatune>{xml}</numatune>"));
            let expected = NumaMemory { mode, placement, nodes: set.map(nodes) };
            assert_eq!(guest.numa_memory, Some(expected), "{xml}");
        }
        let guest = guest("<numatune><memnode cellid='2' mode='restrictive' nodeset='3'/></numatune>");
        assert_eq!(guest.memnodes, [MemNode { cell: 2, mode: NumaMode::Restrictive, nodes: nodes("3") }]);
    }

    #[test]
    fn says_what_is_wrong() {
        for (xml, message) in [
            (
                "<numatune><memory mode='loose'/></numatune>",
                "numatune/memory: mode `loose`: not one of strict, preferred, interleave, restrictive",
            ),
            (
                "<numatune><memory placement='here'/></numatune>",
                "numatune/memory: placement `here`: not one of static, auto",
            ),
            (
                "<numatune><memnode cellid='1' nodeset='a'/></numatune>",
                "numatune/memnode[cellid=1]: nodeset `a`: `a` is not a number",
            ),
            (
                "<numatune><memnode nodeset='1'/></numatune>",
                "the guest's XML has no numatune/memnode: cellid",
            ),
            (
                "<numatune><memnode cellid='1'/></numatune>",
                "the guest's XML has no numatune/memnode[cellid=1]: nodeset",
            ),
            (
                "<numatune><memnode cellid='1' nodeset='1'/><memnode cellid='1' nodeset='1'/></numatune>",
                "numatune/memnode[cellid=1]: cellid `1`: is there twice",
            ),
            (
                "<cpu><numa><cell id='1' memory='1'/><cell memory='1'/></numa></cpu>",
                "cpu/numa/cell[id=1]: id `1`: is there twice",
            ),
            ("<cpu><numa><cell id='1'/></numa></cpu>", "the guest's XML has no cpu/numa/cell[id=1]: memory"),
            (
                "<cpu><numa><cell id='1' memory='2' unit='GX'/></numa></cpu>",
                "cpu/numa/cell[id=1]: unit `GX`: no unit that libvirt knows (b, KiB, MiB, GiB …)",
            ),
        ] {
            assert_eq!(refusal(xml), message, "{xml}");
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::guest::testing::guest_without_memory;

const TWO_CELLS: &str = "<cpu><numa><cell memory='4' unit='GiB'/><cell memory='2' unit='GiB'/></numa></cpu>";

/// The demands as text, with 2 MiB as the default size: `1024 x 2 MiB strict 0`.
fn demands(xml: &str) -> Vec<String> {
    let guest = guest_without_memory(xml).unwrap();
    let demands = guest.page_demands(PageSize::MIB_2).unwrap().into_iter();
    let text = demands.map(|demand| {
        let placement = match demand.placement {
            Placement::Anywhere => String::new(),
            Placement::Prefer(nodes) => format!(" prefer {nodes}"),
            Placement::Strict(nodes) => format!(" strict {nodes}"),
        };
        format!("{} x {}{placement}", demand.pages, demand.size)
    });
    text.collect()
}

#[test]
fn without_cells_the_whole_memory_counts() {
    let memory = |hugepages: &str, rest: &str| {
        format!("<memory unit='MiB'>4095</memory><memoryBacking>{hugepages}</memoryBacking>{rest}")
    };
    let nodes = |attributes: &str| format!("<numatune><memory {attributes}/></numatune>");
    for (hugepages, rest, expected) in [
        ("", String::new(), &[][..]),
        ("<hugepages/>", String::new(), &["2048 x 2 MiB"]),
        ("<hugepages><page size='1' unit='G'/></hugepages>", String::new(), &["4 x 1 GiB"]),
        ("<hugepages><page size='1' unit='G' nodeset='0'/></hugepages>", String::new(), &["4 x 1 GiB"]),
        ("<hugepages><page size='1' unit='G' nodeset='1'/></hugepages>", String::new(), &[]),
        ("<hugepages><page size='4'/></hugepages>", String::new(), &[]),
        ("<hugepages/>", nodes("nodeset='1'"), &["2048 x 2 MiB strict 1"]),
        ("<hugepages/>", nodes("mode='restrictive' nodeset='1'"), &["2048 x 2 MiB strict 1"]),
        ("<hugepages/>", nodes("mode='interleave' nodeset='0-1'"), &["2048 x 2 MiB strict 0-1"]),
        ("<hugepages/>", nodes("mode='preferred' nodeset='1'"), &["2048 x 2 MiB prefer 1"]),
        ("<hugepages/>", nodes("mode='strict' placement='auto'"), &["2048 x 2 MiB"]),
        ("<hugepages/>", nodes("placement='auto' nodeset='1'"), &["2048 x 2 MiB"]),
    ] {
        assert_eq!(demands(&memory(hugepages, &rest)), expected, "{hugepages} {rest}");
    }
}

#[test]
fn each_cell_takes_its_own_entry() {
    for (hugepages, tuning, expected) in [
        ("<page/>", "", &["3072 x 2 MiB"][..]),
        ("<page size='1' unit='G' nodeset='0'/>", "", &["4 x 1 GiB"]),
        ("<page size='1' unit='G' nodeset='5'/>", "", &[]),
        ("<page size='1' unit='G' nodeset='1'/><page/>", "", &["2048 x 2 MiB", "2 x 1 GiB"]),
        ("<page/><page size='1' unit='G' nodeset='1'/>", "", &["2048 x 2 MiB", "2 x 1 GiB"]),
        ("<page/><page size='4' nodeset='1'/>", "", &["2048 x 2 MiB"]),
        (
            "<page/>",
            "<memnode cellid='0' nodeset='1'/><memnode cellid='1' mode='preferred' nodeset='0'/>",
            &["1024 x 2 MiB prefer 0", "2048 x 2 MiB strict 1"],
        ),
        (
            "<page/>",
            "<memory mode='preferred' nodeset='3'/><memnode cellid='1' nodeset='0'/>",
            &["2048 x 2 MiB prefer 3", "1024 x 2 MiB strict 0"],
        ),
        ("<page/>", "<memnode cellid='1' nodeset='0'/>", &["2048 x 2 MiB", "1024 x 2 MiB strict 0"]),
        ("<page/>", "<memory nodeset='0-1'/>", &["3072 x 2 MiB strict 0-1"]),
    ] {
        let xml = format!(
            "<memoryBacking><hugepages>{hugepages}</hugepages></memoryBacking>
             <numatune>{tuning}</numatune>{TWO_CELLS}"
        );
        assert_eq!(demands(&xml), expected, "{hugepages} {tuning}");
    }
}

#[test]
fn rounds_up_for_each_cell() {
    let xml = "<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>
        <cpu><numa><cell memory='1536' unit='MiB'/><cell memory='512' unit='MiB'/></numa></cpu>";
    assert_eq!(demands(xml), ["3 x 1 GiB"]);
}

fn device(model: &str, source: &str, target: &str) -> String {
    let target = format!("<target><size unit='GiB'>2</size>{target}</target>");
    format!("<devices><memory model='{model}'><source>{source}</source>{target}</memory></devices>")
}

#[test]
fn devices_come_on_top_of_the_cells() {
    let hugepages = "<page/><page size='1' unit='G' nodeset='1'/>";
    let tuning = "<memnode cellid='1' nodeset='0'/>";
    let own = "<pagesize unit='GiB'>1</pagesize>";
    let cells = ["2048 x 2 MiB", "2 x 1 GiB strict 0"];
    for (model, source, target, expected) in [
        ("dimm", "", "<node>0</node>", &["3072 x 2 MiB", cells[1]][..]),
        ("dimm", "", "<node>1</node>", &[cells[0], "4 x 1 GiB strict 0"]),
        ("dimm", own, "<node>0</node>", &[cells[0], "2 x 1 GiB", cells[1]]),
        ("dimm", "<nodemask>1</nodemask>", "<node>0</node>", &[cells[0], "1024 x 2 MiB strict 1", cells[1]]),
        ("dimm", "<pagesize>4</pagesize>", "<node>1</node>", &cells),
        ("virtio-mem", "", "<node>0</node><requested unit='GiB'>1</requested>", &["2560 x 2 MiB", cells[1]]),
        ("virtio-mem", "", "<node>0</node><requested>0</requested>", &cells),
        ("virtio-mem", "", "<node>0</node>", &["3072 x 2 MiB", cells[1]]),
        ("nvdimm", "<path>/x</path>", "<node>0</node>", &cells),
        ("virtio-pmem", "<path>/x</path>", "", &cells),
        ("sgx-epc", "", "", &cells),
    ] {
        // libvirt's <memory> counts the device in; the demand must not count it twice.
        let xml = format!(
            "<memory unit='GiB'>8</memory><memoryBacking><hugepages>{hugepages}</hugepages></memoryBacking>
             <numatune>{tuning}</numatune>{TWO_CELLS}{}",
            device(model, source, target)
        );
        assert_eq!(demands(&xml), expected, "{model} {source} {target}");
    }
}

#[test]
fn without_cells_devices_are_part_of_the_memory() {
    let device = device("dimm", "<pagesize unit='GiB'>1</pagesize>", "<node>0</node>");
    let hugepages = "<memoryBacking><hugepages/></memoryBacking>";
    assert_eq!(
        demands(&format!("<memory unit='GiB'>3</memory>{hugepages}{device}")),
        ["512 x 2 MiB", "2 x 1 GiB"]
    );
}

#[test]
fn a_device_can_have_huge_pages_where_the_guest_has_none() {
    let device = device("dimm", "<pagesize unit='GiB'>1</pagesize>", "<node>1</node>");
    assert_eq!(demands(&format!("{TWO_CELLS}{device}")), ["2 x 1 GiB"]);
}

#[test]
fn refuses_a_device_on_no_cell() {
    let xml = format!("{TWO_CELLS}{}", device("dimm", "", "<node>7</node>"));
    let refusal = guest_without_memory(&xml).unwrap().page_demands(PageSize::MIB_2).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "devices/memory[number=0]/target/node `7`: the guest has no such NUMA cell"
    );
}

proptest! {
    #[test]
    fn pages_hold_all_cells_with_less_than_a_page_to_spare_in_each(
        cells in proptest::collection::vec(0_u64..10_000_000, 1..6),
    ) {
        let xml: String = cells.iter().map(|kib| format!("<cell memory='{kib}'/>")).collect();
        let guest = guest_without_memory(&format!(
            "<memoryBacking><hugepages/></memoryBacking><cpu><numa>{xml}</numa></cpu>"
        ));
        let demands = guest.unwrap().page_demands(PageSize::MIB_2).unwrap();
        let pages: u64 = demands.iter().map(|demand| demand.pages).sum();
        let memory: u64 = cells.iter().sum();
        prop_assert!(pages * 2048 >= memory);
        prop_assert!(pages * 2048 < memory + 2048 * cells.len() as u64);
    }
}

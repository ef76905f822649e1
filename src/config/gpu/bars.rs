//! The key `bars`: sizes of resizable BARs.

use std::collections::BTreeMap;

use crate::config::item::Item;
use crate::config::tree::{Node, shortened};
use crate::config::value::{Fault, memory};
use crate::pages::MemorySize;
use crate::pci::BarSize;

/// Sizes on one line.
const EXAMPLE: &str = "{0: 16 GiB, 2: 256 MiB}";

/// The highest number of a BAR (`PCI_STD_RESOURCE_END` in the kernel's `include/linux/pci.h`).
const LAST_BAR: u8 = 5;

pub(super) fn read(item: Item<'_>) -> BTreeMap<u8, BarSize> {
    item.pairs("resizes nothing", EXAMPLE, number, |size| size.value(bar_size)).into_iter().collect()
}

fn number(node: &Node) -> Result<u8, Fault> {
    let number = match node {
        Node::Integer(digits) | Node::Text(digits) => {
            digits.parse().ok().filter(|number| *number <= LAST_BAR)
        }
        _ => None,
    };
    let help =
        "`/sys/bus/pci/devices/ADDRESS` has a file `resourceN_resize` for each BAR that can be resized";
    number.ok_or_else(|| Fault::expected_like("the number of a BAR, 0 to 5", node, help))
}

fn bar_size(node: &Node) -> Result<BarSize, Fault> {
    if let Some(size) = as_the_kernel_counts(node) {
        let message = format!("{} has no unit", shortened(&digits_of(node)));
        return Err(Fault::new(
            message,
            format!("what `resourceN_resize` takes as {} is `{size}`", digits_of(node)),
        ));
    }
    let size = memory(node, "256 MiB")?;
    BarSize::try_from(size).map_err(|error| Fault::new(error.to_string(), nearest(size)))
}

/// The size that a file `resourceN_resize` means by a number: the exponent of a power of two of MiB
/// (`pci_rebar_bytes_to_size` in the kernel's `include/linux/pci.h`).
fn as_the_kernel_counts(node: &Node) -> Option<BarSize> {
    digits_of(node).parse().ok().and_then(BarSize::from_log2_mib)
}

fn digits_of(node: &Node) -> String {
    match node {
        Node::Integer(digits) | Node::Text(digits) => digits.clone(),
        _ => String::new(),
    }
}

/// The sizes beside one that is none.
fn nearest(size: MemorySize) -> String {
    let sizes = || (0..).map_while(BarSize::from_log2_mib);
    let below = sizes().take_while(|other| other.bytes() < size.bytes()).last();
    let above = sizes().find(|other| other.bytes() > size.bytes());
    match (below, above) {
        (Some(below), Some(above)) => format!("take `{below}` or `{above}`"),
        (Some(only), None) | (None, Some(only)) => format!("take `{only}`"),
        (None, None) => format!("for example `{EXAMPLE}`"),
    }
}

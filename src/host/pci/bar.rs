//! BARs: the windows through which the processor reaches a function's memory, and how large they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::trouble::{BarReason, PciTrouble};
use super::{PUT_BACK, STEP, file};
use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pages::MemorySize;
use crate::pci::BarSize;
use crate::pci::PciAddress;

/// How many BARs a function has (`PCI_STD_NUM_BARS`).
const BARS: usize = 6;

/// Flags in `resource` (`include/linux/ioport.h`): the window is of memory.
const IORESOURCE_MEM: u64 = 0x200;
/// The kernel found no place for the window.
const IORESOURCE_UNSET: u64 = 0x2000_0000;

/// The sizes of BARs, by the BAR's number.
pub type OfferedSizes = BTreeMap<u8, BTreeSet<BarSize>>;

/// Classes whose registers are behind the first BAR: HD audio (its specification, 4.1) and xHCI (5.2.1); so are those
/// of displays, which are several classes.
const NEED_THE_FIRST: [u32; 2] = [0x0403, 0x0c03];

/// Which BARs are meant, by function.
pub type AskedBars = BTreeMap<PciAddress, BTreeSet<u8>>;

/// One line of `resource`: a window that the function has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Bytes; zero where it is not even known.
    size: u64,
    flags: u64,
    start: u64,
}

impl Window {
    /// Whether it is of memory and has a place.
    pub(super) const fn is_placed_memory(self) -> bool {
        self.is_memory() && self.start != 0 && self.flags & IORESOURCE_UNSET == 0
    }

    const fn is_memory(self) -> bool {
        self.flags & IORESOURCE_MEM != 0
    }
}

/// The first lines of `resource`, one a BAR; none for one that the function has not (`resource_show`).
pub(super) fn windows(resource: &str) -> Option<[Option<Window>; BARS]> {
    let mut windows = [None; BARS];
    let mut lines = resource.lines();
    for window in &mut windows {
        let mut numbers = lines.next()?.split_whitespace().map(|number| {
            let digits = number.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        });
        let (start, end, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
        if flags != 0 {
            let size = end.checked_sub(start).and_then(|last| last.checked_add(1)).unwrap_or(0);
            *window = Some(Window { size, flags, start });
        }
    }
    Some(windows)
}

fn resize_file(address: PciAddress, bar: u8) -> PathBuf {
    file(address, &format!("resource{bar}_resize"))
}

/// What `resourceN_resize` reads as: hexadecimal digits without `0x`, the lowest bit for 1 MiB, the next one for twice
/// as much (`resource_resize_show`). Sizes that no card has are left out.
fn sizes_in(mask: &str) -> Option<BTreeSet<BarSize>> {
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let is_offered = |log2_mib: &u8| (mask >> log2_mib) & 1 == 1;
    Some((0..64).filter(is_offered).filter_map(BarSize::from_log2_mib).collect())
}

impl Host {
    /// The BARs of memory that a function has and that have no place, by `resource`, which the kernel has in memory:
    /// the function cannot be used by a driver. The first BAR of a display, of sound and of USB counts as one that it
    /// has: a window that could not be placed may be gone from `resource` altogether (`reset_resource` in
    /// `drivers/pci/setup-bus.c`).
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]).
    pub fn pci_unplaced_bars(&self, address: PciAddress) -> Result<Vec<u8>, HostError> {
        let windows = self.pci_windows(address)?;
        let class = self.pci_function(address)?.class;
        let needs_the_first = class.is_display() || NEED_THE_FIRST.contains(&(class.0 >> 8));
        let is_unplaced = |(bar, window): &(u8, Option<Window>)| match window {
            Some(window) => window.is_memory() && !window.is_placed_memory(),
            None => *bar == 0 && needs_the_first,
        };
        Ok((0..).zip(windows).filter(is_unplaced).map(|(bar, _)| bar).collect())
    }

    /// The BARs of functions that can be resized: those with a `resourceN_resize`.
    #[must_use]
    pub fn resizable_bars(&self, functions: &[PciAddress]) -> AskedBars {
        let of_function = |function: &PciAddress| {
            let is_resizable = |bar: &u8| self.is_present(resize_file(*function, *bar));
            (*function, (0..6).filter(is_resizable).collect())
        };
        functions.iter().map(of_function).collect()
    }

    /// The sizes that a function offers for these BARs, by `resourceN_resize`; a BAR that cannot be resized is left
    /// out. The kernel asks the function (`pci_rebar_get_possible_sizes` reads its configuration space), so that a
    /// child does it.
    ///
    /// # Errors
    /// It does not answer in time ([`HostError::stuck_process`]); the kernel refuses.
    pub fn pci_bar_sizes_offered(
        &self,
        address: PciAddress,
        bars: &BTreeSet<u8>,
        deadline: Deadline,
    ) -> Result<OfferedSizes, HostError> {
        let paths: Vec<PathBuf> = bars.iter().map(|bar| resize_file(address, *bar)).collect();
        let masks = self.read_bounded(&paths, deadline.earlier(Deadline::after(STEP)))?;
        let mut offered = OfferedSizes::new();
        for ((bar, path), mask) in bars.iter().zip(&paths).zip(masks) {
            let Some(mask) = mask else { continue };
            let sizes = sizes_in(&mask)
                .ok_or_else(|| HostError::content(path, format!("`{}` is no mask", mask.escape_debug())))?;
            offered.insert(*bar, sizes);
        }
        Ok(offered)
    }

    /// The sizes of these BARs; those that have no place, or another kind of size, are left out.
    pub(super) fn pci_bar_sizes(
        &self,
        address: PciAddress,
        bars: &BTreeSet<u8>,
    ) -> Result<BTreeMap<u8, BarSize>, HostError> {
        if bars.is_empty() {
            return Ok(BTreeMap::new());
        }
        let windows = self.pci_windows(address)?;
        let size = |bar: &u8| {
            let window = (*windows.get(usize::from(*bar))?)?;
            let placed = window.is_placed_memory().then_some(window.size)?;
            Some((*bar, BarSize::try_from(MemorySize::from_bytes(placed)).ok()?))
        };
        Ok(bars.iter().filter_map(size).collect())
    }

    /// Gives BARs their sizes with `resourceN_resize`, in a child. The function must have no driver. Those that shrink
    /// come first, to make room. Where one cannot be had, all that were changed get their old sizes back.
    ///
    /// # Errors
    /// A size that cannot be had; it takes too long.
    pub(super) fn set_pci_bar_sizes(
        &mut self,
        address: PciAddress,
        wanted: &BTreeMap<u8, BarSize>,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let before = self.pci_bar_sizes(address, &wanted.keys().copied().collect())?;
        let mut changes: Vec<(u8, BarSize)> = wanted
            .iter()
            .map(|(bar, size)| (*bar, *size))
            .filter(|(bar, size)| before.get(bar) != Some(size))
            .collect();
        changes.sort_by_key(|(_, size)| *size);
        for (done, (bar, size)) in changes.iter().enumerate() {
            let Err((error, reason)) = self.set_pci_bar_size(address, *bar, *size, deadline) else {
                continue;
            };
            // The kernel takes a BAR away before it looks for a new place, and may not find the old one by itself.
            let undone = changes[..=done].iter().rev().filter_map(|(bar, _)| Some((*bar, *before.get(bar)?)));
            let mut put_back = None;
            for (bar, size) in undone.collect::<Vec<_>>() {
                let enough = deadline.later(Deadline::after(PUT_BACK));
                if error.stuck_process().is_none()
                    && let Err((error, _)) = self.set_pci_bar_size(address, bar, size, enough)
                {
                    put_back = Some(format!("; nor could BAR {bar} be made {size} again ({error})"));
                }
            }
            return Err(match reason {
                Some(reason) => HostError::pci(PciTrouble::BarSize {
                    function: address,
                    bar: *bar,
                    wanted: *size,
                    reason,
                    put_back,
                }),
                None => error,
            });
        }
        Ok(())
    }

    /// One BAR, verified; with the reason where it is one that can be named.
    fn set_pci_bar_size(
        &mut self,
        address: PciAddress,
        bar: u8,
        size: BarSize,
        deadline: Deadline,
    ) -> Result<(), (HostError, Option<BarReason>)> {
        let path = resize_file(address, bar);
        let value = size.log2_mib().to_string();
        let written = self.write_bounded(&path, &value, deadline.earlier(Deadline::after(STEP)));
        if let Err(error) = written {
            let reason = match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT) => Some(BarReason::NotResizable),
                Some(Errno::EINVAL) => Some(BarReason::NotOffered),
                Some(Errno::ENOSPC) => Some(BarReason::NoRoom),
                _ => None,
            };
            return Err((error, reason));
        }
        let reached = self.pci_bar_sizes(address, &BTreeSet::from([bar])).map_err(|error| (error, None))?;
        match reached.get(&bar) {
            Some(reached) if *reached == size => Ok(()),
            reached => {
                let reason = reached.map_or(BarReason::NotPlaced, |reached| BarReason::StayedAt(*reached));
                Err((HostError::write(&path, &value, io::Error::other(reason.to_string())), Some(reason)))
            }
        }
    }

    fn pci_windows(&self, address: PciAddress) -> Result<[Option<Window>; BARS], HostError> {
        let path = file(address, "resource");
        windows(&self.text(&path)?).ok_or_else(|| HostError::content(&path, "it has no six windows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_as_the_kernel_prints_them() {
        let sizes = |mask| {
            let sizes = sizes_in(mask)?;
            Some(sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        };
        for (mask, expected) in [
            ("0000000000007f00", Some("256 MiB, 512 MiB, 1 GiB, 2 GiB, 4 GiB, 8 GiB, 16 GiB")),
            ("0000000000000003", Some("1 MiB, 2 MiB")),
            ("8000000000080000", Some("512 GiB")),
            ("0000000000000000", Some("")),
            ("", None),
            ("0x7f00", None),
        ] {
            assert_eq!(sizes(mask).as_deref(), expected, "{mask}");
        }
    }

    #[test]
    fn reads_windows_as_the_kernel_prints_them() {
        let text = "0x0000007800000000 0x0000007bffffffff 0x000000000014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000000000000000 0x000000000fffffff 0x000000002014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x000000000000e000 0x000000000000e0ff 0x0000000000040101\n\
                    0x00000000fca00000 0x00000000fcafffff 0x0000000000040200\n\
                    0x00000000fcb00000 0x00000000fcb1ffff 0x0000000000046200\n";
        let windows = windows(text).unwrap();
        let placed: Vec<_> = windows.iter().map(|window| window.map(Window::is_placed_memory)).collect();
        assert_eq!(placed, [Some(true), None, Some(false), None, Some(false), Some(true)]);
        assert_eq!(windows[0].unwrap().size, 1 << 34);
        assert_eq!(super::windows("0x0 0x0 0x0\n"), None);
        assert_eq!(super::windows("a b c\n".repeat(6).as_str()), None);
    }
}

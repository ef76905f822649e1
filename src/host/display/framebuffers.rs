//! Framebuffer devices, and which of them the text consoles may be on.

use std::collections::BTreeSet;

use crate::host::sysfs::pci_ancestor;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

const FRAMEBUFFERS: &str = "/sys/class/graphics";
const KERNEL_COMMAND_LINE: &str = "/proc/cmdline";

impl Host {
    /// The numbers of the framebuffers (`fbN`) on these functions, those of the firmware included.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn framebuffers_on(&self, functions: &[PciAddress]) -> Result<BTreeSet<u32>, HostError> {
        let firmware = self.firmware_framebuffers_on(functions)?;
        let is_firmware = |name: &str| name.parse().is_ok_and(|name| firmware.contains(&name));
        let mut on_them = BTreeSet::new();
        for number in self.framebuffers()? {
            let path = self.real_path(format!("{FRAMEBUFFERS}/fb{number}").as_ref())?;
            let Some(path) = path else { continue };
            let is_on_function = pci_ancestor(&path).is_some_and(|function| functions.contains(&function));
            if is_on_function || path.iter().any(|part| part.to_str().is_some_and(is_firmware)) {
                on_them.insert(number);
            }
        }
        Ok(on_them)
    }

    /// The framebuffers that text consoles may be on. The kernel does not say in sysfs; it takes those of `fbcon=map:`
    /// on its command line, else the one of the boot display or the first one, as it was built
    /// (`CONFIG_FRAMEBUFFER_CONSOLE_DETECT_PRIMARY`; `fbcon_fb_registered` in `drivers/video/fbdev/core/fbcon.c`).
    pub(super) fn console_framebuffers(&self) -> Result<BTreeSet<u32>, HostError> {
        let present: BTreeSet<u32> = self.framebuffers()?.into_iter().collect();
        let command_line = self.text_if_present(KERNEL_COMMAND_LINE)?.unwrap_or_default();
        let mapped: BTreeSet<u32> = mapped(&command_line).intersection(&present).copied().collect();
        if !mapped.is_empty() {
            return Ok(mapped);
        }
        let is_primary = |number: &u32| {
            let path = self.real_path(format!("{FRAMEBUFFERS}/fb{number}").as_ref());
            // One that cannot be looked at is not left out: the first one counts too.
            let path = path.ok().flatten();
            path.and_then(|path| pci_ancestor(&path)).is_some_and(|function| self.is_boot_vga(function))
        };
        let primary = present.iter().find(|number| is_primary(number));
        Ok(present.first().into_iter().chain(primary).copied().collect())
    }

    fn framebuffers(&self) -> Result<Vec<u32>, HostError> {
        match self.numbered(FRAMEBUFFERS, "fb") {
            Err(error) if error.is_absent() => Ok(Vec::new()),
            numbers => numbers,
        }
    }
}

/// A digit for each console, over and over; the last such option counts.
fn mapped(command_line: &str) -> BTreeSet<u32> {
    let options = command_line.split_whitespace().rev().filter_map(|word| word.strip_prefix("fbcon="));
    let map = options.flat_map(|options| options.split(',')).find_map(|option| option.strip_prefix("map:"));
    map.unwrap_or_default().chars().filter_map(|digit| digit.to_digit(10)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_map_of_consoles() {
        for (command_line, numbers) in [
            ("root=/dev/sda2 quiet", &[][..]),
            ("fbcon=map:1", &[1]),
            ("fbcon=map:10 quiet fbcon=font:VGA8x8", &[0, 1]),
            ("fbcon=map:1 fbcon=map:2", &[2]),
            ("fbcon=map:", &[]),
            ("xfbcon=map:1", &[]),
        ] {
            assert_eq!(mapped(command_line), numbers.iter().copied().collect(), "{command_line}");
        }
    }
}

//! What PCI classes are called.

use std::fmt;

use super::PciClass;

/// Base class and subclass, and their name for people: those that are found on graphics cards and beside them
/// (`include/linux/pci_ids.h`).
const NAMES: [(u32, &str); 17] = [
    (0x0106, "SATA controller"),
    (0x0108, "NVMe controller"),
    (0x0200, "Ethernet controller"),
    (0x0280, "network controller"),
    (0x0300, "VGA controller"),
    (0x0301, "XGA controller"),
    (0x0302, "3D controller"),
    (0x0380, "display controller"),
    (0x0401, "audio device"),
    (0x0403, "audio device"),
    (0x0600, "host bridge"),
    (0x0601, "ISA bridge"),
    (0x0604, "PCI bridge"),
    (0x0c03, "USB controller"),
    (0x0c05, "SMBus"),
    (0x0c80, "serial bus controller"),
    (0x1080, "encryption controller"),
];

impl fmt::Display for PciClass {
    /// `VGA controller`, or `class 0b40` for one that has no name here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subclass = self.0 >> 8;
        match NAMES.iter().find(|(known, _)| *known == subclass) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "class {subclass:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_names() {
        for (class, name) in [
            (0x03_0000, "VGA controller"),
            (0x03_0200, "3D controller"),
            (0x04_0300, "audio device"),
            (0x0c_0330, "USB controller"),
            (0x0c_8000, "serial bus controller"),
            (0x0b_4000, "class 0b40"),
            (0, "class 0000"),
        ] {
            assert_eq!(PciClass(class).to_string(), name);
        }
    }

    #[test]
    fn every_class_has_one_name() {
        for pair in NAMES.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{:04x}", pair[1].0);
        }
    }
}

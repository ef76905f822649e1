//! Lines of the kernel's log that tell of a device that hangs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::{KernelLog, LogRecord};
use crate::pci::{PciAddress, PciSlot};

/// How bad a sign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something is odd; the device may work all the same.
    Suspicious,
    /// The device does not work until something resets it.
    Wedged,
}

/// A line to look for.
#[derive(Clone, Copy, Debug)]
pub struct KnownSign {
    /// Its parts, in their order; between them may be anything.
    pub pattern: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
    /// How bad it is.
    pub severity: Severity,
}

/// The lines to look for; the first that fits counts. The kernel's are those of Linux 6.12.
pub const SIGNS: &[KnownSign] = &[
    // drivers/pci/pci.c, pci_power_up and pci_set_full_power_state
    wedged(
        &["Unable to change power state from ", "device inaccessible"],
        "it does not wake up: nothing answers at its place",
    ),
    wedged(&["Refused to change power state from ", " to D0"], "it does not wake up"),
    // drivers/pci/pci.c, pci_dev_wait; the device is named before it
    wedged(&["not ready ", "giving up"], "it did not come back after a reset"),
    suspicious(&["not ready ", "waiting"], "it takes long to come back after a reset"),
    suspicious(&["ready ", "ms after "], "it took long to come back after a reset"),
    // drivers/pci/pci.c, pcie_wait_for_link_delay
    suspicious(&["Data Link Layer Link Active not set in "], "the link to it was down after a reset"),
    // drivers/pci/pcie/err.c, pcie_do_recovery
    suspicious(&["device recovery failed"], "its driver could not recover from an error on the bus"),
    // drivers/pci/pcie/aer.c, aer_print_error and its names of errors
    suspicious(&["AER:", "Uncorrect"], "errors on the bus that were not corrected"),
    suspicious(&["CmpltTO"], "it did not answer a request in time"),
    suspicious(
        &["timed out waiting for pending transaction"],
        "it did not finish what it was at before a reset",
    ),
    // drivers/vfio/pci/vfio_pci_config.c, vfio_bar_restore
    suspicious(&["reset recovery - restoring BARs"], "it forgot its settings: something reset it"),
    // libvirt, src/util/virpci.c, virPCIGetHeaderType, and vfio_pci_core.c
    wedged(&["Unknown PCI header type '127'"], "it is off the bus"),
    wedged(&["unknown header type 7f"], "it is off the bus"),
    // drivers/pci/hotplug/pciehp_ctrl.c
    suspicious(&["Slot(", "Link Down"], "the link to it went down"),
    suspicious(&["Slot(", "Card not present"], "it is no longer in its slot"),
    // drivers/gpu/drm/amd/amdgpu: amdgpu_psp.c, amdgpu_ring.c, amdgpu_device.c, amdgpu_drv.c
    wedged(&["PSP ", "failed"], "its security processor does not start"),
    wedged(&["SMU", "failed"], "its power management processor does not answer"),
    wedged(&["ring ", " test failed"], "one of its units does not run"),
    wedged(&["hw_init of IP block ", " failed"], "one of its units does not start"),
    wedged(&["Fatal error during GPU init"], "its driver cannot start it"),
    wedged(&["amdgpu_device_ip_init failed"], "its driver cannot start it"),
    wedged(&["GPU reset", "failed"], "its driver cannot reset it"),
    suspicious(&["ring ", " timeout"], "a job on it did not end"),
    // drivers/gpu/drm/nouveau and NVIDIA's own driver
    wedged(&["NVRM: ", "RmInitAdapter failed"], "its driver cannot start it"),
    wedged(&["NVRM: Xid", " 79, "], "it has fallen off the bus"),
    wedged(&["GPU has fallen off the bus"], "it has fallen off the bus"),
    // drivers/base/dd.c, call_driver_probe
    suspicious(&["probe with driver ", " failed with error"], "a driver did not take it"),
    suspicious(&["probe of ", " failed with error"], "a driver did not take it"),
];

const fn wedged(pattern: &'static [&'static str], meaning: &'static str) -> KnownSign {
    KnownSign { pattern, meaning, severity: Severity::Wedged }
}

const fn suspicious(pattern: &'static [&'static str], meaning: &'static str) -> KnownSign {
    KnownSign { pattern, meaning, severity: Severity::Suspicious }
}

/// A line that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// The function, or the port above it, that the line names.
    pub address: PciAddress,
    /// How bad it is.
    pub severity: Severity,
    /// What it means.
    pub meaning: String,
    /// The line, printable.
    pub line: String,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (the kernel: {})", self.meaning, self.line)
    }
}

/// The signs in a part of the kernel's log that name one of these functions or ports, the oldest first.
#[must_use]
pub fn signs_in(log: &KernelLog, addresses: &[PciAddress]) -> Vec<Sign> {
    let names: Vec<(PciAddress, String)> = addresses.iter().map(|a| (*a, a.to_string())).collect();
    log.records.iter().filter_map(|record| sign_in(record, &names)).collect()
}

/// The records of the kernel's log that are about a card: those that name it or one of its functions, in any of the
/// ways that drivers do (`0000:03:00.0`; `PCI:0000:03:00` of NVIDIA's driver; `[03:00.0]` of Intel's IOMMU), or a port
/// above it.
#[must_use]
pub fn records_about<'a>(log: &'a KernelLog, card: PciSlot, ports: &[PciAddress]) -> Vec<&'a LogRecord> {
    let slot = card.to_string();
    let names: Vec<String> = ports.iter().map(PciAddress::to_string).chain([slot.clone()]).collect();
    let in_brackets = slot.strip_prefix("0000:").map(|short| format!("[{short}."));
    let is_about = |record: &&LogRecord| {
        names.iter().any(|name| names_function(&record.text, name))
            || in_brackets.as_ref().is_some_and(|name| record.text.contains(name))
    };
    log.records.iter().filter(is_about).collect()
}

fn sign_in(record: &LogRecord, names: &[(PciAddress, String)]) -> Option<Sign> {
    let (address, _) = names.iter().find(|(_, name)| names_function(&record.text, name))?;
    let known = SIGNS.iter().find(|known| fits(&record.text, known.pattern))?;
    Some(Sign {
        address: *address,
        severity: known.severity,
        meaning: known.meaning.to_owned(),
        line: record.text.clone(),
    })
}

/// Whether the name stands by itself: `0000:03:00.1` is no part of `10000:03:00.1`.
fn names_function(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn fits(text: &str, pattern: &[&str]) -> bool {
    let mut rest = text;
    pattern.iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Beginning;

    fn log(lines: &[&str]) -> KernelLog {
        let record = |(sequence, text): (u64, &&str)| LogRecord {
            sequence,
            microseconds: 0,
            priority: 3,
            text: (*text).to_owned(),
        };
        KernelLog { records: (0..).zip(lines).map(record).collect(), beginning: Beginning::Kept }
    }

    fn address(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    /// Lines as kernels and libvirt print them.
    #[test]
    fn knows_the_lines_that_people_report() {
        use Severity::{Suspicious, Wedged};
        for (line, severity) in [
            (
                "vfio-pci 0000:03:00.0: Unable to change power state from D3cold to D0, device inaccessible",
                Some(Wedged),
            ),
            ("amdgpu 0000:03:00.0: Refused to change power state from D3hot to D0", Some(Wedged)),
            ("vfio-pci 0000:03:00.0: not ready 1023ms after bus reset; waiting", Some(Suspicious)),
            ("vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up", Some(Wedged)),
            ("vfio-pci 0000:03:00.0: ready 2047ms after bus reset", Some(Suspicious)),
            ("pcieport 0000:03:00.0: Data Link Layer Link Active not set in 1000 msec", Some(Suspicious)),
            ("vfio-pci 0000:03:00.0: vfio_bar_restore: reset recovery - restoring BARs", Some(Suspicious)),
            (
                "vfio-pci 0000:03:00.0: timed out waiting for pending transaction; performing function level reset anyway",
                Some(Suspicious),
            ),
            ("pcieport 0000:03:00.0: AER: device recovery failed", Some(Suspicious)),
            (
                "pcieport 0000:03:00.0: AER: Uncorrectable (Non-Fatal) error message received",
                Some(Suspicious),
            ),
            ("vfio-pci 0000:03:00.0:    [14] CmpltTO                (First)", Some(Suspicious)),
            ("amdgpu 0000:03:00.0: amdgpu: PSP load tmr failed!", Some(Wedged)),
            (
                "amdgpu 0000:03:00.0: [drm:amdgpu_ring_test_helper [amdgpu]] *ERROR* ring gfx_0.0.0 test failed (-110)",
                Some(Wedged),
            ),
            (
                "[drm:amdgpu_device_init.cold [amdgpu]] *ERROR* hw_init of IP block <psp> failed -22 0000:03:00.0",
                Some(Wedged),
            ),
            ("amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init", Some(Wedged)),
            ("amdgpu 0000:03:00.0: probe with driver amdgpu failed with error -22", Some(Suspicious)),
            ("amdgpu: probe of 0000:03:00.0 failed with error -22", Some(Suspicious)),
            ("NVRM: GPU 0000:03:00.0: GPU has fallen off the bus.", Some(Wedged)),
            ("[drm] Initialized amdgpu 3.61.0 for 0000:03:00.0 on minor 1", None),
            ("vfio-pci 0000:03:00.0: vgaarb: VGA decodes changed", None),
            ("amdgpu 0000:03:00.0: amdgpu: SMU is initialized successfully!", None),
            ("amdgpu 0000:03:00.0: amdgpu: PSP is resuming...", None),
        ] {
            let found = signs_in(&log(&[line]), &[address("0000:03:00.0")]);
            assert_eq!(found.first().map(|sign| sign.severity), severity, "{line}");
            assert!(found.iter().all(|sign| sign.line == line && sign.address == address("0000:03:00.0")));
        }
    }

    #[test]
    fn only_what_names_the_device_counts() {
        let ready = |name: &str| format!("vfio-pci {name}: not ready 65535ms after FLR; giving up");
        let lines = ["0000:04:00.0", "10000:03:00.0", "0000:03:00.01"].map(ready);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(signs_in(&log(&lines), &[address("0000:03:00.0")]), []);
        assert_eq!(
            signs_in(&log(&["not ready 65535ms after FLR; giving up"]), &[address("0000:03:00.0")]),
            []
        );
        let found = signs_in(&log(&lines), &[address("0000:03:00.0"), address("0000:04:00.0")]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].address, address("0000:04:00.0"));
    }

    #[test]
    fn what_is_about_a_card_names_it_a_function_or_a_port() {
        let about = [
            "[drm] Initialized amdgpu 3.61.0 for 0000:03:00.0 on minor 1",
            "snd_hda_intel 0000:03:00.1: Force to non-snoop mode",
            "NVRM: GPU at PCI:0000:03:00: GPU-x",
            "DMAR: [DMA Read NO_PASID] Request device [03:00.0] fault addr 0x0",
            "pcieport 0000:00:01.1: AER: Correctable error message received",
        ];
        let others = [
            "amdgpu 0000:0e:00.0: x",
            "x 10000:03:00.0: x",
            "pcieport 0000:00:01.2: x",
            "DMAR: Request device [13:00.0]",
        ];
        let log = log(&[about.as_slice(), others.as_slice()].concat());
        let found = records_about(&log, address("0000:03:00.0").slot(), &[address("0000:00:01.1")]);
        assert_eq!(found.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(), about);
    }

    #[test]
    fn wedged_is_worse() {
        assert!(Severity::Wedged > Severity::Suspicious);
    }
}

//! Lines of the kernel's log that say something of a device, in their order: a recovery counts for what was said before
//! it.

use std::fmt;

use serde::Serialize;

use super::device_names::{DeviceNames, is_about_card, stands_alone};
use super::kernel_line::{KernelLine, KernelLineName, Severity};
use super::known_kernel_lines::known_kernel_lines;
use crate::kernel_log::{KernelLog, LogRecord};
use crate::pci::{PciAddress, PciSlot};

/// A line that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecognisedLine {
    /// The row of the table that it fits.
    pub name: KernelLineName,
    /// The function, or the port above it, that the line names.
    pub address: PciAddress,
    /// How bad it is. A wedged line before a recovery is suspicious.
    pub severity: Severity,
    /// What it means.
    pub meaning: String,
    /// What a person can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The line, printable; the first one where there are more of them.
    pub line: String,
    /// How often such a line stands there.
    pub times: u32,
    /// The line of the recovery after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
}

impl fmt::Display for RecognisedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.meaning)?;
        if self.recovery.is_some() {
            f.write_str(", and recovered")?;
        }
        write!(f, " (the kernel: {}", self.line)?;
        if self.times > 1 {
            write!(f, ", {} times", self.times)?;
        }
        if let Some(recovery) = &self.recovery {
            write!(f, "; then: {recovery}")?;
        }
        f.write_str(")")
    }
}

/// All lines that a row fits and that name one of these functions or ports, the oldest first. Rows of the host's
/// configuration come before those that are built in, and replace them where they have the same name.
#[must_use]
pub fn recognised_lines(
    log: &KernelLog,
    addresses: &[PciAddress],
    own: &[KernelLine],
) -> Vec<RecognisedLine> {
    let devices: Vec<DeviceNames> = addresses.iter().map(|address| DeviceNames::of(*address)).collect();
    let mut found: Vec<RecognisedLine> = Vec::new();
    for record in &log.records {
        let Some(address) = device_in(&record.text, &devices) else { continue };
        let Some(row) = row_of(&record.text, own) else { continue };
        if row.severity == Severity::Recovered {
            recover(&mut found, address, &record.text);
        }
        let is_same = |line: &&mut RecognisedLine| {
            line.name == row.name && line.address == address && line.recovery.is_none()
        };
        match found.iter_mut().find(is_same) {
            Some(line) => line.times += 1,
            None => found.push(RecognisedLine {
                name: row.name.clone(),
                address,
                severity: row.severity,
                meaning: row.meaning.clone(),
                fix: row.fix.clone(),
                line: record.text.clone(),
                times: 1,
                recovery: None,
            }),
        }
    }
    found
}

/// Those of them that are evidence against a device.
#[must_use]
pub fn lines_of_trouble(
    log: &KernelLog,
    addresses: &[PciAddress],
    own: &[KernelLine],
) -> Vec<RecognisedLine> {
    let mut lines = recognised_lines(log, addresses, own);
    lines.retain(|line| line.severity.is_trouble());
    lines
}

/// What was said before of a device that works again.
fn recover(found: &mut [RecognisedLine], address: PciAddress, recovery: &str) {
    let wedged = |line: &&mut RecognisedLine| line.severity == Severity::Wedged && line.address == address;
    for line in found.iter_mut().filter(wedged) {
        line.severity = Severity::Suspicious;
        line.recovery = Some(recovery.to_owned());
    }
}

/// A line may name a function and the port that reports it: functions come first in the list.
fn device_in(line: &str, devices: &[DeviceNames]) -> Option<PciAddress> {
    let function = devices.iter().find(|device| device.is_function_in(line));
    function.or_else(|| devices.iter().find(|device| device.is_card_in(line))).map(|device| device.address)
}

fn row_of<'a>(line: &str, own: &'a [KernelLine]) -> Option<&'a KernelLine> {
    let is_replaced = |row: &&KernelLine| own.iter().any(|mine| mine.name == row.name);
    let built_in = known_kernel_lines().iter().filter(|row| !is_replaced(row));
    own.iter().chain(built_in).find(|row| row.fits(line))
}

/// The records of the kernel's log that are about a card: those that name it or one of its functions, in any of the
/// ways that drivers do (`0000:03:00.0`; `PCI:0000:03:00` of NVIDIA's driver; `[03:00.0]` of Intel's IOMMU), or a port
/// above it.
#[must_use]
pub fn records_about<'a>(log: &'a KernelLog, card: PciSlot, ports: &[PciAddress]) -> Vec<&'a LogRecord> {
    let functions: Vec<DeviceNames> = card.functions().map(DeviceNames::of).collect();
    let ports: Vec<String> = ports.iter().map(PciAddress::to_string).collect();
    let is_about = |record: &&LogRecord| {
        is_about_card(&record.text, card, &functions)
            || ports.iter().any(|port| stands_alone(&record.text, port))
    };
    log.records.iter().filter(is_about).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_log::Beginning;

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

    /// The severities of what is found of the card 0000:03:00, with rows of the host's own.
    fn found(lines: &[&str], own: &[KernelLine]) -> Vec<(String, Severity, u32)> {
        let card = [address("0000:03:00.0"), address("0000:03:00.1"), address("0000:00:01.1")];
        let lines = recognised_lines(&log(lines), &card, own);
        lines.into_iter().map(|line| (line.name.to_string(), line.severity, line.times)).collect()
    }

    const RING: &str = "amdgpu 0000:03:00.0: [drm:amdgpu_ring_test_helper [amdgpu]] *ERROR* ring kiq_0.2.1.0 test failed (-110)";
    const SUCCEEDED: &str = "amdgpu 0000:03:00.0: amdgpu: GPU reset(2) succeeded!";

    #[test]
    fn a_recovery_counts_for_what_was_said_before_it() {
        use Severity::{Recovered, Suspicious, Wedged};
        let severities = |lines: &[&str]| -> Vec<Severity> {
            found(lines, &[]).into_iter().map(|(_, severity, _)| severity).collect()
        };
        assert_eq!(severities(&[RING]), [Wedged]);
        assert_eq!(severities(&[RING, SUCCEEDED]), [Suspicious, Recovered]);
        // One that fails again, and one that the resume after the reset brings to nothing.
        assert_eq!(severities(&[RING, SUCCEEDED, RING]), [Suspicious, Recovered, Wedged]);
        let trying = "amdgpu 0000:03:00.0: amdgpu: GPU reset succeeded, trying to resume";
        let failed = "amdgpu 0000:03:00.0: amdgpu: GPU reset(2) failed";
        assert_eq!(severities(&[RING, trying, failed]), [Suspicious, Recovered, Wedged]);
        // A driver takes cards, too, one of whose units failed a moment before.
        let initialised = "[drm] Initialized amdgpu 3.61.0 for 0000:03:00.0 on minor 1";
        assert_eq!(severities(&[RING, initialised]), [Wedged, Severity::Harmless]);
        // Of another function of the card, and of another card.
        let audio =
            "snd_hda_intel 0000:03:00.1: Unable to change power state from D3cold to D0, device inaccessible";
        assert_eq!(severities(&[audio, SUCCEEDED]), [Wedged, Recovered]);
        assert_eq!(severities(&[RING, "amdgpu 0000:0e:00.0: amdgpu: GPU reset(2) succeeded!"]), [Wedged]);
    }

    #[test]
    fn a_recovery_is_told_with_the_failure() {
        let lines = lines_of_trouble(&log(&[RING, RING, SUCCEEDED]), &[address("0000:03:00.0")], &[]);
        let told: Vec<String> = lines.iter().map(RecognisedLine::to_string).collect();
        assert_eq!(
            told,
            [format!(
                "one of its units does not run, and recovered (the kernel: {RING}, 2 times; then: {SUCCEEDED})"
            )]
        );
    }

    #[test]
    fn only_what_names_the_device_counts() {
        let ready = |name: &str| format!("vfio-pci {name}: not ready 65535ms after FLR; giving up");
        let lines = ["0000:04:00.0", "10000:03:00.0", "0000:03:00.01"].map(ready);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(found(&lines, &[]), []);
        assert_eq!(found(&["not ready 65535ms after FLR; giving up"], &[]), []);
        let card = [address("0000:03:00.0"), address("0000:04:00.0")];
        let lines = recognised_lines(&log(&lines), &card, &[]);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].address, address("0000:04:00.0"));
    }

    #[test]
    fn a_line_of_nvidias_driver_has_no_function() {
        let lines = [
            "NVRM: Xid (PCI:0000:03:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            "NVRM: Xid (PCI:0000:03:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
            "NVRM: Xid (PCI:0000:04:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        ];
        let found = found(&lines, &[]);
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["xid-79", "xid-154-none"]);
    }

    #[test]
    fn a_line_that_names_the_port_and_the_function_is_the_functions() {
        let line = "pcieport 0000:00:01.1: AER: Multiple Uncorrectable (Fatal) error message received from 0000:03:00.0";
        let card = [address("0000:03:00.0"), address("0000:00:01.1")];
        assert_eq!(recognised_lines(&log(&[line]), &card, &[])[0].address, address("0000:03:00.0"));
    }

    #[test]
    fn rows_of_the_host_come_first_and_replace_those_of_their_name() {
        let own = |name: &str, pattern: &str, severity| KernelLine {
            name: name.parse().unwrap(),
            patterns: vec![pattern.parse().unwrap()],
            severity,
            meaning: "mine".to_owned(),
            fix: None,
            since: None,
            until: None,
            source: None,
            example: None,
            near_miss: None,
        };
        let new = own("mine", "ring * test failed (-110)", Severity::Harmless);
        assert_eq!(found(&[RING], &[new]), [("mine".to_owned(), Severity::Harmless, 1)]);
        let replaced = own("ring-test", "never printed", Severity::Harmless);
        assert_eq!(found(&[RING], &[replaced]), []);
    }

    #[test]
    fn what_is_about_a_card_names_it_a_function_or_a_port() {
        let about = [
            "[drm] Initialized amdgpu 3.61.0 for 0000:03:00.0 on minor 1",
            "snd_hda_intel 0000:03:00.1: Force to non-snoop mode",
            "NVRM: GPU at PCI:0000:03:00: GPU-x",
            "DMAR: [DMA Read NO_PASID] Request device [03:00.0] fault addr 0x0",
            "iommu ivhd0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=03:00.1 address=0x1001e4600]",
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
}

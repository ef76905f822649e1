//! What a report of a problem with a card needs, as text to paste. No XML, no serial numbers, and of the kernel's
//! command line only what concerns cards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::card::CardView;
use super::look;
use crate::commands::output::{self, Format};
use crate::commands::user_error::UserResult;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::gpu::{KernelLine, RecognisedLine, Severity, VENDOR_RESET, recognised_lines, records_about};
use crate::host::Host;
use crate::kernel_log::{KernelLog, KernelLogPosition, LogRecord};
use crate::lifecycle;
use crate::pci::{PciAddress, PciSlot};

/// How long the programs may take to say their versions, all together.
const VERSIONS: Duration = Duration::from_secs(5);

/// The last lines of the kernel's log that are shown.
const LOG_LINES: usize = 200;

/// Programs whose versions matter: libvirt's daemons, and QEMU by the names that distributions give it.
const PROGRAMS: [&str; 4] = ["libvirtd", "virtqemud", "qemu-system-x86_64", "qemu-kvm"];

/// Modules that hand devices over or reset them, by their names in `/sys/module`.
const MODULES: [&str; 7] =
    ["vfio", "vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "iommufd", "irqbypass", VENDOR_RESET];

/// Words of the kernel's command line that are shown: those whose name has one of these in it ...
const NAME_PARTS: &str = "iommu vfio pci amdgpu radeon nouveau nvidia i915";

/// ... or is one of these.
const NAMES: &str = "video nomodeset fbcon module_blacklist modprobe.blacklist rd.driver.blacklist rd.driver.pre \
    initcall_blacklist mem_sleep_default";

/// The report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    kernel: Option<String>,
    /// Only the words that concern cards.
    command_line: Vec<String>,
    distribution: Option<String>,
    /// What the programs say, by their names.
    programs: BTreeMap<&'static str, String>,
    /// The parameters of the modules that are there, by their names.
    modules: BTreeMap<&'static str, BTreeMap<String, String>>,
    #[serde(flatten)]
    cards: look::View,
    /// The last lines that are about the cards.
    kernel_log: KernelLogView,
    /// What those of them mean of which that is known, the oldest first.
    recognised: Vec<RecognisedLine>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum KernelLogView {
    Lines(Vec<String>),
    /// Why it cannot be read.
    Unknown(String),
}

pub(super) fn run(host: &Host, wanted: Option<PciSlot>, format: Format) -> UserResult<Exit> {
    let report = report(host, wanted, Deadline::after(VERSIONS))?;
    match format {
        Format::Json => output::json(&report),
        Format::Text => lines(&report).iter().for_each(output::line),
    }
    Ok(Exit::Done)
}

/// What cannot be found out is left out: a report is written where something is broken.
///
/// # Errors
/// There is no such card; PCI cannot be read.
pub(super) fn report(host: &Host, wanted: Option<PciSlot>, deadline: Deadline) -> UserResult<Report> {
    let cards = look::view(host, wanted)?;
    let version =
        |program: &&'static str| Some((*program, host.program_version(program, deadline).ok().flatten()?));
    let present = MODULES.into_iter().filter(|module| host.has_module(module));
    let parameters = |module| (module, host.module_parameters(module).unwrap_or_default());
    let mut command_line = host.kernel_command_line().unwrap_or_default();
    command_line.retain(|word| is_about_cards(word));
    // A file that cannot be read is among the problems of the view.
    let own = lifecycle::load_host_config(host).map(|config| config.kernel_lines).unwrap_or_default();
    let log = host.kernel_log_since(KernelLogPosition(0)).map_err(|error| error.to_string());
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: host.kernel_release().ok(),
        command_line,
        distribution: host.distribution().ok().flatten(),
        programs: PROGRAMS.iter().filter_map(version).collect(),
        modules: present.map(parameters).collect(),
        recognised: log.as_ref().map_or_else(|_| Vec::new(), |log| recognised(log, &cards.cards, &own)),
        kernel_log: log.map_or_else(KernelLogView::Unknown, |log| kernel_log(&log, &cards.cards)),
        cards,
    })
}

/// By its name: values may be anything, such as `root=/dev/disk/by-path/pci-…`.
fn is_about_cards(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default().to_lowercase();
    NAMES.split(' ').any(|known| known == name) || NAME_PARTS.split(' ').any(|part| name.contains(part))
}

/// The whole log says how cards came to be as they are, also before a guest had them.
fn recognised(log: &KernelLog, cards: &[CardView], own: &[KernelLine]) -> Vec<RecognisedLine> {
    let functions = cards.iter().flat_map(|card| card.functions.iter().map(|function| function.address));
    let mut addresses: Vec<PciAddress> = functions.collect();
    for port in cards.iter().flat_map(CardView::ports) {
        if !addresses.contains(&port) {
            addresses.push(port);
        }
    }
    let mut lines = recognised_lines(log, &addresses, own);
    for line in &mut lines {
        line.line = without_uuids(&line.line);
        line.recovery = line.recovery.as_deref().map(without_uuids);
    }
    lines
}

fn kernel_log(log: &KernelLog, cards: &[CardView]) -> KernelLogView {
    let about = cards.iter().flat_map(|card| records_about(log, card.slot, &card.ports()));
    // What names two cards, or a port above both, is shown once.
    let wanted: BTreeSet<u64> = about.map(|record| record.sequence).collect();
    let records: Vec<&LogRecord> =
        log.records.iter().filter(|record| wanted.contains(&record.sequence)).collect();
    let skipped = records.len().saturating_sub(LOG_LINES);
    KernelLogView::Lines(records[skipped..].iter().map(|record| log_line(record)).collect())
}

/// As `dmesg` shows it.
fn log_line(record: &LogRecord) -> String {
    let (seconds, rest) = (record.microseconds / 1_000_000, record.microseconds % 1_000_000);
    format!("[{seconds:5}.{rest:06}] {}", without_uuids(&record.text))
}

/// A line without what tells one card from all others of its model: NVIDIA's driver names a card by a UUID
/// (`GPU-b850f46d-…`).
fn without_uuids(line: &str) -> String {
    let words = line.split(' ').map(|word| if word.starts_with("GPU-") { "GPU-…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// A line that is known, what it means and what to do about it.
fn recognised_rows(line: &RecognisedLine) -> Vec<String> {
    let times = if line.times > 1 { format!(", {} times", line.times) } else { String::new() };
    let then = if line.recovery.is_some() { ", and recovered later" } else { "" };
    let mut rows = vec![
        format!("  {} {} ({}{times}): {}{then}", line.address, line.severity, line.name, line.meaning),
        format!("    {}", line.line),
    ];
    rows.extend(line.recovery.as_ref().map(|recovery| format!("    then: {recovery}")));
    let is_open = line.severity != Severity::Recovered && line.recovery.is_none();
    rows.extend(line.fix.as_ref().filter(|_| is_open).map(|fix| format!("    help: {fix}")));
    rows
}

pub(super) fn lines(report: &Report) -> Vec<String> {
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut lines = vec![
        format!("vfio-hook {}", report.version),
        format!("kernel {}", or_unknown(&report.kernel)),
        format!("its command line, as far as it concerns cards: {}", or_none(&report.command_line)),
        format!("distribution {}", or_unknown(&report.distribution)),
    ];
    lines.extend(report.programs.iter().map(|(name, version)| format!("{name}: {version}")));
    let modules: Vec<String> = report.modules.keys().map(ToString::to_string).collect();
    lines.push(format!("modules: {}", or_none(&modules)));
    for (module, parameters) in &report.modules {
        let parameters: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !parameters.is_empty() {
            lines.push(format!("  {module}: {}", parameters.join(" ")));
        }
    }
    lines.push(String::new());
    lines.extend(look::lines(&report.cards));
    lines.push(String::new());
    match &report.kernel_log {
        KernelLogView::Lines(log) if log.is_empty() => {
            lines.push("the kernel's log says nothing about a graphics card (any more)".to_owned());
        }
        KernelLogView::Lines(log) => {
            lines.push(format!("the kernel's log about it, the last {}:", output::count(log.len(), "line")));
            lines.extend(log.iter().map(|line| format!("  {line}")));
        }
        KernelLogView::Unknown(reason) => lines.push(format!("the kernel's log is not in here: {reason}")),
    }
    if !report.recognised.is_empty() {
        lines.push(String::new());
        lines.push("what of it is known to mean something, the oldest first:".to_owned());
        lines.extend(report.recognised.iter().flat_map(recognised_rows));
    }
    lines.push(String::new());
    lines.push(
        "what vfio-hook did: `journalctl -b -t vfio-hook` (not in here: commands of yours may have printed \
         into it)"
            .to_owned(),
    );
    lines
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_command_line_only_what_concerns_cards() {
        for word in [
            "amd_iommu=on",
            "iommu.passthrough=1",
            "vfio-pci.ids=1002:73bf",
            "amdgpu.runpm=0",
            "pci=realloc",
            "pcie_aspm=off",
            "video=efifb:off",
            "module_blacklist=amdgpu",
            "nomodeset",
        ] {
            assert!(is_about_cards(word), "{word}");
        }
        for word in [
            "root=/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part1",
            "BOOT_IMAGE=/vmlinuz",
            "quiet",
            "rd.luks.uuid=luks-1234",
            "systemd.set_credential=x:iommu",
            "ip=10.0.0.2",
        ] {
            assert!(!is_about_cards(word), "{word}");
        }
    }

    #[test]
    fn lines_of_the_log_look_like_those_of_dmesg() {
        let record =
            |microseconds| LogRecord { sequence: 1, microseconds, priority: 6, text: "text".to_owned() };
        assert_eq!(log_line(&record(4_711_000)), "[    4.711000] text");
        assert_eq!(log_line(&record(123_456_000_007)), "[123456.000007] text");
        let text = "NVRM: GPU at PCI:0000:01:00: GPU-b850f46d-d5ea-c752-ddf3-c6453e44d3f7".to_owned();
        let named = log_line(&LogRecord { text, ..record(0) });
        assert_eq!(named, "[    0.000000] NVRM: GPU at PCI:0000:01:00: GPU-…");
    }
}

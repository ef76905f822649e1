//! Memory that the firmware wants mapped for a device at all times.

use super::{CARD, DISPLAY, USB, gamer, machine_with, player};
use crate::support::Machine;

const XML: &str = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";

fn regions(group: u32, kind: &str) -> String {
    format!(
        "/sys/kernel/iommu_groups/{group}/reserved_regions = 0x000000009d000000 0x000000009d7fffff {kind}\\n\
         0x00000000fee00000 0x00000000feefffff msi\n"
    )
}

const OLD: &str = "/proc/sys/kernel/osrelease = 6.5.13-1-pve\n";

fn refusal(machine: &Machine, functions: &[&str], yaml: &str) -> String {
    let before = machine.files();
    let error = machine.prepare(&player(1, functions, XML, yaml)).unwrap_err().to_string();
    machine.assert_is(&before, &error);
    error
}

#[test]
fn what_the_kernel_would_refuse_is_refused_before_anything_is_touched() {
    let direct = regions(25, "direct");
    // Of the card's audio function, on a new kernel.
    let error = refusal(&machine_with(&direct), &CARD, "gpu: {}");
    insta::assert_snapshot!(error, @"
    /etc/vfio-hook/hooks.d/guest.yaml:1:1: 0000:03:00.1: the firmware wants memory mapped 1:1 for IOMMU group 25 at all times (0x9d000000-0x9d7fffff), so this kernel gives it to no guest
    help: update the firmware, or switch off there what uses the device before the system starts: its boot ROM or network boot, a management controller (iLO, iDRAC), USB keyboard emulation, DMA protection. The kernel has no switch for it
    ");
    // Intel's IOMMU refused it always.
    let link = DISPLAY.replace("03:00.0", "03:00.1");
    let intel = format!("{direct}{OLD}{link}/iommu -> ../../../../../../virtual/iommu/dmar0\n");
    assert_eq!(refusal(&machine_with(&intel), &CARD, "gpu: {}"), error);
    // What libvirt hands over counts as well.
    let all: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let usb = machine_with(&regions(33, "direct"));
    for yaml in ["gpu: {}", "gpu: {other_devices: libvirt}"] {
        let error = refusal(&usb, &all, yaml);
        assert!(
            error.contains("0000:0f:00.3: the firmware wants memory mapped 1:1 for IOMMU group 33"),
            "{error}"
        );
    }
}

#[test]
fn what_the_kernel_takes_is_taken() {
    for (lines, warns) in [
        (regions(24, "direct-relaxable"), false),
        (regions(24, "reserved"), false),
        (regions(33, "direct"), false),
        (format!("{}{OLD}", regions(24, "direct")), true),
    ] {
        let machine = machine_with(&lines);
        let life = gamer("gpu: {}");
        let outcome = machine.prepare(&life).unwrap();
        let told = "Linux 6.6 and later refuse it";
        assert_eq!(outcome.notes.iter().any(|note| note.text.ends_with(told)), warns, "{lines}: {outcome:?}");
        machine.release(&life).unwrap();
    }
}

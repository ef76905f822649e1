//! What the kernel says of a card while a guest has it decides where the card goes.

use super::{CARD, DISPLAY, HOST_DRIVERS, ON_VFIO, gamer, machine, machine_with};
use crate::support::{Life, Machine};
use vfio_hook::ledger::Outcome;

const RING: &str =
    "amdgpu 0000:03:00.0: [drm:amdgpu_ring_test_helper [amdgpu]] *ERROR* ring kiq_0.2.1.0 test failed (-110)";
const SUCCEEDED: &str = "amdgpu 0000:03:00.0: amdgpu: GPU reset(2) succeeded!";

/// A guest's life in which the kernel says this while the guest has the card.
fn lived(machine: &Machine, life: &Life, lines: &[&str]) -> Outcome {
    // Its records are numbered without a gap from here on.
    machine.kernel_says("amdgpu 0000:03:00.0: said before the guest");
    machine.prepare(life).unwrap();
    machine.started(life).unwrap();
    for line in lines {
        machine.kernel_says(line);
    }
    let outcome = machine.release(life).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    outcome
}

#[test]
fn a_driver_that_recovered_leaves_no_wedged_card() {
    let machine = machine();
    let outcome = lived(&machine, &gamer("gpu: {}"), &[RING, SUCCEEDED]);
    assert!(machine.quarantine().is_none(), "{outcome:?}");
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    let told = "one of its units does not run, and recovered (the kernel: amdgpu 0000:03:00.0: ";
    assert!(outcome.notes.iter().any(|note| note.text.contains(told)), "{:?}", outcome.notes);
    // It is no clean one all the same.
    let outcome = lived(&machine, &gamer("gpu: {return_to: host-if-clean}"), &[RING, SUCCEEDED]);
    assert_eq!(machine.drivers(), ON_VFIO, "{:?}", outcome.notes);
}

#[test]
fn a_recovery_that_fails_again_leaves_a_wedged_one() {
    for lines in [&[RING][..], &[RING, SUCCEEDED, RING], &[SUCCEEDED, RING]] {
        let machine = machine();
        lived(&machine, &gamer("gpu: {}"), lines);
        let quarantine = machine.quarantine().unwrap_or_else(|| panic!("{lines:?}"));
        let told = |line: &String| line.contains("one of its units does not run (the kernel: ");
        assert!(quarantine.evidence.iter().any(told), "{:?}", quarantine.evidence);
    }
}

/// Each line as people report it, about the card that the guest has.
#[test]
fn lines_of_other_drivers_and_other_forms_count_too() {
    for wedged in [
        "NVRM: Xid (PCI:0000:03:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "amdgpu 0000:03:00.0: amdgpu: device lost from bus!",
        "amdgpu 0000:03:00.0: SMU: No response msg_reg: 6 resp_reg: 0",
        "vfio-pci 0000:03:00.0: AMD_NAVI10: failed to reset device",
        "xe 0000:03:00.0: [drm] *ERROR* CRITICAL: Xe has declared device 0000:03:00.0 as wedged.\\x0aIOCTLs and executions are blocked.",
        "pcieport 0000:02:00.0: can't change power state from D3cold to D0 (config space inaccessible)",
    ] {
        let machine = machine();
        lived(&machine, &gamer("gpu: {}"), &[wedged]);
        assert!(machine.quarantine().is_some(), "{wedged}");
    }
    for suspicious in [
        "iommu ivhd0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=03:00.0 address=0x42b5b01a0]",
        "snd_hda_intel 0000:03:00.1: CORB reset timeout#2, CORBRP = 65535",
        "xhci_hcd 0000:03:00.2: HC died; cleaning up",
        "pcieport 0000:00:01.1: retraining failed",
    ] {
        let machine = machine();
        lived(&machine, &gamer("gpu: {return_to: host-if-clean}"), &[suspicious]);
        assert!(machine.quarantine().is_none(), "{suspicious}");
        assert_eq!(machine.drivers(), ON_VFIO, "{suspicious}");
    }
    for harmless in [
        "NVRM: Xid (PCI:0000:03:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
        "NVRM: Xid (PCI:0000:04:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "amdgpu 0000:03:00.0: Refused to change power state from D0 to D3hot",
        "pcieport 0000:00:01.1: AER: Correctable error message received from 0000:03:00.0",
    ] {
        let machine = machine();
        let before = machine.files();
        lived(&machine, &gamer("gpu: {return_to: host-if-clean}"), &[harmless]);
        machine.set("/dev/kmsg", before["/dev/kmsg"].trim_end());
        machine.assert_is(&before, harmless);
    }
}

/// What the host's configuration says counts until the guest's card is back, whatever becomes of the file.
#[test]
fn rows_of_the_hosts_configuration_count() {
    let host = "/etc/vfio-hook/host.yaml = kernel_lines: {ring-test: {severity: suspicious}, mine: {pattern: \"my card says \
                **\", severity: wedged, meaning: it says no}}\n";
    let machine = machine_with(host);
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    std::fs::remove_file(machine.path("/etc/vfio-hook/host.yaml")).unwrap();
    machine.kernel_says(RING);
    machine.release(&life).unwrap();
    assert!(machine.quarantine().is_none());

    let machine = machine_with(host);
    lived(&machine, &gamer("gpu: {}"), &["amdgpu 0000:03:00.0: amdgpu: my card says no"]);
    let evidence = machine.quarantine().unwrap().evidence;
    assert!(evidence[0].starts_with("it says no (the kernel: "), "{evidence:?}");
}

/// A machine whose card vendor-reset resets.
fn with_vendor_reset() -> Machine {
    machine_with(&format!(
        "/sys/module/vendor_reset/initstate = live\n\
         {DISPLAY}/reset_method = pm\n\
         /simulated/pci/{}/reset_methods = device_specific pm\n",
        CARD[0]
    ))
}

#[test]
fn a_reset_of_vendor_reset_has_to_have_run() {
    let yaml = "gpu: {reset_method: device_specific, return_to: host-if-clean}";
    let ran = [
        "vfio-pci 0000:03:00.0: AMD_NAVI10: version 1.1",
        "vfio-pci 0000:03:00.0: AMD_NAVI10: performing reset",
        "vfio-pci 0000:03:00.0: AMD_NAVI10: reset result = 0",
    ];
    let machine = with_vendor_reset();
    lived(&machine, &gamer(yaml), &ran);
    assert_eq!(machine.drivers(), HOST_DRIVERS);

    // The kernel took another way, and says nothing of it.
    for lines in [&[][..], &ran[..1], &["vfio-pci 0000:0e:00.0: AMD_NAVI10: performing reset"]] {
        let machine = with_vendor_reset();
        let outcome = lived(&machine, &gamer(yaml), lines);
        assert_eq!(machine.drivers(), ON_VFIO, "{lines:?}");
        assert!(machine.quarantine().is_none());
        let told =
            "0000:03:00.0 was to be reset by vendor-reset, which says nothing of a reset in the kernel's log";
        assert_eq!(outcome.notes.iter().filter(|note| note.text.contains(told)).count(), 1, "{outcome:?}");
    }

    // Without a guest that ran there was no reset, and another method has no such line.
    let machine = with_vendor_reset();
    let life = gamer(yaml);
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    let machine = with_vendor_reset();
    lived(&machine, &gamer("gpu: {reset_method: pm, return_to: host-if-clean}"), &[]);
    assert_eq!(machine.drivers(), HOST_DRIVERS);
}

//! `gpu report`: what a reader asks for.

use super::*;

#[test]
fn a_report_has_all_that_a_reader_asks_for() {
    let machine = Machine::with(
        r"
        /etc/os-release = PRETTY_NAME=Debian GNU/Linux 13 (trixie)
        /proc/cmdline = BOOT_IMAGE=/vmlinuz root=UUID=1234-secret ro quiet iommu=pt amdgpu.runpm=0
        /simulated/versions/libvirtd = libvirtd (libvirt) 11.3.0
        /simulated/versions/qemu-system-x86_64 = QEMU emulator version 10.0.3 (Debian 1:10.0.3+ds-1)
        /sys/module/vfio/initstate = live
        /sys/module/vfio_pci/parameters/ids = 1002:73bf
        /sys/module/vfio_pci/parameters/disable_idle_d3 = N
        ",
    );
    machine.quarantine(None);
    machine.fault("0000:03:00.0", "dead");
    machine.add(
        r"/dev/kmsg = 6,0,0,-;Linux version 6.12.57+deb13-amd64\n6,1204,4711000,-;[drm] Initialized amdgpu 3.61.0 for 0000:03:00.0 on minor 1\n6,1205,4712000,-;[drm] Initialized amdgpu 3.61.0 for 0000:0e:00.0 on minor 0\n3,2000,88812345678,-;vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up\n4,2001,88812345679,-;pcieport 0000:00:01.1: pciehp: Slot(0): Link Down",
    );
    let slot = PciSlot::meant_by("03:00").unwrap();
    let text = report::lines(&report::report(&machine.host(), Some(slot), soon()).unwrap()).join("\n");
    let text = text.replace(concat!("vfio-hook ", env!("CARGO_PKG_VERSION")), "vfio-hook VERSION");
    insta::assert_snapshot!(text, @"
    vfio-hook VERSION
    kernel 6.12.57+deb13-amd64
    its command line, as far as it concerns cards: iommu=pt amdgpu.runpm=0
    distribution Debian GNU/Linux 13 (trixie)
    libvirtd: libvirtd (libvirt) 11.3.0
    qemu-system-x86_64: QEMU emulator version 10.0.3 (Debian 1:10.0.3+ds-1)
    modules: vfio vfio_pci
      vfio_pci: disable_idle_d3=N ids=1002:73bf

    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         vfio-pci  D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           vfio-pci  D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         vfio-pci  D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  vfio-pci  D0  IOMMU group 27
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      health      does not work:
                  0000:03:00.0: config space reads ff
      reset       the whole bus, which has nothing but this card
      family      resets: the bus reset of the whole card
                  its driver resets it by mode 1
                  fails: Some have a picture at the first start only, until the host is rebooted
                  note: Reports differ. The author of vendor-reset calls them fine, and many are. With
                    `guest_reboot: allow` you can find out about yours
      used by     nobody
      quarantine  since 2 h, guest win11
                  0000:03:00.0: config space reads ff
                  `vfio-hook gpu clear 0000:03:00` looks at it again

    the kernel's log about it, the last 3 lines:
      [    4.711000] [drm] Initialized amdgpu 3.61.0 for 0000:03:00.0 on minor 1
      [88812.345678] vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up
      [88812.345679] pcieport 0000:00:01.1: pciehp: Slot(0): Link Down

    what of it is known to mean something, the oldest first:
      0000:03:00.0 harmless (drm-initialised): its driver of the host has started it
        [drm] Initialized amdgpu 3.61.0 for 0000:03:00.0 on minor 1
      0000:03:00.0 wedged (reset-gave-up): it did not come back after a reset
        vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up
        help: `recover` in the guest's file names what is tried then; switching the host's power off and on is what nearly always helps
      0000:00:01.1 suspicious (slot-link-down): the link to it went down
        pcieport 0000:00:01.1: pciehp: Slot(0): Link Down
        help: a bus reset below a port that allows hot-plug looks like this on older kernels; else check the slot, a riser and the power supply

    what vfio-hook did: `journalctl -b -t vfio-hook` (not in here: commands of yours may have printed into it)
    ");
    assert!(!text.contains("secret"));
}

#[test]
fn a_long_log_is_cut_to_its_last_lines() {
    let machine = Machine::new();
    let line = |number: u32| format!(r"6,{number},{number},-;amdgpu 0000:03:00.0: line {number}.");
    let lines: Vec<String> = (1..=500).map(line).collect();
    machine.add(&format!("/dev/kmsg = {}", lines.join(r"\n")));
    let slot = PciSlot::meant_by("03:00").unwrap();
    let text = report::lines(&report::report(&machine.host(), Some(slot), soon()).unwrap()).join("\n");
    assert!(text.contains("the last 200 lines:") && text.contains("line 301.") && text.contains("line 500."));
    assert!(!text.contains("line 300."));
}

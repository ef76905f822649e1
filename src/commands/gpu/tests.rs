//! What people see of graphics cards, on hosts in folders.

mod clearing;
mod reports;

use std::fs;

use super::*;
use crate::deadline::Deadline;
use crate::host::STATE_DIR;
use crate::ledger::{FILE, Ledger, SECOND};
use crate::lifecycle::testing::{GUEST, Machine, soon, stuck};
use crate::pci::PciFunctions;

/// What amdgpu makes of the RX 6800 with a monitor, and a program that has it open.
const IN_USE: &str = "
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/dev = 226:1
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/uevent = DEVNAME=dri/card1
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/card1-DP-1/status = connected
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/card1-DP-1/enabled = enabled
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/card1-DP-2/status = disconnected
/proc/1234/cgroup = 0::/system.slice/sddm.service
/proc/1234/fd/3 -> /dev/dri/card1
";

/// The list of names that comes with `lspci`, as far as it is about this desktop.
const NAMES: &str = "
/usr/share/misc/pci.ids = # a part\\n1002  AMD\\n\t73bf  Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]\\n1022  AMD\\n\t15b7  Raphael/Granite Ridge USB 3.1 xHCI
";

/// What is shown of the RX 6800.
fn shown(machine: &Machine) -> String {
    shown_of(machine, Some("03:00"))
}

fn shown_of(machine: &Machine, card: Option<&str>) -> String {
    let card = card.map(|card| PciSlot::meant_by(card).unwrap());
    look::lines(&look::view(&machine.host(), card).unwrap()).join("\n")
}

/// What `gpu clear` prints, and how it exits.
fn clear(machine: &Machine, card: Option<&str>, deadline: Deadline) -> (String, Exit) {
    let card = card.map(|card| PciSlot::meant_by(card).unwrap());
    let clearances = clear::carry_out(&mut machine.host(), card, deadline).unwrap();
    (clear::lines(&clearances).join("\n"), clear::exit(&clearances))
}

#[test]
fn all_cards_are_shown_with_what_is_known_of_them() {
    insta::assert_snapshot!(shown_of(&Machine::new(), None), @"
    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         amdgpu              D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           snd_hda_intel       D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         xhci_hcd            D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  i2c-designware-pci  D0  IOMMU group 27
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      health      answers, link 16 GT/s x16
      reset       the whole bus, which has nothing but this card
      family      resets: the bus reset of the whole card
                  its driver resets it by mode 1
                  fails: Some have a picture at the first start only, until the host is rebooted
                  note: Reports differ. The author of vendor-reset calls them fine, and many are. With
                    `guest_reboot: allow` you can find out about yours
      used by     nobody

    graphics card 0000:0e:00, family amd-apu
      functions   0000:0e:00.0  1002:164e  VGA controller  amdgpu         D0  IOMMU group 28
                  0000:0e:00.1  1002:1640  audio device    snd_hda_intel  D0  IOMMU group 29
      ports       0000:00:08.1 of the processor
      health      answers, link 16 GT/s x16
      reset       the whole bus, which has nothing but this card
      family      resets: none for the card alone; it is a part of the processor, and no bus can be reset for it
                  its driver resets it by mode 2
                  the host's driver may leave it in disorder after a guest: `return_to: vfio` avoids that
                  fails: After a reboot of the guest the host may crash, and after a guest that was killed the
                    picture stands still
                  note: The guest needs the ROM as a file, and the audio function and often the security processor
                    beside it
      pictures    the firmware showed its picture on it
      used by     nobody
    ");
}

#[test]
fn a_model_has_the_name_that_the_host_has_for_it() {
    let machine = Machine::with(NAMES);
    let name = "Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]";
    let first_line = |card| shown_of(&machine, Some(card)).lines().next().unwrap().to_owned();
    assert_eq!(first_line("03:00"), format!("graphics card 0000:03:00, {name}, family navi-2x"));
    assert_eq!(first_line("0e:00"), "graphics card 0000:0e:00, family amd-apu");
    assert_eq!(first_line("0f:00.3"), "device 0000:0f:00, Raphael/Granite Ridge USB 3.1 xHCI");
    let json = serde_json::to_value(look::view(&machine.host(), None).unwrap()).unwrap();
    assert_eq!(json["cards"][0]["name"], name);
    machine.prepare().unwrap();
    let lease = &machine.record().leases[&GUEST];
    let known = format!("graphics card 0000:03:00.{{0,1,2,3}} ({name}, 1002:73bf, navi-2x)");
    assert_eq!(lease.cards[0].name, known);
}

#[test]
fn a_card_in_use_names_its_users_and_monitors() {
    let machine = Machine::with(IN_USE);
    let fields = format!("{}4242 {}", "0 ".repeat(18), "0 ".repeat(30));
    machine.add(&format!("/proc/1234/stat = 1234 (Xorg) S {fields}\n"));
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         amdgpu              D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           snd_hda_intel       D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         xhci_hcd            D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  i2c-designware-pci  D0  IOMMU group 27
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      health      answers, link 16 GT/s x16
      reset       the whole bus, which has nothing but this card
      family      resets: the bus reset of the whole card
                  its driver resets it by mode 1
                  fails: Some have a picture at the first start only, until the host is rebooted
                  note: Reports differ. The author of vendor-reset calls them fine, and many are. With
                    `guest_reboot: allow` you can find out about yours
      pictures    card1: monitors on DP-1
      used by     Xorg (process 1234, sddm.service) has /dev/dri/card1 open
    ");
}

#[test]
fn a_card_that_is_wedged_says_what_was_seen() {
    let machine = Machine::new();
    machine.fault("0000:03:00.0", "dead");
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         amdgpu              D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           snd_hda_intel       D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         xhci_hcd            D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  i2c-designware-pci  D0  IOMMU group 27
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
    ");
    machine.fault("0000:03:00.0", "config-hangs 4711");
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         amdgpu              D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           snd_hda_intel       D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         xhci_hcd            D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  i2c-designware-pci  D0  IOMMU group 27
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      health      hangs the kernel:
                  0000:03:00.0: did not answer in time
                  0000:03:00.1: did not answer in time
                  0000:03:00.2: did not answer in time
                  0000:03:00.3: did not answer in time
                  process 4711 hangs in the kernel since it read config space
      reset       the whole bus, which has nothing but this card
      family      resets: the bus reset of the whole card
                  its driver resets it by mode 1
                  fails: Some have a picture at the first start only, until the host is rebooted
                  note: Reports differ. The author of vendor-reset calls them fine, and many are. With
                    `guest_reboot: allow` you can find out about yours
      used by     nobody
    ");
}

#[test]
fn without_an_iommu_it_is_said_what_to_switch_on() {
    let machine = Machine::new();
    for function in 0..4 {
        let link = format!("/sys/bus/pci/devices/0000:03:00.{function}/iommu_group");
        fs::remove_file(machine.path(&link)).unwrap();
    }
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         amdgpu              D0
                  0000:03:00.1  1002:ab28  audio device           snd_hda_intel       D0
                  0000:03:00.2  1002:73a6  USB controller         xhci_hcd            D0
                  0000:03:00.3  1002:73a4  serial bus controller  i2c-designware-pci  D0
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      iommu       in no IOMMU group, so no guest can have it: switch the IOMMU on in the firmware (AMD-Vi, VT-d),
                    and on Intel with intel_iommu=on on the kernel command line
      health      answers, link 16 GT/s x16
      reset       the whole bus, which has nothing but this card
      family      resets: the bus reset of the whole card
                  its driver resets it by mode 1
                  fails: Some have a picture at the first start only, until the host is rebooted
                  note: Reports differ. The author of vendor-reset calls them fine, and many are. With
                    `guest_reboot: allow` you can find out about yours
      used by     nobody
    ");
}

#[test]
fn who_else_is_reset_and_in_the_group_is_named() {
    let machine = Machine::new();
    // The USB controller of the mainboard moves to the card's group, and has no driver.
    machine.add(
        "/sys/kernel/iommu_groups/24/devices/0000:0f:00.3 = \n/sys/module/vendor_reset/initstate = live\n",
    );
    machine.add("/etc/vfio-hook/host.yaml = gpu_families: {mine: {ids: [\"1002:73bf\"], reboot: fine, vendor_reset: supported}}");
    let reset = machine.path("/sys/bus/pci/devices/0000:03:00.0/reset_method");
    fs::write(reset, "device_specific bus\n").unwrap();
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00, family mine
      functions   0000:03:00.0  1002:73bf  VGA controller         amdgpu              D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           snd_hda_intel       D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         xhci_hcd            D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  i2c-designware-pci  D0  IOMMU group 27
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      iommu       group 24 also has 0000:0f:00.3 (xhci_hcd)
      health      answers, link 16 GT/s x16
      reset       0000:03:00.0 by device_specific, bus; or the whole bus
      family      vendor-reset knows it, and is loaded
      used by     nobody
    ");
}

#[test]
fn a_card_that_is_handed_over_says_to_whom() {
    let machine = Machine::new();
    machine.prepare().unwrap();
    machine.write(machine.record());
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         vfio-pci  D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           vfio-pci  D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         vfio-pci  D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  vfio-pci  D0  IOMMU group 27
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      health      answers, link 16 GT/s x16
      reset       the whole bus, which has nothing but this card
      family      resets: the bus reset of the whole card
                  its driver resets it by mode 1
                  fails: Some have a picture at the first start only, until the host is rebooted
                  note: Reports differ. The author of vendor-reset calls them fine, and many are. With
                    `guest_reboot: allow` you can find out about yours
      used by     nobody
      guest       win11: prepared, since 2 h; return_to: host-if-clean
    ");
}

#[test]
fn a_card_in_quarantine_says_why_and_what_hangs() {
    let machine = Machine::new();
    machine.quarantine(None);
    machine.fault("0000:03:00.0", "dead");
    insta::assert_snapshot!(shown(&machine), @"
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
    ");

    let machine = Machine::new();
    machine.quarantine(Some(stuck()));
    machine.fault("0000:03:00.0", "config-hangs 4711");
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00, family navi-2x
      functions   0000:03:00.0  1002:73bf  VGA controller         vfio-pci  D0  IOMMU group 24
                  0000:03:00.1  1002:ab28  audio device           vfio-pci  D0  IOMMU group 25
                  0000:03:00.2  1002:73a6  USB controller         vfio-pci  D0  IOMMU group 26
                  0000:03:00.3  1002:73a4  serial bus controller  vfio-pci  D0  IOMMU group 27
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      health      not asked: the kernel already hangs on it
      reset       the whole bus, which has nothing but this card
      family      resets: the bus reset of the whole card
                  its driver resets it by mode 1
                  fails: Some have a picture at the first start only, until the host is rebooted
                  note: Reports differ. The author of vendor-reset calls them fine, and many are. With
                    `guest_reboot: allow` you can find out about yours
      used by     nobody
      quarantine  since 2 h, guest win11
                  0000:03:00.0: config space reads ff
      hangs       process 1 since 2 h: failed to write `0000:03:00.0` to /sys/bus/pci/drivers/vfio-pci/unbind: the
                    kernel has not come back within 30 s (process 1)
                  process 1 hangs in the kernel and cannot be ended: only restarting the host frees the card
    ");
}

#[test]
fn a_card_that_fell_off_the_bus_is_still_shown() {
    let machine = Machine::new();
    machine.quarantine(None);
    for function in 0..4 {
        fs::remove_file(machine.path(&format!("/sys/bus/pci/devices/0000:03:00.{function}"))).unwrap();
    }
    insta::assert_snapshot!(shown(&machine), @"
    graphics card 0000:03:00.{0,1,2,3} (1002:73bf, navi-2x)
      functions   0000:03:00.0  1002:73bf  gone
                  0000:03:00.1  1002:ab28  gone
                  0000:03:00.2  1002:73a6  gone
                  0000:03:00.3  1002:73a4  gone
      ports       0000:02:00.0, 0000:01:00.0 on the card, then 0000:00:01.1 of the processor
      health      does not work:
                  0000:03:00.0: the kernel has no such function
                  0000:03:00.1: the kernel has no such function
                  0000:03:00.2: the kernel has no such function
                  0000:03:00.3: the kernel has no such function
      reset       none: the kernel no longer has it
      used by     nobody
      quarantine  since 2 h, guest win11
                  0000:03:00.0: config space reads ff
                  `vfio-hook gpu clear 0000:03:00` looks at it again
    ");
}

#[test]
fn programs_read_the_same() {
    let machine = Machine::new();
    let slot = PciSlot::meant_by("0e:00.0").unwrap();
    let json = serde_json::to_string_pretty(&look::view(&machine.host(), Some(slot)).unwrap()).unwrap();
    insta::assert_snapshot!(json, @r#"
    {
      "cards": [
        {
          "slot": "0000:0e:00",
          "functions": [
            {
              "address": "0000:0e:00.0",
              "model": "1002:164e",
              "class": "VGA controller",
              "driver": "amdgpu",
              "power_state": "D0",
              "iommu_group": 28,
              "reset_methods": []
            },
            {
              "address": "0000:0e:00.1",
              "model": "1002:1640",
              "class": "audio device",
              "driver": "snd_hda_intel",
              "power_state": "D0",
              "iommu_group": 29,
              "reset_methods": []
            }
          ],
          "family": {
            "name": "amd-apu",
            "resets": "none for the card alone; it is a part of the processor, and no bus can be reset for it",
            "driver_reset": "mode 2",
            "fails": "After a reboot of the guest the host may crash, and after a guest that was killed the picture stands still",
            "note": "The guest needs the ROM as a file, and the audio function and often the security processor beside it",
            "vendor_reset": "unsupported",
            "host_driver": "fragile"
          },
          "ports": {
            "card": [],
            "mainboard": [],
            "root": "0000:00:08.1"
          },
          "group_others": [],
          "bus_reset": "only-the-card",
          "boot_display": true,
          "drm_cards": [],
          "users": {
            "known": []
          },
          "health": {
            "state": "answers",
            "evidence": [],
            "link": "16 GT/s x16"
          },
          "quarantines": [],
          "stuck": []
        }
      ],
      "problems": []
    }
    "#);
}

#[test]
fn another_device_can_be_looked_at_and_one_that_is_not_there_is_refused() {
    let machine = Machine::new();
    insta::assert_snapshot!(shown_of(&machine, Some("0f:00.3")), @"
    device 0000:0f:00
      functions   0000:0f:00.3  1022:15b7  USB controller  xhci_hcd  D0  IOMMU group 33
      ports       0000:00:08.3 of the processor
      health      answers, link 16 GT/s x16
      reset       0000:0f:00.3 by pm; or the whole bus
      used by     nobody
    ");
    let error = look::view(&machine.host(), Some("0000:99:00".parse().unwrap())).unwrap_err();
    insta::assert_snapshot!(error, @"
    this host has no device 0000:99:00
    help: the graphics cards are 0000:03:00, 0000:0e:00
    ");
    let empty = Machine(tempfile::tempdir().unwrap());
    assert_eq!(shown_of(&empty, None), "this host has no graphics card");
}

#[test]
fn what_cannot_be_read_keeps_nobody_from_seeing_the_cards() {
    let machine = Machine::new();
    machine.prepare().unwrap();
    for slot in [FILE, SECOND] {
        fs::write(machine.path(STATE_DIR).join(slot), "{").unwrap();
    }
    machine.add("/etc/vfio-hook/host.yaml = gpu_families: {mine: {ids: []}}");
    let shown = shown(&machine);
    let warnings = shown.split_once("\nwarning: ").unwrap().1;
    insta::assert_snapshot!(warnings, @"
    who has a card and which are in quarantine is not known: /run/vfio-hook/ledger.json: the ledger is damaged: EOF while parsing an object at line 1 column 1
    help: look at /run/vfio-hook/ledger.json; restarting the host removes it together with everything it describes
    warning: error: `gpu_families.mine.reboot` is missing
     --> /etc/vfio-hook/host.yaml:1:22
      |
    1 | gpu_families: {mine: {ids: []}}
      |                      ^^^^^^^
      |
      = help: say what a reboot of the guest does to a card: `reboot: fine` or `reboot: fragile`

    error: `gpu_families.mine.ids`: is applied to no card: the list is empty
     --> /etc/vfio-hook/host.yaml:1:28
      |
    1 | gpu_families: {mine: {ids: []}}
      |                            ^
      |
      = help: fill it, or remove the key
    ");
}

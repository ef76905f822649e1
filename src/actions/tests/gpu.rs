//! The section `gpu`.

use std::collections::BTreeMap;

use super::services::{unit, unit_of};
use super::*;
use crate::gpu::{GuestReboot, KeepAwake, RecoveryStep, ResetMethod, ReturnTo};
use crate::pci::BarSize;

fn gpu(text: &str) -> Gpu {
    parse(&format!("gpu: {text}")).unwrap_or_else(|errors| panic!("{errors}")).gpu.unwrap()
}

fn size(text: &str) -> BarSize {
    text.parse().unwrap()
}

/// What the good file says.
pub(super) fn every_key() -> Gpu {
    Gpu {
        devices: DeviceChoice::List(vec!["0000:03:00.0".parse().unwrap()]),
        return_to: ReturnTo::HostIfClean,
        keep_awake: KeepAwake::Never,
        guest_reboot: Some(GuestReboot::Restart),
        holders: Holders {
            wait: Duration::from_secs(15),
            stop: vec![unit("sunshine.service"), unit_of("anna", "wireplumber.service")],
        },
        compositors: Compositors::UdevRemove,
        display_manager: DisplayManager::Stop,
        consoles: Consoles::Free,
        reset_methods: Some(vec![ResetMethod::DeviceSpecific, ResetMethod::Flr]),
        bars: BTreeMap::from([(0, size("16 GiB")), (2, size("256 MiB"))]),
        recover: vec![RecoveryStep::Reset, RecoveryStep::RescanCard],
        reset_after: vec![RecoveryStep::BusReset],
        timeout: Duration::from_secs(20),
        other_devices: OtherDevices::Libvirt,
    }
}

#[test]
fn without_keys_nothing_is_stopped_tried_or_resized() {
    let gpu = gpu("{}");
    assert_eq!(gpu, Gpu::default());
    assert_eq!((gpu.devices, gpu.return_to), (DeviceChoice::Auto, ReturnTo::Host));
    assert_eq!((gpu.guest_reboot, gpu.reset_methods), (None, None));
    assert_eq!(gpu.holders, Holders { wait: Duration::ZERO, stop: Vec::new() });
    assert_eq!((gpu.display_manager, gpu.other_devices), (DisplayManager::Keep, OtherDevices::Bind));
    assert!(gpu.bars.is_empty() && gpu.recover.is_empty());
    assert_eq!(gpu.timeout, Duration::from_secs(30));
}

#[test]
fn one_value_needs_no_list() {
    let one = "{devices: 0000:03:00.0, reset_method: bus, recover: reset, holders: {stop: a.service}}";
    let list =
        "{devices: [0000:03:00.0], reset_method: [bus], recover: [reset], holders: {stop: [a.service]}}";
    assert_eq!(gpu(one), gpu(list));
    assert_eq!(gpu(one).devices, DeviceChoice::List(vec!["0000:03:00.0".parse().unwrap()]));
}

#[test]
fn the_order_of_the_file_is_kept() {
    let gpu = gpu("{recover: [deep-sleep, reset], reset_method: [bus, flr]}");
    assert_eq!(gpu.recover, [RecoveryStep::DeepSleep, RecoveryStep::Reset]);
    assert_eq!(gpu.reset_methods, Some(vec![ResetMethod::Bus, ResetMethod::Flr]));
}

#[test]
fn words_for_the_defaults_are_the_defaults() {
    let words = "{devices: auto, return_to: host, holders: refuse, compositors: refuse, display_manager: keep, timeout: 30s, \
                 other_devices: bind}";
    assert_eq!(gpu(words), Gpu::default());
}

#[test]
fn functions_of_one_card_are_different_devices() {
    let DeviceChoice::List(devices) = gpu("{devices: [\"0000:03:00.0\", \"0000:03:00.1\"]}").devices else {
        panic!("a list")
    };
    assert_eq!(devices.len(), 2);
}

#[test]
fn says_what_is_wrong_and_where() {
    assert_eq!(
        mistakes(
            "\
gpu:
  devices: [03:00.0, pci_0000_03_00_0, card0, 3, 0000:03:00.0, 0000:03:00.0]
  return_to: vfio-pci
  guest_reboot: yes
  holders: {wait: 2min, stop: [sunshine], kill: now}
  display_manager: restart
  reset_method: [flr, default, function, flr]
  bars: {0: 12GiB, 6: 1GiB, 1: 256, 2: 1TiB, 3: 0MiB, x: 1GiB}
  recover: [bus_reset, reboot, reset, reset]
  timeout: 50s
  other_devices: ignore
  rom: x
"
        ),
        [
            "2:13: `gpu.devices`: expected `auto` or a PCI address, found `03:00.0` (did you mean `0000:03:00.0`?)",
            "2:22: `gpu.devices`: expected `auto` or a PCI address, found `pci_0000_03_00_0` (did you mean \
             `0000:03:00.0`?)",
            "2:40: `gpu.devices`: expected `auto` or a PCI address, found `card0` (`auto` takes the graphics cards of \
             the guest's XML; an address looks like \"0000:03:00.0\", and `lspci -D` shows those there are)",
            "2:47: `gpu.devices`: expected `auto` or a PCI address, found the number 3 (`auto` takes the graphics cards \
             of the guest's XML; an address looks like \"0000:03:00.0\", and `lspci -D` shows those there are)",
            "2:64: `gpu.devices`: `0000:03:00.0` stands here for the second time (keep one of the two)",
            "3:14: `gpu.return_to`: expected `host`, `vfio` or `host-if-clean`, found `vfio-pci`",
            "4:17: `gpu.guest_reboot`: expected `refuse`, `restart` or `allow`, found `yes`",
            "5:19: `gpu.holders.wait`: longer than 45s (libvirt waits meanwhile, and `prepare` has 60 s in all)",
            "5:32: `gpu.holders.stop`: `sunshine` does not end with a unit's type (did you mean `sunshine.service`?)",
            "5:43: unknown key `kill` in `gpu.holders` (allowed here: `wait` or `stop`)",
            "6:20: `gpu.display_manager`: expected `keep` or `stop`, found `restart`",
            "7:23: `gpu.reset_method`: `default` has no effect (remove the key: without it the kernel's own choice \
             stays)",
            "7:32: `gpu.reset_method`: expected `device_specific`, `acpi`, `flr`, `af_flr`, `pm`, `bus` or `cxl_bus`, \
             found `function`",
            "7:42: `gpu.reset_method`: `flr` stands here for the second time (keep one of the two)",
            "8:13: `gpu.bars.0`: a BAR has a power of two from 1 MiB to 512 GiB, not 12 GiB (take `8 GiB` or `16 GiB`)",
            "8:20: `gpu.bars`: expected the number of a BAR, 0 to 5, found the number 6 \
             (`/sys/bus/pci/devices/ADDRESS` has a file `resourceN_resize` for each BAR that can be resized)",
            "8:32: `gpu.bars.1`: 256 has no unit (add a unit: for example `256 MiB`)",
            "8:40: `gpu.bars.2`: a BAR has a power of two from 1 MiB to 512 GiB, not 1 TiB (take `512 GiB`)",
            "8:49: `gpu.bars.3`: a BAR has a power of two from 1 MiB to 512 GiB, not 0 B (take `1 MiB`)",
            "8:55: `gpu.bars`: expected the number of a BAR, 0 to 5, found `x` (`/sys/bus/pci/devices/ADDRESS` has a \
             file `resourceN_resize` for each BAR that can be resized)",
        ]
    );
    assert_eq!(
        mistakes(
            "gpu:\n  recover: [bus_reset, reboot, reset, reset]\n  timeout: 50s\n  other_devices: ignore\n  rom: x\n"
        ),
        [
            "2:13: `gpu.recover`: expected `reset`, `bus-reset`, `rescan`, `rescan-card`, `slot-power`, `host-driver` \
             or `deep-sleep`, found `bus_reset` (did you mean `bus-reset`?)",
            "2:24: `gpu.recover`: expected `reset`, `bus-reset`, `rescan`, `rescan-card`, `slot-power`, `host-driver` \
             or `deep-sleep`, found `reboot`",
            "2:39: `gpu.recover`: `reset` stands here for the second time (keep one of the two)",
            "3:12: `gpu.timeout`: not between 1s and 45s (libvirt waits meanwhile, and `prepare` has 60 s in all; \
             without a timeout it is 30s)",
            "4:18: `gpu.other_devices`: expected `bind` or `libvirt`, found `ignore`",
            "5:3: unknown key `rom` in `gpu` (allowed here: `devices`, `return_to`, `keep_awake`, `guest_reboot`, \
             `holders`, `compositors`, `display_manager`, `consoles`, `reset_method`, `bars`, `recover`, `reset_after`, \
             `timeout` or `other_devices`)",
        ]
    );
    assert_eq!(
        mistakes(
            "gpu:\n  keep_awake: always\n  consoles: stop\n  reset_after: [host-driver, busreset]\n  compositors: remove\n"
        ),
        [
            "2:15: `gpu.keep_awake`: expected `auto` or `never`, found `always`",
            "3:13: `gpu.consoles`: expected `auto`, `free` or `keep`, found `stop`",
            "4:17: `gpu.reset_after`: expected `reset`, `bus-reset`, `rescan`, `rescan-card`, `slot-power` or \
             `deep-sleep`, found `host-driver`",
            "4:30: `gpu.reset_after`: expected `reset`, `bus-reset`, `rescan`, `rescan-card`, `slot-power` or \
             `deep-sleep`, found `busreset` (did you mean `bus-reset`?)",
            "5:16: `gpu.compositors`: expected `refuse` or `udev-remove`, found `remove`",
        ]
    );
}

#[test]
fn what_has_no_effect_is_a_mistake() {
    for (text, mistake) in [
        (
            "{devices: []}",
            "1:16: `gpu.devices`: takes no card: the list is empty (fill it, or remove the key)",
        ),
        (
            "{reset_method: []}",
            "1:21: `gpu.reset_method`: names no method: the list is empty (fill it, or remove the key)",
        ),
        (
            "{recover: []}",
            "1:16: `gpu.recover`: tries nothing: the list is empty (fill it, or remove the key)",
        ),
        (
            "{bars: {}}",
            "1:13: `gpu.bars`: resizes nothing (fill it, for example `{0: 16 GiB, 2: 256 MiB}`, or remove the key)",
        ),
        (
            "{holders: {}}",
            "1:16: `gpu.holders`: has no effect: nothing is waited for or stopped (add `wait` or `stop`: for example \
             `{wait: 15s, stop: [sunshine.service]}`; or write `holders: refuse`)",
        ),
        (
            "{holders: {wait: 0s}}",
            "1:23: `gpu.holders.wait`: a wait of zero has no effect (remove it: without it nobody is waited for)",
        ),
        (
            "{holders: {stop: []}}",
            "1:23: `gpu.holders.stop`: stops nothing: the list is empty (fill it, or remove the key)",
        ),
        (
            "{holders: {stop: display-manager.service}}",
            "1:23: `gpu.holders.stop`: `display-manager.service` has a key of its own (write `display_manager: stop`, \
             and remove it here)",
        ),
    ] {
        assert_eq!(mistakes(&format!("gpu: {text}")), [mistake], "{text}");
    }
    assert_eq!(
        mistakes("gpu:\n  holders: {stop: [b.service, a.service]}\nservices: {stop: a.service}\n"),
        [
            "2:19: `gpu.holders.stop`: `a.service` has no effect here: `services.stop` names it too (keep one of the two)"
        ]
    );
}

#[test]
fn holders_are_refused_or_described() {
    assert_eq!(
        mistakes("gpu: {holders: refused}"),
        [
            "1:16: `gpu.holders`: expected `refuse` or keys and values, found `refused` (did you mean `refuse`?)"
        ]
    );
    assert_eq!(
        mistakes("gpu: {holders: [sunshine.service]}"),
        [
            "1:16: `gpu.holders`: expected `refuse` or keys and values, found a list (units to stop are named like this: \
          `{wait: 15s, stop: [sunshine.service]}`)"
        ]
    );
    assert_eq!(
        mistakes("gpu: {holders: {stop: {user: anna}}}"),
        ["1:23: `gpu.holders.stop.unit` is missing (name the unit: `unit: pipewire.service`)"]
    );
    assert_eq!(gpu("{holders: {stop: a.service}}").holders.wait, Duration::ZERO);
    assert!(gpu("{holders: {wait: 45s}}").holders.stop.is_empty());
}

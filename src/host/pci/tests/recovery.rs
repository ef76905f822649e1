//! The steps that bring a device back.

use nix::errno::Errno;

use super::*;

fn answers(machine: &Machine) -> bool {
    let host = machine.host();
    let expected: Vec<Expected> = card()
        .iter()
        .filter_map(|function| host.pci_function(*function).ok())
        .map(|function| Expected::from(&function))
        .collect();
    expected.len() == 4 && host.probe_pci(&expected, &[], soon()).unwrap().all_answer()
}

#[test]
fn a_reset_of_one_function() {
    let machine = Machine::new();
    let usb = address("0000:0f:00.3");
    machine.fault("0000:0f:00.3", "dead until reset");
    let mut host = machine.host();
    let expected = [Expected::from(&host.pci_function(usb).unwrap())];
    assert!(!host.probe_pci(&expected, &[], soon()).unwrap().all_answer());
    host.reset_function(usb, soon()).unwrap();
    assert!(host.probe_pci(&expected, &[], soon()).unwrap().all_answer());

    let no_reset = host.reset_function(card()[0], soon()).unwrap_err();
    assert_eq!(no_reset.to_string(), "0000:03:00.0 cannot be reset by itself");
    host.set_pci_attribute(usb, PciAttribute::ResetMethod, "", soon()).unwrap();
    assert!(matches!(
        host.reset_function(usb, soon()).unwrap_err().pci_trouble(),
        Some(PciTrouble::NoReset(_))
    ));
    assert!(host.reset_function(address("0000:04:00.0"), soon()).unwrap_err().is_absent());
    machine.fault("0000:0f:00.3", "reset-hangs");
    assert!(host.reset_function(usb, soon()).unwrap_err().stuck_process().is_some());
}

#[test]
fn a_reset_of_all_below_a_port() {
    let machine = Machine::new();
    for function in card() {
        machine.fault(&function.to_string(), "dead until reset_subordinate");
    }
    let mut host = machine.host();
    assert!(!answers(&machine));
    host.reset_subordinate(address("0000:02:00.0"), soon()).unwrap();
    assert!(answers(&machine));
    let error = host.reset_subordinate(card()[0], soon()).unwrap_err();
    assert_eq!(error.to_string(), "this kernel cannot reset what is below 0000:03:00.0");
}

/// A host whose kernel keeps what it finds from drivers while it is told to.
fn heeding() -> Machine {
    let machine = Machine::new();
    machine.set("/proc/sys/kernel/osrelease", "6.19.0-1-amd64");
    assert_eq!(machine.host().rescan_binding().unwrap(), RescanBinding::WhenAsked);
    machine
}

#[test]
fn old_kernels_give_what_they_find_to_a_driver_at_once() {
    for (release, binding) in [
        ("6.1.0-37-amd64", RescanBinding::AtOnce),
        ("6.12.57+deb13-amd64", RescanBinding::AtOnce),
        ("6.18.9-arch1-1", RescanBinding::AtOnce),
        ("6.19.0", RescanBinding::WhenAsked),
        ("6.19-rc3", RescanBinding::WhenAsked),
        ("7.0.1-200.fc44.x86_64", RescanBinding::WhenAsked),
        ("custom", RescanBinding::AtOnce),
    ] {
        assert_eq!(RescanBinding::of_kernel(release), binding, "{release}");
    }
    let machine = Machine::new();
    let mut host = machine.host();
    host.remove_functions(&card(), soon()).unwrap();
    host.rescan(address("0000:02:00.0"), &card(), soon()).unwrap();
    assert_eq!(card().map(|function| host.pci_driver(function).unwrap().unwrap()), HOST_DRIVERS.map(driver));
}

#[test]
fn loaded_modules_that_know_a_function() {
    let machine = Machine::new();
    let loaded = || machine.host().loaded_drivers_of(card()[0]).unwrap();
    assert_eq!(loaded(), [""; 0]);
    machine.add(
        "/lib/modules/6.12.57+deb13-amd64/modules.alias = alias pci:v00001002d*sv*sd*bc03sc00i00* amdgpu\\n\
         alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\\nalias pci:v000010DEd*sv*sd*bc03sc00i00* nouveau\n\
         /sys/module/nouveau/drivers/pci:nouveau -> ../../../bus/pci/drivers/nouveau\n\
         /sys/module/vfio_pci/drivers/pci:vfio-pci -> ../../../bus/pci/drivers/vfio-pci",
    );
    assert_eq!(loaded(), [""; 0]);
    machine.add("/sys/module/amdgpu/drivers/pci:amdgpu -> ../../../bus/pci/drivers/amdgpu");
    assert_eq!(loaded(), ["amdgpu"]);
    assert!(machine.host().loaded_drivers_of(address("0000:44:00.0")).unwrap_err().is_absent());
}

#[test]
fn removed_and_found_again_without_a_driver() {
    let machine = heeding();
    for function in card() {
        machine.fault(&function.to_string(), "dead until rescan");
    }
    let mut host = machine.host();
    host.remove_functions(&card(), soon()).unwrap();
    assert_eq!(host.pci_functions_of(card()[0].slot()), []);
    assert!(host.iommu_group_members(24).unwrap().is_empty());
    // Already gone: nothing to do.
    host.remove_functions(&card(), soon()).unwrap();
    host.rescan(address("0000:02:00.0"), &card(), soon()).unwrap();
    assert!(answers(&machine));
    let bindings = host.bindings(&card(), &AskedBars::new()).unwrap();
    assert!(bindings.0.values().all(|binding| *binding == Binding::default()), "{bindings:?}");
    assert_eq!(machine.get("/sys/bus/pci/drivers_autoprobe"), "1");
    assert_eq!(host.iommu_group_members(24).unwrap(), [card()[0]]);
    assert_eq!(machine.log()[..2], ["0000:03:00.3 remove", "0000:03:00.2 remove"]);
}

#[test]
fn removed_with_its_switch_and_found_again() {
    let machine = heeding();
    let mut host = machine.host();
    let upper = address("0000:01:00.0");
    let before = machine.everything();
    host.remove_functions(&[card()[1]], soon()).unwrap();
    host.remove_functions(&[upper], soon()).unwrap();
    assert!(!host.is_pci_function(upper) && !host.is_pci_function(card()[0]));
    let mut all = vec![upper, address("0000:02:00.0")];
    all.extend(card());
    host.rescan(address("0000:00:01.1"), &all, soon()).unwrap();
    // The ports have their driver again, the card has none.
    assert_eq!(host.pci_driver(upper).unwrap(), Some(driver("pcieport")));
    assert_eq!(host.pci_driver(card()[0]).unwrap(), None);
    let drivers = HOST_DRIVERS.map(|name| Binding::to_host(driver(name)));
    host.set_bindings(&Bindings(card().into_iter().zip(drivers).collect()), soon()).unwrap();
    let auto: Vec<PathBuf> = before.keys().filter(|path| path.ends_with("power/control")).cloned().collect();
    let without = |mut all: BTreeMap<PathBuf, String>| {
        all.retain(|path, _| !auto.contains(path));
        all
    };
    assert_eq!(without(machine.everything()), without(before.clone()));
}

#[test]
fn autoprobe_is_put_back_whatever_happens() {
    let machine = Machine::new();
    let mut host = machine.host();
    host.remove_functions(&[card()[3]], soon()).unwrap();
    machine.fault("0000:03:00.3", "stays-away");
    let error = host
        .rescan(address("0000:02:00.0"), &card(), Deadline::after(Duration::from_millis(50)))
        .unwrap_err();
    assert_eq!(error.to_string(), "these functions did not come back: 0000:03:00.3");
    assert_eq!(machine.get("/sys/bus/pci/drivers_autoprobe"), "1");
    machine.faults.refuse("/sys/bus/pci/devices/0000:02:00.0/pci_bus/0000:03/rescan", Errno::EIO);
    assert!(host.rescan(address("0000:02:00.0"), &card(), soon()).is_err());
    assert_eq!(machine.get("/sys/bus/pci/drivers_autoprobe"), "1");
    // One that an administrator switched off stays off.
    machine.faults.clear();
    machine.set("/sys/bus/pci/drivers_autoprobe", "0");
    host.rescan(address("0000:02:00.0"), &card()[..3], soon()).unwrap();
    assert_eq!(machine.get("/sys/bus/pci/drivers_autoprobe"), "0");
}

#[test]
fn the_power_of_the_slot() {
    let machine = heeding();
    let mut host = machine.host();
    let error = host.power_cycle_slot(card()[0], &card(), soon()).unwrap_err();
    assert_eq!(error.to_string(), "no slot with a power switch holds 0000:03:00.0");
    // The slot knows the first function in it, which is the upper port of the card's switch.
    machine.add("/sys/bus/pci/slots/0/address = 0000:05:00\n/sys/bus/pci/slots/0/power = 1");
    machine.add("/sys/bus/pci/slots/1/address = 0000:01:00");
    assert_eq!(host.slot_power_of(card()[0]).unwrap(), None);
    machine.add("/sys/bus/pci/slots/1/power = 1");
    assert_eq!(host.slot_power_of(card()[0]).unwrap(), Some(PathBuf::from("/sys/bus/pci/slots/1/power")));
    for function in card() {
        machine.fault(&function.to_string(), "dead until power");
    }
    host.power_cycle_slot(card()[0], &card(), soon()).unwrap();
    assert!(answers(&machine));
    assert_eq!(host.pci_driver(card()[0]).unwrap(), None);
    assert_eq!(host.pci_driver(address("0000:02:00.0")).unwrap(), Some(driver("pcieport")));
    assert_eq!(machine.get("/sys/bus/pci/slots/1/power"), "1");
}

#[test]
fn a_deep_sleep() {
    let machine = Machine::new();
    machine.fault("0000:03:00.0", "dead until mem");
    let mut host = machine.host();
    assert!(!answers(&machine));
    let before = machine.everything();
    host.deep_sleep(soon()).unwrap();
    assert!(answers(&machine));
    assert_eq!(machine.log(), ["sleep mem"]);
    assert_eq!(machine.everything(), before);

    machine.set("/sys/class/rtc/rtc0/wakealarm", "1790000000");
    machine.set("/sys/power/mem_sleep", "[s2idle] deep");
    let error = host.deep_sleep(soon()).unwrap_err();
    assert!(error.to_string().contains("set already, for 1790000000"), "{error}");
    machine.set("/sys/power/mem_sleep", "[s2idle]");
    let error = host.deep_sleep(soon()).unwrap_err();
    assert_eq!(error.to_string(), "this host has no deep sleep (`/sys/power/mem_sleep` is `[s2idle]`)");
    assert_eq!(machine.log(), [""; 0]);
}

#[test]
fn a_sleep_that_is_refused_leaves_no_alarm() {
    let machine = Machine::new();
    machine.faults.refuse("/sys/power/state", Errno::EBUSY);
    let before = machine.everything();
    let error = machine.host().deep_sleep(soon()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EBUSY as i32));
    assert_eq!(machine.everything(), before);
}

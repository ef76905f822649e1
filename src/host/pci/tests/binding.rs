//! Bindings: every way between any two states, and what stands in the way.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use proptest::prelude::*;

use super::*;
use crate::host::ProcessId;

fn to_vfio() -> Bindings {
    Bindings(
        card().into_iter().map(|function| (function, Binding::kept_for(DriverName::vfio_pci()))).collect(),
    )
}

fn to_host() -> Bindings {
    let drivers = HOST_DRIVERS.map(|name| Binding::to_host(driver(name)));
    Bindings(card().into_iter().zip(drivers).collect())
}

fn quarantined() -> Bindings {
    Bindings(card().into_iter().map(|function| (function, Binding::quarantined())).collect())
}

fn of_card(host: &Host) -> Bindings {
    host.bindings(&card(), &AskedBars::new()).unwrap()
}

/// All states of the card at once that programs or people leave behind: for each function a driver (the host's, vfio's
/// or none) and an override (none, vfio's, or the one that keeps all away).
fn any_state() -> impl Strategy<Value = [(usize, usize); 4]> {
    let of_function = (0..3usize, 0..3usize);
    [of_function.clone(), of_function.clone(), of_function.clone(), of_function]
}

/// Brings the card into a state as another program would.
fn leave_in(machine: &Machine, state: [(usize, usize); 4]) {
    for ((function, host_driver), (bound, named)) in card().into_iter().zip(HOST_DRIVERS).zip(state) {
        let file = |name: &str| format!("/sys/bus/pci/devices/{function}/{name}");
        machine.echo(&format!("/sys/bus/pci/drivers/{host_driver}/unbind"), &function.to_string());
        let wanted = [Some(host_driver), Some("vfio-pci"), None][bound];
        if let Some(wanted) = wanted {
            machine.echo(&file("driver_override"), wanted);
            machine.echo("/sys/bus/pci/drivers_probe", &function.to_string());
        }
        machine.echo(&file("driver_override"), ["\n", "vfio-pci", "none"][named]);
    }
}

fn targets() -> [Bindings; 3] {
    [to_vfio(), to_host(), quarantined()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// From wherever the functions are, they get to where they should be, and there nothing is written any more.
    #[test]
    fn from_any_state_to_any_other(state in any_state(), target in 0..3usize) {
        let machine = Machine::new();
        leave_in(&machine, state);
        let wanted = &targets()[target];
        let mut host = machine.host();
        host.set_bindings(wanted, soon()).unwrap();
        prop_assert_eq!(&of_card(&host), wanted);
        machine.faults.clear();
        host.set_bindings(wanted, soon()).unwrap();
        prop_assert_eq!(machine.faults.writes(), 0);
    }

    /// Killed at any write on the way, and sent to the same place again or back.
    #[test]
    fn killed_on_the_way(state in any_state(), first in 0..3usize, then in 0..3usize, at in 1..16usize) {
        let machine = Machine::new();
        leave_in(&machine, state);
        machine.faults.panic_at_write(at);
        let _ = catch_unwind(AssertUnwindSafe(|| machine.host().set_bindings(&targets()[first], soon())));
        machine.faults.clear();
        let mut host = machine.host();
        host.set_bindings(&targets()[then], soon()).unwrap();
        prop_assert_eq!(&of_card(&host), &targets()[then]);
    }

    /// A write that fails ends it with an error, and the next try succeeds.
    #[test]
    fn failed_on_the_way(state in any_state(), target in 0..3usize, at in 1..16usize) {
        let machine = Machine::new();
        leave_in(&machine, state);
        let wanted = &targets()[target];
        machine.faults.fail_write(at);
        let mut host = machine.host();
        let failed = host.set_bindings(wanted, soon()).is_err();
        prop_assert_eq!(failed, machine.faults.writes() >= at);
        machine.faults.clear();
        host.set_bindings(wanted, soon()).unwrap();
        prop_assert_eq!(&of_card(&host), wanted);
    }
}

#[test]
fn overrides_come_first_and_functions_in_their_order() {
    let machine = Machine::new();
    machine.host().set_bindings(&to_vfio(), soon()).unwrap();
    assert_eq!(
        machine.log(),
        [
            "0000:03:00.0 driver_override vfio-pci",
            "0000:03:00.1 driver_override vfio-pci",
            "0000:03:00.2 driver_override vfio-pci",
            "0000:03:00.3 driver_override vfio-pci",
            "0000:03:00.0 unbind amdgpu",
            "0000:03:00.3 unbind i2c-designware-pci",
            "0000:03:00.2 unbind xhci_hcd",
            "0000:03:00.1 unbind snd_hda_intel",
            "0000:03:00.0 drivers_probe",
            "0000:03:00.1 drivers_probe",
            "0000:03:00.2 drivers_probe",
            "0000:03:00.3 drivers_probe",
        ]
    );
    let json = serde_json::to_string(&to_vfio()).unwrap();
    assert!(json.contains(r#""0000:03:00.0":{"driver":"vfio-pci","driver_override":"vfio-pci"}"#), "{json}");
    assert_eq!(serde_json::from_str::<Bindings>(&json).unwrap(), to_vfio());
}

#[test]
fn there_and_back_leaves_the_host_as_it_was() {
    let machine = Machine::new();
    // What vfio's driver leaves at `on` is a setting of its own, which has its own baseline.
    for function in card() {
        machine.set(&format!("/sys/bus/pci/devices/{function}/power/control"), "on");
    }
    let before = machine.everything();
    let mut host = machine.host();
    host.set_bindings(&to_vfio(), soon()).unwrap();
    assert_ne!(machine.everything(), before);
    host.set_bindings(&to_host(), soon()).unwrap();
    assert_eq!(machine.everything(), before);
}

#[test]
fn power_control_stays_as_it_was_when_vfio_takes_a_function() {
    let machine = Machine::new();
    machine.host().set_bindings(&to_vfio(), soon()).unwrap();
    let control = |function| machine.get(&format!("/sys/bus/pci/devices/{function}/power/control"));
    assert_eq!(card().map(control), ["auto", "auto", "on", "auto"]);
}

#[test]
fn the_module_of_vfio_is_loaded_where_it_is_not_there() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("/sys/bus/pci/drivers/vfio-pci")).unwrap();
    machine.host().set_bindings(&to_vfio(), soon()).unwrap();
    assert_eq!(machine.log()[0], "modprobe vfio_pci");
    assert_eq!(of_card(&machine.host()), to_vfio());
    // A host's driver that an administrator unloaded is not loaded again.
    fs::remove_dir_all(machine.path("/sys/bus/pci/drivers/amdgpu")).unwrap();
    let error = machine.host().set_bindings(&to_host(), soon()).unwrap_err();
    assert_eq!(error.to_string(), "driver amdgpu did not take 0000:03:00.0");
}

#[test]
fn a_driver_that_does_not_take_its_function_ends_it() {
    let machine = Machine::new();
    let mut host = machine.host();
    host.set_bindings(&to_vfio(), soon()).unwrap();
    machine.fault("0000:03:00.0", "probe-fails amdgpu");
    let error = host.set_bindings(&to_host(), soon()).unwrap_err();
    assert_eq!(error.to_string(), "driver amdgpu did not take 0000:03:00.0");
    assert!(matches!(error.pci_trouble(), Some(PciTrouble::NotTaken { .. })));
    assert!(error.help().is_some());
    let bindings = of_card(&host);
    assert!(bindings.0.values().all(|binding| binding.driver.is_none()), "{bindings:?}");
    // It still can be handed to a guest, or be kept away from all.
    host.set_bindings(&to_vfio(), soon()).unwrap();
    host.set_bindings(&quarantined(), soon()).unwrap();
    assert_eq!(of_card(&host), quarantined());
}

#[test]
fn another_driver_that_is_faster_is_named() {
    let machine = Machine::new();
    let mut host = machine.host();
    host.set_bindings(&to_vfio(), soon()).unwrap();
    machine.add("/simulated/pci/drivers/aaa = class 0300\n/sys/bus/pci/drivers/aaa/bind =\n/sys/bus/pci/drivers/aaa/unbind =");
    let error = host.set_bindings(&to_host(), soon()).unwrap_err();
    assert_eq!(error.to_string(), "driver aaa took 0000:03:00.0, not amdgpu");
    assert!(error.help().unwrap().contains("udev"));
}

#[test]
fn somebody_who_binds_it_again_at_once_is_noticed() {
    let machine = Machine::new();
    let root = machine.folder.path().to_owned();
    let mut host = machine.host();
    // When the last one is unbound, an administrator gives the first one back.
    machine.faults.interrupt("/sys/bus/pci/drivers/snd_hda_intel/unbind", move || {
        let kernel = SimulatedKernel::new(root, Faults::default());
        kernel.write("/sys/bus/pci/devices/0000:03:00.0/driver_override", "amdgpu").unwrap();
        kernel.write("/sys/bus/pci/drivers_probe", "0000:03:00.0").unwrap();
    });
    let error = host.set_bindings(&to_vfio(), soon()).unwrap_err();
    assert_eq!(error.to_string(), "driver amdgpu has 0000:03:00.0 again after it was unbound");
}

#[test]
fn somebody_who_unbinds_it_first_is_no_failure() {
    let machine = Machine::new();
    let root = machine.folder.path().to_owned();
    let mut host = machine.host();
    machine.faults.interrupt("/sys/bus/pci/drivers/xhci_hcd/unbind", move || {
        let kernel = SimulatedKernel::new(root, Faults::default());
        kernel.write("/sys/bus/pci/drivers/xhci_hcd/unbind", "0000:03:00.2").unwrap();
    });
    host.set_bindings(&to_vfio(), soon()).unwrap();
    assert_eq!(of_card(&host), to_vfio());
}

#[test]
fn a_driver_that_hangs_leaves_a_process_behind() {
    let machine = Machine::new();
    machine.fault("0000:03:00.2", "unbind-hangs 4711");
    let mut host = machine.host();
    let error = host.set_bindings(&to_vfio(), soon()).unwrap_err();
    assert_eq!(error.stuck_process().map(|process| process.pid), Some(4711));
    assert_eq!(
        error.to_string(),
        "failed to write `0000:03:00.2` to /sys/bus/pci/drivers/xhci_hcd/unbind: the kernel has not come back \
         within 20 s (process 4711)"
    );
    assert!(error.help().unwrap().contains("reboot"));
    // The sound was not touched after it.
    assert_eq!(host.pci_driver(card()[1]).unwrap(), Some(driver("snd_hda_intel")));

    machine.fault("0000:03:00.2", "");
    host.set_bindings(&to_vfio(), soon()).unwrap();
    machine.fault("0000:03:00.0", "probe-hangs amdgpu");
    let error = host.set_bindings(&to_host(), soon()).unwrap_err();
    assert_eq!(error.stuck_process(), ProcessId::of(1));
    assert!(of_card(&host).0.values().all(|binding| binding.driver.is_none()));
}

#[test]
fn a_dead_card_goes_to_vfio_but_not_to_the_host() {
    let machine = Machine::new();
    let mut host = machine.host();
    machine.fault("0000:02:00.0", "dead");
    host.set_bindings(&to_vfio(), soon()).unwrap();
    assert!(host.set_bindings(&to_host(), soon()).is_err());
}

fn asked() -> AskedBars {
    AskedBars::from([(card()[0], BTreeSet::from([0, 2]))])
}

fn sized(bindings: Bindings, first: &str, second: &str) -> Bindings {
    let mut bindings = bindings;
    let sizes = BTreeMap::from([(0, first.parse().unwrap()), (2, second.parse().unwrap())]);
    bindings.0.get_mut(&card()[0]).unwrap().bar_sizes = sizes;
    bindings
}

#[test]
fn bars_are_resized_without_a_driver_and_back_again() {
    let machine = Machine::new();
    let mut host = machine.host();
    let before = host.bindings(&card(), &asked()).unwrap();
    assert_eq!(before, sized(to_host(), "16 GiB", "256 MiB"));
    let wanted = sized(to_vfio(), "256 MiB", "8 MiB");
    host.set_bindings(&wanted, soon()).unwrap();
    assert_eq!(host.bindings(&card(), &asked()).unwrap(), wanted);
    let log = machine.log();
    let resized: Vec<&String> = log.iter().filter(|line| line.contains("resize")).collect();
    assert_eq!(resized, ["0000:03:00.0 resource2_resize 3", "0000:03:00.0 resource0_resize 8"]);
    let at = |line: &str| log.iter().position(|logged| logged == line).unwrap();
    assert!(at("0000:03:00.0 unbind amdgpu") < at(resized[0]));
    assert!(at(resized[1]) < at("0000:03:00.0 drivers_probe"));
    // Other sizes alone: the driver lets go of it and takes it again.
    let wanted = sized(to_vfio(), "8 GiB", "8 MiB");
    host.set_bindings(&wanted, soon()).unwrap();
    assert_eq!(host.bindings(&card(), &asked()).unwrap(), wanted);
    machine.faults.clear();
    host.set_bindings(&wanted, soon()).unwrap();
    assert_eq!(machine.faults.writes(), 0);
    host.set_bindings(&before, soon()).unwrap();
    assert_eq!(host.bindings(&card(), &asked()).unwrap(), before);
}

#[test]
fn where_there_is_no_room_the_old_sizes_come_back() {
    let machine = Machine::new();
    let mut host = machine.host();
    host.set_bindings(&sized(to_vfio(), "256 MiB", "256 MiB"), soon()).unwrap();
    machine.add("/simulated/pci/0000:03:00.0/room = 8 GiB");
    let error = host.set_bindings(&sized(to_vfio(), "16 GiB", "8 MiB"), soon()).unwrap_err();
    assert_eq!(
        told(&error),
        "BAR 0 of 0000:03:00.0 cannot be 16 GiB: the ports above have no room for it\n\
         help: switch on `Above 4G decoding` and `Resizable BAR` in the firmware's setup"
    );
    let now = host.bindings(&card(), &asked()).unwrap();
    assert_eq!(now.0[&card()[0]].bar_sizes, sized(to_vfio(), "256 MiB", "256 MiB").0[&card()[0]].bar_sizes);
    assert_eq!(host.pci_unplaced_bars(card()[0]).unwrap(), [0; 0]);
}

#[test]
fn bars_that_cannot_have_a_size_say_so() {
    let machine = Machine::new();
    machine.add("/simulated/pci/0000:03:00.0/sizes = 256 MiB\\n16 GiB");
    let mut host = machine.host();
    let error = host.set_bindings(&sized(to_vfio(), "8 GiB", "256 MiB"), soon()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "BAR 0 of 0000:03:00.0 cannot be 8 GiB: the function does not offer this size"
    );
    let mut wanted = to_vfio();
    wanted.0.get_mut(&card()[1]).unwrap().bar_sizes = BTreeMap::from([(0, "1 MiB".parse().unwrap())]);
    let error = host.set_bindings(&wanted, soon()).unwrap_err();
    assert_eq!(error.to_string(), "BAR 0 of 0000:03:00.1 cannot be 1 MiB: it cannot be resized");
}

#[test]
fn a_bar_without_a_place_has_no_size() {
    let machine = Machine::new();
    machine.add("/simulated/pci/0000:03:00.0/room = 1 MiB");
    let mut host = machine.host();
    let error = host.set_bindings(&sized(to_vfio(), "8 GiB", "256 MiB"), soon()).unwrap_err();
    assert!(error.to_string().contains("nor could BAR 0 be made 16 GiB again"), "{error}");
    let now = host.bindings(&card(), &asked()).unwrap();
    assert_eq!(now.0[&card()[0]].bar_sizes, BTreeMap::from([(2, "256 MiB".parse().unwrap())]));
    assert_eq!(host.pci_unplaced_bars(card()[0]).unwrap(), [0]);
    // Room again, and the way back is found.
    fs::remove_file(machine.path("/simulated/pci/0000:03:00.0/room")).unwrap();
    host.set_bindings(&sized(to_host(), "16 GiB", "256 MiB"), soon()).unwrap();
    assert_eq!(host.pci_unplaced_bars(card()[0]).unwrap(), [0; 0]);
}

#[test]
fn without_time_nothing_is_begun() {
    let machine = Machine::new();
    let before = machine.everything();
    let error = machine.host().set_bindings(&to_vfio(), Deadline::after(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), Some(std::io::ErrorKind::TimedOut));
    assert_eq!(error.stuck_process(), None);
    assert_eq!(machine.everything(), before);
}

#[test]
fn a_kernel_that_refuses_is_quoted() {
    let machine = Machine::new();
    machine.faults.refuse("/sys/bus/pci/drivers/amdgpu/unbind", Errno::EPERM);
    let error = machine.host().set_bindings(&to_vfio(), soon()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EPERM as i32));
    assert!(
        error
            .to_string()
            .starts_with("failed to write `0000:03:00.0` to /sys/bus/pci/drivers/amdgpu/unbind: ")
    );
}

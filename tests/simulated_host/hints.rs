//! What was refused after the checks: the hint names the key of the YAML file that it came from, and the one that gives
//! it more time.

use nix::errno::Errno;
use vfio_hook::lifecycle::LifecycleError;

use crate::support::{Life, Machine, guest, life, pages_on};

/// A unit that does not stop.
const SLOW: &str = "/simulated/systemd/ollama.service/stops = never";

/// The help of a start that is refused; all that was taken goes back.
#[track_caller]
fn hint(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    let error: LifecycleError = machine.prepare(life).unwrap_err();
    machine.assert_is(&before, "refused");
    error.help().unwrap_or_else(|| panic!("{error}"))
}

#[test]
fn a_unit_that_does_not_stop_names_the_section_that_stops_it() {
    let machine = Machine::with("two-nodes", SLOW);
    let stopped = life(guest(1, "2-3", ""), "services: {stop: [backup.service, ollama.service]}");
    assert_eq!(
        hint(&machine, &stopped),
        "`services.timeout` gives it more time; `services.stop` of the YAML file asks for it"
    );
    let machine = Machine::with("ryzen-7950x", SLOW);
    let of_gpu = crate::cards::gamer("gpu: {holders: {stop: [ollama.service]}}");
    assert_eq!(
        hint(&machine, &of_gpu),
        "`gpu.holders.wait` gives it more time; `gpu.holders.stop` of the YAML file asks for it"
    );
}

#[test]
fn a_value_that_the_kernel_refuses_names_its_key() {
    let machine = Machine::new("two-nodes");
    let path = "/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
    machine.faults.refuse(path, Errno::EIO);
    let life = life(guest(1, "2-3", ""), "cpu_power: {governor: performance}");
    assert_eq!(hint(&machine, &life), "`cpu_power.governor` of the YAML file asks for it");
}

#[test]
fn pages_that_cannot_be_had_name_the_section_and_the_time_only_if_that_was_over() {
    let machine = Machine::new("two-nodes");
    machine.set("/sys/devices/system/node/node0/simulated_contiguous_kB", "40960");
    machine.set("/sys/devices/system/node/node0/simulated_fragmented_kB", "0");
    let hint = hint(&machine, &life(guest(1, "2", &pages_on(207, 0)), "hugepages: {}"));
    assert!(hint.ends_with("; `hugepages` of the YAML file asks for it"), "{hint}");
    assert!(!hint.contains("more time"), "{hint}");
}

#[test]
fn guests_that_want_different_values_are_told_the_key() {
    let machine = Machine::new("two-nodes");
    machine.prepare(&life(guest(1, "2", ""), "cpu_power: {governor: powersave}")).unwrap();
    let other = life(guest(2, "2", ""), "cpu_power: {governor: performance}");
    let help = machine.prepare(&other).unwrap_err().help().unwrap();
    assert!(help.ends_with("; `cpu_power.governor` of the YAML file asks for it"), "{help}");
}

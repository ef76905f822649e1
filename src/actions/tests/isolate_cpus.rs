//! The section `isolate_cpus`.

use super::*;

#[test]
fn one_cpu_may_be_a_number() {
    let config = parse("isolate_cpus: {cpus: 7}").unwrap();
    assert_eq!(config.isolate_cpus.unwrap().cpus, CpuChoice::List([7].into_iter().collect()));
}

#[test]
fn the_guests_own_interrupts_have_a_place() {
    for (text, place) in [("guest", VfioIrqs::Guest), ("host", VfioIrqs::Host)] {
        let config = parse(&format!("isolate_cpus: {{vfio_irqs: {text}}}")).unwrap();
        assert_eq!(config.isolate_cpus.unwrap().vfio_irqs, place);
    }
    assert_eq!(
        mistakes("isolate_cpus: {vfio_irqs: true}"),
        ["1:27: `isolate_cpus.vfio_irqs`: expected `guest` or `host`, found `true`"]
    );
}

#[test]
fn each_part_may_be_turned_off_but_not_all() {
    let config = parse("isolate_cpus: {units: false, irqs: false, workqueues: false}").unwrap();
    assert!(config.isolate_cpus.unwrap().kernel_threads.is_on());
    assert_eq!(
        mistakes("isolate_cpus: {units: false, irqs: false, workqueues: false, kernel_threads: false}"),
        [
            "1:1: `isolate_cpus`: keeps nothing off the CPUs: all four are turned off (turn one of `units`, `irqs`, \
             `workqueues` and `kernel_threads` on, or remove the section)"
        ]
    );
}

#[test]
fn what_has_moved_to_another_section_is_told() {
    assert_eq!(
        mistakes(
            "isolate_cpus: {governor: performance, epp: power, resume_latency: 1us, cpu_dma_latency: none}"
        ),
        [
            "1:16: `isolate_cpus.governor` is `cpu_power.governor` now (write `governor` into the section `cpu_power`)",
            "1:39: `isolate_cpus.epp` is `cpu_power.epp` now (write `epp` into the section `cpu_power`)",
            "1:51: `isolate_cpus.resume_latency` is `cpu_power.resume_latency` now (write `resume_latency` into the \
             section `cpu_power`)",
            "1:72: `isolate_cpus.cpu_dma_latency` is `cpu_power.dma_latency` now (write `dma_latency` into the section \
             `cpu_power`)",
        ]
    );
}

//! The section `isolate_cpus`.

use super::*;

#[test]
fn resume_latency_is_a_short_time_or_none() {
    for (text, kernel) in [("none", "n/a"), ("20us", "20"), ("1ms", "1000"), ("999ms", "999000")] {
        let config = parse(&format!("isolate_cpus: {{resume_latency: {text}}}")).unwrap();
        assert_eq!(config.isolate_cpus.unwrap().resume_latency.unwrap().to_string(), kernel);
    }
    for text in ["0us", "1s", "20", "n/a"] {
        assert!(parse(&format!("isolate_cpus: {{resume_latency: {text}}}")).is_err(), "{text}");
    }
}

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

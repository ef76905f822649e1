//! The section `cpu_power`.

use super::*;

#[test]
fn resume_latency_is_a_short_time_or_none() {
    for (text, kernel) in [("none", "n/a"), ("20us", "20"), ("1ms", "1000"), ("999ms", "999000")] {
        let config = parse(&format!("cpu_power: {{resume_latency: {text}}}")).unwrap();
        assert_eq!(config.cpu_power.unwrap().resume_latency.unwrap().to_string(), kernel);
    }
    for text in ["0us", "1s", "20", "n/a"] {
        assert!(parse(&format!("cpu_power: {{resume_latency: {text}}}")).is_err(), "{text}");
    }
}

#[test]
fn the_guests_cpus_are_those_that_are_isolated() {
    let cpus = |text: &str| parse(text).unwrap().cpu_power.unwrap().cpus;
    let list = || PowerCpus::List("2-3".parse().unwrap());
    let isolated = || PowerCpus::Isolated(CpuChoice::List("2-3".parse().unwrap()));
    assert_eq!(cpus("isolate_cpus: {cpus: 2-3}\ncpu_power: {boost: true}"), isolated());
    assert_eq!(cpus("cpu_power: {boost: true, cpus: guest}\nisolate_cpus: {cpus: 2-3}"), isolated());
    assert_eq!(cpus("isolate_cpus: {}\ncpu_power: {boost: true}"), PowerCpus::Isolated(CpuChoice::Auto));
    assert_eq!(cpus("cpu_power: {boost: true}"), PowerCpus::Guest);
    assert_eq!(cpus("isolate_cpus: {cpus: 2-3}\ncpu_power: {boost: true, cpus: all}"), PowerCpus::All);
    assert_eq!(cpus("cpu_power: {boost: true, cpus: 2-3}"), list());
}

#[test]
fn bad_input_is_told_with_its_place() {
    let text = [
        "cpu_power: {}",
        "cpu_power: {cpus: all}",
        "cpu_power: {cpus: all, dma_latency: 20us}",
        "cpu_power: {cpus: al, governor: performance}",
        "cpu_power: {cpus: \"\", governor: performance}",
        "cpu_power: {cpus: [1], governor: \"per formance\"}",
        "cpu_power: {profile: performance, governor: performance, epp: power}",
        "cpu_power: {profile: balanced}",
        "cpu_power: {boost: 1, cpu_dma_latency: 20us}",
        "cpu_power: performance",
    ];
    let told: Vec<String> =
        text.iter().map(|text| format!("{text}\n  {}", mistakes(text).join("\n  "))).collect();
    insta::assert_snapshot!("cpu_power", told.join("\n"));
}

//! How the work of a `prepare` grows with the host, on hosts in a folder.
//!
//! `growth make FOLDER CPUS INTERRUPTS LEASES` lays out a host on which all guests but the last hold their lease;
//! `growth take FOLDER CPUS LEASES` takes that one. `tests/growth` counts the instructions of the latter.

#![allow(clippy::print_stdout, missing_docs, reason = "a program that is run by a script")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use vfio_hook::actions::GuestConfig;
use vfio_hook::config::ConfigSource;
use vfio_hook::deadline::Deadline;
use vfio_hook::guest::Guest;
use vfio_hook::host::simulated::Faults;
use vfio_hook::host::{Host, manifest};
use vfio_hook::lifecycle::{self, LoadedConfig};

/// Memory, systemd and logind of a small host; its CPUs and interrupts are left out.
const HOST: &str = include_str!("../tests/hosts/two-nodes.host");

const YAML: &str = "isolate_cpus: {shared: true}\ncpu_power: {governor: performance, resume_latency: 20us}\nblock_sleep: {}\n";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<usize>().expect("a number");
    match words[..] {
        ["make", folder, cpus, interrupts, leases] => {
            let (cpus, interrupts) = (number(cpus), number(interrupts));
            manifest::lay_out(&host(cpus, interrupts), Path::new(folder)).expect("a host");
            for nth in 1..number(leases) {
                prepare(Path::new(folder), nth, cpus);
            }
        }
        ["take", folder, cpus, leases] => prepare(Path::new(folder), number(leases), number(cpus)),
        // `cargo bench` runs it so.
        [] => {}
        _ => {
            println!("usage: growth make FOLDER CPUS INTERRUPTS LEASES | growth take FOLDER CPUS LEASES");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// A host with so many CPUs and interrupts, each of which all CPUs may serve.
fn host(cpus: usize, interrupts: usize) -> String {
    let last = cpus - 1;
    let is_of_its_own = |line: &&str| !line.starts_with("/sys/devices/system/cpu/") && !line.contains("irq/");
    let mut host = HOST
        .lines()
        .filter(is_of_its_own)
        .fold(String::new(), |host, line| host + &line.replace("= 0-7", &format!("= 0-{last}")) + "\n");
    let mask = vec!["ffffffff"; cpus / 32].join(",");
    let cpu = "/sys/devices/system/cpu/cpu";
    write!(
        host,
        "/sys/devices/system/cpu/online = 0-{last}\n\
         /sys/devices/system/cpu/present = 0-{last}\n\
         /sys/devices/system/cpu/isolated =\n\
         {cpu}{{0..{last}}}/cpufreq/scaling_governor = schedutil\n\
         {cpu}{{0..{last}}}/cpufreq/scaling_available_governors = performance schedutil\n\
         {cpu}{{0..{last}}}/power/pm_qos_resume_latency_us = 0\n\
         /proc/irq/default_smp_affinity = {mask}\n\
         /proc/irq/{{100..{last_irq}}}/smp_affinity_list = 0-{last}\n\
         /sys/kernel/irq/{{100..{last_irq}}}/actions = queue\n",
        last_irq = 99 + interrupts
    )
    .expect("a string takes all");
    for cpu_number in 0..cpus {
        writeln!(host, "{cpu}{cpu_number}/topology/thread_siblings_list = {cpu_number}").expect("so too");
    }
    host
}

/// The Nth guest takes two CPUs, and keeps them from all interrupts.
fn prepare(folder: &Path, nth: usize, cpus: usize) {
    let first = 1 + (2 * nth) % (cpus - 2);
    let xml = format!(
        "<domain type='kvm'><name>guest{nth}</name><uuid>00000000-0000-4000-8000-{nth:012x}</uuid>\
         <memory unit='MiB'>512</memory><vcpu>2</vcpu><cputune>\
         <vcpupin vcpu='0' cpuset='{first}'/><vcpupin vcpu='1' cpuset='{}'/></cputune></domain>",
        first + 1
    );
    let guest = Guest::parse(xml.as_bytes()).expect("a guest");
    let source = ConfigSource::new("/etc/vfio-hook/hooks.d/guest.yaml", YAML);
    let config = GuestConfig::read(&source).unwrap_or_else(|errors| panic!("{errors}"));
    let loaded = LoadedConfig::of_file(source, config);
    let mut host = Host::simulated(folder, &Faults::default());
    let deadline = Deadline::after(Duration::from_secs(3600));
    lifecycle::prepare(&mut host, Some(&loaded), &guest, b"", deadline).expect("a lease");
}

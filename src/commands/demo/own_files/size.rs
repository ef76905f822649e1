//! How large the simulated host is: as the guest's XML names CPUs, nodes and memory.

use crate::cpuset::{CpuSet, NodeSet};
use crate::guest::Guest;

/// The CPUs that the manifest has, and those that one more part of the host has.
const PART: u32 = 32;

/// A larger host takes longer than anybody waits: what is beyond does not exist.
const MOST_PARTS: u32 = 16;

/// The memory of a node that the manifest has for a guest.
const FOR_GUESTS_GIB: u64 = 40;
const NODE_GIB: u64 = 64;

/// No host has more.
const MOST_TIMES: u64 = 1024;

/// The host with all that the XML names.
pub(super) struct Size {
    parts: u32,
    nodes: u32,
    /// How much more memory each node has.
    times: u64,
}

impl Size {
    pub(super) fn of(guest: &Guest) -> Self {
        let pins = guest.vcpu_pins.values().chain(&guest.vcpus.cpuset);
        let pins =
            pins.chain(&guest.qemu_threads.emulator_pin).chain(guest.qemu_threads.iothread_pins.values());
        let last_cpu = pins.filter_map(|cpus: &CpuSet| cpus.iter().max()).max().unwrap_or(0);
        let memory = guest.numa_memory.iter().filter_map(|memory| memory.nodes.as_ref());
        let memory = memory.chain(guest.memnodes.iter().map(|memnode| &memnode.nodes));
        let added = guest.memory_devices.iter().filter_map(|device| device.source_nodes.as_ref());
        let last_node =
            memory.chain(added).filter_map(|nodes: &NodeSet| nodes.iter().max()).max().unwrap_or(0);
        let nodes = last_node.saturating_add(1).min(MOST_PARTS);
        let memory_gib = guest.memory.bytes().div_ceil(1024 * 1024 * 1024);
        Self {
            parts: (last_cpu / PART + 1).max(nodes).min(MOST_PARTS),
            nodes,
            times: memory_gib.div_ceil(FOR_GUESTS_GIB).clamp(1, MOST_TIMES),
        }
    }

    fn last_cpu(&self) -> u32 {
        self.parts * PART - 1
    }

    /// What is more than usual, in words.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.parts > 1 {
            words.push(format!("CPUs {PART}-{}", self.last_cpu()));
        }
        if self.nodes > 1 {
            words.push(format!("NUMA nodes 0-{}", self.nodes - 1));
        }
        if self.times > 1 {
            words.push(format!("{} GiB of memory on each node", NODE_GIB * self.times));
        }
        words
    }

    /// The manifest of the larger host.
    pub(super) fn apply(&self, manifest: &str) -> String {
        const CPUS: &str = "/sys/devices/system/cpu/cpu";
        const NODE: &str = "/sys/devices/system/node/node0/";
        let mut text = String::new();
        let mut line = |line: &str| text.extend([line, "\n"]);
        for given in manifest.lines() {
            if given.starts_with(CPUS) && (given.contains("/topology/") || given.contains("/cache/")) {
                (0..self.parts).for_each(|part| line(&moved(given, part * PART)));
            } else if given.starts_with(NODE) {
                (0..self.nodes).for_each(|node| line(&self.of_node(given, node)));
            } else if given == "/sys/devices/system/node/has_memory = 0" && self.nodes > 1 {
                line(&format!("/sys/devices/system/node/has_memory = 0-{}", self.nodes - 1));
            } else if given.starts_with("/proc/meminfo") {
                line(&more_memory(given, self.times * u64::from(self.nodes)));
            } else {
                line(&self.with_all_cpus(given));
            }
        }
        text
    }

    /// A line that names all CPUs: in its path, as a list or as a mask.
    fn with_all_cpus(&self, line: &str) -> String {
        let last = self.last_cpu();
        let line = line.replace("{0..31}", &format!("{{0..{last}}}"));
        if let Some(start) = line.strip_suffix(" = 0-31") {
            return format!("{start} = 0-{last}");
        }
        let words = vec!["ffffffff"; self.parts as usize];
        match line.strip_suffix(" = ffffffff") {
            Some(start) => format!("{start} = {}", words.join(",")),
            None => line,
        }
    }

    /// A line of the first node's, for another one. The parts of the host are the nodes' by turns.
    fn of_node(&self, line: &str, node: u32) -> String {
        let line =
            line.replace("/node0/", &format!("/node{node}/")).replace("Node 0 ", &format!("Node {node} "));
        if let Some(start) = line.strip_suffix(" = 0-31") {
            let parts = (0..self.parts).filter(|part| part % self.nodes == node);
            let cpus: Vec<String> =
                parts.map(|part| format!("{}-{}", part * PART, part * PART + PART - 1)).collect();
            return format!("{start} = {}", cpus.join(","));
        }
        match line.split_once("_kB = ") {
            Some((start, kib)) => format!("{start}_kB = {}", kib.parse::<u64>().unwrap_or(0) * self.times),
            None => more_memory(&line, self.times),
        }
    }
}

/// A line of the processor's layout, with CPUs of higher numbers.
fn moved(line: &str, by: u32) -> String {
    let (start, rest) = line.split_once("/cpu/cpu").unwrap_or((line, ""));
    let (cpus, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (attribute, value) = rest.split_once(" = ").unwrap_or((rest, ""));
    format!("{start}/cpu/cpu{}/{attribute} = {}", numbers_plus(cpus, by), numbers_plus(value, by))
}

/// A text with something added to each number in it.
fn numbers_plus(text: &str, by: u32) -> String {
    let mut moved = String::new();
    let mut digits = String::new();
    for character in text.chars().map(Some).chain([None]) {
        match character {
            Some(digit) if digit.is_ascii_digit() => digits.push(digit),
            other => {
                if let Ok(number) = digits.parse::<u32>() {
                    moved.push_str(&(number + by).to_string());
                }
                digits.clear();
                moved.extend(other);
            }
        }
    }
    moved
}

/// A line of a `meminfo` with so many times the memory.
fn more_memory(line: &str, times: u64) -> String {
    let mut counts = false;
    let words = line.split(' ').map(|word| {
        let more = word.parse::<u64>().ok().filter(|_| counts).map(|kib| (kib * times).to_string());
        counts = ["MemTotal:", "MemFree:", "MemAvailable:"].iter().any(|name| word.ends_with(name));
        more.unwrap_or_else(|| word.to_owned())
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_host_has_all_of_a_part_again() {
        let size = Size { parts: 2, nodes: 2, times: 3 };
        let lines = "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list = 1,17\n\
                     /sys/devices/system/cpu/cpu{8..15}/cache/index3/shared_cpu_list = 8-15,24-31\n\
                     /sys/devices/system/cpu/cpu{0..31}/cpufreq/scaling_governor = powersave\n\
                     /sys/devices/system/node/node0/cpulist = 0-31\n\
                     /sys/devices/system/node/node0/simulated_contiguous_kB = 4\n\
                     /proc/meminfo = MemTotal: 10 kB\\nMemFree: 5 kB\\nHugepagesize: 2048 kB\n\
                     /proc/irq/default_smp_affinity = ffffffff\n";
        let expected = "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list = 1,17\n\
                        /sys/devices/system/cpu/cpu33/topology/thread_siblings_list = 33,49\n\
                        /sys/devices/system/cpu/cpu{8..15}/cache/index3/shared_cpu_list = 8-15,24-31\n\
                        /sys/devices/system/cpu/cpu{40..47}/cache/index3/shared_cpu_list = 40-47,56-63\n\
                        /sys/devices/system/cpu/cpu{0..63}/cpufreq/scaling_governor = powersave\n\
                        /sys/devices/system/node/node0/cpulist = 0-31\n\
                        /sys/devices/system/node/node1/cpulist = 32-63\n\
                        /sys/devices/system/node/node0/simulated_contiguous_kB = 12\n\
                        /sys/devices/system/node/node1/simulated_contiguous_kB = 12\n\
                        /proc/meminfo = MemTotal: 60 kB\\nMemFree: 30 kB\\nHugepagesize: 2048 kB\n\
                        /proc/irq/default_smp_affinity = ffffffff,ffffffff\n";
        assert_eq!(size.apply(lines), expected);
        assert_eq!(Size { parts: 1, nodes: 1, times: 1 }.apply(lines), lines);
    }
}

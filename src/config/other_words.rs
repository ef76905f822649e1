//! Keys and words that people bring along from scripts and other programs, and what stands for them here.

use super::word_list::WordList;

/// The file itself, among the sections of a row.
const FILE: &str = "-";

/// Sections, keys that are none of theirs, and what to do instead.
const KEYS: [(WordList, WordList, &str); 16] = [
    (
        WordList("hugepages"),
        WordList("count number nr nr_hugepages pages amount memory total"),
        "remove it: <memory> of the guest's XML says how many pages",
    ),
    (
        WordList("hugepages"),
        WordList("size pagesize page_size hugepagesize"),
        "remove it: <memoryBacking> of the guest's XML says the size of the pages: `<hugepages><page size='1' \
         unit='G'/></hugepages>`",
    ),
    (
        WordList("hugepages"),
        WordList("node nodes nodeset numa"),
        "remove it: <numatune> of the guest's XML says the nodes",
    ),
    (
        WordList("isolate_cpus"),
        WordList("host host_cpus allowed_cpus allowedcpus housekeeping"),
        "name the guest's CPUs: `cpus: auto` takes those that its XML pins vCPUs to, and the host gets the others",
    ),
    (
        WordList("isolate_cpus"),
        WordList("mask cpu_mask affinity"),
        "write a list, not a mask: for example `cpus: \"4-15,20-31\"`",
    ),
    (
        WordList("run"),
        WordList("shell script cmd exec args"),
        "there is no shell: `command: [/usr/bin/logger, \"the guest runs\"]`, or `command: [/bin/sh, -c, \"...\"]`; a \
         folder of scripts is `scripts`",
    ),
    (
        WordList("switch_input"),
        WordList("bus display i2c device number"),
        "numbers of displays and buses change: `monitor: {model: \"LG ULTRAGEAR\"}`; `vfio-hook monitors` shows what to \
         write",
    ),
    (
        WordList("switch_input.monitor"),
        WordList("bus display i2c device number name edid"),
        "numbers of displays and buses change: give `manufacturer`, `model`, `serial` or `connector`, which \
         `vfio-hook monitors` shows",
    ),
    (
        WordList("- tune hugepages"),
        WordList("thp transparent_hugepage transparent_huge_pages transparenthugepages"),
        "write `tune: {transparent_hugepages: never}`",
    ),
    (
        WordList("- cpu_power tune isolate_cpus"),
        WordList("turbo no_turbo turbo_boost turboboost"),
        "write `cpu_power: {boost: false}`, which is what `no_turbo` with 1 does",
    ),
    (
        WordList("- cpu_power tune isolate_cpus"),
        WordList("energy_performance_preference energy_preference energy_performance"),
        "write `cpu_power: {epp: performance}`",
    ),
    (
        WordList("- cpu_power tune isolate_cpus"),
        WordList("scaling_governor cpu_governor cpufreq"),
        "write `cpu_power: {governor: performance}`",
    ),
    (
        WordList("sriov"),
        WordList("numvfs num_vfs sriov_numvfs vfs number functions"),
        "write `count`, or leave it out: the XML says how many the guest gets",
    ),
    (
        WordList("sriov"),
        WordList("pf parent pci address interface physfn physical_function card"),
        "write `device`: a PCI address, or a network interface",
    ),
    (
        WordList("requires"),
        WordList("guest guests domain vm"),
        "a guest cannot be required; `conflicts` names guests that must not run",
    ),
    (
        WordList("services"),
        WordList("restart reload enable disable mask"),
        "`stop` and `start` are what there is: what is stopped for the guest is started again when it is gone",
    ),
];

/// What to do instead of a key that a section does not have; none if nothing is known of it.
pub(super) fn help_for_key(section: Option<&str>, key: &str) -> Option<&'static str> {
    // A monitor is selected in the same way wherever it stands.
    let section = match section {
        None => FILE,
        Some(name) if name.starts_with("monitors.") || name.ends_with(".monitors") => "switch_input.monitor",
        Some(name) => name,
    };
    let section = group_free(section);
    let key = key.replace('-', "_").to_lowercase();
    let row = KEYS.iter().find(|(of, keys, _)| of.contain(section) && keys.contain(&key));
    row.map(|(_, _, help)| *help)
}

/// A section of a group is named with the group: `groups.gaming.tune`. The group itself has the sections of a file.
fn group_free(section: &str) -> &str {
    match section.strip_prefix("groups.") {
        Some(in_group) => in_group.split_once('.').map_or(FILE, |(_, section)| section),
        None => section,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_the_same_words_in_a_group_and_a_monitor_wherever_it_stands() {
        for (section, key) in [
            (None, "thp"),
            (Some("tune"), "THP"),
            (Some("groups.gaming"), "thp"),
            (Some("groups.gaming.tune"), "thp"),
            (Some("switch_input.monitor"), "bus"),
            (Some("monitors.desk"), "bus"),
            (Some("deviations.my-lg.monitors"), "bus"),
        ] {
            assert!(help_for_key(section, key).is_some(), "{section:?} {key}");
        }
        assert_eq!(help_for_key(Some("hugepages"), "governor"), None);
    }
}

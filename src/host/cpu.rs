//! Processors: which there are, how they are built, and how fast they run.

use super::{Host, HostError};
use crate::cpuset::{CpuSet, NodeSet};

const CPUS: &str = "/sys/devices/system/cpu";

impl Host {
    /// `/sys/devices/system/cpu/online`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn online_cpus(&self) -> Result<CpuSet, HostError> {
        self.value(format!("{CPUS}/online"))
    }

    /// `/sys/devices/system/cpu/present`: online or not.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn present_cpus(&self) -> Result<CpuSet, HostError> {
        self.value(format!("{CPUS}/present"))
    }

    /// `/sys/devices/system/cpu/isolated`: what `isolcpus=` took out of scheduling; empty where the file is absent.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn isolated_cpus(&self) -> Result<CpuSet, HostError> {
        let path = format!("{CPUS}/isolated");
        let text = self.text_if_present(&path)?.unwrap_or_default();
        text.parse().map_err(|reason| HostError::content(path.as_ref(), reason))
    }

    /// `topology/thread_siblings_list`: the CPU itself and those on the same core.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn thread_siblings(&self, cpu: u32) -> Result<CpuSet, HostError> {
        self.value(format!("{CPUS}/cpu{cpu}/topology/thread_siblings_list"))
    }

    /// `cache/index3/shared_cpu_list`: the CPUs that share this one's last-level cache; none where there is no L3.
    #[must_use]
    pub fn l3_siblings(&self, cpu: u32) -> Option<CpuSet> {
        self.value(format!("{CPUS}/cpu{cpu}/cache/index3/shared_cpu_list")).ok()
    }

    /// The nodes that hold these CPUs.
    ///
    /// # Errors
    /// A node's `cpulist` cannot be read.
    pub fn nodes_of(&self, cpus: &CpuSet) -> Result<NodeSet, HostError> {
        let mut nodes = NodeSet::default();
        for node in self.memory_nodes()?.iter() {
            let held: CpuSet = self.value(format!("/sys/devices/system/node/node{node}/cpulist"))?;
            if held.intersects(cpus) {
                nodes.insert(node);
            }
        }
        Ok(nodes)
    }

    /// `cpufreq/scaling_governor`; none on a CPU without frequency scaling.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn scaling_governor(&self, cpu: u32) -> Result<Option<String>, HostError> {
        self.text_if_present(governor_path(cpu))
    }

    /// `cpufreq/related_cpus`: the CPUs of one frequency policy; this one alone where the file is absent.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn related_cpus(&self, cpu: u32) -> Result<CpuSet, HostError> {
        let path = format!("{CPUS}/cpu{cpu}/cpufreq/related_cpus");
        let Some(text) = self.text_if_present(&path)? else { return Ok([cpu].into_iter().collect()) };
        let cpus: Result<CpuSet, _> = text.split_whitespace().map(str::parse::<u32>).collect();
        cpus.map_err(|reason| HostError::content(path.as_ref(), reason))
    }

    /// `cpufreq/scaling_available_governors`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn scaling_available_governors(&self, cpu: u32) -> Result<Vec<String>, HostError> {
        self.words(format!("{CPUS}/cpu{cpu}/cpufreq/scaling_available_governors"))
    }

    /// `cpufreq/energy_performance_preference`; none where the driver has no such setting.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn energy_performance_preference(&self, cpu: u32) -> Result<Option<String>, HostError> {
        self.text_if_present(epp_path(cpu))
    }

    /// `cpufreq/energy_performance_available_preferences`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn energy_performance_available_preferences(&self, cpu: u32) -> Result<Vec<String>, HostError> {
        self.words(format!("{CPUS}/cpu{cpu}/cpufreq/energy_performance_available_preferences"))
    }

    /// Whether the processor knows pages of 1 GiB (`pdpe1gb` among the flags of `/proc/cpuinfo`).
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn cpu_has_1gib_pages(&self) -> Result<bool, HostError> {
        let info = self.text("/proc/cpuinfo")?;
        let flags = info.lines().find(|line| line.starts_with("flags"));
        Ok(flags.is_some_and(|line| line.split_whitespace().any(|flag| flag == "pdpe1gb")))
    }

    fn words(&self, path: String) -> Result<Vec<String>, HostError> {
        Ok(self.text(path)?.split_whitespace().map(str::to_owned).collect())
    }
}

fn governor_path(cpu: u32) -> String {
    format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor")
}

fn epp_path(cpu: u32) -> String {
    format!("{CPUS}/cpu{cpu}/cpufreq/energy_performance_preference")
}

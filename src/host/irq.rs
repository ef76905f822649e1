//! Interrupts and the CPUs they may be served by.

use super::{Host, HostError};
use crate::cpuset::CpuSet;

const DEFAULT: &str = "/proc/irq/default_smp_affinity";

/// An interrupt that can be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// Who asked for it (`/sys/kernel/irq/N/actions`); empty while nobody has.
    pub actions: String,
    /// The CPUs it may be served by.
    pub affinity: CpuSet,
}

impl Host {
    /// The interrupts whose affinity root may write, with the lowest number first.
    ///
    /// The kernel takes the owner's write bit from managed and per-CPU ones (`register_irq_proc` in
    /// `kernel/irq/proc.c`); an older one refuses the write itself.
    ///
    /// # Errors
    /// `/proc/irq` cannot be listed. An interrupt that vanishes meanwhile is left out.
    pub fn movable_interrupts(&self) -> Result<Vec<Interrupt>, HostError> {
        let mut interrupts = Vec::new();
        for number in self.numbered("/proc/irq", "")? {
            if !self.files.is_writable(affinity_path(number).as_ref()) {
                continue;
            }
            let affinity = match self.irq_smp_affinity(number) {
                Ok(affinity) => affinity,
                Err(error) if error.is_absent() => continue,
                Err(error) => return Err(error),
            };
            interrupts.push(Interrupt { number, actions: self.irq_actions(number)?, affinity });
        }
        Ok(interrupts)
    }

    /// `/sys/kernel/irq/N/actions`: the names of its users, which tell one interrupt N from a later one.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn irq_actions(&self, number: u32) -> Result<String, HostError> {
        Ok(self.text_if_present(format!("/sys/kernel/irq/{number}/actions"))?.unwrap_or_default())
    }

    /// `/proc/irq/N/smp_affinity_list`.
    ///
    /// # Errors
    /// The interrupt is gone.
    pub fn irq_smp_affinity(&self, number: u32) -> Result<CpuSet, HostError> {
        self.value(affinity_path(number))
    }

    /// Sets `/proc/irq/N/smp_affinity_list`.
    ///
    /// # Errors
    /// EPERM (EIO before Linux 6.x) for one that cannot be moved; ENOSPC when the CPUs have no vector left.
    pub fn set_irq_smp_affinity(&mut self, number: u32, cpus: &CpuSet) -> Result<(), HostError> {
        self.set(affinity_path(number), &cpus.to_string())
    }

    /// `/proc/irq/default_smp_affinity`: where new interrupts go.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn default_smp_affinity(&self) -> Result<CpuSet, HostError> {
        CpuSet::from_mask(&self.text(DEFAULT)?).map_err(|reason| HostError::content(DEFAULT.as_ref(), reason))
    }

    /// Sets `/proc/irq/default_smp_affinity`.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn set_default_smp_affinity(&mut self, cpus: &CpuSet) -> Result<(), HostError> {
        self.set(DEFAULT, &cpus.to_mask())
    }
}

fn affinity_path(number: u32) -> String {
    format!("/proc/irq/{number}/smp_affinity_list")
}

//! Where QEMU's own threads may run: those that are no vCPU.

use std::collections::BTreeMap;

use super::Guest;
use super::error::GuestError;
use super::vcpus::{pins, required_cpus};
use super::xml::Element;
use crate::cpuset::CpuSet;

/// QEMU's threads beside the vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QemuThreads {
    /// `<emulatorpin>`: where the emulator and its workers may run.
    pub emulator_pin: Option<CpuSet>,
    /// How many I/O threads there are (`<iothreads>`, `<iothreadids>`).
    pub iothreads: u32,
    /// `<iothreadpin>`: where single ones of them may run.
    pub iothread_pins: BTreeMap<u32, CpuSet>,
}

impl QemuThreads {
    /// How many I/O threads have no pin of their own.
    #[must_use]
    pub fn unpinned_iothreads(&self) -> u32 {
        self.iothreads.saturating_sub(u32::try_from(self.iothread_pins.len()).unwrap_or(u32::MAX))
    }
}

impl Guest {
    /// Where the emulator may run: its own pin, else the list of `<vcpu>`, which holds for all threads without a pin
    /// (`qemuDomainEvaluateCPUMask` in libvirt's `src/qemu/qemu_domain.c`); none if it may run anywhere.
    #[must_use]
    pub fn effective_emulator_pin(&self) -> Option<&CpuSet> {
        self.qemu_threads.emulator_pin.as_ref().or(self.vcpus.cpuset.as_ref())
    }
}

/// Reads `<iothreads>`, `<iothreadids>`, `<emulatorpin>` and `<iothreadpin>`.
pub(super) fn qemu_threads(domain: &Element<'_>) -> Result<QemuThreads, GuestError> {
    let count = domain.find("iothreads").map(|count| count.text_number()).transpose()?.unwrap_or_default();
    let ids = domain.find_all("iothreadids/iothread")?.len();
    Ok(QemuThreads {
        emulator_pin: domain.find("cputune/emulatorpin").map(|pin| required_cpus(&pin)).transpose()?,
        iothreads: count.max(u32::try_from(ids).unwrap_or(u32::MAX)),
        iothread_pins: pins(domain, "cputune/iothreadpin", "iothread")?,
    })
}

#[cfg(test)]
mod tests {
    use crate::guest::testing::guest;

    #[test]
    fn threads_without_a_pin_have_that_of_the_vcpus() {
        let inherited = guest("<vcpu cpuset='8-9'>2</vcpu>");
        assert_eq!(inherited.effective_emulator_pin().unwrap().to_string(), "8-9");
        let own = guest("<vcpu cpuset='8-9'>2</vcpu><cputune><emulatorpin cpuset='0'/></cputune>");
        assert_eq!(own.effective_emulator_pin().unwrap().to_string(), "0");
        assert_eq!(guest("<vcpu>2</vcpu>").effective_emulator_pin(), None);
        let automatic = guest("<vcpu placement='auto' cpuset='8-9'>2</vcpu>");
        assert_eq!(automatic.effective_emulator_pin(), None);
    }

    #[test]
    fn io_threads_are_counted() {
        for (elements, count, unpinned) in [
            ("", 0, 0),
            ("<iothreads>2</iothreads>", 2, 2),
            ("<iothreadids><iothread id='4'/><iothread id='7'/></iothreadids>", 2, 2),
            (
                "<iothreads>3</iothreads><iothreadids><iothread id='4'/></iothreadids>
                 <cputune><iothreadpin iothread='4' cpuset='1'/></cputune>",
                3,
                2,
            ),
        ] {
            let threads = guest(elements).qemu_threads;
            assert_eq!((threads.iothreads, threads.unpinned_iothreads()), (count, unpinned), "{elements}");
        }
    }
}

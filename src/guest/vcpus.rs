//! Which CPUs of the host a guest's threads may run on.

use std::collections::BTreeMap;

use super::Guest;
use super::error::{GuestError, ValueError};
use super::xml::Element;
use crate::cpuset::CpuSet;

/// More vCPUs than any machine type of QEMU has; keeps a mistyped number from filling the memory.
const MAX_VCPUS: u32 = 16384;

/// One for each vCPU.
const MAX_PINS: usize = MAX_VCPUS as usize;

/// How many vCPUs a guest has: `<vcpu current='2' cpuset='0-3'>4</vcpu>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuCount {
    /// How many there can be.
    pub max: u32,
    /// How many there are at the start.
    pub current: u32,
    /// Where those may run that have no pin of their own.
    pub cpuset: Option<CpuSet>,
}

impl Guest {
    /// Where a vCPU may run: its own pin, else the one that `<vcpu>` gives to all; none if it may run anywhere.
    #[must_use]
    pub fn effective_vcpu_pin(&self, vcpu: u32) -> Option<&CpuSet> {
        self.vcpu_pins.get(&vcpu).or(self.vcpus.cpuset.as_ref())
    }

    /// All CPUs that a vCPU is pinned to.
    #[must_use]
    pub fn pinned_cpus(&self) -> CpuSet {
        (0..self.vcpus.max)
            .filter_map(|vcpu| self.effective_vcpu_pin(vcpu))
            .fold(CpuSet::new(), |cpus, pin| cpus.union(pin))
    }

    /// The vCPUs that may run anywhere, also those that are not plugged in yet.
    #[must_use]
    pub fn unpinned_vcpus(&self) -> Vec<u32> {
        (0..self.vcpus.max).filter(|vcpu| self.effective_vcpu_pin(*vcpu).is_none()).collect()
    }
}

/// Reads `<vcpu>`; a guest without it has one.
pub(super) fn vcpu_count(domain: &Element<'_>) -> Result<VcpuCount, GuestError> {
    let Some(vcpu) = domain.find("vcpu") else {
        return Ok(VcpuCount { max: 1, current: 1, cpuset: None });
    };
    let max = vcpu.text_number()?;
    vcpu.judge("", &vcpu.text(), in_range(max, MAX_VCPUS))?;
    let current = match vcpu.number("current")? {
        Some(current) => {
            vcpu.judge("current", vcpu.attribute("current").unwrap_or_default(), in_range(current, max))?
        }
        None => max,
    };
    // With placement='auto' numad chooses the CPUs, and libvirt does not look at the attribute.
    let cpuset = if vcpu.attribute("placement") == Some("auto") { None } else { vcpu.cpus("cpuset")? };
    Ok(VcpuCount { max, current, cpuset })
}

fn in_range(number: u32, max: u32) -> Result<u32, ValueError> {
    match number {
        0 => Err(ValueError::Zero),
        number if number > max => Err(ValueError::TooLarge),
        number => Ok(number),
    }
}

/// Reads `<vcpupin>`. As in libvirt, a pin of a vCPU that the guest has not is no error and does nothing.
pub(super) fn vcpu_pins(
    domain: &Element<'_>,
    vcpus: &VcpuCount,
) -> Result<BTreeMap<u32, CpuSet>, GuestError> {
    let mut pins = pins(domain, "cputune/vcpupin", "vcpu")?;
    pins.retain(|vcpu, _| *vcpu < vcpus.max);
    Ok(pins)
}

/// Reads `<emulatorpin>`.
pub(super) fn emulator_pin(domain: &Element<'_>) -> Result<Option<CpuSet>, GuestError> {
    domain.find("cputune/emulatorpin").map(|pin| required_cpus(&pin)).transpose()
}

/// Reads `<iothreadpin>`.
pub(super) fn iothread_pins(domain: &Element<'_>) -> Result<BTreeMap<u32, CpuSet>, GuestError> {
    pins(domain, "cputune/iothreadpin", "iothread")
}

fn pins(domain: &Element<'_>, path: &str, key: &str) -> Result<BTreeMap<u32, CpuSet>, GuestError> {
    let mut pins = BTreeMap::new();
    for pin in domain.find_up_to(MAX_PINS, path)? {
        let number = pin.required_number(key)?;
        let pin = pin.known_by(key, number);
        if pins.insert(number, required_cpus(&pin)?).is_some() {
            return Err(pin.bad(key, &number.to_string(), ValueError::Twice));
        }
    }
    Ok(pins)
}

fn required_cpus(pin: &Element<'_>) -> Result<CpuSet, GuestError> {
    pin.cpus("cpuset")?.ok_or_else(|| pin.missing("cpuset"))
}

#[cfg(test)]
mod tests {
    use crate::guest::testing::{guest, refusal};

    #[test]
    fn a_guest_without_vcpu_has_one() {
        let guest = guest("");
        assert_eq!((guest.vcpus.max, guest.vcpus.current), (1, 1));
        assert_eq!(guest.unpinned_vcpus(), [0]);
        assert!(guest.pinned_cpus().is_empty());
    }

    #[test]
    fn own_pins_come_before_the_common_one() {
        let guest = guest(
            "<vcpu cpuset='0-3,^2' current='2'>3</vcpu>
             <cputune><vcpupin vcpu='1' cpuset='8'/><vcpupin vcpu='7' cpuset='9'/></cputune>",
        );
        assert_eq!((guest.vcpus.max, guest.vcpus.current), (3, 2));
        assert_eq!(guest.effective_vcpu_pin(0).unwrap().to_string(), "0-1,3");
        assert_eq!(guest.effective_vcpu_pin(1).unwrap().to_string(), "8");
        assert_eq!(guest.pinned_cpus().to_string(), "0-1,3,8");
        assert!(guest.unpinned_vcpus().is_empty());
    }

    #[test]
    fn the_common_pin_counts_only_where_it_is_used() {
        let guest = guest(
            "<vcpu cpuset='0-3'>2</vcpu>
             <cputune><vcpupin vcpu='0' cpuset='8'/><vcpupin vcpu='1' cpuset='9'/></cputune>",
        );
        assert_eq!(guest.pinned_cpus().to_string(), "8-9");
    }

    #[test]
    fn names_the_vcpus_without_a_pin() {
        let guest = guest(
            "<vcpu placement='auto' cpuset='0-3'>4</vcpu><cputune><vcpupin vcpu='2' cpuset='8'/></cputune>",
        );
        assert_eq!(guest.vcpus.cpuset, None);
        assert_eq!(guest.unpinned_vcpus(), [0, 1, 3]);
    }

    #[test]
    fn says_which_pin_is_wrong() {
        for (xml, message) in [
            ("<vcpu>x</vcpu>", "vcpu `x`: not a whole number"),
            ("<vcpu>0</vcpu>", "vcpu `0`: must be at least 1"),
            ("<vcpu>4294967295</vcpu>", "vcpu `4294967295`: too large"),
            ("<vcpu current='5'>4</vcpu>", "vcpu: current `5`: too large"),
            ("<vcpu cpuset=''>4</vcpu>", "vcpu: cpuset ``: names nothing"),
            (
                "<cputune><vcpupin vcpu='3' cpuset='2-x'/></cputune>",
                "cputune/vcpupin[vcpu=3]: cpuset `2-x`: `x` is not a number",
            ),
            (
                "<cputune><vcpupin vcpu='3'/></cputune>",
                "the guest's XML has no cputune/vcpupin[vcpu=3]: cpuset",
            ),
            ("<cputune><vcpupin cpuset='3'/></cputune>", "the guest's XML has no cputune/vcpupin: vcpu"),
            (
                "<cputune><vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='0' cpuset='1'/></cputune>",
                "cputune/vcpupin[vcpu=0]: vcpu `0`: is there twice",
            ),
            (
                "<cputune><emulatorpin cpuset='5-2'/></cputune>",
                "cputune/emulatorpin: cpuset `5-2`: the range `5-2` runs backwards",
            ),
            (
                "<cputune><iothreadpin iothread='1' cpuset='9999'/></cputune>",
                "cputune/iothreadpin[iothread=1]: cpuset `9999`: 9999 is beyond 8191, the largest number a kernel has",
            ),
        ] {
            assert_eq!(refusal(xml), message, "{xml}");
        }
    }
}

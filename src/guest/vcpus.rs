//! Which vCPUs a guest has, which of them run, and which CPUs of the host they may run on.

use std::collections::{BTreeMap, BTreeSet};

use super::Guest;
use super::error::{GuestError, ValueError};
use super::xml::Element;
use crate::cpuset::CpuSet;

/// More vCPUs than any machine type of QEMU has; keeps a mistyped number from filling the memory.
const MAX_VCPUS: u32 = 16384;

/// One for each vCPU.
pub(super) const MAX_PINS: usize = MAX_VCPUS as usize;

/// How many vCPUs a guest has: `<vcpu current='2' cpuset='0-3'>4</vcpu>`, and `<vcpus>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuCount {
    /// How many there can be.
    pub max: u32,
    /// Those that run from the start, by their numbers; the others are off until they are plugged in.
    pub running: BTreeSet<u32>,
    /// Where those may run that have no pin of their own.
    pub cpuset: Option<CpuSet>,
}

impl VcpuCount {
    /// Those that are off.
    pub fn off(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.max).filter(|vcpu| !self.running.contains(vcpu))
    }
}

impl Guest {
    /// Where a vCPU may run: its own pin, else the one that `<vcpu>` gives to all; none if it may run anywhere.
    #[must_use]
    pub fn effective_vcpu_pin(&self, vcpu: u32) -> Option<&CpuSet> {
        self.vcpu_pins.get(&vcpu).or(self.vcpus.cpuset.as_ref())
    }

    /// All CPUs that a vCPU which runs is pinned to.
    #[must_use]
    pub fn pinned_cpus(&self) -> CpuSet {
        self.cpus_of(self.vcpus.running.iter().copied())
    }

    /// The CPUs that only vCPUs which are off are pinned to: what they need when they are plugged in.
    #[must_use]
    pub fn spare_cpus(&self) -> CpuSet {
        self.cpus_of(self.vcpus.off()).minus(&self.pinned_cpus())
    }

    fn cpus_of(&self, vcpus: impl Iterator<Item = u32>) -> CpuSet {
        vcpus
            .filter_map(|vcpu| self.effective_vcpu_pin(vcpu))
            .fold(CpuSet::new(), |cpus, pin| cpus.union(pin))
    }

    /// The vCPUs that run and may do so anywhere.
    #[must_use]
    pub fn unpinned_vcpus(&self) -> Vec<u32> {
        let is_unpinned = |vcpu: &u32| self.effective_vcpu_pin(*vcpu).is_none();
        self.vcpus.running.iter().copied().filter(is_unpinned).collect()
    }

    /// The vCPUs that are off and, plugged in, may run anywhere.
    #[must_use]
    pub fn unpinned_vcpus_off(&self) -> Vec<u32> {
        self.vcpus.off().filter(|vcpu| self.effective_vcpu_pin(*vcpu).is_none()).collect()
    }
}

/// Reads `<vcpu>` and `<vcpus>`, as `virDomainVcpuParse` in libvirt's `src/conf/domain_conf.c` does; a guest without
/// them has one.
pub(super) fn vcpu_count(domain: &Element<'_>) -> Result<VcpuCount, GuestError> {
    let Some(vcpu) = domain.find("vcpu") else {
        return Ok(VcpuCount { max: 1, running: running(domain, 1, 1)?, cpuset: None });
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
    Ok(VcpuCount { max, running: running(domain, max, current)?, cpuset })
}

/// Where `<vcpus>` says of single vCPUs whether they run, those that it does not name are off, and the number of them
/// does not count.
fn running(domain: &Element<'_>, max: u32, current: u32) -> Result<BTreeSet<u32>, GuestError> {
    let states = domain.find_up_to(MAX_PINS, "vcpus/vcpu")?;
    if states.is_empty() {
        return Ok((0..current).collect());
    }
    let mut running = BTreeSet::new();
    for state in states {
        let id = state.required_number("id")?;
        let state = state.known_by("id", id);
        if id >= max {
            return Err(state.bad("id", &id.to_string(), ValueError::TooLarge));
        }
        let words = [("yes", true), ("no", false)];
        match state.choice("enabled", &words, "yes, no")?.ok_or_else(|| state.missing("enabled"))? {
            true => running.insert(id),
            false => running.remove(&id),
        };
    }
    // As `qemuDomainDefVcpusPostParse` in `src/qemu/qemu_postparse.c`.
    if running.contains(&0) { Ok(running) } else { Err(GuestError::FirstVcpuOff) }
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

pub(super) fn pins(domain: &Element<'_>, path: &str, key: &str) -> Result<BTreeMap<u32, CpuSet>, GuestError> {
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

pub(super) fn required_cpus(pin: &Element<'_>) -> Result<CpuSet, GuestError> {
    pin.cpus("cpuset")?.ok_or_else(|| pin.missing("cpuset"))
}

#[cfg(test)]
mod tests {
    use crate::guest::testing::{guest, refusal};

    #[test]
    fn a_guest_without_vcpu_has_one() {
        let guest = guest("");
        assert_eq!((guest.vcpus.max, guest.vcpus.running.len()), (1, 1));
        assert_eq!(guest.unpinned_vcpus(), [0]);
        assert!(guest.pinned_cpus().is_empty());
    }

    #[test]
    fn own_pins_come_before_the_common_one() {
        let guest = guest(
            "<vcpu cpuset='0-3,^2'>3</vcpu>
             <cputune><vcpupin vcpu='1' cpuset='8'/><vcpupin vcpu='7' cpuset='9'/></cputune>",
        );
        assert_eq!(guest.vcpus.max, 3);
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

    fn running(elements: &str) -> (Vec<u32>, Vec<u32>) {
        let guest = guest(elements);
        (guest.vcpus.running.iter().copied().collect(), guest.vcpus.off().collect())
    }

    #[test]
    fn knows_which_vcpus_run() {
        assert_eq!(running("<vcpu>3</vcpu>"), (vec![0, 1, 2], vec![]));
        assert_eq!(running("<vcpu current='2'>4</vcpu>"), (vec![0, 1], vec![2, 3]));
        // `<vcpus>` counts where both are there, and what it does not name is off.
        assert_eq!(
            running(
                "<vcpu current='4'>5</vcpu>
                 <vcpus><vcpu id='3' enabled='yes' order='2'/><vcpu id='1' enabled='no' hotpluggable='yes'/>
                 <vcpu id='0' enabled='yes' hotpluggable='no'/></vcpus>"
            ),
            (vec![0, 3], vec![1, 2, 4])
        );
    }

    #[test]
    fn vcpus_that_are_off_have_cpus_of_their_own() {
        let guest = guest(
            "<vcpu current='2'>5</vcpu><cputune><vcpupin vcpu='0' cpuset='8'/><vcpupin vcpu='1' cpuset='9'/>
             <vcpupin vcpu='2' cpuset='8-10'/><vcpupin vcpu='3' cpuset='40'/></cputune>",
        );
        assert_eq!(guest.pinned_cpus().to_string(), "8-9");
        assert_eq!(guest.spare_cpus().to_string(), "10,40");
        assert!(guest.unpinned_vcpus().is_empty());
        assert_eq!(guest.unpinned_vcpus_off(), [4]);
    }

    #[test]
    fn lists_are_read_as_libvirt_reads_them() {
        let guest = guest(
            "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='8,9,'/><vcpupin vcpu='1' cpuset='^0,12000'/></cputune>",
        );
        assert_eq!(guest.pinned_cpus().to_string(), "8-9,12000");
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
                "<cputune><iothreadpin iothread='1' cpuset='99999'/></cputune>",
                "cputune/iothreadpin[iothread=1]: cpuset `99999`: 99999 is beyond 16383, the largest number that \
                 libvirt reads",
            ),
            ("<vcpus><vcpu id='0'/></vcpus>", "the guest's XML has no vcpus/vcpu[id=0]: enabled"),
            (
                "<vcpus><vcpu id='0' enabled='1'/></vcpus>",
                "vcpus/vcpu[id=0]: enabled `1`: not one of yes, no",
            ),
            ("<vcpus><vcpu enabled='yes'/></vcpus>", "the guest's XML has no vcpus/vcpu: id"),
            ("<vcpus><vcpu id='1' enabled='yes'/></vcpus>", "vcpus/vcpu[id=1]: id `1`: too large"),
            (
                "<vcpu>2</vcpu><vcpus><vcpu id='1' enabled='yes'/></vcpus>",
                "the guest's XML has vCPU 0 off in <vcpus>, without which no guest starts",
            ),
        ] {
            assert_eq!(refusal(xml), message, "{xml}");
        }
    }
}

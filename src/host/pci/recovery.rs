//! What may bring a device back that does not answer: single steps, each within its time.
//!
//! Which of them are tried, and in which order, is decided elsewhere; after each one it is probed anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::{DRIVERS, PUT_BACK, PciTrouble, STEP, file};
use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pci::{PciAddress, PciClass, PciSlot};

/// Whether the kernel binds a driver to a function that it finds.
const AUTOPROBE: &str = "/sys/bus/pci/drivers_autoprobe";
const DRIVERS_PROBE: &str = "/sys/bus/pci/drivers_probe";
const SLOTS: &str = "/sys/bus/pci/slots";
const MEM_SLEEP: &str = "/sys/power/mem_sleep";
const POWER_STATE: &str = "/sys/power/state";
const WAKE_ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";

/// How long the host sleeps: long enough to lose the slots' power, as people report who use `rtcwake` for this.
const SLEEP_SECONDS: u32 = 2;

/// The kernel waits so long for a device after a reset (`PCIE_RESET_READY_POLL_MS` in `drivers/pci/pci.c`), and then
/// some.
const RESET: Duration = Duration::from_secs(70);

/// How often it is looked whether functions are back.
const LOOK: Duration = Duration::from_millis(100);

/// The first Linux that keeps a function it finds from drivers while `drivers_autoprobe` is off ("driver core: Check
/// drivers_autoprobe for all added devices"); `pci_bus_add_device` did not ask before.
const HEEDS_AUTOPROBE: (u32, u32) = (6, 19);

/// What becomes of a function that the kernel finds while `drivers_autoprobe` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RescanBinding {
    /// A loaded driver that knows it gets it at once.
    AtOnce,
    /// It stays without a driver until a program asks for one.
    WhenAsked,
}

impl RescanBinding {
    /// What a kernel of this release does; one that is not understood is taken for an old one.
    pub(in crate::host) fn of_kernel(release: &str) -> Self {
        let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) if (major, minor) >= HEEDS_AUTOPROBE => Self::WhenAsked,
            _ => Self::AtOnce,
        }
    }
}

impl Host {
    /// What becomes of functions that the kernel finds anew ([`Host::rescan`], [`Host::power_cycle_slot`]).
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn rescan_binding(&self) -> Result<RescanBinding, HostError> {
        Ok(RescanBinding::of_kernel(&self.kernel_release()?))
    }

    /// `reset` of a function: by the first of its `reset_method`s that works.
    ///
    /// # Errors
    /// It cannot be reset by itself; no method works; it takes too long ([`HostError::stuck_process`]).
    pub fn reset_function(&mut self, function: PciAddress, deadline: Deadline) -> Result<(), HostError> {
        let path = file(function, "reset");
        if !self.is_present(&path) && self.is_pci_function(function) {
            return Err(HostError::pci(PciTrouble::NoReset(function)));
        }
        let reset = self.write_bounded(&path, "1", deadline.earlier(Deadline::after(RESET)));
        match reset {
            Err(error) if error.raw_os_error() == Some(Errno::ENOTTY as i32) => {
                Err(HostError::pci(PciTrouble::NoReset(function)))
            }
            reset => reset,
        }
    }

    /// `reset_subordinate` of a port: everything below it is reset at once, in use or not.
    ///
    /// # Errors
    /// The kernel has no such reset; it fails or takes too long ([`HostError::stuck_process`]).
    pub fn reset_subordinate(&mut self, port: PciAddress, deadline: Deadline) -> Result<(), HostError> {
        let path = file(port, "reset_subordinate");
        if !self.is_present(&path) && self.is_pci_function(port) {
            return Err(HostError::pci(PciTrouble::NoSubordinateReset(port)));
        }
        self.write_bounded(&path, "1", deadline.earlier(Deadline::after(RESET)))
    }

    /// `remove`: the kernel forgets functions, the highest first, and with a port all that is below it. Their drivers
    /// let go of them first. One that is gone already is passed over.
    ///
    /// # Errors
    /// A driver does not let go ([`HostError::stuck_process`]).
    pub fn remove_functions(
        &mut self,
        functions: &[PciAddress],
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let mut functions = functions.to_vec();
        functions.sort_unstable();
        for function in functions.into_iter().rev() {
            let removed =
                self.write_bounded(&file(function, "remove"), "1", deadline.earlier(Deadline::after(STEP)));
            match removed {
                Err(error) if error.is_absent() => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Has the kernel look again for what is below a port, and waits for these functions. They come without overrides
    /// and settings, and without drivers as far as the kernel lets them ([`Host::rescan_binding`]).
    ///
    /// `/sys/bus/pci/drivers_autoprobe` is off meanwhile, and put back whatever happens but the end of this process.
    ///
    /// # Errors
    /// They do not come back; it takes too long ([`HostError::stuck_process`]).
    pub fn rescan(
        &mut self,
        port: PciAddress,
        functions: &[PciAddress],
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let path = self.rescan_path(port)?;
        let found = self.without_autoprobe(deadline, |host| {
            host.write_bounded(&path, "1", deadline.earlier(Deadline::after(STEP)))?;
            host.wait_for_functions(functions, deadline)
        });
        // The ports may be back without what was below them.
        let ports = self.probe_ports_behind(port, deadline);
        found.and(ports)
    }

    /// The slot with a power switch that holds a function, or the card it is on.
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]); the kernel refuses.
    pub fn slot_power_of(&self, function: PciAddress) -> Result<Option<PathBuf>, HostError> {
        let ports = self.pci_ports_above(function)?;
        let mut on_card: Vec<PciSlot> = ports.card.iter().map(|port| port.slot()).collect();
        on_card.push(function.slot());
        let names = match self.names(SLOTS) {
            Ok(names) => names,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        for name in names {
            let folder = Path::new(SLOTS).join(name);
            let held = self.text_if_present(folder.join("address"))?.and_then(|text| text.parse().ok());
            let power = folder.join("power");
            if held.is_some_and(|held: PciSlot| on_card.contains(&held)) && self.is_present(&power) {
                return Ok(Some(power));
            }
        }
        Ok(None)
    }

    /// Cuts the power of the slot that a function's card is in, and waits for these functions to come back. They come
    /// as after [`Host::rescan`].
    ///
    /// # Errors
    /// The slot has no power switch; they do not come back; it takes too long ([`HostError::stuck_process`]).
    pub fn power_cycle_slot(
        &mut self,
        function: PciAddress,
        functions: &[PciAddress],
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let power =
            self.slot_power_of(function)?.ok_or_else(|| HostError::pci(PciTrouble::NoSlotPower(function)))?;
        let port = self.pci_ports_above(function)?.card_port();
        let found = self.without_autoprobe(deadline, |host| {
            for value in ["0", "1"] {
                host.write_bounded(&power, value, deadline.earlier(Deadline::after(STEP)))?;
            }
            host.wait_for_functions(functions, deadline)
        });
        // The ports may be back without what was below them.
        let ports = port.map_or(Ok(()), |port| self.probe_ports_behind(port, deadline));
        found.and(ports)
    }

    /// Puts the whole host to sleep for two seconds, so deep that its cards lose power, woken by its alarm clock.
    /// Nothing that keeps the host awake is asked.
    ///
    /// # Errors
    /// The host has no such sleep, its alarm clock is taken, or a driver refuses.
    pub fn deep_sleep(&mut self, deadline: Deadline) -> Result<(), HostError> {
        let kinds = self.text_if_present(MEM_SLEEP)?.unwrap_or_default();
        let names = || kinds.split_whitespace().map(|name| name.trim_matches(['[', ']']));
        if !names().any(|name| name == "deep") {
            return Err(HostError::pci(PciTrouble::NoDeepSleep(kinds)));
        }
        let before = kinds.split_whitespace().find_map(|name| name.strip_prefix('[')?.strip_suffix(']'));
        let alarm = self.text(WAKE_ALARM)?;
        if !alarm.is_empty() {
            return Err(HostError::pci(PciTrouble::AlarmTaken(alarm)));
        }
        self.write_bounded(WAKE_ALARM.as_ref(), &format!("+{SLEEP_SECONDS}"), deadline)?;
        let slept = self
            .write_bounded(MEM_SLEEP.as_ref(), "deep", deadline)
            .and_then(|()| self.write_bounded(POWER_STATE.as_ref(), "mem", deadline));
        // Where it did not sleep, nothing must ring later. What has rung is gone.
        let enough = deadline.later(Deadline::after(PUT_BACK));
        let quiet = self.write_bounded(WAKE_ALARM.as_ref(), "0", enough);
        let restored = match before {
            Some(before) if before != "deep" => self.write_bounded(MEM_SLEEP.as_ref(), before, enough),
            _ => Ok(()),
        };
        slept.and(quiet).and(restored)
    }

    /// The file that has the bus below a port looked at. `rescan` of the port itself would look at the bus it is on
    /// (`dev_rescan_store`); this one also makes its window larger where nothing is left below (`bus_rescan_store`).
    fn rescan_path(&self, port: PciAddress) -> Result<PathBuf, HostError> {
        let buses = file(port, "pci_bus");
        match self.names(&buses) {
            Ok(names) => {
                let bus = names.first().ok_or_else(|| HostError::content(&buses, "it has no bus"))?;
                Ok(buses.join(bus).join("rescan"))
            }
            // A port without a bus below: the one it is on.
            Err(error) if error.is_absent() && self.is_pci_function(port) => Ok(file(port, "rescan")),
            Err(error) => Err(error),
        }
    }

    fn without_autoprobe(
        &mut self,
        deadline: Deadline,
        then: impl FnOnce(&mut Self) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let before = self.text(AUTOPROBE)?;
        if before == "0" {
            return then(self);
        }
        self.write_bounded(AUTOPROBE.as_ref(), "0", deadline)?;
        let done = then(self);
        let enough = deadline.later(Deadline::after(PUT_BACK));
        let restored = self.write_bounded(AUTOPROBE.as_ref(), &before, enough);
        done.and(restored)
    }

    fn wait_for_functions(&self, functions: &[PciAddress], deadline: Deadline) -> Result<(), HostError> {
        loop {
            let missing: Vec<PciAddress> =
                functions.iter().filter(|function| !self.is_pci_function(**function)).copied().collect();
            if missing.is_empty() {
                return Ok(());
            }
            if deadline.has_passed() {
                return Err(HostError::pci(PciTrouble::NotBack(missing)));
            }
            deadline.pause(LOOK);
        }
    }

    /// Ports that came back need their driver, for errors and hotplug; it touches nothing but them.
    fn probe_ports_behind(&mut self, port: PciAddress, deadline: Deadline) -> Result<(), HostError> {
        if !self.is_present(Path::new(DRIVERS).join("pcieport")) {
            return Ok(());
        }
        for function in self.pci_functions_behind(port)? {
            let found = self.pci_function(function)?;
            if found.driver.is_none() && PciClass::is_bridge(found.class) {
                self.write_bounded(
                    DRIVERS_PROBE.as_ref(),
                    &function.to_string(),
                    deadline.earlier(Deadline::after(STEP)),
                )?;
            }
        }
        Ok(())
    }
}

//! Which drivers functions have that are handed over together, and the way from any state to a wanted one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AskedBars, DRIVERS, DriverName, PciAttribute, PciTrouble, STEP, file};
use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pci::BarSize;
use crate::pci::PciAddress;

/// How long `driver_override` may take to be read: the kernel shows it only while no driver is at work with the
/// function.
const READ: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a program may have a function that is about to be unbound: one that asks a monitor for its brightness has it
/// for milliseconds.
const GLIMPSE: std::time::Duration = std::time::Duration::from_secs(1);

/// What the kernel shows for no override (`driver_override_show` prints a null pointer).
const NO_OVERRIDE: &str = "(null)";

/// Binds a function to whichever driver its override names, or knows it.
const DRIVERS_PROBE: &str = "/sys/bus/pci/drivers_probe";

/// What functions handed over together are bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bindings(pub BTreeMap<PciAddress, Binding>);

/// What a function is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Its driver; none where it has none.
    pub driver: Option<DriverName>,
    /// The one driver that may have it; none where any that knows it may.
    pub driver_override: Option<DriverName>,
    /// The sizes of those BARs that were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bar_sizes: BTreeMap<u8, BarSize>,
}

impl Binding {
    /// Bound to a driver of vfio's, and kept for it.
    #[must_use]
    pub fn kept_for(driver: DriverName) -> Self {
        Self { driver: Some(driver.clone()), driver_override: Some(driver), bar_sizes: BTreeMap::new() }
    }

    /// Bound to a driver that knows the function by itself.
    #[must_use]
    pub fn to_host(driver: DriverName) -> Self {
        Self { driver: Some(driver), driver_override: None, bar_sizes: BTreeMap::new() }
    }

    /// Whether a driver of the host's has it.
    #[must_use]
    pub fn has_host_driver(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| !driver.is_vfio())
    }

    /// Without a driver, and every driver kept away.
    #[must_use]
    pub fn quarantined() -> Self {
        Self { driver: None, driver_override: Some(DriverName::none()), bar_sizes: BTreeMap::new() }
    }
}

impl Bindings {
    /// Whether a driver of the host's has one of the functions.
    #[must_use]
    pub fn has_host_driver(&self) -> bool {
        self.0.values().any(Binding::has_host_driver)
    }

    /// The same, without the sizes of BARs that the other one has too: for people, who would read them twice.
    #[must_use]
    pub fn beside(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (function, binding) in &mut rest.0 {
            let theirs = other.0.get(function).map(|binding| &binding.bar_sizes);
            binding.bar_sizes.retain(|bar, size| theirs.and_then(|sizes| sizes.get(bar)) != Some(size));
        }
        rest
    }

    /// The same, but those functions that a driver of the host's has, or could get, have none and are kept from all.
    #[must_use]
    pub fn without_host_drivers(&self) -> Self {
        let aside = |binding: &Binding| match &binding.driver {
            Some(driver) if driver.is_vfio() => {
                Binding { driver_override: Some(driver.clone()), ..binding.clone() }
            }
            _ => Binding { bar_sizes: binding.bar_sizes.clone(), ..Binding::quarantined() },
        };
        Self(self.0.iter().map(|(function, binding)| (*function, aside(binding))).collect())
    }
}

impl fmt::Display for Bindings {
    /// `amdgpu, snd_hda_intel`, in the order of the functions; one name where all have the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let drivers: Vec<&str> = self
            .0
            .values()
            .map(|binding| binding.driver.as_ref().map_or("none", DriverName::as_str))
            .collect();
        match drivers.as_slice() {
            [first, others @ ..] if others.iter().all(|other| other == first) => f.write_str(first)?,
            all => f.write_str(&all.join(", "))?,
        }
        for (function, binding) in &self.0 {
            for (bar, size) in &binding.bar_sizes {
                write!(f, ", BAR {bar} of {function} {size}")?;
            }
        }
        Ok(())
    }
}

/// Whether functions are looked at for programs that use them right before they are unbound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastLook {
    No,
    BeforeUnbinding,
}

/// A function, what it has and what it is to have.
struct Move<'a> {
    function: PciAddress,
    now: Binding,
    wanted: &'a Binding,
}

impl Move<'_> {
    /// BARs are resized without a driver.
    fn resizes(&self) -> bool {
        self.now.bar_sizes != self.wanted.bar_sizes
    }

    /// The driver that has to let go of it.
    fn unbound_from(&self) -> Option<&DriverName> {
        let leaves = self.now.driver != self.wanted.driver || self.resizes();
        self.now.driver.as_ref().filter(|_| leaves)
    }

    /// The driver that has to take it.
    fn bound_to(&self) -> Option<&DriverName> {
        let stays = self.now.driver == self.wanted.driver && self.unbound_from().is_none();
        self.wanted.driver.as_ref().filter(|_| !stays)
    }
}

impl Host {
    /// What functions are bound to, and the sizes of the BARs asked for; a BAR without a place has no size.
    ///
    /// # Errors
    /// One of them is not there ([`HostError::is_absent`]); a driver that hangs keeps the kernel from telling
    /// ([`HostError::stuck_process`]).
    pub fn bindings(&self, functions: &[PciAddress], bars: &AskedBars) -> Result<Bindings, HostError> {
        let paths: Vec<PathBuf> =
            functions.iter().map(|function| file(*function, "driver_override")).collect();
        let overrides = self.read_bounded(&paths, Deadline::after(READ))?;
        let mut bindings = BTreeMap::new();
        for ((function, path), text) in functions.iter().zip(&paths).zip(overrides) {
            let driver_override = match text.as_deref() {
                None | Some("" | NO_OVERRIDE) => None,
                Some(name) => Some(name.parse().map_err(|error| HostError::content(path, error))?),
            };
            let bar_sizes = match bars.get(function) {
                Some(bars) => self.pci_bar_sizes(*function, bars)?,
                None => BTreeMap::new(),
            };
            let driver = self.pci_driver(*function)?;
            bindings.insert(*function, Binding { driver, driver_override, bar_sizes });
        }
        Ok(Bindings(bindings))
    }

    /// Brings functions to a wanted state from any other, also from one that a killed process left half-way. What is so
    /// already is not done again.
    ///
    /// The order keeps other drivers away: first every override, then the functions are unbound, the display first (a
    /// program that gets at it meanwhile may have its driver hang), the others from the highest down, then bound again, the
    /// lowest first. The first that fails ends it: the functions after it are left as they are.
    ///
    /// # Errors
    /// A driver does not let go or does not take a function within 30 s ([`HostError::stuck_process`]), or not at all;
    /// a BAR cannot have its size; a function is not there ([`HostError::is_absent`]).
    pub fn set_bindings(&mut self, wanted: &Bindings, deadline: Deadline) -> Result<(), HostError> {
        self.set_bindings_insisting_on(wanted, None, LastLook::No, deadline).map(drop)
    }

    /// The same for functions that are taken from the host: right before the first of them is unbound, all of them are
    /// looked at once more. Between an earlier look and that a program may have opened one.
    ///
    /// # Errors
    /// As [`Self::set_bindings`]; a program uses one of them.
    pub fn set_bindings_of_unused(&mut self, wanted: &Bindings, deadline: Deadline) -> Result<(), HostError> {
        self.set_bindings_insisting_on(wanted, None, LastLook::BeforeUnbinding, deadline).map(drop)
    }

    /// The same, but the driver of a function that does not decide may refuse it: what it said is returned.
    ///
    /// # Errors
    /// As [`Self::set_bindings`].
    pub fn set_bindings_where_some_decide(
        &mut self,
        wanted: &Bindings,
        deciding: &[PciAddress],
        deadline: Deadline,
    ) -> Result<Vec<HostError>, HostError> {
        self.set_bindings_insisting_on(wanted, Some(deciding), LastLook::No, deadline)
    }

    /// Insists on all where none is named.
    fn set_bindings_insisting_on(
        &mut self,
        wanted: &Bindings,
        deciding: Option<&[PciAddress]>,
        last_look: LastLook,
        deadline: Deadline,
    ) -> Result<Vec<HostError>, HostError> {
        let moves = self.moves(wanted)?;
        for driver in moves.iter().filter_map(Move::bound_to) {
            self.load_vfio_driver(driver, deadline)?;
        }
        let power = self.power_controls(&moves)?;
        for step in moves.iter().filter(|step| step.now.driver_override != step.wanted.driver_override) {
            self.set_driver_override(step.function, step.wanted.driver_override.as_ref(), deadline)?;
        }
        let is_display = |step: &&Move<'_>| {
            self.pci_function(step.function).is_ok_and(|function| function.class.is_display())
        };
        let leaves_host = |step: &Move<'_>| step.unbound_from().is_some_and(|driver| !driver.is_vfio());
        if last_look == LastLook::BeforeUnbinding && moves.iter().any(leaves_host) {
            let functions: Vec<PciAddress> = moves.iter().map(|step| step.function).collect();
            self.wait_until_unused(&functions, Deadline::after(GLIMPSE).earlier(deadline))?;
        }
        let (displays, others): (Vec<_>, Vec<_>) = moves.iter().partition(is_display);
        for step in displays.into_iter().chain(others.into_iter().rev()) {
            if let Some(driver) = step.unbound_from() {
                self.unbind(step.function, driver, deadline)?;
            }
        }
        for step in moves.iter().filter(|step| step.unbound_from().is_some()) {
            if let Some(driver) = self.pci_driver(step.function)? {
                return Err(HostError::pci(PciTrouble::BoundAgain { function: step.function, driver }));
            }
        }
        for step in moves.iter().filter(|step| step.resizes()) {
            self.set_pci_bar_sizes(step.function, &step.wanted.bar_sizes, deadline)?;
        }
        let insists = |function| deciding.is_none_or(|deciding| deciding.contains(&function));
        let mut refused = Vec::new();
        for step in &moves {
            let Some(driver) = step.bound_to() else { continue };
            match self.drivers_probe(step.function, driver, deadline) {
                Err(error) if error.is_of_driver() && !insists(step.function) => refused.push(error),
                done => done?,
            }
            if let Some(control) = power.get(&step.function) {
                self.put_power_control_back(step.function, control, deadline)?;
            }
        }
        Ok(refused)
    }

    fn moves<'a>(&self, wanted: &'a Bindings) -> Result<Vec<Move<'a>>, HostError> {
        let functions: Vec<PciAddress> = wanted.0.keys().copied().collect();
        let bars: AskedBars = wanted
            .0
            .iter()
            .map(|(function, binding)| (*function, binding.bar_sizes.keys().copied().collect()))
            .collect();
        let Bindings(mut now) = self.bindings(&functions, &bars)?;
        let moves = wanted.0.iter().map(|(function, wanted)| Move {
            function: *function,
            now: now.remove(function).unwrap_or_default(),
            wanted,
        });
        Ok(moves.collect())
    }

    /// Loads the module of a driver of vfio's that is not there; never another: a host's driver that is gone was
    /// unloaded by an administrator.
    fn load_vfio_driver(&mut self, driver: &DriverName, deadline: Deadline) -> Result<(), HostError> {
        let folder = Path::new(DRIVERS).join(driver.as_str());
        if !driver.is_vfio() || self.is_present(&folder) {
            return Ok(());
        }
        if self.is_real() {
            self.load_module(driver.as_str(), deadline.earlier(Deadline::after(STEP)))?;
        } else {
            let module = driver.as_str().replace('-', "_");
            self.make_file(format!("/sys/module/{module}/initstate").as_ref(), b"live\n")?;
        }
        if self.is_present(&folder) {
            Ok(())
        } else {
            Err(HostError::pci(PciTrouble::NoDriver(driver.clone())))
        }
    }

    /// `power/control` of the functions that go to a driver of vfio's: its probe sets it to `auto` (`pm_runtime_allow`
    /// in `vfio_pci_core_register_device`), and its end to `on`.
    fn power_controls(&self, moves: &[Move<'_>]) -> Result<BTreeMap<PciAddress, String>, HostError> {
        let mut controls = BTreeMap::new();
        for step in moves.iter().filter(|step| step.bound_to().is_some_and(DriverName::is_vfio)) {
            if let Some(control) = self.text_if_present(PciAttribute::PowerControl.path(step.function))? {
                controls.insert(step.function, control);
            }
        }
        Ok(controls)
    }

    fn put_power_control_back(
        &mut self,
        function: PciAddress,
        control: &str,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        if self.pci_attribute(function, PciAttribute::PowerControl)? == control {
            return Ok(());
        }
        self.set_pci_attribute(function, PciAttribute::PowerControl, control, deadline)
    }

    /// `driver_override`; a line without a name takes it away.
    fn set_driver_override(
        &mut self,
        function: PciAddress,
        driver: Option<&DriverName>,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let value = driver.map_or("\n", DriverName::as_str);
        // The kernel waits for a driver that is at work with the function (`device_lock`).
        self.write_bounded(&file(function, "driver_override"), value, deadline.earlier(Deadline::after(STEP)))
    }

    /// `unbind` of the driver's folder.
    fn unbind(
        &mut self,
        function: PciAddress,
        driver: &DriverName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let path = PathBuf::from(format!("{DRIVERS}/{driver}/unbind"));
        let unbound =
            self.write_bounded(&path, &function.to_string(), deadline.earlier(Deadline::after(STEP)));
        match unbound {
            // Whatever it said, it is what was wanted: another program was faster.
            Err(error) if error.stuck_process().is_none() && self.pci_driver(function)?.is_none() => Ok(()),
            unbound => unbound,
        }
    }

    /// `drivers_probe`, verified: the kernel reports success also where the driver's probe failed (`really_probe` in
    /// `drivers/base/dd.c`).
    fn drivers_probe(
        &mut self,
        function: PciAddress,
        wanted: &DriverName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.write_bounded(
            DRIVERS_PROBE.as_ref(),
            &function.to_string(),
            deadline.earlier(Deadline::after(STEP)),
        )?;
        let trouble = match self.pci_driver(function)? {
            Some(driver) if driver == *wanted => return Ok(()),
            Some(driver) => PciTrouble::TakenByAnother { function, driver, wanted: wanted.clone() },
            None => PciTrouble::NotTaken { function, driver: wanted.clone() },
        };
        Err(HostError::pci(trouble))
    }
}

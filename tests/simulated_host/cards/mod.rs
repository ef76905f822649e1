//! Guests with a graphics card: it is handed over whole, and comes back, or is known not to.

mod awake;
mod choice;
mod companions;
mod compositors;
mod desktops;
mod failures;
mod hangs;
mod holders;
mod host_drivers;
mod interleavings;
mod keepers;
mod kernel_failures;
mod kernel_lines;
mod kills;
mod ledger_file;
mod locks;
mod pollers;
mod processor_graphics;
mod reboots;
mod recovery;
mod reserved_memory;
mod reset_after;
mod returns;
mod wedged;
mod workers;

use std::fs;
use std::time::Duration;

use vfio_hook::deadline::Deadline;
use vfio_hook::host::simulated::SimulatedKernel;
use vfio_hook::ledger::{Ledger, Outcome, Quarantine};
use vfio_hook::pci::{PciAddress, PciFunctions};

use crate::support::{Life, Machine, guest, life, soon};

/// The functions of the RX 6800.
pub(crate) const CARD: [&str; 4] = ["0000:03:00.0", "0000:03:00.1", "0000:03:00.2", "0000:03:00.3"];

/// The drivers that the host has for them.
pub(crate) const HOST_DRIVERS: [&str; 4] = ["amdgpu", "snd_hda_intel", "xhci_hcd", "i2c-designware-pci"];

pub(crate) const ON_VFIO: [&str; 4] = ["vfio-pci"; 4];

/// The ports above it, the nearest first.
pub(crate) const PORTS: [&str; 3] = ["0000:02:00.0", "0000:01:00.0", "0000:00:01.1"];

/// A USB controller of the mainboard.
pub(crate) const USB: &str = "0000:0f:00.3";

/// Where the card's first function is.
pub(crate) const DISPLAY: &str =
    "/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0";

/// A desktop with an RX 6800 that a driver has made a DRM device of.
pub(crate) fn machine() -> Machine {
    machine_with("")
}

pub(crate) fn machine_with(lines: &str) -> Machine {
    Machine::with("ryzen-7950x", &format!("{}{lines}", drm()))
}

/// What the driver of the card's display makes.
pub(crate) fn drm() -> String {
    drm_of(DISPLAY, 1)
}

/// What the driver of any display makes.
pub(crate) fn drm_of(display: &str, number: u32) -> String {
    let card = format!("{display}/drm/card{number}");
    format!(
        "{card}/dev = 226:{number}\n\
         {card}/uevent = MAJOR=226\\nMINOR={number}\\nDEVNAME=dri/card{number}\\nDEVTYPE=drm_minor\n"
    )
}

/// A process that has one file of a card open, in a control group.
pub(crate) fn process(pid: i32, name: &str, cgroup: &str, file: &str) -> String {
    // `starttime` is the 22nd field.
    let fields = format!("{}4242 {}", "0 ".repeat(18), "0 ".repeat(30));
    format!(
        "/proc/{pid}/stat = {pid} ({name}) S {fields}\n\
         /proc/{pid}/cgroup = 0::{cgroup}\n\
         /proc/{pid}/fd/9 -> {file}\n"
    )
}

/// `<hostdev>` for each of these functions.
pub(crate) fn hostdevs(functions: &[&str]) -> String {
    let hostdev = |function: &&str| {
        let address: PciAddress = function.parse().unwrap();
        let slot = address.slot().to_string();
        let parts: Vec<&str> = slot.split(':').collect();
        format!(
            "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x{}' bus='0x{}' \
             slot='0x{}' function='{}'/></source></hostdev>",
            parts[0],
            parts[1],
            parts[2],
            address.function()
        )
    };
    format!("<devices>{}</devices>", functions.iter().map(hostdev).collect::<String>())
}

/// A guest that gets these functions, and what else its XML says.
pub(crate) fn player(number: u8, functions: &[&str], xml: &str, yaml: &str) -> Life {
    life(guest(number, "2-3", &format!("{xml}{}", hostdevs(functions))), yaml)
}

/// A guest that gets the whole card and ends when it reboots itself.
pub(crate) fn gamer(yaml: &str) -> Life {
    player(1, &CARD, "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>", yaml)
}

impl Machine {
    /// Keepers without a lease leave by themselves; those of a host in a folder are files.
    pub(crate) fn useless_keepers_leave(&self) {
        if !self.has_ledger() {
            let _ = fs::remove_dir_all(self.path("/simulated/keepers"));
        }
    }

    /// A function's driver; nothing where it has none.
    pub(crate) fn driver(&self, function: &str) -> String {
        let link = fs::read_link(self.path(&format!("/sys/bus/pci/devices/{function}/driver")));
        link.map_or_else(|_| String::new(), |link| link.file_name().unwrap().to_str().unwrap().to_owned())
    }

    /// The drivers of the card's functions.
    pub(crate) fn drivers(&self) -> [String; 4] {
        CARD.map(|function| self.driver(function))
    }

    /// What driverctl and the like do at boot: the card is with VFIO before any guest.
    pub(crate) fn gives_card_to_vfio(&self) {
        let kernel = SimulatedKernel::new(self.root(), self.faults.clone());
        for function in CARD {
            let driver = self.driver(function);
            kernel.write(format!("/sys/bus/pci/devices/{function}/driver_override"), "vfio-pci").unwrap();
            kernel.write(format!("/sys/bus/pci/drivers/{driver}/unbind"), function).unwrap();
            kernel.write("/sys/bus/pci/drivers_probe", function).unwrap();
        }
        assert_eq!(self.drivers(), ON_VFIO);
    }

    pub(crate) fn attribute(&self, function: &str, name: &str) -> String {
        self.get(&format!("/sys/bus/pci/devices/{function}/{name}"))
    }

    /// What is the matter with a function or a port from now on.
    pub(crate) fn breaks(&self, function: &str, fault: &str) {
        let path = self.path(&format!("/simulated/pci/{function}/fault"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{fault}\n")).unwrap();
    }

    /// Nothing is the matter with it any more.
    pub(crate) fn heals(&self, function: &str) {
        fs::remove_file(self.path(&format!("/simulated/pci/{function}/fault"))).unwrap();
    }

    pub(crate) fn kernel_says(&self, line: &str) {
        let log = self.get("/dev/kmsg");
        let number = log.lines().count() + 2000;
        self.set("/dev/kmsg", &format!("{log}\n3,{number},9999,-;{line}"));
    }

    pub(crate) fn quarantine(&self) -> Option<Quarantine> {
        self.record().and_then(|record| record.quarantines.first().cloned())
    }

    /// What the guest's keeper does, with so much time.
    pub(crate) fn gives_back_within(&self, life: &Life, budget: Duration) -> Outcome {
        let mut host = self.host();
        let mut ledger = Ledger::open(&mut host, Deadline::after(budget)).unwrap();
        ledger.give_back_here(life.guest.uuid, "destroyed", None).unwrap()
    }

    /// What `vfio-hook gpu clear` does.
    pub(crate) fn clear_quarantine(&self) -> vfio_hook::ledger::Cleared {
        let mut host = self.host();
        Ledger::open(&mut host, soon()).unwrap().clear_quarantine(&functions(&CARD)).unwrap()
    }
}

pub(crate) fn functions(names: &[&str]) -> PciFunctions {
    PciFunctions::new(names.iter().map(|name| name.parse().unwrap())).unwrap()
}

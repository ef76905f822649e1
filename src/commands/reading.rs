//! A guest as its XML was read, for a person to see at once where that is wrong.

use std::collections::BTreeMap;

use serde::Serialize;

use super::output::count;
use crate::cpuset::CpuSet;
use crate::guest::{Guest, HostdevPlace, PciHostdev};
use crate::host::Host;
use crate::pages::PageSize;
use crate::printable::printable;

/// A terminal's width in characters.
const WIDTH: usize = 80;

/// Where what follows a label begins.
const INDENT: usize = 11;

/// A guest as its XML was read.
#[derive(Debug, Serialize)]
pub(super) struct Reading {
    vcpus: Vcpus,
    threads: Threads,
    /// All its memory, in words.
    memory: String,
    /// In huge pages; none without.
    huge_pages: Vec<Pages>,
    devices: Vec<Device>,
    mediated_devices: usize,
}

#[derive(Debug, Serialize)]
struct Vcpus {
    running: usize,
    most: u32,
    /// The CPUs that they are pinned to.
    cpus: CpuSet,
    /// Those that run and may do so anywhere.
    unpinned: Vec<u32>,
}

/// QEMU's own.
#[derive(Debug, Serialize)]
struct Threads {
    /// None where the emulator may run anywhere.
    emulator: Option<CpuSet>,
    iothreads: u32,
    iothread_pins: BTreeMap<u32, CpuSet>,
}

#[derive(Debug, Serialize)]
struct Pages {
    size: PageSize,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Device {
    address: String,
    /// The element of the XML.
    place: String,
    /// What this host has there; none where it has nothing.
    there: Option<String>,
}

impl Reading {
    /// What was read of a guest, and what the host has at the addresses of its devices.
    pub(super) fn of(guest: &Guest, host: &Host) -> Self {
        let mut huge_pages: Vec<Pages> = Vec::new();
        let size = host.default_huge_page_size().unwrap_or(PageSize::MIB_2);
        for demand in guest.page_demands(size).unwrap_or_default() {
            match huge_pages.iter_mut().find(|pages| pages.size == demand.size) {
                Some(pages) => pages.count += demand.pages,
                None => huge_pages.push(Pages { size: demand.size, count: demand.pages }),
            }
        }
        Self {
            vcpus: Vcpus {
                running: guest.vcpus.running.len(),
                most: guest.vcpus.max,
                cpus: guest.pinned_cpus(),
                unpinned: guest.unpinned_vcpus(),
            },
            threads: Threads {
                emulator: guest.effective_emulator_pin().cloned(),
                iothreads: guest.qemu_threads.iothreads,
                iothread_pins: guest.qemu_threads.iothread_pins.clone(),
            },
            memory: guest.memory.to_string(),
            huge_pages,
            devices: guest.pci_hostdevs.iter().map(|device| Device::of(device, host)).collect(),
            mediated_devices: guest.mediated_devices,
        }
    }

    /// What a person reads: a label and what belongs to it, no line wider than a terminal.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        add("vCPUs", &[self.vcpus.in_words()], &mut lines);
        add("QEMU", &[self.threads.in_words()], &mut lines);
        add("memory", &[self.memory_in_words()], &mut lines);
        let mut devices: Vec<String> = self.devices.iter().map(Device::in_words).collect();
        if self.mediated_devices > 0 {
            devices.push(count(self.mediated_devices, "mediated device"));
        }
        if devices.is_empty() {
            devices.push("none of the host's".to_owned());
        }
        add("devices", &devices, &mut lines);
        lines
    }

    fn memory_in_words(&self) -> String {
        let pages: Vec<String> =
            self.huge_pages.iter().map(|pages| format!("{} of {}", pages.count, pages.size)).collect();
        if pages.is_empty() {
            format!("{}, not in huge pages", self.memory)
        } else {
            format!("{}, in huge pages: {}", self.memory, pages.join(" and "))
        }
    }
}

impl Vcpus {
    fn in_words(&self) -> String {
        let Self { running, most, cpus, unpinned } = self;
        let many =
            if *running == *most as usize { running.to_string() } else { format!("{running} of {most}") };
        let run = if *running == 1 { "runs" } else { "run" };
        let on = if unpinned.len() == *running {
            "on any CPU".to_owned()
        } else if unpinned.is_empty() {
            on(cpus)
        } else {
            let unpinned: CpuSet = unpinned.iter().copied().collect();
            format!("{}, but for vCPU {unpinned} on any CPU", on(cpus))
        };
        format!("{many} {run}, {on}")
    }
}

impl Threads {
    fn in_words(&self) -> String {
        let place = |cpus: Option<&CpuSet>| cpus.map_or_else(|| "on any CPU".to_owned(), on);
        let mut words = vec![format!("its own threads {}", place(self.emulator.as_ref()))];
        for (thread, cpus) in &self.iothread_pins {
            words.push(format!("I/O thread {thread} {}", on(cpus)));
        }
        let unpinned = (self.iothreads as usize).saturating_sub(self.iothread_pins.len());
        if unpinned > 0 {
            // They have what the emulator has only where that comes from <vcpu cpuset=…>.
            words.push(format!("{} without a pin", count(unpinned, "I/O thread")));
        }
        words.join("; ")
    }
}

impl Device {
    fn of(device: &PciHostdev, host: &Host) -> Self {
        let PciHostdev { address, place, .. } = device;
        let there = host.pci_function(*address).ok().map(|function| {
            let name = host.pci_model_name(function.id);
            name.map_or_else(|| format!("{}, {}", function.class, function.id), |name| name.to_string())
        });
        Self { address: address.to_string(), place: place.to_string(), there }
    }

    fn in_words(&self) -> String {
        let there = self.there.as_deref().unwrap_or("not on this host");
        let is_usual = self.place == HostdevPlace::Hostdev.to_string();
        let place = if is_usual { String::new() } else { format!(", by {}", self.place) };
        format!("{} ({there}){place}", self.address)
    }
}

fn on(cpus: &CpuSet) -> String {
    format!("on CPU{} {cpus}", if cpus.len() == 1 { "" } else { "s" })
}

/// Adds items under a label, each on lines of its own.
fn add(label: &str, items: &[String], lines: &mut Vec<String>) {
    let mut label = label;
    for item in items {
        let mut line = format!("  {label:<0$}", INDENT - 2);
        let mut is_empty = true;
        for word in printable(item).split(' ') {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::replace(&mut line, " ".repeat(INDENT)));
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        lines.push(line);
        label = "";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::testing::Machine;

    fn reading(elements: &str) -> Reading {
        let xml = format!(
            "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>win11</name>\
             <uuid>00000000-0000-4000-8000-000000000001</uuid>{elements}</domain>"
        );
        let machine = Machine::new();
        machine.add(
            "/usr/share/hwdata/pci.ids = 1002  AMD\\n\t73bf  Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]\\n",
        );
        Reading::of(&Guest::parse(xml.as_bytes()).unwrap(), &machine.host())
    }

    /// What every kind of guest reads as.
    const GUESTS: [&str; 3] = [
        "<memory unit='GiB'>8</memory><memoryBacking><hugepages/></memoryBacking><vcpu current='4'>6</vcpu>\
         <iothreads>2</iothreads><cputune><vcpupin vcpu='0' cpuset='8'/><vcpupin vcpu='1' cpuset='24'/>\
         <vcpupin vcpu='2' cpuset='9'/><vcpupin vcpu='3' cpuset='25'/><emulatorpin cpuset='0-1'/>\
         <iothreadpin iothread='1' cpuset='2'/></cputune><devices>\
         <hostdev type='pci'><source><address bus='3'/></source></hostdev>\
         <hostdev type='pci'><source><address bus='3' function='1'/></source></hostdev>\
         <interface type='hostdev'><source><address type='pci' bus='0x66' slot='0x10'/></source></interface>\
         <disk type='nvme'><source namespace='1'><address bus='0x67'/></source></disk>\
         <hostdev type='mdev'><source><address uuid='x'/></source></hostdev></devices>\
         <qemu:commandline><qemu:arg value='-device'/><qemu:arg value='vfio-pci,host=0f:00.3'/></qemu:commandline>",
        "<memory unit='GiB'>4</memory><vcpu>1</vcpu>",
        "<memory unit='GiB'>4</memory><vcpu>3</vcpu><cputune><vcpupin vcpu='0' cpuset='1,3,5,7,9,11,13,15,17,19,21,23,\
         25,27,29'/><vcpupin vcpu='1' cpuset='4'/></cputune>",
    ];

    #[test]
    fn a_guest_is_seen_at_once() {
        let lines = GUESTS.map(|elements| reading(elements).lines().join("\n"));
        for line in lines.iter().flat_map(|lines| lines.lines()) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        insta::assert_snapshot!(lines.join("\n\n"));
    }

    #[test]
    fn a_program_sees_it_too() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&reading(GUESTS[0])).unwrap());
    }
}

//! While something slow is done to a card, others get at the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vfio_hook::deadline::Deadline;
use vfio_hook::host::Host;
use vfio_hook::host::simulated::Faults;
use vfio_hook::ledger::Ledger;
use vfio_hook::lifecycle;

use super::{CARD, DISPLAY, PORTS, USB, machine_with, player};
use crate::support::{Machine, soon};

/// Another process opens the ledger before each of these writes, and finds nothing to settle.
fn come_by(machine: &Machine, paths: &[String]) -> Arc<AtomicUsize> {
    let came = Arc::new(AtomicUsize::new(0));
    for path in paths {
        let (root, counter, place) = (machine.root(), Arc::clone(&came), path.clone());
        machine.faults.interrupt(path, move || {
            let mut host = Host::simulated(&root, &Faults::default());
            let ledger = Ledger::open(&mut host, Deadline::after(Duration::from_secs(1)))
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            let recovered = ledger.recovered();
            assert!(recovered.changes.is_empty() && recovered.failures.is_empty(), "{place}: {recovered:?}");
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }
    came
}

#[test]
fn no_write_to_a_device_keeps_others_from_the_ledger() {
    let machine = machine_with(&format!(
        "{DISPLAY}/reset_method = pm bus\n\
         /simulated/pci/{}/reset_methods = pm bus\n",
        CARD[0]
    ));
    let before = machine.files();
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    let life = player(1, &devices, xml, "gpu: {reset_method: [pm]}");
    let device = |address: &str, name: &str| format!("/sys/bus/pci/devices/{address}/{name}");
    let mut paths = vec!["/sys/bus/pci/drivers_probe".to_owned(), device(CARD[0], "reset_method")];
    paths.extend(devices.iter().map(|function| device(function, "driver_override")));
    for address in CARD.iter().chain(&PORTS) {
        paths.push(device(address, "d3cold_allowed"));
        if *address != CARD[2] {
            paths.push(device(address, "power/control"));
        }
    }
    let unbind = |driver: &str| format!("/sys/bus/pci/drivers/{driver}/unbind");
    let host_drivers = ["amdgpu", "snd_hda_intel", "xhci_hcd", "i2c-designware-pci"].map(unbind);

    let taking: Vec<String> = paths.iter().cloned().chain(host_drivers).collect();
    let came = come_by(&machine, &taking);
    machine.prepare(&life).unwrap();
    assert_eq!(came.load(Ordering::Relaxed), taking.len());

    let returning: Vec<String> = paths.into_iter().chain([unbind("vfio-pci")]).collect();
    let came = come_by(&machine, &returning);
    machine.release(&life).unwrap();
    assert_eq!(came.load(Ordering::Relaxed), returning.len());
    machine.assert_is(&before, "released");
}

#[test]
fn two_cards_on_their_way_at_once_do_not_disturb_each_other() {
    let machine = machine_with("");
    let before = machine.files();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    let life = player(1, &CARD, xml, "gpu: {}");
    for (path, first) in
        [("/sys/bus/pci/drivers/amdgpu/unbind", true), ("/sys/bus/pci/drivers/vfio-pci/unbind", false)]
    {
        let root = machine.root();
        // The processor's own graphics, with whatever that is good for.
        let other = player(2, &["0000:0e:00.0", "0000:0e:00.1"], xml, "gpu: {}");
        machine.faults.interrupt(path, move || {
            let mut host = Host::simulated(&root, &Faults::default());
            if first {
                lifecycle::prepare(&mut host, Some(&other.loaded), &other.guest, b"", soon()).unwrap();
            } else {
                lifecycle::release(&mut host, other.guest.uuid, "shutdown", soon()).unwrap();
            }
        });
        if first {
            machine.prepare(&life).unwrap();
            assert_eq!(machine.driver("0000:0e:00.0"), "vfio-pci");
        } else {
            machine.release(&life).unwrap();
        }
    }
    machine.assert_is(&before, "both released");
}

#[test]
fn events_in_the_middle_of_a_return_do_not_disturb_it() {
    let machine = machine_with("");
    let before = machine.files();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    let (life, other) = (player(1, &CARD, xml, "gpu: {}"), player(2, &CARD, xml, "gpu: {}"));
    machine.prepare(&life).unwrap();
    let (root, uuid) = (machine.root(), life.guest.uuid);
    machine.faults.interrupt("/sys/bus/pci/drivers_probe", move || {
        let mut host = Host::simulated(&root, &Faults::default());
        let again = lifecycle::release(&mut host, uuid, "shutdown", soon()).unwrap();
        assert!(again.changes.is_empty(), "{again:?}");
        let error =
            lifecycle::prepare(&mut host, Some(&other.loaded), &other.guest, b"", soon()).unwrap_err();
        assert!(error.to_string().contains("belongs to guest guest1"), "{error}");
    });
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

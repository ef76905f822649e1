//! Programs that open a card now and then: what runs of the known ones is stopped, and one that comes in between is seen
//! right before the card is unbound.

use super::{CARD, HOST_DRIVERS, ON_VFIO, gamer, machine, machine_with, process};

fn units() -> String {
    [
        "/simulated/systemd/lactd.service/ActiveState = active\n",
        "/simulated/systemd/sunshine.service/ActiveState = active\n",
        "/simulated/systemd/nvidia-persistenced.service/ActiveState = active\n",
        "/run/user/1000/systemd/private =\n",
        "/simulated/systemd-of-1000/plasma-powerdevil.service/ActiveState = active\n",
        "/etc/passwd = root:x:0:0::/root:/bin/sh\\nanna:x:1000:1000::/home/anna:/bin/sh\n",
        "/etc/group =\n",
        "/simulated/logind/sessions/2 = User=1000 Name=anna Seat=seat0 Type=wayland Class=user Active=yes Leader=900\n",
    ]
    .concat()
}

#[test]
fn services_that_open_the_card_now_and_then_stop_with_those_of_the_file() {
    let machine = machine_with(&units());
    let before = machine.files();
    let state = |unit: &str| machine.get(&format!("/simulated/{unit}/ActiveState"));
    let life = gamer("gpu: {holders: {stop: [sunshine.service]}}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    assert_eq!(state("systemd/lactd.service"), "inactive");
    assert_eq!(state("systemd/sunshine.service"), "inactive");
    assert_eq!(state("systemd-of-1000/plasma-powerdevil.service"), "inactive");
    // It is about another driver's cards.
    assert_eq!(state("systemd/nvidia-persistenced.service"), "active");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");

    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    assert_eq!(state("systemd/lactd.service"), "active");
    assert_eq!(state("systemd-of-1000/plasma-powerdevil.service"), "active");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released without");
}

#[test]
fn a_program_that_opens_the_card_at_the_last_moment_refuses_the_start() {
    let machine = machine();
    let before = machine.files();
    let root = machine.root();
    let line = process(901, "nvtop", "/user.slice/user-1000.slice/session-2.scope", "/dev/dri/card1");
    machine.faults.interrupt(format!("/sys/bus/pci/devices/{}/driver_override", CARD[0]), move || {
        vfio_hook::host::manifest::lay_out(&line, &root).unwrap();
    });
    let error = machine.prepare(&gamer("gpu: {}")).unwrap_err();
    let words = error.to_string();
    assert!(words.contains("still in use: nvtop (process 901"), "{words}");
    assert!(error.help().unwrap().contains("gpu.holders"), "{:?}", error.help());
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    assert!(machine.quarantine().is_none());
    std::fs::remove_dir_all(machine.path("/proc/901")).unwrap();
    machine.assert_is(&before, "refused");
}

/// One that asks a monitor for its brightness has the card for milliseconds.
#[test]
fn a_program_that_lets_go_at_once_is_waited_for() {
    let machine = machine();
    let before = machine.files();
    let root = machine.root();
    let proc = machine.path("/proc/901");
    let line = process(901, "ddcutil", "/user.slice/user-1000.slice/session-2.scope", "/dev/dri/card1");
    machine.faults.interrupt(format!("/sys/bus/pci/devices/{}/driver_override", CARD[0]), move || {
        vfio_hook::host::manifest::lay_out(&line, &root).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            std::fs::remove_dir_all(proc).unwrap();
        });
    });
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

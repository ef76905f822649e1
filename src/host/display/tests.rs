//! Sessions, consoles and framebuffers, on hosts in folders.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use tempfile::TempDir;

use super::*;
use crate::deadline::Deadline;
use crate::host::Host;
use crate::host::manifest::lay_out;
use crate::host::simulated::Faults;
use crate::pci::PciAddress;
use crate::unit_file_name::UnitFileName;
use crate::user_name::UserName;

/// Two cards; the first one is where the firmware showed its picture.
const CARDS: &str = "
/sys/bus/pci/devices/0000:03:00.0 -> ../../../devices/pci0000:00/0000:00:01.1/0000:03:00.0
/sys/bus/pci/devices/0000:0e:00.0 -> ../../../devices/pci0000:00/0000:00:08.1/0000:0e:00.0
/sys/devices/pci0000:00/0000:00:01.1/0000:03:00.0/boot_vga = 1
/sys/devices/pci0000:00/0000:00:01.1/0000:03:00.0/resource = 0x00000000e0000000 0x00000000efffffff 0x000000000014220c\\n0x0000000000000000 0x0000000000000000 0x0000000000000000
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0/boot_vga = 0
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0/resource = 0x00000000d0000000 0x00000000dfffffff 0x000000000014220c
/sys/class/vtconsole/vtcon0/name = (S) dummy device
/sys/class/vtconsole/vtcon0/bind = 0
/sys/class/vtconsole/vtcon1/name = (M) frame buffer device
/sys/class/vtconsole/vtcon1/bind = 1
";

/// A picture in the memory of the first card, as kernels before 6.9 have it.
const EFIFB: &str = "
/sys/bus/platform/devices/efi-framebuffer.0 -> ../../../devices/platform/efi-framebuffer.0
/sys/devices/platform/efi-framebuffer.0/driver -> ../../../bus/platform/drivers/efi-framebuffer
/sys/bus/platform/drivers/efi-framebuffer/bind =
/sys/bus/platform/drivers/efi-framebuffer/unbind =
/sys/devices/platform/efi-framebuffer.0/graphics/fb0/name = EFI VGA
/sys/class/graphics/fb0 -> ../../devices/platform/efi-framebuffer.0/graphics/fb0
/proc/iomem = 00001000-0009ffff : System RAM\\nc0000000-f7ffffff : PCI Bus 0000:00\\n  e0000000-efffffff : 0000:03:00.0\\n    e0000000-e07e8fff : efifb
";

/// The same as a child of the second card, with the driver that makes a card of it.
const SIMPLE: &str = "
/sys/bus/platform/devices/simple-framebuffer.0 -> ../../../devices/pci0000:00/0000:00:08.1/0000:0e:00.0/simple-framebuffer.0
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0/simple-framebuffer.0/driver -> ../../../../../bus/platform/drivers/simple-framebuffer
/sys/bus/platform/drivers/simple-framebuffer/bind =
/sys/bus/platform/drivers/simple-framebuffer/unbind =
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0/simple-framebuffer.0/graphics/fb0/name = simpledrmdrmfb
/sys/class/graphics/fb0 -> ../../devices/pci0000:00/0000:00:08.1/0000:0e:00.0/simple-framebuffer.0/graphics/fb0
/proc/iomem = e0000000-e07e8fff : BOOTFB
";

struct Machine {
    folder: TempDir,
    faults: Faults,
}

impl Machine {
    fn with(lines: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), faults: Faults::default() };
        machine.add(CARDS);
        machine.add(lines);
        machine
    }

    fn add(&self, manifest: &str) {
        lay_out(manifest, self.folder.path()).unwrap();
    }

    /// A framebuffer of a card's own driver.
    fn framebuffer(&self, number: u32, below: &str) {
        self.add(&format!(
            "/sys/devices/pci0000:00/{below}/graphics/fb{number}/name = amdgpudrmfb\n\
             /sys/class/graphics/fb{number} -> ../../devices/pci0000:00/{below}/graphics/fb{number}\n"
        ));
    }

    fn host(&self) -> Host {
        Host::simulated(self.folder.path(), &self.faults)
    }

    fn has(&self, path: &str) -> bool {
        self.folder.path().join(path).exists()
    }
}

const FIRST: &str = "0000:00:01.1/0000:03:00.0";
const SECOND: &str = "0000:00:08.1/0000:0e:00.0";

fn first() -> [PciAddress; 1] {
    ["0000:03:00.0".parse().unwrap()]
}

fn second() -> [PciAddress; 1] {
    ["0000:0e:00.0".parse().unwrap()]
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn over() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn names(framebuffers: &[FirmwareFramebuffer]) -> Vec<String> {
    framebuffers.iter().map(FirmwareFramebuffer::to_string).collect()
}

#[test]
fn a_firmware_framebuffer_is_on_the_card_with_its_memory() {
    let machine = Machine::with(EFIFB);
    let host = machine.host();
    assert_eq!(names(&host.firmware_framebuffers_on(&first()).unwrap()), ["efi-framebuffer.0"]);
    assert_eq!(names(&host.firmware_framebuffers_on(&second()).unwrap()), [""; 0]);
    assert_eq!(names(&host.firmware_framebuffers_on(&[]).unwrap()), [""; 0]);
}

#[test]
fn a_firmware_framebuffer_is_on_the_card_that_is_its_parent() {
    // Its memory would say otherwise; the kernel knows better.
    let machine = Machine::with(SIMPLE);
    let host = machine.host();
    assert_eq!(names(&host.firmware_framebuffers_on(&second()).unwrap()), ["simple-framebuffer.0"]);
    assert_eq!(names(&host.firmware_framebuffers_on(&first()).unwrap()), [""; 0]);
}

#[test]
fn memory_that_is_not_wholly_the_cards_is_another_thing() {
    for (iomem, expected) in [
        ("e0000000-e07e8fff : efifb", 1),
        ("e0000000-e07e8fff : BOOTFB", 1),
        ("e0000000-efffffff : vesafb", 1),
        ("e0000000-f07e8fff : efifb", 0),
        ("a0000-bffff : efifb", 0),
        ("00000000-00000000 : efifb", 0),
        ("e0000000-e07e8fff : amdgpu", 0),
    ] {
        let machine = Machine::with(EFIFB);
        machine.add(&format!("/proc/iomem = {iomem}\n"));
        assert_eq!(machine.host().firmware_framebuffers_on(&first()).unwrap().len(), expected, "{iomem}");
    }
    let machine = Machine::with(EFIFB);
    machine.add("/proc/iomem = what is this\n");
    let error = machine.host().firmware_framebuffers_on(&first()).unwrap_err();
    assert!(error.to_string().starts_with("failed to read /proc/iomem: "), "{error}");
}

#[test]
fn a_host_without_firmware_framebuffers_has_nothing_to_do() {
    let machine = Machine::with("/sys/bus/platform/devices/serial8250/\n");
    let mut host = machine.host();
    assert_eq!(names(&host.firmware_framebuffers_on(&first()).unwrap()), [""; 0]);
    let gone: FirmwareFramebuffer = "efi-framebuffer.0".parse().unwrap();
    assert!(host.firmware_framebuffer_driver(&gone).unwrap_err().is_absent());
    let error = host.set_firmware_framebuffer_driver(&gone, None, soon()).unwrap_err();
    assert!(error.is_absent());
    assert_eq!(error.to_string(), "the host has no efi-framebuffer.0");
}

#[test]
fn the_driver_of_a_firmware_framebuffer_goes_and_comes_back() {
    let machine = Machine::with(SIMPLE);
    let mut host = machine.host();
    let framebuffer = host.firmware_framebuffers_on(&second()).unwrap().remove(0);
    let before = host.firmware_framebuffer_driver(&framebuffer).unwrap();
    assert_eq!(before.as_ref().map(ToString::to_string).as_deref(), Some("simple-framebuffer"));

    host.set_firmware_framebuffer_driver(&framebuffer, None, soon()).unwrap();
    assert_eq!(host.firmware_framebuffer_driver(&framebuffer).unwrap(), None);
    host.set_firmware_framebuffer_driver(&framebuffer, None, soon()).unwrap();
    host.set_firmware_framebuffer_driver(&framebuffer, before.as_ref(), soon()).unwrap();
    assert_eq!(host.firmware_framebuffer_driver(&framebuffer).unwrap(), before);
    assert_eq!(machine.faults.writes(), 2, "what is so already is not written");

    machine.faults.refuse("/sys/bus/platform/drivers/simple-framebuffer/unbind", Errno::EBUSY);
    let error = host.set_firmware_framebuffer_driver(&framebuffer, None, soon()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to write `simple-framebuffer.0` to /sys/bus/platform/drivers/simple-framebuffer/unbind: Device or \
         resource busy (os error 16)"
    );
    let absent: FramebufferDriver = "efi-framebuffer".parse().unwrap();
    machine.faults.clear();
    assert!(
        host.set_firmware_framebuffer_driver(&framebuffer, Some(&absent), soon()).unwrap_err().is_absent()
    );
}

#[test]
fn consoles_are_on_the_card_with_their_framebuffer() {
    let machine = Machine::with("");
    let on = |functions: &[PciAddress]| machine.host().vtconsole_on(functions).unwrap();
    assert_eq!(on(&first()), None, "there is no framebuffer");
    machine.framebuffer(0, FIRST);
    assert_eq!((on(&first()), on(&second())), (Some(1), None));
    // The first framebuffer counts, and that of the boot display.
    machine.framebuffer(1, SECOND);
    assert_eq!((on(&first()), on(&second())), (Some(1), None));
    machine.add("/proc/cmdline = quiet fbcon=map:1\n");
    assert_eq!((on(&first()), on(&second())), (None, Some(1)));
    machine.add("/proc/cmdline = quiet fbcon=map:7\n");
    assert_eq!((on(&first()), on(&second())), (Some(1), None));
}

#[test]
fn consoles_may_be_on_either_card_where_the_boot_display_is_not_the_first() {
    let machine = Machine::with("");
    machine.framebuffer(0, SECOND);
    machine.framebuffer(1, FIRST);
    machine.framebuffer(2, "0000:00:1c.0/0000:10:00.0");
    let third = ["0000:10:00.0".parse().unwrap()];
    let on = |functions: &[PciAddress]| machine.host().vtconsole_on(functions).unwrap();
    assert_eq!((on(&first()), on(&second()), on(&third)), (Some(1), Some(1), None));
}

#[test]
fn consoles_are_on_the_card_with_the_firmwares_picture() {
    for (lines, on_first) in [(EFIFB, true), (SIMPLE, false)] {
        let machine = Machine::with(lines);
        let host = machine.host();
        assert_eq!(host.vtconsole_on(&first()).unwrap().is_some(), on_first);
        assert_eq!(host.vtconsole_on(&second()).unwrap().is_some(), !on_first);
    }
}

#[test]
fn consoles_are_unbound_and_bound() {
    let machine = Machine::with("");
    machine.framebuffer(0, FIRST);
    let mut host = machine.host();
    assert_eq!(host.vtconsole_bind(1).unwrap(), ConsoleBinding::Bound);
    for binding in [ConsoleBinding::Unbound, ConsoleBinding::Bound] {
        host.set_vtconsole_bind(1, binding, soon()).unwrap();
        assert_eq!(host.vtconsole_bind(1).unwrap(), binding);
        assert_eq!(binding.to_string().parse(), Ok(binding));
    }
    assert!(host.vtconsole_bind(7).unwrap_err().is_absent());
    assert!(host.set_vtconsole_bind(7, ConsoleBinding::Bound, soon()).unwrap_err().is_absent());

    // Without a framebuffer the kernel takes the value and does nothing.
    host.set_vtconsole_bind(1, ConsoleBinding::Unbound, soon()).unwrap();
    fs::remove_dir_all(machine.folder.path().join("sys/class/graphics")).unwrap();
    let error = host.set_vtconsole_bind(1, ConsoleBinding::Bound, soon()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to write `1` to /sys/class/vtconsole/vtcon1/bind: it is still unbound"
    );
    assert!(error.help().unwrap().contains("framebuffer"));
    machine.add("/sys/class/vtconsole/vtcon1/bind = maybe\n");
    let error = host.vtconsole_bind(1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to read /sys/class/vtconsole/vtcon1/bind: `maybe` is neither 0 nor 1"
    );
}

#[test]
fn a_host_without_text_consoles_has_none_on_a_card() {
    let machine = Machine::with("");
    machine.framebuffer(0, FIRST);
    machine.add("/sys/class/vtconsole/vtcon1/name = (S) VGA+\n");
    assert_eq!(machine.host().vtconsole_on(&first()).unwrap(), None);
    fs::remove_dir_all(machine.folder.path().join("sys/class/vtconsole")).unwrap();
    assert_eq!(machine.host().vtconsole_on(&first()).unwrap(), None);
}

#[test]
fn cards_have_connectors_and_a_boot_display() {
    let drm = format!("/sys/devices/pci0000:00/{FIRST}/drm");
    let machine = Machine::with(&format!(
        "{drm}/card1/card1-DP-1/status = connected\n{drm}/card1/card1-DP-1/enabled = enabled\n\
         {drm}/card1/card1-HDMI-A-1/status = disconnected\n{drm}/card1/card1-HDMI-A-1/enabled = disabled\n\
         {drm}/card1/card1-Writeback-1/status = unknown\n{drm}/card1/power/control = auto\n\
         {drm}/renderD128/dev = 226:128\n"
    ));
    let host = machine.host();
    let cards = host.drm_cards_of(first()[0]).unwrap();
    let [card] = &cards[..] else { panic!("{cards:?}") };
    assert_eq!(card.to_string(), "card1");
    let seen: Vec<_> =
        card.connectors.iter().map(|one| (one.name.as_str(), one.status, one.activity)).collect();
    assert_eq!(
        seen,
        [
            ("DP-1", ConnectorStatus::Connected, ConnectorActivity::Enabled),
            ("HDMI-A-1", ConnectorStatus::Disconnected, ConnectorActivity::Disabled),
            ("Writeback-1", ConnectorStatus::Unknown, ConnectorActivity::Disabled),
        ]
    );
    assert_eq!(host.drm_cards_of(second()[0]).unwrap(), []);
    assert_eq!(host.drm_cards_of("0000:77:00.0".parse().unwrap()).unwrap(), []);
    assert!(host.is_boot_display(first()[0]).unwrap());
    assert!(!host.is_boot_display(second()[0]).unwrap());
    // The kernel may take another card for it than the one with the picture.
    assert!(Machine::with(SIMPLE).host().is_boot_display(second()[0]).unwrap());
}

/// A login screen, a desktop, a text console, a login over the network, and a lock screen.
const SESSIONS: &str = "
/simulated/logind/PreparingForSleep = no
/simulated/logind/sessions/c1 = User=42 Name=gdm Seat=seat0 Type=wayland Class=greeter Active=no Leader=880
/simulated/logind/sessions/2 = User=1000 Name=anna Seat=seat0 Type=x11 Class=user Active=yes Leader=900
/simulated/logind/sessions/3 = User=1000 Name=anna Seat=seat0 Type=tty Class=user Active=no Leader=950
/simulated/logind/sessions/4 = User=1000 Name=anna Type=x11 Class=user Active=yes Leader=960
/simulated/logind/sessions/5 = User=1000 Name=anna Seat=seat0 Type=x11 Class=lock-screen Active=no Leader=970
/proc/1200/cgroup = 0::/user.slice/user-1000.slice/session-2.scope
/proc/1201/cgroup = 0::/user.slice/user-1000.slice/user@1000.service/session.slice/plasma-kwin_wayland.service
/proc/1202/cgroup = 0::/system.slice/sddm.service
/etc/passwd = anna:x:1000:1000::/home/anna:/bin/sh
/etc/group =
/run/user/1000/systemd/private =
/simulated/systemd-of-1000/graphical-session.target/ActiveState = active
/simulated/systemd-of-1000/graphical-session.target/RequiredBy = plasma-kwin_wayland.service
/simulated/systemd-of-1000/plasma-kwin_wayland.service/ActiveState = active
/simulated/systemd/sddm.service/ActiveState = active
";

#[test]
fn graphical_sessions_are_those_that_show_a_picture_on_a_seat() {
    let machine = Machine::with(SESSIONS);
    let host = machine.host();
    let sessions = host.graphical_sessions(soon()).unwrap();
    let words: Vec<String> = sessions.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["X11 session 2 of anna on seat0", "Wayland session c1 of gdm on seat0"]);
    let anna = &sessions[0];
    assert_eq!((anna.uid, anna.leader, anna.scope.as_str()), (1000, 900, "session-2.scope"));
    assert_eq!((anna.activity, anna.class), (SessionActivity::Active, SessionClass::User));
    assert_eq!(sessions[1].class, SessionClass::Greeter);
    assert_eq!(Machine::with("").host().graphical_sessions(soon()).unwrap(), []);
    assert!(host.graphical_sessions(over()).is_err());
}

/// Compositors that were started from text consoles, and what else may be there.
#[test]
fn a_text_console_with_a_compositor_shows_a_picture_too() {
    let drm = format!("/sys/devices/pci0000:00/{SECOND}");
    let process = |pid: u32, session: &str, node: &str| {
        format!(
            "/proc/{pid}/stat = {pid} (any) S {}\n\
             /proc/{pid}/cgroup = 0::/user.slice/user-1000.slice/session-{session}.scope\n\
             /proc/{pid}/fd/9 -> {node}\n",
            "0 ".repeat(49)
        )
    };
    let session = |id: &str, rest: &str| {
        format!("/simulated/logind/sessions/{id} = User=1000 Name=anna {rest} Active=yes Leader=900\n")
    };
    let lines = [
        format!("{drm}/vendor = 0x1002\n{drm}/device = 0x164e\n{drm}/class = 0x030000\n"),
        format!("{drm}/drm/card0/dev = 226:0\n{drm}/drm/card0/uevent = DEVNAME=dri/card0\n"),
        format!("{drm}/drm/renderD128/dev = 226:128\n{drm}/drm/renderD128/uevent = DEVNAME=dri/renderD128\n"),
        session("3", "Seat=seat0 Type=tty Class=user"),
        session("4", "Seat=seat0 Type=tty Class=user"),
        session("5", "Seat=seat0 Type=tty Class=user"),
        session("6", "Type=tty Class=user"),
        session("7", "Seat=seat0 Type=tty Class=lock-screen"),
        process(1300, "3", "/dev/dri/card0"),
        process(1400, "4", "/dev/tty2"),
        process(1500, "5", "/dev/dri/renderD128"),
        process(1600, "6", "/dev/dri/card0"),
        process(1700, "7", "/dev/dri/card0"),
    ];
    let machine = Machine::with(&lines.concat());
    let words = |machine: &Machine| -> Vec<String> {
        let sessions = machine.host().graphical_sessions(soon()).unwrap();
        sessions.iter().map(ToString::to_string).collect()
    };
    assert_eq!(words(&machine), ["text session 3 of anna on seat0"]);
    fs::remove_dir_all(machine.folder.path().join("proc/1300")).unwrap();
    assert_eq!(words(&machine), [""; 0]);
}

#[test]
fn a_session_ends_with_its_processes() {
    let machine = Machine::with(SESSIONS);
    let mut host = machine.host();
    let id: SessionId = "2".parse().unwrap();
    assert!(host.terminate_session(&id, over()).is_err());
    machine.faults.fail_write(1);
    let error = host.terminate_session(&id, soon()).unwrap_err();
    assert!(error.to_string().starts_with("failed to call TerminateSession for session 2: "), "{error}");
    assert!(machine.has("proc/1200"));

    host.terminate_session(&id, soon()).unwrap();
    let left: Vec<String> =
        host.graphical_sessions(soon()).unwrap().iter().map(|session| session.id.to_string()).collect();
    assert_eq!(left, ["c1"]);
    assert!(!machine.has("proc/1200"));
    assert!(machine.has("proc/1201") && machine.has("proc/1202"), "others go on");
    host.terminate_session(&id, soon()).unwrap();
    for name in ["", "2.scope", "../1", "c 1"] {
        assert!(name.parse::<SessionId>().is_err(), "{name}");
    }
}

#[test]
fn a_users_compositor_is_stopped_with_its_target() {
    let machine = Machine::with(SESSIONS);
    let mut host = machine.host();
    let anna = UserName::new("anna").unwrap();
    host.stop_graphical_session_target(&anna, soon()).unwrap();
    assert!(!machine.has("proc/1201"));
    assert!(machine.has("proc/1200") && machine.has("proc/1202"), "others go on");
    let nobody = UserName::new("bob").unwrap();
    assert!(host.stop_graphical_session_target(&nobody, soon()).unwrap_err().is_absent());
}

#[test]
fn a_service_takes_its_processes_along_and_brings_them_back() {
    use crate::host::service::{ServiceUnit, UnitActivity};
    let machine = Machine::with(SESSIONS);
    let mut host = machine.host();
    let unit = ServiceUnit { unit: UnitFileName::new("sddm.service").unwrap(), user: None };
    host.set_unit_activity(&unit, UnitActivity::Stopped, soon()).unwrap();
    assert!(!machine.has("proc/1202"));
    host.set_unit_activity(&unit, UnitActivity::Running, soon()).unwrap();
    assert!(machine.has("proc/1202"));
    assert!(!machine.has("simulated/systemd/sddm.service/processes"));
}

#[test]
fn the_display_manager_is_where_the_link_leads() {
    for (lines, expected) in [
        (
            "/etc/systemd/system/display-manager.service -> /usr/lib/systemd/system/sddm.service",
            Some("sddm.service"),
        ),
        ("/usr/lib/systemd/system/display-manager.service -> gdm.service", Some("gdm.service")),
        (
            "/etc/systemd/system/display-manager.service -> /lib/systemd/system/lightdm.service\n\
             /usr/lib/systemd/system/display-manager.service -> gdm.service",
            Some("lightdm.service"),
        ),
        ("/etc/systemd/system/display-manager.service = [Service]", Some("display-manager.service")),
        (
            "/etc/systemd/system/display-manager.service -> /nix/store/x-unit/display-manager.service",
            Some("display-manager.service"),
        ),
        ("/etc/systemd/system/display-manager.service -> /dev/null", None),
        ("/etc/systemd/system/", None),
    ] {
        let unit = Machine::with(lines).host().display_manager_unit();
        assert_eq!(unit.as_ref().map(UnitFileName::as_str), expected, "{lines}");
    }
}

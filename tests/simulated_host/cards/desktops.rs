//! The card that the host's own desktop is on.

use super::{CARD, DISPLAY, ON_VFIO, drm, gamer, machine_with, process};
use crate::support::Machine;

const USERS: &str = "/user.slice/user-1000.slice/user@1000.service/session.slice/wireplumber.service";

/// Consoles, and a framebuffer that a card's driver made.
fn console(display: &str) -> String {
    let up = display.trim_start_matches("/sys/");
    format!(
        "/sys/class/vtconsole/vtcon0/name = (S) dummy device\n\
         /sys/class/vtconsole/vtcon0/bind = 0\n\
         /sys/class/vtconsole/vtcon1/name = (M) frame buffer device\n\
         /sys/class/vtconsole/vtcon1/bind = 1\n\
         {display}/graphics/fb0/name = amdgpudrmfb\n\
         /sys/class/graphics/fb0 -> ../../{up}/graphics/fb0\n"
    )
}

/// The firmware's picture, below the card.
fn picture(display: &str) -> String {
    let up = display.trim_start_matches("/sys/");
    let depth = "../".repeat(up.split('/').count() + 1);
    format!(
        "/sys/bus/platform/devices/simple-framebuffer.0 -> ../../../{up}/simple-framebuffer.0\n\
         {display}/simple-framebuffer.0/driver -> {depth}bus/platform/drivers/simple-framebuffer\n\
         /sys/bus/platform/drivers/simple-framebuffer/bind =\n\
         /sys/bus/platform/drivers/simple-framebuffer/unbind =\n"
    )
}

/// A display manager, anna's session and what her manager runs, all on one card.
fn desktop(card: &str) -> String {
    [
        "/etc/systemd/system/display-manager.service -> /usr/lib/systemd/system/sddm.service\n".to_owned(),
        "/simulated/systemd/sddm.service/ActiveState = active\n".to_owned(),
        "/run/user/1000/systemd/private =\n".to_owned(),
        "/simulated/systemd-of-1000/graphical-session.target/ActiveState = active\n".to_owned(),
        "/simulated/systemd-of-1000/graphical-session.target/RequiredBy = wireplumber.service\n".to_owned(),
        "/etc/passwd = root:x:0:0::/root:/bin/sh\\nanna:x:1000:1000::/home/anna:/bin/sh\n".to_owned(),
        "/etc/group =\n".to_owned(),
        "/simulated/logind/sessions/2 = User=1000 Name=anna Seat=seat0 Type=wayland Class=user Active=yes Leader=900\n"
            .to_owned(),
        process(700, "systemd-logind", "/system.slice/systemd-logind.service", card),
        process(880, "Xorg", "/system.slice/sddm.service", card),
        process(900, "kwin_wayland", "/user.slice/user-1000.slice/session-2.scope", card),
        process(910, "wireplumber", USERS, card),
    ]
    .concat()
}

/// The host's own card.
const OTHER: &str = "/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0";

/// That card's display, `card0`.
fn other_card() -> String {
    drm()
        .replace(DISPLAY, OTHER)
        .replace("card1", "card0")
        .replace("226:1", "226:0")
        .replace("MINOR=1", "MINOR=0")
}

/// What is not put back: the session, and what ended with it.
fn but_sessions(machine: &Machine) -> crate::support::Files {
    let mut files = machine.files();
    let is_session = |path: &str| {
        [
            "/simulated/logind/sessions/",
            "/simulated/ended/",
            "/proc/900/",
            "/proc/910/",
            "/simulated/systemd-of-1000/",
        ]
        .iter()
        .any(|start| path.starts_with(start))
    };
    files.retain(|path, _| !is_session(path));
    files
}

#[test]
fn a_desktop_on_the_card_refuses_the_start() {
    let machine =
        machine_with(&format!("{}{}{}", desktop("/dev/dri/card1"), console(DISPLAY), picture(DISPLAY)));
    let before = machine.files();
    insta::assert_snapshot!("desktop", machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string());
    machine.assert_is(&before, "refused");
}

#[test]
fn the_desktop_ends_and_the_login_comes_back() {
    let machine =
        machine_with(&format!("{}{}{}", desktop("/dev/dri/card1"), console(DISPLAY), picture(DISPLAY)));
    // logind lets go once the session is gone.
    let (from, to) = (machine.path("/proc/700"), machine.path("/simulated/700"));
    machine.faults.interrupt("/simulated/logind/sessions/2", {
        let (from, to) = (from.clone(), to.clone());
        move || std::fs::rename(from, to).unwrap()
    });
    let before = but_sessions(&machine);
    let life = gamer("gpu: {display_manager: stop}");
    let taken = machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    assert_eq!(machine.get("/sys/class/vtconsole/vtcon1/bind"), "0");
    assert_eq!(machine.get("/simulated/systemd/sddm.service/ActiveState"), "inactive");
    assert!(!machine.path("/simulated/logind/sessions/2").exists());
    assert!(!machine.path(&format!("{DISPLAY}/simple-framebuffer.0/driver")).exists());
    let returned = machine.release(&life).unwrap();
    std::fs::rename(to, from).unwrap();
    let order = |outcome: &vfio_hook::ledger::Outcome| {
        let is_power = |name: &String| name.starts_with("d3cold") || name.starts_with("power/");
        let names: Vec<String> = outcome.changes.iter().map(|change| change.setting.to_string()).collect();
        names.into_iter().filter(|name| !is_power(name)).collect::<Vec<_>>()
    };
    let there = [
        "keeper",
        "sddm.service",
        "desktops",
        "users of 0000:03:00.{0,1,2,3}",
        "text console vtcon1",
        "driver of simple-framebuffer.0",
        "driver of 0000:03:00.{0,1,2,3}",
    ];
    assert_eq!(order(&taken), there);
    let mut back: Vec<&str> =
        there.into_iter().filter(|name| *name != "desktops" && !name.starts_with("users")).collect();
    back.reverse();
    assert_eq!(order(&returned), back);
    assert_eq!(returned.failures, [""; 0]);
    crate::support::assert_same(&but_sessions(&machine), &before, "released");
    assert!(!machine.has_ledger());
}

/// It has its picture on the host's own card already, though logind knows of no session.
#[test]
fn a_login_on_another_card_is_left_alone() {
    let card0 = other_card();
    let unit = "/simulated/systemd/sddm.service/ActiveState";
    let machine = machine_with(&format!(
        "{card0}/etc/systemd/system/display-manager.service -> /usr/lib/systemd/system/sddm.service\n{unit} = active\n{}",
        process(880, "Xorg", "/system.slice/sddm.service", "/dev/dri/card0")
    ));
    machine.prepare(&gamer("gpu: {display_manager: stop}")).unwrap();
    assert_eq!(machine.get(unit), "active");
}

/// At boot the guest and the login start side by side: nobody has the card yet.
#[test]
fn a_login_that_is_on_its_way_up_waits_until_the_guest_is_gone() {
    for (state, key, during, after) in [
        ("activating", "stop", "inactive", "active"),
        ("active", "stop", "inactive", "active"),
        ("inactive", "stop", "inactive", "inactive"),
        ("activating", "keep", "activating", "activating"),
    ] {
        let unit = "/simulated/systemd/sddm.service/ActiveState";
        let machine = machine_with(&format!(
            "/etc/systemd/system/display-manager.service -> /usr/lib/systemd/system/sddm.service\n{unit} = {state}\n"
        ));
        let life = gamer(&format!("gpu: {{display_manager: {key}}}"));
        machine.prepare(&life).unwrap();
        assert_eq!(machine.get(unit), during, "{state}, {key}");
        machine.release(&life).unwrap();
        assert_eq!(machine.get(unit), after, "{state}, {key}");
    }
}

#[test]
fn a_desktop_on_another_card_is_left_alone() {
    let card0 = other_card();
    let lines = format!("{card0}{}{}{}", desktop("/dev/dri/card0"), console(OTHER), picture(OTHER));
    for manager in ["keep", "stop"] {
        let machine = machine_with(&lines);
        let before = machine.files();
        let life = gamer(&format!("gpu: {{display_manager: {manager}}}"));
        machine.prepare(&life).unwrap();
        assert_eq!(machine.get("/simulated/systemd/sddm.service/ActiveState"), "active");
        assert_eq!(machine.get("/sys/class/vtconsole/vtcon1/bind"), "1");
        assert!(machine.path(&format!("{OTHER}/simple-framebuffer.0/driver")).exists());
        assert!(machine.path("/simulated/logind/sessions/2").exists());
        assert_eq!(machine.drivers(), ON_VFIO);
        machine.release(&life).unwrap();
        machine.assert_is(&before, manager);
    }
}

#[test]
fn a_start_that_fails_late_brings_the_login_back() {
    let machine =
        machine_with(&format!("{}{}{}", desktop("/dev/dri/card1"), console(DISPLAY), picture(DISPLAY)));
    std::fs::remove_dir_all(machine.path("/proc/700")).unwrap();
    let before = but_sessions(&machine);
    machine.breaks(CARD[0], "probe-fails vfio-pci");
    machine.prepare(&gamer("gpu: {display_manager: stop}")).unwrap_err();
    machine.heals(CARD[0]);
    crate::support::assert_same(&but_sessions(&machine), &before, "refused");
    assert!(!machine.has_ledger(), "{:#?}", machine.record());
}

/// The picture's driver would draw into a card that does not answer.
#[test]
fn the_firmwares_picture_stays_away_from_a_card_in_quarantine() {
    let machine = machine_with(&picture(DISPLAY));
    let before = machine.files();
    let life = gamer("gpu: {display_manager: stop}");
    machine.prepare(&life).unwrap();
    machine.breaks(CARD[0], "dead");
    machine.release(&life).unwrap();
    machine.open_and_close();
    let driver = machine.path(&format!("{DISPLAY}/simple-framebuffer.0/driver"));
    assert!(!driver.is_symlink());
    machine.heals(CARD[0]);
    machine.clear_quarantine();
    assert!(driver.is_symlink());
    machine.assert_is(&before, "cleared");
}

#[test]
fn a_login_screen_with_nobody_logged_in_goes_too() {
    let lines = [
        "/etc/systemd/system/display-manager.service -> /usr/lib/systemd/system/gdm.service\n".to_owned(),
        "/simulated/systemd/gdm.service/ActiveState = active\n".to_owned(),
        "/etc/passwd = root:x:0:0::/root:/bin/sh\\ngdm:x:120:120::/var/lib/gdm:/bin/false\n".to_owned(),
        "/etc/group =\n".to_owned(),
        "/simulated/logind/sessions/c1 = User=120 Name=gdm Seat=seat0 Type=wayland Class=greeter Active=yes Leader=900\n"
            .to_owned(),
        process(880, "gdm", "/system.slice/gdm.service", "/dev/dri/card1"),
        process(900, "gnome-shell", "/user.slice/user-120.slice/session-c1.scope", "/dev/dri/card1"),
    ];
    let machine = machine_with(&lines.concat());
    let life = gamer("gpu: {display_manager: stop}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.started(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!(machine.get("/simulated/systemd/gdm.service/ActiveState"), "active");
}

/// The kernel waits for a program that draws on a console, and a driver that hangs does so for ever.
#[test]
fn a_console_that_the_kernel_hangs_in_is_left_alone_until_it_does_not() {
    let machine = machine_with(&format!("{}{}", console(DISPLAY), picture(DISPLAY)));
    let before = machine.files();
    let life = gamer("gpu: {display_manager: stop}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let mut hanging = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(machine.path("/simulated/console"), hanging.id().to_string()).unwrap();
    let outcome = machine.release(&life).unwrap();
    assert!(outcome.failures.iter().any(|failure| failure.contains("vtcon1")), "{outcome:#?}");
    assert_eq!(machine.drivers(), super::HOST_DRIVERS);
    let stuck = machine.record().unwrap().entries().find_map(|entry| entry.stuck()).unwrap();
    assert_eq!(u32::try_from(stuck.pid), Ok(hanging.id()));

    // Nobody tries it again as long as it hangs.
    std::fs::remove_file(machine.path("/simulated/console")).unwrap();
    machine.open_and_close();
    assert_eq!(machine.get("/sys/class/vtconsole/vtcon1/bind"), "0");
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    machine.open_and_close();
    machine.assert_is(&before, "let go");
}

#[test]
fn a_compositor_that_was_started_from_a_text_console_goes_too() {
    let console = |id: u32, leader: u32| {
        format!(
            "/simulated/logind/sessions/{id} = User=1000 Name=anna Seat=seat0 Type=tty Class=user Active=yes \
             Leader={leader}\n"
        )
    };
    let scope = |id: u32| format!("/user.slice/user-1000.slice/session-{id}.scope");
    let lines = [
        "/etc/passwd = root:x:0:0::/root:/bin/sh\\nanna:x:1000:1000::/home/anna:/bin/sh\n".to_owned(),
        "/etc/group =\n".to_owned(),
        console(2, 800),
        console(3, 900),
        process(800, "bash", &scope(2), "/dev/tty2"),
        process(900, "sway", &scope(3), "/dev/dri/card1"),
    ];
    let machine = machine_with(&lines.concat());
    let before = machine.files();
    machine.prepare(&gamer("gpu: {}")).unwrap_err();
    machine.assert_is(&before, "kept");
    let life = gamer("gpu: {display_manager: stop}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    let is_there = |session: &str| machine.path(&format!("/simulated/logind/sessions/{session}")).exists();
    assert!(!is_there("3"), "sway's session goes on");
    assert!(is_there("2") && machine.path("/proc/800").exists(), "a shell was ended");
    machine.release(&life).unwrap();
    assert!(!machine.has_ledger());
}

/// The processor's graphics have a picture; the card has none but the consoles and the firmware's.
fn second_card() -> String {
    let card0 = other_card();
    format!("{card0}{}{}", console(DISPLAY), picture(DISPLAY))
}

#[test]
fn consoles_of_a_second_card_are_taken_away_and_come_back() {
    let machine = machine_with(&second_card());
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/sys/class/vtconsole/vtcon1/bind"), "0");
    assert!(!machine.path(&format!("{DISPLAY}/simple-framebuffer.0/driver")).exists());
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.started(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
    let error = machine.prepare(&gamer("gpu: {consoles: keep}")).unwrap_err().to_string();
    assert!(error.contains("the host shows the text console vtcon1"), "{error}");
    assert!(error.contains("`consoles: free` takes it away"), "{error}");
    machine.assert_is(&before, "kept");
}

#[test]
fn consoles_of_the_only_card_go_if_the_file_says_so() {
    let machine = machine_with(&format!("{}{}", console(DISPLAY), picture(DISPLAY)));
    let before = machine.files();
    let error = machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string();
    assert!(error.contains("no other graphics card with a picture"), "{error}");
    machine.assert_is(&before, "refused");
    let life = gamer("gpu: {consoles: free}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/sys/class/vtconsole/vtcon1/bind"), "0");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn consoles_come_back_after_a_kill_at_any_write() {
    let machine = machine_with(&second_card());
    let before = machine.files();
    let life = gamer("gpu: {}");
    for nth in 1.. {
        machine.faults.panic_at_write(nth);
        let outcome = machine.until_killed(|| machine.prepare(&life).unwrap());
        machine.faults.clear();
        if outcome.is_err() {
            machine.open_and_close();
        }
        machine.release(&life).unwrap();
        machine.assert_is(&before, &format!("killed at write {nth}"));
        if outcome.is_ok() {
            assert!(nth > 30, "{nth}");
            break;
        }
    }
}

#[test]
fn a_desktop_that_opens_every_card_is_told_what_keeps_it_from_this_one() {
    for (program, setting) in [
        ("Hyprland", "AQ_DRM_DEVICES"),
        ("sway", "WLR_DRM_DEVICES"),
        ("niri", "ignore-drm-device"),
        ("kwin_wayland", "KWIN_DRM_DEVICES"),
        ("gnome-shell", "mutter-device-ignore"),
        ("firefox", "display_manager: stop"),
    ] {
        let scope = "/user.slice/user-1000.slice/session-2.scope";
        let machine = machine_with(&process(900, program, scope, "/dev/dri/card1"));
        let error = machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string();
        assert!(error.contains(&format!("is in use: {program} (process 900")), "{error}");
        assert!(error.contains(setting), "{program}: {error}");
        assert_eq!(error.contains("return_to: vfio"), program != "firefox", "{program}: {error}");
    }
}

//! Whether libvirt reaches the hook: the link, the program behind it, and a daemon that looked when it was there.
//!
//! libvirt looks for hooks once, when it first calls one, and again when it is reloaded (`virHookCall` in libvirt's
//! `src/util/virhook.c`). It runs `hooks/qemu`, and since 6.5 every executable file of `hooks/qemu.d`, too.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Host, UnitsOf};
use crate::deadline::Deadline;
use crate::unit_file_name::UnitFileName;

/// Where libvirt has its hooks; NixOS in the second place.
const HOOKS: [&str; 2] = ["/etc/libvirt/hooks", "/var/lib/libvirt/hooks"];

/// What a host with libvirt has one of.
const LIBVIRT: [&str; 7] = [
    "/etc/libvirt",
    "/var/lib/libvirt",
    "/usr/sbin/libvirtd",
    "/usr/sbin/virtqemud",
    "/usr/bin/libvirtd",
    "/usr/bin/virtqemud",
    "/run/current-system/sw/bin/libvirtd",
];

/// The daemons that call the hook.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// The program's own name, and where it is installed.
const NAME: &str = "vfio-hook";
const PROGRAM: &str = "/usr/bin/vfio-hook";

/// Where AppArmor's profile of libvirtd lets programs be run unconfined from (`usr.sbin.libvirtd`): not these.
const NOT_FOR_LIBVIRT: [&str; 2] = ["/usr/local/", "/opt/"];

/// Why libvirt does not reach the hook, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTrouble {
    /// What is wrong.
    pub what: String,
    /// The command that fixes it.
    pub help: String,
}

/// A hook of libvirt's that leads to this program.
struct Ours {
    path: PathBuf,
    /// The file it leads to.
    target: PathBuf,
}

impl Host {
    /// Why libvirt does not call this program for guests; nothing where it does, or where that cannot be seen.
    #[must_use]
    pub fn hook_troubles(&self, deadline: Deadline) -> Vec<HookTrouble> {
        if !LIBVIRT.iter().any(|path| self.is_named(path)) {
            let what = "this host has no libvirt: nothing calls the hook".to_owned();
            return vec![HookTrouble {
                what,
                help: "install libvirt, then run install/install.sh".to_owned(),
            }];
        }
        let folder = HOOKS.into_iter().find(|folder| self.is_named(folder)).unwrap_or(HOOKS[0]);
        let main = Path::new(folder).join("qemu");
        let side = Path::new(folder).join("qemu.d");
        let mut hooks: Vec<PathBuf> = self.is_named(&main).then(|| main.clone()).into_iter().collect();
        hooks.extend(self.names_in(&side).into_iter().map(|name| side.join(name)));
        let mut troubles = Vec::new();
        let mut ours = Vec::new();
        for path in hooks {
            match self.leads_to(&path) {
                Leads::Here(target) => ours.push(Ours { path, target }),
                Leads::Nowhere(target) => troubles.push(HookTrouble {
                    what: format!("{} leads to {}, which is not there", path.display(), target.display()),
                    help: match self.is_present(PROGRAM) {
                        true => format!("`ln -sfn {PROGRAM} {}`", path.display()),
                        false => "install/install.sh installs the program".to_owned(),
                    },
                }),
                Leads::Elsewhere => {}
            }
        }
        match ours.first() {
            None if troubles.is_empty() => troubles.push(self.no_hook(&main, &side)),
            None => {}
            Some(hook) => {
                troubles.extend(self.program_trouble(&hook.target));
                troubles.extend(self.daemon_trouble(&hook.path, deadline));
            }
        }
        troubles
    }

    fn no_hook(&self, main: &Path, side: &Path) -> HookTrouble {
        let is_nixos = self.is_named("/etc/NIXOS");
        let (what, link) = match self.is_named(main) {
            true => (
                format!("{} is another hook, and none of {} is {NAME}", main.display(), side.display()),
                side.join("50-vfio-hook"),
            ),
            false => (format!("there is no {}: libvirt calls no hook", main.display()), main.to_owned()),
        };
        let help = if is_nixos {
            "set virtualisation.libvirtd.hooks.qemu.\"50-vfio-hook\" to the path of the program: \
             libvirtd-config.service makes the link when it starts"
                .to_owned()
        } else {
            let folder = link.parent().unwrap_or(side).display();
            format!(
                "`mkdir -p {folder} && ln -s {PROGRAM} {} && systemctl reload {}`",
                link.display(),
                self.daemon_name()
            )
        };
        HookTrouble { what, help }
    }

    /// The daemon that this host has for its guests.
    fn daemon_name(&self) -> &'static str {
        let runs = self.daemon().map(|(name, ..)| name);
        let has_modules =
            || self.unit_file_names(UnitsOf::System).iter().any(|name| name == "virtqemud.service");
        let has_one = || self.unit_file_names(UnitsOf::System).iter().any(|name| name == "libvirtd.service");
        runs.unwrap_or_else(|| if has_modules() && !has_one() { DAEMONS[1] } else { DAEMONS[0] })
    }

    fn program_trouble(&self, target: &Path) -> Option<HookTrouble> {
        let mode = fs::metadata(self.locate(target)).ok()?.permissions().mode();
        if mode & 0o111 == 0 {
            return Some(HookTrouble {
                what: format!("{} is not executable (mode {:04o})", target.display(), mode & 0o7777),
                help: format!("`chmod 755 {}`", target.display()),
            });
        }
        let is_out_of_bounds = NOT_FOR_LIBVIRT.iter().any(|folder| target.starts_with(folder));
        let has_apparmor =
            || self.text("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text == "Y");
        (is_out_of_bounds && has_apparmor()).then(|| HookTrouble {
            what: format!("{} is where AppArmor lets libvirt run nothing", target.display()),
            help: format!("install/install.sh puts the program into {PROGRAM}, and links to that"),
        })
    }

    /// A daemon that is started with its socket and does not run now looks when it starts.
    fn daemon_trouble(&self, link: &Path, deadline: Deadline) -> Option<HookTrouble> {
        let (name, pid, started) = self.daemon()?;
        let made = fs::symlink_metadata(self.locate(link)).ok()?.ctime();
        let since = UnitFileName::new(&format!("{name}.service")).ok();
        // A reload changes the unit's state, too.
        let reloaded = since.and_then(|unit| self.units.state_changed_at(&unit, deadline).ok().flatten());
        if started.max(reloaded.unwrap_or(i64::MIN)) >= made {
            return None;
        }
        Some(HookTrouble {
            what: format!(
                "{name} (process {pid}) started before {} was made, and may not have looked again",
                link.display()
            ),
            help: format!("`systemctl reload {name}`"),
        })
    }

    /// The daemon that runs: its name, its process, and since when in seconds since 1970.
    fn daemon(&self) -> Option<(&'static str, i32, i64)> {
        let booted: i64 = self
            .text("/proc/stat")
            .ok()?
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
        self.names_in(Path::new("/proc")).iter().filter_map(|name| name.parse::<i32>().ok()).find_map(|pid| {
            let comm = self.text(format!("/proc/{pid}/comm")).ok()?;
            let name = DAEMONS.into_iter().find(|name| *name == comm)?;
            let stat = self.text(format!("/proc/{pid}/stat")).ok()?;
            // `starttime` is the 22nd field, the 20th behind the name in brackets (proc_pid_stat(5)).
            let ticks: i64 = stat.rsplit_once(") ")?.1.split_whitespace().nth(19)?.parse().ok()?;
            Some((name, pid, booted + ticks / TICKS))
        })
    }

    fn leads_to(&self, path: &Path) -> Leads {
        let target = self.end_of_links(path);
        let is_named_so = target.file_name().is_some_and(|name| name == NAME);
        let found: Option<Metadata> = fs::metadata(self.locate(&target)).ok();
        match found {
            None if is_named_so => Leads::Nowhere(target),
            Some(_) if is_named_so => Leads::Here(target),
            // A script that ends with `exec vfio-hook "$@"`.
            Some(file) if file.is_file() && self.mentions_the_program(&target) => Leads::Here(target),
            _ => Leads::Elsewhere,
        }
    }

    /// The end of a chain of links, on this host.
    fn end_of_links(&self, path: &Path) -> PathBuf {
        const LONGEST: usize = 40;
        let mut path = path.to_owned();
        for _ in 0..LONGEST {
            let Ok(Some(target)) = self.files.link_target(&path) else { break };
            path = path.parent().unwrap_or(Path::new("/")).join(target);
        }
        path
    }

    fn mentions_the_program(&self, script: &Path) -> bool {
        let text = self.files.read(script).unwrap_or_default();
        text.starts_with(b"#!") && String::from_utf8_lossy(&text).contains(NAME)
    }
}

/// Ticks in a second of what the kernel tells programs (`USER_HZ` of x86).
const TICKS: i64 = 100;

/// Where a hook of libvirt's leads.
enum Leads {
    /// To this program.
    Here(PathBuf),
    /// To where this program should be.
    Nowhere(PathBuf),
    /// To another.
    Elsewhere,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    const PROGRAM_THERE: &str = "/usr/bin/vfio-hook = \n";
    const LINK: &str = "/etc/libvirt/hooks/qemu -> /usr/bin/vfio-hook\n";

    /// A daemon that has run since this second after 1970.
    fn daemon(name: &str, since: i64) -> String {
        let fields = format!("{}0 {}", "0 ".repeat(18), "0 ".repeat(30));
        format!(
            "/proc/stat = cpu 0\\nbtime {since}\n/proc/77/comm = {name}\n/proc/77/stat = 77 ({name}) S {fields}\n"
        )
    }

    fn told(lines: &str, mode: u32) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        lay_out(lines, folder.path()).unwrap();
        for program in ["usr/bin/vfio-hook", "etc/libvirt/hooks/qemu"] {
            let program = folder.path().join(program);
            if program.is_file() {
                fs::set_permissions(program, PermissionsExt::from_mode(mode)).unwrap();
            }
        }
        let host = Host::simulated(folder.path(), &Faults::default());
        let troubles = host.hook_troubles(Deadline::after(Duration::from_secs(5)));
        troubles.into_iter().map(|trouble| format!("{} ({})", trouble.what, trouble.help)).collect()
    }

    #[test]
    fn a_hook_that_is_reached_is_no_trouble() {
        let (early, late) = (daemon("libvirtd", 1), daemon("virtqemud", i64::from(u32::MAX)));
        let reloaded = "/simulated/systemd/libvirtd.service/StateChangeTimestamp = 4294967295000000\n";
        for lines in [
            format!("{PROGRAM_THERE}{LINK}"),
            format!("{PROGRAM_THERE}{LINK}{late}"),
            format!("{PROGRAM_THERE}{LINK}{early}{reloaded}"),
            format!(
                "{PROGRAM_THERE}/etc/libvirt/hooks/qemu = #!/bin/sh\n/etc/libvirt/hooks/qemu.d/50-x -> /usr/bin/vfio-hook\n"
            ),
            format!("{PROGRAM_THERE}/etc/libvirt/hooks/qemu = #!/bin/sh\\nexec /usr/bin/vfio-hook \"$@\"\n"),
        ] {
            assert_eq!(told(&lines, 0o755), Vec::<String>::new(), "{lines}");
        }
    }

    #[test]
    fn each_reason_has_its_command() {
        let all = [
            told("", 0),
            told("/etc/libvirt/\n", 0),
            told(&format!("/etc/libvirt/hooks/\n{}", daemon("virtqemud", 1)), 0),
            told("/etc/libvirt/hooks/qemu = #!/bin/bash\n", 0),
            told("/etc/libvirt/hooks/qemu -> /usr/lib/other\n/usr/lib/other = x\n", 0),
            told(LINK, 0),
            told(&format!("{PROGRAM_THERE}{LINK}"), 0o644),
            told(&format!("{PROGRAM_THERE}{LINK}{}", daemon("libvirtd", 1)), 0o755),
            told("/usr/local/bin/vfio-hook = \n/etc/libvirt/hooks/qemu -> /usr/local/bin/vfio-hook\n", 0),
            told("/etc/NIXOS = \n/var/lib/libvirt/hooks/\n", 0),
        ];
        insta::assert_snapshot!(all.map(|lines| lines.join("\n")).join("\n\n"));
    }
}

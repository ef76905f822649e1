//! Starting a guest again that rebooted itself and was stopped for it: by a process of its own, which outlives the
//! keeper and is no hook, so that libvirt answers it.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::prctl;
use nix::unistd::setsid;

use super::children::{OwnedChild, Wake, inherit_nothing, spawn};
use super::inherited::take_signals;
use super::keeper_service::this_program;
use super::systemd::{Bus, ServicePurpose, StartFailure, TransientService};
use super::virsh::{Virsh, VirshError, kill};
use super::{Host, HostError, ONE_LOOK, QemuClues, QemuSearch, RUNNING_SYSTEMD};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::guest::{GuestName, GuestUuid};
use crate::log;

/// The hidden first argument of the process.
pub const START_AGAIN: &str = "start-again";

/// The hidden argument of one that only makes that process, where there is no systemd.
const APART: &str = "--apart";

/// How long an earlier one for this guest may take to be gone.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// How long libvirt has to say that the guest is off: its devices go back first, and it may be restarted meanwhile.
const OFF: Duration = Duration::from_secs(60);

/// How long libvirt may take to say how the guest stands: it waits for the guest's hooks.
const STATE: Duration = Duration::from_secs(10);

/// How long a start may take: 60 s for `prepare`, and as long as QEMU needs to fill the memory.
const START: Duration = Duration::from_secs(180);

/// libvirt's word for a guest that does not run (`virshDomainStateToString` in `tools/virsh-domain-monitor.c`).
const SHUT_OFF: &str = "shut off";

/// How often it is looked whether the guest is off.
const LOOK: Duration = Duration::from_millis(250);

/// Has a process of its own start the guest as soon as it is off.
pub(super) fn hand_over(
    bus: &Bus,
    guest: GuestUuid,
    name: &GuestName,
    deadline: Deadline,
) -> Result<(), HostError> {
    // Whether that process can do anything, somebody should know who can be told.
    Virsh::find()?;
    if Path::new(RUNNING_SYSTEMD).exists() {
        start_service(bus, guest, name, deadline)
    } else {
        start_apart(guest, name)
    }
}

fn start_service(bus: &Bus, guest: GuestUuid, name: &GuestName, deadline: Deadline) -> Result<(), HostError> {
    let unit = format!("vfio-hook-start-{guest}.service");
    let failed = |reason: String| HostError::call("StartTransientUnit", &unit, reason);
    let program = this_program().map_err(|error| failed(error.to_string()))?;
    let service = TransientService {
        name: &unit,
        description: &format!("vfio-hook: guest {guest} rebooted itself and is started again"),
        program: &program,
        arguments: &["vfio-hook", START_AGAIN, &guest.to_string(), "--", &without_variables(name)],
        purpose: ServicePurpose::DoOnce,
    };
    let deadline = Deadline::after(PREDECESSOR).earlier(deadline);
    loop {
        match service.start(bus, deadline) {
            Ok(()) => return Ok(()),
            Err(StartFailure::NameTaken) if !deadline.has_passed() => deadline.pause(LOOK),
            Err(StartFailure::NameTaken) => return Err(failed("an earlier one is still there".to_owned())),
            Err(StartFailure::Other(reason)) => return Err(failed(reason)),
        }
    }
}

/// A guest's name as systemd hands it on: it would put variables in (`replace_env_argv` in `src/basic/env-util.c`).
fn without_variables(name: &GuestName) -> String {
    name.to_string().replace('$', "$$")
}

/// Where there is no systemd: a process that is nobody's child, since a keeper ends its children with itself.
fn start_apart(guest: GuestUuid, name: &GuestName) -> Result<(), HostError> {
    let failed = |reason: &str| HostError::call("fork", &format!("guest {guest}"), reason);
    let adopts = prctl::get_child_subreaper().unwrap_or(false);
    // Else the grandchild would come back to this process.
    if adopts {
        prctl::set_child_subreaper(false).map_err(|errno| failed(&errno.to_string()))?;
    }
    let mut command = this_again(&[OsStr::new(APART)], guest, name.as_os_str());
    let made = OwnedChild::spawn(&mut command).and_then(|child| {
        match child.wait(Deadline::after(PREDECESSOR), None)? {
            Wake::Ended => child.reap().map(|status| status.success()),
            // It must not make the process after it was said that there is none.
            Wake::Cancelled | Wake::TimedOut => {
                kill(child);
                Ok(false)
            }
        }
    });
    if adopts {
        let _ = prctl::set_child_subreaper(true);
    }
    match made {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("the process for it was not made")),
        Err(error) => Err(failed(&error.to_string())),
    }
}

fn this_again(options: &[&OsStr], guest: GuestUuid, name: &OsStr) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("vfio-hook").arg(START_AGAIN).args(options).arg(guest.to_string()).arg("--").arg(name);
    inherit_nothing(&mut command).process_group(0);
    command
}

/// Which part of it a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAgain {
    /// It starts the guest.
    Here,
    /// It makes the process that starts the guest, and ends.
    Apart,
}

/// What the process does.
#[must_use]
pub fn start_again(part: StartAgain, guest: GuestUuid, name: &OsStr) -> Exit {
    take_signals();
    if part == StartAgain::Apart {
        let made = spawn(&mut this_again(&[], guest, name));
        return if made.is_ok() { Exit::Done } else { Exit::Failed };
    }
    // Fails where systemd has made a session already.
    let _ = setsid();
    let name = GuestName::new(name);
    log::open(&name, Some(guest));
    let outcome = match Virsh::find() {
        Ok(virsh) => {
            let name = name.as_os_str().to_string_lossy().into_owned();
            start_when_off(&AskedByVirsh { virsh, host: Host::real(), guest, name }, OFF, LOOK)
        }
        Err(error) => Err(error.to_string()),
    };
    let exit = match outcome {
        Ok(Started::Now) => {
            tracing::info!("{name} rebooted itself: it was stopped, and is started again");
            Exit::Done
        }
        Ok(Started::ByOthers) => {
            tracing::info!("{name} rebooted itself and was stopped; somebody else started it");
            Exit::Done
        }
        Err(reason) => {
            tracing::error!(
                "{name} rebooted itself and was stopped, but cannot be started again: it stays off: {reason}"
            );
            Exit::Failed
        }
    };
    log::flush();
    log::print_kept();
    exit
}

/// Who started the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    /// This process.
    Now,
    /// Somebody else.
    ByOthers,
}

/// What libvirt is asked.
trait Asked {
    /// `virsh domstate`.
    fn state(&self) -> Result<String, VirshError>;

    /// `virsh start`.
    fn start(&self) -> Result<(), VirshError>;

    /// Whether a QEMU runs the guest. It is not the one that rebooted: that one is gone before its cards are given
    /// back, and only after that the guest is to be started again.
    fn qemu(&self) -> QemuSearch;
}

struct AskedByVirsh {
    virsh: Virsh,
    host: Host,
    guest: GuestUuid,
    name: String,
}

impl Asked for AskedByVirsh {
    fn state(&self) -> Result<String, VirshError> {
        self.virsh.run(&["domstate", &self.guest.to_string()], Deadline::after(STATE))
    }

    fn start(&self) -> Result<(), VirshError> {
        self.virsh.run(&["start", &self.guest.to_string()], Deadline::after(START)).map(drop)
    }

    fn qemu(&self) -> QemuSearch {
        let clues = QemuClues { guest: self.guest, name: &self.name, known: None };
        self.host.qemu_of(clues, Deadline::after(ONE_LOOK))
    }
}

/// Starts the guest once libvirt says that it is off. A libvirt that does not answer is asked again.
fn start_when_off(libvirt: &impl Asked, wait: Duration, look: Duration) -> Result<Started, String> {
    let deadline = Deadline::after(wait);
    let mut attempt = None;
    loop {
        let obstacle = match (libvirt.state(), attempt.take()) {
            // It is off still: nobody else's start stood in the way.
            (Ok(state), Some(VirshError::Refused(reason))) if state == SHUT_OFF => return Err(reason),
            (Ok(state), _) if state == SHUT_OFF => match libvirt.start() {
                Ok(()) => return Ok(Started::Now),
                Err(error) => {
                    let reason = error.to_string();
                    attempt = Some(error);
                    reason
                }
            },
            // libvirt made the start all the same.
            (Ok(_), Some(VirshError::Away(_))) => return Ok(Started::Now),
            (Ok(_), Some(VirshError::Refused(_))) => return Ok(Started::ByOthers),
            // Whoever shuts that one down again wants it off.
            (Ok(_), None) if matches!(libvirt.qemu(), QemuSearch::Runs(_)) => return Ok(Started::ByOthers),
            (Ok(state), None) => format!("it is not off: libvirt calls it `{state}`"),
            (Err(VirshError::Away(reason)), earlier) => {
                attempt = earlier;
                reason
            }
            // Without a definition of its own it is gone when it is off.
            (Err(VirshError::Refused(reason)), _) => return Err(reason),
        };
        if deadline.has_passed() {
            return Err(format!("{obstacle} (after {} s)", wait.as_secs()));
        }
        deadline.pause(look);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;
    use crate::host::ProcessId;
    use crate::host::simulated::Faults;

    /// A libvirt that answers from two lists, one for each question.
    struct Script {
        states: RefCell<VecDeque<Result<&'static str, VirshError>>>,
        starts: RefCell<VecDeque<Result<(), VirshError>>>,
        qemu: QemuSearch,
    }

    impl Asked for Script {
        fn state(&self) -> Result<String, VirshError> {
            self.states.borrow_mut().pop_front().expect("it is asked too often").map(str::to_owned)
        }

        fn start(&self) -> Result<(), VirshError> {
            self.starts.borrow_mut().pop_front().expect("it is started too often")
        }

        fn qemu(&self) -> QemuSearch {
            self.qemu
        }
    }

    fn away() -> VirshError {
        VirshError::Away("failed to connect".to_owned())
    }

    fn refused(reason: &str) -> VirshError {
        VirshError::Refused(reason.to_owned())
    }

    /// What comes of these answers, all of which are asked for, while no QEMU runs.
    fn outcome(
        states: &[Result<&'static str, VirshError>],
        starts: &[Result<(), VirshError>],
    ) -> Result<Started, String> {
        outcome_beside(QemuSearch::Gone, states, starts)
    }

    fn outcome_beside(
        qemu: QemuSearch,
        states: &[Result<&'static str, VirshError>],
        starts: &[Result<(), VirshError>],
    ) -> Result<Started, String> {
        let script = Script {
            qemu,
            states: RefCell::new(states.to_vec().into()),
            starts: RefCell::new(starts.to_vec().into()),
        };
        let outcome = start_when_off(&script, Duration::from_secs(3600), Duration::ZERO);
        assert!(script.states.borrow().is_empty() && script.starts.borrow().is_empty(), "{outcome:?}");
        outcome
    }

    #[test]
    fn is_started_once_it_is_off() {
        assert_eq!(outcome(&[Ok("shut off")], &[Ok(())]), Ok(Started::Now));
        assert_eq!(
            outcome(&[Ok("running"), Ok("in shutdown"), Err(away()), Ok("shut off")], &[Ok(())]),
            Ok(Started::Now)
        );
    }

    #[test]
    fn a_libvirt_that_is_away_is_asked_again() {
        let off = || Ok("shut off");
        assert_eq!(outcome(&[off(), Err(away()), off()], &[Err(away()), Ok(())]), Ok(Started::Now));
        // The daemon went away after it had begun.
        assert_eq!(outcome(&[off(), Err(away()), Ok("running")], &[Err(away())]), Ok(Started::Now));
    }

    #[test]
    fn a_refusal_is_told_unless_somebody_else_was_faster() {
        let off = || Ok("shut off");
        assert_eq!(outcome(&[off(), off()], &[Err(refused("no memory"))]), Err("no memory".to_owned()));
        assert_eq!(
            outcome(&[off(), Err(away()), off()], &[Err(refused("no memory"))]),
            Err("no memory".to_owned())
        );
        assert_eq!(
            outcome(&[off(), Ok("running")], &[Err(refused("already active"))]),
            Ok(Started::ByOthers)
        );
        assert_eq!(outcome(&[Err(refused("no such domain"))], &[]), Err("no such domain".to_owned()));
    }

    #[test]
    fn a_guest_that_others_started_is_theirs() {
        let (running, off) = (Ok("running"), Ok("shut off"));
        let started = QemuSearch::Runs(ProcessId { pid: 4711, start_time: 1 });
        for state in [running.clone(), Ok("in shutdown")] {
            assert_eq!(outcome_beside(started, &[state], &[]), Ok(Started::ByOthers));
        }
        // libvirt has not gone on yet from the one that rebooted.
        for unseen in [QemuSearch::Gone, QemuSearch::Unknown] {
            assert_eq!(outcome_beside(unseen, &[running.clone(), off.clone()], &[Ok(())]), Ok(Started::Now));
        }
    }

    #[test]
    fn waits_only_so_long() {
        let script = |state| Script {
            states: RefCell::new([state].into()),
            starts: RefCell::new(VecDeque::new()),
            qemu: QemuSearch::Gone,
        };
        let outcome = |state| start_when_off(&script(state), Duration::ZERO, Duration::ZERO);
        assert_eq!(
            outcome(Ok("paused")),
            Err("it is not off: libvirt calls it `paused` (after 0 s)".to_owned())
        );
        assert_eq!(outcome(Err(away())), Err("failed to connect (after 0 s)".to_owned()));
    }

    #[test]
    fn virsh_is_asked_for_the_guest_by_its_uuid() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {}\necho \"$*\" >> calls\n[ \"$4\" = domstate ] || exit 0\n\
             if [ -e asked ]; then echo 'shut off'; else echo running; touch asked; fi",
            folder.path().display()
        );
        let virsh = Virsh::script(folder.path(), &script);
        let host = Host::simulated(folder.path(), &Faults::default());
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        let guest = "c0ffee00-1111-4222-8333-44445555666f".parse().unwrap();
        let libvirt = AskedByVirsh { virsh, host, guest, name: "win11".to_owned() };
        assert_eq!(start_when_off(&libvirt, Duration::from_secs(3600), Duration::ZERO), Ok(Started::Now));
        let asked = "-q -c qemu:///system domstate c0ffee00-1111-4222-8333-44445555666f\n";
        let started = asked.replace("domstate", "start");
        let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
        assert_eq!(calls, format!("{asked}{asked}{started}"));
    }

    #[test]
    fn a_name_keeps_its_dollars() {
        assert_eq!(without_variables(&GuestName::new("a$HOME${x}")), "a$$HOME$${x}");
    }
}

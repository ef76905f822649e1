//! Waiting until libvirt says that the guest is off, and starting it then.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, ONE_LOOK, QemuClues, QemuSearch, Virsh, VirshError};

/// How long libvirt may take to say how the guest stands: it waits for the guest's hooks.
const STATE: Duration = Duration::from_secs(10);

/// How long a start may take: 60 s for `prepare`, and as long as QEMU needs to fill the memory.
const START: Duration = Duration::from_secs(180);

/// libvirt's word for a guest that does not run (`virshDomainStateToString` in `tools/virsh-domain-monitor.c`).
const SHUT_OFF: &str = "shut off";

/// Who started the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// This process.
    Now,
    /// Another program.
    ByOthers,
}

/// What libvirt is asked.
pub(super) trait Asked {
    /// `virsh domstate`.
    fn state(&self) -> Result<String, VirshError>;

    /// `virsh start`.
    fn start(&self) -> Result<(), VirshError>;

    /// Whether a QEMU runs the guest. It is not the one that rebooted: that one is gone before its cards are given
    /// back, and only after that the guest is to be started again.
    fn qemu(&self) -> QemuSearch;
}

/// libvirt, asked by `virsh`.
pub(super) struct AskedByVirsh {
    pub(super) virsh: Virsh,
    pub(super) host: Host,
    pub(super) guest: GuestUuid,
    pub(super) name: String,
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
pub(super) fn start_when_off(
    libvirt: &impl Asked,
    wait: Duration,
    look: Duration,
) -> Result<Started, String> {
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
            // The user who shuts that one down again wants it off.
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
}

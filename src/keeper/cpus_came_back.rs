//! CPUs that came back, from the host's sleep or one by one: what went with them is set again.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::host::CpuEvents;
use crate::ledger::Occasion;

/// They come one after the other, and so do the programs that look after their speed.
const QUIET: Duration = Duration::from_secs(1);

/// The kernel announces a CPU once all that waits for it is told (`device_online` in `drivers/base/core.c`): what is seen
/// at once may be the work of one that is not announced yet.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(3);

/// The two clocks are not read at once; no sleep is as short.
const SHORTEST_SLEEP: Duration = Duration::from_millis(200);

/// Three sources, each of which may be missing: logind announces the end of a sleep, the kernel each CPU, and two clocks
/// tell whenever the keeper wakes up that the host has slept.
#[derive(Default)]
pub(super) struct CpusCameBack {
    events: Option<CpuEvents>,
    /// Not while a hook is still taking what the guest needs.
    is_awaited: bool,
    asleep: Duration,
    due: Option<Instant>,
    /// When what an earlier look left undecided is an administrator's, unless a CPU is announced before.
    decided_at: Option<Instant>,
}

impl CpusCameBack {
    /// On a host that has slept so long since its boot.
    pub(super) fn new(asleep: Duration) -> Self {
        Self { asleep, ..Self::default() }
    }

    /// Has the kernel tell. In a container it does not.
    pub(super) fn listen(&mut self) {
        if !std::mem::replace(&mut self.is_awaited, true) {
            self.events = CpuEvents::listen().ok();
        }
    }

    /// Readable when the kernel says something of CPUs.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    /// Takes in what the kernel and the clocks say.
    pub(super) fn look(&mut self, asleep: Duration, now: Instant) {
        let has_slept = asleep > self.asleep + SHORTEST_SLEEP;
        self.asleep = asleep;
        let came = match self.events.as_ref().map(CpuEvents::came_online) {
            None | Some(Ok(false)) => false,
            Some(Ok(true)) => true,
            // It would be readable for ever.
            Some(Err(error)) => {
                crate::log::log_warning!("CPUs that come back are noticed after a sleep only: {error}");
                self.events = None;
                false
            }
        };
        if self.is_awaited && (has_slept || came) {
            self.noticed(now);
        }
    }

    /// Some came back just now, and others may follow.
    pub(super) fn noticed(&mut self, now: Instant) {
        self.due = Some(now + QUIET);
        self.decided_at = None;
    }

    /// A look found what a CPU may have moved that came online just now: when to look again, if none is announced.
    pub(super) fn undecided(&mut self, now: Instant) -> Option<Instant> {
        if self.due.is_none() {
            self.decided_at = Some(now + ANNOUNCED_WITHIN);
        }
        self.decided_at
    }

    /// What went with them could not be set again, or could.
    pub(super) fn try_again(&mut self, at: Option<Instant>) {
        self.due = self.due.or(at);
    }

    /// When what went with them is to be set again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Why settings are looked at now. What went with CPUs that came is being set again.
    pub(super) fn take_occasion(&mut self, now: Instant) -> Occasion {
        match (self.due.take(), self.decided_at.take_if(|at| *at <= now)) {
            (Some(_), _) => Occasion::CpusCameBack,
            (None, Some(_)) => Occasion::NoCpuCame,
            (None, None) => Occasion::Usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_at_once_are_one() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut cpus_came_back = CpusCameBack { is_awaited: true, ..CpusCameBack::new(second) };
        cpus_came_back.look(second + Duration::from_millis(1), now);
        assert_eq!(cpus_came_back.due(), None, "the clocks are not read at once");
        cpus_came_back.look(5 * second, now);
        assert_eq!(cpus_came_back.due(), Some(now + QUIET));
        cpus_came_back.look(5 * second, now + second);
        assert_eq!(cpus_came_back.due(), Some(now + QUIET), "it has slept once");
        cpus_came_back.noticed(now + second);
        assert_eq!(cpus_came_back.due(), Some(now + second + QUIET));
        assert_eq!(cpus_came_back.take_occasion(now), Occasion::CpusCameBack);
        cpus_came_back.look(5 * second, now + 2 * second);
        assert_eq!(cpus_came_back.due(), None);
    }

    #[test]
    fn what_was_noticed_meanwhile_is_not_put_off() {
        let now = Instant::now();
        let mut cpus_came_back = CpusCameBack::new(Duration::ZERO);
        cpus_came_back.noticed(now);
        cpus_came_back.try_again(Some(now + Duration::from_secs(10)));
        assert_eq!(cpus_came_back.due(), Some(now + QUIET));
        assert_eq!(cpus_came_back.take_occasion(now), Occasion::CpusCameBack);
        cpus_came_back.try_again(None);
        assert_eq!(cpus_came_back.due(), None);
    }

    #[test]
    fn what_is_undecided_waits_for_the_kernels_word() {
        let now = Instant::now();
        let mut cpus_came_back = CpusCameBack::new(Duration::ZERO);
        let decided = cpus_came_back.undecided(now).unwrap();
        assert_eq!(cpus_came_back.take_occasion(now), Occasion::Usual);
        assert_eq!(cpus_came_back.take_occasion(decided), Occasion::NoCpuCame);
        assert_eq!(cpus_came_back.take_occasion(decided), Occasion::Usual);

        cpus_came_back.undecided(now);
        cpus_came_back.noticed(now);
        assert_eq!(cpus_came_back.undecided(now), None);
        assert_eq!(cpus_came_back.take_occasion(decided), Occasion::CpusCameBack);
        assert_eq!(cpus_came_back.take_occasion(decided), Occasion::Usual);
    }
}

//! When the guest's monitors are looked at, switched, held and brought back. The steps themselves are the ledger's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::guest::GuestUuid;
use crate::ledger::{MonitorSetting, Record, Try};

/// When a monitor that was switched is looked at again, and told again: one without a picture goes back within some seconds,
/// several times until the guest has one.
const LOOKS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(8),
];

/// The pauses before a monitor that does not come back is told again: in all [`GIVE_UP_AFTER`].
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(4),
    Duration::from_secs(5),
];

/// How long it is told again: monitors take up to some ten seconds to wake.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);

/// What is done with the guest's monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MonitorStep {
    /// To note what they show before the guest has a picture.
    Note,
    /// To switch those whose delay is over, and to hold the others.
    Follow {
        /// How long the guest has been up.
        up_for: Duration,
        /// Whether there are more such steps.
        attempt: Try,
    },
    /// To bring them back.
    Return(Try),
}

/// The steps to come.
#[derive(Default)]
pub(super) struct MonitorSteps {
    is_noted: bool,
    up_since: Option<Instant>,
    /// In their order.
    looks: VecDeque<Instant>,
    going_back: Option<GoingBack>,
}

struct GoingBack {
    since: Instant,
    /// None while a try is under way.
    next: Option<Instant>,
    /// The pauses still to come.
    pauses: std::slice::Iter<'static, Duration>,
}

impl MonitorSteps {
    /// QEMU is about to be started.
    pub(super) fn guest_is_coming(&mut self, record: &Record, guest: GuestUuid) -> Option<MonitorStep> {
        let wants = record.leases.get(&guest).is_some_and(|lease| !lease.monitors.is_empty());
        (wants && !std::mem::replace(&mut self.is_noted, true)).then_some(MonitorStep::Note)
    }

    /// QEMU runs, or a new keeper has found it running.
    pub(super) fn guest_is_up(&mut self, record: &Record, guest: GuestUuid) {
        if self.up_since.is_some() || !(has_wishes(record, guest) || has_monitors(record, guest)) {
            return;
        }
        let now = Instant::now();
        self.up_since = Some(now);
        let wishes = record.leases.get(&guest).map_or(&[][..], |lease| &lease.monitors);
        let mut delays: Vec<Duration> = wishes.iter().map(|wish| wish.delay).collect();
        if delays.is_empty() {
            delays.push(Duration::ZERO);
        }
        let mut looks: Vec<Instant> =
            delays.iter().flat_map(|delay| LOOKS.map(|look| now + *delay + look)).collect();
        looks.extend(delays.iter().map(|delay| now + *delay));
        looks.sort_unstable();
        looks.dedup();
        self.looks = looks.into();
    }

    /// QEMU is gone: monitors go back, unless they do so already.
    pub(super) fn guest_is_gone(&mut self, record: &Record, guest: GuestUuid) {
        self.looks.clear();
        if self.going_back.is_none() && has_monitors(record, guest) {
            self.go_back(Instant::now());
        }
    }

    fn go_back(&mut self, since: Instant) {
        self.going_back = Some(GoingBack { since, next: Some(since), pauses: PAUSES.iter() });
    }

    /// Monitors that are due to go back.
    #[cfg(test)]
    pub(super) fn on_their_way_back(since: Instant) -> Self {
        let mut steps = Self::default();
        steps.go_back(since);
        steps
    }

    /// Another process goes on with the monitors.
    pub(super) fn forget(&mut self) {
        self.looks.clear();
        self.going_back = None;
    }

    /// Whether monitors are on their way back.
    pub(super) fn is_going_back(&self) -> bool {
        self.going_back.is_some()
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let back = self.going_back.as_ref().and_then(|back| back.next);
        [self.looks.front().copied(), back].into_iter().flatten().min()
    }

    /// What is to be done now.
    pub(super) fn due(&mut self, now: Instant) -> Option<MonitorStep> {
        if let Some(back) = &mut self.going_back
            && back.next.is_some_and(|at| at <= now)
        {
            back.next = None;
            let is_last = now.duration_since(back.since) >= GIVE_UP_AFTER;
            return Some(MonitorStep::Return(if is_last { Try::Last } else { Try::Another }));
        }
        let mut is_due = false;
        while self.looks.front().is_some_and(|at| *at <= now) {
            self.looks.pop_front();
            is_due = true;
        }
        let up_for = now.duration_since(self.up_since?);
        let attempt = if self.looks.is_empty() { Try::Last } else { Try::Another };
        is_due.then_some(MonitorStep::Follow { up_for, attempt })
    }

    /// A try to bring them back is over.
    pub(super) fn returned(&mut self, unfinished: usize) {
        match &mut self.going_back {
            Some(_) if unfinished == 0 => self.going_back = None,
            Some(back) => {
                let pause = back.pauses.next().or(PAUSES.last()).copied().unwrap_or_default();
                back.next = Some(Instant::now() + pause);
            }
            None => {}
        }
    }
}

fn has_wishes(record: &Record, guest: GuestUuid) -> bool {
    record.leases.get(&guest).is_some_and(|lease| !lease.monitors.is_empty())
}

fn has_monitors(record: &Record, guest: GuestUuid) -> bool {
    record.claims_of::<MonitorSetting>(guest).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ProcessId;
    use crate::ledger::{Entry, Evidence, Lease, MonitorClaim, MonitorTurn, MonitorWish, Shown};
    use crate::monitor::{
        EdidIdentity, FeatureControl, ManufacturerId, MonitorFeature, MonitorKey, MonitorPlace, VcpValue,
    };

    fn feature() -> MonitorFeature {
        let identity = EdidIdentity {
            manufacturer: ManufacturerId::new(*b"GSM").unwrap(),
            product: 1,
            serial_number: 1,
            model: None,
            serial: None,
        };
        let place = MonitorPlace { card: None, connector: None, adapter: "adapter".to_owned() };
        MonitorFeature { monitor: MonitorKey { identity, place }, control: FeatureControl::default() }
    }

    fn record(guest: GuestUuid, delays: &[u64]) -> Record {
        let mut record = Record::empty("boot".to_owned());
        let wish = |delay: &u64| MonitorWish {
            feature: feature(),
            value: VcpValue(0x11),
            afterwards: None,
            before: None,
            delay: Duration::from_secs(*delay),
        };
        let hook = ProcessId { pid: 1, start_time: 1 };
        let mut lease = Lease::preparing("win11", hook);
        lease.monitors = delays.iter().map(wish).collect();
        record.leases.insert(guest, lease);
        record
    }

    fn hold_one(record: &mut Record, guest: GuestUuid) {
        let mut entry = Entry::new(MonitorSetting(feature()), Shown::Input(VcpValue(0x0f)));
        let claim =
            MonitorClaim { value: VcpValue(0x11), turn: MonitorTurn::FIRST, evidence: Evidence::None };
        entry.claims.insert(guest, claim);
        record.put(entry);
    }

    fn guest() -> GuestUuid {
        "00000000-0000-0000-0000-000000000001".parse().unwrap()
    }

    #[test]
    fn monitors_are_noted_once_switched_after_their_delays_and_then_held_for_a_while() {
        let record = record(guest(), &[5, 0]);
        let mut steps = MonitorSteps::default();
        assert_eq!(steps.guest_is_coming(&record, guest()), Some(MonitorStep::Note));
        assert_eq!(steps.guest_is_coming(&record, guest()), None);
        steps.guest_is_up(&record, guest());
        let up = steps.up_since.unwrap();
        let mut seen = Vec::new();
        while let Some(at) = steps.next() {
            let Some(MonitorStep::Follow { up_for, attempt }) = steps.due(at) else { panic!("{at:?}") };
            assert_eq!(up + up_for, at);
            seen.push((up_for.as_secs(), attempt == Try::Last));
        }
        let times: Vec<u64> = seen.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 1, 2, 3, 5, 6, 7, 8, 10, 13]);
        assert_eq!(seen.iter().filter(|(_, last)| *last).collect::<Vec<_>>(), [&(13, true)]);
    }

    #[test]
    fn a_guest_without_monitors_wakes_nobody() {
        let record = record(guest(), &[]);
        let mut steps = MonitorSteps::default();
        assert_eq!(steps.guest_is_coming(&record, guest()), None);
        steps.guest_is_up(&record, guest());
        steps.guest_is_gone(&record, guest());
        assert_eq!(steps.next(), None);
        assert!(!steps.is_going_back());
    }

    #[test]
    fn going_back_is_tried_until_it_is_done_or_given_up_and_can_be_called_off() {
        let mut record = record(guest(), &[]);
        hold_one(&mut record, guest());
        let mut steps = MonitorSteps::default();
        steps.guest_is_gone(&record, guest());
        let since = steps.going_back.as_ref().unwrap().since;
        assert_eq!(steps.due(since), Some(MonitorStep::Return(Try::Another)));
        assert_eq!((steps.next(), steps.is_going_back()), (None, true));
        let mut earlier = Duration::ZERO;
        for _ in PAUSES {
            let told = Instant::now();
            steps.returned(1);
            let pause = steps.next().unwrap() - told;
            assert!(pause > earlier, "the pauses grow: {pause:?} after {earlier:?}");
            earlier = pause;
        }
        assert_eq!(PAUSES.iter().sum::<Duration>(), GIVE_UP_AFTER);
        assert_eq!(steps.due(since + GIVE_UP_AFTER), Some(MonitorStep::Return(Try::Last)));
        steps.returned(0);
        assert!(!steps.is_going_back());
        steps.guest_is_gone(&record, guest());
        steps.forget();
        steps.returned(1);
        assert_eq!((steps.next(), steps.is_going_back()), (None, false));
    }
}

//! Where a monitor is that was found before: bus numbers may have changed, and it may say less now.

use super::find::{self, Answers, Asked, MonitorFound, Questions};
use super::problem::MonitorProblem;
use super::survey::{Adapter, Plug, Survey};
use crate::deadline::Deadline;
use crate::host::Host;
use crate::host::i2c::{BusOfCard, MonitorTrouble};
use crate::monitor::{EdidIdentity, MonitorKey, MonitorPlace};

/// Where a monitor is to be talked to.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) at: BusOfCard,
    pub(super) sure: Sure,
}

/// Whether it is known that the monitor is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sure {
    /// The kernel says so, or it was seen there.
    Known,
    /// It is at this connector, which has another bus too.
    Likely,
    /// It was there: its EDID has to be read before anything else is said.
    ToBeVerified,
}

/// Where a monitor is, without a word on any bus: the kernel knows it, this process has just found it, or there is a bus
/// at its place. None where it has to be looked for.
pub(super) fn seat_of(key: &MonitorKey, survey: &Survey, found: &[MonitorFound]) -> Option<Seat> {
    let mut connected = survey.connectors.iter().filter(|connector| connector.plug == Plug::Connected);
    let known = connected.find_map(|connector| {
        let is_it = connector.edid.as_ref() == Ok(&key.identity);
        let adapter = connector.adapters.iter().find(|adapter| is_it && adapter.place == key.place)?;
        let sure = if connector.adapters.len() == 1 { Sure::Known } else { Sure::Likely };
        Some(Seat { at: adapter.at.clone(), sure })
    });
    let just_found = || {
        let found = found.iter().find(|found| found.key == *key)?;
        let adapter = survey.adapters().find(|adapter| {
            let (now, then) = (&adapter.place, &key.place);
            adapter.bus() == found.bus && now.card == then.card && now.adapter == then.adapter
        })?;
        Some(Seat { at: adapter.at.clone(), sure: Sure::Known })
    };
    let where_it_was = || {
        let first = seats_of(key, survey).next()?;
        Some(Seat { at: first.at.clone(), sure: Sure::ToBeVerified })
    };
    known.or_else(just_found).or_else(where_it_was)
}

/// The buses that lead to these monitors now, in their order, after a look at all buses; some have answered before.
pub(super) fn look_for(
    host: &Host,
    keys: &[&MonitorKey],
    survey: &Survey,
    answers: &mut Answers,
    deadline: Deadline,
) -> Vec<Result<BusOfCard, MonitorTrouble>> {
    let found = find::all(host, survey, answers, deadline);
    let asleep = keys.iter().filter(|key| seen_as(key, &found.monitors).is_none());
    let seats = asleep.flat_map(|key| seats_of(key, survey));
    let questions: Questions = seats.map(|adapter| (adapter.at.clone(), Asked::Edid)).collect();
    find::ask(host, questions, answers, deadline);
    let locate = |key: &&MonitorKey| {
        if let Some(found) = seen_as(key, &found.monitors) {
            let adapter = survey.adapters().find(|adapter| adapter.bus() == found.bus);
            return adapter.map(|adapter| adapter.at.clone()).ok_or(MonitorTrouble::Absent);
        }
        let is_free = |seat: &&Adapter| !found.monitors.iter().any(|other| has_taken(other, seat));
        let mut seats = seats_of(key, survey).filter(is_free);
        let seat = seats.find(|seat| says_nothing(answers.get(&seat.bus())));
        seat.map(|seat| seat.at.clone()).ok_or_else(|| reason(&found.problems))
    };
    keys.iter().map(locate).collect()
}

/// The monitor that says it is the one; of several (makers give many the same serial number) the one at the place.
fn seen_as<'a>(key: &MonitorKey, monitors: &'a [MonitorFound]) -> Option<&'a MonitorFound> {
    let same = || monitors.iter().filter(|found| found.key.identity == key.identity);
    let at_place = same().find(|found| fits(&found.key.place, &key.place));
    // Another of the same kind at another place is not the one that is asked for.
    let only = || same().next().filter(|_| same().count() == 1);
    at_place.or_else(only)
}

/// The buses at a monitor's place: those of the adapter's name first, then any of the connector's.
fn seats_of<'a>(key: &'a MonitorKey, survey: &'a Survey) -> impl Iterator<Item = &'a Adapter> {
    let all = || survey.adapters().filter(|adapter| fits(&adapter.place, &key.place));
    let has_name = |adapter: &&Adapter| adapter.place.adapter == key.place.adapter;
    all().filter(has_name).chain(all().filter(move |adapter| !has_name(adapter)))
}

/// Whether two places are the same: the card, and the connector where both have one, else the adapter.
fn fits(now: &MonitorPlace, then: &MonitorPlace) -> bool {
    let is_same_end = match (&now.connector, &then.connector) {
        (Some(now), Some(then)) => now == then,
        _ => now.adapter == then.adapter,
    };
    now.card == then.card && is_same_end
}

/// Whether another monitor is at the end of a bus, or of another bus of the same connector.
fn has_taken(other: &MonitorFound, seat: &Adapter) -> bool {
    let (place, wanted) = (&other.key.place, &seat.place);
    let is_same_connector =
        place.connector.is_some() && place.connector == wanted.connector && place.card == wanted.card;
    other.bus == seat.bus() || is_same_connector
}

/// Whether a bus gives no hint of who is there: a sleeping monitor takes its EDID with it, docks answer with zeros.
fn says_nothing(seen: Option<&Result<Option<EdidIdentity>, MonitorTrouble>>) -> bool {
    matches!(
        seen,
        Some(Err(MonitorTrouble::Silent(_) | MonitorTrouble::Edid(_) | MonitorTrouble::Garbled(_)))
    )
}

/// Why no monitor was found.
fn reason(problems: &[MonitorProblem]) -> MonitorTrouble {
    let known = problems.iter().find_map(|problem| match problem {
        MonitorProblem::NoI2cDev => Some(MonitorTrouble::NoI2cDev),
        MonitorProblem::NotPermitted(_) => Some(MonitorTrouble::NotPermitted),
        MonitorProblem::Hangs(_) => Some(MonitorTrouble::Hangs),
        _ => None,
    });
    known.unwrap_or(MonitorTrouble::Absent)
}

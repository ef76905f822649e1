//! Where a monitor is that was found before: bus numbers may have changed, and it may say less now.

use std::collections::BTreeMap;

use super::find::{self, Asked, MonitorFound};
use super::problem::MonitorProblem;
use super::survey::{Adapter, Plug, Survey};
use crate::deadline::Deadline;
use crate::host::i2c::{I2cBus, MonitorTrouble};
use crate::host::{Host, HostError};
use crate::monitor::{EdidIdentity, MonitorKey, MonitorPlace};

/// The buses that lead to these monitors now, in their order.
pub(super) fn buses_of(
    host: &Host,
    keys: &[&MonitorKey],
    deadline: Deadline,
) -> Result<Vec<Result<I2cBus, MonitorTrouble>>, HostError> {
    // Mostly the kernel knows already, and nothing has to be said on any bus.
    let known = known_to_the_kernel(&Survey::of(host)?);
    let exact: Option<Vec<I2cBus>> =
        keys.iter().map(|key| known.iter().find(|found| found.key == **key).map(|found| found.bus)).collect();
    if let Some(buses) = exact {
        return Ok(buses.into_iter().map(Ok).collect());
    }
    let look = find::all(host, deadline)?;
    let asleep = keys.iter().filter(|key| seen_as(key, &look.found.monitors).is_none());
    let seats = asleep.flat_map(|key| seats_of(key, &look.survey));
    let questions: BTreeMap<I2cBus, Asked> = seats.map(|adapter| (adapter.bus, Asked::Edid)).collect();
    let at_seats = find::ask(host, &questions, deadline);
    let locate = |key: &&MonitorKey| {
        if let Some(found) = seen_as(key, &look.found.monitors) {
            return Ok(found.bus);
        }
        let is_free = |seat: &&Adapter| !look.found.monitors.iter().any(|other| has_taken(other, seat));
        let mut seats = seats_of(key, &look.survey).filter(is_free);
        let seat = seats.find(|seat| says_nothing(at_seats.get(&seat.bus)));
        seat.map(|seat| seat.bus).ok_or_else(|| reason(&look.found.problems))
    };
    Ok(keys.iter().map(locate).collect())
}

fn known_to_the_kernel(survey: &Survey) -> Vec<MonitorFound> {
    let connected = survey.connectors.iter().filter(|connector| connector.plug == Plug::Connected);
    let found = connected.filter_map(|connector| {
        let [adapter] = &connector.adapters[..] else { return None };
        let identity = connector.edid.clone().ok()?;
        let key = MonitorKey { identity, place: adapter.place.clone() };
        Some(MonitorFound { key, bus: adapter.bus })
    });
    found.collect()
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
    let all = || {
        let of_connectors = survey.connectors.iter().flat_map(|connector| &connector.adapters);
        of_connectors.chain(&survey.loose).filter(|adapter| fits(&adapter.place, &key.place))
    };
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
    other.bus == seat.bus || is_same_connector
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

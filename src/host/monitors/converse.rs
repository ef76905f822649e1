//! What is said to several monitors: to each where the kernel says that it is, or where it was the last time, and after a
//! look at all buses to those that are not there any more.

use std::collections::BTreeMap;

use super::Failure;
use super::find::Answers;
use super::locate::{Seat, Sure, look_for, seat_of};
use super::survey::Survey;
use crate::deadline::Deadline;
use crate::host::Host;
use crate::host::i2c::{BusJob, BusOfCard, Conversation, I2cBus, MonitorTrouble};
use crate::host::i2c_dev::I2cDev;
use crate::monitor::{EdidIdentity, FeatureControl, MonitorFeature, MonitorKey};

/// Says something to a monitor.
pub(super) type Say<O, T> = fn(&mut Conversation, FeatureControl, O) -> Result<T, MonitorTrouble>;

/// What one monitor is asked or told, and the place of the answer.
type Orders<O> = Vec<(usize, FeatureControl, O)>;

/// What a bus says of who is at its end.
type WhoIsThere = Result<Option<EdidIdentity>, MonitorTrouble>;

/// What a monitor answers.
enum Said<T> {
    /// This, to each order.
    Answers(Vec<Result<T, MonitorTrouble>>),
    /// Nothing, and it may be on another bus of its connector.
    Nothing(MonitorTrouble),
    /// It is not there.
    Elsewhere(WhoIsThere),
}

/// What came of one conversation.
struct Told<T> {
    bus: I2cBus,
    places: Vec<usize>,
    said: Said<T>,
}

/// Says something to each monitor; the answers in the order of the orders.
pub(super) fn with_each<O: Copy + Send + 'static, T: Send + 'static>(
    host: &Host,
    verb: &str,
    orders: &[(&MonitorFeature, O)],
    deadline: Deadline,
    say: Say<O, T>,
) -> Vec<Result<T, Failure>> {
    let answers = BTreeMap::new();
    let mut work = Work { host, verb, orders, deadline, say, answers, who_is_there: Answers::new() };
    match Survey::of(host) {
        Ok(survey) => work.carry_out(&survey),
        Err(error) => {
            let trouble = MonitorTrouble::Unfindable(error.to_string());
            (0..orders.len()).for_each(|place| work.fail(place, None, trouble.clone()));
        }
    }
    work.all_answers()
}

/// What is being said.
struct Work<'a, O, T> {
    host: &'a Host,
    verb: &'a str,
    orders: &'a [(&'a MonitorFeature, O)],
    deadline: Deadline,
    say: Say<O, T>,
    answers: BTreeMap<usize, Result<T, Failure>>,
    /// What buses have said meanwhile.
    who_is_there: Answers,
}

impl<O: Copy + Send + 'static, T: Send + 'static> Work<'_, O, T> {
    fn carry_out(&mut self, survey: &Survey) {
        let recently = self.host.recently_found.get();
        let mut conversations = Conversations::default();
        let mut to_be_found = Vec::new();
        for (place, (feature, order)) in self.orders.iter().enumerate() {
            match seat_of(&feature.monitor, survey, &recently) {
                Some(seat) => conversations.add(seat, &feature.monitor, (place, feature.control, *order)),
                None => to_be_found.push(place),
            }
        }
        for Told { bus, places, said } in conversations.hold(self.host, self.say, self.deadline) {
            match said {
                Said::Answers(said) => self.keep(bus, places, said),
                Said::Nothing(trouble) => {
                    places.iter().for_each(|place| self.fail(*place, Some(bus), trouble.clone()));
                    to_be_found.extend(places);
                }
                Said::Elsewhere(who) => {
                    self.who_is_there.insert(bus, who);
                    to_be_found.extend(places);
                }
            }
        }
        if !to_be_found.is_empty() {
            self.find(&to_be_found, survey);
        }
    }

    fn find(&mut self, places: &[usize], survey: &Survey) {
        let keys: Vec<&MonitorKey> = places.iter().map(|place| &self.orders[*place].0.monitor).collect();
        let located = look_for(self.host, &keys, survey, &mut self.who_is_there, self.deadline);
        let mut conversations = Conversations::default();
        for (place, located) in places.iter().copied().zip(located) {
            let (feature, order) = &self.orders[place];
            match located {
                // It has said nothing there.
                Ok(at) if self.has_failed_on(place, at.bus) => {}
                Ok(at) => {
                    let seat = Seat { at, sure: Sure::Known };
                    conversations.add(seat, &feature.monitor, (place, feature.control, *order));
                }
                Err(trouble) => self.fail(place, None, trouble),
            }
        }
        for Told { bus, places, said } in conversations.hold(self.host, self.say, self.deadline) {
            if let Said::Answers(said) = said {
                self.keep(bus, places, said);
            }
        }
    }

    fn keep(&mut self, bus: I2cBus, places: Vec<usize>, said: Vec<Result<T, MonitorTrouble>>) {
        for (place, answer) in places.into_iter().zip(said) {
            match answer {
                Ok(answer) => {
                    self.answers.insert(place, Ok(answer));
                }
                Err(trouble) => self.fail(place, Some(bus), trouble),
            }
        }
    }

    fn fail(&mut self, place: usize, bus: Option<I2cBus>, trouble: MonitorTrouble) {
        let has_no_nodes = trouble == MonitorTrouble::NoBus && self.host.i2c_dev() == I2cDev::Absent;
        let trouble = if has_no_nodes { MonitorTrouble::NoI2cDev } else { trouble };
        self.answers.insert(place, Err(Failure::of(self.verb, self.orders[place].0, bus, trouble)));
    }

    fn has_failed_on(&self, place: usize, bus: I2cBus) -> bool {
        matches!(self.answers.get(&place), Some(Err(failure)) if failure.bus == Some(bus))
    }

    fn all_answers(mut self) -> Vec<Result<T, Failure>> {
        for place in 0..self.orders.len() {
            if !self.answers.contains_key(&place) {
                self.fail(place, None, MonitorTrouble::NoTime);
            }
        }
        self.answers.into_values().collect()
    }
}

/// What is to be said, by the bus: the monitor that is meant, and how sure it is that it is there.
struct Conversations<O>(BTreeMap<BusOfCard, (Sure, EdidIdentity, Orders<O>)>);

impl<O> Default for Conversations<O> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<O: Copy + Send + 'static> Conversations<O> {
    fn add(&mut self, seat: Seat, key: &MonitorKey, order: (usize, FeatureControl, O)) {
        let new = || (seat.sure, key.identity.clone(), Vec::new());
        let (_, _, orders) = self.0.entry(seat.at).or_insert_with(new);
        orders.push(order);
    }

    fn hold<T: Send + 'static>(self, host: &Host, say: Say<O, T>, deadline: Deadline) -> Vec<Told<T>> {
        let places: Vec<(I2cBus, Vec<usize>)> = self
            .0
            .iter()
            .map(|(at, (_, _, orders))| (at.bus, orders.iter().map(|(place, ..)| *place).collect()))
            .collect();
        let jobs = self.0.into_iter().map(|(at, (sure, who, orders))| (at, job(sure, who, orders, say)));
        let said = host.buses.on_each(jobs.collect(), deadline);
        let told = places.into_iter().zip(said).map(|((bus, places), said)| {
            // None of the answers of a bus that hangs comes back.
            let none = |trouble: MonitorTrouble| places.iter().map(|_| Err(trouble.clone())).collect();
            let said = said.unwrap_or_else(|trouble| Said::Answers(none(trouble)));
            Told { bus, places, said }
        });
        told.collect()
    }
}

/// All that is said to one monitor, under one lock. One that has to be verified says first who it is.
fn job<O: Copy + Send + 'static, T: 'static>(
    sure: Sure,
    who: EdidIdentity,
    orders: Orders<O>,
    say: Say<O, T>,
) -> BusJob<Said<T>> {
    Box::new(move |turn| {
        let failed =
            |trouble: MonitorTrouble| Said::Answers(orders.iter().map(|_| Err(trouble.clone())).collect());
        let mut conversation = match Conversation::open(turn) {
            Ok(conversation) => conversation,
            Err(trouble) => return failed(trouble),
        };
        if sure == Sure::ToBeVerified {
            match conversation.edid() {
                Ok(seen) if seen == who => {}
                seen @ (Ok(_) | Err(MonitorTrouble::Silent(_) | MonitorTrouble::Edid(_))) => {
                    return Said::Elsewhere(seen.map(Some));
                }
                Err(trouble) => return failed(trouble),
            }
        }
        let mut answers = Vec::with_capacity(orders.len());
        for (_, control, order) in &orders {
            match say(&mut conversation, *control, *order) {
                Err(trouble @ MonitorTrouble::Silent(_)) if sure == Sure::Likely && answers.is_empty() => {
                    return Said::Nothing(trouble);
                }
                answer => answers.push(answer),
            }
        }
        Said::Answers(answers)
    })
}

//! Conversations on a host's buses, each in a thread of its own: drivers of graphics cards can block for ever in a
//! transfer, and then nothing may wait for them.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::card::{BusOfCard, CardLock};
use super::trouble::MonitorTrouble;
use super::{I2cBus, I2cBuses};
use crate::deadline::Deadline;
use crate::host::worker::{BoundedThread, NotStarted, StuckIn, StuckRegistry, TookTooLong};

/// A conversation ends so long before the caller's deadline, so that it can still say what it waited for.
pub(super) const MARGIN: Duration = Duration::from_millis(100);

/// At the most so much of the time is one bus's before it counts as hanging, where others of its card wait for it and
/// there is not more for each.
const ONE_BUS: Duration = Duration::from_secs(1);

/// What a conversation needs.
#[derive(Clone, Copy)]
pub(in crate::host) struct Turn<'a> {
    pub(super) buses: &'a dyn I2cBuses,
    pub(super) at: &'a BusOfCard,
    pub(super) card: &'a CardLock,
    /// Where something hangs.
    pub(super) hanging: &'a [I2cBus],
    pub(super) deadline: Deadline,
}

impl Turn<'_> {
    /// Whether the bus can be opened. Nothing is said on it.
    pub(in crate::host) fn can_be_opened(&self) -> Result<(), MonitorTrouble> {
        self.buses.open(self.at.bus).map(drop).map_err(|error| MonitorTrouble::of_open(&error))
    }
}

/// What is said on a bus.
pub(in crate::host) type BusJob<T> = Box<dyn FnOnce(&Turn<'_>) -> T + Send>;

/// A job, its bus, and its place among all jobs.
type Placed<T> = (usize, BusOfCard, BusJob<T>);

/// What came of a job, and its place.
type Answered<T> = (usize, Result<T, MonitorTrouble>);

/// The way to a host's buses.
pub(in crate::host) struct BusThreads {
    buses: Arc<dyn I2cBuses>,
    stuck: StuckRegistry,
    known_to_hang: Vec<I2cBus>,
}

impl BusThreads {
    /// To the buses of the machine: all hosts of the process know which of them hang.
    pub(in crate::host) fn machine(buses: impl I2cBuses + 'static) -> Self {
        Self { buses: Arc::new(buses), stuck: StuckRegistry::of_this_process(), known_to_hang: Vec::new() }
    }

    /// To the buses of the machine but these, where another process hangs.
    pub(in crate::host) fn machine_but(buses: impl I2cBuses + 'static, hanging: &[I2cBus]) -> Self {
        Self { known_to_hang: hanging.to_vec(), ..Self::machine(buses) }
    }

    /// To the buses of a host in a folder.
    pub(in crate::host) fn simulated(buses: impl I2cBuses + 'static) -> Self {
        Self { buses: Arc::new(buses), stuck: StuckRegistry::default(), known_to_hang: Vec::new() }
    }

    /// Does these jobs, each on its bus: one after the other on a graphics card, and on several cards at once. The answers
    /// come in the order of the jobs. A thread whose bus hangs is left behind when its time is over; while it is, the
    /// bus is not touched again.
    ///
    /// # Panics
    /// Where a job does.
    pub(in crate::host) fn on_each<T: Send + 'static>(
        &self,
        jobs: Vec<(BusOfCard, BusJob<T>)>,
        deadline: Deadline,
    ) -> Vec<Result<T, MonitorTrouble>> {
        let mut cards: BTreeMap<I2cBus, Vec<Placed<T>>> = BTreeMap::new();
        for (place, (at, job)) in jobs.into_iter().enumerate() {
            cards.entry(at.card()).or_default().push((place, at, job));
        }
        let mut cards = cards.into_values();
        // This thread can look after one card.
        let first = cards.next().unwrap_or_default();
        let mut answers = thread::scope(|scope| {
            let others: Vec<_> = cards
                .map(|card| {
                    let places: Vec<usize> = card.iter().map(|(place, ..)| *place).collect();
                    let one = move || self.one_after_the_other(card, deadline);
                    (places, thread::Builder::new().name("card".to_owned()).spawn_scoped(scope, one))
                })
                .collect();
            let mut answers = self.one_after_the_other(first, deadline);
            for (places, other) in others {
                match other.map(thread::ScopedJoinHandle::join) {
                    Ok(Ok(others)) => answers.extend(others),
                    Ok(Err(panic)) => resume_unwind(panic),
                    Err(error) => {
                        let refused = || Err(MonitorTrouble::of_shortage(&error));
                        answers.extend(places.into_iter().map(|place| (place, refused())));
                    }
                }
            }
            answers
        });
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Those on which a thread of this process hangs now.
    pub(in crate::host) fn hanging(&self) -> Vec<I2cBus> {
        self.stuck.buses()
    }

    /// The jobs of one card. Each may take its share of the time, and what those before it left.
    fn one_after_the_other<T: Send + 'static>(
        &self,
        jobs: Vec<Placed<T>>,
        deadline: Deadline,
    ) -> Vec<Answered<T>> {
        let number = jobs.len();
        let answers = jobs
            .into_iter()
            .enumerate()
            .map(|(done, (place, at, job))| (place, self.one(&at, job, its_part(deadline, number - done))));
        answers.collect()
    }

    fn one<T: Send + 'static>(
        &self,
        at: &BusOfCard,
        job: BusJob<T>,
        deadline: Deadline,
    ) -> Result<T, MonitorTrouble> {
        if self.known_to_hang.contains(&at.bus) {
            return Err(MonitorTrouble::Hangs);
        }
        // What can say nothing before its time is over would be taken for one that hangs.
        if deadline.remaining() < MARGIN * 3 / 2 {
            return Err(MonitorTrouble::NoTime);
        }
        let card = CardLock::default();
        let hanging = [self.known_to_hang.as_slice(), &self.stuck.buses()].concat();
        let (buses, own, its_card) = (Arc::clone(&self.buses), at.clone(), card.clone());
        let its_deadline = Deadline::after(deadline.remaining().saturating_sub(MARGIN));
        let talk = move |tell: &Sender<T>| {
            let (buses, at, card, hanging) = (buses.as_ref(), &own, &its_card, hanging.as_slice());
            // Nothing may listen any more.
            drop(tell.send(job(&Turn { buses, at, card, hanging, deadline: its_deadline })));
        };
        let thread = BoundedThread::start(&self.stuck, StuckIn::Bus(at.bus), talk);
        let mut thread = thread.map_err(|reason| match reason {
            NotStarted::Hangs => MonitorTrouble::Hangs,
            NotStarted::NoThread(error) => MonitorTrouble::of_shortage(&error),
        })?;
        match thread.next(deadline) {
            Ok(Some(answer)) => {
                // The thread may take a moment to end, and the next bus of the card waits for it.
                card.release();
                Ok(answer)
            }
            Err(TookTooLong) => {
                tracing::warn!("{} hangs: the thread that talks on it is left behind", at.bus);
                // The card's other monitors can be talked to all the same.
                card.release_but(at.bus);
                Err(MonitorTrouble::Hangs)
            }
            // A job answers before it ends.
            Ok(None) => Err(MonitorTrouble::Hangs),
        }
    }
}

/// When a bus is given up for those of its card that wait: there are so many, this one included.
fn its_part(deadline: Deadline, buses: usize) -> Deadline {
    let remaining = deadline.remaining();
    let fair = remaining / u32::try_from(buses.max(1)).unwrap_or(u32::MAX);
    match buses {
        0 | 1 => deadline,
        _ => Deadline::after(fair.max(ONE_BUS.min(remaining / 2))),
    }
}

//! Whose turn it is on the buses of graphics cards.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::bus_threads::{BusJob, MARGIN};
use super::*;
use crate::deadline::Deadline;

/// Buses that can be locked, and are locked by other programs.
#[derive(Clone, Default)]
struct Buses {
    locked: Arc<Mutex<BTreeMap<I2cBus, Lock>>>,
}

#[derive(Clone)]
enum Lock {
    /// A handle of this process.
    Ours,
    /// Another program.
    Theirs(HolderState),
}

struct Handle {
    buses: Buses,
    bus: I2cBus,
    has_lock: Mutex<bool>,
}

impl I2cBuses for Buses {
    fn open(&self, bus: I2cBus) -> io::Result<Box<dyn I2cHandle>> {
        Ok(Box::new(Handle { buses: self.clone(), bus, has_lock: Mutex::new(false) }))
    }

    fn pace(&self) -> Pace {
        Pace::NONE
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if *self.has_lock.lock().unwrap() {
            self.buses.locked.lock().unwrap().remove(&self.bus);
        }
    }
}

impl I2cHandle for Handle {
    fn kind(&self) -> io::Result<BusKind> {
        Ok(BusKind::I2c)
    }

    fn try_lock(&self) -> io::Result<()> {
        let mut locked = self.buses.locked.lock().unwrap();
        if locked.contains_key(&self.bus) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        locked.insert(self.bus, Lock::Ours);
        *self.has_lock.lock().unwrap() = true;
        Ok(())
    }

    fn lock_holder(&self) -> Option<LockHolder> {
        match self.buses.locked.lock().unwrap().get(&self.bus)? {
            Lock::Ours => None,
            Lock::Theirs(state) => {
                Some(LockHolder { process: 4711, program: "ddcutil".to_owned(), state: *state })
            }
        }
    }

    fn write(&mut self, _: u8, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, _: u8, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }

    fn write_read(&mut self, _: u8, _: &[u8], _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
}

/// The buses of two cards: 3, 4 and 5, and 7 and 8; 9 is on none.
fn at(bus: u32) -> BusOfCard {
    let of_card: &[u32] = match bus {
        3..=5 => &[3, 4, 5],
        7 | 8 => &[7, 8],
        _ => &[],
    };
    BusOfCard::new(I2cBus(bus), of_card.iter().copied().map(I2cBus).collect())
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn threads_on(buses: &Buses) -> BusThreads {
    BusThreads::simulated(buses.clone())
}

type Answer = Result<(), MonitorTrouble>;

/// Opens a conversation, and does something in it.
fn job(during: impl FnOnce() + Send + 'static) -> BusJob<Answer> {
    Box::new(move |turn| {
        let _conversation = Conversation::open(turn)?;
        during();
        Ok(())
    })
}

fn flat(answers: Vec<Result<Answer, MonitorTrouble>>) -> Vec<Answer> {
    answers.into_iter().map(Result::flatten).collect()
}

#[test]
fn a_card_has_one_conversation_at_a_time_and_several_cards_have_theirs_at_once() {
    let under_way: Arc<Mutex<BTreeMap<I2cBus, usize>>> = Arc::default();
    // The first conversations of both cards, and of the bus that is on none, meet.
    let meet = Arc::new(Barrier::new(3));
    let jobs = [3, 4, 5, 7, 8, 9].map(|bus| {
        let (under_way, meet) = (Arc::clone(&under_way), Arc::clone(&meet));
        let during = move || {
            let card = at(bus).card();
            *under_way.lock().unwrap().entry(card).or_default() += 1;
            if [3, 7, 9].contains(&bus) {
                meet.wait();
            }
            thread::sleep(Duration::from_millis(20));
            assert_eq!(under_way.lock().unwrap()[&card], 1, "several on the card of i2c-{bus}");
            *under_way.lock().unwrap().get_mut(&card).unwrap() -= 1;
        };
        (at(bus), job(during))
    });
    let answers = flat(threads_on(&Buses::default()).on_each(jobs.into(), soon()));
    assert_eq!(answers, vec![Ok(()); 6]);
}

/// Threads stand for processes: a lock is one of a handle.
#[test]
fn other_processes_are_waited_for_too() {
    let (buses, under_way) = (Buses::default(), Arc::new(Mutex::new(0)));
    let processes = [3, 4, 5, 4].map(|bus| {
        let (buses, under_way) = (buses.clone(), Arc::clone(&under_way));
        thread::spawn(move || {
            let during = move || {
                *under_way.lock().unwrap() += 1;
                thread::sleep(Duration::from_millis(20));
                assert_eq!(*under_way.lock().unwrap(), 1);
                *under_way.lock().unwrap() -= 1;
            };
            flat(threads_on(&buses).on_each(vec![(at(bus), job(during))], soon()))
        })
    });
    for process in processes {
        assert_eq!(process.join().unwrap(), [Ok(())]);
    }
    assert!(buses.locked.lock().unwrap().is_empty(), "every lock is given back");
}

#[test]
fn a_program_that_keeps_a_lock_is_waited_for_no_longer_than_there_is_time_and_named() {
    let buses = Buses::default();
    let said = |bus, time| {
        let jobs = vec![(at(bus), job(|| ()))];
        let trouble = flat(threads_on(&buses).on_each(jobs, Deadline::after(time))).remove(0).unwrap_err();
        format!("{trouble}; {}", trouble.help().unwrap())
    };
    let time = MARGIN * 4;
    buses.locked.lock().unwrap().insert(I2cBus(3), Lock::Theirs(HolderState::Runs));
    let began = Instant::now();
    insta::assert_snapshot!(said(4, time), @"ddcutil (process 4711) keeps the buses of its graphics card locked; it is free again when that program ends");
    insta::assert_snapshot!(said(3, time), @"ddcutil (process 4711) keeps the bus locked; it is free again when that program ends");
    assert!(began.elapsed() < time * 2 + Duration::from_secs(10), "{:?}", began.elapsed());
    // Another card's, and a bus of no card.
    for bus in [7, 9] {
        assert_eq!(flat(threads_on(&buses).on_each(vec![(at(bus), job(|| ()))], soon())), [Ok(())]);
    }
    buses.locked.lock().unwrap().insert(I2cBus(9), Lock::Ours);
    insta::assert_snapshot!(said(9, time), @"another program keeps the bus locked; is ddcutil or another monitor control running?");
}

#[test]
fn a_holder_that_hangs_does_not_take_the_whole_card_with_it() {
    let buses = Buses::default();
    buses.locked.lock().unwrap().insert(I2cBus(3), Lock::Theirs(HolderState::Hangs));
    let jobs = [3, 4, 5].map(|bus| (at(bus), job(|| ())));
    let mut answers = flat(threads_on(&buses).on_each(jobs.into(), soon()));
    assert_eq!(answers.split_off(1), [Ok(()), Ok(())]);
    let trouble = answers.remove(0).unwrap_err();
    assert_eq!(trouble.to_string(), "ddcutil (process 4711) keeps the bus locked, and hangs in the kernel");
    assert!(trouble.help().unwrap().contains("dmesg"), "{trouble}");
}

/// What holds a thread in the kernel until it is let go.
#[derive(Clone, Default)]
struct Hang(Arc<(Mutex<bool>, Condvar)>);

impl Hang {
    fn wait(&self) {
        let (is_over, changed) = &*self.0;
        drop(changed.wait_while(is_over.lock().unwrap(), |is_over| !*is_over).unwrap());
    }

    fn end(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

#[test]
fn a_bus_that_hangs_leaves_time_and_lock_to_the_others_of_its_card() {
    for hanging in [3, 4] {
        let (buses, hang) = (Buses::default(), Hang::default());
        let threads = threads_on(&buses);
        let jobs = [3, 4, 5].map(|bus| {
            let hang = hang.clone();
            (
                at(bus),
                job(move || {
                    if bus == hanging {
                        hang.wait()
                    }
                }),
            )
        });
        let time = Deadline::after(Duration::from_secs(3));
        let answers = flat(threads.on_each(jobs.into(), time));
        for (bus, answer) in (3..).zip(answers) {
            let expected = if bus == hanging { Err(MonitorTrouble::Hangs) } else { Ok(()) };
            assert_eq!(answer, expected, "i2c-{bus} while i2c-{hanging} hangs");
        }
        assert_eq!(threads.hanging(), [I2cBus(hanging)]);
        // The next time it costs nothing, for this process and for one that is told.
        let began = Instant::now();
        let again = |threads: &BusThreads| {
            flat(threads.on_each([3, 4, 5].map(|bus| (at(bus), job(|| ()))).into(), soon()))
        };
        let told = BusThreads::machine_but(buses.clone(), &[I2cBus(hanging)]);
        for threads in [&threads, &told] {
            assert_eq!(again(threads).iter().filter(|answer| answer.is_ok()).count(), 2);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        hang.end();
    }
}

#[test]
fn a_job_without_time_is_not_begun_and_does_not_count_as_hanging() {
    let threads = threads_on(&Buses::default());
    let jobs = vec![(at(3), job(|| panic!("it was begun")))];
    assert_eq!(flat(threads.on_each(jobs, Deadline::after(MARGIN))), [Err(MonitorTrouble::NoTime)]);
    assert_eq!(threads.hanging(), []);
}

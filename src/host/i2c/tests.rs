//! The pace of a conversation, and its lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::bus_threads::Turn;
use super::card::CardLock;
use super::*;
use crate::deadline::Deadline;
use crate::monitor::ddc_ci::{DdcRequest, feature_reply, parse_request};
use crate::monitor::{ExtraStep, FeatureControl, VcpFeature, VcpValue};

/// A monitor that notes when something happens, and fails as it is told.
#[derive(Clone)]
struct Witness {
    events: Arc<Mutex<Vec<(Event, Instant)>>>,
    fault: Fault,
    pace: Pace,
    /// Who has the lock; a handle each.
    lock: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Locked,
    Written(DdcRequest),
    Read,
    Failed,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Nothing is acknowledged.
    Silent,
    /// Questions are, replies are not.
    NoReply,
    /// Replies are for something else.
    Garbles,
}

impl Witness {
    fn new(fault: Fault, pace: Pace) -> Self {
        Self { events: Arc::default(), fault, pace, lock: Arc::default() }
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push((event, Instant::now()));
    }

    fn says(&self, event: Event, fails: bool) -> io::Result<()> {
        self.note(if fails { Event::Failed } else { event });
        if fails { Err(Errno::ENXIO.into()) } else { Ok(()) }
    }

    fn converse(&self) -> Conversation {
        self.converse_until(Deadline::after(Duration::from_secs(20)))
    }

    fn converse_until(&self, deadline: Deadline) -> Conversation {
        let (at, card) = (BusOfCard::new(I2cBus(7), Vec::new()), CardLock::default());
        Conversation::open(&Turn { buses: self, at: &at, card: &card, hanging: &[], deadline }).unwrap()
    }

    /// The events, each of which came at least so many milliseconds after the one before as that asks for.
    fn events(&self) -> Vec<Event> {
        let events = self.events.lock().unwrap();
        for pair in events.windows(2) {
            let [(before, then), (event, at)] = pair else { unreachable!() };
            let least = match before {
                Event::Locked => 0,
                Event::Written(DdcRequest::Get(_)) => 40,
                Event::Written(DdcRequest::Set(..)) | Event::Read | Event::Failed => 50,
                Event::Written(DdcRequest::SaveCurrentSettings) => 200,
                // The one before has kept the monitor's time.
                Event::Closed => 0,
            };
            let gap = at.duration_since(*then).as_millis();
            assert!(gap >= least, "{event:?} only {gap} ms after {before:?}");
        }
        events.iter().map(|(event, _)| *event).collect()
    }
}

impl I2cBuses for Witness {
    fn open(&self, _: I2cBus) -> io::Result<Box<dyn I2cHandle>> {
        Ok(Box::new(Handle { witness: self.clone(), has_lock: AtomicBool::new(false) }))
    }

    fn pace(&self) -> Pace {
        self.pace
    }
}

struct Handle {
    witness: Witness,
    has_lock: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The handle that only locks says nothing.
        if self.has_lock.load(Ordering::SeqCst) {
            self.witness.note(Event::Closed);
            self.witness.lock.store(false, Ordering::SeqCst);
        }
    }
}

impl I2cHandle for Handle {
    fn kind(&self) -> io::Result<BusKind> {
        Ok(BusKind::I2c)
    }

    fn try_lock(&self) -> io::Result<()> {
        if self.witness.lock.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.has_lock.store(true, Ordering::SeqCst);
        self.witness.note(Event::Locked);
        Ok(())
    }

    fn lock_holder(&self) -> Option<LockHolder> {
        None
    }

    fn write(&mut self, _: u8, bytes: &[u8]) -> io::Result<()> {
        let request = parse_request(bytes).unwrap().0;
        self.witness.says(Event::Written(request), self.witness.fault == Fault::Silent)
    }

    fn read(&mut self, _: u8, buffer: &mut [u8]) -> io::Result<()> {
        self.witness.says(Event::Read, self.witness.fault == Fault::NoReply)?;
        let feature =
            if self.witness.fault == Fault::Garbles { VcpFeature(0xee) } else { VcpFeature::INPUT_SOURCE };
        buffer.copy_from_slice(&feature_reply(feature, Some(VcpValue(0x0f))));
        Ok(())
    }

    fn write_read(&mut self, _: u8, _: &[u8], _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn the_pauses_of_the_standard_are_kept_under_one_lock() {
    let witness = Witness::new(Fault::None, Pace::STANDARD);
    let mut conversation = witness.converse();
    let control = FeatureControl {
        read_first: ExtraStep::Make,
        save_settings: ExtraStep::Make,
        ..FeatureControl::default()
    };
    let input = control.feature;
    assert_eq!(conversation.get(control), Ok(VcpValue(0x0f)));
    assert_eq!(conversation.set(control, VcpValue(0x11)), Ok(()));
    drop(conversation);

    let get = Event::Written(DdcRequest::Get(input));
    let expected = [
        Event::Locked,
        get,
        Event::Read,
        get,
        Event::Read,
        Event::Written(DdcRequest::Set(input, VcpValue(0x11))),
        Event::Written(DdcRequest::SaveCurrentSettings),
        Event::Closed,
    ];
    assert_eq!(witness.events(), expected);
}

#[test]
fn the_bus_is_given_up_when_the_monitor_is_ready_for_the_next_program() {
    for fault in [Fault::None, Fault::Silent, Fault::NoReply, Fault::Garbles] {
        for is_set in [false, true] {
            let witness = Witness::new(fault, Pace::STANDARD);
            let mut conversation = witness.converse();
            let control = FeatureControl::default();
            let is_done = if is_set {
                conversation.set(control, VcpValue(0x11)).is_ok()
            } else {
                conversation.get(control).is_ok()
            };
            drop(conversation);
            assert_eq!(is_done, fault == Fault::None || (is_set && fault != Fault::Silent), "{fault:?}");
            let events = witness.events();
            assert_eq!(events.last(), Some(&Event::Closed), "{fault:?}");
        }
    }
}

#[test]
fn the_monitors_time_does_not_make_the_callers_longer() {
    let slow = Pace { between: Duration::from_secs(60), save: Duration::from_secs(60), ..Pace::STANDARD };
    for fault in [Fault::None, Fault::Silent] {
        let began = Instant::now();
        let witness = Witness::new(fault, slow);
        let deadline = Deadline::after(Duration::from_millis(200));
        let mut conversation = witness.converse_until(deadline);
        let _ = conversation.get(FeatureControl::default());
        let _ = conversation.get(FeatureControl::default());
        drop(conversation);
        assert!(began.elapsed() < Duration::from_secs(20), "{fault:?}: {:?}", began.elapsed());
    }
}

/// Each program finds the monitor ready, whatever the one before it said and whatever came of that.
#[test]
fn programs_that_take_turns_keep_the_monitors_time() {
    for fault in [Fault::None, Fault::Silent, Fault::NoReply, Fault::Garbles] {
        let witness = Witness::new(fault, Pace::STANDARD);
        let programs = [false, true, false, true].map(|is_set| {
            let witness = witness.clone();
            thread::spawn(move || {
                let mut conversation = witness.converse();
                let control = FeatureControl::default();
                let _ = if is_set {
                    conversation.set(control, VcpValue(0x11))
                } else {
                    conversation.get(control).map(drop)
                };
            })
        });
        programs.into_iter().for_each(|program| program.join().unwrap());
        let events = witness.events();
        assert_eq!(events.iter().filter(|event| **event == Event::Closed).count(), 4, "{fault:?}");
        let messages = |event: &&Event| !matches!(event, Event::Locked | Event::Closed);
        let said: Vec<(Event, Instant)> =
            witness.events.lock().unwrap().iter().copied().filter(|(event, _)| messages(&event)).collect();
        for pair in said.windows(2) {
            let [(before, then), (event, at)] = pair else { unreachable!() };
            let least = if matches!(before, Event::Written(DdcRequest::Get(_))) { 40 } else { 50 };
            let gap = at.duration_since(*then).as_millis();
            assert!(gap >= least, "{fault:?}: {event:?} only {gap} ms after {before:?}");
        }
    }
}

/// At the end of its time a program says nothing that it could not keep the monitor's quiet after. Longer pauses than the
/// standard's, so that a machine that is busy makes no difference.
#[test]
fn what_leaves_no_time_for_the_quiet_is_not_said() {
    let between = Duration::from_millis(800);
    let slow = Pace { reply: Duration::from_millis(100), between, ..Pace::STANDARD };
    for milliseconds in [50, 300, 700, 1000] {
        for is_set in [false, true] {
            let witness = Witness::new(Fault::None, slow);
            let mut conversation =
                witness.converse_until(Deadline::after(Duration::from_millis(milliseconds)));
            let control = FeatureControl::default();
            for _ in 0..3 {
                let _ = if is_set {
                    conversation.set(control, VcpValue(0x11))
                } else {
                    conversation.get(control).map(drop)
                };
            }
            drop(conversation);
            let events = witness.events.lock().unwrap();
            let [.., (last, then), (Event::Closed, at)] = &events[..] else { panic!("{events:?}") };
            let quiet = at.duration_since(*then);
            assert!(
                *last == Event::Locked || quiet >= between / 2,
                "{milliseconds} ms: given up {quiet:?} after {last:?}"
            );
        }
    }
}

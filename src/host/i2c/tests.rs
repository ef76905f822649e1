//! The pace of a conversation, and its lock.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;

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
        Self { events: Arc::default(), fault, pace }
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push((event, Instant::now()));
    }

    fn says(&self, event: Event, fails: bool) -> io::Result<()> {
        self.note(if fails { Event::Failed } else { event });
        if fails { Err(Errno::ENXIO.into()) } else { Ok(()) }
    }

    fn converse(&self) -> Conversation {
        Conversation::open(self, I2cBus(7), Deadline::after(Duration::from_secs(20))).unwrap()
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
                Event::Closed => panic!("{event:?} after the end"),
            };
            let gap = at.duration_since(*then).as_millis();
            assert!(gap >= least, "{event:?} only {gap} ms after {before:?}");
        }
        events.iter().map(|(event, _)| *event).collect()
    }
}

impl I2cBuses for Witness {
    fn open(&self, _: I2cBus) -> io::Result<Box<dyn I2cHandle>> {
        Ok(Box::new(Handle(self.clone())))
    }

    fn pace(&self) -> Pace {
        self.pace
    }
}

struct Handle(Witness);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.note(Event::Closed);
    }
}

impl I2cHandle for Handle {
    fn kind(&self) -> io::Result<BusKind> {
        Ok(BusKind::I2c)
    }

    fn try_lock(&self) -> io::Result<()> {
        self.0.note(Event::Locked);
        Ok(())
    }

    fn write(&mut self, _: u8, bytes: &[u8]) -> io::Result<()> {
        let request = parse_request(bytes).unwrap().0;
        self.0.says(Event::Written(request), self.0.fault == Fault::Silent)
    }

    fn read(&mut self, _: u8, buffer: &mut [u8]) -> io::Result<()> {
        self.0.says(Event::Read, self.0.fault == Fault::NoReply)?;
        let feature =
            if self.0.fault == Fault::Garbles { VcpFeature(0xee) } else { VcpFeature::INPUT_SOURCE };
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
        let mut conversation = Conversation::open(&witness, I2cBus(7), deadline).unwrap();
        let _ = conversation.get(FeatureControl::default());
        let _ = conversation.get(FeatureControl::default());
        drop(conversation);
        assert!(began.elapsed() < Duration::from_secs(20), "{fault:?}: {:?}", began.elapsed());
    }
}

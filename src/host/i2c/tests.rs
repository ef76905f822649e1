//! The pace of a conversation, and its lock.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::deadline::Deadline;
use crate::monitor::ddc_ci::{DdcRequest, feature_reply, parse_request};
use crate::monitor::{ExtraStep, FeatureControl, VcpFeature, VcpValue};

/// A monitor that notes when something happens.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<(Event, Instant)>>>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Locked,
    Written(DdcRequest),
    Read,
    Closed,
}

impl Witness {
    fn note(&self, event: Event) {
        self.0.lock().unwrap().push((event, Instant::now()));
    }

    /// The events, each with the milliseconds since the one before.
    fn events(&self) -> Vec<(Event, u128)> {
        let events = self.0.lock().unwrap();
        let mut before = events[0].1;
        let since = |(event, at): &(Event, Instant)| {
            let gap = at.duration_since(std::mem::replace(&mut before, *at));
            (*event, gap.as_millis())
        };
        events.iter().map(since).collect()
    }
}

impl I2cBuses for Witness {
    fn open(&self, _: I2cBus) -> io::Result<Box<dyn I2cHandle>> {
        Ok(Box::new(Handle(self.clone())))
    }

    fn pace(&self) -> Pace {
        Pace::STANDARD
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
        self.0.note(Event::Written(parse_request(bytes).unwrap().0));
        Ok(())
    }

    fn read(&mut self, _: u8, buffer: &mut [u8]) -> io::Result<()> {
        self.0.note(Event::Read);
        buffer.copy_from_slice(&feature_reply(VcpFeature::INPUT_SOURCE, Some(VcpValue(0x0f))));
        Ok(())
    }

    fn write_read(&mut self, _: u8, _: &[u8], _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn the_pauses_of_the_standard_are_kept_under_one_lock() {
    let witness = Witness::default();
    let deadline = Deadline::after(Duration::from_secs(20));
    let mut conversation = Conversation::open(&witness, I2cBus(7), deadline).unwrap();
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
        (Event::Locked, 0),
        (get, 0),
        (Event::Read, 40),
        (get, 50),
        (Event::Read, 40),
        (Event::Written(DdcRequest::Set(input, VcpValue(0x11))), 50),
        (Event::Written(DdcRequest::SaveCurrentSettings), 50),
        (Event::Closed, 200),
    ];
    let events = witness.events();
    assert_eq!(events.len(), expected.len(), "{events:?}");
    for ((event, gap), (expected, least)) in events.iter().zip(expected) {
        assert_eq!(*event, expected);
        assert!(*gap >= least, "{event:?} after {gap} ms");
    }
}

//! A conversation with one monitor: questions and answers on one handle, under one lock, at the monitor's pace.

use std::thread;
use std::time::{Duration, Instant};

use super::bus_threads::{MARGIN, Turn};
use super::card::{CardLock, wait_for};
use super::trouble::{MonitorTrouble, Taken};
use super::{BusKind, EDID_ADDRESS, I2cBus, I2cHandle, Pace};
use crate::deadline::Deadline;
use crate::monitor::ddc_ci::{
    DDC_CI_ADDRESS, DdcRequest, FEATURE_REPLY_BYTES, ReplyError, parse_feature_reply,
};
use crate::monitor::{
    EDID_BLOCK, EdidIdentity, ExtraStep, FeatureControl, Reading, SourceAddress, VcpFeature, VcpValue,
    parse_edid,
};

/// So often something is written that needs no answer; ddcutil's default too.
const WRITE_TRIES: u32 = 4;
/// So often a question is asked; ddcutil's default too.
const QUESTION_TRIES: u32 = 10;
/// A reply without content may mean "not yet": each time it is waited one pause longer, up to so many.
const MOST_PAUSES: u32 = 4;
/// So often nobody may acknowledge before the monitor counts as silent: one that is busy misses one or two.
const SILENT_TRIES: u32 = 3;

/// An open, locked bus of a locked card, with a monitor at its end. The locks last until this is dropped, which waits
/// until the monitor is ready for the next process on the bus.
pub(in crate::host) struct Conversation {
    bus: I2cBus,
    handle: Box<dyn I2cHandle>,
    card: CardLock,
    pace: Pace,
    deadline: Deadline,
    /// By when the bus is given up, whatever the monitor needs.
    given_up: Deadline,
    /// Nothing may be sent before.
    quiet_until: Instant,
}

impl Drop for Conversation {
    /// The next program that gets the lock may begin at once, so the monitor's time is kept before. Nothing was sent
    /// without time for that; where the bus took longer than that all the same, the caller's time comes first: the next
    /// message may come too early then. The monitor does not hear it, and it is said again, by this program as by
    /// ddcutil.
    fn drop(&mut self) {
        // The card's other monitors need not wait for this one's quiet.
        self.card.release_but(self.bus);
        thread::sleep(self.quiet().min(self.given_up.remaining()));
    }
}

impl Conversation {
    /// Opens a bus and locks it, its card first.
    pub(in crate::host) fn open(turn: &Turn<'_>) -> Result<Self, MonitorTrouble> {
        let Turn { buses, at, card, hanging, deadline } = *turn;
        let handle = buses.open(at.bus).map_err(|error| MonitorTrouble::of_open(&error))?;
        let kind = handle.kind().map_err(|error| MonitorTrouble::of_transfer(&error))?;
        if kind == BusKind::SmbusOnly {
            return Err(MonitorTrouble::SmbusOnly);
        }
        let pace = buses.pace();
        card.take(buses, at, hanging, deadline)?;
        // A process has a lock on one handle only.
        if !card.is_on(at.bus) {
            wait_for(handle.as_ref(), Taken::Bus, pace, deadline)?;
        }
        // The caller's own time ends one margin after the deadline.
        let given_up = Deadline::after(deadline.remaining() + MARGIN / 2);
        let quiet_until = Instant::now();
        Ok(Self { bus: at.bus, handle, card: card.clone(), pace, deadline, given_up, quiet_until })
    }

    /// Who is at the end of the bus.
    pub(in crate::host) fn edid(&mut self) -> Result<EdidIdentity, MonitorTrouble> {
        let mut block = [0; EDID_BLOCK];
        self.repeat(SILENT_TRIES, |this| {
            let read = this.handle.write_read(EDID_ADDRESS, &[0], &mut block);
            read.map_err(|error| MonitorTrouble::of_transfer(&error))?;
            parse_edid(&block).map_err(MonitorTrouble::Edid)
        })
    }

    /// The value of a feature.
    pub(in crate::host) fn get(&mut self, control: FeatureControl) -> Result<VcpValue, MonitorTrouble> {
        match control.reading {
            Reading::WriteOnly => Err(MonitorTrouble::WriteOnly),
            Reading::Reliable | Reading::Unreliable => self.ask(control.feature, control.source_address),
        }
    }

    /// Gives a feature a value, with whatever the monitor needs before and after.
    pub(in crate::host) fn set(
        &mut self,
        control: FeatureControl,
        value: VcpValue,
    ) -> Result<(), MonitorTrouble> {
        if control.read_first == ExtraStep::Make {
            // What it says does not matter, and if it says nothing the write will tell.
            let _ = self.ask(VcpFeature::INPUT_SOURCE, SourceAddress::HOST);
        }
        self.tell(DdcRequest::Set(control.feature, value), control.source_address, self.pace.between)?;
        if control.save_settings == ExtraStep::Make {
            self.tell(DdcRequest::SaveCurrentSettings, control.source_address, self.pace.save)?;
        }
        Ok(())
    }

    fn ask(&mut self, feature: VcpFeature, source: SourceAddress) -> Result<VcpValue, MonitorTrouble> {
        let question = DdcRequest::Get(feature).bytes(source);
        let mut pauses = 1;
        self.repeat(QUESTION_TRIES, |this| {
            let wait = this.pace.reply * pauses;
            this.send(&question, wait + this.pace.between)?;
            thread::sleep(wait);
            let mut reply = [0; FEATURE_REPLY_BYTES];
            let read = this.handle.read(DDC_CI_ADDRESS, &mut reply);
            this.quiet_for(this.pace.between);
            read.map_err(|error| MonitorTrouble::of_transfer(&error))?;
            parse_feature_reply(&reply, feature).map_err(|error| match error {
                ReplyError::Null => {
                    pauses = (pauses + 1).min(MOST_PAUSES);
                    MonitorTrouble::NoValue
                }
                ReplyError::Unsupported => MonitorTrouble::Unsupported,
                garbled => MonitorTrouble::Garbled(garbled),
            })
        })
    }

    fn tell(
        &mut self,
        request: DdcRequest,
        source: SourceAddress,
        pause: Duration,
    ) -> Result<(), MonitorTrouble> {
        let bytes = request.bytes(source);
        self.repeat(WRITE_TRIES, |this| {
            this.send(&bytes, pause)?;
            this.quiet_for(pause);
            Ok(())
        })
    }

    /// The monitor's time is always kept, before a message and after it: what comes too early is lost, and with it what
    /// comes next. So where it would not be over before the caller's time is, nothing is sent.
    fn send(&mut self, bytes: &[u8], afterwards: Duration) -> Result<(), MonitorTrouble> {
        let quiet = self.quiet();
        self.has_time_for(quiet + afterwards)?;
        thread::sleep(quiet);
        let written = self.handle.write(DDC_CI_ADDRESS, bytes);
        self.quiet_for(self.pace.between);
        written.map_err(|error| MonitorTrouble::of_transfer(&error))
    }

    /// Tries until it works, so often, not beyond the deadline, and not when more tries cannot help.
    fn repeat<T>(
        &mut self,
        tries: u32,
        mut attempt: impl FnMut(&mut Self) -> Result<T, MonitorTrouble>,
    ) -> Result<T, MonitorTrouble> {
        let mut trouble = MonitorTrouble::NoTime;
        let mut silent = 0;
        for tried in 0..tries {
            if tried > 0 {
                self.deadline.pause(self.pace.between);
            }
            if self.deadline.has_passed() {
                break;
            }
            trouble = match attempt(self) {
                Ok(answer) => return Ok(answer),
                // What went wrong before tells more.
                Err(MonitorTrouble::NoTime) if tried > 0 => break,
                Err(trouble) => trouble,
            };
            match trouble {
                MonitorTrouble::Silent(_) => silent += 1,
                MonitorTrouble::Garbled(_) | MonitorTrouble::NoValue | MonitorTrouble::Edid(_) => {}
                _ => break,
            }
            if silent >= SILENT_TRIES {
                break;
            }
        }
        Err(trouble)
    }

    fn quiet_for(&mut self, pause: Duration) {
        self.quiet_until = self.quiet_until.max(Instant::now() + pause);
    }

    fn has_time_for(&self, wait: Duration) -> Result<(), MonitorTrouble> {
        if wait > self.given_up.remaining() { Err(MonitorTrouble::NoTime) } else { Ok(()) }
    }

    /// How long nothing may be sent.
    fn quiet(&self) -> Duration {
        self.quiet_until.saturating_duration_since(Instant::now())
    }
}

//! A conversation with one monitor: questions and answers on one handle, under one lock, at the monitor's pace.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::trouble::MonitorTrouble;
use super::{BusKind, EDID_ADDRESS, I2cBus, I2cBuses, I2cHandle, Pace};
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

/// An open, locked bus with a monitor at its end. The lock lasts until this is dropped.
pub(in crate::host) struct Conversation {
    handle: Box<dyn I2cHandle>,
    pace: Pace,
    deadline: Deadline,
    /// Nothing may be sent before.
    quiet_until: Instant,
}

impl Conversation {
    /// Opens a bus and locks it.
    pub(in crate::host) fn open(
        buses: &dyn I2cBuses,
        bus: I2cBus,
        deadline: Deadline,
    ) -> Result<Self, MonitorTrouble> {
        let handle = buses.open(bus).map_err(|error| MonitorTrouble::of_open(&error))?;
        let kind = handle.kind().map_err(|error| MonitorTrouble::of_transfer(&error))?;
        if kind == BusKind::SmbusOnly {
            return Err(MonitorTrouble::SmbusOnly);
        }
        let conversation = Self { handle, pace: buses.pace(), deadline, quiet_until: Instant::now() };
        conversation.lock()?;
        Ok(conversation)
    }

    fn lock(&self) -> Result<(), MonitorTrouble> {
        loop {
            match self.handle.try_lock() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(MonitorTrouble::of_transfer(&error)),
            }
            if self.deadline.has_passed() {
                return Err(MonitorTrouble::Locked);
            }
            self.deadline.pause(self.pace.lock);
        }
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
        // The next program that gets the lock may begin at once.
        self.keep_quiet();
        Ok(())
    }

    fn ask(&mut self, feature: VcpFeature, source: SourceAddress) -> Result<VcpValue, MonitorTrouble> {
        let question = DdcRequest::Get(feature).bytes(source);
        let mut pauses = 1;
        self.repeat(QUESTION_TRIES, |this| {
            this.send(&question)?;
            thread::sleep(this.pace.reply * pauses);
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
            this.send(&bytes)?;
            this.quiet_for(pause);
            Ok(())
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), MonitorTrouble> {
        self.keep_quiet();
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
        for _ in 0..tries {
            if self.deadline.has_passed() {
                break;
            }
            trouble = match attempt(self) {
                Ok(answer) => return Ok(answer),
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
            self.quiet_for(self.pace.between);
            self.keep_quiet();
        }
        Err(trouble)
    }

    fn quiet_for(&mut self, pause: Duration) {
        self.quiet_until = self.quiet_until.max(Instant::now() + pause);
    }

    /// The monitor's time is kept even past the deadline: what comes too early is lost, and with it what comes next.
    fn keep_quiet(&self) {
        thread::sleep(self.quiet_until.saturating_duration_since(Instant::now()));
    }
}

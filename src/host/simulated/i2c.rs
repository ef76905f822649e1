//! Monitors of a host in a folder: DDC/CI state machines made of files, behind the same bytes as real ones.
//!
//! `/simulated/i2c/i2c-7/` is a bus with something at its end. What may be in it:
//!
//! | file | what |
//! |---|---|
//! | `edid` | the EDID in hexadecimal digits; without it nobody answers at 0x50 |
//! | `features/0x60` | a feature's value; `features/0xf4@0x50` one that listens to another source address only |
//! | `write_only` | features that are answered without a value |
//! | `active_input` | the monitor answers only while feature 0x60 has this value |
//! | `says` | what it says of feature 0x60, whatever it shows |
//! | `bounces_to` | feature 0x60 takes this value whatever it is set to |
//! | `reads_first` | what is set is ignored unless something was asked on the same handle before |
//! | `saves` | how often settings were saved |
//! | `silent` | so many messages are not acknowledged |
//! | `nulls`, `garbles` | so many answers have no value, or a wrong checksum |
//! | `log` | gets every message, a line each |
//! | `slow` | so many milliseconds each message takes |
//! | `locked` | another program has the lock: nothing, or its number, its name and `runs`, `waits` or `hangs` |
//! | `smbus_only`, `not_permitted`, `hangs` | what is the matter with the bus |
//!
//! The lock of a bus is one on its folder.
//!
//! The buses are there while `i2c-dev` is loaded.

use std::fmt::Write;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::SimulatedFiles;
use crate::host::files::{Files, make_with_folders};
use crate::host::i2c::{BusKind, EDID_ADDRESS, HolderState, I2cBus, I2cBuses, I2cHandle, LockHolder, Pace};
use crate::host::i2c_dev::MODULE;
use crate::monitor::ddc_ci::{DDC_CI_ADDRESS, DdcRequest, feature_reply, null_reply, parse_request};
use crate::monitor::{SourceAddress, VcpFeature, VcpValue};

const BUSES: &str = "/simulated/i2c";

/// How long a bus that hangs does: longer than any test waits for it.
const HANG: Duration = Duration::from_secs(5);

/// The buses of a host in a folder.
#[derive(Debug)]
pub struct SimulatedBuses(SimulatedFiles);

struct SimulatedBus {
    files: SimulatedFiles,
    folder: PathBuf,
    /// What is read next.
    reply: Vec<u8>,
    asked: Asked,
    lock: File,
    /// The card that the bus is on, once something was said.
    talks_on: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    NotYet,
    OnThisHandle,
}

impl SimulatedBuses {
    /// The buses of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }
}

impl I2cBuses for SimulatedBuses {
    fn open(&self, bus: I2cBus) -> io::Result<Box<dyn I2cHandle>> {
        let folder = PathBuf::from(BUSES).join(bus.to_string());
        let is_there = |path: &PathBuf| self.0.locate(path).exists();
        if !is_there(&folder) || !is_there(&PathBuf::from(MODULE)) {
            return Err(Errno::ENOENT.into());
        }
        if is_there(&folder.join("not_permitted")) {
            return Err(Errno::EACCES.into());
        }
        let (files, lock) = (self.0.clone(), File::open(self.0.locate(&folder))?);
        let (reply, asked, talks_on) = (Vec::new(), Asked::NotYet, None);
        Ok(Box::new(SimulatedBus { files, folder, reply, asked, lock, talks_on }))
    }

    fn pace(&self) -> Pace {
        Pace::NONE
    }
}

impl SimulatedBus {
    fn has(&self, name: &str) -> bool {
        self.files.locate(&self.folder.join(name)).exists()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.files.text(&self.folder.join(name)).ok()
    }

    fn value(&self, name: &str) -> Option<VcpValue> {
        self.text(name)?.parse().ok()
    }

    /// Takes one from a number that is above zero.
    fn takes_one_of(&self, name: &str) -> bool {
        let number = self.files.number(&self.folder.join(name)).unwrap_or(0);
        number > 0 && self.files.set(&self.folder.join(name), &(number - 1).to_string()).is_ok()
    }

    /// The PCI function that the bus is below, or its own folder.
    fn card(&self) -> PathBuf {
        let name = self.folder.file_name().unwrap_or_default();
        let device = self.files.locate(Path::new("/sys/bus/i2c/devices")).join(name).canonicalize();
        let function = device.ok().and_then(|device| Some(device.parent()?.to_owned()));
        function.unwrap_or_else(|| self.folder.clone())
    }

    /// What every message meets first.
    fn reach(&mut self, address: u8, message: &str) -> io::Result<()> {
        if self.talks_on.is_none() {
            let card = self.card();
            self.files.faults.conversation_begins(&card);
            self.talks_on = Some(card);
        }
        if let Some(log) = self.text("log") {
            self.files.set(&self.folder.join("log"), format!("{log}\n{address:#04x} {message}").trim())?;
        }
        if self.has("hangs") {
            thread::sleep(HANG);
        }
        if let Ok(milliseconds) = self.files.number(&self.folder.join("slow")) {
            thread::sleep(Duration::from_millis(milliseconds));
        }
        let is_asleep = || {
            let active = self.value("active_input");
            active.is_some() && active != self.value("features/0x60")
        };
        if address == DDC_CI_ADDRESS && (self.takes_one_of("silent") || is_asleep()) {
            return Err(Errno::ENXIO.into());
        }
        Ok(())
    }

    /// The file of a feature, if the monitor has it and listens to this source address.
    fn feature(&self, feature: VcpFeature, source: SourceAddress) -> Option<String> {
        let name = match source {
            SourceAddress::HOST => format!("features/{feature}"),
            source => format!("features/{feature}@{source}"),
        };
        self.has(&name).then_some(name)
    }

    fn answer(&self, feature: VcpFeature, source: SourceAddress) -> Vec<u8> {
        let write_only = self.text("write_only").unwrap_or_default();
        let is_write_only = write_only.split_whitespace().any(|name| name == feature.to_string());
        if is_write_only || self.takes_one_of("nulls") {
            return null_reply();
        }
        let says = self.value("says").filter(|_| feature == VcpFeature::INPUT_SOURCE);
        let value = says.or_else(|| self.feature(feature, source).and_then(|name| self.value(&name)));
        let mut reply = feature_reply(feature, value);
        if self.takes_one_of("garbles") {
            reply[9] ^= 0x40;
        }
        reply
    }

    fn set(&self, feature: VcpFeature, value: VcpValue, source: SourceAddress) -> io::Result<()> {
        let Some(name) = self.feature(feature, source) else { return Ok(()) };
        if self.has("reads_first") && self.asked == Asked::NotYet {
            return Ok(());
        }
        let path = self.folder.join(&name);
        self.files.faults.before_write(&path)?;
        let bounced = self.value("bounces_to").filter(|_| feature == VcpFeature::INPUT_SOURCE);
        self.files.set(&path, &bounced.unwrap_or(value).to_string())
    }
}

impl Drop for SimulatedBus {
    fn drop(&mut self) {
        if let Some(card) = &self.talks_on {
            self.files.faults.conversation_ends(card);
        }
    }
}

impl I2cHandle for SimulatedBus {
    fn kind(&self) -> io::Result<BusKind> {
        Ok(if self.has("smbus_only") { BusKind::SmbusOnly } else { BusKind::I2c })
    }

    fn try_lock(&self) -> io::Result<()> {
        if self.has("locked") {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })
    }

    fn lock_holder(&self) -> Option<LockHolder> {
        let locked = self.text("locked")?;
        let mut words = locked.split_whitespace();
        let (process, program) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let state = match words.next()? {
            "hangs" => HolderState::Hangs,
            "waits" => HolderState::Waits,
            _ => HolderState::Runs,
        };
        Some(LockHolder { process, program, state })
    }

    fn write(&mut self, address: u8, bytes: &[u8]) -> io::Result<()> {
        self.reach(address, &format!("write {}", digits(bytes)))?;
        if address != DDC_CI_ADDRESS || !self.has("features") {
            return Err(Errno::ENXIO.into());
        }
        self.reply = null_reply();
        let Some((request, source)) = parse_request(bytes) else { return Ok(()) };
        match request {
            DdcRequest::Get(feature) => {
                self.asked = Asked::OnThisHandle;
                self.reply = self.answer(feature, source);
                Ok(())
            }
            DdcRequest::Set(feature, value) => self.set(feature, value, source),
            DdcRequest::SaveCurrentSettings => {
                let saves = self.files.number(&self.folder.join("saves")).unwrap_or(0) + 1;
                make_with_folders(
                    &self.files.locate(&self.folder.join("saves")),
                    format!("{saves}\n").as_bytes(),
                )
            }
        }
    }

    fn read(&mut self, address: u8, buffer: &mut [u8]) -> io::Result<()> {
        self.reach(address, "read")?;
        if address != DDC_CI_ADDRESS || !self.has("features") {
            return Err(Errno::ENXIO.into());
        }
        fill(buffer, &self.reply);
        Ok(())
    }

    fn write_read(&mut self, address: u8, bytes: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        self.reach(address, &format!("write {} and read", digits(bytes)))?;
        let edid = self.text("edid").and_then(|text| bytes_of(&text)).filter(|_| address == EDID_ADDRESS);
        fill(buffer, &edid.ok_or(Errno::ENXIO)?);
        Ok(())
    }
}

/// Where nothing more comes, the lines stay high.
fn fill(buffer: &mut [u8], bytes: &[u8]) {
    buffer.fill(0xff);
    buffer.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
}

/// Bytes as text, since a host is described in one; see [`bytes_of`].
#[must_use]
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of a text of hexadecimal digits.
#[must_use]
pub fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(|pair| if pair.len() == 2 { byte(pair) } else { None }).collect()
}

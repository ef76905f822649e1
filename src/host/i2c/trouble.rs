//! What can go wrong between here and a monitor.

use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::holder::{HolderState, LockHolder};
use crate::monitor::EdidError;
use crate::monitor::ddc_ci::ReplyError;

/// Why a monitor could not be asked or told something.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorTrouble {
    /// It is not connected, or its card has no driver that offers its bus.
    #[error("no such monitor is there")]
    Absent,
    /// It cannot be looked for.
    #[error("{0}")]
    Unfindable(String),
    /// The module `i2c-dev` is not loaded.
    #[error("the kernel module i2c-dev is not loaded")]
    NoI2cDev,
    /// The bus has no device node, or is gone.
    #[error("there is no such bus")]
    NoBus,
    /// The caller may not open the bus.
    #[error("no permission to open it")]
    NotPermitted,
    /// The bus is none a monitor can be on.
    #[error("it is an SMBus, which is left alone")]
    SmbusOnly,
    /// The kernel refuses for another reason.
    #[error("{}", io::Error::from(*.0))]
    Refused(#[serde(with = "as_number")] Errno),
    /// Another program talks on the bus, or on another of its card, and does not end in time.
    #[error("{}", locked(*.0, .1.as_ref()))]
    Locked(Taken, Option<LockHolder>),
    /// The kernel did not come back from a transfer in time; a thread is left behind.
    #[error("the bus hangs: the kernel does not come back from it")]
    Hangs,
    /// The time was over before anything could be tried.
    #[error("no time was left")]
    NoTime,
    /// Nobody acknowledges.
    #[error("the monitor does not answer ({})", io::Error::from(*.0))]
    Silent(#[serde(with = "as_number")] Errno),
    /// It answers, but not to the question, however often it is asked.
    #[error("{0}, even when asked again")]
    Garbled(ReplyError),
    /// It answers every time that it has nothing to say.
    #[error("the monitor answers, but never with a value")]
    NoValue,
    /// It says that it does not know the feature.
    #[error("the monitor does not know this feature")]
    Unsupported,
    /// It is known not to tell this feature.
    #[error("this feature can be set but not read on this monitor")]
    WriteOnly,
    /// What it says of itself is no EDID.
    #[error("its EDID cannot be used: {0}")]
    Edid(EdidError),
}

/// What another program keeps locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// The bus.
    Bus,
    /// Its graphics card: there is one conversation at a time on all of its buses.
    Card,
}

fn locked(what: Taken, holder: Option<&LockHolder>) -> String {
    let who = holder.map_or_else(|| "another program".to_owned(), ToString::to_string);
    let what = match what {
        Taken::Bus => "the bus",
        Taken::Card => "the buses of its graphics card",
    };
    let hangs = holder.filter(|holder| holder.state == HolderState::Hangs);
    let hangs = hangs.map_or("", |_| ", and hangs in the kernel");
    format!("{who} keeps {what} locked{hangs}")
}

impl MonitorTrouble {
    /// What the kernel said to a transfer.
    pub(in crate::host) fn of_transfer(error: &io::Error) -> Self {
        match errno(error) {
            // What drivers of graphics cards say where nobody acknowledges, an arbitration is lost or a clock is held.
            silent @ (Errno::ENXIO
            | Errno::EREMOTEIO
            | Errno::EIO
            | Errno::ETIMEDOUT
            | Errno::EAGAIN
            | Errno::EPROTO
            | Errno::ENODATA
            | Errno::EBUSY) => Self::Silent(silent),
            Errno::ENODEV => Self::NoBus,
            other => Self::Refused(other),
        }
    }

    /// What the kernel said to the opening of a bus.
    pub(in crate::host) fn of_open(error: &io::Error) -> Self {
        match errno(error) {
            Errno::EACCES | Errno::EPERM => Self::NotPermitted,
            Errno::ENOENT | Errno::ENXIO | Errno::ENODEV => Self::NoBus,
            other => Self::Refused(other),
        }
    }

    /// What the kernel said where there is no thread to be had.
    pub(super) fn of_shortage(error: &io::Error) -> Self {
        Self::Refused(error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw))
    }

    /// Whether the monitor is there, or may be, and does not answer, or not so that it can be understood.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        matches!(
            self,
            Self::Silent(_)
                | Self::Garbled(_)
                | Self::Hangs
                | Self::Locked(..)
                | Self::NoTime
                | Self::Refused(_)
                | Self::Edid(_)
        )
    }

    /// Whether the monitor has no such feature, or does not tell it.
    #[must_use]
    pub fn is_unreadable_feature(&self) -> bool {
        matches!(self, Self::Unsupported | Self::NoValue | Self::WriteOnly)
    }

    /// Whether a lock is held by a process that hangs.
    pub(super) fn is_by_one_that_hangs(&self) -> bool {
        matches!(self, Self::Locked(_, Some(LockHolder { state: HolderState::Hangs, .. })))
    }

    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Absent => Some("`vfio-hook monitors` shows those that are there"),
            Self::NoI2cDev => Some("load it: modprobe i2c-dev"),
            Self::NotPermitted => Some("run it as root, or join the group i2c"),
            Self::Silent(_) | Self::Garbled(_) => Some(
                "many monitors answer only on the input that is active; DDC/CI can also be turned off in the monitor's \
                 own menu",
            ),
            Self::Unsupported | Self::NoValue => Some(
                "DDC/CI can be turned off in the monitor's own menu; some monitors switch their inputs by a feature of \
                 their maker's",
            ),
            _ if *self == Self::Hangs || self.is_by_one_that_hangs() => {
                Some("the kernel log (dmesg) may say why; only a driver loaded anew or a reboot frees it")
            }
            Self::Locked(_, None) => Some("is ddcutil or another monitor control running?"),
            Self::Locked(_, Some(_)) => Some("it is free again when that program ends"),
            _ => None,
        }
    }

    /// The nearest of the standard's kinds.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Absent | Self::NoBus => Some(io::ErrorKind::NotFound),
            Self::NotPermitted => Some(io::ErrorKind::PermissionDenied),
            Self::Hangs | Self::NoTime => Some(io::ErrorKind::TimedOut),
            Self::Silent(errno) | Self::Refused(errno) => Some(io::Error::from(*errno).kind()),
            _ => None,
        }
    }
}

/// The kernel's word as the number it is.
mod as_number {
    use nix::errno::Errno;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(errno: &Errno, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(*errno as i32)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Errno, D::Error> {
        i32::deserialize(deserializer).map(Errno::from_raw)
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

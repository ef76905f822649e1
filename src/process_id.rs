//! Which process is meant, for as long as it lives.

use serde::{Deserialize, Serialize};

/// One life of a process: its number, and when it started, since numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// `starttime` of `/proc/PID/stat`, in clock ticks since boot; 0 where it could not be read: then any life of that
    /// number counts as this one.
    pub start_time: u64,
}

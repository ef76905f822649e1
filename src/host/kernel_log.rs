//! The kernel's log, from one moment on (`/dev/kmsg`, `Documentation/ABI/testing/dev-kmsg`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::{Host, HostError};
use crate::printable::printable;

const KMSG: &str = "/dev/kmsg";

/// The longest record (`PRINTK_MESSAGE_MAX` in `kernel/printk/internal.h`).
const LONGEST: usize = 8192;

/// A place in the kernel's log: the number of the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KernelLogPosition(pub u64);

/// A record of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number since boot, from 0.
    pub sequence: u64,
    /// Microseconds since boot.
    pub microseconds: u64,
    /// How urgent it is: 0 (the system is unusable) to 7 (debugging), as syslog(2) has it.
    pub priority: u8,
    /// The text, printable.
    pub text: String,
}

/// Whether what was asked for is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It is.
    Kept,
    /// The kernel has written over its first records.
    Lost,
}

/// A part of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLog {
    /// The records, the oldest first.
    pub records: Vec<LogRecord>,
    /// Whether it begins where it should.
    pub beginning: Beginning,
}

impl Host {
    /// Where the kernel's log goes on from now.
    ///
    /// # Errors
    /// There is no `/dev/kmsg`, or it may not be read.
    pub fn kernel_log_position(&self) -> Result<KernelLogPosition, HostError> {
        let log = self.kernel_log_since(KernelLogPosition(0))?;
        Ok(KernelLogPosition(log.records.last().map_or(0, |record| record.sequence + 1)))
    }

    /// What the kernel has said since then. Waits for nothing.
    ///
    /// # Errors
    /// There is no `/dev/kmsg`, or it may not be read.
    pub fn kernel_log_since(&self, position: KernelLogPosition) -> Result<KernelLog, HostError> {
        let path = Path::new(KMSG);
        if self.files.locate(path) != path {
            let text = self.text(path)?;
            return Ok(since(position, text.lines().filter_map(parse)));
        }
        let records = records_of_kernel(path).map_err(|error| HostError::read(path, error))?;
        Ok(since(position, records.into_iter()))
    }
}

fn records_of_kernel(path: &Path) -> io::Result<Vec<LogRecord>> {
    let mut kmsg: File = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let mut buffer = vec![0; LONGEST];
    let mut records = Vec::new();
    loop {
        // One record a read.
        match kmsg.read(&mut buffer) {
            Ok(0) => return Ok(records),
            Ok(length) => records.extend(parse(&String::from_utf8_lossy(&buffer[..length]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(records),
            // The next one was overwritten while we read; the read after this one goes on with the oldest.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn since(position: KernelLogPosition, records: impl Iterator<Item = LogRecord>) -> KernelLog {
    let mut next = position.0;
    let mut beginning = Beginning::Kept;
    let mut kept = Vec::new();
    for record in records.filter(|record| record.sequence >= position.0) {
        // From the very beginning on nobody expects all of it.
        if record.sequence > next && position.0 > 0 {
            beginning = Beginning::Lost;
        }
        next = record.sequence + 1;
        kept.push(record);
    }
    KernelLog { records: kept, beginning }
}

/// `6,1234,56789,-;text`, with further fields before the semicolon on some kernels, and lines about the device after
/// it.
fn parse(record: &str) -> Option<LogRecord> {
    let (prefix, text) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let syslog: u32 = fields.next()?.parse().ok()?;
    Some(LogRecord {
        sequence: fields.next()?.parse().ok()?,
        microseconds: fields.next()?.parse().ok()?,
        // The lowest three bits; the others say which program speaks.
        priority: (syslog & 7) as u8,
        text: printable(text.lines().next().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    #[test]
    fn reads_records_of_all_kernels() {
        let record = parse(
            "3,2471,88812345,-,caller=T4711;amdgpu 0000:03:00.0: probe failed\n SUBSYSTEM=pci\n DEVICE=+pci:0000:03:00.0\n",
        );
        let wanted = LogRecord {
            sequence: 2471,
            microseconds: 88_812_345,
            priority: 3,
            text: "amdgpu 0000:03:00.0: probe failed".to_owned(),
        };
        assert_eq!(record, Some(wanted));
        assert_eq!(parse("30,5,6,-;systemd[1]: x").unwrap().priority, 6);
        assert_eq!(parse("6,5,6,c;a;b \\x1b \u{1b}[2J").unwrap().text, r"a;b \x1b \u{1b}[2J");
        for text in ["", "no record", "6,5;x", "x,5,6,-;text", " SUBSYSTEM=pci"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    fn host_with(log: &str) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        lay_out(&format!("/dev/kmsg = {log}"), root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        (root, host)
    }

    #[test]
    fn goes_on_where_it_was() {
        let (root, host) = host_with(r"6,7,100,-;one\n4,8,200,-;two");
        let position = host.kernel_log_position().unwrap();
        assert_eq!(position, KernelLogPosition(9));
        let log = host.kernel_log_since(position).unwrap();
        assert_eq!(log, KernelLog { records: Vec::new(), beginning: Beginning::Kept });
        lay_out(r"/dev/kmsg = 6,7,100,-;one\n4,8,200,-;two\n3,9,300,-;three", root.path()).unwrap();
        let log = host.kernel_log_since(position).unwrap();
        assert_eq!(log.records.len(), 1);
        assert_eq!((log.records[0].text.as_str(), log.beginning), ("three", Beginning::Kept));
    }

    #[test]
    fn says_what_was_overwritten() {
        let (_root, host) = host_with(r"6,20,100,-;late");
        assert_eq!(host.kernel_log_since(KernelLogPosition(9)).unwrap().beginning, Beginning::Lost);
        assert_eq!(host.kernel_log_since(KernelLogPosition(20)).unwrap().beginning, Beginning::Kept);
        assert_eq!(host.kernel_log_since(KernelLogPosition(0)).unwrap().beginning, Beginning::Kept);
    }

    #[test]
    fn an_empty_log_and_none() {
        let (_root, host) = host_with("");
        assert_eq!(host.kernel_log_position().unwrap(), KernelLogPosition(0));
        let root = tempfile::tempdir().unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        assert!(host.kernel_log_position().unwrap_err().is_absent());
    }
}

//! Reading the kernel's log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{Host, HostError};
use crate::kernel_log::{Beginning, KernelLog, KernelLogPosition, LogRecord, parse, since};

const KMSG: &str = "/dev/kmsg";

/// The longest record (`PRINTK_MESSAGE_MAX` in `kernel/printk/internal.h`).
const LONGEST: usize = 8192;

/// The end of the kernel's log as it was once: what is said after it can be read. It costs two system calls, where a
/// position costs as many as the log has records.
pub(super) enum KernelLogEnd {
    /// `/dev/kmsg`, read to its end (`devkmsg_llseek` in the kernel's `kernel/printk/printk.c`).
    Machine(File),
    /// A file of a host in a folder.
    Simulated(KernelLogPosition),
    /// Nothing can be read of it.
    Unreadable,
}

impl Host {
    /// Where the kernel's log ends now.
    pub(super) fn kernel_log_end(&self) -> KernelLogEnd {
        let path = Path::new(KMSG);
        if self.files.locate(path) != path {
            return self.kernel_log_position().map_or(KernelLogEnd::Unreadable, KernelLogEnd::Simulated);
        }
        let end = open(path).and_then(|mut kmsg| kmsg.seek(SeekFrom::End(0)).map(|_| kmsg));
        end.map_or(KernelLogEnd::Unreadable, KernelLogEnd::Machine)
    }

    /// What the kernel has said after that; nothing where it cannot be read.
    pub(super) fn kernel_log_after(&self, end: KernelLogEnd) -> KernelLog {
        let records = match end {
            KernelLogEnd::Machine(mut kmsg) => records_from(&mut kmsg).unwrap_or_default(),
            KernelLogEnd::Simulated(position) => {
                self.kernel_log_since(position).map_or_else(|_| Vec::new(), |log| log.records)
            }
            KernelLogEnd::Unreadable => Vec::new(),
        };
        KernelLog { records, beginning: Beginning::Kept }
    }

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

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

fn records_of_kernel(path: &Path) -> io::Result<Vec<LogRecord>> {
    records_from(&mut open(path)?)
}

fn records_from(kmsg: &mut File) -> io::Result<Vec<LogRecord>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

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

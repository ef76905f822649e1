//! The kernel's log as it is read from one moment on (`/dev/kmsg`, `Documentation/ABI/testing/dev-kmsg`).

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;
use crate::printable::printable;

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
    /// All of it is there.
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

/// How the kernel begins to say that it failed in what a process had it do (`show_fault_oops` and `__die` of x86,
/// `die_kernel_fault` and `__die` of arm64, `exc_general_protection`, `report_bug`). Warnings and lockups are not among
/// them: nothing dies of those. One a line, as an array costs a relocation each.
const FAILURES: &str = "\
BUG: kernel NULL pointer dereference
BUG: unable to handle
BUG: stack guard page was hit
BUG: TASK stack guard page was hit
kernel BUG at
Oops
Unable to handle kernel
Internal error:
general protection fault
stack segment
invalid opcode
divide error";

/// The least urgent priority that speaks of trouble (`KERN_WARNING`).
const WARNING: u8 = 4;

/// What ends the words of one failure (`print_oops_end_marker` in the kernel's `kernel/panic.c`).
const END_OF_FAILURE: &str = "---[ end ";

impl KernelLog {
    /// The first line with which the kernel says that it failed in what a process had it do (an "oops"). One that names
    /// another process is about that one.
    #[must_use]
    pub fn failure_of(&self, pid: i32) -> Option<&str> {
        let mut records = self.records.iter().map(|record| record.text.as_str());
        while let Some(first) = records.by_ref().find(|text| is_failure(text)) {
            let rest = records.clone().take_while(|text| !text.starts_with(END_OF_FAILURE));
            match rest.clone().find_map(named_process) {
                Some(named) if named != pid => {
                    let length = rest.count();
                    records.by_ref().take(length).for_each(drop);
                }
                _ => return Some(first),
            }
        }
        None
    }

    /// Why the kernel does not come back from something that a process had it do to these devices: a failure of its own,
    /// or the first warning that names one of them.
    #[must_use]
    pub fn reason_to_hang(&self, pid: i32, devices: &[PciAddress]) -> Option<&str> {
        let names: Vec<String> = devices.iter().map(PciAddress::to_string).collect();
        let is_about = |record: &&LogRecord| {
            record.priority <= WARNING && names.iter().any(|name| record.text.contains(name))
        };
        let warning = || self.records.iter().find(is_about).map(|record| record.text.as_str());
        self.failure_of(pid).or_else(warning)
    }
}

fn is_failure(text: &str) -> bool {
    FAILURES.lines().any(|failure| text.starts_with(failure))
}

/// `CPU: 3 UID: 0 PID: 4711 Comm: vfio-hook Not tainted ...` (`dump_stack_print_info` in the kernel's
/// `lib/dump_stack.c`).
fn named_process(text: &str) -> Option<i32> {
    let (_, rest) = text.strip_prefix("CPU: ")?.split_once("PID: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The records from a place on.
pub(crate) fn since(position: KernelLogPosition, records: impl Iterator<Item = LogRecord>) -> KernelLog {
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
pub(crate) fn parse(record: &str) -> Option<LogRecord> {
    let (prefix, text) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let syslog: u32 = fields.next()?.parse().ok()?;
    Some(LogRecord {
        sequence: fields.next()?.parse().ok()?,
        microseconds: fields.next()?.parse().ok()?,
        // The lowest three bits; the others say which program speaks.
        priority: (syslog & 7) as u8,
        text: printable(text.lines().next().unwrap_or_default()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> KernelLog {
        let record =
            |text: &&str| LogRecord { sequence: 0, microseconds: 0, priority: 1, text: (*text).to_owned() };
        KernelLog { records: lines.iter().map(record).collect(), beginning: Beginning::Kept }
    }

    /// As kernels 6.1 to 7.0 print them.
    #[test]
    fn a_failure_of_the_kernel_is_told_by_its_first_line() {
        for lines in [
            &[
                "amdgpu 0000:03:00.0: amdgpu: finishing device.",
                "BUG: kernel NULL pointer dereference, address: 8",
                "#PF: supervisor read access in kernel mode",
                "Oops: Oops: 0000 [#1] SMP NOPTI",
                "CPU: 3 UID: 0 PID: 4711 Comm: vfio-hook Not tainted 7.0.11 #1",
            ][..],
            &[
                "BUG: unable to handle page fault for address: ffffb2d8c0a1f000",
                "CPU: 3 PID: 4711 Comm: vfio-hook Tainted: G        W",
            ],
            &[
                "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008",
                "Internal error: Oops: 0000000096000004 [#1] SMP",
            ],
            &[
                "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] PREEMPT SMP",
            ],
            &[
                "Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP",
            ],
            &["kernel BUG at drivers/gpu/drm/drm_mm.c:152!", "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"],
        ] {
            let first = lines.iter().find(|line| is_failure(line)).unwrap();
            assert_eq!(log(lines).failure_of(4711), Some(*first));
        }
    }

    #[test]
    fn what_is_said_of_another_process_or_kills_none_is_no_failure_of_this_one() {
        let other = [
            "BUG: kernel NULL pointer dereference, address: 8",
            "CPU: 3 UID: 0 PID: 99 Comm: kworker/3:1 Not tainted",
            "Oops: not the first line of it",
            "---[ end trace 0000000000000000 ]---",
        ];
        assert_eq!(log(&other).failure_of(4711), None);
        let both =
            [other.as_slice(), &["Unable to handle kernel paging request at virtual address 10"]].concat();
        assert_eq!(log(&both).failure_of(4711), Some(both[4]));
        for line in [
            "Out of memory: Killed process 4711 (vfio-hook) total-vm:4000kB, anon-rss:0kB",
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=vfio-hook,pid=4711,uid=0",
            "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [vfio-hook:4711]",
            "BUG: workqueue lockup - pool cpus=3 node=0 flags=0x0 nice=0 stuck for 33s!",
            "WARNING: CPU: 3 PID: 4711 at drivers/gpu/drm/amd/amdgpu/amdgpu_object.c:1300",
            "usb 1-1: Oops, no such endpoint",
        ] {
            assert_eq!(log(&[line]).failure_of(4711), None, "{line}");
        }
    }

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
}

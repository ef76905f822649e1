//! A desktop in a folder, and what its ledger holds.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::{FILE, Lease, LeaseState, Ledger, Record, SECOND, StuckKind, StuckOperation};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::manifest::lay_out;
use crate::host::simulated::Faults;
use crate::host::{Host, ProcessId, STATE_DIR};

/// A desktop with a Radeon RX 6800 behind a switch of its own, and graphics in the processor.
const DESKTOP: &str = include_str!("../commands/demo/ryzen-7950x.host");

/// The guest.
pub(crate) const GUEST: GuestUuid =
    GuestUuid::from_bytes(0x7950_f00d_0011_4a5e_8b3c_5f0e_1d2c_3b4a_u128.to_be_bytes());

/// A desktop in a folder.
pub(crate) struct Machine(pub(crate) TempDir);

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The desktop, and what else there is.
    pub(crate) fn with(lines: &str) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let machine = Self(tempfile::tempdir_in(parent).unwrap());
        machine.add(DESKTOP);
        machine.add(lines);
        machine
    }

    pub(crate) fn add(&self, manifest: &str) {
        lay_out(manifest, self.0.path()).unwrap();
    }

    pub(crate) fn fault(&self, function: &str, fault: &str) {
        self.add(&format!("/simulated/pci/{function}/fault = {fault}"));
    }

    pub(crate) fn host(&self) -> Host {
        Host::simulated(self.0.path(), &Faults::default())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// A guest has a lease, and nothing else.
    pub(crate) fn lease_nothing(&self) {
        let mut host = self.host();
        let mut ledger = Ledger::open(&mut host, soon()).unwrap();
        let by = ledger.host.this_process();
        let lease = Lease { phase: LeaseState::Prepared, ..Lease::preparing("win11", by) };
        ledger.record.leases.insert(GUEST, lease);
        ledger.store().unwrap();
    }

    pub(crate) fn record(&self) -> Record {
        Ledger::peek(&self.host()).unwrap().unwrap()
    }

    /// Writes the ledger, as if all in it had begun two hours ago.
    pub(crate) fn write(&self, mut record: Record) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let since = now - 2 * 3600 - 60;
        record.leases.values_mut().for_each(|lease| lease.since = since);
        record.quarantines.iter_mut().for_each(|quarantine| quarantine.since = since);
        let quarantined = record.quarantines.iter_mut().map(|quarantine| &mut quarantine.terms);
        let handed_over = record.leases.values_mut().flat_map(|lease| &mut lease.cards);
        for stuck in quarantined.chain(handed_over).filter_map(|terms| terms.stuck.as_mut()) {
            stuck.since = since;
        }
        let _ = fs::remove_file(self.path(STATE_DIR).join(SECOND));
        fs::write(self.path(STATE_DIR).join(FILE), record.to_bytes()).unwrap();
    }
}

/// Longer than anything here takes.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// The first process never ends: it stands for one that hangs.
pub(crate) fn stuck() -> StuckOperation {
    let what = "failed to write `0000:03:00.0` to /sys/bus/pci/drivers/vfio-pci/unbind: the kernel has not come back \
                within 30 s (process 1)";
    StuckOperation {
        process: ProcessId::of(1).unwrap(),
        kind: StuckKind::InKernel,
        what: what.to_owned(),
        since: 0,
    }
}

//! A desktop in a folder, and a guest that gets its graphics card.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::{LifecycleError, LoadedConfig, prepare};
use crate::config::ConfigSource;
use crate::deadline::Deadline;
use crate::guest::{Guest, GuestUuid};
use crate::host::manifest::lay_out;
use crate::host::simulated::Faults;
use crate::host::{Host, ProcessId, STATE_DIR};
use crate::ledger::{FILE, Knob, Ledger, Quarantine, Record, StuckKind, StuckOperation};

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

    /// Hands the RX 6800 over to a guest.
    pub(crate) fn prepare(&self) -> Result<(), LifecycleError> {
        let hostdev = |function: u8| {
            format!(
                "<hostdev mode='subsystem' type='pci' managed='yes'><source>\
                 <address domain='0x0000' bus='0x03' slot='0x00' function='0x{function}'/></source></hostdev>"
            )
        };
        let xml = format!(
            "<domain type='kvm'><name>win11</name><uuid>{GUEST}</uuid><memory unit='GiB'>1</memory>\
             <vcpu>1</vcpu><on_reboot>destroy</on_reboot><devices>{}</devices></domain>",
            (0..4).map(hostdev).collect::<String>()
        );
        let source = ConfigSource::new(Path::new("win11.yaml"), "gpu: { return_to: host-if-clean }\n");
        let config = source.parse().unwrap();
        let loaded = LoadedConfig { source, config };
        let guest = Guest::parse(xml.as_bytes()).unwrap();
        prepare(&mut self.host(), Some(&loaded), &guest, b"", soon()).map(drop)
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
        fs::write(self.path(STATE_DIR).join(FILE), record.to_bytes()).unwrap();
    }

    /// The guest is gone, and the RX 6800 did not answer then: it stayed with VFIO.
    pub(crate) fn quarantine(&self, stuck: Option<StuckOperation>) {
        self.prepare().unwrap();
        let mut record = self.record();
        let mut lease = record.leases.remove(&GUEST).unwrap();
        record.entries.retain(|entry| matches!(entry.knob, Knob::PciBindings(_) | Knob::PciAttribute { .. }));
        record.entries.iter_mut().for_each(|entry| entry.claims.clear());
        let mut terms = lease.cards.remove(0);
        terms.stuck = stuck;
        let evidence = vec!["0000:03:00.0: config space reads ff".to_owned()];
        record.quarantines.push(Quarantine { terms, guest: "win11".to_owned(), since: 0, evidence });
        self.write(record);
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

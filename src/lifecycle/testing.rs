//! A guest that gets the graphics card of a desktop in a folder.

use std::path::Path;

use super::{LifecycleError, LoadedConfig, prepare};
use crate::actions::GuestConfig;
use crate::config::ConfigSource;
use crate::guest::Guest;
use crate::ledger::{Quarantine, SettingKey, StuckOperation};

pub(crate) use crate::ledger::testing::{GUEST, Machine, soon, stuck};

impl Machine {
    /// Hands the RX 6800 over to a guest.
    pub(crate) fn prepare(&self) -> Result<(), LifecycleError> {
        self.prepare_as("gpu: { return_to: host-if-clean }\n")
    }

    /// What a guest's file says.
    pub(crate) fn prepare_as(&self, yaml: &str) -> Result<(), LifecycleError> {
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
        let source = ConfigSource::new(Path::new("win11.yaml"), yaml);
        let config = GuestConfig::read(&source).unwrap();
        let loaded = LoadedConfig::of_file(source, config);
        let guest = Guest::parse(xml.as_bytes()).unwrap();
        prepare(&mut self.host(), Some(&loaded), &guest, b"", soon()).map(drop)
    }

    /// The guest is gone, and the RX 6800 did not answer then: it stayed with VFIO.
    pub(crate) fn quarantine(&self, stuck: Option<StuckOperation>) {
        self.prepare().unwrap();
        let mut record = self.record();
        let mut lease = record.leases.remove(&GUEST).unwrap();
        record.retain(|entry| matches!(entry.key(), SettingKey::PciBindings(_) | SettingKey::Attribute(_)));
        for entry in record.entries_mut() {
            entry.drop_claim(GUEST);
        }
        let mut terms = lease.cards.remove(0);
        terms.stuck = stuck;
        let evidence = vec!["0000:03:00.0: config space reads ff".to_owned()];
        record.quarantines.push(Quarantine { terms, guest: "win11".to_owned(), since: 0, evidence });
        self.write(record);
    }
}

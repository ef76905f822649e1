//! libvirt's part of a host in a folder: what a guest's QEMU says.

use std::fs;

use super::SimulatedFiles;
use crate::guest::GuestUuid;
use crate::host::error::HostError;
use crate::host::files::Files;
use crate::host::libvirt::Libvirt;
use crate::host::qemu_events::{EndSink, GuestEnd, GuestEndWatch};

/// What `virsh qemu-monitor-event` prints of a guest, a line an event: the file is named after its UUID. It is read
/// when the guest is watched, and no more after that.
const EVENTS: &str = "/simulated/qemu_events";

/// The libvirt of a host in a folder.
#[derive(Debug)]
pub struct SimulatedLibvirt(SimulatedFiles);

impl SimulatedLibvirt {
    /// The libvirt of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }
}

impl Libvirt for SimulatedLibvirt {
    fn watch_end(&self, guest: GuestUuid, mut on_end: EndSink) -> Result<GuestEndWatch, HostError> {
        let events = fs::read_to_string(self.0.locate(format!("{EVENTS}/{guest}").as_ref()));
        events.unwrap_or_default().lines().filter_map(GuestEnd::from_line).for_each(&mut on_end);
        Ok(GuestEndWatch::over())
    }

    fn can_be_asked(&self) -> Result<(), HostError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::host::Host;
    use crate::host::simulated::Faults;

    const GUEST: &str = "c0ffee00-1111-4222-8333-44445555666f";

    #[test]
    fn a_file_tells_what_qemu_says() {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("simulated/qemu_events");
        fs::create_dir_all(&events).unwrap();
        let said = "event SHUTDOWN for domain 'a': {\"guest\":true,\"reason\":\"guest-reset\"}\n\
                    event SHUTDOWN for domain 'a': {\"guest\":false,\"reason\":\"host-signal\"}\n";
        fs::write(events.join(GUEST), said).unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let told = |guest: &str| {
            let (sender, ends) = channel();
            let watch = host.watch_guest_end(guest.parse().unwrap(), move |end| sender.send(end).unwrap());
            drop(watch.unwrap());
            ends.iter().collect::<Vec<_>>()
        };
        assert_eq!(told(GUEST), [GuestEnd::Reset, GuestEnd::Reset]);
        assert_eq!(told("c0ffee00-1111-4222-8333-444455556670"), []);
    }
}

//! What a person sets by hand. No guest claims it, so nothing is written down and nothing will be given back; a guest
//! that has it is named.

use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::ledger::open::Ledger;
use crate::ledger::plan::Note;
use crate::ledger::record::{Lease, Record};
use crate::ledger::setting::Setting;
use crate::ledger::settings::{MonitorSetting, MonitorTurn};
use crate::monitor::{MonitorFeature, VcpValue};

impl Ledger<'_> {
    /// Sets a feature of a monitor for a person, and says which guests have it too. It is set all the same: the person
    /// may sit before a black screen, and a value that is set by hand is an external change, which the ledger leaves
    /// alone. Takes no lock and makes no file, so that a user who may talk to monitors needs no more than that.
    ///
    /// # Errors
    /// The monitor does not take it.
    pub fn set_monitor_by_hand(
        host: &mut Host,
        feature: &MonitorFeature,
        value: VcpValue,
        deadline: Deadline,
    ) -> Result<Vec<Note>, HostError> {
        let notes = match Self::peek(host) {
            Ok(Some(record)) => users_of(&record, feature, value),
            Ok(None) => Vec::new(),
            Err(error) => vec![Note::warning(format!("it is not known whether a guest has it: {error}"))],
        };
        let setting = MonitorSetting(feature.clone());
        setting.write(host, &setting.shown(value), deadline)?;
        Ok(notes)
    }
}

/// The guests that have a feature at another value than this, or are about to; however they reach it.
fn users_of(record: &Record, feature: &MonitorFeature, value: VcpValue) -> Vec<Note> {
    let is_it = |other: &MonitorFeature| {
        other.monitor == feature.monitor && other.control.feature == feature.control.feature
    };
    let mut notes = Vec::new();
    for entry in record.each::<MonitorSetting>().filter(|entry| is_it(&entry.setting.0)) {
        for (uuid, claim) in &entry.claims {
            let name = record.leases.get(uuid).map_or_else(|| uuid.to_string(), |lease| lease.name.clone());
            let shown = entry.setting.shown(claim.value);
            let note = match claim.turn {
                MonitorTurn::Over => {
                    let baseline = entry.baseline;
                    format!(
                        "it is on its way back to {baseline} after guest {name}, and may be switched again"
                    )
                }
                MonitorTurn::Number(_) if claim.value == value => continue,
                MonitorTurn::Number(_) => format!(
                    "guest {name} has it at {shown}: what is set by hand now stays when the guest ends"
                ),
            };
            notes.push(Note::warning(note));
        }
    }
    for Lease { name, monitors, .. } in record.leases.values() {
        for wish in monitors.iter().filter(|wish| is_it(&wish.feature)) {
            let shown = wish.setting().shown(wish.value);
            notes.push(Note::warning(format!("guest {name} is about to switch it to {shown}")));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::simulated::SimulatedMonitor;
    use crate::ledger::testing::{GUEST, Machine, soon};
    use crate::ledger::{Entry, Evidence, LEDGER_PATH, MonitorClaim, MonitorWish, Shown};
    use crate::monitor::FeatureControl;

    const HOST: VcpValue = VcpValue(0x0f);
    const GUEST_INPUT: VcpValue = VcpValue(0x11);

    /// A desktop with a monitor, a guest with a lease, and the monitor's input.
    fn machine() -> (Machine, MonitorFeature) {
        let machine = Machine::with("/sys/module/i2c_dev/initstate = live\n");
        machine.add(&SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7).manifest());
        machine.lease_nothing();
        let monitor = machine.host().monitors(soon()).unwrap().monitors[0].key.clone();
        (machine, MonitorFeature { monitor, control: FeatureControl::default() })
    }

    /// What is said when the monitor is set by hand, and what it shows then.
    fn set(machine: &Machine, feature: &MonitorFeature, value: VcpValue) -> (Vec<String>, VcpValue) {
        let mut host = machine.host();
        let notes = Ledger::set_monitor_by_hand(&mut host, feature, value, soon()).unwrap();
        let shown = host.vcp_features(std::slice::from_ref(feature), soon()).remove(0).unwrap();
        (notes.into_iter().map(|note| note.text).collect(), shown)
    }

    fn claim(machine: &Machine, feature: &MonitorFeature, turn: MonitorTurn) {
        let mut record = machine.record();
        let mut entry = Entry::new(MonitorSetting(feature.clone()), Shown::Input(HOST));
        entry.claims.insert(GUEST, MonitorClaim { value: GUEST_INPUT, turn, evidence: Evidence::Seen });
        record.put(entry);
        machine.write(record);
    }

    #[test]
    fn what_no_guest_has_is_set_in_silence() {
        let (machine, feature) = machine();
        let before = machine.record();
        assert_eq!(set(&machine, &feature, VcpValue(0x12)), (Vec::new(), VcpValue(0x12)));
        assert_eq!(machine.record(), before);
    }

    #[test]
    fn a_guest_that_has_it_is_named() {
        let (machine, feature) = machine();
        claim(&machine, &feature, MonitorTurn::FIRST);
        let said = "guest win11 has it at hdmi-1: what is set by hand now stays when the guest ends";
        assert_eq!(set(&machine, &feature, HOST), (vec![said.to_owned()], HOST));
        assert_eq!(
            set(&machine, &feature, GUEST_INPUT),
            (Vec::new(), GUEST_INPUT),
            "it is as the guest has it"
        );
        claim(&machine, &feature, MonitorTurn::Over);
        let said = "it is on its way back to dp-1 after guest win11, and may be switched again";
        assert_eq!(set(&machine, &feature, VcpValue(0x12)), (vec![said.to_owned()], VcpValue(0x12)));
    }

    #[test]
    fn a_guest_that_is_about_to_switch_it_is_named() {
        let (machine, feature) = machine();
        let mut record = machine.record();
        let wish = MonitorWish {
            feature: feature.clone(),
            value: GUEST_INPUT,
            afterwards: None,
            before: None,
            delay: Duration::from_secs(5),
        };
        record.leases.get_mut(&GUEST).unwrap().monitors.push(wish);
        machine.write(record);
        let said = "guest win11 is about to switch it to hdmi-1";
        assert_eq!(set(&machine, &feature, HOST), (vec![said.to_owned()], HOST));
    }

    #[test]
    fn a_ledger_that_cannot_be_read_keeps_nobody_from_it() {
        let (machine, feature) = machine();
        // Into one slot of the two.
        machine.write(machine.record());
        std::fs::write(machine.path(LEDGER_PATH), "{").unwrap();
        let (notes, shown) = set(&machine, &feature, GUEST_INPUT);
        assert!(notes[0].starts_with("it is not known whether a guest has it: "), "{notes:?}");
        assert_eq!(shown, GUEST_INPUT);
    }
}

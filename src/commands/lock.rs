//! Who holds the ledger's lock, as commands show it.

use serde::Serialize;

use crate::host::{LockHolder, LockState};

/// A lock that is held.
#[derive(Debug, Serialize)]
pub(super) struct LockView {
    /// The number of the process that holds it; none where that is not known.
    process: Option<i32>,
    /// What it was started as.
    command: Option<String>,
    /// Seconds since 1970.
    since: Option<u64>,
    #[serde(skip)]
    line: String,
}

impl LockView {
    /// None where nobody holds it.
    pub(super) fn of(state: LockState) -> Option<Self> {
        match state {
            LockState::Free => None,
            LockState::HeldByUnknown => Some(Self {
                process: None,
                command: None,
                since: None,
                line: "at work on the ledger: a process that is not known".to_owned(),
            }),
            LockState::HeldBy(holder) => {
                let line = format!("at work on the ledger: {holder}");
                let LockHolder { process, command, since } = holder;
                Some(Self { process: Some(process.pid), command: Some(command), since: Some(since), line })
            }
        }
    }

    /// ``at work on the ledger: `qemu win11 prepare begin -` (process 4711) since 12 s``.
    pub(super) fn line(&self) -> String {
        self.line.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::deadline::Deadline;
    use crate::ledger::Ledger;
    use crate::lifecycle::testing::Machine;

    #[test]
    fn who_is_at_work_is_shown_to_people_and_programs() {
        let machine = Machine::new();
        let host = machine.host();
        let shown = || LockView::of(Ledger::locked_by(&host).unwrap());
        assert!(shown().is_none());
        let mut other = machine.host();
        let ledger = Ledger::open(&mut other, Deadline::after(Duration::from_secs(20))).unwrap();
        let view = shown().unwrap();
        let this = std::process::id();
        assert!(view.line().starts_with("at work on the ledger: `vfio_hook-"), "{}", view.line());
        assert!(view.line().contains(&format!("` (process {this}) since ")), "{}", view.line());
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["process"], this);
        assert!(json["command"].is_string() && json["since"].is_u64(), "{json}");
        drop(ledger);
        assert!(shown().is_none());

        let file = File::create(machine.path("/run/vfio-hook/lock")).unwrap();
        file.lock().unwrap();
        let view = shown().unwrap();
        assert_eq!(view.line(), "at work on the ledger: a process that is not known");
        assert_eq!(
            serde_json::to_value(&view).unwrap(),
            json!({ "process": null, "command": null, "since": null })
        );
    }
}

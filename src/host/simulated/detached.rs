//! Processes that outlive others, on a host in a folder: what they were to do is written down.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::SimulatedFiles;
use crate::deadline::Deadline;
use crate::host::detached::{DetachedProcess, DetachedProcesses};
use crate::host::error::HostError;
use crate::host::files::Files;
use crate::printable::printable;

/// The processes that were started, a line each.
const STARTED: &str = "/simulated_detached_processes";

/// Such processes of a host in a folder.
#[derive(Debug)]
pub struct SimulatedDetachedProcesses(SimulatedFiles);

impl SimulatedDetachedProcesses {
    /// Those of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }
}

impl DetachedProcesses for SimulatedDetachedProcesses {
    fn start(&self, process: &DetachedProcess<'_>, _: Deadline) -> Result<(), HostError> {
        let failed = |error: io::Error| HostError::call("StartTransientUnit", process.unit, error);
        self.0.faults.before_write(STARTED.as_ref()).map_err(failed)?;
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.locate(STARTED.as_ref()))
            .map_err(failed)?;
        let words: Vec<String> = process
            .arguments
            .iter()
            .map(|argument| printable(&argument.to_string_lossy()).into_owned())
            .collect();
        writeln!(log, "{} {}", process.command, words.join(" ")).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::time::Duration;

    use nix::errno::Errno;

    use super::*;
    use crate::host::Host;
    use crate::host::simulated::Faults;

    #[test]
    fn starts_are_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let mut host = Host::simulated(folder.path(), &faults);
        let mut start = |name: &str| {
            let arguments: [&OsStr; 2] = ["--".as_ref(), name.as_ref()];
            let process =
                DetachedProcess { unit: "x.service", description: "", command: "do", arguments: &arguments };
            host.start_detached(&process, Deadline::after(Duration::from_secs(1)))
        };
        start("win11").unwrap();
        start("a\nb").unwrap();
        faults.refuse(STARTED, Errno::EIO);
        assert!(start("no").is_err());
        let started = fs::read_to_string(folder.path().join("simulated_detached_processes")).unwrap();
        assert_eq!(started, "do -- win11\ndo -- a\\nb\n");
    }
}

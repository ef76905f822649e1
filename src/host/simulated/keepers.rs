//! The keepers of a host in a folder: a file each that says what it holds.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use super::SimulatedFiles;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::error::HostError;
use crate::host::files::Files;
use crate::host::keepers::{Answer, CommandFailure, Errand, KeeperState, Keepers, Request, no_answer};
use crate::host::process::ProcessId;

const FOLDER: &str = "/simulated/keepers";

/// What the keepers were asked to run.
const COMMANDS: &str = "/simulated_commands";

/// A part of a command that fails; absent where none does.
const FAILING: &str = "/simulated_failing_command";

/// The keepers of a host in a folder.
#[derive(Debug)]
pub struct SimulatedKeepers(SimulatedFiles);

impl SimulatedKeepers {
    /// The keepers of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }

    fn path(&self, guest: GuestUuid) -> PathBuf {
        self.0.locate(format!("{FOLDER}/{guest}").as_ref())
    }

    fn state(&self, guest: GuestUuid) -> Result<Option<KeeperState>, HostError> {
        match fs::read(self.path(guest)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| no_answer(guest, error)),
            Err(_) => Ok(None),
        }
    }

    /// Notes what would be run, a line a command. It fails where the host has a file that says so.
    fn run(&self, guest: GuestUuid, errand: &Errand) -> Result<Answer, HostError> {
        let path = self.0.locate(COMMANDS.as_ref());
        let mut failures = Vec::new();
        for command in &errand.commands {
            self.0.faults.before_write(COMMANDS.as_ref()).map_err(|error| no_answer(guest, error))?;
            let line = format!("{guest} {}: {command}\n", errand.event.as_str());
            let mut log = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(|error| no_answer(guest, error))?;
            log.write_all(line.as_bytes()).map_err(|error| no_answer(guest, error))?;
            if self.0.text(FAILING.as_ref()).is_ok_and(|failing| line.contains(&failing)) {
                let words = format!("{command} ({}) ended with exit status 1", errand.event.as_str());
                failures.push(CommandFailure { words, meaning: command.on_failure });
            }
        }
        Ok(Answer::Ran(failures))
    }

    fn store(&self, guest: GuestUuid, state: &KeeperState) -> Result<(), HostError> {
        self.0.faults.before_write(&self.path(guest)).map_err(|error| no_answer(guest, error))?;
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(self.0.locate(FOLDER.as_ref()))?;
            fs::write(self.path(guest), serde_json::to_vec(state)?)
        };
        crate::failpoint::reached("knob");
        write().map_err(|error| no_answer(guest, error))?;
        crate::failpoint::reached("knob");
        Ok(())
    }
}

impl Keepers for SimulatedKeepers {
    fn start(&self, guest: GuestUuid, _: Deadline) -> Result<(), HostError> {
        let state = KeeperState {
            process: ProcessId { pid: i32::MAX, start_time: 0 },
            sleep_lock: None,
            cpu_dma_latency: None,
            errands: 0,
            daemon: None,
            qemu: None,
        };
        self.store(guest, &state)
    }

    fn ask(&self, guest: GuestUuid, request: &Request, _: Deadline) -> Result<Option<Answer>, HostError> {
        let Some(mut state) = self.state(guest)? else { return Ok(None) };
        match request {
            Request::SleepLock(what) => state.sleep_lock.clone_from(what),
            Request::CpuDmaLatency(micros) => state.cpu_dma_latency = *micros,
            Request::Run(errand) => return self.run(guest, errand).map(Some),
            Request::State | Request::Look => return Ok(Some(Answer::Done(state))),
            Request::GiveBack { .. } | Request::Leave => {
                return Ok(Some(Answer::Failed("only a real keeper does that".to_owned())));
            }
        }
        self.store(guest, &state)?;
        Ok(Some(Answer::Done(state)))
    }

    fn stop(&self, guest: GuestUuid, _: Deadline) -> Result<(), HostError> {
        let path = self.path(guest);
        self.0.faults.before_write(&path).map_err(|error| no_answer(guest, error))?;
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir(self.0.locate(FOLDER.as_ref()));
        let _ = fs::remove_dir(self.0.locate("/simulated".as_ref()));
        Ok(())
    }
}

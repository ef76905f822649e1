//! The keepers of a host in a folder: a file each that says what it holds.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use super::SimulatedFiles;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::error::HostError;
use crate::host::files::Files;
use crate::host::keepers::{Keepers, no_answer};
use crate::keeper_protocol::{
    Answer, Beginning, CommandBatch, CommandFailure, GENERATION, Generation, KeeperState, Request,
};
use crate::process_id::ProcessId;

const FOLDER: &str = "/simulated/keepers";

/// Those of earlier versions.
const EARLIER: &str = "/simulated/earlier-keepers";

/// What the keepers were asked to run, a line each: the guest's UUID, the event, and the command.
pub const COMMANDS: &str = "/simulated_commands";

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
        self.path_of(guest, GENERATION)
    }

    /// One that an earlier version started has its file in a folder beside that of the others.
    fn path_of(&self, guest: GuestUuid, generation: Generation) -> PathBuf {
        let folder = if generation == GENERATION { FOLDER } else { EARLIER };
        self.0.locate(format!("{folder}/{guest}").as_ref())
    }

    fn state(&self, guest: GuestUuid) -> Result<Option<KeeperState>, HostError> {
        match fs::read(self.path(guest)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| no_answer(guest, error)),
            Err(_) => Ok(None),
        }
    }

    /// Notes what would be run, a line a command. It fails where the host has a file that says so.
    fn run(&self, guest: GuestUuid, batch: &CommandBatch) -> Result<Answer, HostError> {
        let path = self.0.locate(COMMANDS.as_ref());
        let mut failures = Vec::new();
        for command in &batch.commands {
            self.0.faults.before_write(COMMANDS.as_ref()).map_err(|error| no_answer(guest, error))?;
            let line = format!("{guest} {}: {command}\n", batch.event.as_str());
            let mut log = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(|error| no_answer(guest, error))?;
            log.write_all(line.as_bytes()).map_err(|error| no_answer(guest, error))?;
            if self.0.text(FAILING.as_ref()).is_ok_and(|failing| line.contains(&failing)) {
                let words = format!("{command} ({}) ended with exit status 1", batch.event.as_str());
                failures.push(CommandFailure {
                    words: command.say(words),
                    meaning: command.on_failure,
                    beginning: Beginning::Perhaps,
                });
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
        crate::failpoint::reached("setting");
        write().map_err(|error| no_answer(guest, error))?;
        crate::failpoint::reached("setting");
        Ok(())
    }
}

impl Keepers for SimulatedKeepers {
    fn start(&self, guest: GuestUuid, _: Deadline) -> Result<(), HostError> {
        let state = KeeperState {
            process: ProcessId { pid: i32::MAX, start_time: 0 },
            sleep_lock: None,
            cpu_dma_latency: None,
            power_profile: None,
            unfinished: 0,
            daemon: None,
            qemu: None,
        };
        self.store(guest, &state)
    }

    fn is_there(&self, guest: GuestUuid, generation: Generation) -> bool {
        self.path_of(guest, generation).exists()
    }

    fn ask(&self, guest: GuestUuid, request: &Request, _: Deadline) -> Result<Option<Answer>, HostError> {
        let Some(mut state) = self.state(guest)? else { return Ok(None) };
        match request {
            Request::SleepLock(what) => state.sleep_lock.clone_from(what),
            Request::CpuDmaLatency(micros) => state.cpu_dma_latency = *micros,
            Request::PowerProfile(profile) => state.power_profile.clone_from(profile),
            Request::Run(batch) => return self.run(guest, batch).map(Some),
            Request::State | Request::Look => return Ok(Some(Answer::Done(state))),
            Request::GiveBack { .. } | Request::Leave => {
                return Ok(Some(Answer::Failed("only a real keeper does that".to_owned())));
            }
        }
        self.store(guest, &state)?;
        Ok(Some(Answer::Done(state)))
    }

    fn stop(&self, guest: GuestUuid, generation: Generation, _: Deadline) -> Result<(), HostError> {
        let path = self.path_of(guest, generation);
        self.0.faults.before_write(&path).map_err(|error| no_answer(guest, error))?;
        let _ = fs::remove_file(path);
        for folder in [FOLDER, EARLIER] {
            let _ = fs::remove_dir(self.0.locate(folder.as_ref()));
        }
        let _ = fs::remove_dir(self.0.locate("/simulated".as_ref()));
        Ok(())
    }
}

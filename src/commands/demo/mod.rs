//! `vfio-hook demo`: the whole life of a guest on a simulated host, through the same code as the hook's.

mod compare;
mod folder;
mod own_files;
mod own_guest;
mod qemu;

use std::fs;
use std::path::Path;
use std::time::Duration;

use compare::{Staying, compare, read_files};
use folder::HostFolder;

use super::given_guest::{DefinedGuests, GivenGuest, given_guest};
use super::output;
use crate::actions::GuestConfig;
use crate::commands::user_error::{Trying, UserResult};
use crate::config::{ConfigSource, MAX_FILE_BYTES};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::exit::Exit;
use crate::guest::Guest;
use crate::host::simulated::{COMMANDS as SIMULATED_COMMANDS, Faults};
use crate::host::{Host, manifest, read_given_file};
use crate::ledger::{Ledger, Note, Occasion, Outcome, Try};
use crate::lifecycle::{self, CONFIG_DIR, LifecycleError, LoadedConfig};

const HOST: &str = include_str!("ryzen-7950x.host");
const HOST_IN_WORDS: &str = "AMD Ryzen 9 7950X, 16 cores, 32 threads, 64 GiB";
const CONFIG: &str = include_str!("win11.yaml");

pub(super) fn run(config: Option<&Path>, xml: Option<&Path>) -> UserResult<Exit> {
    let (mut guest, mut notes) = match xml {
        Some(path) => {
            let GivenGuest { guest, notes, .. } = given_guest(path, DefinedGuests::LeftAlone)?;
            (guest, notes)
        }
        None => (own_guest::read()?, Vec::new()),
    };
    let loaded = read_config(config, &guest)?;
    if xml.is_none() {
        notes.extend(own_guest::fit(&mut guest, &loaded.config));
    }
    let folder = HostFolder::make().trying(|| "failed to make a folder for the simulated host".to_owned())?;
    let own = match (config, xml) {
        (None, None) => {
            lay_out(HOST, folder.path())?;
            Vec::new()
        }
        _ => own_files::make(&guest, &loaded.config, folder.path())?,
    };
    let before = read_files(folder.path())?;
    output::line(format_args!("a simulated host ({HOST_IN_WORDS}) and the guest {}", guest.name));
    output::line("no root is needed, and only a temporary folder is touched");
    output::notes(&notes);
    if !own.is_empty() {
        output::line("for these files the host also has");
        own.iter().for_each(|words| output::line(format_args!("  {words}")));
    }
    output::line("");
    output::line(loaded.source.text().trim_end());

    let mut host = Host::simulated(folder.path(), &Faults::default());
    let lived = live(&mut host, folder.path(), &loaded, &guest);
    qemu::end(folder.path(), &guest);
    let staying = Staying::of(loaded.config.gpu.as_ref(), &guest);
    let returned = compare(&before, &read_files(folder.path())?, &staying);
    lived?;
    Ok(returned)
}

/// Every event of a guest's life, in libvirt's order.
fn live(host: &mut Host, root: &Path, loaded: &LoadedConfig, guest: &Guest) -> UserResult<()> {
    let deadline = |operation: Operation| Deadline::after(operation.budget());

    heading(Operation::Prepare, "before libvirt does anything");
    let uuid = guest.uuid;
    let mut commands = CommandsRun::default();
    let prepared = lifecycle::prepare(host, Some(loaded), guest, b"", deadline(Operation::Prepare));
    commands.tell(host);
    report(&prepared?);

    heading(Operation::Start, "QEMU is about to run");
    lifecycle::start(host, uuid, deadline(Operation::Start))?;
    output::line("  what was set aside is still there");
    commands.tell(host);

    heading(Operation::Started, "QEMU runs");
    let switches = loaded.config.switch_input.is_some();
    qemu::start(root, guest).trying(|| "failed to have QEMU run on the simulated host".to_owned())?;
    if switches {
        lifecycle::note_monitors(host, uuid, deadline(Operation::Started))?;
    }
    let started = lifecycle::started(host, uuid, Operation::Started, deadline(Operation::Started))?;
    output::notes(&started.notes);
    commands.tell(host);
    if loaded.config.schedule.is_some() {
        output::line("  later, once QEMU's threads are there:");
        let noted = lifecycle::reconcile(host, uuid, Occasion::Usual, deadline(Operation::Started))?;
        tell(&noted);
    }
    if switches {
        output::line("  later, when the guest has a picture:");
        let up_for = Duration::from_secs(60);
        let tried = lifecycle::follow_monitors(host, uuid, up_for, Try::Last, deadline(Operation::Prepare))?;
        tell(&tried.outcome);
    }

    qemu::end(root, guest);
    heading(Operation::Stopped, "QEMU is gone, libvirt still has its devices");
    let stopped = lifecycle::stopped(host, uuid, "shutdown", deadline(Operation::Stopped))?;
    output::notes(&stopped.notes);
    let mut is_idle = !commands.tell(host);
    if switches {
        let tried = lifecycle::return_monitors(host, uuid, Try::Last, deadline(Operation::Prepare))?;
        tell(&tried.outcome);
        is_idle = false;
    }
    if is_idle {
        output::line("  nothing to do yet");
    }

    heading(Operation::Release, "libvirt is done");
    let mut released = lifecycle::release(host, uuid, "shutdown", deadline(Operation::Release))?;
    // What takes longer the keeper does once libvirt waits no more; a simulated one cannot.
    if Ledger::peek(host)?.is_some_and(|record| record.leases.contains_key(&uuid)) {
        released.failures.clear();
        released.absorb(lifecycle::finish(host, uuid, "shutdown", None, deadline(Operation::Prepare))?);
    }
    commands.tell(host);
    report(&released);
    output::line("");
    Ok(())
}

/// Lays out a part of the simulated host.
fn lay_out(lines: &str, root: &Path) -> UserResult<()> {
    manifest::lay_out(lines, root).trying(|| "failed to lay out the simulated host".to_owned())
}

/// The commands that were run so far: the simulated keepers run none, and note each.
#[derive(Default)]
struct CommandsRun(usize);

impl CommandsRun {
    /// Tells those that have come since the last time. Whether there were some.
    fn tell(&mut self, host: &Host) -> bool {
        let noted = fs::read_to_string(host.locate(SIMULATED_COMMANDS.as_ref())).unwrap_or_default();
        let new: Vec<&str> = noted.lines().skip(self.0).collect();
        self.0 += new.len();
        for line in &new {
            // The guest's UUID and the event stand before it.
            let command = line.split_once(": ").map_or(*line, |(_, command)| command);
            output::line(format_args!("  runs {command}"));
        }
        !new.is_empty()
    }
}

fn heading(operation: Operation, when: &str) {
    output::line("");
    output::line(format_args!("{}: {when}", operation.as_str()));
}

fn tell(outcome: &Outcome) {
    output::notes(&outcome.notes);
    output::changes(&outcome.changes);
    output::notes(&outcome.failures.iter().map(Note::warning).collect::<Vec<_>>());
}

fn report(outcome: &Outcome) {
    tell(outcome);
    output::line(format_args!("  ({})", output::count(outcome.changes.len(), "change")));
}

fn read_config(config: Option<&Path>, guest: &Guest) -> UserResult<LoadedConfig> {
    let source = match config {
        Some(path) => {
            let bytes = read_given_file(path, MAX_FILE_BYTES)
                .trying(|| format!("failed to read {}", path.display()))?;
            ConfigSource::from_bytes(path, bytes).map_err(LifecycleError::from)?
        }
        None => ConfigSource::new(Path::new(CONFIG_DIR).join(format!("{}.yaml", guest.name)), CONFIG),
    };
    let config = GuestConfig::read(&source).map_err(LifecycleError::from)?;
    Ok(LoadedConfig::of_file(source, config))
}

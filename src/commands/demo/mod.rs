//! `vfio-hook demo`: the whole life of a guest on a simulated host, through the same code as the hook's.

mod grouped;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::output;
use super::test::given_guest;
use crate::config::{ConfigSource, MAX_FILE_BYTES};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::exit::Exit;
use crate::guest::Guest;
use crate::host::simulated::Faults;
use crate::host::{Host, STATE_DIR, manifest, read_given_file};
use crate::ledger::{Note, Outcome};
use crate::lifecycle::{self, CONFIG_DIR, LifecycleError, LoadedConfig};

const HOST: &str = include_str!("ryzen-7950x.host");
const HOST_IN_WORDS: &str = "AMD Ryzen 9 7950X, 16 cores, 32 threads, 64 GiB";
const GUEST: &str = include_str!("win11.xml");
const CONFIG: &str = include_str!("win11.yaml");

/// The differences shown; one is enough to look for the fault.
const SHOWN: usize = 10;

/// What a host's files hold, by their path on it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(super) fn run(config: Option<&Path>, xml: Option<&Path>) -> anyhow::Result<Exit> {
    let guest = read_guest(xml)?;
    let loaded = read_config(config, &guest)?;
    let folder = tempfile::Builder::new()
        .prefix("vfio-hook-demo-")
        .tempdir()
        .context("failed to make a folder for the simulated host")?;
    manifest::lay_out(HOST, folder.path()).context("failed to lay out the simulated host")?;
    let before = read_files(folder.path())?;
    output::line(format_args!("a simulated host ({HOST_IN_WORDS}) and the guest {}", guest.name));
    output::line("no root is needed, and only a temporary folder is touched");
    output::line("");
    output::line(loaded.source.text().trim_end());

    let mut host = Host::simulated(folder.path(), &Faults::default());
    let lived = live(&mut host, &loaded, &guest);
    let returned = compare(&before, &read_files(folder.path())?);
    lived?;
    Ok(returned)
}

/// Every event of a guest's life, in libvirt's order.
fn live(host: &mut Host, loaded: &LoadedConfig, guest: &Guest) -> Result<(), LifecycleError> {
    let deadline = |operation: Operation| Deadline::after(operation.budget());

    heading(Operation::Prepare, "before libvirt does anything");
    report(&lifecycle::prepare(host, Some(loaded), guest, b"", deadline(Operation::Prepare))?);

    heading(Operation::Start, "QEMU is about to run");
    lifecycle::start(host, guest.uuid, deadline(Operation::Start))?;
    output::line("  what was set aside is still there");

    heading(Operation::Started, "QEMU runs");
    let started = lifecycle::started(host, guest.uuid, Operation::Started, deadline(Operation::Started))?;
    output::notes(&started.notes);

    heading(Operation::Stopped, "QEMU is gone, libvirt still has its devices");
    output::line("  nothing to do yet");

    heading(Operation::Release, "libvirt is done");
    report(&lifecycle::release(host, guest.uuid, "shutdown", deadline(Operation::Release))?);
    output::line("");
    Ok(())
}

fn heading(operation: Operation, when: &str) {
    output::line("");
    output::line(format_args!("{}: {when}", operation.as_str()));
}

fn report(outcome: &Outcome) {
    output::notes(&outcome.notes);
    for line in grouped::lines(&outcome.changes) {
        output::line(format_args!("  {line}"));
    }
    output::notes(&outcome.failures.iter().map(Note::warning).collect::<Vec<_>>());
    output::line(format_args!("  ({})", output::count(outcome.changes.len(), "change")));
}

fn read_guest(xml: Option<&Path>) -> anyhow::Result<Guest> {
    xml.map_or_else(|| Ok(Guest::parse(GUEST.as_bytes())?), given_guest)
}

fn read_config(config: Option<&Path>, guest: &Guest) -> anyhow::Result<LoadedConfig> {
    let source = match config {
        Some(path) => {
            let bytes = read_given_file(path, MAX_FILE_BYTES)
                .with_context(|| format!("failed to read {}", path.display()))?;
            ConfigSource::from_bytes(path, bytes).map_err(LifecycleError::from)?
        }
        None => ConfigSource::new(Path::new(CONFIG_DIR).join(format!("{}.yaml", guest.name)), CONFIG),
    };
    let config = source.parse().map_err(LifecycleError::from)?;
    Ok(LoadedConfig { source, config })
}

/// Says whether the host came back, and what did not.
fn compare(before: &Files, after: &Files) -> Exit {
    let paths: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let different: Vec<_> = paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).collect();
    if different.is_empty() {
        let files = output::count(before.len(), "file");
        output::line(format_args!("the host is as it was: {files} compared"));
        return Exit::Done;
    }
    let files = output::count(different.len(), "file");
    output::line(format_args!("the host is not as it was: {files} of {} differ", before.len()));
    let show = |files: &Files, path: &Path| match files.get(path) {
        Some(bytes) => format!("`{}`", String::from_utf8_lossy(bytes).trim_end()),
        None => "no file".to_owned(),
    };
    for path in different.into_iter().take(SHOWN) {
        output::line(format_args!("  {}: {} -> {}", path.display(), show(before, path), show(after, path)));
    }
    Exit::Failed
}

/// All files of the host. The program's own are none of the host's, and how its free memory lies is not kept by
/// anybody.
fn read_files(root: &Path) -> anyhow::Result<Files> {
    fn collect(root: &Path, folder: &Path, files: &mut Files) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let on_host = Path::new("/").join(path.strip_prefix(root).unwrap_or(&path));
            if path.is_symlink() {
                // Devices and their drivers lead to each other.
                files.insert(on_host, fs::read_link(&path)?.into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                if on_host != Path::new(STATE_DIR) {
                    collect(root, &path, files)?;
                }
            } else if !is_layout_of_free_memory(&on_host) {
                files.insert(on_host, fs::read(&path)?);
            }
        }
        Ok(())
    }
    let mut files = Files::new();
    collect(root, root, &mut files)
        .with_context(|| format!("failed to read the simulated host in {}", root.display()))?;
    Ok(files)
}

fn is_layout_of_free_memory(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"simulated_"))
}

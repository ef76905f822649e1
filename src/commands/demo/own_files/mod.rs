//! What only a person's own files name, made on the simulated host: their devices, units, users, programs, monitors.

mod devices;
mod drives;
mod monitors;
mod mounts;
mod pattern;
mod size;
mod things;
mod tune;
mod units;
mod users;
mod virtual_functions;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::{HOST, lay_out};
use crate::actions::GuestConfig;
use crate::commands::user_error::{Trying, UserResult};
use crate::config::{Gpu, RunEntry};
use crate::guest::Guest;
use size::Size;

/// What every desktop has beside the manifest of the demo without files.
const MORE: &str = include_str!("../more.host");

/// The kernel's governors beside the two of amd-pstate-epp (`drivers/cpufreq/cpufreq_*.c`, `kernel/sched`).
const GOVERNORS: [&str; 4] = ["conservative", "ondemand", "schedutil", "userspace"];

/// What is added to the simulated host, and how people are told.
#[derive(Default)]
struct Added {
    /// Lines of a manifest.
    lines: String,
    /// A few words for each.
    words: Vec<String>,
}

impl Added {
    fn line(&mut self, line: impl AsRef<str>) {
        self.lines.push_str(line.as_ref());
        self.lines.push('\n');
    }
}

/// Makes the host in this folder, with what the files name. Returns in words what other hosts have not.
pub(super) fn make(guest: &Guest, config: &GuestConfig, root: &Path) -> UserResult<Vec<String>> {
    let failed = || "failed to make what your files name on the simulated host".to_owned();
    let size = Size::of(guest);
    let host = &size.apply(&format!("{HOST}{MORE}"));
    lay_out(host, root)?;
    let mut words = size.words();
    let mut add = |added: Added| {
        words.extend(added.words);
        lay_out(&added.lines, root)
    };
    add(devices::of(host, guest, config, root).trying(failed)?)?;
    add(drives::of(guest, config, root))?;
    add(mounts::of(config, root))?;
    let (users, added) = users::of(config, root).trying(failed)?;
    add(added)?;
    for added in [units::of(host, config, &users), monitors::of(guest, config), settings_of(host, config)] {
        add(added)?;
    }
    if let Some(tune) = &config.tune {
        words.extend(tune::make(tune, root).trying(failed)?);
    }
    words.extend(programs_of(config, root).trying(failed)?);
    words.extend(things::make(guest, config, root).trying(failed)?);
    trust_folders(root, &[Path::new("/etc/vfio-hook/host.yaml")]).trying(failed)?;
    Ok(words)
}

/// Governors that the kernel has modules of, and page sizes that are mounted. Another governor's name is a mistake, as is
/// a preference that the processor's driver does not have.
fn settings_of(host: &str, config: &GuestConfig) -> Added {
    let mut added = Added::default();
    let governor = config.cpu_power.as_ref().and_then(|power| power.governor.as_ref());
    let line = host.lines().find(|line| line.contains("scaling_available_governors"));
    if let (Some(line), Some(name)) = (line, governor.map(|name| name.as_str()))
        && GOVERNORS.contains(&name)
    {
        added.line(format!("{line} {name}"));
        added.words.push(format!("`{name}` among the governors"));
    }
    if config.hugepages.is_some()
        && let Some(mounts) = host.lines().find(|line| line.starts_with("/proc/mounts = "))
    {
        added
            .line(format!("{mounts}\\nhugetlbfs /dev/hugepages-1G hugetlbfs rw,relatime,pagesize=1024M 0 0"));
    }
    added
}

/// The resets and sizes of a card that the file asks for.
fn of_card(gpu: &Gpu, display: &str, added: &mut Added) {
    if let Some(methods) = &gpu.reset_methods {
        let methods: Vec<String> = methods.iter().map(ToString::to_string).collect();
        let methods = methods.join(" ");
        added.line(format!("/sys/bus/pci/devices/{display}/reset_method = {methods}"));
        added.line(format!("/simulated/pci/{display}/reset_methods = {methods}"));
        added.words.push(format!("resets of {display}: {methods}"));
    }
    for bar in gpu.bars.keys() {
        // Every size from 1 MiB to 512 GiB.
        added.line(format!("/sys/bus/pci/devices/{display}/resource{bar}_resize = 00000000000fffff"));
    }
}

/// Programs that commands name, empty and executable: a simulated host runs none. One with a blank in its name is a whole
/// command line in one text, which no host has as a program.
fn programs_of(config: &GuestConfig, root: &Path) -> io::Result<Vec<String>> {
    let mut programs = BTreeSet::new();
    let mut folders = BTreeSet::new();
    for entry in config.run.iter().flat_map(|run| &run.entries) {
        match entry {
            RunEntry::Command(command) => {
                let words = [Some(&command.command), command.undo.as_ref()];
                let first = words.into_iter().flatten().filter_map(|words| words.first().cloned());
                programs.extend(first.filter(|program| !program.contains(char::is_whitespace)));
            }
            RunEntry::Scripts(scripts) => drop(folders.insert(scripts.directory.clone())),
        }
    }
    let mut words = Vec::new();
    for program in programs {
        if make_file(root, Path::new(&program), "")?
            && let Some(place) = inside(root, Path::new(&program))
        {
            fs::set_permissions(place, PermissionsExt::from_mode(0o755))?;
            words.push(format!("program {program}"));
        }
    }
    for folder in folders {
        let Some(place) = inside(root, &folder).filter(|place| is_free(root, place)) else { continue };
        fs::create_dir_all(place)?;
        words.push(format!("folder {}, without scripts", folder.display()));
    }
    Ok(words)
}

/// Makes a file unless something is there already, or a file is where a folder would be. Whether it did.
pub(super) fn make_file(root: &Path, path: &Path, text: &str) -> io::Result<bool> {
    let Some(place) = inside(root, path).filter(|place| is_free(root, place)) else { return Ok(false) };
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&place, format!("{text}\n"))?;
    fs::set_permissions(&place, PermissionsExt::from_mode(0o644))?;
    trust_folders(root, &[path])?;
    Ok(true)
}

/// Whether nothing is at a place in the folder, nor on the way there but folders.
fn is_free(root: &Path, place: &Path) -> bool {
    let mut above = place.ancestors().skip(1).take_while(|folder| *folder != root);
    !place.exists() && above.all(|folder| folder.is_dir() || !folder.exists())
}

/// A path of the simulated host in its folder; none for one that leads out of it.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix("/").ok()?;
    let is_normal = rest.components().all(|component| matches!(component, Component::Normal(_)));
    (is_normal && rest != Path::new("")).then(|| root.join(rest))
}

/// Nobody but their owner may write the folders that lead to these files, whatever the umask of this process.
fn trust_folders(root: &Path, files: &[&Path]) -> io::Result<()> {
    for folder in files.iter().flat_map(|file| file.ancestors().skip(1)) {
        if let Some(place) = inside(root, folder).filter(|place| place.is_dir()) {
            fs::set_permissions(place, PermissionsExt::from_mode(0o755))?;
        }
    }
    Ok(())
}

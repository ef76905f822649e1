//! `run: scripts`: the folder of a dispatcher's scripts, and the scripts in it.

use std::path::{Path, PathBuf};

use super::run::check_program;
use super::{Proposal, Situation};
use crate::config::did_you_mean;
use crate::event::Operation;
use crate::host::{Host, HostError};
use crate::key_path::KeyPath;

/// The events at which a dispatcher finds scripts.
pub(super) const SCRIPTED: [Operation; 6] = [
    Operation::Prepare,
    Operation::Start,
    Operation::Started,
    Operation::Stopped,
    Operation::Release,
    Operation::Reconnect,
];

/// A folder that is not there runs nothing, as does one whose guests have other names; one that cannot be read hides
/// scripts.
pub(super) fn check(
    directory: &Path,
    number: usize,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let place = KeyPath::from(&["run"]).element(number).key("scripts");
    let guest = &situation.guest.name;
    if let Some((message, help)) = trouble_with_folder(situation.host, directory, guest) {
        proposal.refuse(place, message, help);
        return Ok(());
    }
    let of_guest = directory.join(guest);
    if matches!(situation.host.has_folder(&of_guest), Ok(false)) {
        let meant =
            alike(&of_guest, situation.host).map(|meant| format!("; did you mean {}?", meant.display()));
        let meant = meant.unwrap_or_default();
        proposal.inform(format!("{guest} has no scripts: there is no folder {}{meant}", of_guest.display()));
    }
    for when in SCRIPTED {
        for script in scripts_at(situation.host, directory, guest, when)? {
            check_script(&script, when, &place, situation, proposal);
        }
    }
    Ok(())
}

/// What is wrong with such a folder, whatever is in it, and what to do about it.
#[must_use]
pub fn trouble_with_folder(host: &Host, directory: &Path, guest: &str) -> Option<(String, String)> {
    let shown = directory.display();
    match host.has_folder(directory) {
        Ok(true) if directory.file_name().is_some_and(|name| name == guest) => {
            let top = directory.parent().unwrap_or(Path::new("/"));
            let message =
                format!("the scripts would be looked for in {shown}/{guest}/OPERATION/SUB-OPERATION");
            Some((message, format!("did you mean `{}`?", top.display())))
        }
        Ok(true) => None,
        Ok(false) => {
            let help = match alike(directory, host) {
                Some(meant) => format!("did you mean `{}`?", meant.display()),
                None => format!("make it (`mkdir -p {shown}`), or remove the entry"),
            };
            Some((format!("there is no folder {shown}: no script would be run"), help))
        }
        Err(error) => Some((error.to_string(), format!("`ls -ld {shown}` shows what is there"))),
    }
}

/// A guest's scripts for an event, in the order in which they run.
///
/// # Errors
/// A folder cannot be read.
pub fn scripts_at(
    host: &Host,
    directory: &Path,
    guest: &str,
    when: Operation,
) -> Result<Vec<PathBuf>, HostError> {
    host.hook_scripts(directory, guest.as_ref(), when.as_str(), when.sub_operation())
}

/// What is beside a path under a similar name.
fn alike(path: &Path, host: &Host) -> Option<PathBuf> {
    let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
    let names = host.names_in(folder);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    did_you_mean(name, &names).map(|meant| folder.join(meant))
}

/// One that another user could have written would not be run: where that refuses the start, it is said before anything
/// is changed. Where libvirt waits for it, `virsh` in it waits for libvirt.
fn check_script(
    script: &Path,
    when: Operation,
    place: &KeyPath,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) {
    let delays_start = matches!(when, Operation::Prepare | Operation::Start);
    match check_program(situation.host, script, None) {
        Ok(()) => {}
        Err(error) if delays_start => proposal.refuse(place.clone(), error.to_string(), error.help()),
        Err(error) => {
            proposal.warn(format!("at `{}` it would not run: {error} ({})", when.as_str(), error.help()))
        }
    }
    if delays_start && let Some(line) = situation.host.line_that_asks_libvirt(script) {
        proposal.warn(format!(
            "{} asks libvirt in line {line} (`virsh`), which waits for the script: neither goes on until the time is up",
            script.display()
        ));
    }
}

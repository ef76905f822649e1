//! `vfio-hook test`: what would happen, from the same code that makes it happen.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::output::{self, ChangeView, Format};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::exit::Exit;
use crate::guest::{Guest, GuestName};
use crate::host::Host;
use crate::ledger::{Change, Ledger, Note, Plan, Record};
use crate::lifecycle::{self, PreparePlan};

/// Where libvirt keeps its guests' XML (`SYSCONFDIR/libvirt/qemu`).
const LIBVIRT_DIR: &str = "/etc/libvirt/qemu";

#[derive(Serialize)]
struct View {
    guest: String,
    operation: &'static str,
    changes: Vec<ChangeView>,
    notes: Vec<Note>,
}

pub(super) fn run(
    name: &OsStr,
    operation: Operation,
    xml: Option<&Path>,
    format: Format,
) -> anyhow::Result<Exit> {
    let host = Host::real();
    let name = GuestName::new(name);
    let guest = read_guest(&name, xml)?;
    let deadline = Deadline::after(operation.budget());
    let record = match Ledger::peek(&host)? {
        Some(record) => record,
        None => Record::empty(host.boot_id()?),
    };
    let (changes, notes) = plan(&host, &record, &name, &guest, operation, deadline)?;
    match format {
        Format::Json => output::json(&View {
            guest: guest.name,
            operation: operation.as_str(),
            changes: ChangeView::of(&changes),
            notes,
        }),
        Format::Text => print(&name, operation, &changes, &notes),
    }
    Ok(Exit::Done)
}

fn plan(
    host: &Host,
    record: &Record,
    name: &GuestName,
    guest: &Guest,
    operation: Operation,
    deadline: Deadline,
) -> anyhow::Result<(Vec<Change>, Vec<Note>)> {
    let has_lease = record.leases.contains_key(&guest.uuid);
    let give_back = || Plan::give_back(record, host, &[guest.uuid].into(), deadline);
    match operation {
        Operation::Prepare if has_lease => {
            let Plan { changes, mut notes, failures, .. } = give_back()?;
            notes.extend(failures.into_iter().map(Note::warning));
            notes.push(Note::warning(
                "the guest already holds these: `prepare` would give them back first and then take all again",
            ));
            Ok((changes, notes))
        }
        Operation::Prepare => {
            let Some(loaded) = lifecycle::load_config(host, name)? else {
                let path = lifecycle::config_path(name);
                let reason = match path {
                    Some(path) => {
                        format!("there is no {}: the hook does nothing for this guest", path.display())
                    }
                    None => {
                        "a guest with this name can have no file: the hook does nothing for it".to_owned()
                    }
                };
                return Ok((Vec::new(), vec![Note::info(reason)]));
            };
            let PreparePlan { plan, mut notes } =
                lifecycle::plan_prepare(host, record, &loaded, guest, deadline)?;
            notes.extend(plan.notes);
            Ok((plan.changes, notes))
        }
        Operation::Start => {
            lifecycle::start(host, guest.uuid)?;
            Ok((Vec::new(), Vec::new()))
        }
        Operation::Started => {
            Ok((Vec::new(), lifecycle::verify_isolation(host, record, guest.uuid, deadline)))
        }
        Operation::Release if has_lease => {
            let Plan { changes, mut notes, failures, .. } = give_back()?;
            notes.extend(failures.into_iter().map(Note::warning));
            Ok((changes, notes))
        }
        Operation::Release => Ok((Vec::new(), vec![Note::info("the guest holds nothing")])),
        _ => Ok((Vec::new(), Vec::new())),
    }
}

fn print(name: &GuestName, operation: Operation, changes: &[Change], notes: &[Note]) {
    let what = match changes.len() {
        0 => "nothing would be changed".to_owned(),
        number => output::count(number, "change"),
    };
    output::line(format_args!("{name}, {}: {what}", operation.as_str()));
    output::notes(notes);
    output::changes(changes);
}

fn read_guest(name: &GuestName, xml: Option<&Path>) -> anyhow::Result<Guest> {
    let path = match xml {
        Some(path) => path.to_owned(),
        None => libvirt_path(name)?,
    };
    let bytes =
        fs::read(&path).with_context(|| format!("failed to read the guest's XML from {}", path.display()))?;
    Guest::parse(&bytes).with_context(|| path.display().to_string())
}

fn libvirt_path(name: &GuestName) -> anyhow::Result<PathBuf> {
    // libvirt refuses names with a slash, and so does this: nothing outside the folder is read.
    anyhow::ensure!(
        !name.as_os_str().as_encoded_bytes().contains(&b'/'),
        "no guest can be called `{name}`: a name has no slash (a file is given with --xml)"
    );
    let mut file = name.as_os_str().to_owned();
    file.push(".xml");
    Ok(Path::new(LIBVIRT_DIR).join(file))
}

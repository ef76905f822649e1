//! The guest whose XML a person gives, or libvirt's own file of it.

use std::path::{Path, PathBuf};

use crate::commands::user_error::{Trying, UserError, UserResult};
use crate::config::did_you_mean;
use crate::guest::{Guest, GuestName, GuestUuid, MAX_XML_BYTES};
use crate::host::{Host, read_given_file};
use crate::ledger::Note;
use crate::lifecycle;
use crate::printable::excerpt;

/// For a guest that nobody has defined yet. libvirt gives no guest this one (`virUUIDIsValid` in `src/util/viruuid.c`).
const STAND_IN: GuestUuid = GuestUuid::from_bytes([0; 16]);

/// A guest, and what a person should know of how it was read.
pub(super) struct GivenGuest {
    pub(super) guest: Guest,
    pub(super) xml: Vec<u8>,
    pub(super) notes: Vec<Note>,
}

/// Whether libvirt's files may be looked at for what an XML leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DefinedGuests {
    /// Those of this machine.
    LookedUp,
    /// The guest is for a host of its own.
    LeftAlone,
}

/// The guest of libvirt's own file.
pub(super) fn defined_guest(name: &GuestName) -> UserResult<GivenGuest> {
    let path = libvirt_path(name)?;
    let xml = read(&path).map_err(|error| match path.exists() {
        true => error,
        false => error.with_help(help_for_unknown(name)),
    })?;
    let guest = Guest::parse(&xml).trying(|| path.display().to_string())?;
    Ok(GivenGuest { guest, xml, notes: Vec::new() })
}

/// The guest of a file that a person names.
pub(super) fn given_guest(path: &Path, defined: DefinedGuests) -> UserResult<GivenGuest> {
    let xml = read(path)?;
    let mut notes = Vec::new();
    let guest = Guest::parse_written(&xml, |name| {
        let known = match defined {
            DefinedGuests::LookedUp => defined_guest(&GuestName::new(name)).ok(),
            DefinedGuests::LeftAlone => None,
        };
        let Some(GivenGuest { guest, .. }) = known else {
            notes.push(Note::info("the XML has no <uuid>: libvirt will make one, 00000000-… stands in"));
            return STAND_IN;
        };
        notes.push(Note::info(format!("the XML has no <uuid>: the defined guest has {}", guest.uuid)));
        guest.uuid
    })
    .trying(|| path.display().to_string())?;
    for prefix in &guest.undeclared_prefixes {
        notes.push(Note::warning(format!(
            "the prefix `{0}` is declared nowhere: libvirt passes over <{0}:…>",
            excerpt(prefix, 32)
        )));
        if prefix == "qemu" {
            notes.push(Note::info(
                "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'> declares it",
            ));
        }
    }
    Ok(GivenGuest { guest, xml, notes })
}

/// What to do where libvirt has no guest of a name.
fn help_for_unknown(name: &GuestName) -> String {
    let others = Host::real().names_in(Path::new(lifecycle::LIBVIRT_DIR));
    let others: Vec<&str> = others.iter().filter_map(|file| file.strip_suffix(".xml")).collect();
    let meant = name.as_os_str().to_str().and_then(|name| did_you_mean(name, &others));
    match meant {
        Some(meant) => format!("did you mean `{meant}`? `virsh list --all` shows the guests"),
        None => {
            "`virsh list --all` shows the guests; the XML of one that is not defined yet is given with --xml"
                .to_owned()
        }
    }
}

/// Whether an XML is of the guest that a command names, whose file would be used for it.
pub(super) fn is_of(guest: &Guest, name: &GuestName) -> bool {
    name.as_os_str() == guest.name.as_str()
}

fn read(path: &Path) -> UserResult<Vec<u8>> {
    read_given_file(path, MAX_XML_BYTES)
        .trying(|| format!("failed to read the guest's XML from {}", path.display()))
}

fn libvirt_path(name: &GuestName) -> UserResult<PathBuf> {
    // libvirt refuses names with a slash, and so does this: nothing outside the folder is read.
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Err(UserError::new(format!("no guest can be called `{name}`: a name has no slash"))
            .with_help("a file is given with --xml"));
    }
    let mut file = name.as_os_str().to_owned();
    file.push(".xml");
    Ok(Path::new(lifecycle::LIBVIRT_DIR).join(file))
}

/// The guest that a person's command is about: of the file that is named, or else libvirt's own.
pub(super) fn guest_of(name: &GuestName, xml: Option<&Path>) -> UserResult<GivenGuest> {
    match xml {
        Some(path) => given_guest(path, DefinedGuests::LookedUp),
        None => defined_guest(name),
    }
}

//! What a guest has from the file of groups, as far as that is known without a start.

use std::path::Path;
use std::sync::Arc;

use crate::actions::{Groups, GuestConfig, Origins, origins_in_words};
use crate::commands::given_guest::defined_guest;
use crate::config::ConfigSource;
use crate::guest::{Guest, GuestName};
use crate::host::Host;
use crate::lifecycle::{self, GROUPS_FILE};

/// A guest without a device of the host's, where libvirt's file of the real one cannot be read.
const NOBODY: &[u8] = b"<domain type='kvm'><name>-</name><uuid>00000000-0000-0000-0000-000000000000</uuid>\
    <memory unit='GiB'>1</memory><vcpu>1</vcpu></domain>";

/// The file of groups, as far as it was read.
#[derive(Debug, Default)]
pub(super) enum GroupsFile {
    /// There is none, or guests' files that lie elsewhere are checked.
    #[default]
    Absent,
    /// It is right.
    Right(Arc<ConfigSource>, Groups),
    /// It is wrong, which was told.
    Wrong,
}

/// What a guest has that has no file of its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WithoutFile {
    /// The sections of groups, a line for each group.
    Has(Vec<String>),
    /// Nothing, and why.
    Nothing(Vec<String>),
    /// That is not known: what a start would come to.
    Unknown(String),
}

impl GroupsFile {
    /// Where the sections come from that a guest has beside those of its own file, a line for each group.
    pub(super) fn origins(&self, host: &Host, name: &GuestName, own: &GuestConfig) -> Vec<String> {
        let Self::Right(source, groups) = self else { return Vec::new() };
        let guest = known_guest(name);
        let mut config = own.clone();
        let from: Option<Origins> =
            guest.map(|guest| groups.complete(&mut config, source, (name, &guest), host));
        origins_in_words(&from.unwrap_or_default())
    }

    /// What a guest has that has no file of its own.
    pub(super) fn without_file(&self, host: &Host, name: &GuestName) -> WithoutFile {
        match self {
            Self::Absent => WithoutFile::Nothing(Vec::new()),
            Self::Right(_, groups) => match self.origins(host, name, &GuestConfig::default()) {
                lines if lines.is_empty() => {
                    let reasons = known_guest(name).map(|guest| groups.why_none_has((name, &guest), host));
                    WithoutFile::Nothing(reasons.unwrap_or_default())
                }
                lines => WithoutFile::Has(lines),
            },
            Self::Wrong => {
                let guest = known_guest(name);
                WithoutFile::Unknown(start_with_wrong_groups(
                    name,
                    guest.is_some_and(|guest| lifecycle::is_in_wrong_group(host, name, &guest)),
                ))
            }
        }
    }
}

/// What a start comes to of a guest that has no file of its own while the file of groups is wrong.
pub(in crate::commands) fn start_with_wrong_groups(name: &GuestName, is_in_group: bool) -> String {
    match is_in_group {
        true => format!(
            "{GROUPS_FILE} is wrong and has {name} in a group: its start is refused until that is right"
        ),
        false => {
            format!(
                "{GROUPS_FILE} is wrong, and {name} has no file of its own: the hook lets it start as it is"
            )
        }
    }
}

/// A guest's name by that of its file.
pub(super) fn name_of(file: &Path) -> Option<GuestName> {
    file.file_stem().map(GuestName::new)
}

/// The guest, with its devices where libvirt's file of it can be read.
fn known_guest(name: &GuestName) -> Option<Guest> {
    defined_guest(name).map(|given| given.guest).ok().or_else(|| Guest::parse(NOBODY).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    const NAME: &str = "no-such-guest-1b9d6bcd";

    fn without_file(text: &str) -> WithoutFile {
        let folder = tempfile::tempdir().unwrap();
        lay_out(&format!("{GROUPS_FILE} = {text}\n"), folder.path()).unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let source = ConfigSource::new(GROUPS_FILE, text);
        let file = match Groups::read(&source) {
            Ok(groups) => GroupsFile::Right(Arc::new(source), groups),
            Err(_) => GroupsFile::Wrong,
        };
        file.without_file(&host, &GuestName::new(NAME))
    }

    #[test]
    fn what_a_guest_without_a_file_has_is_told() {
        assert_eq!(
            without_file("groups: {a: {guests: \"no-*\", hugepages: {}}}"),
            WithoutFile::Has(vec!["from group a of /etc/vfio-hook/guests.yaml: hugepages".to_owned()])
        );
        assert_eq!(
            without_file("groups: {a: {guests: \"win*\", hugepages: {}}}"),
            WithoutFile::Nothing(vec!["group a: `guests` has win*, which does not mean it".to_owned()])
        );
        for (text, what) in [
            ("groups: {a: {guests: \"no-*\", hugepages: 1}}", "its start is refused until that is right"),
            ("groups: {a: {guests: \"win*\", hugepages: 1}}", "the hook lets it start as it is"),
        ] {
            match without_file(text) {
                WithoutFile::Unknown(told) => assert!(told.ends_with(what), "{told}"),
                other => panic!("{other:?}"),
            }
        }
        let none = GroupsFile::Absent.without_file(&Host::real(), &GuestName::new(NAME));
        assert_eq!(none, WithoutFile::Nothing(Vec::new()));
    }
}

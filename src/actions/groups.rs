//! `guests.yaml`: sections that several guests have, by their names or by a card.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::list::{EXAMPLE, GuestConfig};
use crate::config::{
    ConfigErrors, ConfigSource, Diagnostic, Fault, HostConfig, Item, Node, Section, given_name,
    read_sections, read_sections_that_are_right,
};
use crate::given_name;
use crate::gpu::IdRange;
use crate::guest::{Guest, GuestName, NamePattern, ParsePatternError};
use crate::host::Host;
use crate::key_path::KeyPath;
use crate::pci::PciAddress;

/// A file of groups on one line, for one that has none.
const EXAMPLE_OF_GROUPS: &str = "groups: {gaming: {guests: [\"win*\"], isolate_cpus: {}}}";

/// A group on one line.
const EXAMPLE_OF_GROUP: &str = "{guests: [\"win*\"], isolate_cpus: {}}";

/// The groups of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(Vec<Group>);

/// What some guests have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: GroupName,
    /// The guests that are in it, by their names; all where none is named.
    guests: Vec<NamePattern>,
    /// The cards of which a guest has one to be in it; none where that does not matter.
    cards: Vec<CardPattern>,
    config: GuestConfig,
}

/// The name of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName(String);

/// Which cards are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CardPattern {
    /// The function at an address.
    At(PciAddress),
    /// All of these models.
    Of(IdRange),
}

/// Where a section comes from that the guest's own file has not.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file.
    pub source: Arc<ConfigSource>,
    /// The group of the file.
    pub group: GroupName,
}

/// The sections that a guest has from groups, by their names.
pub type Origins = BTreeMap<&'static str, Origin>;

impl Groups {
    /// Reads the file.
    ///
    /// # Errors
    /// All that is wrong with it, as for a guest's file.
    pub fn read(source: &ConfigSource) -> Result<Self, ConfigErrors> {
        read_sections(source, EXAMPLE_OF_GROUPS, groups_of).map(Self)
    }

    /// Gives a guest the sections that its own file has not, each from the first group that has it and that the guest is
    /// in.
    #[must_use]
    pub fn complete(
        &self,
        config: &mut GuestConfig,
        source: &Arc<ConfigSource>,
        guest: (&GuestName, &Guest),
        host: &Host,
    ) -> Origins {
        let mut origins = Origins::new();
        for group in self.0.iter().filter(|group| group.has(guest, host)) {
            for section in config.take_missing(&group.config) {
                let origin = Origin { source: Arc::clone(source), group: group.name.clone() };
                origins.insert(section, origin);
            }
        }
        origins
    }
}

impl Groups {
    /// What can be read of a file that is wrong: groups whose guests are known. None where it is no YAML.
    fn read_what_is_right(source: &ConfigSource) -> Self {
        Self(read_sections_that_are_right(source, groups_of).unwrap_or_default())
    }

    /// Whether a file that is wrong has a group that a guest is in.
    #[must_use]
    pub fn of_wrong_file_have(source: &ConfigSource, guest: (&GuestName, &Guest), host: &Host) -> bool {
        Self::read_what_is_right(source).0.iter().any(|group| group.has(guest, host))
    }

    /// Why a guest is in none of them, a line each; nothing where it is in one.
    #[must_use]
    pub fn why_none_has(&self, guest: (&GuestName, &Guest), host: &Host) -> Vec<String> {
        let reasons = self.0.iter().map(|group| group.why_not(guest, host)).collect::<Option<Vec<_>>>();
        reasons.unwrap_or_default()
    }

    /// Whether one of them has something to do with monitors, which the host's file may have names for.
    #[must_use]
    pub fn want_monitors(&self) -> bool {
        self.0.iter().any(|group| group.config.switch_input.is_some())
    }

    /// What is wrong with the monitors of the groups on a host with this file.
    #[must_use]
    pub fn check_against(&self, source: &Arc<ConfigSource>, host: &HostConfig) -> Option<ConfigErrors> {
        let mut diagnostics = Vec::new();
        for group in &self.0 {
            let origin = Origin { source: Arc::clone(source), group: group.name.clone() };
            let unresolved = group.config.switch_input.as_ref().map(|switches| switches.resolve(host));
            for each in unresolved.and_then(Result::err).unwrap_or_default() {
                diagnostics.push(origin.diagnose(&each.path, &each.message, Some(each.help)));
            }
        }
        ConfigErrors::new(diagnostics, 0)
    }
}

impl Group {
    /// Why a guest is not in it; none if it is.
    fn why_not(&self, guest: (&GuestName, &Guest), host: &Host) -> Option<String> {
        let (of_group, name) = (&self.name, guest.0.as_os_str().to_string_lossy());
        if self.has(guest, host) {
            return None;
        }
        if NamePattern::mean(&self.guests, &name) {
            return Some(format!("group {of_group}: the guest's XML gives it none of the group's `cards`"));
        }
        let patterns: Vec<String> = self.guests.iter().map(ToString::to_string).collect();
        let in_other_case =
            patterns.iter().filter_map(|text| text.to_lowercase().parse().ok()).collect::<Vec<NamePattern>>();
        let case = match NamePattern::mean(&in_other_case, &name.to_lowercase()) {
            true => ": capital letters count",
            false => "",
        };
        Some(format!("group {of_group}: `guests` has {}, which does not mean it{case}", patterns.join(", ")))
    }

    fn has(&self, (name, guest): (&GuestName, &Guest), host: &Host) -> bool {
        NamePattern::mean(&self.guests, &name.as_os_str().to_string_lossy())
            && (self.cards.is_empty()
                || guest.pci_hostdevs.iter().any(|hostdev| self.means_card(hostdev.address, host)))
    }

    fn means_card(&self, address: PciAddress, host: &Host) -> bool {
        self.cards.iter().any(|card| match card {
            CardPattern::At(at) => *at == address,
            CardPattern::Of(models) => {
                host.pci_function(address).is_ok_and(|function| models.contains(function.id))
            }
        })
    }
}

/// What a person should know of sections that are not in the guest's own file: a text for each group.
#[must_use]
pub fn origins_in_words(origins: &Origins) -> Vec<String> {
    let mut groups: Vec<(&Origin, Vec<&str>)> = Vec::new();
    for (section, origin) in origins {
        match groups.iter_mut().find(|(known, _)| known.group == origin.group) {
            Some((_, sections)) => sections.push(section),
            None => groups.push((origin, vec![section])),
        }
    }
    groups
        .into_iter()
        .map(|(Origin { source, group }, sections)| {
            format!("from group {group} of {}: {}", source.file().display(), sections.join(", "))
        })
        .collect()
}

impl Origin {
    /// What is wrong with a value, placed where the group has it.
    #[must_use]
    pub fn diagnose(&self, at: &KeyPath, message: &str, help: Option<String>) -> Diagnostic {
        self.source.diagnose(self.path_of(at), message, help)
    }

    /// Where the group has a value: `FILE:LINE:COLUMN`.
    #[must_use]
    pub fn place_of(&self, at: &KeyPath) -> String {
        self.source.place_of(self.path_of(at))
    }

    /// What the group has there, in one form for all ways to write the same.
    #[must_use]
    pub fn canonical(&self, at: &KeyPath) -> Option<String> {
        self.source.canonical(&self.path_of(at))
    }

    fn path_of(&self, at: &KeyPath) -> KeyPath {
        at.below(&KeyPath::from(&["groups"]).key(self.group.0.clone()))
    }
}

fn groups_of(file: &mut Section<'_>) -> Vec<Group> {
    let read = file.item("groups").map(|item| {
        let name = |node: &Node| given_name::<GroupName>(node, "a group's name");
        item.pairs("has no group", "{gaming: {guests: [\"win*\"], isolate_cpus: {}}}", name, group)
    });
    let groups = read.unwrap_or_default().into_iter();
    groups.map(|(name, group)| Group { name, ..group }).collect()
}

/// Reads a group; its name is filled in afterwards. None if it cannot be said which guests are in it.
fn group(item: Item<'_>) -> Option<Group> {
    let mut section = item.section(EXAMPLE_OF_GROUP)?;
    let guests = section
        .item("guests")
        .map_or_else(Vec::new, |item| item.elements("has no guest", |element| element.value(name_pattern)));
    let cards = section
        .item("cards")
        .map_or_else(Vec::new, |item| item.elements("has no card", |element| element.value(card_pattern)));
    if !section.has("guests") && !section.has("cards") {
        let help = "name its guests or a card that they have: `guests: [\"*\"]` for all, `cards: [\"0000:03:00.0\"]`";
        section.refuse_as_empty(Fault::new("has no guests", help));
    }
    let config = GuestConfig::read_from(&mut section);
    if section.has_only(&["guests", "cards"]) {
        let help = format!("add a section, for example `{EXAMPLE}`, or remove the group");
        section.refuse_as_empty(Fault::new("does nothing: no section", help));
    }
    let is_known = (guests.is_empty() != section.has("guests")) && (cards.is_empty() != section.has("cards"));
    let has_guests = section.has("guests") || section.has("cards");
    section.finish();
    (is_known && has_guests).then(|| Group { name: GroupName(String::new()), guests, cards, config })
}

fn name_pattern(node: &Node) -> Result<NamePattern, Fault> {
    const WHAT: &str = "guests' names, such as win11 or \"win*\"";
    match node {
        Node::Text(text) if !text.is_empty() => text.parse().map_err(|error| {
            let error: ParsePatternError = error;
            Fault::expected_like(WHAT, node, error.to_string())
        }),
        other => {
            Err(Fault::expected_like(WHAT, other, "`virsh list --all` shows them; put quotes around them"))
        }
    }
}

fn card_pattern(node: &Node) -> Result<CardPattern, Fault> {
    const WHAT: &str = "a card, such as \"0000:03:00.0\" or \"1002:73bf\"";
    const HELP: &str = "an address as the guest's XML has it, or a model as `lspci -nn` shows it in brackets";
    let Node::Text(text) = node else {
        return Err(Fault::expected_like(WHAT, node, format!("{HELP}; put quotes around it")));
    };
    let at = text.parse().map(CardPattern::At).ok();
    at.or_else(|| text.parse().map(CardPattern::Of).ok())
        .ok_or_else(|| Fault::expected_like(WHAT, node, HELP))
}

impl FromStr for GroupName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        given_name::given_name(text).map(Self)
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

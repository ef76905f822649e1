//! Units and the display manager that a file names.

use std::collections::BTreeSet;

use super::Added;
use super::users::Users;
use crate::actions::GuestConfig;
use crate::config::{DisplayManager, RequiredThing};
use crate::unit_file_name::UnitFileName;
use crate::user_name::UserName;

/// The display manager of the simulated host, where the file wants one stopped.
const SDDM: &str = "sddm.service";

/// What a unit is before the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Runs,
    DoesNotRun,
}

type Named<'a> = (&'a UnitFileName, Option<&'a UserName>, Before);

pub(super) fn of(host: &str, config: &GuestConfig, users: &Users) -> Added {
    let mut added = Added::default();
    let mut known = BTreeSet::new();
    for (unit, user, before) in named(config) {
        let folder = match user.and_then(|name| users.get(name.as_str())) {
            Some(uid) => format!("/simulated/systemd-of-{uid}/{unit}"),
            None => format!("/simulated/systemd/{unit}"),
        };
        if host.contains(&format!("{folder}/ActiveState")) || !known.insert(folder.clone()) {
            continue;
        }
        let (state, words) = match before {
            Before::Runs => ("active", "running"),
            Before::DoesNotRun => ("inactive", "not running"),
        };
        added.line(format!("{folder}/ActiveState = {state}"));
        added.words.push(match user {
            Some(user) => format!("{unit} of {user}, {words}"),
            None => format!("{unit}, {words}"),
        });
    }
    if config.gpu.as_ref().is_some_and(|gpu| gpu.display_manager == DisplayManager::Stop) {
        added.line(format!("/etc/systemd/system/display-manager.service -> /usr/lib/systemd/system/{SDDM}"));
        added.line(format!("/simulated/systemd/{SDDM}/ActiveState = active"));
        added.words.push(format!("{SDDM} as the display manager, nobody logged in"));
    }
    added
}

/// What is required runs, whatever else is said of it.
fn named(config: &GuestConfig) -> Vec<Named<'_>> {
    let things = config.requires.iter().flat_map(|requires| &requires.things);
    let required = things.filter_map(|condition| match &condition.what {
        RequiredThing::Unit { unit, user } => Some((unit, user.as_ref(), Before::Runs)),
        _ => None,
    });
    let stopped = config.services.iter().flat_map(|services| &services.stop);
    let stopped = stopped.chain(config.gpu.iter().flat_map(|gpu| &gpu.holders.stop));
    let stopped = stopped.map(|stopped| (&stopped.unit, stopped.user.as_ref(), Before::Runs));
    let started = config.services.iter().flat_map(|services| &services.start);
    let started = started.map(|started| (&started.unit, started.user.as_ref(), Before::DoesNotRun));
    required.chain(stopped).chain(started).collect()
}

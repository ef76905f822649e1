//! Users and groups that a file names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use nix::unistd::{Gid, Uid, chown};

use super::Added;
use crate::actions::GuestConfig;
use crate::config::{RequiredThing, RunEntry};

/// Where the first user's number is on most distributions (`UID_MIN` in login.defs(5)), and the first group's.
const FIRST_USER: u32 = 1000;

/// Where the first group of a service is.
const FIRST_GROUP: u32 = 900;

/// The group that packages of libvirt have QEMU in, and its number.
const KVM: (&str, u32) = ("kvm", 36);

/// The users that are named, by their numbers; all are logged in.
pub(super) type Users = BTreeMap<String, u32>;

pub(super) fn of(config: &GuestConfig, root: &Path) -> io::Result<(Users, Added)> {
    let mut added = Added::default();
    let named = named(config);
    let files = || config.shared_memory.iter().flat_map(|shared| &shared.files);
    let owners: BTreeSet<&str> =
        files().filter_map(|file| file.owner.as_ref()).map(|name| name.as_str()).collect();
    let can_give = can_give_away(root)?;
    let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
    // Who is not root may make files of nobody else: then the owners of files are this user under their names.
    let owner = |name: &str, uid: u32| if can_give || !owners.contains(name) { uid } else { own.0 };
    let group = |gid: u32| if can_give { gid } else { own.1 };
    let root_uid = owner("root", 0);
    let users: Users =
        (FIRST_USER..).zip(named).map(|(uid, name)| (name.to_owned(), owner(name, uid))).collect();
    let mut passwd = format!("root:x:{root_uid}:0:root:/root:/bin/sh");
    let mut groups = BTreeMap::from([("root".to_owned(), group(0)), (KVM.0.to_owned(), group(KVM.1))]);
    for (number, (name, uid)) in (FIRST_USER..).zip(&users) {
        passwd.push_str(&format!("\\n{name}:x:{uid}:{number}::/home/{name}:/bin/sh"));
        groups.insert(name.clone(), group(number));
        added.line(format!("/run/user/{uid}/systemd/private ="));
        added.words.push(format!("user {name}, logged in"));
    }
    for (number, name) in (FIRST_GROUP..).zip(files().filter_map(|file| file.group.as_ref())) {
        groups.entry(name.to_string()).or_insert_with(|| {
            added.words.push(format!("group {name}"));
            group(number)
        });
    }
    let groups: Vec<String> = groups.iter().map(|(name, gid)| format!("{name}:x:{gid}:")).collect();
    added.line(format!("/etc/passwd = {passwd}"));
    added.line(format!("/etc/group = {}", groups.join("\\n")));
    Ok((users, added))
}

/// Every user's name of the file but root's.
fn named(config: &GuestConfig) -> BTreeSet<&str> {
    let stopped = config.services.iter().flat_map(|services| &services.stop);
    let stopped = stopped.chain(config.gpu.iter().flat_map(|gpu| &gpu.holders.stop));
    let of_stopped = stopped.filter_map(|unit| unit.user.as_ref());
    let started = config.services.iter().flat_map(|services| &services.start);
    let of_started = started.filter_map(|unit| unit.user.as_ref());
    let things = config.requires.iter().flat_map(|requires| &requires.things);
    let of_required = things.filter_map(|condition| match &condition.what {
        RequiredThing::Unit { user, .. } => user.as_ref(),
        _ => None,
    });
    let of_commands = config.run.iter().flat_map(|run| &run.entries).filter_map(|entry| match entry {
        RunEntry::Command(command) => command.user.as_ref(),
        RunEntry::Scripts(_) => None,
    });
    let of_files = config.shared_memory.iter().flat_map(|shared| &shared.files);
    let of_files = of_files.filter_map(|file| file.owner.as_ref());
    let all = of_stopped.chain(of_started).chain(of_required).chain(of_commands).chain(of_files);
    all.map(|name| name.as_str()).filter(|name| *name != "root").collect()
}

/// Whether this process may make a file another user's. Root may not where it is root of a few numbers only.
fn can_give_away(root: &Path) -> io::Result<bool> {
    let probe = root.join("owner");
    fs::write(&probe, "")?;
    let (user, group) = (Uid::from_raw(FIRST_USER), Gid::from_raw(FIRST_GROUP));
    let given = chown(&probe, Some(user), Some(group));
    fs::remove_file(probe)?;
    Ok(given.is_ok())
}

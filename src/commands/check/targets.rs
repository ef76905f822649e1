//! Which files are checked, and how each is read.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::user_error::{Trying, UserError, UserResult};
use crate::guest::GuestName;
use crate::host::Host;
use crate::lifecycle::{self, CONFIG_DIR, GROUPS_FILE, HOST_FILE};

/// A file that is checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) file: PathBuf,
    pub(super) kind: Kind,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The host's; these come first, as guests' files are held against them.
    Host,
    /// The groups of guests.
    Groups,
    /// A guest's.
    Guest,
}

/// The files that are no guest's.
const OF_ALL_GUESTS: [(&str, Kind); 2] = [(HOST_FILE, Kind::Host), (GROUPS_FILE, Kind::Groups)];

/// Those that are named, or else all of this host.
pub(super) fn targets(host: &Host, named: &[OsString]) -> UserResult<Vec<Target>> {
    let mut targets = if named.is_empty() {
        all(host)?
    } else {
        named.iter().map(|name| target(name)).collect::<UserResult<_>>()?
    };
    // A guest that is to start needs the groups to be right, too.
    let is_used = targets
        .iter()
        .any(|target: &Target| target.kind == Kind::Guest && target.file.starts_with(CONFIG_DIR));
    if is_used
        && host.is_named(GROUPS_FILE)
        && targets.iter().all(|target| target.file != Path::new(GROUPS_FILE))
    {
        targets.push(Target { file: GROUPS_FILE.into(), kind: Kind::Groups });
    }
    targets.sort_by_key(|target| target.kind);
    Ok(targets)
}

fn all(host: &Host) -> UserResult<Vec<Target>> {
    let mut targets = Vec::new();
    for (file, kind) in OF_ALL_GUESTS.into_iter().filter(|(file, _)| host.is_named(file)) {
        targets.push(Target { file: PathBuf::from(file), kind });
    }
    if !host.has_folder(CONFIG_DIR.as_ref())? {
        return Ok(targets);
    }
    let folder = host.locate(CONFIG_DIR.as_ref());
    let entries = fs::read_dir(&folder).trying(|| format!("failed to list {CONFIG_DIR}"))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.trying(|| format!("failed to list {CONFIG_DIR}"))?.path();
        if path.extension() == Some(OsStr::new("yaml")) {
            files.extend(path.file_name().map(|name| Path::new(CONFIG_DIR).join(name)));
        }
    }
    files.sort_unstable();
    targets.extend(files.into_iter().map(|file| Target { file, kind: Kind::Guest }));
    Ok(targets)
}

/// A path is one by its slash or its ending; everything else is a guest's name.
fn target(name: &OsStr) -> UserResult<Target> {
    let path = Path::new(name);
    if name.as_encoded_bytes().contains(&b'/') || path.extension() == Some(OsStr::new("yaml")) {
        return Ok(Target { file: path.to_owned(), kind: kind(path) });
    }
    let name = GuestName::new(name);
    let file = lifecycle::config_path(&name)
        .ok_or_else(|| UserError::new(format!("a guest called `{name}` can have no file")))?;
    Ok(Target { file, kind: Kind::Guest })
}

/// A file called as one that is no guest's is such a file, unless it is among the guests' files: a guest may have that name.
fn kind(path: &Path) -> Kind {
    let has_name = |file: &str| path.file_name() == Path::new(file).file_name();
    let Some((_, kind)) = OF_ALL_GUESTS.into_iter().find(|(file, _)| has_name(file)) else {
        return Kind::Guest;
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::canonicalize(folder) {
        Ok(folder) if folder == Path::new(CONFIG_DIR) => Kind::Guest,
        _ => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::simulated::Faults;

    #[test]
    fn the_hosts_file_is_known_by_its_name_and_comes_first() {
        let named = ["win11", "x/win10.yaml", "host", "x/host.yaml", HOST_FILE, "guests.yaml", "guests"];
        let named = named.map(OsString::from);
        let targets = targets(&Host::real(), &named).unwrap();
        let found: Vec<_> =
            targets.iter().map(|target| (target.kind, target.file.to_str().unwrap())).collect();
        assert_eq!(
            found,
            [
                (Kind::Host, "x/host.yaml"),
                (Kind::Host, "/etc/vfio-hook/host.yaml"),
                (Kind::Groups, "guests.yaml"),
                (Kind::Guest, "/etc/vfio-hook/hooks.d/win11.yaml"),
                (Kind::Guest, "x/win10.yaml"),
                (Kind::Guest, "/etc/vfio-hook/hooks.d/host.yaml"),
                (Kind::Guest, "/etc/vfio-hook/hooks.d/guests.yaml"),
            ]
        );
    }

    /// The hook reads it before a guest's own file counts.
    #[test]
    fn a_guest_that_is_named_has_the_groups_checked_too() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let kinds = |named: &[&str]| -> Vec<Kind> {
            let named: Vec<OsString> = named.iter().map(OsString::from).collect();
            targets(&host, &named).unwrap().iter().map(|target| target.kind).collect()
        };
        assert_eq!(kinds(&["win11"]), [Kind::Guest]);
        fs::create_dir_all(folder.path().join("etc/vfio-hook")).unwrap();
        fs::write(folder.path().join(&GROUPS_FILE[1..]), "").unwrap();
        assert_eq!(kinds(&["win11"]), [Kind::Groups, Kind::Guest]);
        assert_eq!(kinds(&["win11", GROUPS_FILE]), [Kind::Groups, Kind::Guest]);
        assert_eq!(kinds(&["x/win11.yaml"]), [Kind::Guest]);
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_a_target_all_the_same() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        assert_eq!(targets(&host, &[]).unwrap(), []);
        let at = |path: &str| folder.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(at("/etc/vfio-hook")).unwrap();
        symlink("nowhere", at(HOST_FILE)).unwrap();
        let host_file = Target { file: HOST_FILE.into(), kind: Kind::Host };
        assert_eq!(targets(&host, &[]).unwrap(), [host_file]);

        symlink("nowhere", at(CONFIG_DIR)).unwrap();
        let error = format!("{:#}", targets(&host, &[]).unwrap_err());
        assert_eq!(error, "failed to list /etc/vfio-hook/hooks.d: a symbolic link leads to nothing");

        fs::create_dir_all(at("/etc/vfio-hook/nowhere")).unwrap();
        symlink("circle.yaml", at("/etc/vfio-hook/nowhere/circle.yaml")).unwrap();
        let found = targets(&host, &[]).unwrap();
        let files: Vec<_> = found.iter().map(|target| target.file.to_str().unwrap()).collect();
        assert_eq!(files, [HOST_FILE, "/etc/vfio-hook/hooks.d/circle.yaml"]);
    }
}

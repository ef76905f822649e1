//! The YAML files: where they are, who may have written them, what they say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::LifecycleError;
use crate::actions::{Groups, GuestConfig, Origins};
use crate::config::{ConfigErrors, ConfigSource, Diagnostic, HostConfig, read_trusted};
use crate::guest::{Guest, GuestName};
use crate::host::{Host, is_named_at_once};
use crate::key_path::KeyPath;
use crate::log_level::LogLevel;
use crate::monitor::built_in_deviations;

/// Where the guests' YAML files are.
pub const CONFIG_DIR: &str = "/etc/vfio-hook/hooks.d";

/// The YAML file of the host.
pub const HOST_FILE: &str = "/etc/vfio-hook/host.yaml";

/// The YAML file of groups of guests.
pub const GROUPS_FILE: &str = "/etc/vfio-hook/guests.yaml";

/// How long the level of the log may take to be read.
const LOG_LEVEL: Duration = Duration::from_millis(200);

/// What a guest's YAML file and the groups that it is in say, read and understood.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The guest's own file, to point into; the file of groups where it has none.
    pub source: ConfigSource,
    /// What they say together.
    pub config: GuestConfig,
    /// The sections that are from groups.
    pub from_groups: Origins,
}

impl LoadedConfig {
    /// A guest's own file alone.
    #[must_use]
    pub fn of_file(source: ConfigSource, config: GuestConfig) -> Self {
        Self { source, config, from_groups: Origins::new() }
    }

    /// What a person wrote into each section, in one form for all ways to write the same; by name.
    #[must_use]
    pub fn canonical(&self) -> BTreeMap<&'static str, String> {
        let written = |section: &'static str| {
            let at = KeyPath::from(&[section]);
            let text = match self.from_groups.get(section) {
                Some(origin) => origin.canonical(&at),
                None => self.source.canonical(&at),
            };
            (section, text.unwrap_or_default())
        };
        self.config.sections().into_iter().map(written).collect()
    }

    /// Where a value stands, as editors read it: `FILE:LINE:COLUMN`.
    #[must_use]
    pub fn place_of(&self, at: &KeyPath) -> String {
        match self.from_groups.get(at.outermost()) {
            Some(origin) => origin.place_of(at),
            None => self.source.place_of(at.clone()),
        }
    }

    /// What is wrong with a value, placed where it stands.
    #[must_use]
    pub fn diagnose(&self, at: &KeyPath, message: &str, help: Option<String>) -> Diagnostic {
        match self.from_groups.get(at.outermost()) {
            Some(origin) => origin.diagnose(at, message, help),
            None => self.source.diagnose(at.clone(), message, help),
        }
    }
}

/// The path of a guest's YAML file; none for a name that is no safe file name.
#[must_use]
pub fn config_path(guest: &GuestName) -> Option<PathBuf> {
    Some(PathBuf::from(CONFIG_DIR).join(guest.config_file_name()?))
}

/// Reads what is configured for a guest: its own file, and what that has not from the groups that the guest is in. None
/// where there is nothing.
///
/// # Errors
/// A file is wrong, or a user other than root could have written it.
pub fn load_config(
    host: &Host,
    name: &GuestName,
    guest: &Guest,
) -> Result<Option<LoadedConfig>, LifecycleError> {
    let own = match config_path(name) {
        Some(path) => read_source(host, &path)?,
        None => None,
    };
    let config = own.as_ref().map(GuestConfig::read).transpose()?;
    let mut config = config.unwrap_or_default();
    let groups = read_source(host, Path::new(GROUPS_FILE))?.map(Arc::new);
    let from_groups = match &groups {
        Some(source) => Groups::read(source)?.complete(&mut config, source, (name, guest), host),
        None => Origins::new(),
    };
    let source = own.or_else(|| groups.map(Arc::unwrap_or_clone));
    let source = source.filter(|_| !config.is_empty());
    Ok(source.map(|source| LoadedConfig { source, config, from_groups }))
}

/// Whether the file of groups is wrong and has a group that a guest is in, as far as that can be read: what the guest
/// has from it is not known.
#[must_use]
pub fn is_in_wrong_group(host: &Host, name: &GuestName, guest: &Guest) -> bool {
    let Ok(Some(source)) = read_source(host, Path::new(GROUPS_FILE)) else { return false };
    Groups::read(&source).is_err() && Groups::of_wrong_file_have(&source, (name, guest), host)
}

/// Why a guest is in no group of the file of groups, a line for each; nothing where it is in one, or there are none.
///
/// # Errors
/// As [`load_config`].
pub fn why_no_group_has(host: &Host, name: &GuestName, guest: &Guest) -> Result<Vec<String>, LifecycleError> {
    let Some(source) = read_source(host, Path::new(GROUPS_FILE))? else { return Ok(Vec::new()) };
    Ok(Groups::read(&source)?.why_none_has((name, guest), host))
}

fn read_source(host: &Host, path: &Path) -> Result<Option<ConfigSource>, LifecycleError> {
    let bytes = read_trusted(&host.root(), path, host.trusted_owner())?;
    Ok(bytes.map(|bytes| ConfigSource::from_bytes(path, bytes)).transpose()?)
}

/// Reads the host's YAML file; where there is none, what is known without it.
///
/// # Errors
/// It is wrong, or a user other than root could have written it.
pub fn load_host_config(host: &Host) -> Result<HostConfig, LifecycleError> {
    Ok(host_config(read_source(host, Path::new(HOST_FILE))?.as_ref())?)
}

/// How much the journal gets. A file that cannot be used, or not in time, says nothing of it: the commands that need it
/// tell why. Giving back needs no file, and waits for none.
#[must_use]
pub fn log_level() -> LogLevel {
    if is_named_at_once(HOST_FILE.as_ref()) == Some(false) {
        return LogLevel::default();
    }
    let (sender, level) = mpsc::channel();
    // Left behind where the file system does not answer.
    let read = thread::Builder::new().name("log level".to_owned()).spawn(move || {
        let config = load_host_config(&Host::real());
        let _ = sender.send(config.map(|config| config.log).unwrap_or_default());
    });
    match read {
        Ok(_) => level.recv_timeout(LOG_LEVEL).unwrap_or_default(),
        Err(_) => LogLevel::default(),
    }
}

/// What the host's YAML file says, and what is known without it.
///
/// # Errors
/// It is wrong.
pub fn host_config(source: Option<&ConfigSource>) -> Result<HostConfig, ConfigErrors> {
    let config = source.map_or_else(|| Ok(HostConfig::default()), ConfigSource::parse_host)?;
    Ok(config.with_built_in(built_in_deviations()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;
    use crate::actions::origins_in_words;
    use crate::host::simulated::Faults;

    struct Machine(TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine.folder(CONFIG_DIR);
            machine
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path.trim_start_matches('/'))
        }

        fn file(&self) -> PathBuf {
            self.path(CONFIG_DIR).join("win11.yaml")
        }

        fn folder(&self, path: &str) {
            fs::create_dir_all(self.path(path)).unwrap();
            for folder in Path::new(path).ancestors() {
                let folder = self.path(folder.to_str().unwrap());
                fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
            }
        }

        fn load(&self, name: &str) -> Result<Option<LoadedConfig>, LifecycleError> {
            let host = Host::simulated(self.0.path(), &Faults::default());
            load_config(&host, &GuestName::new(name), &guest())
        }

        /// Whether the guest has a file, and what is read of it: the reason's first line, without this folder's name.
        fn look(&self) -> (bool, Result<bool, String>) {
            let host = Host::simulated(self.0.path(), &Faults::default());
            let loaded = self.load("win11").map(|loaded| loaded.is_some()).map_err(|error| {
                let text = error.to_string().replace(&*self.0.path().to_string_lossy(), "");
                text.lines().next().unwrap_or_default().to_owned()
            });
            (config_path(&GuestName::new("win11")).is_some_and(|path| host.is_named(path)), loaded)
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.path(path), text).unwrap();
            fs::set_permissions(self.path(path), PermissionsExt::from_mode(0o644)).unwrap();
        }
    }

    /// It has the card 0000:03:00.0.
    fn guest() -> Guest {
        let xml = "<domain type='kvm'><name>win11</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
            <memory unit='GiB'>1</memory><vcpu>1</vcpu><devices><hostdev mode='subsystem' type='pci'><source>\
            <address domain='0' bus='3' slot='0' function='0'/></source></hostdev></devices></domain>";
        Guest::parse(xml.as_bytes()).unwrap()
    }

    const GROUPS: &str = "groups:
  card:
    cards: [\"0000:03:00.0\"]
    block_sleep: {}
  other-card:
    cards: [\"0000:0a:00.0\"]
    services: {stop: a.service}
  windows:
    guests: [\"win*\", \"!win7\"]
    hugepages: {keep_free: 2GiB}
    block_sleep: {what: [idle]}
";

    #[test]
    fn a_guest_has_the_sections_of_its_groups_and_its_own_file_stands_above_them() {
        let machine = Machine::new();
        machine.write(GROUPS_FILE, GROUPS);
        let loaded = machine.load("win11").unwrap().unwrap();
        assert!(loaded.config.hugepages.is_some() && loaded.config.services.is_none());
        assert_eq!(
            origins_in_words(&loaded.from_groups),
            [
                "from group card of /etc/vfio-hook/guests.yaml: block_sleep",
                "from group windows of /etc/vfio-hook/guests.yaml: hugepages"
            ]
        );
        let at = KeyPath::from(&["hugepages", "keep_free"]);
        let place = loaded.diagnose(&at, "too much", None).short();
        assert_eq!(place, "/etc/vfio-hook/guests.yaml:10:28: too much");

        machine.write("/etc/vfio-hook/hooks.d/win11.yaml", "hugepages: {}\nfree_memory: {}\n");
        let loaded = machine.load("win11").unwrap().unwrap();
        assert_eq!(loaded.from_groups.keys().copied().collect::<Vec<_>>(), ["block_sleep"]);
        let place = loaded.diagnose(&at, "too much", None).short();
        assert!(place.starts_with("/etc/vfio-hook/hooks.d/win11.yaml:1:"), "{place}");

        assert_eq!(machine.load("win7").unwrap().unwrap().from_groups.len(), 1);
    }

    /// In both directions: what one section needs of another may stand in the other file.
    #[test]
    fn sections_of_two_files_know_of_each_other() {
        let (fifo, isolated) = ("schedule: {vcpus: fifo}\n", "isolate_cpus: {cpus: \"2-3\"}\n");
        let power = "cpu_power: {boost: true}\n";
        let together = GuestConfig::parse(Path::new("x.yaml"), &format!("{fifo}{isolated}{power}")).unwrap();
        for (own, group) in [(format!("{fifo}{power}"), isolated), (format!("{isolated}{power}"), fifo)] {
            let machine = Machine::new();
            machine.write("/etc/vfio-hook/hooks.d/win11.yaml", &own);
            machine.write(GROUPS_FILE, &format!("groups:\n  a:\n    guests: win11\n    {group}"));
            assert_eq!(machine.load("win11").unwrap().unwrap().config, together, "{own}");
        }
    }

    #[test]
    fn a_guest_that_a_wrong_file_has_in_a_group_is_known() {
        let is_in_group = |text: &str| {
            let machine = Machine::new();
            machine.write(GROUPS_FILE, text);
            let host = Host::simulated(machine.0.path(), &Faults::default());
            is_in_wrong_group(&host, &GuestName::new("win11"), &guest())
        };
        for (text, is_in) in [
            ("groups: {a: {guests: \"win*\", hugepages: {timeout: 5}}}", true),
            ("groups: {a: {guests: \"win*\", hugepages: {}}, b: {gusts: x, gpu: {}}}", true),
            ("groups: {a: {cards: \"0000:03:00.0\", x: {}}}", true),
            ("groups: {a: {guests: \"win*\", hugepages: {}}}", false),
            ("groups: {a: {guests: linux, hugepages: {timeout: 5}}}", false),
            ("groups: {a: {gusts: \"win*\", hugepages: {}}}", false),
            ("groups: {a: {guests: \"[\", hugepages: {}}}", false),
            ("groups: {a: {guests: \"win*\", hugepages: {timeout: 5}}", false),
            ("groups: {a: {cards: \"0000:0a:00.0\", x: {}}}", false),
        ] {
            assert_eq!(is_in_group(text), is_in, "{text}");
        }
    }

    #[test]
    fn why_a_guest_is_in_no_group_is_told() {
        let machine = Machine::new();
        machine.write(GROUPS_FILE, GROUPS);
        let host = Host::simulated(machine.0.path(), &Faults::default());
        let why = |name: &str, guest: &Guest| why_no_group_has(&host, &GuestName::new(name), guest).unwrap();
        assert!(why("win11", &guest()).is_empty());
        let without = "<domain type='kvm'><name>x</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
            <memory unit='GiB'>1</memory><vcpu>1</vcpu></domain>";
        let without = Guest::parse(without.as_bytes()).unwrap();
        assert_eq!(
            why("Win11", &without),
            [
                "group card: the guest's XML gives it none of the group's `cards`",
                "group other-card: the guest's XML gives it none of the group's `cards`",
                "group windows: `guests` has win*, !win7, which does not mean it: capital letters count",
            ]
        );
    }

    #[test]
    fn a_wrong_file_of_groups_is_told() {
        let machine = Machine::new();
        machine.write(
            GROUPS_FILE,
            "groups: {a: {}, b: {guests: [\"[\"], gpus: {}}, c: {guests: x}, 1: {}, d: {card: x, gpu: {}},\n  \
             e: {guests: [\"win{10,11}\", \"a/b\", \"^win.*$\"], gpu: {}}}\nx: 1\n",
        );
        let errors = machine.load("other").unwrap_err().to_string();
        insta::assert_snapshot!(errors);
    }

    #[test]
    fn no_file_is_only_where_the_name_is_free() {
        let machine = Machine::new();
        assert_eq!(machine.look(), (false, Ok(false)));
        fs::remove_dir_all(machine.path("/etc/vfio-hook")).unwrap();
        assert_eq!(machine.look(), (false, Ok(false)));
        fs::remove_dir_all(machine.path("/etc")).unwrap();
        assert_eq!(machine.look(), (false, Ok(false)));
    }

    #[test]
    fn what_cannot_be_read_is_a_file_and_is_refused_with_the_reason() {
        type Make<'a> = &'a dyn Fn(&Machine);
        let refused = |reason: &str| (true, Err(reason.to_owned()));
        let file = "/etc/vfio-hook/hooks.d/win11.yaml";
        let make: [(Make<'_>, &str); 6] = [
            (
                &|machine| symlink("nowhere.yaml", machine.file()).unwrap(),
                "/etc/vfio-hook/hooks.d/nowhere.yaml does not exist, and a symbolic link leads there",
            ),
            (
                &|machine| symlink("win11.yaml", machine.file()).unwrap(),
                &format!("{file} is reached through more than 40 symbolic links"),
            ),
            (
                &|machine| fs::create_dir(machine.file()).unwrap(),
                "/etc/vfio-hook/hooks.d/win11.yaml is a folder, not a regular file",
            ),
            (
                &|machine| mkfifo(&machine.file(), Mode::from_bits_truncate(0o600)).unwrap(),
                &format!("{file} is a named pipe, not a regular file"),
            ),
            (
                &|machine| {
                    fs::remove_dir(machine.path(CONFIG_DIR)).unwrap();
                    fs::write(machine.path(CONFIG_DIR), "").unwrap();
                },
                "/etc/vfio-hook/hooks.d is a regular file, not a folder",
            ),
            (
                &|machine| {
                    fs::remove_dir(machine.path(CONFIG_DIR)).unwrap();
                    symlink("not-mounted", machine.path(CONFIG_DIR)).unwrap();
                },
                "/etc/vfio-hook/not-mounted does not exist, and a symbolic link leads there",
            ),
        ];
        for (make, reason) in make {
            let machine = Machine::new();
            make(&machine);
            assert_eq!(machine.look(), refused(reason));
        }
    }
}

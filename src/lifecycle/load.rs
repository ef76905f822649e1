//! The YAML files: where they are, who may have written them, what they say.

use std::path::{Path, PathBuf};

use super::LifecycleError;
use crate::config::{ConfigErrors, ConfigSource, GuestConfig, HostConfig, read_trusted};
use crate::guest::GuestName;
use crate::host::Host;
use crate::monitor::built_in_deviations;

/// Where the guests' YAML files are.
pub const CONFIG_DIR: &str = "/etc/vfio-hook/hooks.d";

/// The YAML file of the host.
pub const HOST_FILE: &str = "/etc/vfio-hook/host.yaml";

/// A guest's YAML file, read and understood.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The file, to point into.
    pub source: ConfigSource,
    /// What it says.
    pub config: GuestConfig,
}

/// The path of a guest's YAML file; none for a name that is no safe file name.
#[must_use]
pub fn config_path(guest: &GuestName) -> Option<PathBuf> {
    Some(PathBuf::from(CONFIG_DIR).join(guest.config_file_name()?))
}

/// Whether a guest has a YAML file, also one that cannot be read: [`load_config`] tells why. Two calls of the kernel's
/// for a guest without one.
#[must_use]
pub fn has_config(host: &Host, guest: &GuestName) -> bool {
    config_path(guest).is_some_and(|path| host.is_named(path))
}

/// Reads a guest's YAML file; none where there is none.
///
/// # Errors
/// It is wrong, or somebody other than root could have written it.
pub fn load_config(host: &Host, guest: &GuestName) -> Result<Option<LoadedConfig>, LifecycleError> {
    let Some(path) = config_path(guest) else { return Ok(None) };
    let Some(bytes) = read_trusted(&host.root(), &path, host.trusted_owner())? else {
        return Ok(None);
    };
    let source = ConfigSource::from_bytes(path, bytes)?;
    let config = source.parse()?;
    Ok(Some(LoadedConfig { source, config }))
}

/// Reads the host's YAML file; where there is none, what is known without it.
///
/// # Errors
/// It is wrong, or somebody other than root could have written it.
pub fn load_host_config(host: &Host) -> Result<HostConfig, LifecycleError> {
    let bytes = read_trusted(&host.root(), Path::new(HOST_FILE), host.trusted_owner())?;
    let source = bytes.map(|bytes| ConfigSource::from_bytes(HOST_FILE, bytes)).transpose()?;
    Ok(host_config(source.as_ref())?)
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

        /// Whether the guest has a file, and what is read of it: the reason's first line, without this folder's name.
        fn look(&self) -> (bool, Result<bool, String>) {
            let host = Host::simulated(self.0.path(), &Faults::default());
            let guest = GuestName::new("win11");
            let loaded = load_config(&host, &guest).map(|loaded| loaded.is_some()).map_err(|error| {
                let text = error.to_string().replace(&*self.0.path().to_string_lossy(), "");
                text.lines().next().unwrap_or_default().to_owned()
            });
            (has_config(&host, &guest), loaded)
        }
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

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

//! The host's own YAML file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use vfio_hook::config::HostConfig;
use vfio_hook::lifecycle::{self, HOST_FILE, LifecycleError};

use super::support::Machine;

fn load(machine: &Machine) -> Result<HostConfig, LifecycleError> {
    lifecycle::load_host_config(&machine.host())
}

#[test]
fn is_optional_and_only_its_owner_writes_it() {
    let machine = Machine::new("ryzen-7950x");
    let built_in = load(&machine).unwrap();
    assert!(built_in.monitors.is_empty());
    assert!(built_in.deviation_named(&"lg-f4".parse().unwrap()).is_some());

    let path = machine.path(HOST_FILE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "monitors: {desk: {model: X}}\n").unwrap();
    let config = load(&machine).unwrap();
    assert_eq!(config.monitors.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["desk"]);

    fs::write(&path, "monitors: {desk: {}}\n").unwrap();
    let error = load(&machine).unwrap_err().to_string();
    assert!(error.starts_with("/etc/vfio-hook/host.yaml:1:18: `monitors.desk`: nothing is said"), "{error}");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(load(&machine).unwrap_err(), LifecycleError::Trust(_)));
}

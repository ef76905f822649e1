//! Which modules know a function: `modules.alias`, as depmod makes it from the modules of a kernel.

use std::path::PathBuf;

use super::{DRIVERS, file};
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// How aliases of ordinary drivers begin.
const ORDINARY: &str = "pci:";

/// How those of vfio's drivers begin.
pub(super) const VFIO: &str = "vfio_pci:";

/// The fields of a modalias of PCI, in order (`pci_uevent` in `drivers/pci/pci-driver.c`).
const FIELDS: [&str; 7] = ["v", "d", "sv", "sd", "bc", "sc", "i"];

/// A modalias, or a pattern for one: a text for each field.
type Fields<'a> = [&'a str; FIELDS.len()];

/// An alias that fits a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FittingAlias<'a> {
    /// The module it is of.
    pub(super) module: &'a str,
    /// How many of its fields may be anything.
    pub(super) wildcards: usize,
}

/// `modules.alias` of a kernel.
pub(super) fn modules_alias(release: &str) -> PathBuf {
    PathBuf::from(format!("/lib/modules/{release}/modules.alias"))
}

/// The aliases of one kind that a function's modalias fits, in their order.
pub(super) fn fitting<'a>(
    kind: &'static str,
    modalias: &str,
    aliases: &'a str,
) -> impl Iterator<Item = FittingAlias<'a>> {
    let device = modalias.strip_prefix(ORDINARY).and_then(fields).map(|fields| fields.map(str::to_owned));
    aliases.lines().filter_map(move |line| {
        let (pattern, module) =
            line.strip_prefix("alias ")?.strip_prefix(kind)?.split_once(char::is_whitespace)?;
        let pattern = fields(pattern)?;
        let fits = pattern.iter().zip(device.as_ref()?).all(|(pattern, field)| fits(pattern, field));
        let wildcards = pattern.iter().filter(|pattern| **pattern == "*").count();
        fits.then_some(FittingAlias { module: module.trim(), wildcards })
    })
}

/// A number, a `*` for any, or both: depmod ends the last field with one (`add_wildcard` in
/// `scripts/mod/file2alias.c`).
fn fits(pattern: &str, field: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == field, |start| field.starts_with(start))
}

/// `v00001002d000073BFsv*sd*bc03sc00i*` in its parts. Numbers are in capital hexadecimal digits and the fields' names
/// in small letters, so that a name is found where the number before it ends.
fn fields(text: &str) -> Option<Fields<'_>> {
    let mut values = [""; FIELDS.len()];
    let mut rest = text;
    for (value, name) in values.iter_mut().zip(FIELDS) {
        rest = rest.strip_prefix(name)?;
        let end = rest.find(|c: char| c.is_ascii_lowercase()).unwrap_or(rest.len());
        (*value, rest) = rest.split_at(end);
        if value.is_empty() {
            return None;
        }
    }
    rest.is_empty().then_some(values)
}

impl Host {
    /// The modules of the host that are loaded, know a function and have made a driver: the kernel gives it to one of
    /// them when it finds it. Drivers that are built into the kernel are not in `modules.alias`.
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]); the file cannot be read.
    pub fn loaded_drivers_of(&self, address: PciAddress) -> Result<Vec<String>, HostError> {
        let modalias = self.text(file(address, "modalias"))?;
        let aliases = self.text_if_present(modules_alias(&self.kernel_release()?))?.unwrap_or_default();
        let mut modules: Vec<&str> =
            fitting(ORDINARY, &modalias, &aliases).map(|alias| alias.module).collect();
        modules.sort_unstable();
        modules.dedup();
        let mut loaded = Vec::new();
        for module in modules {
            let drivers = self.names_if_present(format!("/sys/module/{module}/drivers"))?;
            if drivers.iter().any(|driver| driver.starts_with(ORDINARY)) {
                loaded.push(module.to_owned());
            }
        }
        Ok(loaded)
    }

    /// Whether a driver is loaded, or built in.
    pub(crate) fn has_pci_driver(&self, driver: &super::DriverName) -> bool {
        self.is_present(PathBuf::from(DRIVERS).join(driver.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_field_may_end_in_anything() {
        let modalias = "pci:v00001002d000073BFsv00001EAEsd00006601bc03sc00i00";
        let aliases = "\
alias pci:v00001002d*sv*sd*bc03sc00i00* amdgpu
alias pci:v00001002d*sv*sd*bc03sc80i00* other
alias pci:v00001002d000073BEsv*sd*bc*sc*i* one
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
";
        let found: Vec<&str> = fitting(ORDINARY, modalias, aliases).map(|alias| alias.module).collect();
        assert_eq!(found, ["amdgpu"]);
        assert_eq!(fitting(VFIO, modalias, aliases).count(), 1);
        assert_eq!(fitting(ORDINARY, "pci:", aliases).count(), 0);
    }
}

//! Which of vfio's drivers a function is given to.
//!
//! Some devices have a variant of vfio-pci of their own. libvirt 10.0 and newer takes it for a device that it detaches
//! (`virPCIDeviceFindBestVFIOVariant` in `src/util/virpci.c`), and so does this.

use std::path::PathBuf;

use super::{DriverName, file};
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// How such a line of `modules.alias` begins. Aliases of ordinary drivers begin with `pci:`.
const VFIO_ALIAS: &str = "alias vfio_pci:";

/// The fields of a modalias of PCI, in order (`pci_uevent` in `drivers/pci/pci-driver.c`).
const FIELDS: [&str; 7] = ["v", "d", "sv", "sd", "bc", "sc", "i"];

/// A modalias, or a pattern for one: a text for each field, `*` for any.
type Fields<'a> = [&'a str; FIELDS.len()];

impl Host {
    /// The driver that libvirt would choose: of the `vfio_pci:` aliases in `/lib/modules/RELEASE/modules.alias` that the
    /// function matches, the one with the fewest wildcards; vfio-pci where there is none.
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]); the file cannot be read or names no module.
    pub fn vfio_driver_for(&self, address: PciAddress) -> Result<DriverName, HostError> {
        let modalias = self.text(file(address, "modalias"))?;
        let release = self.text("/proc/sys/kernel/osrelease")?;
        let path = PathBuf::from(format!("/lib/modules/{release}/modules.alias"));
        let aliases = self.text_if_present(&path)?.unwrap_or_default();
        match best_variant(&modalias, &aliases) {
            Some(module) => DriverName::of_module(module).map_err(|error| HostError::content(&path, error)),
            None => Ok(DriverName::vfio_pci()),
        }
    }
}

/// The module of the alias that fits best; the first of equals.
fn best_variant<'a>(modalias: &str, aliases: &'a str) -> Option<&'a str> {
    let device = fields(modalias.strip_prefix("pci:")?)?;
    let fitting = aliases.lines().filter_map(|line| {
        let (pattern, module) = line.strip_prefix(VFIO_ALIAS)?.split_once(char::is_whitespace)?;
        let pattern = fields(pattern)?;
        let fits = pattern.iter().zip(device).all(|(pattern, field)| *pattern == "*" || *pattern == field);
        let wildcards = pattern.iter().filter(|pattern| **pattern == "*").count();
        fits.then_some((wildcards, module.trim()))
    });
    fitting.min_by_key(|(wildcards, _)| *wildcards).map(|(_, module)| module)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As depmod of kmod 34 writes it for Linux 6.12.
    const ALIASES: &str = "\
# Aliases extracted from modules themselves.
alias pci:v00001002d000073BFsv*sd*bc*sc*i* amdgpu
alias pci:v00001002d*sv*sd*bc03sc00i* amdgpu
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci
alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci
alias vfio_pci:v00001AF4d00001041sv*sd*bc*sc*i* virtio_vfio_pci
alias vfio_pci:v00001AF4d*sv*sd*bc*sc*i* broad_vfio_pci
alias vfio_pci:broken mlx5_vfio_pci
alias usb:v0001p0002d*dc*dsc*dp*ic*isc*ip*in* something
";

    fn best(modalias: &str) -> Option<&'static str> {
        best_variant(modalias, ALIASES)
    }

    #[test]
    fn an_ordinary_card_gets_vfio_pci() {
        assert_eq!(best("pci:v00001002d000073BFsv00001EAEsd00006601bc03sc00i00"), Some("vfio_pci"));
        assert_eq!(best_variant("pci:v00001002d000073BFsv00001EAEsd00006601bc03sc00i00", ""), None);
    }

    #[test]
    fn a_variant_of_its_own_goes_first() {
        assert_eq!(
            best("pci:v000010DEd00002342sv000010DEsd000016C1bc03sc02i00"),
            Some("nvgrace_gpu_vfio_pci")
        );
        assert_eq!(best("pci:v000015B3d0000101Esv000015B3sd00000058bc02sc00i00"), Some("mlx5_vfio_pci"));
        assert_eq!(best("pci:v000010DEd00002343sv000010DEsd000016C1bc03sc02i00"), Some("vfio_pci"));
    }

    #[test]
    fn the_alias_with_the_fewest_wildcards_wins() {
        assert_eq!(best("pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00"), Some("virtio_vfio_pci"));
        assert_eq!(best("pci:v00001AF4d00001042sv00001AF4sd00001100bc02sc00i00"), Some("broad_vfio_pci"));
    }

    #[test]
    fn what_is_no_modalias_fits_nothing() {
        for text in ["", "pci:", "usb:v0001", "pci:v00001002d000073BF", "pci:v1d2sv3sd4bc5sc6i7x8"] {
            assert_eq!(best(text), None, "{text:?}");
        }
    }
}

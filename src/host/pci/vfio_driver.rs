//! Which of vfio's drivers a function is given to.
//!
//! Some devices have a variant of vfio-pci of their own. libvirt 10.0 and newer takes it for a device that it detaches
//! (`virPCIDeviceFindBestVFIOVariant` in `src/util/virpci.c`), and so does this.

use super::modules_alias::{VFIO, fitting, modules_alias};
use super::{DriverName, file};
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

impl Host {
    /// The driver that libvirt would choose: of the `vfio_pci:` aliases in `/lib/modules/RELEASE/modules.alias` that
    /// the function matches, the one with the fewest wildcards; vfio-pci where there is none.
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]); the file cannot be read or names no module.
    pub fn vfio_driver_for(&self, address: PciAddress) -> Result<DriverName, HostError> {
        let modalias = self.text(file(address, "modalias"))?;
        let path = modules_alias(&self.kernel_release()?);
        let aliases = self.text_if_present(&path)?.unwrap_or_default();
        match best_variant(&modalias, &aliases) {
            Some(module) => DriverName::of_module(module).map_err(|error| HostError::content(&path, error)),
            None => Ok(DriverName::vfio_pci()),
        }
    }
}

/// The module of the alias that fits best; the first of equals.
fn best_variant<'a>(modalias: &str, aliases: &'a str) -> Option<&'a str> {
    let best = fitting(VFIO, modalias, aliases).min_by_key(|alias| alias.wildcards)?;
    Some(best.module)
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

//! Memory that the guest shares with the host: `<shmem name='looking-glass'>`.

use super::error::{GuestError, ValueError};
use super::xml::Element;
use crate::pages::MemorySize;

/// What a `<shmem>` without `<size>` has (`docs/formatdomain.rst` of libvirt).
const DEFAULT_MIB: u64 = 4;

/// A memory that the guest shares with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shmem {
    /// The name of its file in `/dev/shm`.
    pub name: String,
    /// How large it is.
    pub size: MemorySize,
}

/// Reads `<devices><shmem>`; those behind a server (`ivshmem-doorbell`) have no file here.
pub(super) fn shmems(domain: &Element<'_>) -> Result<Vec<Shmem>, GuestError> {
    let mut shmems = Vec::new();
    for shmem in domain.find_all("devices/shmem")? {
        let name = shmem.attribute("name").ok_or_else(|| shmem.missing("name"))?;
        if name.len() > 255 {
            return Err(shmem.bad("name", name, ValueError::TooLong(255)));
        }
        let is_plain =
            shmem.find("model").is_none_or(|model| model.attribute("type") != Some("ivshmem-doorbell"));
        if !is_plain || shmem.find("server").is_some() {
            continue;
        }
        let size = match shmem.find("size") {
            None => MemorySize::from_kib(DEFAULT_MIB * 1024),
            Some(size) if size.attribute("unit").is_some() => size.text_memory()?,
            // Bytes without a unit, unlike `<memory>` (`virDomainShmemDefParseXML`).
            Some(size) => MemorySize::from_bytes(size.text_number()?.into()),
        };
        shmems.push(Shmem { name: name.to_owned(), size });
    }
    Ok(shmems)
}

#[cfg(test)]
mod tests {
    use crate::guest::testing::{guest, refusal};

    #[test]
    fn files_of_shared_memory_have_a_name_and_a_size() {
        let guest = guest(
            "<devices><shmem name='looking-glass'><model type='ivshmem-plain'/><size unit='M'>128</size></shmem>\
             <shmem name='small'/><shmem name='bytes'><size>1048576</size></shmem>\
             <shmem name='far'><model type='ivshmem-doorbell'/><server path='/x'/></shmem></devices>",
        );
        let found: Vec<String> =
            guest.shmems.iter().map(|shmem| format!("{} {}", shmem.name, shmem.size)).collect();
        assert_eq!(found, ["looking-glass 128 MiB", "small 4 MiB", "bytes 1 MiB"]);
        assert_eq!(refusal("<devices><shmem/></devices>"), "the guest's XML has no devices/shmem: name");
    }
}

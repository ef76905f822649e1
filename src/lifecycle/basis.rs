//! What a lease was taken by: the configuration and the guest as they were then.

use super::{LoadedConfig, load_config};
use crate::guest::{Guest, GuestName, MAX_XML_BYTES};
use crate::host::{Host, read_given_file};
use crate::ledger::{Basis, Lease, Sameness};

/// Where libvirt keeps its guests' XML (`SYSCONFDIR/libvirt/qemu`).
pub const LIBVIRT_DIR: &str = "/etc/libvirt/qemu";

/// How fingerprints are made. The ledger has them, and another version of this program may read it: one that makes them in
/// another way has another number. 0: of this program's own types, which differ between versions. 1: of what the files
/// say, and of the guest's fields. 2: drives are among those.
const SCHEME: u32 = 2;

/// The fingerprints of a configuration and a guest.
pub(super) fn basis(loaded: &LoadedConfig, guest: &Guest) -> Basis {
    let sections = loaded.canonical();
    let sections: String = sections.iter().map(|(name, written)| format!("{name}: {written}\n")).collect();
    Basis { scheme: SCHEME, configuration: fingerprint(&sections), guest: fingerprint(&format!("{guest:?}")) }
}

/// Whether a guest's configuration says something else now than when its lease was taken. None where libvirt or the files
/// do not say.
#[must_use]
pub fn configuration_since(host: &Host, lease: &Lease) -> Option<Sameness> {
    let taken_by = lease.basis?;
    let name = GuestName::new(&lease.name);
    name.config_file_name()?;
    let path = host.locate(format!("{LIBVIRT_DIR}/{}.xml", lease.name).as_ref());
    let guest = Guest::parse(&read_given_file(&path, MAX_XML_BYTES).ok()?).ok()?;
    let now = load_config(host, &name, &guest).ok()?.map(|loaded| basis(&loaded, &guest));
    Some(now.map_or(Sameness::Changed, |now| now.configuration_of(&taken_by)))
}

/// FNV-1a, of 64 bits (draft-eastlake-fnv): no defence against one who wants equal ones, which root has no need of.
fn fingerprint(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::GuestConfig;
    use crate::config::ConfigSource;
    use crate::host::simulated::Faults;

    const EVERYTHING: &str = include_str!("../../tests/data/guests/everything.xml");

    fn loaded(yaml: &str) -> LoadedConfig {
        let source = ConfigSource::new("win11.yaml", yaml);
        let config = GuestConfig::read(&source).unwrap();
        LoadedConfig::of_file(source, config)
    }

    fn everything() -> Guest {
        Guest::parse(EVERYTHING.as_bytes()).unwrap()
    }

    fn of(yaml: &str) -> Basis {
        basis(&loaded(yaml), &everything())
    }

    #[test]
    fn fingerprints_are_those_of_fnv() {
        // Test vectors of the draft's appendix C.
        assert_eq!(fingerprint(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint("foobar"), 0x8594_4171_f739_67e8);
    }

    /// The ledger of a guest that runs has the number of the program that started it. A new section, or a key with another
    /// name inside the program, changes nothing here. Where this test fails because a fingerprint is made in another way,
    /// or because `Guest` has another field, raise [`SCHEME`] and write the new numbers.
    #[test]
    fn the_fingerprints_are_the_same_in_every_program_of_this_scheme() {
        let yaml = "version: 1\nhugepages: {keep_free: 2GiB}\nblock_sleep: {what: [idle]}\nfree_memory:\n";
        let expected =
            Basis { scheme: 2, configuration: 0xeb9b_9ddd_2ebe_bd73, guest: 0x79b1_a973_26ec_6af9 };
        assert_eq!(of(yaml), expected);
    }

    #[test]
    fn what_a_person_wrote_counts_and_not_how() {
        let basis = of("hugepages: {keep_free: 2GiB}\nblock_sleep: {}\n");
        let same = "# a comment\nblock_sleep: {}\nhugepages:\n  \"keep_free\": '2GiB'\nversion: 1\n";
        assert_eq!(of(same).all_of(&basis), Sameness::Same);
        for other in ["hugepages: {keep_free: 1GiB}\nblock_sleep: {}\n", "hugepages: {keep_free: 2GiB}\n"] {
            assert_eq!(of(other).configuration_of(&basis), Sameness::Changed, "{other}");
        }
    }

    #[test]
    fn another_guest_with_the_same_file_has_the_same_configuration() {
        let loaded = loaded("block_sleep: {}\n");
        let other = Guest { partition: Some("/other".to_owned()), ..everything() };
        let (one, other) = (basis(&loaded, &everything()), basis(&loaded, &other));
        assert_eq!(other.configuration_of(&one), Sameness::Same);
        assert_eq!(other.all_of(&one), Sameness::Changed);
    }

    /// Also of programs that had no scheme yet.
    #[test]
    fn of_another_scheme_nothing_can_be_told() {
        let now = of("block_sleep: {}\n");
        let earlier: Basis = serde_json::from_str("{\"configuration\": 1, \"guest\": 2}").unwrap();
        let later = Basis { scheme: SCHEME + 1, ..now };
        for then in [earlier, later] {
            assert_eq!(now.configuration_of(&then), Sameness::CannotBeTold);
            assert_eq!(now.all_of(&then), Sameness::CannotBeTold);
        }
    }

    /// As [`load_config`] puts them together, with the guest's own file above its groups.
    #[test]
    fn a_section_of_a_group_is_as_if_the_guests_own_file_had_it() {
        use std::fs;
        use std::os::unix::fs::PermissionsExt;

        let machine = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = machine.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            for path in path.ancestors().take_while(|path| *path != machine.path()) {
                let mode = if path.is_dir() { 0o755 } else { 0o644 };
                fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            }
        };
        let load = || {
            let host = Host::simulated(machine.path(), &Faults::default());
            basis(
                &load_config(&host, &GuestName::new("win11"), &everything()).unwrap().unwrap(),
                &everything(),
            )
        };
        let group = |name: &str, sections: &str| {
            let groups = format!("groups: {{{name}: {{guests: ['*'], {sections}}}}}\n");
            write("etc/vfio-hook/guests.yaml", &groups);
        };
        group("windows", "block_sleep: {what: [idle]}, hugepages: {}");
        let basis = load();
        assert_eq!(basis, of("hugepages: {}\nblock_sleep: {what: [idle]}\n"));
        group("other", "hugepages: {}, block_sleep: {what: [idle]}");
        assert_eq!(load(), basis, "the group's name does not count");
        write("etc/vfio-hook/hooks.d/win11.yaml", "hugepages: {}\n");
        assert_eq!(load(), basis);
        group("other", "block_sleep: {what: [sleep]}");
        assert_eq!(load().configuration_of(&basis), Sameness::Changed);
    }
}

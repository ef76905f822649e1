//! The control groups that a guest will be in.

use super::Guest;

/// libvirt's own partition.
const DEFAULT_PARTITION: &str = "/machine";

impl Guest {
    /// systemd's slices that the guest's scope will be in, the one at the top of the tree first: `<partition>` of
    /// `/machine/rt` is `machine.slice`, then `machine-rt.slice` (`virSystemdMakeSliceName` in libvirt's
    /// `src/util/virsystemd.c`; systemd puts each slice into the one whose name its own begins with).
    #[must_use]
    pub fn cgroup_path(&self) -> Vec<String> {
        let partition = self.partition.as_deref().unwrap_or(DEFAULT_PARTITION);
        let mut prefix = String::new();
        let parts = partition.split('/').filter(|part| !part.is_empty());
        parts
            .map(|part| {
                if !prefix.is_empty() {
                    prefix.push('-');
                }
                prefix.push_str(&escaped(part));
                format!("{prefix}.slice")
            })
            .collect()
    }
}

/// As `virSystemdEscapeName`: what no unit may have in its name, and the dash that is between slices.
fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for (position, byte) in part.bytes().enumerate() {
        let is_plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_') || (byte == b'.' && position > 0);
        if is_plain { text.push(char::from(byte)) } else { text.push_str(&format!("\\x{byte:02x}")) }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::guest::testing::guest;

    #[test]
    fn every_part_of_a_partition_is_a_slice_in_the_one_before() {
        for (partition, path) in [
            ("/machine", &["machine.slice"][..]),
            ("/machine/rt", &["machine.slice", "machine-rt.slice"]),
            ("/machine/rt/a", &["machine.slice", "machine-rt.slice", "machine-rt-a.slice"]),
            ("/my-guests", &["my\\x2dguests.slice"]),
            ("/virt.v1//a b/", &["virt.v1.slice", "virt.v1-a\\x20b.slice"]),
        ] {
            let guest = guest(&format!("<resource><partition>{partition}</partition></resource>"));
            assert_eq!(guest.cgroup_path(), path, "{partition}");
        }
        assert_eq!(guest("").cgroup_path(), ["machine.slice"]);
    }
}

//! Classes of places: a path with its numbers and the guest taken out, or what else a descriptor stands for.

use std::path::Path;

use crate::sandbox::{GUEST, UUID};

/// The class of a path as the kernel shows it, on the host in this folder.
pub(crate) fn class(path: &str, root: &Path) -> String {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let on_host = root.to_str().and_then(|root| path.strip_prefix(root)).unwrap_or(path);
    let on_host = on_host.strip_prefix("/shown").unwrap_or(on_host);
    let named = on_host.replace(UUID, "UUID").replace(GUEST, "GUEST");
    let mut class = String::new();
    for part in named.split('/') {
        if !class.is_empty() || named.starts_with('/') {
            class.push('/');
        }
        class.push_str(&without_numbers(part));
    }
    // The first part of an absolute path is empty.
    let class = class.replacen("//", "/", 1);
    if class.is_empty() { "/".to_owned() } else { class }
}

fn without_numbers(part: &str) -> String {
    // `.XXXXXX.new`: six letters by chance (tempfile).
    if let Some(name) = part.strip_prefix('.').and_then(|part| part.strip_suffix(".new"))
        && name.len() == 6
    {
        return ".N.new".to_owned();
    }
    let mut text = String::new();
    for letter in part.chars() {
        match letter {
            '0'..='9' if text.ends_with('N') => {}
            '0'..='9' => text.push('N'),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_the_guest_are_taken_out() {
        let root = Path::new("/dev/shm/.tmpX");
        for (path, expected) in [
            ("/proc/irq/24/smp_affinity_list", "/proc/irq/N/smp_affinity_list"),
            ("/dev/shm/.tmpX/shown/proc/irq/9/smp_affinity_list", "/proc/irq/N/smp_affinity_list"),
            ("/run/vfio-hook/.Ab3dEf.new", "/run/vfio-hook/.N.new"),
            ("/dev/shm/.tmpX/run/vfio-hook/.Ab3dEf.new (deleted)", "/run/vfio-hook/.N.new"),
            (
                "/run/vfio-hook/keeper-c0ffee00-1111-4222-8333-44445555666f.sock",
                "/run/vfio-hook/keeper-UUID.sock",
            ),
            ("/etc/vfio-hook/hooks.d/win11.yaml", "/etc/vfio-hook/hooks.d/GUEST.yaml"),
            ("/", "/"),
            ("/dev/shm/.tmpX", "/"),
            ("pipe:[4711]", "pipe:[N]"),
        ] {
            assert_eq!(class(path, root), expected, "{path}");
        }
    }
}

//! Units that are not stopped for a guest: without them nothing starts one, ends it or looks after it.

use super::word_list::WordList;

/// By the beginning of the name.
const BY_BEGINNING: [(&str, &str); 15] = [
    ("libvirt", "libvirt itself needs it"),
    ("virtqemud", "libvirt itself needs it"),
    ("virtlogd", "libvirt itself needs it"),
    ("virtlockd", "libvirt itself needs it"),
    ("virtnetworkd", "libvirt itself needs it"),
    ("virtnodedevd", "libvirt itself needs it"),
    ("virtstoraged", "libvirt itself needs it"),
    ("virtsecretd", "libvirt itself needs it"),
    ("virtnwfilterd", "libvirt itself needs it"),
    ("virtinterfaced", "libvirt itself needs it"),
    ("dbus", "nothing could start it again without the bus"),
    ("systemd-", "the host itself needs it"),
    ("user@", "it would end the user's session"),
    ("session-", "it would end the user's session"),
    ("vfio-hook-", "it looks after a guest"),
];

/// By the whole name: nearly everything stops with these.
const BY_NAME: WordList = WordList(
    "-.mount usr.mount etc.mount var.mount run.mount proc.mount sys.mount dev.mount dev-shm.mount dev-pts.mount \
    sys-fs-cgroup.mount sysinit.target basic.target local-fs.target",
);

/// What libvirt's daemons are called, with their sockets; `libvirt-guests` is none of them.
const LIBVIRT: WordList = WordList(
    "libvirtd virtqemud virtlogd virtlockd virtnetworkd virtnodedevd virtstoraged virtsecretd virtnwfilterd \
    virtinterfaced virtproxyd",
);

/// What is never started for a guest, by the beginning of the name.
const NEVER_STARTED: [(WordList, &str); 5] = [
    (WordList("systemd- initrd"), "it is the host's own"),
    (WordList("vfio-hook-"), "it looks after a guest"),
    (
        WordList(
            "poweroff. reboot. halt. kexec. soft-reboot. shutdown. ctrl-alt-del. runlevel0. runlevel6. umount. final.",
        ),
        "it ends the host",
    ),
    (WordList("rescue. emergency. runlevel1. exit."), "it ends everything else"),
    (WordList("sleep. suspend hibernate. hybrid-sleep."), "the host would sleep"),
];

/// Why a unit is never started for a guest, in words; none if it may be.
#[must_use]
pub(super) fn why_never_started(unit: &str) -> Option<&'static str> {
    let fits = |starts: WordList| starts.iter().any(|start| unit.starts_with(start));
    NEVER_STARTED.iter().find(|(starts, _)| fits(*starts)).map(|(_, reason)| *reason)
}

/// Whether a word names one of libvirt's daemons, or a unit of it.
pub(super) fn is_of_libvirt(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    let sockets = ["-ro", "-admin", "-tcp", "-tls"];
    let stem = sockets.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    LIBVIRT.contain(stem)
}

/// Display managers, by the names of their units (`display-manager.service` is an alias of one of them).
const DISPLAY_MANAGERS: WordList = WordList(
    "display-manager gdm gdm3 sddm lightdm lxdm ly greetd xdm kdm slim nodm emptty lemurs \
    entrance cosmic-greeter plasmalogin",
);

/// Why a unit is never stopped for a guest, in words; none if it may be.
#[must_use]
pub fn why_spared(unit: &str) -> Option<&'static str> {
    let beginning = BY_BEGINNING.iter().find(|(start, _)| unit.starts_with(start)).map(|(_, reason)| *reason);
    beginning.or_else(|| BY_NAME.contain(unit).then_some("the host itself needs it"))
}

/// Whether a unit of the system is a display manager.
pub(super) fn is_display_manager(unit: &str) -> bool {
    unit.strip_suffix(".service").is_some_and(|name| DISPLAY_MANAGERS.contain(name))
}

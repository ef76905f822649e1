//! Files of the kernel's that have no row in the table, by their path.

use std::path::{Path, PathBuf};

use super::super::{Proposal, Situation};
use super::named::place;
use crate::config::{Fault, Item, Node, WordList, kernel_text, path_of_sysctl};
use crate::host::{NoSetting, check_kernel_path};
use crate::ledger::{Attribute, KernelFile, TUNABLES};

/// Files that are no settings, or that another section has, with what to do instead. The end of a path is meant.
const OTHERS: [(&str, &str); 8] = [
    (
        "/proc/sys/net/ipv4/conf/all/forwarding",
        "/proc/sys/net/ipv4/ip_forward is the same value: name that one",
    ),
    ("/proc/sys/vm/drop_caches", "`free_memory` drops caches; it is no setting"),
    ("/proc/sys/vm/compact_memory", "`free_memory` compacts memory; it is no setting"),
    ("/proc/sys/vm/nr_hugepages", "the section `hugepages` makes pages for the guest"),
    ("/proc/sys/vm/nr_hugepages_mempolicy", "the section `hugepages` makes pages for the guest"),
    ("/proc/sys/vm/nr_overcommit_hugepages", "the section `hugepages` makes pages for the guest"),
    ("/sys/kernel/mm/hugepages", "the section `hugepages` makes pages for the guest"),
    ("/sys/kernel/irq", "`isolate_cpus` moves interrupts"),
];

/// Values that the kernel takes, and none after them until the next boot (`proc_dointvec_minmax_bpf_stats`,
/// `proc_dou8vec_minmax` and their neighbours in `kernel/`, `security/yama`).
const ONE_WAY: WordList = WordList(
    "/proc/sys/kernel/unprivileged_bpf_disabled=1 /proc/sys/kernel/kexec_load_disabled=1 \
    /proc/sys/kernel/modules_disabled=1 /proc/sys/kernel/yama/ptrace_scope=3 \
    /sys/module/module/parameters/sig_enforce=1 /sys/module/module/parameters/sig_enforce=Y",
);

/// Files whose value can only become smaller: what it was does not come back.
const ONLY_LESS: WordList = WordList(
    "/proc/sys/kernel/kexec_load_limit_panic /proc/sys/kernel/kexec_load_limit_reboot /sys/kernel/kexec_crash_size",
);

/// Files that do something when they are written, or whose value changes by itself.
const TRIGGERS: WordList = WordList(
    "/proc/sys/vm/stat_refresh /proc/sys/net/ipv4/route/flush /proc/sys/net/ipv6/route/flush \
    /proc/sys/fs/binfmt_misc/register /proc/sys/fs/binfmt_misc/status /proc/sys/kernel/ns_last_pid \
    /proc/sys/kernel/cad_pid",
);

/// A path of a file, as messages name it.
#[derive(Clone, Debug, PartialEq)]
struct NamedFile(String);

impl std::fmt::Display for NamedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn read(item: Item<'_>) -> Vec<(PathBuf, String)> {
    const EXAMPLE: &str = "files: {\"/proc/sys/kernel/sched_autogroup_enabled\": 0}";
    let pairs = item.pairs("sets nothing", EXAMPLE, read_path, |item| {
        let path = item
            .name()
            .strip_prefix("tune.files.")
            .or_else(|| item.name().split_once(".files.").map(|split| split.1));
        let path = path.unwrap_or_default().to_owned();
        item.value(|node| comes_back(&path, kernel_text(node)?))
    });
    pairs.into_iter().map(|(path, value)| (PathBuf::from(path.0), value)).collect()
}

/// A value after which the file takes others, too.
fn comes_back(path: &str, value: String) -> Result<String, Fault> {
    if ONE_WAY.contain(&format!("{path}={value}")) {
        let message = format!(
            "once it is {value}, the kernel takes no other value until a reboot: it could not come back"
        );
        return Err(Fault::new(message, "remove the line; what is to stay is set at boot, in /etc/sysctl.d"));
    }
    Ok(value)
}

fn read_path(node: &Node) -> Result<NamedFile, Fault> {
    let Node::Text(path) = node else { return Err(Fault::expected("a path", node)) };
    let refused = |reason: &str, help: String| Err(Fault::new(format!("{path}: {reason}"), help));
    if let Some(meant) = path_of_sysctl(path) {
        let help = match name_of(&meant) {
            Some(key) => format!("write `{key}` into `tune`"),
            None => format!("write `\"{meant}\"`"),
        };
        return refused("it has to be the whole path", help);
    }
    if path.starts_with('~') || path.contains('$') {
        return refused("it has to be the whole path", "no shell fills in a home or a variable".to_owned());
    }
    if ONLY_LESS.contain(path) {
        let help = "remove the line: it could not come back".to_owned();
        return refused("the kernel lets it become smaller only", help);
    }
    if TRIGGERS.contain(path) {
        return refused("it is no setting", "for what is done once, `run` has commands".to_owned());
    }
    if let Err(reason) = check_kernel_path(path) {
        let help = "for what lies elsewhere, `run` has commands".to_owned();
        return refused(&reason, help);
    }
    if let Some((_, help)) = OTHERS.iter().find(|(other, _)| Path::new(path).starts_with(other)) {
        return refused("it is not set here", (*help).to_owned());
    }
    match name_of(path) {
        Some(key) => refused("it has a name here", format!("write `{key}` into `tune`")),
        None => Ok(NamedFile(path.clone())),
    }
}

/// The key that a file has: two ways to one file would be two settings.
fn name_of(path: &str) -> Option<String> {
    if let Some(row) = TUNABLES.iter().find(|row| row.path == path) {
        return Some(row.name.to_owned());
    }
    let disk = path.strip_prefix("/sys/block/")?.split('/').next()?;
    let key = [
        (Attribute::disk_scheduler(disk), "scheduler: …"),
        (Attribute::disk_read_ahead(disk), "read_ahead: …"),
    ];
    // The same value, behind a link.
    let bdi = path.strip_suffix("/bdi/read_ahead_kb").map(|disk| format!("{disk}/queue/read_ahead_kb"));
    let path = bdi.as_deref().unwrap_or(path);
    let found = key.into_iter().find(|(attribute, _)| attribute.path() == Path::new(path));
    found.map(|(_, key)| format!("disks: {{ {disk}: {{ {key} }} }}"))
}

pub(super) fn propose(path: &Path, value: &str, situation: Situation<'_>, proposal: &mut Proposal) {
    let at = place("files").key(path.display().to_string());
    let setting = match situation.host.kernel_setting(path) {
        Ok(setting) => setting,
        Err(NoSetting::Host(error)) if error.is_absent() => {
            let help = "is it of another kernel's version, or is its module not loaded? Else remove the line";
            proposal.refuse(at, format!("the host has no {}", path.display()), help);
            return;
        }
        Err(error) => {
            proposal.refuse(at, error.to_string(), "remove the line");
            return;
        }
    };
    if !setting.choices.is_empty() && !setting.choices.iter().any(|choice| choice == value) {
        proposal.refuse(
            at,
            format!("{} has no `{value}`", path.display()),
            format!("it has {}", setting.choices.join(", ")),
        );
        return;
    }
    proposal.claim(KernelFile(path.to_owned()), as_shown(&setting.value, value), at);
}

/// The kernel shows what a module takes for yes or no as `Y` or `N` (`param_get_bool` in `kernel/params.c`).
fn as_shown(now: &str, value: &str) -> String {
    let is_switch = matches!(now, "Y" | "N");
    match value {
        "1" | "y" | "Y" | "on" | "true" if is_switch => "Y".to_owned(),
        "0" | "n" | "N" | "off" | "false" if is_switch => "N".to_owned(),
        other => other.to_owned(),
    }
}

//! Commands that nobody means: one that libvirt waits for and that waits for libvirt, ends it, or ends the host.

use super::inner_commands::{InnerCommand, inner_commands};
use super::spared_units::is_of_libvirt;
use super::value::Fault;
use super::word_list::WordList;

/// Programs that come back before what they run has ended.
const DETACHING: WordList = WordList("systemd-run at batch");

/// Programs of libvirt's that do not ask its daemon (virt-what(1), virt-host-validate(1), virt-pki-validate(1)).
const ASK_NOBODY: WordList =
    WordList("virt-what virt-host-validate virt-pki-validate virt-pki-query-dn virt-xml-validate");

/// What `systemctl` does to a unit so that it does not run, for a moment at least.
const STOPS: WordList = WordList("stop kill restart try-restart reload-or-restart condrestart");

/// What `systemctl` does to the host, and programs of the same names.
const ENDS_HOST: WordList = WordList(
    "poweroff reboot halt kexec soft-reboot shutdown suspend hibernate hybrid-sleep suspend-then-hibernate sleep \
    rescue emergency exit pm-suspend pm-hibernate",
);

/// Those among them that are programs and end or halt the host.
const PROGRAMS_THAT_END_HOST: WordList = WordList("poweroff reboot halt shutdown pm-suspend pm-hibernate");

/// When a command runs, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// libvirt waits for it, and the guest has not started.
    Libvirt,
    /// It takes back a command that libvirt waits for: when a start is refused, libvirt waits for it, too.
    LibvirtIfRefused,
    /// The guest has started, and libvirt waits for nothing.
    Nobody,
    /// The guest has ended.
    AtTheEnd,
}

/// The number of the word that makes a command harmful, and what is wrong with it.
pub(super) fn harm(words: &[String], waiting: Waiting) -> Option<(usize, Fault)> {
    let inner = inner_commands(words);
    let is_waited_for = matches!(waiting, Waiting::Libvirt | Waiting::LibvirtIfRefused);
    if is_waited_for && let Some(number) = asks_libvirt(&inner, words) {
        return Some((number, waits_for_itself(waiting)));
    }
    if waiting == Waiting::AtTheEnd {
        return None;
    }
    inner.iter().find_map(|command| {
        let fault = if is_waited_for && ends_libvirt(command) {
            Fault::new(
                "this stops libvirt, which waits for the command and runs the guest",
                "take it out: a guest's start needs libvirt as it runs",
            )
        } else if ends_host(command) {
            Fault::new("this ends the host, or has it sleep, and the guest with it", "take it out")
        } else {
            return None;
        };
        Some((command.number, fault))
    })
}

fn waits_for_itself(waiting: Waiting) -> Fault {
    match waiting {
        Waiting::LibvirtIfRefused => Fault::new(
            "this asks libvirt, and when the start is refused libvirt waits for it: neither goes on until the time is up",
            "run it with `when: release`, which libvirt does not wait for",
        ),
        _ => Fault::new(
            "this asks libvirt, which waits for the command: neither goes on until the time is up",
            "run it with `when: started`, which libvirt does not wait for",
        ),
    }
}

/// The number of the word with which a command asks libvirt and waits for the answer.
fn asks_libvirt(inner: &[InnerCommand<'_>], words: &[String]) -> Option<usize> {
    let is_detached = inner.first().is_some_and(|first| DETACHING.contain(first.name()))
        && !words.iter().any(|word| word == "--wait" || word == "--pipe");
    let asks = |command: &&InnerCommand<'_>| {
        let name = command.name();
        name == "virsh" || (name.starts_with("virt-") && !ASK_NOBODY.contain(name))
    };
    inner.iter().filter(|_| !is_detached).find(asks).map(|command| command.number)
}

fn ends_libvirt(command: &InnerCommand<'_>) -> bool {
    let arguments = command.arguments();
    let names_libvirt = || arguments.iter().any(|word| is_of_libvirt(word));
    match command.name() {
        "systemctl" => verb(arguments).is_some_and(|verb| STOPS.contain(verb)) && names_libvirt(),
        "service" => arguments.iter().skip(1).any(|word| STOPS.contain(word)) && names_libvirt(),
        "killall" | "pkill" => names_libvirt(),
        _ => false,
    }
}

fn ends_host(command: &InnerCommand<'_>) -> bool {
    let arguments = command.arguments();
    match command.name() {
        "systemctl" => match verb(arguments) {
            Some("start" | "isolate") => arguments
                .iter()
                .any(|word| word.strip_suffix(".target").is_some_and(|target| ENDS_HOST.contain(target))),
            Some(verb) => ENDS_HOST.contain(verb),
            None => false,
        },
        "loginctl" => verb(arguments).is_some_and(|verb| ENDS_HOST.contain(verb)),
        "init" | "telinit" => arguments.iter().any(|level| matches!(*level, "0" | "1" | "6" | "s" | "S")),
        // `shutdown -c` takes one back.
        "shutdown" => !arguments.contains(&"-c"),
        name => PROGRAMS_THAT_END_HOST.contain(name),
    }
}

/// The first word that is no option.
fn verb<'w>(arguments: &[&'w str]) -> Option<&'w str> {
    arguments.iter().copied().find(|word| !word.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &[&str], waiting: Waiting) -> Option<usize> {
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        harm(&words, waiting).map(|(number, _)| number)
    }

    #[test]
    fn commands_that_ask_libvirt_are_found() {
        for (line, number) in [
            (&["/usr/bin/virsh", "list"][..], Some(0)),
            (&["/usr/bin/virt-xml", "win11", "--edit"], Some(0)),
            (&["/usr/bin/env", "LANG=C", "virsh", "list"], Some(2)),
            (&["/bin/sh", "-c", "x=$(virsh list); echo $x"], Some(2)),
            (&["/bin/sh", "-c", "virsh list && true 2>&1"], Some(2)),
            (&["/bin/sh", "-c", "sleep 9 && virsh start b &"], None),
            (&["/usr/bin/systemd-run", "virsh", "start", "b"], None),
            (&["/usr/bin/systemd-run", "--wait", "virsh", "start", "b"], Some(2)),
            (&["/usr/bin/logger", "virsh"], None),
            (&["/usr/sbin/virt-what"], None),
            (&["/usr/local/bin/my-virsh"], None),
            (&["/bin/grep", "virsh", "/etc/hosts"], None),
            (&["/usr/bin/sed", "-i", "s/virsh/x/", "/x"], None),
            (&["/bin/sh", "-c", "grep virsh /etc/hosts"], None),
            (&["/bin/sh", "-c", "pgrep -x virsh || echo no virsh"], None),
        ] {
            assert_eq!(found(line, Waiting::Libvirt), number, "{line:?}");
            assert_eq!(found(line, Waiting::LibvirtIfRefused), number, "{line:?}");
            assert_eq!(found(line, Waiting::Nobody), None, "{line:?}");
        }
    }

    #[test]
    fn commands_that_end_libvirt_or_the_host_are_found() {
        for (line, number) in [
            (&["/usr/bin/systemctl", "restart", "libvirtd"][..], Some(0)),
            (&["/usr/bin/systemctl", "--no-block", "stop", "virtqemud.service"], Some(0)),
            (&["/bin/sh", "-c", "sleep 1; systemctl stop libvirtd"], Some(2)),
            (&["/usr/bin/killall", "libvirtd"], Some(0)),
            (&["/usr/bin/pkill", "-x", "virtqemud"], Some(0)),
            (&["/sbin/poweroff"], Some(0)),
            (&["/sbin/shutdown", "-h", "now"], Some(0)),
            (&["/sbin/init", "6"], Some(0)),
            (&["/usr/bin/systemctl", "suspend"], Some(0)),
            (&["/usr/bin/systemctl", "start", "poweroff.target"], Some(0)),
            (&["/usr/bin/systemctl", "stop", "libvirt-guests.service"], None),
            (&["/usr/bin/systemctl", "stop", "ollama"], None),
            (&["/usr/bin/systemctl", "status", "libvirtd"], None),
            (&["/usr/bin/systemctl", "start", "sleep.service"], None),
            (&["/bin/sh", "-c", "echo reboot"], None),
            (&["/sbin/shutdown", "-c"], None),
            (&["/bin/sleep", "5"], None),
        ] {
            assert_eq!(found(line, Waiting::Libvirt), number, "{line:?}");
            assert_eq!(found(line, Waiting::AtTheEnd), None, "{line:?}");
        }
        assert_eq!(found(&["/usr/bin/systemctl", "restart", "libvirtd"], Waiting::Nobody), None);
        assert_eq!(found(&["/sbin/reboot"], Waiting::Nobody), Some(0));
    }
}

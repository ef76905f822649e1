//! What people write who come from scripts and other programs, and the message that leads them on.

use super::*;

const CASES: &[(&str, &str)] = &[
    ("a list of YAML's for CPUs", "isolate_cpus: {cpus: [1, 2, 3]}\n"),
    ("ranges in a list of YAML's", "isolate_cpus:\n  cpus:\n    - 4-7\n    - 20-23\n"),
    ("a mask", "isolate_cpus: {cpus: \"0xFF0\"}\n"),
    ("a mask without quotes", "isolate_cpus: {cpus: 0xFF0}\n"),
    ("a mask as the kernel writes it", "isolate_cpus: {cpus: \"00000000,0000ff00\"}\n"),
    ("a mask without 0x", "isolate_cpus: {cpus: f0f0}\n"),
    ("the host's CPUs", "isolate_cpus: {host_cpus: 0-3}\n"),
    ("a count of pages", "hugepages: {count: 8192}\n"),
    ("a size of pages", "hugepages: {size: 1G, nr_hugepages: 16}\n"),
    ("a node of pages", "hugepages: {node: 0}\n"),
    ("a key of another section", "governor: performance\nhugepages: {}\n"),
    ("a key of another section inside one", "hugepages: {governor: performance}\n"),
    ("a key of two sections", "timeout: 5s\n"),
    ("a BAR in the kernel's numbers", "gpu: {bars: {0: 14}}\n"),
    ("a BAR without a unit", "gpu: {bars: {0: 16384}}\n"),
    ("a monitor by its number", "switch_input: {monitor: 1, guest: hdmi-1}\n"),
    ("a monitor by its bus", "switch_input: {monitor: {bus: 5}, guest: hdmi-1}\n"),
    ("a monitor's bus beside it", "switch_input: {bus: 5, guest: hdmi-1}\n"),
    ("no input for the host", "switch_input: {monitor: desk, guest: hdmi-1, host: none}\n"),
    ("false for the host's input", "switch_input: {monitor: desk, guest: hdmi-1, host: false}\n"),
    ("systemd-inhibit's list", "block_sleep: {what: sleep:shutdown}\n"),
    ("systemd-inhibit's words", "block_sleep: {what: \"idle:sleep:handle-lid-switch\"}\n"),
    ("systemd-inhibit's lid", "block_sleep: {what: [handle-lid-switch]}\n"),
    ("a dispatcher's folder", "run: {when: prepare/begin, command: [/bin/true]}\n"),
    ("stop", "run: {when: stop, command: [/bin/true]}\n"),
    ("a redirection", "run: {when: prepare, command: [/bin/echo, 1, \">\", /sys/x]}\n"),
    ("a redirection in one word", "run: {when: prepare, command: [/bin/echo, 1, \">/sys/x\"]}\n"),
    ("two commands", "run: {when: prepare, command: [/bin/sync, \"&&\", /bin/true]}\n"),
    ("two commands with a semicolon", "run: {when: prepare, command: [/bin/sync, ;, /bin/true]}\n"),
    ("a pipe", "run: {when: prepare, command: [/bin/cat, /x, \"|\", /usr/bin/logger]}\n"),
    ("a variable", "run: {when: started, command: [/usr/bin/logger, \"$VFIO_HOOK_GUEST runs\"]}\n"),
    ("a command in a command", "run: {when: started, command: [/usr/bin/logger, \"`date`\"]}\n"),
    ("the background", "run: {when: started, command: [/usr/bin/scream, -u, \"&\"]}\n"),
    ("a home", "run: {when: started, command: [/usr/bin/cat, ~/x]}\n"),
    ("a pattern", "run: {when: stopped, command: [/usr/bin/rm, -f, /dev/shm/*.lock]}\n"),
    ("a line", "run: {when: started, command: /usr/bin/logger up}\n"),
    ("a line for a shell", "run: {when: started, command: /bin/echo 0 > /sys/x}\n"),
    ("virsh", "run: {when: prepare, command: [/usr/bin/virsh, nodedev-detach, pci_0000_03_00_0]}\n"),
    ("virsh in a shell", "run: {when: prepare, command: [/bin/sh, -c, \"virsh start other\"]}\n"),
    ("virt-xml", "run: {when: prepare, command: [/usr/bin/virt-xml, win11, --edit]}\n"),
    ("numbers in hexadecimal", "run: {when: started, command: [/usr/bin/ddcutil, setvcp, 0x60, 0x0f]}\n"),
    ("numbers with a sign and in octal", "run: {when: started, command: [/usr/bin/x, +1, 0o17, True]}\n"),
    ("the folder of an event", "run: {scripts: /etc/libvirt/hooks/qemu.d/win11/prepare/begin}\n"),
    ("a folder without its path", "run: {scripts: qemu.d}\n"),
    ("libvirt", "services: {stop: [libvirtd.service]}\n"),
    ("libvirt's modules", "services: {stop: [virtqemud.socket, virtlogd.service, virtnetworkd.service]}\n"),
    ("what the host needs", "services: {stop: [dbus.service, systemd-logind.service, -.mount]}\n"),
    ("the display manager in the wrong place", "services: {stop: [sddm.service]}\ngpu: {}\n"),
    ("the display manager as a holder", "gpu: {holders: {stop: [gdm3.service]}}\n"),
    ("true in quotes", "isolate_cpus: {irqs: \"true\", shared: \"false\"}\n"),
    ("false in quotes", "switch_input: {monitor: desk, guest: hdmi-1, shared: \"false\"}\n"),
    ("numbers in quotes", "tune: {stat_interval: \"120\"}\nschedule: {vcpus: {nice: \"-10\"}}\n"),
    ("0 for false", "cpu_power: {boost: 0}\n"),
    ("a list of CPUs inside braces", "isolate_cpus: { cpus: 4,5,6,7 }\n"),
    ("ranges inside braces", "isolate_cpus: { cpus: 4-7, 20-23 }\n"),
    ("units inside braces", "services: { stop: a.service, b.service }\n"),
    ("a type with capital letters", "services: {stop: [Ollama.Service, foo.SERVICE]}\n"),
    ("a home among what is required", "requires: [\"~/x\", \"$HOME/x\"]\n"),
    ("sysctl's names", "tune: {vm.swappiness: 10, kernel.foo: 1}\n"),
    ("sysctl's names of files", "tune: {files: {kernel.foo: 1, vm.swappiness: 1, net/ipv4/ip_forward: 1}}\n"),
    ("a home among files", "tune: {files: {\"~/x\": 1}}\n"),
    ("merge keys", "x: &x {timeout: 5s}\nhugepages:\n  <<: *x\n"),
    ("lists that end too early", "isolate_cpus: {cpus: \"8,9,\"}\ncpu_power: {cpus: \"8-\", boost: true}\n"),
    ("no version", "version: 0\nhugepages: {}\n"),
    ("a version in quotes", "version: \"1\"\nhugepages: {}\n"),
    ("keys that are not there", "services: {restart: [a.service]}\nrequires: [{guest: win7}]\n"),
    ("a key that is nearly right", "run: {wen: started, command: [/bin/true]}\ntune: {swapiness: 1}\n"),
    ("large pages", "thp: never\ntune: {thp: never}\n"),
    ("large pages that are off", "tune: {transparent_hugepages: off, nmi_watchdog: off}\n"),
    ("a boost by its other names", "tune: {turbo: 0}\ncpu_power: {no_turbo: 1}\n"),
    ("a preference by its file's name", "cpu_power: {energy_performance_preference: performance}\n"),
    ("systemctl's words for sleep", "block_sleep: {what: [suspend, reboot]}\n"),
    ("features in decimal", "switch_input: {monitor: desk, set: {10: 80, 12: 50, 96: 17, 9: 1}}\n"),
    (
        "features that nothing undoes",
        "switch_input: {monitor: desk, set: {0x0a: 1, 0x60: 1, 0o13: 1, \"12\": 1}}\n",
    ),
    ("no real-time tasks", "tune: {sched_rt_runtime_us: 0}\n"),
    (
        "what cannot come back",
        "tune:\n  files:\n    /proc/sys/kernel/kexec_load_disabled: 1\n    /proc/sys/kernel/yama/ptrace_scope: 3\n    \
         /proc/sys/kernel/unprivileged_bpf_disabled: \"1\"\n    /sys/kernel/kexec_crash_size: 0\n    \
         /proc/sys/vm/stat_refresh: 1\n",
    ),
    ("another name of a value", "tune: {files: {/proc/sys/net/ipv4/conf/all/forwarding: 1}}\n"),
    ("reading ahead by its other path", "tune: {files: {/sys/block/sda/bdi/read_ahead_kb: 128}}\n"),
    (
        "units that end the host",
        "services:\n  start: [poweroff.target, reboot.target, suspend.target, rescue.target, emergency.target, halt.target, \
         kexec.target, hibernate.target, ctrl-alt-del.target, runlevel6.target, exit.target]\n",
    ),
    (
        "mounts that the host needs",
        "services: {stop: [proc.mount, sys.mount, dev.mount, dev-shm.mount, sys-fs-cgroup.mount]}\n",
    ),
    (
        "the end of libvirt",
        "run:\n  - {when: prepare, command: [/usr/bin/systemctl, restart, libvirtd]}\n  \
         - {when: start, command: [/bin/sh, -c, \"systemctl stop virtqemud.service\"]}\n  \
         - {when: prepare, command: [/usr/bin/killall, libvirtd]}\n",
    ),
    (
        "the end of the host",
        "run:\n  - {when: prepare, command: [/sbin/poweroff]}\n  - {when: started, command: [/usr/bin/systemctl, suspend]}\n",
    ),
    (
        "an undo that asks libvirt",
        "run: {when: prepare, command: [/bin/true], undo: [/usr/bin/virsh, net-destroy, x]}\n",
    ),
    ("patterns of guests", "conflicts: [\"win*\", \"win{10,11}\"]\n"),
    (
        "variables for a shell",
        "run: {when: started, command: [/bin/true], env: {A: \"$HOME\", B: \"~/x\"}}\n",
    ),
    ("a pattern for a file", "run: {when: started, command: [/bin/true], unless_exists: \"/home/*/x\"}\n"),
    ("a redirection to a name", "run: {when: started, command: [/bin/echo, a, \">file\"]}\n"),
];

#[test]
fn leads_on_to_what_is_meant() {
    let mut shown = String::new();
    for (name, text) in CASES {
        let errors = parse(text).err().unwrap_or_else(|| panic!("{name}: nothing is wrong"));
        shown.push_str(&format!("## {name}\n{}\n\n", errors.render(Style::Plain)));
    }
    insta::with_settings!({ omit_expression => true, snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("as_people_write", shown);
    });
}

#[test]
fn what_is_meant_as_it_is_written_is_read() {
    for text in [
        "isolate_cpus: {cpus: \"4-15,20-31\"}",
        "isolate_cpus: {cpus: 10}",
        "run: {when: prepare, command: [/bin/sh, -c, \"echo 1 > /sys/x && true\"]}",
        "run: {when: started, command: [/usr/bin/virsh, list]}",
        "run: {when: prepare, command: [/usr/bin/systemd-run, virsh, start, other]}",
        "run: {when: started, command: [/usr/bin/ddcutil, setvcp, \"0x60\", 15]}",
        "run: {scripts: /etc/libvirt/hooks/qemu.d}",
        "run: {when: prepare, command: [/bin/grep, virsh, /etc/hosts]}",
        "run: {when: prepare, background: true, command: [/usr/bin/virsh, event, --all]}",
        "run: {when: started, command: [/bin/true], undo: [/usr/bin/virsh, net-destroy, x]}",
        "run: {when: release, command: [/sbin/poweroff]}",
        "run: {when: started, command: [/usr/bin/systemctl, restart, libvirtd]}",
        "run: {when: started, command: [/bin/true], env: {A: \"5$\", B: a~b}, unless_exists: /a-b}",
        "switch_input: {monitor: desk, set: {0x10: 80, 0xD6: 1, \"0x12\": 50, 2: 1}}",
        "tune: {files: {/proc/sys/kernel/yama/ptrace_scope: 1}}",
        "services: {start: [suspicious.service, multi-user.target]}",
        "services: {stop: [sddm.service]}",
        "block_sleep: {what: sleep}",
        "gpu: {bars: {0: 16 GiB}}",
    ] {
        assert!(parse(text).is_ok(), "{text}: {}", parse(text).unwrap_err());
    }
}

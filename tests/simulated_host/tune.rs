//! `tune`: values of the kernel, of disks and of screens.

use std::os::unix::fs::symlink;

use nix::errno::Errno;

use crate::support::{Life, Machine, assert_same, guest, killed_at_every_write, life};

const HOST: &str = "\
/proc/sys/vm/stat_interval = 1
/proc/sys/vm/swappiness = 60
/proc/sys/vm/dirty_bytes = 0
/proc/sys/vm/dirty_ratio = 20
/proc/sys/kernel/printk = 4 4 1 7
/proc/sys/kernel/watchdog = 1
/proc/sys/kernel/nmi_watchdog = 1
/proc/sys/kernel/sched_rt_runtime_us = 950000
/proc/sys/kernel/sched_rt_period_us = 1000000
/proc/sys/kernel/lines = 1\\n2
read-only /proc/sys/kernel/ngroups_max = 65536
/sys/kernel/mm/transparent_hugepage/enabled = always [madvise] never
/sys/kernel/mm/lru_gen/min_ttl_ms = 0
/sys/module/kvm/parameters/halt_poll_ns = 200000
/sys/module/kvm/parameters/report_ignored_msrs = Y
/sys/bus/platform/drivers/amd_x3d_vcache/AMDI0101:00/amd_x3d_mode = frequency
/sys/bus/platform/drivers/amd_x3d_vcache/unbind =
/sys/class/backlight/intel_backlight/brightness = 400
/sys/class/backlight/intel_backlight/max_brightness = 937
/sys/devices/pci0000:00/nvme/nvme0/nvme0n1/queue/scheduler = [none] mq-deadline kyber
/sys/devices/pci0000:00/nvme/nvme0/nvme0n1/queue/read_ahead_kb = 128
/sys/devices/pci0000:00/nvme/nvme0/nvme0n1/queue/nr_requests = 1023
/sys/devices/pci0000:00/nvme/nvme0/model = X
/sys/block/
";

const EVERYTHING: &str = "\
tune:
  stat_interval: 120
  dirty_bytes: 256MiB
  watchdog: 0
  nmi_watchdog: 0
  sched_rt_runtime_us: -1
  transparent_hugepages: never
  halt_poll_ns: 0
  x3d_mode: cache
  disks: { nvme0n1: { scheduler: kyber, read_ahead: 1MiB } }
  backlight: { intel_backlight: 10% }
  files:
    /proc/sys/kernel/printk: 3 4 1 7
    /sys/module/kvm/parameters/report_ignored_msrs: 0
    /sys/block/nvme0n1/queue/nr_requests: 64
";

fn machine() -> Machine {
    let machine = Machine::with("two-nodes", HOST);
    let disk = machine.path("/sys/block/nvme0n1");
    symlink("../devices/pci0000:00/nvme/nvme0/nvme0n1", disk).unwrap();
    let device = machine.path("/sys/devices/pci0000:00/nvme/nvme0/nvme0n1/device");
    symlink("../../nvme0", device).unwrap();
    machine
}

fn tuned(number: u8, yaml: &str) -> Life {
    life(guest(number, "2-3", ""), yaml)
}

fn refusal(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    let error = machine.prepare(life).unwrap_err();
    assert_same(&machine.files(), &before, "refused");
    let help = error.help().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!("{error}{help}\n")
}

#[test]
fn everything_is_set_as_it_is_shown_and_comes_back() {
    let machine = machine();
    let before = machine.files();
    let life = tuned(1, EVERYTHING);
    let outcome = machine.prepare(&life).unwrap();
    let changes: Vec<String> = outcome.changes.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("everything_tuned", changes.join("\n"));
    let get = |path: &str| machine.get(path);
    assert_eq!(
        (get("/proc/sys/vm/dirty_bytes"), get("/proc/sys/vm/dirty_ratio")),
        ("268435456".into(), "0".into())
    );
    assert_eq!(get("/sys/kernel/mm/transparent_hugepage/enabled"), "always madvise [never]");
    assert_eq!(get("/sys/block/nvme0n1/queue/scheduler"), "none mq-deadline [kyber]");
    assert_eq!(get("/sys/module/kvm/parameters/report_ignored_msrs"), "N");
    machine.started(&life).unwrap();
    machine.stopped(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
    // A start that is refused further on, and one that is forgotten.
    machine.faults.refuse("/sys/module/kvm/parameters/halt_poll_ns", Errno::EINVAL);
    let error = machine.prepare(&life).unwrap_err();
    assert!(error.help().unwrap().contains("`tune.halt_poll_ns`"), "{error}: {:?}", error.help());
    machine.faults.clear();
    machine.assert_is(&before, "refused");
    machine.prepare(&life).unwrap();
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "started twice");
}

#[test]
fn commands_of_prepare_come_before_and_pages_after() {
    let machine = machine();
    vfio_hook::host::manifest::lay_out("/bin/sh =\n", &machine.root()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(machine.path("/bin/sh"), mode).unwrap();
    let before = machine.files();
    let yaml =
        "tune: {stat_interval: 120}\nrun: {when: prepare, command: [/bin/sh, -c, first]}\nhugepages: {}\n";
    let life = life(guest(1, "2-3", &crate::support::pages(4)), yaml);
    let commands = machine.path("/simulated_commands");
    let (seen, path) = (std::sync::Arc::new(std::sync::Mutex::new(Vec::new())), "/proc/sys/vm/stat_interval");
    let told = std::sync::Arc::clone(&seen);
    let pages = machine.path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages");
    machine.faults.interrupt(path, move || {
        let pages = std::fs::read_to_string(pages).unwrap();
        told.lock().unwrap().push((commands.exists(), pages.trim().to_owned()));
    });
    machine.prepare(&life).unwrap();
    assert_eq!(*seen.lock().unwrap(), [(true, "7".to_owned())]);
    machine.release(&life).unwrap();
    let _ = std::fs::remove_file(machine.path("/simulated_commands"));
    machine.assert_is(&before, "released");
}

#[test]
fn two_guests_share_a_value_and_do_not_disagree() {
    let machine = machine();
    let before = machine.files();
    let (one, other) = (tuned(1, EVERYTHING), tuned(2, EVERYTHING));
    machine.prepare(&one).unwrap();
    let held = machine.files();
    let mut told = String::new();
    for yaml in [
        "tune: {stat_interval: 60}\n",
        "tune: {dirty_ratio: 5}\n",
        "tune: {nmi_watchdog: 1}\n",
        "tune: {transparent_hugepages: always}\n",
        "tune: {disks: {nvme0n1: {scheduler: none}}}\n",
        "tune: {files: {/proc/sys/kernel/printk: 7 4 1 7}}\n",
    ] {
        told.push_str(yaml);
        told.push_str(&refusal(&machine, &tuned(2, yaml)));
    }
    insta::assert_snapshot!("values_that_another_guest_has_set", told);
    machine.prepare(&other).unwrap();
    machine.release(&one).unwrap();
    let sets = |path: &String| !path.starts_with("/simulated");
    let only = |files: crate::support::Files| files.into_iter().filter(|(path, _)| sets(path)).collect();
    assert_same(&only(machine.files()), &only(held), "the second one still has it");
    machine.release(&other).unwrap();
    machine.assert_is(&before, "both are gone");
}

#[test]
fn what_another_program_sets_meanwhile_is_left_alone_and_said_once() {
    let machine = machine();
    let before = machine.files();
    let (one, other) = (tuned(1, EVERYTHING), tuned(2, EVERYTHING));
    machine.prepare(&one).unwrap();
    machine.prepare(&other).unwrap();
    machine.set("/proc/sys/vm/stat_interval", "10");
    machine.set("/proc/sys/kernel/printk", "7 4 1 7");
    // The kernel zeroes the other one of the pair.
    machine.set("/proc/sys/vm/dirty_bytes", "0");
    machine.set("/proc/sys/vm/dirty_ratio", "30");
    let notes = |life: &Life| -> Vec<String> {
        machine.release(life).unwrap().notes.into_iter().map(|note| note.text).collect()
    };
    assert_eq!(
        notes(&one),
        [
            "vm.dirty_bytes was changed from outside, from 268435456 to 0 (the other one is 30): left alone",
            "vm.stat_interval was changed from outside, from 120 to 10: left alone",
            "/proc/sys/kernel/printk was changed from outside, from 3 4 1 7 to 7 4 1 7: left alone",
        ]
    );
    notes(&other);
    assert_eq!(machine.get("/proc/sys/vm/stat_interval"), "10");
    assert_eq!(machine.get("/proc/sys/vm/dirty_ratio"), "30");
    machine.set("/proc/sys/vm/stat_interval", "1");
    machine.set("/proc/sys/kernel/printk", "4 4 1 7");
    machine.set("/proc/sys/vm/dirty_ratio", "20");
    machine.assert_is(&before, "but for what was set meanwhile");
}

#[test]
fn what_the_host_has_not_is_refused_before_anything_is_touched() {
    let machine = machine();
    symlink("/proc/sys/vm/swappiness", machine.path("/sys/kernel/mm/lru_gen/link")).unwrap();
    let mut told = String::new();
    for yaml in [
        "tune: {compaction_proactiveness: 0}\n",
        "tune: {stat_interval: 120, writeback_numa: 0}\n",
        "tune: {disks: {sda: {scheduler: none}}}\n",
        "tune: {disks: {nvme0n1: {scheduler: bfq}}}\n",
        "tune: {backlight: {amdgpu_bl1: 10%}}\n",
        "tune: {files: {/proc/sys/kernel/nothing: 1}}\n",
        "tune: {files: {/proc/sys/kernel/lines: 1}}\n",
        "tune: {files: {/proc/sys/kernel/ngroups_max: 1}}\n",
        "tune: {files: {/sys/kernel/mm/lru_gen: 1}}\n",
        "tune: {files: {/sys/kernel/mm/lru_gen/link: 1}}\n",
        "tune: {files: {/sys/block/nvme0n1/device/model: 1}}\n",
    ] {
        told.push_str(yaml);
        told.push_str(&refusal(&machine, &tuned(1, yaml)));
    }
    let plain = Machine::with("two-nodes", "/sys/kernel/mm/transparent_hugepage/enabled = always [never]\n");
    told.push_str(&refusal(&plain, &tuned(1, "tune: {transparent_hugepages: madvise, x3d_mode: cache}\n")));
    let short = Machine::with(
        "two-nodes",
        "/proc/sys/kernel/sched_rt_runtime_us = 900\n/proc/sys/kernel/sched_rt_period_us = 1000\n",
    );
    told.push_str(&refusal(&short, &tuned(1, "tune: {sched_rt_runtime_us: 950000}\n")));
    insta::assert_snapshot!("what_cannot_be_tuned", told);
}

#[test]
fn wherever_it_is_killed_everything_comes_back() {
    let machine = machine();
    let before = machine.files();
    killed_at_every_write(&machine, &before, &[tuned(1, EVERYTHING), tuned(2, EVERYTHING)]);
}

/// Of several numbers the kernel takes those before the one that it refuses.
#[test]
fn what_the_kernel_took_of_a_refused_value_is_taken_back() {
    let path = "/proc/sys/kernel/printk";
    let life = tuned(1, "tune: {files: {/proc/sys/kernel/printk: 5 x 1 7}}\n");
    let mut was_refused = false;
    for nth in 1..=16 {
        let machine = machine();
        let before = machine.files();
        let file = machine.path(path);
        machine.faults.interrupt(path, move || std::fs::write(file, "5 4 1 7\n").unwrap());
        machine.faults.fail_write(nth);
        let prepared = machine.prepare(&life);
        machine.faults.clear();
        was_refused |= prepared.is_err_and(|error| error.to_string().contains(path));
        machine.release(&life).unwrap();
        machine.assert_is(&before, &format!("write {nth} failed"));
    }
    assert!(was_refused, "its write was not among those that failed");
}

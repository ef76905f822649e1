//! Ledgers that cannot be used, and hosts that are not whole.

use std::fs;

use nix::errno::Errno;
use vfio_hook::host::STATE_DIR;
use vfio_hook::ledger::{FILE, Ledger};
use vfio_hook::lifecycle::LifecycleError;

use crate::support::{Machine, greedy};

fn message(error: &LifecycleError) -> String {
    let help = error.help().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!("{error}{help}")
}

/// A machine with a guest, and its ledger's text.
fn with_ledger() -> (Machine, String) {
    let machine = Machine::new("two-nodes");
    machine.prepare(&greedy(&machine, 1, "2-3", 10)).unwrap();
    let text = machine.keep_one_slot().unwrap();
    (machine, text)
}

/// Without the boot's name it cannot be told whose the ledger is: that is not "another boot's".
#[test]
fn a_ledger_of_an_unknown_boot_is_not_of_another() {
    let (machine, _) = with_ledger();
    machine.faults.refuse_read("/proc/sys/kernel/random/boot_id", Errno::EMFILE);
    let error = Ledger::peek(&machine.host()).unwrap_err().to_string();
    assert!(error.contains("/proc/sys/kernel/random/boot_id"), "{error}");
    machine.faults.clear();
    assert!(machine.record().is_some());
}

#[test]
fn a_ledger_that_is_a_link_to_nothing_is_not_none() {
    let (machine, _) = with_ledger();
    let file = machine.path(STATE_DIR).join(FILE);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    let own = greedy(&machine, 1, "2-3", 10);
    for error in [machine.prepare(&own).unwrap_err(), machine.release(&own).unwrap_err()] {
        let path = "/run/vfio-hook/ledger.json";
        assert_eq!(message(&error), format!("failed to read {path}: a symbolic link leads to nothing"));
    }
}

#[test]
fn a_damaged_ledger_is_refused_and_kept() {
    let (machine, good) = with_ledger();
    let before = machine.files();
    let damages = [
        ("empty", String::new()),
        ("cut off", good[..good.len() / 2].to_owned()),
        ("zeros", "\0".repeat(200)),
        ("newer", good.replace("\"format\":4", "\"format\":5")),
        ("newer and different", "{\"format\": 7, \"guests\": []}".to_owned()),
        ("another kind of value", good.replace("\"was\":\"schedutil\"", "\"was\":[1]")),
        ("claims that are not there", good.replace("\"by\":7", "\"by\":70")),
        ("nested without end", format!("{{\"format\": 4, \"leases\": {}", "[".repeat(500_000))),
        ("other UUID", good.replace("00000000-0000-4000", "zzzzzzzz-0000-4000")),
    ];
    let file = machine.path(STATE_DIR).join(FILE);
    let mut messages = Vec::new();
    for (name, text) in damages {
        assert_ne!(text, good, "{name}");
        fs::write(&file, &text).unwrap();
        machine.faults.clear();
        let (own, other) = (greedy(&machine, 1, "2-3", 10), greedy(&machine, 2, "4-5", 10));
        let refused = machine.prepare(&other).unwrap_err();
        for error in [
            machine.prepare(&own).unwrap_err(),
            machine.release(&own).unwrap_err(),
            machine.start(&own).unwrap_err(),
            machine.started(&own).unwrap_err(),
        ] {
            assert_eq!(message(&error), message(&refused), "{name}");
        }
        assert_eq!(machine.faults.writes(), 0, "{name}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{name}: the ledger was touched");
        messages.push(format!("{name}\n{}", message(&refused)));
    }
    crate::support::assert_same(&machine.files(), &before, "refused");
    insta::assert_snapshot!(messages.join("\n\n"));
}

/// Of a version that adds settings and fields.
#[test]
fn what_a_newer_program_wrote_is_kept_as_it_is() {
    let (machine, good) = with_ledger();
    let moon = "{\"by\":3,\"of\":{\"planet\":3},\"set\":\"moon-phase\",\"tide\":7,\"was\":\"full\"}";
    let unknown_row = "{\"by\":0,\"of\":{\"name\":\"vm.moon\"},\"set\":\"attribute\",\"was\":\"1\"}";
    let newer = good
        .replacen("\"boot_id\"", "\"colour\":1,\"boot_id\"", 1)
        .replacen("\"name\":\"guest1\"", "\"name\":\"guest1\",\"mood\":\"good\"", 1)
        .replacen("\"set\":\"keeper\"", "\"age\":9,\"set\":\"keeper\"", 1)
        .replacen("\"entries\":[", &format!("\"entries\":[{moon},{unknown_row},"), 1);
    let file = machine.path(STATE_DIR).join(FILE);
    fs::write(&file, &newer).unwrap();
    let (own, other) = (greedy(&machine, 1, "2-3", 10), greedy(&machine, 2, "4-5", 10));
    machine.prepare(&other).unwrap();
    let text = machine.keep_one_slot().unwrap();
    for kept in ["\"colour\":1", "\"mood\":\"good\"", "\"age\":9", "\"tide\":7", "moon-phase", "vm.moon"] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    machine.release(&other).unwrap();
    machine.release(&own).unwrap();
    // What it does not know it cannot give back, nor forget.
    let text = machine.keep_one_slot().unwrap();
    assert!(text.contains("moon-phase") && text.contains("vm.moon"), "{text}");
}

#[test]
fn a_ledger_of_another_boot_is_kept_aside() {
    let (machine, old) = with_ledger();
    let boot = "22222222-2222-4333-8444-555555555555";
    machine.set("/proc/sys/kernel/random/boot_id", boot);
    // What it describes is gone with the boot; here it is simply what the host is now.
    let before = machine.files();
    let other = greedy(&machine, 2, "4-5", 10);
    machine.start(&other).unwrap();
    let outcome = machine.prepare(&other).unwrap();
    let kept = machine.path(STATE_DIR).join("ledger.json.11111111-2222-4333-8444-555555555555");
    assert_eq!(fs::read_to_string(kept).unwrap(), old);
    assert!(outcome.notes.iter().any(|note| note.text.contains("another boot")), "{outcome:?}");
    machine.release(&other).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_name_of_a_boot_cannot_lead_out_of_the_folder() {
    let (machine, old) = with_ledger();
    let file = machine.path(STATE_DIR).join(FILE);
    fs::write(&file, old.replace("11111111-2222", "../../../../tmp/x")).unwrap();
    machine.open_and_close();
    let names: Vec<_> =
        fs::read_dir(machine.path(STATE_DIR)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().starts_with("ledger.json.")), "{names:?}");
}

#[test]
fn a_replacement_that_a_killed_program_left_goes_with_the_ledger() {
    let (machine, _) = with_ledger();
    let left = machine.path(STATE_DIR).join(".abc.new");
    fs::write(&left, "half").unwrap();
    machine.release(&greedy(&machine, 1, "2-3", 10)).unwrap();
    assert!(!left.exists());
}

#[test]
fn a_host_that_is_not_whole_is_refused_or_left_alone() {
    let missing = [
        "/proc/irq/default_smp_affinity",
        "/proc/meminfo",
        "/proc/mounts",
        "/sys/devices/system/cpu/online",
        "/sys/devices/system/cpu/present",
        "/sys/devices/system/cpu/cpu2/power/pm_qos_resume_latency_us",
        "/sys/devices/system/cpu/cpu2/cpufreq/scaling_available_governors",
        "/sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/surplus_hugepages",
        "/sys/devices/system/node/has_memory",
        "/sys/devices/virtual/workqueue/cpumask",
        "/sys/fs/cgroup/cgroup.controllers",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
        "/simulated/systemd/user.slice/AllowedCPUs",
        "/proc/sys/kernel/random/boot_id",
    ];
    let mut lines = Vec::new();
    for path in missing {
        let machine = Machine::new("two-nodes");
        fs::remove_file(machine.path(path)).unwrap();
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3", 10);
        let what = match machine.prepare(&life) {
            Ok(outcome) => {
                machine.release(&life).unwrap();
                let missed = outcome.notes.iter().find(|note| note.text.contains("left alone"));
                missed.map_or("not missed".to_owned(), |note| note.text.clone())
            }
            Err(error) => message(&error),
        };
        machine.assert_is(&before, path);
        lines.push(format!("{path}\n{what}"));
    }
    insta::assert_snapshot!(lines.join("\n\n"));
}

#[test]
fn a_file_that_cannot_be_written_is_refused_or_passed_over() {
    use nix::errno::Errno;
    let mut lines = Vec::new();
    for (path, errno) in [
        ("/proc/irq/default_smp_affinity", Errno::EROFS),
        ("/sys/devices/virtual/workqueue/cpumask", Errno::EPERM),
        ("/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", Errno::EBUSY),
        ("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", Errno::EINVAL),
        ("/simulated/systemd/system.slice/AllowedCPUs", Errno::EACCES),
        ("/proc/irq/31/smp_affinity_list", Errno::ENOSPC),
        ("/run/vfio-hook/ledger.json", Errno::ENOSPC),
    ] {
        let machine = Machine::new("two-nodes");
        let before = machine.files();
        machine.faults.refuse(path, errno);
        let life = greedy(&machine, 1, "2-3", 10);
        let what = match machine.prepare(&life) {
            Ok(_) => "passed over".to_owned(),
            Err(error) => message(&error),
        };
        machine.faults.clear();
        machine.release(&life).unwrap();
        machine.assert_is(&before, path);
        lines.push(format!("{path}: {what}"));
    }
    insta::assert_snapshot!(lines.join("\n\n"));
}

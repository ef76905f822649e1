//! `cpu_power`, and the kernel's threads of `isolate_cpus`.

use vfio_hook::host::simulated::kernel_thread;
use vfio_hook::ledger::Occasion;
use vfio_hook::lifecycle;

use crate::support::{Life, Machine, guest, life, soon};

const CPU: &str = "/sys/devices/system/cpu";
const ALL_BOOST: &str = "/sys/devices/system/cpu/cpufreq/boost";

/// CPUs 4 and 5 share a clock, and so do 6 and 7.
fn shared_clocks() -> Machine {
    let own = format!(
        "{CPU}/cpu{{4..5}}/cpufreq/related_cpus = 4 5\n{CPU}/cpu{{6..7}}/cpufreq/related_cpus = 6 7\n"
    );
    Machine::with("two-nodes", &own)
}

fn governor(machine: &Machine, cpu: u32) -> String {
    machine.get(&format!("{CPU}/cpu{cpu}/cpufreq/scaling_governor"))
}

fn refusal(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    let error = machine.prepare(life).unwrap_err();
    crate::support::assert_same(&machine.files(), &before, "refused");
    let help = error.help().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!("{error}{help}\n")
}

#[test]
fn it_needs_no_isolation_and_can_be_for_all_cpus() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let all =
        life(guest(1, "2-3", ""), "cpu_power: {cpus: all, governor: performance, resume_latency: 20us}\n");
    machine.prepare(&all).unwrap();
    assert!((0..8).all(|cpu| governor(&machine, cpu) == "performance"));
    assert_eq!(machine.get(&format!("{CPU}/cpu7/power/pm_qos_resume_latency_us")), "20");
    assert_eq!(machine.get("/proc/irq/9/smp_affinity_list"), "0-7");
    machine.release(&all).unwrap();
    machine.assert_is(&before, "released");
    // Of the guest's own CPUs alone, and those of a list.
    for (yaml, changed) in [
        ("cpu_power: {governor: performance}", 2..4),
        ("cpu_power: {cpus: 5-6, governor: performance}", 5..7),
    ] {
        let life = life(guest(1, "2-3", ""), yaml);
        machine.prepare(&life).unwrap();
        for cpu in 0..8 {
            assert_eq!(governor(&machine, cpu) == "performance", changed.contains(&cpu), "{yaml}: {cpu}");
        }
        machine.release(&life).unwrap();
        machine.assert_is(&before, yaml);
    }
}

#[test]
fn guests_with_cpus_of_one_clock_claim_one_setting() {
    let machine = shared_clocks();
    let before = machine.files();
    let power = |number, cpus, governor| {
        life(guest(number, cpus, ""), &format!("cpu_power: {{governor: {governor}}}\n"))
    };
    let (one, other) = (power(1, "4", "performance"), power(2, "5", "performance"));
    machine.prepare(&one).unwrap();
    machine.prepare(&other).unwrap();
    machine.release(&one).unwrap();
    assert_eq!(governor(&machine, 4), "performance", "the other guest still wants it");
    insta::assert_snapshot!("two_guests_of_one_clock", refusal(&machine, &power(3, "4", "powersave")));
    machine.release(&other).unwrap();
    machine.assert_is(&before, "both are gone");
}

#[test]
fn boost_is_set_where_the_kernel_has_its_switch() {
    let policies = format!("{CPU}/cpu{{0..7}}/cpufreq/boost = 1\n{ALL_BOOST} = 1\n");
    let off = policies.replace("= 1", "= 0");
    let no_turbo = format!("{CPU}/intel_pstate/no_turbo = 0\n");
    let boost = |on: bool| life(guest(1, "2-3", ""), &format!("cpu_power: {{boost: {on}}}\n"));
    let value = |machine: &Machine, path: &str| machine.get(&format!("{CPU}/{path}"));
    for (host, on, then) in [
        (
            policies.clone(),
            false,
            &[("cpu2/cpufreq/boost", "0"), ("cpu4/cpufreq/boost", "1"), ("cpufreq/boost", "1")][..],
        ),
        // A policy cannot boost while the switch for all is off.
        (
            off.clone(),
            true,
            &[("cpu2/cpufreq/boost", "1"), ("cpu4/cpufreq/boost", "1"), ("cpufreq/boost", "1")],
        ),
        (format!("{ALL_BOOST} = 1\n"), false, &[("cpufreq/boost", "0")]),
        (no_turbo, false, &[("intel_pstate/no_turbo", "1")]),
    ] {
        let machine = Machine::with("two-nodes", &host);
        let before = machine.files();
        machine.prepare(&boost(on)).unwrap();
        for (path, expected) in then {
            assert_eq!(value(&machine, path), *expected, "{host} {path}");
        }
        machine.release(&boost(on)).unwrap();
        machine.assert_is(&before, &host);
    }
    // A guest that comes while another one has switched all on follows that switch.
    let machine = Machine::with("two-nodes", &off);
    let before = machine.files();
    let other = life(guest(2, "4-5", ""), "cpu_power: {boost: true}\n");
    machine.prepare(&boost(true)).unwrap();
    machine.prepare(&other).unwrap();
    machine.release(&boost(true)).unwrap();
    assert_eq!(
        (value(&machine, "cpufreq/boost"), value(&machine, "cpu4/cpufreq/boost")),
        ("1".into(), "1".into())
    );
    let against = refusal(&machine, &life(guest(3, "6", ""), "cpu_power: {boost: false}\n"));
    assert!(against.contains("guest2"), "{against}");
    machine.release(&other).unwrap();
    machine.assert_is(&before, "both are gone");
}

#[test]
fn a_power_profile_is_held_by_the_keeper() {
    let machine =
        Machine::with("two-nodes", "/simulated/power-profiles = power-saver balanced performance\n");
    let before = machine.files();
    let one = life(guest(1, "2-3", ""), "cpu_power: {profile: performance}\n");
    let changes: Vec<String> =
        machine.prepare(&one).unwrap().changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["keeper: none -> runs", "power profile held: none -> performance"]);
    let keeper = machine.get(&format!("/simulated/keepers/{}", one.guest.uuid));
    assert!(keeper.contains(r#""power_profile":"performance""#), "{keeper}");
    let other = life(guest(2, "4-5", ""), "cpu_power: {governor: performance}\n");
    let mut told = refusal(&machine, &other);
    machine.release(&one).unwrap();
    machine.assert_is(&before, "released");
    machine.prepare(&other).unwrap();
    told.push_str(&refusal(&machine, &one));
    machine.release(&other).unwrap();
    told.push_str(&refusal(&Machine::new("two-nodes"), &one));
    told.push_str(&refusal(&Machine::with("two-nodes", "/simulated/power-profiles = balanced\n"), &one));
    let silent = Machine::with("two-nodes", "/simulated/power-profiles = performance\n");
    silent.faults.refuse_read("/simulated/power-profiles", nix::errno::Errno::ETIMEDOUT);
    told.push_str(&refusal(&silent, &one));
    insta::assert_snapshot!("power_profiles_that_cannot_be_held", told);
}

#[test]
fn cpus_and_values_that_make_no_sense_are_refused() {
    let machine = Machine::new("two-nodes");
    let mut told = String::new();
    for (cpus, yaml) in [
        ("", "cpu_power: {governor: performance}\n"),
        ("", "cpu_power: {cpus: 4-9, governor: performance}\n"),
        ("2", "cpu_power: {governor: turbo}\n"),
        ("2", "cpu_power: {boost: true}\n"),
    ] {
        told.push_str(yaml);
        told.push_str(&refusal(&machine, &life(guest(1, cpus, ""), yaml)));
    }
    let offline = Machine::new("offline-cpu");
    told.push_str(&refusal(&offline, &life(guest(1, "", ""), "cpu_power: {cpus: 0-7, epp: power}\n")));
    insta::assert_snapshot!("cpu_power_that_makes_no_sense", told);
}

fn with_threads() -> Machine {
    let threads = [
        kernel_thread(15, "rcu_preempt", 0, "0-7"),
        kernel_thread(33, "kswapd0", 0, "0-3"),
        kernel_thread(34, "khugepaged", 0, "2-3"),
        // Given one CPU, whose work it does.
        kernel_thread(35, "z_wr_int_0", 0, "2"),
    ];
    Machine::with("two-nodes", &threads.concat())
}

fn thread_cpus(machine: &Machine, pid: i32) -> String {
    let status = machine.get(&format!("/proc/{pid}/status"));
    status.rsplit_once(": ").unwrap().1.to_owned()
}

fn isolated(number: u8, cpus: &str) -> Life {
    life(guest(number, cpus, ""), "isolate_cpus: {units: false, irqs: false, workqueues: false}\n")
}

fn look(machine: &Machine, life: &Life) -> Vec<String> {
    let outcome =
        lifecycle::reconcile(&mut machine.host(), life.guest.uuid, Occasion::Usual, soon()).unwrap();
    outcome.notes.into_iter().map(|note| note.text).collect()
}

#[test]
fn threads_of_the_kernel_stay_off_all_guests_cpus() {
    let machine = with_threads();
    let before = machine.files();
    let (one, other) = (isolated(1, "2-3"), isolated(2, "4-5"));
    machine.prepare(&one).unwrap();
    machine.prepare(&other).unwrap();
    let cpus = |machine: &Machine| [15, 33, 34, 35].map(|pid| thread_cpus(machine, pid));
    assert_eq!(cpus(&machine), ["0-1,6-7", "0-1", "0-1,6-7", "2"]);
    machine.release(&one).unwrap();
    assert_eq!(cpus(&machine), ["0-3,6-7", "0-3", "2-3", "2"]);
    machine.release(&other).unwrap();
    machine.assert_is(&before, "both are gone");
    // Switched off, none is touched.
    let off = life(guest(1, "2-3", ""), "isolate_cpus: {kernel_threads: false}\n");
    machine.prepare(&off).unwrap();
    assert_eq!(cpus(&machine), ["0-7", "0-3", "2-3", "2"]);
    machine.release(&off).unwrap();
    machine.assert_is(&before, "none");
}

#[test]
fn late_threads_are_taken_and_those_that_end_are_no_trouble() {
    let machine = with_threads();
    let life = isolated(1, "2-3");
    machine.prepare(&life).unwrap();
    let late = kernel_thread(99, "xfsaild/sda1", 0, "0-7");
    vfio_hook::host::manifest::lay_out(&late, &machine.root()).unwrap();
    assert_eq!(look(&machine, &life), [""; 0]);
    assert_eq!(thread_cpus(&machine, 99), "0-1,4-7");
    // The kernel writes an older value back; an administrator chooses another one, which is said once.
    machine.set("/proc/15/status", "Name: rcu_preempt\nCpus_allowed_list: 0-7");
    machine.set("/proc/99/status", "Name: xfsaild/sda1\nCpus_allowed_list: 6");
    let notes = look(&machine, &life);
    assert_eq!(
        notes,
        ["CPUs of kernel thread xfsaild/sda1 (99) was changed from outside, from 0-1,4-7 to 6: left alone"]
    );
    assert_eq!((thread_cpus(&machine, 15), thread_cpus(&machine, 99)), ("0-1,4-7".into(), "6".into()));
    assert_eq!(look(&machine, &life), [""; 0]);
    // One ends, and its number is another's.
    std::fs::remove_dir_all(machine.path("/proc/33")).unwrap();
    let another = kernel_thread(34, "jbd2/sda1-8", 0, "0-7").replace("1034", "777034");
    vfio_hook::host::manifest::lay_out(&another, &machine.root()).unwrap();
    let outcome = machine.release(&life).unwrap();
    assert!(outcome.failures.is_empty() && outcome.notes.is_empty(), "{outcome:?}");
    let cpus = [15, 34, 35, 99].map(|pid| thread_cpus(&machine, pid));
    assert_eq!(cpus, ["0-7", "0-7", "2", "6"]);
    assert!(!machine.has_ledger());
}

/// Killed at each write of two guests' lives, and of giving them back.
#[test]
fn wherever_it_is_killed_everything_comes_back() {
    let lines =
        [kernel_thread(15, "rcu_preempt", 0, "0-7"), kernel_thread(34, "khugepaged", 0, "2-5")].concat();
    let boost = format!("{CPU}/cpu{{0..7}}/cpufreq/boost = 1\n{ALL_BOOST} = 1\n");
    let machine = Machine::with("two-nodes", &format!("{lines}{boost}"));
    let before = machine.files();
    let yaml = "isolate_cpus: {units: false, irqs: false, workqueues: false}\n\
                cpu_power: {governor: performance, boost: false, resume_latency: 20us, dma_latency: 50us}\n";
    let lives = [life(guest(1, "2-3", ""), yaml), life(guest(2, "4-5", ""), yaml)];
    crate::support::killed_at_every_write(&machine, &before, &lives);
}

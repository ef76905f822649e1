//! The section `tune`.

use super::*;

#[test]
fn each_key_takes_what_its_description_says() {
    for text in [
        "tune: {stat_interval: 120, swappiness: 0, compaction_proactiveness: 0}",
        "tune: {dirty_bytes: 256MiB, dirty_background_bytes: 4KiB}",
        "tune: {dirty_ratio: 100, dirty_background_ratio: 1}",
        "tune: {sched_rt_runtime_us: -1, numa_balancing: 0, nmi_watchdog: 0, watchdog: 0}",
        "tune: {transparent_hugepages: never, transparent_hugepages_defrag: defer+madvise, ksm: 0}",
        "tune: {halt_poll_ns: 0, writeback_numa: 0, x3d_mode: cache}",
        "tune: {disks: {nvme0n1: {scheduler: none, read_ahead: 0KiB}, sda: {read_ahead: 1MiB}}}",
        "tune: {backlight: {intel_backlight: 0%}}",
        "tune: {files: {/proc/sys/kernel/printk: 4 4 1 7, \"/sys/module/kvm/parameters/nx_huge_pages\": \"N\"}}",
    ] {
        parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn bad_input_is_told_with_its_place() {
    let text = [
        "tune: {}",
        "tune: {swapiness: 10}",
        "tune: {swappiness: 201}",
        "tune: {swappiness: -1}",
        "tune: {swappiness: ten}",
        "tune: {swappiness: 99999999999999999999}",
        "tune: {nmi_watchdog: false}",
        "tune: {transparent_hugepages: madvice}",
        "tune: {transparent_hugepages: true}",
        "tune: {dirty_bytes: 4KiB}",
        "tune: {dirty_bytes: 1048576}",
        "tune: {dirty_bytes: 1MiB, dirty_ratio: 10}",
        "tune: {x3d_mode: fast}",
        "tune: {disks: {}}",
        "tune: {disks: nvme0n1}",
        "tune: {disks: {/dev/sda: {scheduler: none}, \"../sda\": {scheduler: none}, sdb: {}}}",
        "tune: {disks: {sda: {read_ahead: 1000B, sheduler: none}}}",
        "tune: {backlight: {intel_backlight: 30}}",
        "tune: {backlight: {intel_backlight: 101%}}",
        "tune: {files: {}}",
        "tune: {files: {/etc/passwd: 1, proc/sys/vm/swappiness: 1}}",
        "tune: {files: {/proc/sys/../sysrq-trigger: b}}",
        "tune: {files: {/proc/sys/vm/swappiness: 1, /proc/sys/vm/drop_caches: 3}}",
        "tune: {files: {/sys/block/sda/queue/scheduler: none}}",
        "tune: {files: {/proc/sys/kernel/printk: \"\", /proc/sys/vm/a: true, /proc/sys/vm/b: 0.5, /proc/sys/vm/c: }}",
        "tune: {files: {/proc/sys/kernel/core_pattern: \"a\\nb\"}}",
        "tune: never",
    ];
    let told: Vec<String> =
        text.iter().map(|text| format!("{text}\n  {}", mistakes(text).join("\n  "))).collect();
    insta::assert_snapshot!("tune", told.join("\n"));
}

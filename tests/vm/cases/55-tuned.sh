#!/usr/bin/env bash
# Values of a real kernel: sysctls, transparent huge pages, a disk's scheduler, files without a name, a governor where the
# machine has one, and the kernel's own threads. All of it is set for the guest and comes back, also with the keeper killed,
# and what a person sets meanwhile is left alone.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

thp=/sys/kernel/mm/transparent_hugepage/enabled
autogroup=/proc/sys/kernel/sched_autogroup_enabled
disk=$(basename "$(find /sys/block -maxdepth 1 -name 'vd*' | sort | head -n 1)")
[[ $disk ]] || fail "no disk"
governors=$(find /sys/devices/system/cpu/cpu2/cpufreq -name scaling_governor 2>/dev/null || true)

# The CPUs of all threads of the kernel's that can be moved: not those of guests and interrupts.
threads() {
    local stat flags pid
    for stat in /proc/[0-9]*/stat; do
        flags=$(sed 's/.*) //' "$stat" 2>/dev/null | cut -d' ' -f7) || continue
        [[ $flags ]] || continue
        ((flags & 0x00200000 && !(flags & 0x04000000))) || continue
        pid=${stat#/proc/}
        pid=${pid%/stat}
        grep -Eq '^(kthreadd|vhost-|kvm-|irq/)' "/proc/$pid/comm" && continue
        echo "$(<"/proc/$pid/comm") $(sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$pid/status")"
    done | sort
}
values() {
    cat /proc/sys/vm/stat_interval /proc/sys/vm/swappiness /proc/sys/vm/dirty_{bytes,ratio} \
        /proc/sys/vm/dirty_background_{bytes,ratio} /proc/sys/kernel/{nmi_watchdog,watchdog,numa_balancing} \
        /proc/sys/kernel/sched_rt_runtime_us "$thp" "$autogroup" "/sys/block/$disk/queue/"{scheduler,read_ahead_kb}
    # shellcheck disable=SC2086 # none or one
    [[ ! $governors ]] || cat $governors
}

before=$(mktemp)
snapshot "$before"
values_before=$(values) threads_before=$(threads)
configure pinned-a <<EOF
isolate_cpus: {}
hugepages: {}
cpu_power: {cpus: all, resume_latency: 100us, dma_latency: 200us$([[ ! $governors ]] || echo ', governor: performance')}
tune:
  stat_interval: 97
  swappiness: 7
  dirty_bytes: 64MiB
  dirty_background_bytes: 32MiB
  watchdog: 0
  sched_rt_runtime_us: -1
  transparent_hugepages: never
  disks: { $disk: { scheduler: none, read_ahead: 64KiB } }
  files: { $autogroup: 0 }
EOF
vfio-hook test pinned-a --json | jq -e '.changes | length > 10' >/dev/null || fail "test shows too few changes"
expect "values after test" "$(values)" "$values_before"

start pinned-a
expect "stat_interval" "$(</proc/sys/vm/stat_interval)" 97
expect "dirty_ratio" "$(</proc/sys/vm/dirty_ratio)" 0
expect "pages" "$(<$thp)" "always madvise [never]"
grep -qE '^none$|\[none\]' "/sys/block/$disk/queue/scheduler" || fail "scheduler: $(<"/sys/block/$disk/queue/scheduler")"
expect "autogroup" "$(<$autogroup)" 0
expect "latency" "$(</sys/devices/system/cpu/cpu6/power/pm_qos_resume_latency_us)" 100
expect "a thread of the kernel's" "$(threads | grep '^oom_reaper ')" "oom_reaper 0-1,4-7"
vfio-hook status --json | jq -e '.leases[0].held | all(.differs | not)' >/dev/null || fail "$(vfio-hook status)"
destroy pinned-a
expect "values" "$(values)" "$values_before"
expect "threads" "$(threads | grep -vF kworker)" "$(grep -vF kworker <<<"$threads_before")"
same_as "$before"

# The keeper is killed, and then QEMU: the next one gives back.
start pinned-a
systemctl kill -s KILL "vfio-hook-keeper-4-a0000000-0000-4000-8000-00000000000a.service"
echo 33 >/proc/sys/vm/stat_interval
destroy pinned-a
expect "what a person has set" "$(</proc/sys/vm/stat_interval)" 33
said 'vm.stat_interval was changed from outside, from 97 to 33: left alone'
head -n 1 <<<"$values_before" >/proc/sys/vm/stat_interval
expect "values" "$(values)" "$values_before"

# A value that this kernel does not take refuses the start, and nothing stays.
configure pinned-a <<<"tune: {swappiness: 7, files: {/proc/sys/kernel/sched_rr_timeslice_ms: soon}}"
refused pinned-a sched_rr_timeslice_ms tune.files
expect "values" "$(values)" "$values_before"

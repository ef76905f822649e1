#!/usr/bin/env bash
# What CPU hot-plug and the host's sleep undo is set again. What is left of a guest and its keeper goes back with the unit
# that is started at boot, and a keeper that is killed for good comes again.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

cpu=/sys/devices/system/cpu/cpu
unit=vfio-hook-recover.service
keeper=vfio-hook-keeper-4-a0000000-0000-4000-8000-00000000000a.service

"$(dirname "$0")/../install/install.sh" --binary /usr/bin/vfio-hook
expect "unit" "$(systemctl is-enabled $unit)" enabled
faults=$(systemd-analyze verify $unit 2>&1)
[[ ! $faults ]] || fail "$faults"

# An interrupt that the guest leaves with one CPU.
for irq in /proc/irq/[0-9]*; do
    [[ -w $irq/smp_affinity_list ]] || continue
    grep -q . "/sys/kernel/irq/${irq##*/}/actions" || continue
    usual=$(<"$irq/smp_affinity_list")
    ! echo 3,7 2>/dev/null >"$irq/smp_affinity_list" || break
done
echo "interrupt ${irq##*/}: $(<"/sys/kernel/irq/${irq##*/}/actions"), $usual"
expect "interrupt" "$(<"$irq/smp_affinity_list")" 3,7
back() {
    echo 1 | tee ${cpu}{2,3,6,7}/online >/dev/null
    echo "$usual" >"$irq/smp_affinity_list"
    echo none >/sys/power/pm_test
    rm -rf /run/systemd/system/vfio-hook-keeper-.service.d
}
trap back EXIT

before=$(mktemp) began=$(date '+%F %T')
snapshot "$before"
configure pinned-a <<<$'isolate_cpus: {}\ncpu_power: {resume_latency: 20us}\nhugepages: {}'

# is WHAT WANTED COMMAND...: within 20 s.
is() {
    local deadline=$((SECONDS + 20))
    until [[ $("${@:3}") == "$2" ]]; do
        ((SECONDS < deadline)) || fail "$1: '$("${@:3}")' instead of '$2'; $(vfio-hook status)"
        sleep 0.2
    done
}
is_true() {
    vfio-hook status --json | jq -e '.leases | length == 1 and (.[0] | .runs and .phase == "started" and
        (.held | any(.setting == "keeper")) and (.held | all(.differs | not)))' >/dev/null && echo yes
}
locks() { systemd-inhibit --list --no-legend | grep -c 'guest pinned-a runs' || true; }
allowed() { systemctl show -P AllowedCPUs system.slice; }
latency() { cat ${cpu}2/power/pm_qos_resume_latency_us; }

# A CPU that comes while the guest runs is the host's.
echo 0 >${cpu}6/online
start pinned-a
expect "CPUs" "$(allowed)" "0-1 4-5 7"
expect "interrupt" "$(<"$irq/smp_affinity_list")" 7
echo 1 >${cpu}6/online
is "CPUs" "0-1 4-7" allowed

# What the keeper has begun is over before the next one goes.
sleep 3

# The kernel gives an interrupt to others when its last CPU goes, and leaves it with them.
echo 0 >${cpu}7/online
[[ $(<"$irq/smp_affinity_list") != 7 ]] || fail "the kernel has not moved the interrupt"
echo 1 >${cpu}7/online
is "interrupt" 7 cat "$irq/smp_affinity_list"

# CPUs of the guest's go and come, one of them without what was set.
echo 0 >${cpu}3/online
echo 0 >${cpu}2/power/pm_qos_resume_latency_us
echo 1 >${cpu}3/online
is "latency" 20 latency
is "status" yes is_true
chosen=$(journalctl -q -t vfio-hook -o cat --since "$began" | grep 'changed from outside' || true)
[[ ! $chosen ]] || fail "the kernel's choice was taken for an administrator's: $chosen"

# The end of a sleep.
echo freezer >/sys/power/pm_test
echo 1 >/sys/module/suspend/parameters/pm_test_delay
slept=$(</sys/power/suspend_stats/success)
echo 0 >${cpu}2/power/pm_qos_resume_latency_us
systemctl suspend
is "sleeps" $((slept + 1)) cat /sys/power/suspend_stats/success
is "latency" 20 latency
echo none >/sys/power/pm_test
destroy pinned-a
same_as "$before" 10
wait_no_keepers

# A soft-reboot leaves the ledger and what was set, but no process that looks at them.
configure pinned-a <<<$'isolate_cpus: {}\ncpu_power: {resume_latency: 20us}\nhugepages: {}\nblock_sleep: {strength: mask}'
start pinned-a
systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
systemctl stop "$keeper"
pkill -KILL -f 'guest=pinned-a'
sleep 1
[[ -e /run/vfio-hook/ledger.json ]] || fail "nothing is left"
expect "CPUs" "$(allowed)" "0-1 4-7"
systemctl start $unit
same_as "$before" 10
wait_no_keepers
systemctl start libvirtd
wait_off pinned-a 30
same_as "$before"

# Without a ledger it is not even started.
systemctl start $unit
expect "condition" "$(systemctl show -P ConditionResult $unit)" no

# The keeper is killed between prepare and QEMU: the unit, started by that, takes nothing away.
cat >/tmp/wait-in-start <<'IN'
#!/bin/sh
[ "$2" != start ] || sleep 8
IN
install -D -m 755 /tmp/wait-in-start /etc/libvirt/hooks/qemu.d/90-wait
systemctl reload libvirtd
start pinned-a &
until vfio-hook status | grep -q '^pinned-a .*: prepared'; do sleep 0.3; done
pkill -KILL -f '^vfio-hook keeper'
wait $! || fail "not started"
rm -r /etc/libvirt/hooks/qemu.d
is "status" yes is_true
destroy pinned-a
same_as "$before" 10
wait_no_keepers

# systemd gives up a keeper that is killed again and again: here after three, however slow the machine is.
limit=/run/systemd/system/vfio-hook-keeper-.service.d
mkdir -p $limit
printf '[Unit]\nStartLimitIntervalSec=5min\nStartLimitBurst=3\n' >$limit/limit.conf
systemctl daemon-reload
start pinned-a
systemctl reset-failed $unit 2>/dev/null || true
began=$EPOCHSECONDS killed=0
given_up() { journalctl -q -u "$keeper" --since "@$began" -o cat | grep 'repeated too quickly' >/dev/null; }
until given_up; do
    ! pkill -KILL -f '^vfio-hook keeper' || killed=$((killed + 1))
    ((EPOCHSECONDS < began + 120)) || fail "not given up after $killed keepers; $(systemctl status "$keeper" 2>&1)"
    sleep 0.1
done
echo "figure: systemd gives up a keeper that was killed $killed times"
is "status" yes is_true
expect "guest" "$(virsh -q domstate pinned-a)" running
is "locks" 1 locks
rm -r $limit
systemctl daemon-reload
systemctl reset-failed $unit 2>/dev/null || true
# A guest that runs is not touched, with its keeper there or not.
systemctl stop "$keeper"
systemctl start $unit
is "status" yes is_true
systemctl start $unit
is "status" yes is_true
destroy pinned-a
same_as "$before" 10
wait_no_keepers

#!/usr/bin/env bash
# A start that fails at one step after the other: what had been done is taken back, commands among it, and no more. A daemon
# that sets values of its own each second has its way, and is told of once. A wrong guests.yaml keeps no guest from its end.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp) log=$(mktemp)
groups=/etc/vfio-hook/guests.yaml
fails=/run/systemd/system/fails.service
shared=/dev/shm/part-way
cpus=/sys/devices/system/cpu
interval=/proc/sys/vm/stat_interval
interval_of_boot=$(<$interval)
trap 'systemctl stop daemon-of-others 2>/dev/null || true
    rm -f $groups $fails $shared
    echo $interval_of_boot >$interval
    systemctl daemon-reload' EXIT
printf '[Service]\nExecStart=/bin/false\n' >$fails
systemctl daemon-reload
load_clocks
snapshot "$before"
interval_before=$(<$interval)

# command_of EVENT NAME STATUS: writes its name down and ends so.
command_of() {
    echo "- {when: $1, command: [/bin/sh, -c, 'echo $2 >>$log; exit $3'], on_failure: refuse,
   undo: [/bin/sh, -c, 'echo not-$2 >>$log']}"
}
# is_refused COMMANDS WORD...: what ran, and words of the refusal. The guest's file is read from here.
is_refused() {
    : >"$log"
    configure plain
    refused plain "${@:2}"
    wait_no_keepers_for 30
    expect "commands" "$(paste -sd' ' "$log")" "$1"
    expect "vm.stat_interval" "$(<$interval)" "$interval_before"
    [[ ! -e $shared ]] || fail "the shared memory stays"
    same_as "$before"
}
# run STATUS STATUS STATUS: three commands that end so.
run() {
    echo run:
    command_of prepare one "$1"
    command_of prepare two "$2"
    command_of start three "$3"
}
# settings [SETTING]
settings() {
    echo "tune: {stat_interval: 97${1+, $1}}
shared_memory: {path: $shared, size: 1MiB, group: root}
cpu_power: {cpus: all, governor: performance}"
}

# Before the first command: none runs.
is_refused "" "it failed right after its start" < <(settings && run 0 0 0 && echo 'services: {start: fails.service}')
systemctl reset-failed fails || true
is_refused "" "swappiness" < <(echo 'tune: {stat_interval: 97, swappiness: 201}' && run 0 0 0)
# At each command.
is_refused "one not-one" "ended with exit status 3" < <(settings && run 3 0 0)
is_refused "one two not-two not-one" "ended with exit status 4" < <(settings && run 0 4 0)
is_refused "one two three not-three not-two not-one" "(start) ended with exit status 5" < <(settings && run 0 0 5)
# A value that the kernel does not take, and a CPU that takes no governor where others had taken it.
is_refused "one two not-two not-one" sched_rr_timeslice_ms tune.files < <(
    settings 'files: {/proc/sys/kernel/sched_rr_timeslice_ms: soon}' && run 0 0 0
)
echo 5 >/sys/module/vh_clock/parameters/refuses
is_refused "one two not-two not-one" "governor" < <(settings && run 0 0 0)
echo -1 >/sys/module/vh_clock/parameters/refuses
# libvirt's own part, after the hook's.
virsh -q attach-disk plain /nowhere.img vdz --config
is_refused "one two not-two not-one" nowhere.img < <(settings && run 0 0 0)
virsh -q detach-disk plain vdz --config

# A daemon.
settings | configure plain
since=$(date '+%F %T')
start plain
expect "vm.stat_interval" "$(<$interval)" 97
# shellcheck disable=SC2016 # the unit's shell expands it
systemd-run -q --unit=daemon-of-others /bin/sh -c "while :; do
    for file in $cpus/cpu*/cpufreq/scaling_governor; do echo ondemand >\$file; done
    echo 33 >$interval
    sleep 1
done"
deadline=$((SECONDS + 20))
until [[ $(sort -u $cpus/cpu*/cpufreq/scaling_governor) == ondemand && $(<$interval) == 33 ]]; do
    ((SECONDS < deadline)) || fail "the daemon sets nothing"
    sleep 0.3
done
# The keeper looks at its values again.
systemctl daemon-reload
sleep 5
# Who still has the value that it set wrote it after the daemon: that is caught within a second.
for _ in {1..10}; do
    expect "governors" "$(sort -u $cpus/cpu*/cpufreq/scaling_governor)" ondemand
    expect "vm.stat_interval" "$(<$interval)" 33
    sleep 0.2
done
destroy plain
wait_no_keepers_for 30
expect "governors" "$(sort -u $cpus/cpu*/cpufreq/scaling_governor)" ondemand
expect "vm.stat_interval" "$(<$interval)" 33
told() {
    journalctl -q -t vfio-hook -o cat --since "$since" |
        sed -n "s/^plain: \(.*\) was changed from outside, from $1: left alone$/\1/p" | sort | paste -sd,
}
expect "told of" "$(told '97 to 33')" vm.stat_interval
expect "told of" "$(told 'performance to ondemand')" "$(printf 'governor of CPU %s\n' {0..7} | paste -sd,)"
systemctl stop daemon-of-others
echo "$interval_before" >$interval
echo schedutil | tee $cpus/cpu*/cpufreq/scaling_governor >/dev/null
same_as "$before"
unload_clocks

# guests.yaml becomes wrong while guests run that are in a group of it.
rm /etc/vfio-hook/hooks.d/plain.yaml
snapshot "$before"
printf 'groups:\n  all:\n    guests: "*"\n    hugepages: {}\n    tune: {stat_interval: 97}\n' >$groups
configure pinned-a <<<'isolate_cpus: {}'
start pinned-a
start pinned-b
echo 'groups: [' >$groups
systemctl restart libvirtd
wait_for_monitor pinned-a
wait_for_monitor pinned-b
expect "vm.stat_interval" "$(<$interval)" 97
expect "guests that run" "$(virsh -q list --name | sort | xargs)" "pinned-a pinned-b"
destroy pinned-a
expect "vm.stat_interval" "$(<$interval)" 97
refused pinned-a guests.yaml
destroy pinned-b
expect "vm.stat_interval" "$(<$interval)" "$interval_before"
same_as "$before" 10

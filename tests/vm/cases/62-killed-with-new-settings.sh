#!/usr/bin/env bash
# Power, kernel values, units, commands with an undo, shared memory and threads, for one guest and beside a second one: the
# hook is killed at a write of the ledger or of a setting, in each way in which a guest ends, and between a command and
# the ledger. The host comes back. In a soak at every write; else at a few, spread over them.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
marks=/run/for-guests
shared=/dev/shm/for-guests
link=/etc/libvirt/hooks/qemu
autogroup=/proc/sys/kernel/sched_autogroup_enabled
unit=/run/systemd/system/for-guest.service
trap 'rm -rf $unit $marks $shared /run/vfio-hook-failpoint; systemctl daemon-reload' EXIT
printf '[Service]\nExecStart=/bin/sleep infinity\n' >$unit
systemctl daemon-reload
load_clocks
ln -sf /usr/bin/vfio-hook-failpoints /tmp/qemu

# command_of GUEST EVENT NAME: makes a folder, and its undo takes it away.
command_of() {
    echo "- {when: $2, command: [/bin/mkdir, -p, $marks/$1/$3], undo: [/bin/rm, -rf, $marks/$1/$3]}"
}
for guest in pinned-a pinned-b poweroff; do
    configure $guest <<END
isolate_cpus: {}
hugepages: {}
cpu_power: {cpus: all, governor: performance, boost: false, resume_latency: 100us, dma_latency: 200us}
tune:
  stat_interval: 97
  dirty_bytes: 64MiB
  transparent_hugepages: never
  disks: {vda: {read_ahead: 64KiB}}
  files: {$autogroup: 0}
services: {start: for-guest.service}
shared_memory: {path: $shared, size: 1MiB, group: root}
schedule: {emulator: {nice: 5}}
run:
$(command_of $guest prepare one)
$(command_of $guest prepare two)
$(command_of $guest start three)
$(command_of $guest started four)
- {when: started, command: [/bin/sleep, "7777"], background: true}
END
    mkdir -p $marks/$guest
    virsh -q dumpxml $guest >/tmp/$guest.xml
done

# All that a guest changes here and `knobs` does not have.
values() {
    grep -Hs . /sys/devices/system/cpu/cpu*/cpufreq/{scaling_governor,boost} /sys/devices/system/cpu/cpufreq/boost \
        /proc/sys/vm/{stat_interval,dirty_bytes,dirty_ratio} /sys/kernel/mm/transparent_hugepage/enabled \
        /sys/block/vda/queue/read_ahead_kb $autogroup
    echo "latency: $(od -An -td4 -N4 /dev/cpu_dma_latency)"
    echo "unit: $(systemctl is-active for-guest || true)"
    (find $marks $shared /run/systemd/transient -path '*AllowedCPUs*' -o -path '*for-guests*' 2>/dev/null || true) | sort
    pgrep -cf 'sleep 7777' || true
}
# snapshot_all NAME, and all_as NAME: the host is as it was then, within 40 s: keepers may be the ones that give back.
snapshot_all() {
    snapshot "$before.$1"
    values >"$before.$1.values"
}
all_as() {
    local deadline=$((SECONDS + 40)) difference
    until difference=$(diff -U0 "$before.$1.values" <(values)); do
        ((SECONDS < deadline)) || fail "the host is not as it was $1:"$'\n'"$difference"
        sleep 0.3
    done
    same_as "$before.$1" 20
}

event() { hook "$1" "$2" "$3" - <"/tmp/$1.xml"; }
# points EVENT...: how many there are.
points() {
    VFIO_HOOK_FAILPOINT=count:/tmp/points /tmp/qemu pinned-a "$1" "$2" - </tmp/pinned-a.xml
    cat /tmp/points
}
# killed POINT OPERATION SUB-OPERATION: what libvirt is told of a release is success all the same.
killed() {
    ! { VFIO_HOOK_FAILPOINT=kill:$1 /tmp/qemu pinned-a "$2" "$3" - </tmp/pinned-a.xml; } 2>/tmp/message ||
        [[ $2 == release ]] || fail "$2 was not refused at point $1"
}
recover() {
    case $(($1 % 3)) in
        0) vfio-hook undo --stale >/dev/null ;;
        # One that was killed at its last step leaves a file that says that nothing is held; no call opens it.
        1) event pinned-a release end && vfio-hook undo --stale >/dev/null ;;
        2) event pinned-a prepare begin && event pinned-a release end ;;
    esac
}
# at_each STATE SAMPLES STEP: the hook is killed at so many of the writes of each event; in a soak at each, or each third.
at_each() {
    local in_prepare in_start in_release point step turn=0
    in_prepare=$(points prepare begin)
    in_start=$(points start begin)
    in_release=$(points release end)
    all_as "$1"
    ((in_prepare > 100 && in_start > 1 && in_release > 100)) || fail "only $in_prepare, $in_start, $in_release points"
    # step_of POINTS SAMPLES STEP
    step_of() { if [[ ${SOAK-} ]]; then echo "$3"; else echo $(($1 / $2 + 1)); fi; }
    step=$(step_of "$in_prepare" "$2" "$3")
    for ((point = 1 + step / 2; point <= in_prepare; point += step)); do
        killed "$point" prepare begin
        recover $((turn++))
        all_as "$1"
    done
    step=$(step_of "$in_start" 1 1)
    for ((point = 1 + step / 2; point <= in_start; point += step)); do
        event pinned-a prepare begin
        killed "$point" start begin
        recover $((turn++))
        all_as "$1"
    done
    step=$(step_of "$in_release" "$2" "$3")
    for ((point = 1 + step / 2; point <= in_release; point += step)); do
        event pinned-a prepare begin
        event pinned-a start begin
        killed "$point" release end
        recover $((turn++))
        all_as "$1"
    done
    echo "figure: $1: killed $turn times at the $in_prepare, $in_start and $in_release writes of prepare, start and release"
}

# The ways in which a guest ends.
by_itself() { wait_off "$1" 60; }
destroyed() { destroy "$1"; }
qemu_killed() {
    pkill -KILL -f "guest=$1"
    wait_off "$1" 30
}
without_libvirtd() {
    systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
    pkill -KILL -f "guest=$1"
    systemctl start libvirtd
    wait_off "$1" 30
}
# One that was killed is started again, and gives back.
keeper_ended() {
    local deadline=$((SECONDS + 60)) keeper
    keeper=vfio-hook-keeper-4-$(virsh -q domuuid "$1" | tr -d '\n').service
    until [[ $(systemctl is-active "$keeper") =~ inactive|failed ]]; do
        ((SECONDS < deadline)) || fail "$keeper is there yet: $(systemctl status "$keeper")"
        sleep 0.3
    done
}
# settled STATE GUEST: nobody is killed any more, and what the guest has left is given back.
settled() {
    rm /run/vfio-hook-failpoint
    ln -sfn /usr/bin/vfio-hook $link
    vfio-hook undo --stale >/dev/null
    keeper_ended "$2"
    # Its keeper may have been killed only then.
    vfio-hook undo --stale >/dev/null
    all_as "$1"
}
# lives STATE WAY POINT...: the hook is killed at that write of each event with which a guest ends so; in a soak its keeper
# too.
lives() {
    local guest=pinned-a point
    [[ $2 != by_itself ]] || guest=poweroff
    for point in "${@:3}"; do
        [[ ! ${SOAK-} ]] || ln -sfn /usr/bin/vfio-hook-failpoints $link
        start $guest
        echo "kill:$point" >/run/vfio-hook-failpoint
        ln -sfn /usr/bin/vfio-hook-failpoints $link
        "$2" $guest
        settled "$1" $guest
    done
    echo "figure: $1: killed while a guest ends ($2) at $(($# - 2)) writes"
}
ways=(by_itself destroyed qemu_killed without_libvirtd)

snapshot_all before
at_each before 2 1
if [[ ${SOAK-} ]]; then
    # A life takes ten times as long as what `at_each` does.
    for way in "${ways[@]}"; do lives before "$way" {3..200..40}; done
else
    lives before without_libvirtd 60
fi
wait_no_keepers_for 30

# Beside another guest with the same settings.
start pinned-b
deadline=$((SECONDS + 20))
until pgrep -f 'sleep 7777' >/dev/null && [[ -e $marks/pinned-b/four ]]; do
    ((SECONDS < deadline)) || fail "commands of pinned-b do not run"
    sleep 0.3
done
snapshot_all beside
at_each beside 1 3
if [[ ${SOAK-} ]]; then
    for way in "${ways[@]}"; do lives beside "$way" {5..150..30}; done
else
    lives beside destroyed 20
fi

# libvirtd comes back while both run, and the hook is killed: neither guest ends. Then one does.
start pinned-a
echo kill:2 >/run/vfio-hook-failpoint
ln -sfn /usr/bin/vfio-hook-failpoints $link
systemctl restart libvirtd
wait_for_monitor pinned-a
wait_for_monitor pinned-b
qemu_killed pinned-a
settled beside pinned-a
destroy pinned-b
all_as before
wait_no_keepers_for 30

# A command that has run, and who asked for it dies before it is told; an undo whose keeper dies: it runs again.
log=/tmp/for-guests.log
configure pinned-a <<END
tune: {stat_interval: 97}
run:
- when: prepare
  command: [/bin/sh, -c, 'mkdir $marks/pinned-a/one; echo one >>$log; pkill -KILL -f "pinned-a prepare begin"']
  undo: [/bin/sh, -c, 'rm -rf $marks/pinned-a/one; echo not-one >>$log']
- {when: prepare, command: [/bin/sh, -c, 'echo two >>$log'], undo: [/bin/sh, -c, 'echo not-two >>$log']}
END
: >$log
! event pinned-a prepare begin 2>/tmp/message || fail "prepare was not killed"
expect "commands" "$(paste -sd' ' $log)" one
vfio-hook undo --stale
all_as before
expect "commands" "$(paste -sd' ' $log)" "one not-one"

configure pinned-a <<END
run:
- when: prepare
  command: [/bin/sh, -c, 'mkdir $marks/pinned-a/one; echo one >>$log']
  undo: [/bin/sh, -c, 'echo not-one >>$log; rm -rf $marks/pinned-a/one; [ -e /tmp/killed ] || { touch /tmp/killed; kill -KILL \$PPID; }']
END
: >$log
rm -f /tmp/killed
event pinned-a prepare begin
event pinned-a release end || true
all_as before
deadline=$((SECONDS + 30))
until [[ $(vfio-hook status) == "no guest holds anything" ]]; do
    ((SECONDS < deadline)) || fail "$(vfio-hook status)"
    sleep 0.3
done
[[ $(paste -sd' ' $log) =~ ^one( not-one)+$ ]] || fail "commands: $(paste -sd' ' $log)"
echo "figure: an undo whose keeper was killed ran $(grep -c not-one $log) times"
wait_no_keepers_for 30
unload_clocks

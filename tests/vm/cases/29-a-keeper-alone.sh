#!/usr/bin/env bash
# The keeper sets CPUs apart again after a daemon-reload; one that hangs keeps nobody waiting; one that has nothing to do
# does nothing, and is small.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}\nblock_sleep: {}'
locks() { systemd-inhibit --list --no-legend | grep -c 'guest pinned-a runs' || true; }

# A daemon-reload brings back what an administrator set for good; the keeper isolates again.
systemctl set-property user.slice AllowedCPUs=0-6
snapshot "$before.persistent"
start pinned-a
expect "CPUs" "$(</sys/fs/cgroup/user.slice/cpuset.cpus.effective)" 0-1,4-6
systemctl daemon-reload
deadline=$((SECONDS + 20))
until [[ $(systemctl show -P AllowedCPUs user.slice) == "0-1 4-6" ]]; do
    ((SECONDS < deadline)) || fail "not isolated again: $(systemctl show -P AllowedCPUs user.slice)"
    sleep 0.2
done
destroy pinned-a
same_as "$before.persistent"
systemctl set-property user.slice AllowedCPUs=
rm -rf /etc/systemd/system.control /run/systemd/system.control/user.slice.d
systemctl daemon-reload

# One that hangs keeps nobody waiting for longer than an event may take, and is ended.
start pinned-a
pkill -STOP -f '^vfio-hook keeper'
began=$SECONDS
destroy pinned-a
((SECONDS - began < 20)) || fail "destroy took $((SECONDS - began)) s"
same_as "$before" 10
wait_no_keepers
expect "locks of one that hung" "$(locks)" 0
expect "lease of one that hung" "$(vfio-hook status)" "no guest holds anything"

# Nothing wakes a keeper while nothing happens, and it is small.
start pinned-a
sleep 20
keeper=$(pgrep -f '^vfio-hook keeper')
switches() { awk '/ctxt_switches/ { sum += $2 } END { print sum }' "/proc/$keeper"/task/*/status; }
at_first=$(switches)
sleep 60
woken=$(($(switches) - at_first))
private=$(awk '/^Private/ { sum += $2 } END { print sum }' "/proc/$keeper/smaps_rollup")
dirty=$(awk '/^Private_Dirty/ { print $2 }' "/proc/$keeper/smaps_rollup")
echo "figure: keeper: $woken context switches in a minute, $private kB private, $dirty kB of them written"
((private < 4096)) || fail "the keeper has $private kB for itself"
# Two looks for interrupts come in that minute; each asks systemd over the bus, which two threads do.
((woken <= 30)) || fail "the keeper was woken $woken times in a minute in which nothing happened"
destroy pinned-a
same_as "$before" 10

#!/usr/bin/env bash
# The program is replaced while a guest runs: by a newer version, and by the earlier one again.
# needs: earlier-binary
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
cp /usr/bin/vfio-hook /tmp/current
# As install.sh does it: what runs keeps the file that it was started from.
use() { cp --remove-destination "$1" /usr/bin/vfio-hook; }
trap 'rm -f /tmp/locks; use /tmp/current' EXIT
for guest in pinned-a pinned-b; do
    configure $guest <<<$'isolate_cpus: {}\nhugepages: {}\nblock_sleep: {}'
done
locks() { systemd-inhibit --list --no-legend | grep -c 'guest pinned-a runs' || true; }
keepers() { pgrep -f '^vfio-hook keeper' || true; }
format() { grep -ho '"format": *[0-9]*' /run/vfio-hook/ledger*.json | sort -u | tr -dc '0-9\n' | paste -sd' '; }

# The keeper has a successor, and the sleep lock is held all the time.
use /usr/bin/vfio-hook-earlier
start pinned-a
expect "format" "$(format)" 3
earlier=$(keepers)
[[ $earlier ]] || fail "no keeper"
expect "locks" "$(locks)" 1
use /tmp/current
: >/tmp/locks
(while [[ -e /tmp/locks ]]; do locks >>/tmp/locks; done) &
watcher=$!
systemctl restart libvirtd
wait_for_monitor pinned-a
deadline=$((SECONDS + 20))
until [[ $(keepers) && $(keepers) != "$earlier" && $(keepers | wc -l) == 1 ]]; do
    ((SECONDS < deadline)) || fail "no successor: $(keepers | paste -sd' ') after $earlier; $(vfio-hook status)"
    sleep 0.2
done
sleep 1
mv /tmp/locks /tmp/locks-seen
wait "$watcher" || true
expect "never without a lock" "$(grep -c '^0$' /tmp/locks-seen || true)" 0
echo "figure: the sleep lock was looked at $(wc -l </tmp/locks-seen) times while the keeper was replaced"
expect "format" "$(format)" 4
expect "locks" "$(locks)" 1
vfio-hook status --json | jq -e '.leases[0].held | all(.differs | not)' >/dev/null || fail "$(vfio-hook status)"
destroy pinned-a
same_as "$before" 20
wait_no_keepers

# Nothing is heard of the new version before the guest ends.
use /usr/bin/vfio-hook-earlier
start pinned-a
start pinned-b
use /tmp/current
destroy pinned-a
expect "CPUs of pinned-b" "$(</sys/fs/cgroup/user.slice/cpuset.cpus.effective)" 0-3
destroy pinned-b
same_as "$before" 20
wait_no_keepers

# The earlier version cannot read what this one wrote: it refuses, changes nothing, and kills nothing. The keeper gives
# back when the guest is gone.
start pinned-a
use /usr/bin/vfio-hook-earlier
refused pinned-b "format 4"
expect "pinned-a" "$(virsh -q domstate pinned-a)" running
systemctl restart libvirtd
wait_for_monitor pinned-a
expect "pinned-a" "$(virsh -q domstate pinned-a)" running
destroy pinned-a
same_as "$before" 60
wait_no_keepers

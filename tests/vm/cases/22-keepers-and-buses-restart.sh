#!/usr/bin/env bash
# The keeper, logind, the bus and libvirtd go and come back, in a soak in every order of two, else in every second
# one: afterwards `status` is true, the sleep lock is held once, and when the guest is gone the host is what it was.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}\nblock_sleep: {}'

kill_keeper() { pkill -KILL -f '^vfio-hook keeper'; }
kill_logind() { systemctl kill -s KILL systemd-logind; }
# The logind of Debian 13 stays off a bus that was restarted, and libvirtd ends with the bus: its socket starts it again.
restart_dbus() { systemctl restart dbus; timeout 30 systemctl restart systemd-logind; }
restart_libvirtd() { systemctl restart libvirtd; }

is_true() {
    vfio-hook status --json | jq -e '.leases | length == 1 and (.[0] | .runs and .phase == "started" and
        (.held | any(.setting == "keeper")) and (.held | all(.differs | not)))' >/dev/null
}
locks() { systemd-inhibit --list --no-legend | grep -c 'guest pinned-a runs' || true; }

events=(kill_keeper kill_logind restart_dbus restart_libvirtd)
order=0
for first in "${events[@]}"; do
    for second in "${events[@]}"; do
        [[ $first != "$second" ]] || continue
        order=$((order + 1))
        [[ ${SOAK-} ]] || ((order % 2)) || continue
        start pinned-a
        "$first"
        "$second"
        deadline=$((SECONDS + 40))
        until [[ $(virsh -q domstate pinned-a) == running ]] && is_true && [[ $(locks) == 1 ]]; do
            ((SECONDS < deadline)) || fail "after $first, $second: $(vfio-hook status); $(systemd-inhibit --list)"
            sleep 0.5
        done
        wait_for_monitor pinned-a
        destroy pinned-a
        same_as "$before" 10
        expect "locks after $first, $second" "$(locks)" 0
        wait_no_keepers
    done
done

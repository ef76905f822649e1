#!/usr/bin/env bash
# A guest on CPUs and pages of its own; however it ends, the host is what it was.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
for guest in pinned-a poweroff broken-start; do
    configure "$guest" <<<$'isolate_cpus: {}\nhugepages: {}'
done
snapshot "$before"

# What a running guest on CPUs 2-3 must have.
isolated() {
    for group in init.scope system.slice user.slice; do
        expect "effective CPUs of $group" "$(<"/sys/fs/cgroup/$group/cpuset.cpus.effective")" 0-1,4-7
    done
    expect "interrupts on CPUs 2-3" "$(movable_interrupts_on 2 3)" ""
    expect "programs on CPUs 2-3" "$(programs_on 2 3)" ""
    expect "pages" "$(pages 0)/$(free_pages 0) $(pages 1)/$(free_pages 1)" "32/0 0/0"
    vfio-hook status | grep -q "^$1 (.*): started" || fail "no lease: $(vfio-hook status)"
    vfio-hook status --json | jq -e '.leases[0].held | all(.differs | not)' >/dev/null || fail "$(vfio-hook status)"
}

start pinned-a
isolated pinned-a
destroy pinned-a
same_as "$before"

# QEMU is killed; libvirt notices.
start pinned-a
isolated pinned-a
pkill -KILL -f 'guest=pinned-a'
wait_off pinned-a 30
same_as "$before"

# The guest switches itself off.
start poweroff
isolated poweroff
wait_off poweroff 60
same_as "$before"

# The start fails after prepare.
! start broken-start || fail "broken-start was started"
same_as "$before"

# What test shows is what is done.
vfio-hook test pinned-a --json | jq -r '.changes[] | "  \(.setting) \(.now) -> \(.then)"' >"$before.test"
start pinned-a
journalctl -q -t vfio-hook -o cat | grep -A99 '^[^:]*: prepare: ' | grep ' -> ' | tail -n "$(wc -l <"$before.test")" >"$before.done"
expect "changes" "$(tr -s ' :' ' ' <"$before.done")" "$(tr -s ' :' ' ' <"$before.test")"
destroy pinned-a
expect "lease" "$(vfio-hook status)" "no guest holds anything"
same_as "$before"

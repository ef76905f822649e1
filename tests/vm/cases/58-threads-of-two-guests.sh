#!/usr/bin/env bash
# The threads of two guests are scheduled as each one's own file says; files of shared memory come and go with their
# guests; a guest does not start beside one that is in conflict with it.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
shared=/dev/shm/vfio-hook-shared
configure plain <<<"schedule: {emulator: {nice: 5}}
shared_memory: {path: $shared, size: 2MiB, group: root}"
configure pinned-b <<<$'hugepages: {}\nschedule: {emulator: {nice: -3}}'
snapshot "$before"

# QEMU's first thread: under emulation, as here, libvirt names none of vCPUs.
qemu() { cat "/run/libvirt/qemu/$1.pid"; }
nice_of() { sed 's/.*) //' "/proc/$(qemu "$1")/task/$(qemu "$1")/stat" | cut -d' ' -f17; }
# becomes WHAT GUEST NICE: within 20 s.
becomes() {
    local deadline=$((SECONDS + 20))
    until [[ $(nice_of "$2") == "$3" ]]; do
        ((SECONDS < deadline)) || fail "$1: nice $(nice_of "$2") instead of $3"
        sleep 0.3
    done
}

start plain
expect "shared memory" "$(stat -c '%s %U %G %a' "$shared")" "2097152 root root 660"
start pinned-b
becomes "the emulator of plain" plain 5
becomes "the emulator of pinned-b" pinned-b -3

# A choice of a person's stays.
renice -n 1 -p "$(qemu pinned-b)"
systemctl daemon-reload
sleep 5
becomes "what a person has chosen" pinned-b 1
vfio-hook undo plain --force
becomes "given back while it runs" plain 0
[[ ! -e $shared ]] || said 'has .* open'
destroy pinned-b
destroy plain
rm -f "$shared"
same_as "$before" 20

# In conflict, in the one direction that the file says; a path that is not there.
configure pinned-b <<<$'hugepages: {}\nconflicts: [{guest: pinned-a, message: one at a time}]'
configure pinned-a <<<'hugepages: {}'
start pinned-a
refused pinned-b 'one at a time: guest pinned-a runs' 'help: shut pinned-a down first'
destroy pinned-a
start pinned-b
destroy pinned-b
configure pinned-b <<<$'hugepages: {}\nrequires: [{path: /none/such, message: not yet}]'
refused pinned-b 'not yet: /none/such is not there' 'help: '

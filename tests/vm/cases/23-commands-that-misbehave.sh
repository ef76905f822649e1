#!/usr/bin/env bash
# Commands that never end, leave a child behind that holds their pipes, print without end, or kill their parent: the guest
# starts in time or is refused in time, libvirt answers, and nothing is left running after the guest.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
bin=/usr/local/lib/test-commands
install -d $bin
trap 'rm -rf $bin' EXIT
script() { printf '#!/bin/bash\n%s\n' "$2" >"$bin/$1"; chmod 755 "$bin/$1"; }
script endless 'trap "" TERM; sleep 1000 & wait; while :; do sleep 1000; done'
script leaves-a-child 'sleep 1001 & setsid -f sleep 1002; exit 0'
script prints 'head -c 100000000 /dev/zero | tr "\0" x; echo; echo the end'
# shellcheck disable=SC2016 # the scripts expand these
script kills-its-parent 'sleep 1003 & kill -9 $PPID; sleep 1004'
# shellcheck disable=SC2016
script says 'echo "event $VFIO_HOOK_EVENT of $VFIO_HOOK_GUEST $VFIO_HOOK_UUID because of $VFIO_HOOK_REASON"; id -un; cat'

# gone: nothing of the commands runs any more.
gone() {
    local deadline=$((SECONDS + 20)) left
    while left=$(pgrep -af "$bin|sleep 100[0-9]"); do
        ((SECONDS < deadline)) || fail "left running: $left"
        sleep 0.3
    done
}
# started_within SECONDS
started_within() {
    local began=$SECONDS
    start plain
    ((SECONDS - began <= $1)) || fail "the start took $((SECONDS - began)) s"
}
ends() {
    destroy plain
    same_as "$before" 20
    gone
    expect "lease" "$(vfio-hook status)" "no guest holds anything"
}

start plain
destroy plain
began=$SECONDS
start plain
usual=$((SECONDS - began + 6))
destroy plain

for when in prepare started; do
    for command in endless leaves-a-child prints; do
        configure plain <<<"run: [{when: $when, command: [$bin/$command], timeout: 3s}]"
        # Its time, and two seconds after which it is killed.
        started_within $((usual + 6))
        timeout 10 virsh -q list >/dev/null
        ends
    done
done
said 'endless .*did not end within 3 s'
(($(journalctl -q -t vfio-hook -o cat | wc -c) < 4000000)) || fail "the journal is full of what was printed"

# The parent that is killed is the keeper: in prepare that refuses, later another takes over.
configure plain <<<"run: [{when: prepare, command: [$bin/kills-its-parent], timeout: 5s}]"
began=$SECONDS
! start plain || fail "plain started although its keeper was killed"
((SECONDS - began < usual + 15)) || fail "refused after $((SECONDS - began)) s only"
same_as "$before" 20
gone
configure plain <<<"run: [{when: started, command: [$bin/kills-its-parent], timeout: 5s}]"
started_within "$usual"
ends

# One of stopped has its time, whatever comes after it; the next start waits for it.
script takes-long 'sleep 4; touch /tmp/took-long'
configure plain <<<"run: [{when: stopped, command: [$bin/takes-long], timeout: 20s}]"
rm -f /tmp/took-long
start plain
destroy plain
[[ ! -e /tmp/took-long ]] || fail "libvirt waited for it"
start plain
[[ -e /tmp/took-long ]] || fail "it was ended, or not waited for"
ends

# One that must not fail refuses the start.
configure plain <<<"run: [{when: prepare, command: [/bin/false], on_failure: refuse}]"
refused plain '/bin/false (prepare) ended with exit status 1'
same_as "$before" 10

# What a command sees, as whom it runs, and where its words go.
configure plain <<END
run:
- {when: started, command: [$bin/says], user: player}
- {when: release, command: [$bin/says]}
END
start plain
destroy plain
same_as "$before" 20
uuid=$(virsh -q domuuid plain | tr -d '\n')
said=$(journalctl -q -t vfio-hook -o cat VFIO_HOOK_GUEST=plain | sed -n 's,^plain: says: ,says: ,p' | tail -n 4)
expect "words" "$said" "says: event started of plain $uuid because of 
says: player
says: event release of plain $uuid because of destroyed
says: root"

# A file that somebody else can write is not run.
script writable true
chmod 777 $bin/writable
configure plain <<<"run: [{when: prepare, command: [$bin/writable]}]"
refused plain "$bin/writable"
same_as "$before" 10

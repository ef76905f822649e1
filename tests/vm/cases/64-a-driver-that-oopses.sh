#!/usr/bin/env bash
# The kernel fails in the driver of a card that is unbound, and kills the process that asked for it: that is said at once,
# with the kernel's line, the card is not touched again, and nobody else notices.
# machine: not used again
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

load_gpu
warm_up_gpu
configure gpu <<<'gpu: {guest_reboot: allow, timeout: 20s}'
configure plain <<<'block_sleep: {}'

gpu_knob remove_oops 1
began=${EPOCHREALTIME/./}
refused gpu 'the kernel' 'NULL pointer dereference' 'reboot'
took=$(((${EPOCHREALTIME/./} - began) / 1000))
echo "figure: refused after $took ms"
((took < 10000)) || fail "it took $took ms"
gpu_knob remove_oops 0

# Neither the next start nor a look waits for the lock that the killed process has left taken.
vfio-hook status >/tmp/status
grep -q 'NULL pointer dereference' /tmp/status || fail "$(cat /tmp/status)"
began=$SECONDS
refused gpu 'quarantine'
((SECONDS - began <= 5)) || fail "the next start took $((SECONDS - began)) s"
! timeout 20 vfio-hook gpu clear >/tmp/said 2>&1 || fail "cleared: $(cat /tmp/said)"
timeout 20 vfio-hook check gpu >/tmp/said 2>&1 || grep -q . /tmp/said || fail "check says nothing"
before=$(mktemp)
snapshot "$before"
start plain
destroy plain
same_as "$before" 10

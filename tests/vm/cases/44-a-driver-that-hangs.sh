#!/usr/bin/env bash
# A driver that hangs in the kernel holds up nobody: not libvirt, not other guests, not the next start; `status` names it.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"
configure gpu <<<'gpu: {guest_reboot: allow, timeout: 5s}'
configure plain <<<'block_sleep: {}'

# within SECONDS COMMAND...
within() {
    local began=$SECONDS
    "${@:2}" || return
    ((SECONDS - began <= $1)) || fail "${*:2} took $((SECONDS - began)) s"
}
others_go_on() {
    within 5 virsh -q list >/dev/null
    within 20 start plain
    within 10 destroy plain
}
# names_stuck WORDS
names_stuck() {
    local deadline=$((SECONDS + 40))
    until vfio-hook status >/tmp/status && grep -q "$1" /tmp/status; do
        ((SECONDS < deadline)) || fail "status does not name $1: $(cat /tmp/status)"
        sleep 0.5
    done
    grep -q 'process [0-9]' /tmp/status || fail "$(cat /tmp/status)"
}

# The host's driver does not let go.
gpu_knob remove_hang 1
! within 20 start gpu 2>/tmp/said || fail "gpu was started"
grep -q "unbind" /tmp/said || fail "$(cat /tmp/said)"
names_stuck unbind
others_go_on
! within 3 start gpu 2>/tmp/said || fail "gpu was started"
grep -q 'in quarantine' /tmp/said || fail "$(cat /tmp/said)"
! vfio-hook gpu clear >/tmp/said 2>&1 || fail "cleared"
gpu_knob remove_hang 0
sleep 1
vfio-hook gpu clear
same_as "$before"
start gpu
destroy gpu
same_as "$before" 20

# It does not take it back.
start gpu
gpu_knob probe_hang 1
within 10 destroy gpu
names_stuck drivers_probe
others_go_on
! within 3 start gpu 2>/tmp/said || fail "gpu was started"
grep -q 'in quarantine' /tmp/said || fail "$(cat /tmp/said)"
gpu_knob probe_hang 0
sleep 1
vfio-hook gpu clear
same_as "$before"
start gpu
destroy gpu
same_as "$before" 20

# One that is only slow is waited for.
gpu_knob remove_delay_ms 2000
gpu_knob probe_delay_ms 2000
start gpu
within 10 destroy gpu
same_as "$before" 20
gpu_knob remove_delay_ms 0
gpu_knob probe_delay_ms 0

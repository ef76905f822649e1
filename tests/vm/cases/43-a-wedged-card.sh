#!/usr/bin/env bash
# A card that does not answer is given to no guest and to no driver of the host's: before a guest has it, while it has,
# in one function, below the port; and it works again once it answers and was looked at. One that answers, and that the
# host's driver does not take, is left to guests.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]} sound=${test_card[1]}
# shellcheck disable=SC2119 # without its argument
load_faults
load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"
configure gpu <<<'gpu: {guest_reboot: allow, recover: [reset]}'
probes=$(gpu_knob probes)

drivers() { echo "$(driver_of "$gpu") $(driver_of "$sound")"; }

# is_quarantined ADDRESS: with the evidence; refused without asking the card, and in under a second.
is_quarantined() {
    local deadline=$((SECONDS + 30)) began ended
    until vfio-hook status | grep -A3 quarantine | grep "$1" >/dev/null; do
        ((SECONDS < deadline)) || fail "not in quarantine with $1: $(vfio-hook status)"
        sleep 0.5
    done
    wait_no_keepers
    # All accesses to the card would be slow now.
    for function in "${test_card[@]}"; do
        echo "$function 20" >$test_faults/slow
    done
    virsh -q dumpxml gpu >/tmp/gpu.xml
    began=$(date +%s%N)
    ! hook gpu prepare begin - </tmp/gpu.xml 2>/tmp/said || fail "prepared"
    ended=$(date +%s%N)
    ((ended - began < 1000000000)) || fail "refused after $(((ended - began) / 1000000)) ms"
    grep -q "in quarantine.*$1" /tmp/said || fail "$(cat /tmp/said)"
    grep -q 'help: .*vfio-hook gpu clear' /tmp/said || fail "$(cat /tmp/said)"
    refused gpu "in quarantine" "$1"
    # Its lines are broken where the terminal ends.
    vfio-hook gpu 03:00 | tr -s ' \n' ' ' >/tmp/shown
    grep -F "$1" /tmp/shown >/dev/null || fail "gpu does not show it: $(cat /tmp/shown)"
    vfio-hook gpu report >/tmp/report
    grep -F "$1" /tmp/report >/dev/null || fail "not in the report: $(cat /tmp/report)"
    echo "figure: refused after $(((ended - began) / 1000000)) ms ($2)"
}

# A card that was reset under a fault has lost the addresses of its memory, as it would not where its power was cut and
# the kernel gave them back: they are written again.
restore_registers() {
    local function bar start flags wide
    for function in "${test_card[@]}"; do
        bar=0 wide=''
        while read -r start _ flags && ((bar < 6)); do
            if [[ ! $wide ]] && ((flags & 0x200)); then
                setpci -s "$function" "$(printf '%x' $((0x10 + 4 * bar))).l=$(printf '%x' $((start & 0xffffffff)))"
                ((flags & 0x100000)) && wide=$((start >> 32))
            elif [[ $wide ]]; then
                setpci -s "$function" "$(printf '%x' $((0x10 + 4 * bar))).l=$(printf '%x' "$wide")"
                wide=''
            fi
            bar=$((bar + 1))
        done <"/sys/bus/pci/devices/$function/resource"
    done
}

# is_healed: it is back with its drivers.
is_healed() {
    heal all
    restore_registers
    vfio-hook gpu clear | tee /tmp/cleared
    expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"
    same_as "$before"
}

# Before the guest has it: the driver it has keeps it.
wedge "$gpu"
refused gpu "does not answer" "$gpu: config space reads ff" help:
is_quarantined "$gpu: config space reads ff" "wedged before"
expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"
# It is looked at again, and stays.
! vfio-hook gpu clear >/tmp/cleared || fail "cleared"
is_healed

# wedged_meanwhile WHAT EVIDENCE: while a guest has it.
wedged_meanwhile() {
    probes=$(gpu_knob probes)
    start gpu
    # shellcheck disable=SC2086 # it may be two words
    wedge $1
    destroy gpu
    is_quarantined "$2" "wedged: $1"
    expect "drivers" "$(drivers)" "vfio-pci vfio-pci"
    expect "probes of the host's driver" "$(gpu_knob probes)" "$probes"
    is_healed
}
wedged_meanwhile "$gpu" "$gpu: config space reads ff"
wedged_meanwhile "$sound" "$sound: config space reads ff"
wedged_meanwhile "below $test_port" "$gpu: config space reads ff"
wedged_meanwhile "$test_port" "port $test_port: config space reads ff"

# A moment only: it is asked twice, five seconds apart.
configure gpu <<<'gpu: {guest_reboot: allow}'
start gpu
wedge "$gpu"
destroy gpu
heal all
restore_registers
wait_no_keepers
expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"
same_as "$before"

# A reset brings it back: the ladder.
configure gpu <<<'gpu: {guest_reboot: allow, recover: [reset, bus-reset, rescan]}'
start gpu
wedge "$gpu"
destroy gpu
# Each look takes five seconds; without its registers the last rung is what it needs.
sleep 7
heal all
wait_no_keepers_for 40
said 'trying .reset'
said 'trying .bus-reset'
said 'trying .rescan'
expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"

# is_for_guests WORDS: it stays with VFIO, awake, and in no quarantine; a guest can have it, and then the host.
is_for_guests() {
    wait_no_keepers
    said "$1"
    said 'it answers, and stays with VFIO'
    expect "drivers" "$(drivers)" "vfio-pci vfio-pci"
    ! vfio-hook status | grep quarantine || fail "in quarantine"
    start gpu
    destroy gpu
    wait_no_keepers
    expect "drivers" "$(drivers)" "vfio-pci vfio-pci"
}

# The host's driver does not take it: it stays with VFIO for guests.
configure gpu <<<'gpu: {guest_reboot: allow}'
start gpu
gpu_knob probe_error 5
destroy gpu
is_for_guests "driver vhgpu did not take $gpu"
gpu_knob probe_error 0
bind_card ''
vfio-hook status
expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"
same_as "$before"
# It takes it, but not without complaints.
start gpu
gpu_knob probe_noise 1
destroy gpu
is_for_guests "ring gfx_0.0.0 test failed"
gpu_knob probe_noise 0
bind_card ''
vfio-hook status
same_as "$before"

# Where it was with VFIO before its guest, it is looked at all the same. It is not found anew by a kernel that would give
# it to the host's drivers at once.
configure gpu <<<'gpu: {guest_reboot: allow, return_to: vfio, recover: [rescan]}'
start gpu
destroy gpu
wait_no_keepers
expect "drivers" "$(drivers)" "vfio-pci vfio-pci"
probes=$(gpu_knob probes)
start gpu
wedge "$gpu"
destroy gpu
is_quarantined "$gpu: config space reads ff" "wedged, on VFIO before"
expect "drivers" "$(drivers)" "vfio-pci vfio-pci"
grep -F 'as soon as it finds it' /tmp/report >/dev/null || fail "not in the report: $(cat /tmp/report)"
heal all
restore_registers
vfio-hook gpu clear
expect "drivers" "$(drivers)" "vfio-pci vfio-pci"
expect "probes of the host's driver" "$(gpu_knob probes)" "$probes"
bind_card ''
vfio-hook status
same_as "$before"

#!/usr/bin/env bash
# Two guests with one card, the same guest twice at once, libvirtd restarted in the middle.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]}
load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"
configure gpu <<<'gpu: {guest_reboot: allow}'
configure gpu-poweroff <<<'gpu: {guest_reboot: allow}'
virsh -q dumpxml gpu >/tmp/gpu.xml

# The second one is refused by name, and the first one does not notice.
start gpu
refused gpu-poweroff "belongs to guest gpu"
expect "driver" "$(driver_of "$gpu")" vfio-pci
expect "gpu" "$(virsh -q domstate gpu)" running
destroy gpu
same_as "$before" 20

# Both at once: one has it, the other is told so; nothing is left.
(start gpu) >/tmp/one 2>&1 & one=$!
(start gpu-poweroff) >/tmp/other 2>&1 & other=$!
started=0
wait "$one" && started=$((started + 1))
wait "$other" && started=$((started + 1))
expect "started" "$started" 1
cat /tmp/one /tmp/other | grep 'belongs to guest' >/dev/null || fail "$(cat /tmp/one /tmp/other)"
for guest in gpu gpu-poweroff; do
    virsh -q destroy "$guest" 2>/dev/null || true
done
same_as "$before" 30

# The same guest, as two daemons might: one after the other, the lease is the second one's.
hook gpu prepare begin - </tmp/gpu.xml & one=$!
hook gpu prepare begin - </tmp/gpu.xml & other=$!
wait "$one" || true
wait "$other" || true
expect "driver" "$(driver_of "$gpu")" vfio-pci
hook gpu release end - </tmp/gpu.xml
same_as "$before" 30

# Started again while the card is on its way back.
gpu_knob probe_delay_ms 3000
start gpu
destroy gpu
start gpu
destroy gpu
gpu_knob probe_delay_ms 0
same_as "$before" 30

# libvirtd is restarted while the card is handed over: the guest comes up or not, and nothing is lost.
gpu_knob remove_delay_ms 4000
(start gpu) >/dev/null 2>&1 & one=$!
sleep 1.5
systemctl restart libvirtd
wait "$one" || true
gpu_knob remove_delay_ms 0
virsh -q destroy gpu 2>/dev/null || true
vfio-hook undo --stale >/dev/null
same_as "$before" 40

# And while the guest has it.
start gpu
systemctl restart libvirtd
wait_for_monitor gpu
expect "gpu" "$(virsh -q domstate gpu)" running
expect "driver" "$(driver_of "$gpu")" vfio-pci
destroy gpu
same_as "$before" 20

#!/usr/bin/env bash
# A guest that reboots itself is stopped, gives its card back and starts again, three times; one that is switched off,
# from inside or from outside, stays off.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"

# lives GUEST: how often `prepare` was called for it since.
since=$(date '+%F %T')
lives() { journalctl -q -t vfio-hook -o cat --since "$since" VFIO_HOOK_GUEST="$1" | grep -c '^[^:]*: prepare: ' || true; }
# stays_off GUEST
stays_off() {
    wait_no_keepers
    sleep 5
    expect "$1" "$(virsh -q domstate "$1")" "shut off"
    [[ ! $(systemctl list-units --plain --no-legend 'vfio-hook-start*') ]] || fail "somebody is starting it"
    same_as "$before"
}

# Three times, then no more: each time the card was back with its driver in between.
configure gpu-reboot <<<'gpu: {guest_reboot: restart}'
probes=$(gpu_knob probes)
start gpu-reboot
deadline=$((SECONDS + 240))
until journalctl -q -t vfio-hook -o cat --since "$since" | grep '3 times in 5 minutes' >/dev/null; do
    ((SECONDS < deadline)) || fail "after $(lives gpu-reboot) lives: $(virsh -q domstate gpu-reboot)"
    sleep 1
done
expect "returns of the card" "$(($(gpu_knob probes) - probes))" 4
stays_off gpu-reboot
said 'the guest rebooted itself: it is started again' "$since"

# What is not asked for is not done.
rm -f /run/vfio-hook/*.restarts
configure gpu-reboot <<<'gpu: {guest_reboot: refuse}'
start gpu-reboot
wait_off gpu-reboot 60
stays_off gpu-reboot

# Switched off from inside.
virsh -q dumpxml --inactive gpu-poweroff | sed 's|<on_reboot>[a-z]*</on_reboot>|<on_reboot>destroy</on_reboot>|' >/tmp/off.xml
virsh -q define /tmp/off.xml
configure gpu-poweroff <<<'gpu: {guest_reboot: restart}'
start gpu-poweroff
wait_off gpu-poweroff 60
stays_off gpu-poweroff

# Destroyed, just before it would reboot.
configure gpu-reboot <<<'gpu: {guest_reboot: restart}'
start gpu-reboot
destroy gpu-reboot
stays_off gpu-reboot

# libvirtd is restarted while it runs, and is listened to again.
rm -f /run/vfio-hook/*.restarts
since=$(date '+%F %T')
start gpu-reboot
virsh -q suspend gpu-reboot
systemctl restart libvirtd
# It is asked again every two seconds.
deadline=$((SECONDS + 60))
until pgrep -f 'qemu-monitor-event.*000000000092' >/dev/null; do
    ((SECONDS < deadline)) || fail "nobody listens to libvirt any more"
    sleep 0.2
done
sleep 4
virsh -q resume gpu-reboot
deadline=$((SECONDS + 60))
until journalctl -q -t vfio-hook -o cat --since "$since" | grep 'it is started again' >/dev/null; do
    ((SECONDS < deadline)) || fail "not noticed: $(virsh -q domstate gpu-reboot)"
    sleep 0.5
done
# It would go on so.
deadline=$((SECONDS + 30))
until virsh -q destroy gpu-reboot 2>/dev/null; do
    ((SECONDS < deadline)) || fail "it was not started"
    sleep 0.2
done
stays_off gpu-reboot

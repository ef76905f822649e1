#!/usr/bin/env bash
# The keeper is killed while the guest has the monitor, and the guest is started again while its monitor is on its way
# back.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
modprobe i2c-dev
load_monitors 1
snapshot "$before"
yaml='switch_input: {monitor: {model: VH Monitor 0}, guest: hdmi-1, delay: 0s}'
configure plain <<<"$yaml"
kill_keeper() { pkill -KILL -f '^vfio-hook keeper'; }

# Killed for good: `stopped` finds somebody else for it.
start plain
wait_monitor 0 input 0x11
kill_keeper
destroy plain
same_as "$before" 15
wait_no_keepers

# Killed together with QEMU while libvirtd is away: `undo` brings it back.
start plain
wait_monitor 0 input 0x11
systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
monitor_knob 0 asleep_ms 3000
pkill -KILL -f 'guest=plain,'
kill_keeper
# The kernel may take its time to end QEMU, and while it does `undo` rightly refuses.
deadline=$((SECONDS + 20))
while compgen -G '/sys/fs/cgroup/machine.slice/machine-qemu*' >/dev/null; do
    ((SECONDS < deadline)) || fail "QEMU does not end"
    sleep 0.1
done
vfio-hook undo plain
same_as "$before" 20
systemctl start libvirtd.socket libvirtd
wait_off plain 30
same_as "$before" 20
wait_no_keepers

# Killed on the way back.
start plain
wait_monitor 0 input 0x11
monitor_knob 0 asleep_ms 6000
destroy plain
kill_keeper
same_as "$before" 30
wait_no_keepers

# Started again at once: the way back is called off, and found again at the end.
start plain
wait_monitor 0 input 0x11
sleep 9
forget_monitor_log 0
monitor_knob 0 asleep_ms 12000
destroy plain
expect "phase" "$(vfio-hook status | grep -o 'giving back')" "giving back"
start plain
sleep 12
expect "input" "$(monitor_knob 0 input)" 0x11
! grep -q ' w 37 ok 51 84 03 60 00 0f' <<<"$(monitor_log 0)" || fail "it was switched back meanwhile"
destroy plain
same_as "$before" 15
wait_no_keepers

# Started again without the section: the monitor goes back first.
start plain
wait_monitor 0 input 0x11
monitor_knob 0 asleep_ms 4000
destroy plain
configure plain <<<'block_sleep: {}'
start plain
wait_monitor 0 input 0x0f
destroy plain
same_as "$before" 15
wait_no_keepers
assert_ddc_delays 0

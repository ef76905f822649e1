#!/usr/bin/env bash
# Eight monitors at once, each with a fault of its own: the guest starts, the others are switched, nothing hangs.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
modprobe i2c-dev
load_monitors 8
snapshot "$before"

now() { date '+%F %T'; }
watched() {
    local began=$SECONDS
    start plain
    ((SECONDS - began < 30)) || fail "virsh start took $((SECONDS - began)) s"
}
checked() {
    local n
    for n in {0..7}; do assert_ddc_delays "$n"; done
    expect "SMBus" "$(monitor_log smbus)" ""
    for n in {0..7}; do forget_monitor_log "$n"; done
}

{
    echo 'switch_input:'
    for n in {0..7}; do
        printf '  - {monitor: {serial: VH100%s}, guest: hdmi-1, host: dp-1, delay: 0s}\n' "$((n + 1))"
    done
} >/tmp/all.yaml
configure plain </tmp/all.yaml
since=$(now)
monitor_knob 0 eio 3
monitor_knob 1 null 3
monitor_knob 2 bad_checksum 3
monitor_knob 3 ignore_set 1
monitor_knob 4 only_active 0x0f
monitor_knob 5 slow_ms 200
monitor_knob 6 short 3
monitor_knob 7 wrong_readback 3
watched
for n in {0..7}; do wait_monitor "$n" input 0x11; done
sleep 13
said 'input of VH Monitor 4 .* cannot be verified' "$since"
said 'input of VH Monitor 7 .* reads' "$since"
# Only here it shows who listens: the host's cable is the one that is not active.
monitor_knob 4 only_active 0
monitor_knob 5 asleep_ms 4000
destroy plain
same_as "$before" 20
wait_no_keepers
monitor_knob 7 wrong_readback 0
monitor_knob 5 slow_ms 0
checked

# Makers' own ways, monitors that go back, and one that never says anything again.
since=$(now)
sed -i -e '/VH1003/s/delay/deviation: lg-f4, delay/' -e '/VH1004/s/delay/deviation: save-settings, delay/' \
    /tmp/all.yaml
sed -i '/VH1006/s/delay/deviation: reads-first, delay/' /tmp/all.yaml
echo 'deviations: {reads-first: {read_first: true}}' >/etc/vfio-hook/host.yaml
configure plain </tmp/all.yaml
monitor_knob 0 nak 3
monitor_knob 1 no_signal 4
monitor_knob 1 bounce_ms 3000
monitor_knob 2 lg 1
monitor_knob 3 needs_save 1
monitor_knob 4 ready_ms 60
monitor_knob 5 ignore_first_write 1
monitor_knob 6 hang 1
watched
for n in 2 3 4 5 7; do wait_monitor "$n" input 0x11; done
sleep 12
expect "the one that went back" "$(monitor_knob 1 input)" 0x11
(($(monitor_knob 1 bounces) > 0)) || fail "it did not go back"
monitor_knob 0 nak 0
began=$SECONDS
destroy plain
((SECONDS - began < 10)) || fail "virsh destroy took $((SECONDS - began)) s"
for n in 1 2 3 4 5 7; do wait_monitor "$n" input 0x0f; done
# The bus that stands still keeps nobody from starting.
sleep 15
watched
wait_monitor 0 input 0x11
monitor_knob 6 hang 0
destroy plain
same_as "$before" 20
wait_no_keepers
checked

#!/usr/bin/env bash
# Two guests and a person have to do with four monitors of one card: the program talks on one of its buses at a
# time, whichever process it is, and names the program that keeps the card from it.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
modprobe i2c-dev
load_monitors 4
snapshot "$before"
overlaps() { cat "$test_monitors/overlaps"; }
# Slow, so that what is said at once is also seen to be.
for n in {0..3}; do monitor_knob "$n" slow_ms 20; done

# The counter counts: two programs that know nothing of each other.
for _ in {1..5}; do
    for n in 0 1; do
        i2ctransfer -y "$(monitor_bus "$n")" w1@0x50 0 r128 >/dev/null &
    done
    wait
done
(($(overlaps) > 0)) || fail "two programs at once were not counted"
echo 0 >"$test_monitors/overlaps"
for n in {0..3}; do forget_monitor_log "$n"; done

section() {
    local n
    echo 'switch_input:'
    for n in "$@"; do
        echo "  - {monitor: {serial: VH100$((n + 1))}, guest: hdmi-1, host: dp-1, delay: 0s, on_failure: refuse}"
    done
}
section 0 1 | configure plain
{ echo 'hugepages: {}'; section 2 3; } | configure poweroff

# A person looks all the time.
while :; do
    vfio-hook monitors >/dev/null
    vfio-hook status >/dev/null
done &
person=$!
start plain
start poweroff
for n in 0 1; do wait_monitor "$n" input 0x11; done
wait_off poweroff 60
for n in 2 3; do wait_monitor "$n" input 0x0f; done
destroy plain
for n in 0 1; do wait_monitor "$n" input 0x0f; done
kill "$person"
wait "$person" || true
sleep 1
wait_no_keepers
expect "conversations at once on the card" "$(overlaps)" 0
for n in {0..3}; do
    assert_ddc_delays "$n"
    monitor_knob "$n" slow_ms 0
done
expect "SMBus" "$(monitor_log smbus)" ""

# The lock on the card's lowest bus stands for the card, for each of its monitors.
lowest=$(for n in {0..3}; do monitor_bus "$n"; done | sort -n | head -n 1)
flock --close "/dev/i2c-$lowest" sleep 15 &
holder=$!
sleep 0.5
message=$(vfio-hook monitors 2>&1)
grep -Eq "flock \(process $holder\) keeps the buses of its graphics card locked" <<<"$message" || fail "$message"
vfio-hook monitors get VH1004 && fail "the card is locked"
kill "$holder"
wait "$holder" || true
expect "get" "$(vfio-hook monitors get VH1004)" "dp-1 (0x0f)"

# A bus that hangs, the lowest one too, does not take the others with it.
for n in 0 2; do
    monitor_knob "$n" hang 1
    vfio-hook monitors get "VH100$((n + 1))" && fail "monitor $n answers"
    expect "get while monitor $n hangs" "$(vfio-hook monitors get VH1004)" "dp-1 (0x0f)"
    monitor_knob "$n" hang 0
    sleep 1
    expect "get after it" "$(vfio-hook monitors get "VH100$((n + 1))")" "dp-1 (0x0f)"
done
same_as "$before" 5

#!/usr/bin/env bash
# ddcutil works on the monitor's bus all the time, and a kernel driver may sit on it: nobody disturbs the other.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
modprobe i2c-dev
load_monitors 1
snapshot "$before"
configure plain <<<'switch_input: {monitor: {model: VH Monitor 0}, guest: hdmi-1, delay: 0s}'

failed=$(mktemp)
bus=$(monitor_bus 0)
while :; do
    ddcutil --bus "$bus" --disable-dynamic-sleep --disable-displays-cache --terse getvcp 10 >>/tmp/ddcutil.out 2>&1 || echo failed >>"$failed"
done &
other=$!
for _ in 1 2 3; do
    start plain
    wait_monitor 0 input 0x11
    destroy plain
    same_as "$before" 15
done
kill "$other"
wait "$other" || true
sleep 1
wait_no_keepers
expect "failures of ddcutil" "$(wc -l <"$failed")" 0
echo "figure: ddcutil read $(grep -c 'VCP 10' /tmp/ddcutil.out) times meanwhile"
[[ $(grep -c 'VCP 10' /tmp/ddcutil.out) -gt 10 ]] || fail "ddcutil did not work: $(tail -n 3 /tmp/ddcutil.out)"
# After its last reply ddcutil gives the bus up at once.
assert_ddc_delays 0 get set save
expect "bytes that made no sense" "$(journalctl -q -t vfio-hook -o cat | grep -c 'checksum' || true)" 0

# A kernel driver that has taken the monitor's address.
echo dummy 0x37 >"/sys/bus/i2c/devices/i2c-$bus/new_device"
[[ -e /sys/bus/i2c/devices/$bus-0037/driver ]] || fail "no driver is bound"
start plain
wait_monitor 0 input 0x11
destroy plain
same_as "$before" 15
echo 0x37 >"/sys/bus/i2c/devices/i2c-$bus/delete_device"
wait_no_keepers

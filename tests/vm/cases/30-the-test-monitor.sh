#!/usr/bin/env bash
# The test monitor is one, says ddcutil; its faults are seen from outside, and its log tells what was said and when.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
load_monitors 2
loaded=$(mktemp)
snapshot "$loaded"
forget_monitor_log 0

# Without what it remembers of a bus, which makes it try less, or sooner.
# ddc N ARGUMENT...
ddc() {
    timeout 60 ddcutil --bus "$(monitor_bus "$1")" --disable-dynamic-sleep --disable-displays-cache \
        --noverify "${@:2}"
}
input() { ddc "$1" getvcp 60 --terse; }
# The least of the pauses after a get, set or save.
least() { ddc_gaps "$1" | awk -v what="$2" '$1 == what && (!least || $2 < least) { least = $2 } END { print least + 0 }'; }

# Found by what a person would look for.
found=$(timeout 120 ddcutil detect)
for n in 0 1; do
    name=$((n + 0))
    grep -q "/dev/i2c-$(monitor_bus $n)\$" <<<"$found" || fail "monitor $n is not found: $found"
    grep -q "Model: *VH Monitor $name\$" <<<"$found" || fail "no name of monitor $n: $found"
    grep -q "Serial number: *VH100$((n + 1))\$" <<<"$found" || fail "no serial number of monitor $n: $found"
done
expect "parent" "$(basename "$(readlink -f "/sys/bus/i2c/devices/i2c-$(monitor_bus 0)/..")")" 0000:04:00.0

#!/usr/bin/env bash
# Two monitors follow a guest, and show the host again however it ends; ddcutil says what they show.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
load_monitors 2
rmmod i2c-dev
monitor_knob 1 input 0x12
monitor_knob 1 brightness 75
snapshot "$before"
for guest in plain poweroff broken-start; do
    pages=
    [[ $guest == plain ]] || pages='hugepages: {}'
    configure "$guest" <<END
$pages
switch_input:
  - monitor: {serial: VH1001}
    guest: hdmi-1
    delay: 1s
  - monitor: {model: VH Monitor 1}
    guest: 0x0f
    host: hdmi-2
    delay: 0s
    set: {0x10: 40}
END
done

# ddcutil has its doubts about the emulated display beside them, and tells them.
ddc() { ddcutil --bus "$(monitor_bus "$1")" --disable-dynamic-sleep --disable-displays-cache --terse getvcp "$2" | grep "^VCP"; }

# The first time there are no device nodes; the hook loads the module that makes them, and unloads it.
start plain
wait_monitor 0 input 0x11
wait_monitor 1 input 0x0f
wait_monitor 1 brightness 0x28
expect "ddcutil" "$(ddc 0 60), $(ddc 1 60)" "VCP 60 SNC x11, VCP 60 SNC x0f"
vfio-hook status --json | jq -e '.leases[0].held | all(.differs | not)' >/dev/null || fail "$(vfio-hook status)"
vfio-hook status | grep -q 'input of VH Monitor 0 on .* dp-1 -> hdmi-1' || fail "$(vfio-hook status)"
destroy plain
same_as "$before" 10
wait_no_keepers
[[ ! -e /dev/i2c-0 ]] || fail "i2c-dev is still loaded"
modprobe i2c-dev

# What test shows is what comes.
shown=$(vfio-hook test plain)
for line in 'later: input of VH Monitor 0 on .*: dp-1 -> hdmi-1, 1 s after the guest is up' \
    'later: input of VH Monitor 1 on .*: hdmi-2 -> dp-1, 0 s after the guest is up' \
    'later: feature 0x10 of VH Monitor 1 on .*: 0x4b -> 0x28, 0 s after'; do
    grep -q "$line" <<<"$shown" || fail "$shown"
done

for guest in poweroff plain; do
    start "$guest"
    wait_monitor 0 input 0x11
    wait_monitor 1 brightness 0x28
    [[ $guest != plain ]] || pkill -KILL -f "guest=$guest,"
    wait_off "$guest" 60
    same_as "$before" 10
    wait_no_keepers
done

# A start that fails after prepare switches nothing.
forget_monitor_log 0
! start broken-start || fail "broken-start was started"
same_as "$before" 10
wait_no_keepers
expect "sets" "$(ddc_gaps 0 | grep -c '^set' || true)" 0

# The person chose another input meanwhile: it stays.
start plain
wait_monitor 0 input 0x11
sleep 14
monitor_knob 0 input 0x10
destroy plain
wait_monitor 1 input 0x12
wait_no_keepers
expect "input of the person" "$(monitor_knob 0 input)" 0x10
said 'input of VH Monitor 0 .* was changed from outside'
monitor_knob 0 input 0x0f

for n in 0 1; do assert_ddc_delays "$n"; done
expect "SMBus" "$(monitor_log smbus)" ""

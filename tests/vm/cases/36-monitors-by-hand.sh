#!/usr/bin/env bash
# `vfio-hook monitors`: what is there, reading and switching by hand, and learning from the monitor's own button.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

load_monitors 2
! modprobe -r i2c-dev 2>/dev/null || [[ ! -e /dev/i2c-1 ]] || fail "i2c-dev is still loaded"
mkdir -p /etc/vfio-hook
echo 'monitors: {desk: {serial: VH1002}}' >/etc/vfio-hook/host.yaml

# Three different messages: the module is missing, no permission, no monitor.
message=$(runuser -u player -- vfio-hook monitors)
grep -q 'the kernel module i2c-dev is not loaded' <<<"$message" || fail "$message"
message=$(vfio-hook monitors 2>&1)
grep -q 'loaded the kernel module i2c-dev' <<<"$message" || fail "$message"
grep -Eq '^vh_ddc 0 +i2c-[0-9]+ +VHA +VH Monitor 0 +VH1001 +dp-1 \(0x0f\)$' <<<"$message" || fail "$message"
message=$(runuser -u player -- vfio-hook monitors)
grep -q 'no permission to open /dev/i2c-' <<<"$message" || fail "$message"

expect "get" "$(vfio-hook monitors get vh1001)" "dp-1 (0x0f)"
expect "set" "$(vfio-hook monitors set desk HDMI-2)" "VH Monitor 1 on vh_ddc 1: dp-1 (0x0f) -> hdmi-2 (0x12)"
expect "input" "$(monitor_knob 1 input)" 0x12
expect "JSON" "$(vfio-hook monitors --json | jq -r '.monitors[1].input')" hdmi-2
message=$(vfio-hook monitors get 'VH Mon' 2>&1) && fail "$message"
grep -q '2 monitors fit .VH Mon.' <<<"$message" || fail "$message"

# The person presses the button while it waits.
vfio-hook monitors learn VH1001 </dev/null >/tmp/learned 2>/tmp/told &
learner=$!
sleep 3
monitor_knob 0 input 0x11
wait "$learner" || fail "$(cat /tmp/learned /tmp/told)"
grep -q 'VH Monitor 0 on vh_ddc 0: dp-1 (0x0f) -> hdmi-1 (0x11)' /tmp/learned || fail "$(</tmp/learned)"
# What it prints is the section of a guest's file.
sed -n '/^switch_input:/,$p' /tmp/learned >/etc/vfio-hook/hooks.d/plain.yaml
vfio-hook check plain
monitor_knob 0 input 0x0f
start plain
wait_monitor 0 input 0x11
destroy plain
wait_monitor 0 input 0x0f
wait_no_keepers
unload_monitors
message=$(vfio-hook monitors)
grep -q 'no monitor was found' <<<"$message" || fail "$message"

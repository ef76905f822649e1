#!/usr/bin/env bash
# Two guests want one monitor: the second is refused by the name of the first, or has it until it is gone.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
modprobe i2c-dev
load_monitors 1
snapshot "$before"
configure plain <<<'switch_input: {monitor: {model: VH Monitor 0}, guest: hdmi-1, delay: 0s}'
configure poweroff <<<$'hugepages: {}\nswitch_input: {monitor: {serial: VH1001}, guest: hdmi-2, delay: 0s}'

start plain
wait_monitor 0 input 0x11
refused poweroff 'VH Monitor 0 on ' 'belongs to guest plain' 'shared: last'
expect "input" "$(monitor_knob 0 input)" 0x11

configure poweroff <<<$'hugepages: {}\nswitch_input: {monitor: {serial: VH1001}, guest: hdmi-2, delay: 0s, shared: last}'
start poweroff
wait_monitor 0 input 0x12
wait_off poweroff 60
wait_monitor 0 input 0x11
start poweroff
wait_monitor 0 input 0x12
destroy plain
expect "input of the one that stays" "$(monitor_knob 0 input)" 0x12
wait_off poweroff 60
same_as "$before" 10
wait_no_keepers

# Two alike: refused where the guest is not to start without, else only said.
load_again() { unload_monitors; load_monitors 2; cat /sys/kernel/debug/vh_ddc/0/edid >/sys/kernel/debug/vh_ddc/1/edid; }
load_again
snapshot "$before"
configure plain <<<'switch_input: {monitor: {model: VH Monitor 0}, guest: hdmi-1, on_failure: refuse}'
refused plain 'several monitors with model VH Monitor 0'
configure plain <<<'switch_input: {monitor: {model: VH Monitor 7}, guest: hdmi-1}'
start plain
said 'no monitor with model VH Monitor 7; there are: '
destroy plain
# One that does not answer.
monitor_knob 0 nak 1
cat /sys/kernel/debug/vh_ddc/1/edid >/tmp/edid
unload_monitors
load_monitors 2
monitor_knob 0 nak 1
configure plain <<<'switch_input: {monitor: {serial: VH1001}, guest: hdmi-1, on_failure: refuse}'
refused plain 'VH Monitor 0 on '
snapshot "$before"
same_as "$before"
wait_no_keepers

#!/usr/bin/env bash
# The test monitor is one, says ddcutil; its faults are seen from outside, and its log tells what was said and when.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
load_monitors 2
loaded=$(mktemp)
snapshot "$loaded"

# ddc N ARGUMENT...: ddcutil, without the sleeps it learns: soon it waits less than a millisecond.
ddc() {
    timeout 60 ddcutil --bus "$(monitor_bus "$1")" --disable-dynamic-sleep "${@:2}"
}
# say N SOURCE BYTE...: a message as it is; no retries.
say() {
    local sum=$((0x6e ^ $2 ^ (0x80 | $# - 2))) byte
    for byte in "${@:3}"; do
        sum=$((sum ^ byte))
    done
    i2ctransfer -y "$(monitor_bus "$1")" "w$(($# + 1))@0x37" "$2" $((0x80 | $# - 2)) "${@:3}" $sum
}
hear() { i2ctransfer -y "$(monitor_bus "$1")" r11@0x37 | sed 's/0x//g'; }
ask() {
    say "$1" 0x51 1 "$2" && sleep 0.05 && hear "$1"
}
set_to() {
    say "$1" 0x51 3 "$2" 0 "$3" && sleep 0.05
}
edid() { i2ctransfer -y "$(monitor_bus "$1")" w1@0x50 0 r128@0x50; }
# fails ERROR COMMAND...
fails() {
    local said
    ! said=$("${@:2}" 2>&1) || fail "${*:2} worked: $said"
    [[ $said == *"$1"* ]] || fail "${*:2} failed with: $said"
}
no_device="No such device or address"
null="6e 80 be ff ff ff ff ff ff ff ff"
input_0f="6e 88 02 00 60 00 00 12 00 0f c9"
input_11="6e 88 02 00 60 00 00 12 00 11 d7"

# What ddcutil says.
found=$(timeout 120 ddcutil detect --disable-dynamic-sleep)
for n in 0 1; do
    bus=$(monitor_bus $n)
    grep -q "I2C bus: */dev/i2c-$bus\$" <<<"$found" || fail "monitor $n is not found: $found"
    grep -q "Model: *VH Monitor $n\$" <<<"$found" || fail "no name of monitor $n: $found"
    grep -q "Serial number: *VH100$((n + 1))\$" <<<"$found" || fail "no serial number of monitor $n: $found"
    expect "parent" "$(basename "$(readlink -f "/sys/bus/i2c/devices/i2c-$bus/..")")" 0000:04:00.0
done
ddc 0 getvcp 60 --terse | grep '^VCP 60 SNC x0f$'
ddc 0 setvcp 60 0x11 --noverify
expect "input" "$(monitor_knob 0 input)" 0x11
ddc 0 getvcp 60 --terse | grep '^VCP 60 SNC x11$'
ddc 0 setvcp 10 33
expect "brightness" "$(monitor_knob 0 brightness)" 0x21
expect "the other's input" "$(monitor_knob 1 input)" 0x0f
ddc 0 capabilities | grep 'Feature: 60 (Input Source)'
ddc 0 scs
sleep 0.2
ddc 0 getvcp 10 --terse
fails "the host is not as it was" same_as "$loaded" 0
# What ddcutil waits for after a reply, it waits for before its next message, not before it ends.
assert_ddc_delays 0 get set save
for what in get set save; do
    least=$(ddc_gaps 0 | sed -n "s/^$what //p" | sort -n | head -n 1)
    echo "figure: after a $what, ddcutil waits $((least / 1000)) ms or more"
done
monitor_knob 0 input 0x0f
monitor_knob 0 brightness 50
same_as "$loaded" 0

# Whoever does not wait is found out.
forget_monitor_log 0
expect "log" "$(monitor_log 0)" ""
i2ctransfer -y "$(monitor_bus 0)" w5@0x37 0x51 0x82 1 0x60 0xdc r11@0x37
fails "us after a get" assert_ddc_delays 0
expect "log" "$(monitor_log 0 | cut -d' ' -f3-)" "w 37 ok 51 82 01 60 dc"$'\n'"r 37 ok $input_0f"
forget_monitor_log 0
i2ctransfer -y "$(monitor_bus 0)" w5@0x37 0x51 0x82 1 0x60 0xdc r11@0x37 w5@0x37 0x51 0x82 1 0x60 0xdc
fails "us after a reply" assert_ddc_delays 0 reply
assert_ddc_delays 0 set
forget_monitor_log 0
set_to 0 0x12 80
say 0 0x51 0x0c
set_to 0 0x12 75
fails "us after a save" assert_ddc_delays 0
same_as "$loaded" 0

# Faults of the bus.
expect "reply" "$(ask 0 0x60)" "$input_0f"
expect "unsupported" "$(ask 0 0x14)" "6e 88 02 01 14 00 00 00 00 00 a1"
monitor_knob 0 nak 1
fails "$no_device" ask 0 0x60
edid 0
monitor_knob 0 nak 2
fails "$no_device" edid 0
ask 0 0x60
monitor_knob 0 nak 0
monitor_knob 0 eio 2
fails "Input/output error" ask 0 0x60
fails "Input/output error" ask 0 0x60
ask 0 0x60
monitor_knob 0 edid_eio 1
fails "Input/output error" edid 0
edid 0
monitor_knob 0 asleep_ms 1500
fails "$no_device" ask 0 0x60
sleep 1.5
ask 0 0x60
expect "eio left" "$(monitor_knob 0 eio)" 0

# Faults of replies.
monitor_knob 0 null 1
expect "null reply" "$(ask 0 0x60)" "$null"
monitor_knob 0 bad_checksum 1
expect "wrong checksum" "$(ask 0 0x60)" "${input_0f% *} 9c"
monitor_knob 0 short 1
expect "short reply" "$(ask 0 0x60)" "6e 88 02 00 ff ff ff ff ff ff ff"
expect "reply" "$(ask 0 0x60)" "$input_0f"
expect "second reply to one request" "$(hear 0)" "$null"
monitor_knob 0 ready_ms 500
expect "reply too early" "$(ask 0 0x60)" "$null"
monitor_knob 0 ready_ms 0
i2ctransfer -y "$(monitor_bus 0)" w5@0x37 0x51 0x82 1 0x60 0xdd
expect "reply to a request with a wrong checksum" "$(hear 0)" "$null"
monitor_knob 0 wrong_readback 0x1e
expect "wrong value" "$(ask 0 0x60)" "$input_11"
monitor_knob 0 wrong_readback 0

# Monitors that do not do as they are told.
monitor_knob 0 ignore_set 1
set_to 0 0x60 0x11
expect "input" "$(monitor_knob 0 input)" 0x0f
set_to 0 0x60 0x13
expect "input that is none" "$(monitor_knob 0 input)" 0x0f

monitor_knob 0 ignore_first_write 1
sleep 1
set_to 0 0x60 0x11
expect "input" "$(monitor_knob 0 input)" 0x0f
set_to 0 0x60 0x11
expect "input" "$(monitor_knob 0 input)" 0x11
sleep 1
ask 0 0x60
set_to 0 0x60 0x0f
expect "input" "$(monitor_knob 0 input)" 0x0f
monitor_knob 0 ignore_first_write 0

monitor_knob 0 only_active 0x0f
set_to 0 0x60 0x11
expect "input" "$(monitor_knob 0 input)" 0x11
fails "$no_device" ask 0 0x60
fails "$no_device" set_to 0 0x60 0x0f
monitor_knob 0 input 0x0f
expect "reply" "$(ask 0 0x60)" "$input_0f"
monitor_knob 0 only_active 0

monitor_knob 0 lg 1
set_to 0 0x60 0x11
set_to 0 0xf4 0x90
expect "input" "$(monitor_knob 0 input)" 0x0f
for pair in 0x90:0x11 0x91:0x12 0xd1:0x10 0xd0:0x0f; do
    say 0 0x50 3 0xf4 0 "${pair%:*}"
    expect "input" "$(monitor_knob 0 input)" "${pair#*:}"
done
ddc 0 setvcp xf4 x0090 --i2c-source-addr=x50 --noverify
expect "input by ddcutil" "$(monitor_knob 0 input)" 0x11
monitor_knob 0 lg 0
monitor_knob 0 input 0x0f

monitor_knob 0 needs_save 1
set_to 0 0x60 0x11
expect "input" "$(monitor_knob 0 input)" 0x11
sleep 1
expect "input without a save" "$(monitor_knob 0 input)" 0x0f
set_to 0 0x60 0x11
say 0 0x51 0x0c
sleep 1
expect "saved input" "$(monitor_knob 0 input)" 0x11
monitor_knob 0 needs_save 0
monitor_knob 0 input 0x0f

# HDMI has a signal two seconds after it was first chosen.
monitor_knob 0 no_signal 0xc
monitor_knob 0 bounce_ms 2000
set_to 0 0x60 0x11
expect "input" "$(monitor_knob 0 input)" 0x11
sleep 0.4
expect "input without a signal" "$(monitor_knob 0 input)" 0x0f
set_to 0 0x60 0x10
sleep 0.4
expect "input with a signal" "$(monitor_knob 0 input)" 0x10
sleep 1.2
set_to 0 0x60 0x11
sleep 0.4
expect "input whose signal has come" "$(monitor_knob 0 input)" 0x11
expect "bounces" "$(monitor_knob 0 bounces)" 1
monitor_knob 0 bounce_ms 0
monitor_knob 0 no_signal 0
monitor_knob 0 input 0x0f

# Time.
monitor_knob 0 slow_ms 300
began=$(date +%s%3N)
hear 0
(($(date +%s%3N) - began >= 300)) || fail "not slow"
monitor_knob 0 slow_ms 0

monitor_knob 0 hang 1
hear 0 &
sleep 0.5
stuck=$(pgrep -x i2ctransfer)
expect "state" "$(awk '/^State/ { print $2 }' "/proc/$stuck/status")" D
kill -KILL "$stuck"
sleep 0.5
expect "state after SIGKILL" "$(awk '/^State/ { print $2 }' "/proc/$stuck/status")" D
expect "the other meanwhile" "$(ask 1 0x60)" "$input_0f"
fails "in use" rmmod vh_ddc
monitor_knob 0 hang 0
wait
! pgrep -x i2ctransfer || fail "it still hangs"

# The display goes to a guest, once nobody has its buses open, and comes back.
display=/sys/bus/pci/drivers/bochs-drm
exec 9<>"/dev/i2c-$(monitor_bus 1)"
echo 0000:04:00.0 >$display/unbind 9>&- &
sleep 1
expect "driver that waits" "$(jobs -r | wc -l)" 1
exec 9>&-
wait
expect "buses without a driver" "$(monitor_bus 0) $(monitor_bus 1)" "-1 -1"
expect "the display's buses" "$(find /sys/bus/pci/devices/0000:04:00.0/ -maxdepth 1 -name 'i2c-*')" ""
echo 0000:04:00.0 >$display/bind
expect "reply" "$(ask 1 0x60)" "$input_0f"

# Two alike.
cat "$test_monitors/1/edid" >"$test_monitors/0/edid"
expect "EDID" "$(edid 0)" "$(edid 1)"

expect "messages to the SMBus" "$(monitor_log smbus)" ""
say smbus 0x51 1 0x60
expect "messages to the SMBus" "$(monitor_log smbus | cut -d' ' -f3-)" "w 37 ok 51 82 01 60 dc"
same_as "$loaded" 0

unload_monitors
same_as "$before" 0

# At a connector, as the kernel and ddcutil see it.
load_monitors 1 connector=1
virtual=/sys/class/drm/card0-Virtual-1
head -c 128 $virtual/edid >"$test_monitors/0/edid"
expect "bus of the connector" "$(basename "$(readlink $virtual/ddc)")" "i2c-$(monitor_bus 0)"
found=$(timeout 120 ddcutil detect --disable-dynamic-sleep)
[[ $found == *"DRM connector: "*card0-Virtual-1* && $found == *"Model:"*"QEMU Monitor"* ]] || fail "$found"
echo 0000:04:00.0 >$display/unbind
echo 0000:04:00.0 >$display/bind
expect "bus of the connector" "$(basename "$(readlink $virtual/ddc)")" "i2c-$(monitor_bus 0)"
unload_monitors
[[ ! -e $virtual/ddc ]] || fail "the connector's link stays"

# What it says of itself is all that the kernel says.
! dmesg --level=emerg,alert,crit,err,warn | grep -iE 'vh_ddc|i2c' | grep -vE 'taint' || fail "the kernel complains"

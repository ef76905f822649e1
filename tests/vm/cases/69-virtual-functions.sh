#!/usr/bin/env bash
# Virtual functions of a network card: made for guests and taken away after them, never while somebody uses one; as scripts
# make them, but for what scripts leave behind; and the hook is killed at writes of the ledger and of the card.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

folders=$(dirname "$0")/../script-folders
hooks=/etc/libvirt/hooks
card=0000:06:00.0
device=/sys/bus/pci/devices/$card
before=$(mktemp)

values() { echo "$(<$device/sriov_numvfs) $(<$device/sriov_drivers_autoprobe)"; }
driver() { basename "$(readlink "/sys/bus/pci/devices/$1/driver" || echo none)"; }
# becomes WHAT WANTED SECONDS COMMAND...
becomes() {
    local deadline=$((SECONDS + $3)) is
    until is=$("${@:4}" || true) && [[ $is == "$2" ]]; do
        ((SECONDS < deadline)) || fail "$1: '$is' instead of '$2'; $(vfio-hook status)"
        sleep 0.3
    done
}
unload() {
    local guest
    for guest in vf-a vf-b; do
        virsh -q destroy $guest || true
        virsh -q undefine $guest || true
    done
    echo 0 >$device/sriov_numvfs || true
    echo 1 >$device/sriov_drivers_autoprobe
    rmmod igbvf igb || true
    rm -rf $hooks/qemu.d /run/vfio-hook-failpoint
} 2>/dev/null
trap unload EXIT
modprobe igb
modprobe igbvf
becomes "the card's driver" igb 30 driver $card
udevadm settle
expect "the most functions" "$(<$device/sriov_totalvfs)" 7
expect "values" "$(values)" "0 1"

# define_guest NAME DIGIT FUNCTION: function 0 is 10.0, and each 2 further.
define_guest() {
    guest_xml with-nic | sed "s/with-nic/$1/; s/f0000000/f${2}000000/; s/bus='0x05' slot='0x00' function='0x0'/\
bus='0x06' slot='0x10' function='0x$3'/" >/tmp/"$1".xml
    virsh -q define /tmp/"$1".xml
}
define_guest vf-a 1 0
define_guest vf-b 2 4
a=0000:06:10.0 b=0000:06:10.4

# What the first guest changes for good is changed: a function that is made gets interrupts.
echo 4 >$device/sriov_numvfs
udevadm settle
expect "a function's driver" "$(driver $a)" igbvf
echo 0 >$device/sriov_numvfs
udevadm settle
snapshot "$before"

# One guest; the other, which has no file, has a function of those that were made.
configure vf-a <<END
isolate_cpus: {}
requires: ["$a"]
sriov: {device: "$card", count: 4}
END
vfio-hook test vf-a >/tmp/message || fail "$(</tmp/message)"
grep -q "virtual functions of $card .*none -> 4, without drivers of the host" /tmp/message || fail "$(</tmp/message)"
start vf-a
expect "values" "$(values)" "4 0"
expect "a's function" "$(driver $a)" vfio-pci
expect "functions that the host's driver has" "$(cd /sys/bus/pci/drivers/igbvf && echo 0000*)" "0000*"
vfio-hook status -v >/tmp/message
grep -q "virtual functions of $card" /tmp/message || fail "$(</tmp/message)"
start vf-b
began=$(date '+%F %T')
destroy vf-a
# libvirt does not wait for functions that cannot be taken away.
journalctl -t vfio-hook --since "$began" -o cat | grep -q 'vf-a: its keeper gives the rest back' ||
    fail "$(journalctl -t vfio-hook --since "$began" -o cat)"
sleep 3
expect "values while somebody has a function" "$(values)" "4 0"
expect "b's function" "$(driver $b)" vfio-pci
expect "b" "$(virsh -q domstate vf-b)" running
vfio-hook status >/tmp/message
grep -q vf-a /tmp/message || fail "nothing is said of vf-a: $(</tmp/message)"
destroy vf-b
becomes "values" "0 1" 90 values
same_as "$before" 20
wait_no_keepers_for 30

# Two guests: what one needs stays.
configure vf-b <<<"sriov: {device: \"$card\"}"
start vf-a
start vf-b
destroy vf-a
wait_off vf-a 20
expect "values while the other runs" "$(values)" "4 0"
expect "b's function" "$(driver $b)" vfio-pci
destroy vf-b
becomes "values" "0 1" 20 values
same_as "$before" 20
wait_no_keepers_for 30

# One that needs fewer runs: more are not made.
start vf-b
expect "values for b alone" "$(values)" "3 0"
refused vf-a "guest vf-b holds them"
expect "b" "$(virsh -q domstate vf-b)" running
destroy vf-b
becomes "values" "0 1" 20 values
wait_no_keepers_for 30

# An administrator's functions: not while one is up; and they come back with their driver.
echo 2 >$device/sriov_numvfs
udevadm settle
interface=$(cd /sys/bus/pci/devices/$a/net && echo *)
ip link set "$interface" up
refused vf-a "interface $interface ($a) is up"
expect "values" "$(values)" "2 1"
for interface in /sys/bus/pci/devices/{$a,0000:06:10.2}/net/*; do
    ip link set "${interface##*/}" down
done
start vf-a
expect "values" "$(values)" "4 0"
destroy vf-a
becomes "values" "2 1" 20 values
becomes "the host's function" igbvf 20 driver $a
becomes "the host's function" igbvf 20 driver 0000:06:10.2
wait_no_keepers_for 30
echo 0 >$device/sriov_numvfs
udevadm settle
same_as "$before" 20

# Mistakes are refused, and nothing is touched.
configure vf-a <<<"sriov: {device: \"$card\", count: 8}"
refused vf-a "can have 7 virtual functions, not 8"
configure vf-a <<<'sriov: {device: "0000:05:00.0", count: 1}'
refused vf-a "it has no SR-IOV"
same_as "$before"

# Scripts for the same: the values are alike while the guest runs.
rm -f /etc/vfio-hook/hooks.d/*
rm -rf $hooks/qemu
cp -r "$folders/qemu" "$folders/virtual-functions/qemu.d" $hooks
systemctl reload libvirtd
functions() {
    values
    for function in /sys/bus/pci/devices/0000:06:1*; do
        echo "${function##*/}: $(driver "${function##*/}")"
    done
}
start vf-a
functions >"$before.scripts"
destroy vf-a
expect "what scripts leave" "$(values)" "0 0"
echo 1 >$device/sriov_drivers_autoprobe
rm -rf $hooks/qemu $hooks/qemu.d
ln -s /usr/bin/vfio-hook $hooks/qemu
install -m 644 -t /etc/vfio-hook/hooks.d "$folders/virtual-functions"/*.yaml
systemctl reload libvirtd
start vf-a
difference=$(diff -U0 "$before.scripts" <(functions)) || fail "with scripts (-) and with vfio-hook (+): $difference"
destroy vf-a
becomes "values" "0 1" 20 values
same_as "$before" 20
wait_no_keepers_for 30
echo "figure: alike with scripts: $(wc -l <"$before.scripts") values of a card with 4 functions"

# Killed at a write; in a soak at each.
ln -sf /usr/bin/vfio-hook-failpoints /tmp/qemu
event() { hook vf-a "$1" "$2" - </tmp/vf-a.xml; }
points() {
    VFIO_HOOK_FAILPOINT=count:/tmp/points /tmp/qemu vf-a "$1" "$2" - </tmp/vf-a.xml
    cat /tmp/points
}
killed() {
    ! { VFIO_HOOK_FAILPOINT=kill:$1 /tmp/qemu vf-a "$2" "$3" - </tmp/vf-a.xml; } 2>/tmp/message ||
        [[ $2 == release ]] || fail "$2 was not refused at point $1"
}
recover() {
    case $(($1 % 2)) in
        0) vfio-hook undo --stale >/dev/null ;;
        1) event prepare begin && event release end ;;
    esac
}
as_before() {
    becomes "values $1" "0 1" 60 values
    same_as "$before" 20
}
in_prepare=$(points prepare begin)
in_release=$(points release end)
as_before "after points"
((in_prepare > 8 && in_release > 3)) || fail "only $in_prepare and $in_release points"
turn=0
step_of() { if [[ ${SOAK-} ]]; then echo 1; else echo $(($1 / $2 + 1)); fi; }
for ((point = 1; point <= in_prepare; point += $(step_of "$in_prepare" 6))); do
    killed $point prepare begin
    recover $((turn++))
    as_before "killed at write $point of prepare"
done
for ((point = 1; point <= in_release; point += $(step_of "$in_release" 3))); do
    event prepare begin
    killed $point release end
    recover $((turn++))
    as_before "killed at write $point of release"
done
echo "figure: killed $turn times at the $in_prepare and $in_release writes of prepare and release"
wait_no_keepers_for 30

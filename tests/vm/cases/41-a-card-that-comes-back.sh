#!/usr/bin/env bash
# A graphics card and its sound function go to the guest and come back, whichever way the guest ends and wherever the
# card is to go; handed over by libvirt or not, from a host driver, from vfio-pci or from none.
# In a soak twenty times, and each end with each destination.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]} sound=${test_card[1]}
rounds=$([[ ${SOAK-} ]] && echo 20 || echo 1)
began=0
load_faults powered
load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"

# broken: QEMU cannot run it, libvirt learns that after `prepare`.
guest_xml gpu | sed 's|<name>gpu</name>|<name>gpu-broken</name>|; s|0091</uuid>|0095</uuid>|; s|<devices>|<devices>\
    <disk type="file"><source file="/nowhere"/><target dev="sda" bus="sata"/></disk>|' >/tmp/broken.xml
virsh -q define /tmp/broken.xml

# is_on DRIVER DRIVER [OVERRIDE]: the card and its sound function, within 20 s.
is_on() {
    local deadline=$((SECONDS + 20))
    until [[ $(driver_of "$gpu") == "$1" && $(driver_of "$sound") == "$2" && ! $(pgrep -f '^vfio-hook keeper') ]]; do
        ((SECONDS < deadline)) || fail "$(driver_of "$gpu") $(driver_of "$sound") instead of $*: $(vfio-hook status)"
        sleep 0.2
    done
}

# life GUEST HOW: one start, one end.
life() {
    case $2 in
        broken)
            ! start "$1" 2>/dev/null || fail "$1 was started"
            return ;;
    esac
    start "$1"
    expect "drivers" "$(driver_of "$gpu") $(driver_of "$sound")" "vfio-pci vfio-pci"
    expect "power" "$(cat /sys/bus/pci/devices/{"$gpu","$sound"}/power/control | paste -sd' ')" "on on"
    case $2 in
        destroyed) destroy "$1" ;;
        powered-off) wait_off "$1" 30 ;;
        killed) pkill -KILL -f "guest=$1," && wait_off "$1" 30 ;;
    esac
}

for return_to in host vfio host-if-clean; do
    for how in destroyed powered-off killed broken; do
        # Each way back and each end; in a soak also each with each.
        [[ ${SOAK-} || $return_to == host || $how == destroyed ]] || continue
        guest=gpu
        [[ $how != powered-off ]] || guest="gpu-poweroff"
        [[ $how != broken ]] || guest="gpu-broken"
        configure "$guest" <<<"gpu: {return_to: $return_to, guest_reboot: allow}"
        for ((round = 0; round < rounds; round++)); do
            life "$guest" "$how"
            began=$((began + 1))
            # After a start that failed it is where it was.
            if [[ $return_to == vfio && $how != broken ]]; then
                is_on vfio-pci vfio-pci
                # It stays awake until the host has it again.
                vfio-hook status | grep -F 'stays with VFIO, and awake' >/dev/null || fail "$(vfio-hook status)"
                expect "power" "$(<"/sys/bus/pci/devices/$gpu/power/control") $(<"/sys/bus/pci/devices/$gpu/d3cold_allowed")" \
                    "on 0"
                virsh -q nodedev-reattach pci_0000_03_00_0
                virsh -q nodedev-reattach pci_0000_03_00_1
                ! vfio-hook status | grep -F 'and awake' || fail "it is kept awake with the host"
            fi
            is_on vhgpu snd_hda_intel
            same_as "$before"
        done
        rm "/etc/vfio-hook/hooks.d/$guest.yaml"
    done
done
echo "figure: $began starts and ends, each with the snapshot after it"

# managed='no' is no matter: the hook binds it.
guest_xml gpu | sed "s/managed='yes'/managed='no'/" >/tmp/unmanaged.xml
virsh -q define /tmp/unmanaged.xml
configure gpu <<<'gpu: {guest_reboot: allow}'
for round in 1 2; do
    echo "round $round"
    life gpu destroyed
    is_on vhgpu snd_hda_intel
    same_as "$before"
done
virsh -q define "$(dirname "$0")/../guests/gpu.xml"

# Already with vfio-pci, as from boot: it stays there, and may sleep where the file says so.
configure gpu <<<'gpu: {guest_reboot: allow, keep_awake: never}'
modprobe vfio-pci
bind_card vfio-pci
on_vfio=$(mktemp)
snapshot "$on_vfio"
life gpu destroyed
is_on vfio-pci vfio-pci
same_as "$on_vfio"
bind_card ''

loaded=$(mktemp)
snapshot "$loaded"

# Only half of the card.
guest_xml gpu | perl -0pe "s|<hostdev((?!</hostdev>).)*function='0x1'.*?</hostdev>||s" >/tmp/half.xml
virsh -q define /tmp/half.xml
refused gpu "leaves out $sound (snd_hda_intel)" help:
# A card that is not there.
guest_xml gpu | sed "s/bus='0x03'/bus='0x33'/" >/tmp/missing.xml
virsh -q define /tmp/missing.xml
refused gpu "hands over 0000:33:00.0, but this host has no such device" help:
# The address that the guest sees is none of the host's.
virsh -q define "$(dirname "$0")/../guests/gpu.xml"
virsh -q dumpxml gpu | perl -0pe 's|<source>\s*<address[^>]*/>\s*</source>||s' >/tmp/guest-side.xml
said=$(hook gpu prepare begin - </tmp/guest-side.xml 2>&1) && fail "prepared"
[[ $said == *"has no devices/hostdev[number=0]: source/address"* ]] || fail "$said"
# A reboot of the guest would leave the card as it is.
configure gpu <<<'gpu: {}'
refused gpu '<on_reboot>restart</on_reboot>' \
    "virsh set-lifecycle-action $(virsh domuuid gpu | head -1) reboot destroy --config" help:
same_as "$loaded"

# The display that shows the host's text console is not taken from it.
guest_xml gpu | sed "s/bus='0x03'/bus='0x04'/; /function='0x1'/,\$!b" |
    perl -0pe "s|<hostdev((?!</hostdev>).)*function='0x1'.*?</hostdev>||s" >/tmp/display.xml
virsh -q define /tmp/display.xml
configure gpu <<<'gpu: {guest_reboot: allow, consoles: keep}'
refused gpu 'the host shows the text console' help:
same_as "$loaded"
virsh -q define "$(dirname "$0")/../guests/gpu.xml"
virsh -q undefine gpu-broken

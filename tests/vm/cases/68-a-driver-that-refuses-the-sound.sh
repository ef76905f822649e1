#!/usr/bin/env bash
# The host's driver refuses the card's second function when it comes back: the picture is back all the same, that is said,
# and the guest gets the card again, which answers.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]} sound=${test_card[1]}
load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"
configure gpu <<<'gpu: {guest_reboot: allow}'
# reload PARAMETER...: the sound's driver, while no card has it.
reload() {
    modprobe -r snd_hda_intel
    modprobe snd_hda_intel "$@"
}

start gpu
reload enable=0,0,0,0,0,0,0,0
destroy gpu
wait_no_keepers_for 60
expect "driver" "$(driver_of "$gpu")" vhgpu
expect "the sound's driver" "$(driver_of "$sound")" ""
vfio-hook status >/tmp/status
journalctl -q -t vfio-hook -o cat --since -60s >/tmp/said
grep -q "$sound" /tmp/status /tmp/said || fail "nobody says so: $(cat /tmp/status /tmp/said)"

start gpu
expect "drivers" "$(driver_of "$gpu") $(driver_of "$sound")" "vfio-pci vfio-pci"
reload
destroy gpu
wait_no_keepers_for 60
# As it was when this life began: with no driver.
expect "drivers" "$(driver_of "$gpu") $(driver_of "$sound")" "vhgpu "
echo "$sound" >/sys/bus/pci/drivers/snd_hda_intel/bind
same_as "$before" 30
expect "status" "$(vfio-hook status)" "no guest holds anything"

#!/usr/bin/env bash
# The host is switched off while a guest has its card: the card stays with VFIO. ../afterwards looks at the serial log.
# machine: not used again
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

load_gpu
warm_up_gpu
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=info\n' >/run/systemd/journald.conf.d/console.conf
systemctl restart systemd-journald
configure gpu <<<'gpu: {guest_reboot: allow}'
start gpu
expect "driver" "$(driver_of "${test_card[0]}")" vfio-pci
echo "vfio-hook test: power off" >/dev/kmsg
systemctl poweroff --no-block

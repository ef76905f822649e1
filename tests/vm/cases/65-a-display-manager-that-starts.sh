#!/usr/bin/env bash
# A guest that libvirt starts at boot, beside a display manager that is on its way up and takes the card at its end.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]}
load_gpu
warm_up_gpu
card=$(drm_node "$gpu" card)
cat >/run/greeter <<GREETER
#!/bin/bash
sleep 4
exec 3<>/dev/dri/\$(basename /sys/bus/pci/devices/$gpu/drm/card*) || exit 1
systemd-notify --ready
exec -a vh-greeter sleep infinity
GREETER
chmod +x /run/greeter
cat >/etc/systemd/system/display-manager.service <<'UNIT'
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/bash /run/greeter
UNIT
systemctl daemon-reload
configure gpu <<<'gpu: {guest_reboot: allow, display_manager: stop}'
is_active() { systemctl is-active display-manager || true; }

for seconds in 0 2 4; do
    systemctl start --no-block display-manager
    sleep "$seconds"
    start gpu
    expect "driver" "$(driver_of "$gpu")" vfio-pci
    expect "display manager after $seconds s" "$(is_active)" inactive
    destroy gpu
    wait_no_keepers
    expect "driver" "$(driver_of "$gpu")" vhgpu
    wait_active display-manager
    card=$(drm_node "$gpu" card)
    has_card=$(find "/proc/$(systemctl show -P MainPID display-manager)/fd" -lname "$card" | head -1)
    [[ $has_card ]] || fail "the display manager has not got the card"
    systemctl stop display-manager
done

# Without the key the start is refused, in whatever state it is, and it is not disturbed.
configure gpu <<<'gpu: {guest_reboot: allow}'
systemctl start display-manager
refused gpu display-manager "has $card open" 'display_manager: stop'
expect "display manager" "$(is_active)" active
systemctl stop display-manager
rm /etc/systemd/system/display-manager.service /run/greeter
systemctl daemon-reload

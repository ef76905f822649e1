#!/usr/bin/env bash
# A card that programs of the host use is not taken from them; they are named, waited for, or stopped and started again.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]}
load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"
card=$(drm_node "$gpu" card)
render=$(drm_node "$gpu" renderD)
sound=$(find "/sys/bus/pci/devices/${test_card[1]}/sound/" -name 'controlC*' -printf '/dev/snd/%f\n' -quit)

gpu_refused() {
    refused gpu "$@"
    same_as "$before"
}
comes_and_goes() {
    start gpu
    expect "driver" "$(driver_of "$gpu")" vfio-pci
    destroy gpu
    same_as "$before" 20
}

configure gpu <<<'gpu: {guest_reboot: allow}'
for node in "$card" "$render" "$sound"; do
    [[ -c $node ]] || fail "no node '$node'"
    process=$(hold "$node")
    gpu_refused "vh-holder (process $process" "has $node open"
    let_go
done
process=$(hold_mapped "/sys/bus/pci/devices/$gpu/resource2")
gpu_refused "process $process" "resource2 mapped"
let_go
comes_and_goes

# A service is named, stopped and started again.
cat >/etc/systemd/system/aside.service <<UNIT
[Service]
ExecStart=/bin/bash -c 'exec 3<>$card; exec -a uses-the-card sleep infinity'
UNIT
systemctl daemon-reload
systemctl restart aside
gpu_refused "aside.service) has $card open" 'holders: {stop: [aside.service'
configure gpu <<<'gpu: {guest_reboot: allow, holders: {stop: [aside.service]}}'
start gpu
expect "aside" "$(systemctl is-active aside || true)" inactive
destroy gpu
# The node may have another number when the driver is back: the service is started all the same.
same_as "$before" 20
systemctl stop aside

# One that lets go in time is waited for; one that does not is named.
configure gpu <<<'gpu: {guest_reboot: allow, holders: {wait: 10s}}'
card=$(drm_node "$gpu" card)
process=$(hold "$card")
(sleep 4; let_go) &
comes_and_goes
wait
card=$(drm_node "$gpu" card)
process=$(hold "$card")
configure gpu <<<'gpu: {guest_reboot: allow, holders: {wait: 2s}}'
gpu_refused "vh-holder (process $process"
let_go

# A display manager on this card.
# greeter_on ADDRESS: it opens whatever DRM node that card has.
greeter_on() {
    cat >/usr/local/sbin/greeter <<END
#!/bin/bash
exec 3<>"/dev/dri/\$(cd /sys/bus/pci/devices/$1/drm && echo card*)"
exec -a Xorg sleep infinity
END
    chmod +x /usr/local/sbin/greeter
}
greeter_on "$gpu"
printf '[Service]\nExecStart=/usr/local/sbin/greeter\n' >/etc/systemd/system/greeter.service
ln -sf /etc/systemd/system/greeter.service /etc/systemd/system/display-manager.service
systemctl daemon-reload
systemctl start greeter
configure gpu <<<'gpu: {guest_reboot: allow}'
gpu_refused 'greeter.service) has /dev/dri/card' 'display_manager: stop'
configure gpu <<<'gpu: {guest_reboot: allow, display_manager: stop}'
start gpu
expect "greeter" "$(systemctl is-active greeter || true)" inactive
destroy gpu
same_as "$before" 20
wait_active greeter
lsof_card=$(drm_node "$gpu" card)
[[ $(readlink "/proc/$(systemctl show -P MainPID greeter)/fd/3") == "$lsof_card" ]] || fail "it is not on the card"
# Not on this card: it is left alone.
systemctl stop greeter
greeter_on 0000:04:00.0
systemctl start greeter
pid=$(systemctl show -P MainPID greeter)
comes_and_goes
expect "greeter" "$(systemctl show -P MainPID greeter)" "$pid"
systemctl stop greeter
rm /etc/systemd/system/{greeter,display-manager}.service /usr/local/sbin/greeter
systemctl daemon-reload

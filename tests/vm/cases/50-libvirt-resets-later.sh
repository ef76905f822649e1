#!/usr/bin/env bash
# QEMU ends while libvirtd does not run. When that starts again it resets the guest's devices, whatever driver they
# have by then: the card stays with vfio-pci until it has.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]}
load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"
configure gpu <<<'gpu: {guest_reboot: allow}'

end_without_libvirt() {
    systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
    pkill -KILL -f 'guest=gpu'
    local deadline=$((SECONDS + 40))
    until journalctl -b -t vfio-hook --no-pager -o cat | grep -q 'libvirt has not noticed'; do
        ((SECONDS < deadline)) || fail "$(vfio-hook status)"
        sleep 0.5
    done
}

start gpu
end_without_libvirt
sleep 8
expect "driver" "$(driver_of "$gpu")" vfio-pci
# A person is told, and does not wait.
since=$SECONDS
! vfio-hook undo gpu >/tmp/undo 2>&1 || fail "undone: $(cat /tmp/undo)"
((SECONDS - since < 10)) || fail "undo took $((SECONDS - since)) s"
grep -q 'libvirt has not noticed' /tmp/undo || fail "$(cat /tmp/undo)"
vfio-hook status >/tmp/status
grep -q 'start libvirt' /tmp/status || fail "$(cat /tmp/status)"
expect "driver" "$(driver_of "$gpu")" vfio-pci

systemctl start libvirtd
wait_off gpu 60
same_as "$before" 60
wait_no_keepers

# And it goes on as ever.
start gpu
destroy gpu
same_as "$before" 30

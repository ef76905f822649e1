#!/usr/bin/env bash
# libvirtd is restarted while the guest runs: the guest lives, the lease stays.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}'
snapshot "$before"
start pinned-a
qemu=$(pgrep -f 'guest=pinned-a')
# held: without the kernel's threads, which come and go.
held() {
    vfio-hook status --json |
        jq -S '[.leases[0].held[] | select(.setting | startswith("CPUs of kernel thread") | not)]'
}
held=$(held)

systemctl restart libvirtd
expect "state" "$(virsh -q domstate pinned-a)" running
expect "QEMU" "$(pgrep -f 'guest=pinned-a')" "$qemu"
expect "lease" "$(held)" "$held"

# Also with a YAML file that became wrong, and one that went: a failing reconnect would kill the guest.
echo 'isolate_cpu: {}' >/etc/vfio-hook/hooks.d/pinned-a.yaml
systemctl restart libvirtd
expect "state" "$(virsh -q domstate pinned-a)" running
rm /etc/vfio-hook/hooks.d/pinned-a.yaml
systemctl kill -s KILL libvirtd
sleep 1
systemctl start libvirtd
expect "state" "$(virsh -q domstate pinned-a)" running
expect "lease" "$(held)" "$held"

wait_for_monitor pinned-a
# Undo does not take it away under a running guest.
! vfio-hook undo pinned-a || fail "undo took the lease of a running guest"
destroy pinned-a
same_as "$before"

#!/usr/bin/env bash
# libvirt calls a hook at each step of a guest's life, and guests can be started and stopped here.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

log=$(mktemp)
rm -f /etc/libvirt/hooks/qemu
cat >/etc/libvirt/hooks/qemu <<END
#!/bin/sh
cat >/dev/null
echo "\$*" >>$log
END
chmod +x /etc/libvirt/hooks/qemu
systemctl reload libvirtd

events() {
    expect "events of $1" "$(sed "s/^$1 //" "$log" | paste -sd,)" "$2"
    : >"$log"
}

snapshot "$log.before"
start plain
events plain "prepare begin -,start begin -,started begin -"
destroy plain
events plain "stopped end -,release end destroyed"

# prepare ran, and what it did must be undone although the guest never ran.
! start broken-start || fail "broken-start was started"
events broken-start "prepare begin -,stopped end -,release end failed"

# Nobody allocated its pages.
! start pinned-a || fail "pinned-a was started without pages"
events pinned-a "prepare begin -,start begin -,stopped end -,release end failed"

echo 32 >/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
start poweroff
wait_off poweroff 60
events poweroff "prepare begin -,start begin -,started begin -,stopped end -,release end shutdown"
echo 0 >/proc/sys/vm/nr_hugepages
same_as "$log.before"

#!/usr/bin/env bash
# Where systemd does not show itself as the first process, the keeper is an ordinary process with the same duties.
# The hook is called with a view of the host in which `/run/systemd` has nothing but the journal.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
cat >/usr/bin/vfio-hook-without-systemd <<'END'
#!/bin/bash
exec unshare --mount bash -ec '
    mkdir -p /run/hidden
    mount --bind /run/systemd /run/hidden
    mount -t tmpfs none /run/systemd
    mkdir /run/systemd/journal
    mount --bind /run/hidden/journal /run/systemd/journal
    exec -a /etc/libvirt/hooks/qemu /usr/bin/vfio-hook "$@"' qemu "$@"
END
chmod 755 /usr/bin/vfio-hook-without-systemd
ln -sfn /usr/bin/vfio-hook-without-systemd /etc/libvirt/hooks/qemu
trap 'rm /usr/bin/vfio-hook-without-systemd; rmdir /run/hidden' EXIT
snapshot "$before"
configure pinned-a <<'END'
hugepages: {}
block_sleep: {}
run:
- {when: started, command: [/bin/sh, -c, 'setsid sleep 1234 & exec sleep 0']}
- {when: release, command: [/usr/bin/touch, /tmp/released]}
END
locks() { systemd-inhibit --list --no-legend | grep -c 'guest pinned-a runs' || true; }

start pinned-a
keeper=$(pgrep -f '^vfio-hook keeper') || fail "no keeper"
! systemctl is-active --quiet 'vfio-hook-keeper-*' || fail "the keeper is a unit"
for stream in 0 1 2; do
    expect "stream $stream" "$(readlink "/proc/$keeper/fd/$stream")" /dev/null
done
expect "session" "$(ps -o sid= -p "$keeper" | tr -d ' ')" "$keeper"
expect "locks" "$(locks)" 1
systemctl restart libvirtd
expect "keeper" "$(pgrep -f '^vfio-hook keeper')" "$keeper"

# It is killed; the next event has another one.
kill -KILL "$keeper"
systemctl restart libvirtd
expect "state" "$(virsh -q domstate pinned-a)" running
deadline=$((SECONDS + 20))
until [[ $(locks) == 1 ]]; do
    ((SECONDS < deadline)) || fail "no lock: $(vfio-hook status)"
    sleep 0.3
done
rm -f /tmp/released
wait_for_monitor pinned-a
destroy pinned-a
same_as "$before" 20
wait_no_keepers
[[ -e /tmp/released ]] || fail "the command of release was not run"
pkill -f 'sleep 1234' # its keeper was killed, and no service is there that would have ended it

# One that hangs is killed.
start pinned-a
pkill -STOP -f '^vfio-hook keeper'
destroy pinned-a
same_as "$before" 10
wait_no_keepers
expect "locks" "$(locks)" 0
pkill -f 'sleep 1234'

# QEMU dies and libvirtd does not say so.
start pinned-a
systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
rm -f /tmp/released
pkill -KILL -f 'guest=pinned-a'
same_as "$before" 40
wait_no_keepers
[[ -e /tmp/released ]] || fail "the command of release was not run"
! pgrep -f 'sleep 1234' || fail "a command's child is left running"
systemctl start libvirtd
wait_off pinned-a 30

#!/usr/bin/env bash
# QEMU is killed while libvirtd does not run: the keeper gives everything back, and later events change nothing.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp) after=$(mktemp)
start_service_aside ''
configure pinned-a <<'END'
isolate_cpus: {}
hugepages: {}
block_sleep: {}
services: {stop: [aside.service]}
run:
- {when: release, command: [/usr/bin/touch, /tmp/released]}
END
snapshot "$before"

start pinned-a
expect "service" "$(systemctl is-active aside || true)" inactive
systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
rm -f /tmp/released
pkill -KILL -f 'guest=pinned-a'
same_as "$before" 40
wait_active aside
[[ -e /tmp/released ]] || fail "the command of release was not run"
expect "lease" "$(vfio-hook status)" "no guest holds anything"
wait_no_keepers

rm /tmp/released
systemctl start libvirtd
wait_off pinned-a 30
snapshot "$after"
diff -u "$before" "$after" || fail "libvirtd's later events changed something"
[[ ! -e /tmp/released ]] || fail "the command of release was run twice"

# libvirtd is killed after prepare: QEMU never comes, and no event ever will.
cat >/tmp/wait-in-start <<'END'
#!/bin/sh
[ "$2" != start ] || sleep 60
END
install -D -m 755 /tmp/wait-in-start /etc/libvirt/hooks/qemu.d/90-wait
systemctl reload libvirtd
start pinned-a >/dev/null 2>&1 &
until vfio-hook status | grep -q '^pinned-a .*: prepared'; do sleep 0.3; done
systemctl kill -s KILL libvirtd
rm -r /etc/libvirt/hooks/qemu.d
pkill -f 'sleep 60' || true
same_as "$before" 40
wait || true
wait_no_keepers

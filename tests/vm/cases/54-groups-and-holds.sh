#!/usr/bin/env bash
# Sections for several guests; what a guest's file asks for without the guest; the level of the log.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

groups=/etc/vfio-hook/guests.yaml
trap 'rm -f $groups /etc/vfio-hook/host.yaml' EXIT
before=$(mktemp)
snapshot "$before"
allowed() { systemctl show -P AllowedCPUs system.slice; }
rm -f /etc/vfio-hook/hooks.d/pinned-{a,b}.yaml

# A guest without a file of its own has what its group has; another name has nothing.
printf 'groups:\n  pinned:\n    guests: ["pinned-*", "!pinned-b"]\n    isolate_cpus: {}\n    hugepages: {}\n' >$groups
vfio-hook check $groups | grep valid >/dev/null || fail "$(vfio-hook check $groups)"
vfio-hook test pinned-a | grep 'from group pinned of /etc/vfio-hook/guests.yaml: hugepages, isolate_cpus' >/dev/null ||
    fail "$(vfio-hook test pinned-a)"
start pinned-a
expect "CPUs" "$(allowed)" "0-1 4-7"
destroy pinned-a
same_as "$before"
wait_no_keepers
# Its memory is in huge pages: without the section there are none.
refused pinned-b
same_as "$before"

# Its own file stands above the group.
configure pinned-a <<<'isolate_cpus: {irqs: false}'
vfio-hook test pinned-a | grep 'guests.yaml: hugepages$' >/dev/null || fail "$(vfio-hook test pinned-a)"
rm /etc/vfio-hook/hooks.d/pinned-a.yaml

# A failure of what a group asks for refuses the start.
printf 'groups:\n  pinned:\n    guests: ["pinned-*"]\n    isolate_cpus: {cpus: "0-7"}\n' >$groups
refused pinned-a "guests.yaml:4:" "isolates CPUs 0-7"
same_as "$before"

# A wrong file stops guests that have a file of their own, and no other.
echo 'groups: {pinned: {guest: ["pinned-*"], isolate_cpus: {}}}' >$groups
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}'
refused pinned-a "guests.yaml:1:" "did you mean"
since=$(date '+%F %T')
virsh -q dumpxml pinned-b >/tmp/with-pages.xml
sed '/<memoryBacking>/,/<\/memoryBacking>/d' /tmp/with-pages.xml >/tmp/without-pages.xml
virsh -q define /tmp/without-pages.xml
start pinned-b
said 'unknown key .guest.' "$since"
expect "CPUs" "$(allowed)" ""
destroy pinned-b
same_as "$before"
rm $groups
virsh -q define /tmp/with-pages.xml

# Held without the guest, through libvirt's restart, and taken over by its start.
vfio-hook hold pinned-a
expect "CPUs" "$(allowed)" "0-1 4-7"
vfio-hook status | grep 'pinned-a .*held by hand' >/dev/null || fail "$(vfio-hook status)"
systemctl restart libvirtd
vfio-hook undo --stale
expect "CPUs" "$(allowed)" "0-1 4-7"
pages=$(pages 0)
since=$(date '+%F %T')
start pinned-a
said 'held for it by hand is its own now' "$since"
expect "pages" "$(pages 0)" "$pages"
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}\nblock_sleep: {}'
vfio-hook status | grep 'its file has changed since' >/dev/null || fail "$(vfio-hook status)"
destroy pinned-a
same_as "$before"
wait_no_keepers

# Held, and given back by hand; held again, and the start asks for something else.
vfio-hook hold pinned-a
vfio-hook undo pinned-a
same_as "$before"
vfio-hook hold pinned-a
configure pinned-a <<<$'hugepages: {}'
start pinned-a
expect "CPUs" "$(allowed)" ""
destroy pinned-a
same_as "$before"
wait_no_keepers

# A start of libvirt's that fails after the hook gives back what it had taken over.
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}'
vfio-hook hold pinned-a
virsh -q attach-disk pinned-a /nowhere.img vdz --config
start pinned-a 2>/dev/null && fail "it was started"
virsh -q detach-disk pinned-a vdz --config
same_as "$before"
wait_no_keepers

# Every setting with its value before and after.
echo 'log: debug' >/etc/vfio-hook/host.yaml
since=$(date '+%F %T')
start pinned-a
journalctl -q -t vfio-hook --since "$since" -o json | jq -e -s 'map(select(.VFIO_HOOK_SETTING // "" | test("AllowedCPUs"))) |
    any(.PRIORITY == "7" and .VFIO_HOOK_GUEST == "pinned-a" and .VFIO_HOOK_AFTER == "0-1,4-7" and .VFIO_HOOK_EVENT == "prepare")' >/dev/null ||
    fail "$(journalctl -q -t vfio-hook --since "$since" -o json | head -5)"
destroy pinned-a
same_as "$before"
wait_no_keepers
vfio-hook log pinned-a --boot | grep ' pinned-a: release: ' >/dev/null || fail "$(vfio-hook log pinned-a --boot | tail -5)"

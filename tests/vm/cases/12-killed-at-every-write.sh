#!/usr/bin/env bash
# The hook is killed at a write of the ledger or of a knob: the next event or `undo` brings the host back.
# In a soak at every one of them; else at every eleventh.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
step=$([[ ${SOAK-} ]] && echo 1 || echo 11)
start_service_aside ''
configure pinned-a <<'END'
isolate_cpus: {}
hugepages: {}
block_sleep: {strength: mask}
services: {stop: [aside.service]}
run:
- {when: prepare, command: [/bin/true]}
- {when: release, command: [/bin/true]}
END
configure pinned-b <<<$'hugepages: {}'
virsh -q dumpxml pinned-a >/tmp/a.xml
virsh -q dumpxml pinned-b >/tmp/b.xml
ln -sf /usr/bin/vfio-hook-failpoints /tmp/qemu
snapshot "$before"

event() { /etc/libvirt/hooks/qemu "$1" "$2" "$3" - <"/tmp/${1#pinned-}.xml"; }
points() { VFIO_HOOK_FAILPOINT=count:/tmp/points /tmp/qemu pinned-a "$1" "$2" - </tmp/a.xml && cat /tmp/points; }
# libvirt sees success of a release all the same: the log tells.
killed() {
    local code=0 began
    began=$(date +@%s)
    VFIO_HOOK_FAILPOINT=kill:$3 /tmp/qemu pinned-a "$1" "$2" - </tmp/a.xml 2>/dev/null || code=$?
    [[ $1 == release ]] || ((code)) || fail "$1 was not refused at point $3"
    for _ in {1..20}; do
        # journald takes its time until a line can be read.
        (said "^[^:]*: $1 was ended by SIGKILL" "$began") 2>/dev/null && return
        sleep 0.2
    done
    fail "$1 was not killed at point $3"
}

# The guest's keeper may be the one that gives the rest back.
is_as_before() {
    same_as "$before" 20
    wait_active aside
}

# Four ways back, taken in turn.
recover() {
    case $(($1 % 4)) in
        0) vfio-hook undo --stale >/dev/null ;;
        1) event pinned-a release end ;;
        2) event pinned-a prepare begin && event pinned-a release end ;;
        3) # Another guest's event settles what was half done; what was all done is its guest's until undo.
            event pinned-b prepare begin && event pinned-b release end && vfio-hook undo pinned-a >/dev/null ;;
    esac
}

in_prepare=$(points prepare begin)
in_release=$(points release end)
is_as_before
((in_prepare > 80 && in_release > 80)) || fail "only $in_prepare and $in_release points"

for ((point = 1; point <= in_prepare; point += step)); do
    killed prepare begin "$point"
    recover "$((point / step))"
    is_as_before
done
for ((point = 1; point <= in_release; point += step)); do
    event pinned-a prepare begin
    killed release end "$point"
    recover "$((point / step))"
    is_as_before
done

# A panic gives back at once, and refuses the start; in release it refuses nothing.
for point in 3 20 50; do
    ! VFIO_HOOK_FAILPOINT=panic:$point /tmp/qemu pinned-a prepare begin - </tmp/a.xml 2>/tmp/message || fail "no panic"
    grep -q 'a bug in vfio-hook ended prepare' /tmp/message || fail "$(cat /tmp/message)"
    is_as_before
done
event pinned-a prepare begin
VFIO_HOOK_FAILPOINT=panic:20 /tmp/qemu pinned-a release end - </tmp/a.xml || fail "release failed"
vfio-hook undo --stale
is_as_before
echo "figure: killed at the $in_prepare points of prepare and the $in_release of release, step $step"

# libvirt itself runs the hook that is killed, at points spread over its life.
ln -sfn /usr/bin/vfio-hook-failpoints /etc/libvirt/hooks/qemu
for point in 5 30 70 $((in_prepare)); do
    echo "kill:$point" >/run/vfio-hook-failpoint
    ! start pinned-a 2>/dev/null || fail "pinned-a was started"
    rm /run/vfio-hook-failpoint
    vfio-hook undo --stale >/dev/null
    is_as_before
done
start pinned-a
echo "kill:40" >/run/vfio-hook-failpoint
destroy pinned-a
rm /run/vfio-hook-failpoint
vfio-hook undo --stale >/dev/null
ln -sfn /usr/bin/vfio-hook /etc/libvirt/hooks/qemu
is_as_before

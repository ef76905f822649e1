#!/usr/bin/env bash
# The hook or the keeper is killed at a write while it hands a card over or takes it back: the card and the host come
# back. In a soak at every point; else at every seventh.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

step=$([[ ${SOAK-} ]] && echo 1 || echo 7)
load_gpu
warm_up_gpu
before=$(mktemp)
configure gpu <<<'gpu: {guest_reboot: allow}'
configure pinned-b <<<$'hugepages: {}'
virsh -q dumpxml gpu >/tmp/gpu.xml
virsh -q dumpxml pinned-b >/tmp/b.xml
ln -sf /usr/bin/vfio-hook-failpoints /tmp/qemu
snapshot "$before"

event() { hook "$1" "$2" "$3" - <"/tmp/${1#pinned-}.xml"; }
points() { VFIO_HOOK_FAILPOINT=count:/tmp/points /tmp/qemu gpu "$1" "$2" - </tmp/gpu.xml && cat /tmp/points; }

recover() {
    case $(($1 % 3)) in
        0) vfio-hook undo --stale >/dev/null ;;
        1) event gpu release end ;;
        2) event gpu prepare begin && event gpu release end ;;
    esac
}

in_prepare=$(points prepare begin)
event gpu release end
same_as "$before" 20
((in_prepare > 20)) || fail "only $in_prepare points"
for ((point = 1; point <= in_prepare; point += step)); do
    ! { VFIO_HOOK_FAILPOINT=kill:$point /tmp/qemu gpu prepare begin - </tmp/gpu.xml; } 2>/dev/null ||
        fail "prepare was not killed at point $point"
    recover "$((point / step))"
    same_as "$before" 20
done
echo "figure: the hook was killed at the $in_prepare points of prepare, step $step"

# The keeper is: the file names the point for whoever is started with it there.
cp /usr/bin/vfio-hook-failpoints /usr/bin/vfio-hook.other
mv /usr/bin/vfio-hook /tmp/vfio-hook.kept && mv /usr/bin/vfio-hook.other /usr/bin/vfio-hook
killed=0
for ((point = 1; ; point += step)); do
    ((point < 200)) || fail "the keeper is killed at whatever point"
    event gpu prepare begin
    echo "kill:$point" >/run/vfio-hook-failpoint
    event gpu release end || true
    deadline=$((SECONDS + 15))
    while pgrep -f '^vfio-hook keeper' >/dev/null && ((SECONDS < deadline)); do
        sleep 0.2
    done
    rm /run/vfio-hook-failpoint
    # Past its last point it is done.
    [[ ! -e /run/vfio-hook/ledger.json ]] || killed=$((killed + 1))
    is_last=$([[ -e /run/vfio-hook/ledger.json ]] || echo yes)
    recover "$((point / step))"
    same_as "$before" 30
    [[ ! $is_last ]] || break
done
mv /tmp/vfio-hook.kept /usr/bin/vfio-hook
((killed * step > 20)) || fail "the keeper was killed at $killed points only"
echo "figure: the keeper was killed at $killed points of its way back, step $step"

#!/usr/bin/env bash
# Each peer of the hook is stopped in turn, for a whole life of a guest: every answer comes within its budget, nothing is
# on standard output, and when the peer goes on the host is what it was.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
guest_xml pinned-a >/tmp/xml
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}\nblock_sleep: {}'

# answer OPERATION SUB-OPERATION EXTRA: its exit status; longer than the budget and 2 s of this slow machine is a failure.
answer() {
    local code=0 began=${EPOCHREALTIME/./} took budget
    case $1 in
        prepare) budget=60 ;;
        start | started | reconnect) budget=2 ;;
        *) budget=5 ;;
    esac
    hook pinned-a "$@" </tmp/xml >/tmp/out 2>/tmp/said || code=$?
    took=$(((${EPOCHREALTIME/./} - began) / 1000))
    ((took <= budget * 1000 + 2000)) || fail "$peer: $1 took $took ms"
    [[ ! -s /tmp/out ]] || fail "$peer: $1 wrote to standard output: $(cat /tmp/out)"
    ((took <= slowest)) || slowest=$took slowest_at="$peer, $1"
    return "$code"
}

slowest=0 slowest_at=''

# life: as libvirt goes on: after a refusal too.
life() {
    local reason=destroyed
    if answer prepare begin -; then
        answer start begin - || reason=failed
        [[ $reason == failed ]] || answer started begin - || fail "$peer: started failed: $(cat /tmp/said)"
        answer reconnect begin - || fail "$peer: reconnect failed: $(cat /tmp/said)"
    else
        reason=failed
    fi
    answer stopped end - || fail "$peer: stopped failed: $(cat /tmp/said)"
    answer release end "$reason" || fail "$peer: release failed: $(cat /tmp/said)"
}

# came_back: all is given back, by the keeper at its next try or by what a person does.
came_back() {
    wait_no_keepers_for 60
    vfio-hook undo --stale || fail "$peer: $(vfio-hook status)"
    same_as "$before" 30
}

# hangs NAME PROCESS...: stopped during a whole life.
hangs() {
    local peer=$1
    kill -STOP "${@:2}"
    life
    kill -CONT "${@:2}"
    came_back
}

main_pid() { systemctl show -P MainPID "$1"; }

# Nobody reads the journal's socket, and its queue is full.
journald=$(main_pid systemd-journald)
kill -STOP "$journald"
perl -MSocket -e '
    socket my $socket, AF_UNIX, SOCK_DGRAM, 0 or die;
    for (1 .. 100000) { send $socket, "MESSAGE=x", MSG_DONTWAIT, sockaddr_un("/run/systemd/journal/socket") or exit 0 }
    die "the queue is not full"'
hangs journald "$journald"

hangs logind "$(main_pid systemd-logind)"
hangs dbus "$(main_pid dbus)"

# The keeper, once it is there.
peer=keeper
answer prepare begin - || fail "prepare failed: $(cat /tmp/said)"
keeper=$(pgrep -f '^vfio-hook keeper')
kill -STOP "$keeper"
answer started begin - || fail "started failed: $(cat /tmp/said)"
answer reconnect begin - || fail "reconnect failed: $(cat /tmp/said)"
answer stopped end - || fail "stopped failed: $(cat /tmp/said)"
answer release end destroyed || fail "release failed: $(cat /tmp/said)"
kill -CONT "$keeper" 2>/dev/null || true
came_back

# Standard input that never comes.
peer="standard input"
mkfifo /tmp/silent
exec 8<>/tmp/silent
for operation in prepare started release; do
    began=$SECONDS
    hook pinned-a "$operation" begin - <&8 2>/tmp/said || [[ $operation == prepare ]] || fail "$(cat /tmp/said)"
    ((SECONDS - began <= 22)) || fail "$operation waited $((SECONDS - began)) s for its XML"
done
exec 8>&-
came_back

# A signal at `started` and `reconnect`, which wait for the ledger: libvirt must see success.
peer=signals
answer prepare begin - || fail "prepare failed: $(cat /tmp/said)"
exec 7>/run/vfio-hook/lock
for operation in started reconnect; do
    for signal in TERM HUP INT QUIT USR1 USR2 ALRM PIPE XCPU XFSZ VTALRM PROF IO ABRT SEGV 32 33 34 64; do
        flock 7
        (cd / && exec env -i /etc/libvirt/hooks/qemu pinned-a $operation begin -) </tmp/xml 7>&- &
        hook=$!
        until [[ $(cat /proc/$hook/wchan 2>/dev/null) == *sigtimedwait* ]]; do [[ -e /proc/$hook ]] || break; done
        kill -s "$signal" "$hook" 2>/dev/null || true
        flock -u 7
        wait "$hook" || fail "$operation ended with $? at signal $signal"
    done
done
exec 7>&-
answer release end destroyed || fail "release failed: $(cat /tmp/said)"
came_back

# irqbalance moves interrupts by itself, and takes lists of CPUs at its next round only.
peer=irqbalance
systemctl start irqbalance
sleep 12
knobs | grep -v smp_affinity >"$before"
kill -STOP "$(pgrep -x irqbalance)"
life
kill -CONT "$(pgrep -x irqbalance)"
wait_no_keepers_for 60
sleep 12
vfio-hook undo --stale || fail "$peer: $(vfio-hook status)"
diff -U0 "$before" <(knobs | grep -v smp_affinity) || fail "$peer: the host is not as it was"
restore_interrupts

echo "figure: slowest answer $slowest ms ($slowest_at)"

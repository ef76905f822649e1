#!/usr/bin/env bash
# /run is full from the middle of a guest's life on: all comes back, and the ledger goes.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
start_service_aside ''
configure pinned-a <<'END'
isolate_cpus: {}
hugepages: {}
services: {stop: [aside.service]}
END
configure pinned-b <<<'isolate_cpus: {}'
snapshot "$before"

fill_run() {
    # The last bytes go one page at a time.
    dd if=/dev/zero of=/run/fill bs=1M status=none 2>/dev/null || true
    dd if=/dev/zero of=/run/fill.rest bs=4k status=none 2>/dev/null || true
    ! (head -c 4096 /dev/zero >/run/fill.none) 2>/dev/null || fail "/run is not full"
    rm -f /run/fill.none
}

start pinned-a
virsh -q dumpxml pinned-a >/tmp/pinned-a.xml
virsh -q dumpxml pinned-b >/tmp/pinned-b.xml
fill_run
# Another guest may be refused, and says why; what it took by then is given back.
if ! hook pinned-b prepare begin - </tmp/pinned-b.xml 2>/tmp/refusal; then
    grep -q 'No space left' /tmp/refusal || fail "$(cat /tmp/refusal)"
    ! grep -q 'not all' /tmp/refusal || fail "$(cat /tmp/refusal)"
fi
hook pinned-b release end - </tmp/pinned-b.xml
pkill -KILL -f 'guest=pinned-a'
until ! pgrep -f 'guest=pinned-a' >/dev/null; do sleep 0.2; done
hook pinned-a release end - </tmp/pinned-a.xml
wait_active aside
expect "lease" "$(vfio-hook status)" "no guest holds anything"
rm -f /run/fill /run/fill.rest
wait_off pinned-a 60
same_as "$before" 30
wait_no_keepers
compgen -G '/run/vfio-hook/ledger*' && fail "a slot is left: $(ls /run/vfio-hook)"
start pinned-a
destroy pinned-a
same_as "$before" 30

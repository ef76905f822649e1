#!/usr/bin/env bash
# Eight guests at once, with sleep locks and one service that all want stopped: it comes back once, at the end.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
start_service_aside 'ExecStartPre=/bin/sh -c "echo started >>/tmp/aside.log"'
for number in 1 2 3 4 5 6 7 8; do
    sed "s/<name>plain/<name>many-$number/; s/<uuid>........-/<uuid>0000000$number-/" \
        "$(dirname "$0")/../guests/plain.xml" >"/tmp/many-$number.xml"
    virsh -q define "/tmp/many-$number.xml"
    configure "many-$number" <<<$'block_sleep: {}\nservices: {stop: [aside.service]}'
done
rm -f /tmp/aside.log
snapshot "$before"
locks() { systemd-inhibit --list --no-legend | grep -c 'guest many-' || true; }

# The second half starts while the first one does; the first ends before the last has come.
starting=()
for number in 1 2 3 4 5 6 7 8; do
    start "many-$number" &
    starting+=($!)
done
for pid in "${starting[@]}"; do wait "$pid"; done
expect "locks" "$(locks)" 8
expect "service" "$(systemctl is-active aside || true)" inactive
expect "keepers" "$(pgrep -fc '^vfio-hook keeper')" 8
ending=()
for number in 3 1 8 5; do
    destroy "many-$number" &
    ending+=($!)
done
for pid in "${ending[@]}"; do wait "$pid"; done
expect "locks" "$(locks)" 4
expect "service" "$(systemctl is-active aside || true)" inactive
# One comes back meanwhile.
start many-3 &
for number in 2 4 6 7; do destroy "many-$number"; done
wait $!
expect "locks" "$(locks)" 1
expect "service" "$(systemctl is-active aside || true)" inactive
[[ ! -e /tmp/aside.log ]] || fail "the service was started in between"
destroy many-3
wait_active aside
expect "starts of the service" "$(</tmp/aside.log)" started
same_as "$before"
for number in 1 2 3 4 5 6 7 8; do virsh -q undefine "many-$number"; done
wait_no_keepers

#!/usr/bin/env bash
# Units that run while a guest does: until the last guest that wants them is gone; one that fails refuses the start.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
units=/run/systemd/system
unit() { printf '[Service]\n%s\n' "$2" >$units/"$1".service; }
unit for-guest 'ExecStart=/bin/sleep infinity'
unit slow-to-stop "ExecStart=/bin/sh -c \"trap 'sleep 8; exit 0' TERM; while :; do sleep 0.1; done\""
unit fails 'ExecStart=/bin/sh -c "sleep 0.2; exit 3"'
trap 'rm -f $units/for-guest.service $units/slow-to-stop.service $units/fails.service; systemctl daemon-reload' EXIT
systemctl daemon-reload
snapshot "$before"
state() { systemctl is-active "$1" || true; }

configure plain <<<"services: {start: [for-guest.service, slow-to-stop.service]}"
start plain
expect "for-guest" "$(state for-guest)" active
began=$SECONDS
destroy plain
((SECONDS - began < 6)) || fail "libvirt waited for a service that is slow to stop"
same_as "$before" 30
expect "for-guest" "$(state for-guest)" inactive
expect "slow-to-stop" "$(state slow-to-stop)" inactive

# One that ran before stays.
systemctl start for-guest
configure plain <<<"services: {start: for-guest.service}"
start plain
destroy plain
expect "for-guest" "$(state for-guest)" active
systemctl stop for-guest

configure plain <<<"services: {start: [for-guest.service, fails.service]}"
refused plain 'it failed right after its start'
same_as "$before" 20
expect "for-guest" "$(state for-guest)" inactive
systemctl reset-failed fails || true

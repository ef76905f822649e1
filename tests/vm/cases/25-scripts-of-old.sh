#!/usr/bin/env bash
# A tree of scripts as a dispatcher runs it, unchanged: the same calls, in order, with the XML; a failing one refuses.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
tree=/etc/libvirt/hooks/qemu.d
trap 'rm -rf $tree' EXIT
# script GUEST/OPERATION/SUB-OPERATION/NAME
script() {
    install -D -m 755 /dev/stdin "$tree/$1" <<'END'
#!/bin/bash
# What guides have in such scripts: variables of the dispatcher, the guest's XML, a sleep.
set -e
name=$(basename "$0")
xml=$(cat)
uuid=$(grep -oP '(?<=<uuid>)[^<]*' <<<"$xml")
echo "$name $* $uuid" >>/tmp/scripts.log
[[ $name != 9-fails ]] || { echo "cannot do it" >&2; exit 3; }
END
}
script plain/prepare/begin/01-first.sh
script plain/prepare/begin/10-second.sh
script plain/start/begin/start.sh
script plain/started/begin/started.sh
script plain/stopped/end/stopped.sh
script plain/release/end/release.sh
script other/prepare/begin/never.sh
chmod -x "$(mktemp -p $tree/plain/prepare/begin 05-not-executable.XXXX)"
configure plain <<<"run: {scripts: $tree}"
snapshot "$before"
rm -f /tmp/scripts.log
uuid=$(virsh -q domuuid plain | tr -d '\n')

start plain
destroy plain
same_as "$before" 20
expect "calls" "$(</tmp/scripts.log)" "01-first.sh plain prepare begin - $uuid
10-second.sh plain prepare begin - $uuid
start.sh plain start begin - $uuid
started.sh plain started begin - $uuid
stopped.sh plain stopped end - $uuid
release.sh plain release end destroyed $uuid"

rm /tmp/scripts.log
script plain/prepare/begin/9-fails
refused plain '9-fails (prepare) ended with exit status 3'
same_as "$before" 20
expect "last call" "$(tail -n 1 /tmp/scripts.log | cut -d' ' -f1-2)" "release.sh plain"

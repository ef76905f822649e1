#!/usr/bin/env bash
# Guests with names that are no harmless words: the hook does its work or leaves at once, and touches nothing else.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
guests=$(dirname "$0")/../guests
snapshot "$before"
touch /tmp/mark

number=100
# shellcheck disable=SC2016 # it is not to be expanded, by anybody
for name in --help a\ b 'x$(touch owned)' .. $'one\ntwo' -x; do
    number=$((number + 1))
    escaped=${name//$'\n'/&#10;}
    NAME=$escaped perl -pe 's/pinned-a/$ENV{NAME}/; s/00000000000a</000000000'"$number"'</' "$guests/pinned-a.xml" >/tmp/guest.xml
    uuid=$(perl -ne 'print $1 if /<uuid>(.*)</' /tmp/guest.xml)
    configure "$name" <<<$'hugepages: {}' 2>/dev/null || true
    if [[ $name == .. || $name == *$'\n'* ]]; then
        # These have no file: without pages of its own the guest cannot start, and the hook did nothing.
        ! virsh -q create /tmp/guest.xml 2>/dev/null || fail "$name has a lease from nowhere"
        [[ ! -e /run/vfio-hook/ledger.json ]] || fail "there is a ledger for $name"
    else
        virsh -q create /tmp/guest.xml
        vfio-hook status --json | jq -e --arg uuid "$uuid" '.leases[0].uuid == $uuid' >/dev/null || fail "$(vfio-hook status)"
        expect "pages for $name" "$(pages 0)" 32
        virsh -q destroy "$uuid"
    fi
    same_as "$before"
done
[[ ! -e /owned && ! -e ~/owned && ! -e owned ]] || fail "a name was executed"
written=$(find / -xdev -newer /tmp/mark -path '*vfio-hook*' ! -path '/etc/vfio-hook/hooks.d*' ! -path '/proc/*' ! -path '/root/*' 2>/dev/null || true)
expect "files written" "$written" ""
rm -f /etc/vfio-hook/*.yaml

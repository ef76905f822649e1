#!/usr/bin/env bash
# A broken YAML file refuses the start and says where; a guest without one starts untouched.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
file=/etc/vfio-hook/hooks.d/plain.yaml
snapshot "$before"

plain_refused() {
    refused plain "$@"
    same_as "$before"
}

configure plain <<<$'hugepages:\n  timeot: 20s'
# shellcheck disable=SC2016 # the backticks are the message's
plain_refused "$file:2:3: unknown key" 'did you mean `timeout`'
configure plain <<<$'hugepages: {}'
plain_refused 'asks for no huge pages' 'memoryBacking'
configure plain <<<$'isolate_cpus: {}'
plain_refused 'isolates none' 'vcpupin'
configure plain <<<$'isolate_cpus:\n  cpus: 0-7'
plain_refused "$file:2:9" 'none is left for the host'
configure plain <<<$'isolate_cpus:\n  cpus: "9"'
plain_refused "$file:2:9" 'has no CPU 9' '0-7'
configure plain <<<$'isolate_cpus:\n  cpus: "7"\n'
chown nobody "$file"
plain_refused 'belongs to uid 65534, not to root' 'chown root:root'
chown root "$file"
chmod 666 "$file"
plain_refused '0666' 'chmod go-w'

rm "$file"
start plain
expect "status" "$(vfio-hook status)" "no guest holds anything"
[[ ! -e /run/vfio-hook/ledger.json ]] || fail "there is a ledger"
destroy plain
same_as "$before"

# An ordinary user's hook does nothing: qemu:///session runs the same one.
configure pinned-a <<<$'isolate_cpus: {}'
virsh -q dumpxml pinned-a >/tmp/a.xml
chmod 644 /tmp/a.xml
expect "as nobody" "$(setpriv --reuid nobody --clear-groups /etc/libvirt/hooks/qemu pinned-a prepare begin - </tmp/a.xml 2>&1; echo $?)" 0
same_as "$before"

#!/usr/bin/env bash
# Undo takes the lease of a guest that runs: its pages are surplus until it ends. Those of a guest on another node, which
# the kernel keeps because of them, go after that.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
node=/sys/devices/system/node/node
# pages NODE KIND
pages() { cat "$node$1/hugepages/hugepages-2048kB/$2_hugepages"; }
configure pinned-a <<<'hugepages: {}'
configure pinned-b <<<'hugepages: {}'
snapshot "$before"
start pinned-a
start pinned-b
vfio-hook undo pinned-a --force
expect "surplus pages of the guest that runs" "$(pages 0 surplus)" 32
destroy pinned-b
expect "free pages that the kernel keeps" "$(pages 1 free)" 32
said 'node 1 not given back: .* keeps 32 free pages'
vfio-hook status | grep -e 'pinned-b .*: not all given back' >/dev/null || fail "$(vfio-hook status)"
destroy pinned-a
# The keeper tries again after 10 s.
same_as "$before" 30
wait_no_keepers

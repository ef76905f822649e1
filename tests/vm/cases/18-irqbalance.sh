#!/usr/bin/env bash
# irqbalance is told to keep away from the guest's CPUs, and told back.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}'
systemctl start irqbalance
sleep 12
banned() { knobs | sed -n 's/^irqbalance:.*BANNED //p'; }
knobs | grep -v smp_affinity >"$before"
start pinned-a
# It takes the list at its next round, every 10 s, and rounds that follow must not move an interrupt back.
sleep 22
expect "banned CPUs" "$(banned)" 0000000c
expect "interrupts on CPUs 2-3" "$(movable_interrupts_on 2 3)" ""
destroy pinned-a
# Its list is seen to be the old one again only after its next round; the next look at the ledger ends the matter.
sleep 12
vfio-hook undo --stale
diff -U0 "$before" <(knobs | grep -v smp_affinity) || fail "the host is not as it was"
restore_interrupts

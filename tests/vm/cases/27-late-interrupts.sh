#!/usr/bin/env bash
# The interrupts of a guest's own devices go to its CPUs when they come, and the host's stay away as long as it runs;
# those that are made meanwhile have the usual CPUs again when it is gone.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

nic=0000:05:00.0
[[ $(basename "$(readlink /sys/bus/pci/devices/$nic/driver)") == e1000e ]] || fail "no e1000e at $nic"
configure with-nic <<<'isolate_cpus: {}'

# The affinities of all interrupts whose users' names match, each once.
affinity() {
    local file
    for file in /sys/kernel/irq/*/actions; do
        if grep -Eqs "$1" "$file"; then
            cat "/proc/irq/$(basename "$(dirname "$file")")/smp_affinity_list"
        fi
    done | sort -u
}
# becomes WHAT PATTERN AFFINITY SECONDS
becomes() {
    local deadline=$((SECONDS + $4))
    until [[ $(affinity "$2") == "$3" ]]; do
        ((SECONDS < deadline)) || fail "$1: '$(affinity "$2")' instead of '$3'"
        sleep 0.3
    done
}
nic_before=$(affinity '^enp5s0')
[[ $nic_before ]] || fail "the card has no interrupt"

start with-nic
becomes "the guest's card" "^vfio-.*$nic" 2-3 20
expect "interrupts of the host on CPUs 2-3" "$(movable_interrupts_on 2 3 | grep -v ': 2-3$' || true)" ""
said 'while the guest runs: '
vfio-hook status --json | jq -e '.leases[0].held | all(.differs | not)' >/dev/null || fail "$(vfio-hook status)"
! vfio-hook status --json | grep enp5s0 || fail "interrupts that are gone are still held"

# Somebody moves an interrupt back: at the next look it goes away again, and the new value counts when the guest is gone.
irq=$(dirname "$(grep -l acpi /sys/kernel/irq/*/actions)")
irq=${irq##*/}
usual=$(<"/proc/irq/$irq/smp_affinity_list")
echo 1-3 >"/proc/irq/$irq/smp_affinity_list"
systemctl daemon-reload
deadline=$((SECONDS + 20))
until [[ $(<"/proc/irq/$irq/smp_affinity_list") == 1 ]]; do
    ((SECONDS < deadline)) || fail "IRQ $irq stays on $(<"/proc/irq/$irq/smp_affinity_list")"
    sleep 0.3
done
destroy with-nic
expect "IRQ $irq afterwards" "$(<"/proc/irq/$irq/smp_affinity_list")" 1-3
[[ $usual ]] # what it had while the guest ran
echo 0-3 >"/proc/irq/$irq/smp_affinity_list"
# The driver of the card made new interrupts while the default was still narrowed.
becomes "the card, back at the host" '^enp5s0' "$nic_before" 20
expect "default" "$(</proc/irq/default_smp_affinity)" ff
expect "lease" "$(vfio-hook status)" "no guest holds anything"

# As asked for, they stay on the host's CPUs.
configure with-nic <<<'isolate_cpus: {vfio_irqs: host}'
start with-nic
sleep 4
expect "interrupts on CPUs 2-3" "$(movable_interrupts_on 2 3)" ""
destroy with-nic
becomes "the card, back at the host" '^enp5s0' "$nic_before" 20

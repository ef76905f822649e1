#!/usr/bin/env bash
# What the kernel's log says of a card while a guest has it decides where it goes: a failure, one that the driver got over,
# one that came again, a line of the host's own; and memory that the firmware wants mapped is looked for in real groups.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

gpu=${test_card[0]} sound=${test_card[1]}
ring="amdgpu $gpu: [drm:amdgpu_ring_test_helper [amdgpu]] *ERROR* ring kiq_0.2.1.0 test failed (-110)"
succeeded="amdgpu $gpu: amdgpu: GPU reset(2) succeeded!"
# shellcheck disable=SC2119 # without its argument
load_faults
load_gpu
warm_up_gpu
before=$(mktemp)
snapshot "$before"
drivers() { echo "$(driver_of "$gpu") $(driver_of "$sound")"; }

# lived LINE...: a guest's life in which the kernel says this.
lived() {
    start gpu
    for line in "$@"; do echo "<3>$line" >/dev/kmsg; done
    destroy gpu
    wait_no_keepers
}

configure gpu <<<'gpu: {guest_reboot: allow}'
lived "$ring" "$succeeded"
expect "drivers after a recovery" "$(drivers)" "vhgpu snd_hda_intel"
said 'one of its units does not run, and recovered'
same_as "$before"

for lines in 1 2; do
    if ((lines == 1)); then lived "$ring"; else lived "$ring" "$succeeded" "$ring"; fi
    vfio-hook status | grep -A3 quarantine | grep -F 'test failed' || fail "not in quarantine: $(vfio-hook status)"
    vfio-hook gpu report >/tmp/report
    grep -F "$gpu wedged (ring-test): one of its units does not run" /tmp/report || fail "$(cat /tmp/report)"
    vfio-hook gpu clear
    expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"
    same_as "$before"
done

# A line of NVIDIA's driver names no function; one about another card is another's.
lived "NVRM: Xid (PCI:${gpu%.*}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
vfio-hook status | grep -F 'it has fallen off the bus' || fail "not in quarantine: $(vfio-hook status)"
vfio-hook gpu clear
lived "NVRM: Xid (PCI:0000:7f:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"

# The host's configuration knows better.
echo 'kernel_lines: {ring-test: {severity: harmless}}' >/etc/vfio-hook/host.yaml
configure gpu <<<'gpu: {guest_reboot: allow, return_to: host-if-clean}'
lived "$ring"
expect "drivers" "$(drivers)" "vhgpu snd_hda_intel"
rm /etc/vfio-hook/host.yaml
same_as "$before"

# What this kernel says of its groups is understood.
for regions in /sys/kernel/iommu_groups/*/reserved_regions; do
    while read -r start end kind; do
        [[ $start == 0x* && $end == 0x* && $kind ]] || fail "$regions: $start $end $kind"
    done <"$regions"
done

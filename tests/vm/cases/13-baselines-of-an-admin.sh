#!/usr/bin/env bash
# Baselines that are not the default come back as they were; what an admin changes meanwhile is left alone.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}'
irq=$(basename "$(dirname "$(grep -l ttyS0 /sys/kernel/irq/*/actions)")")
pool=/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
systemctl set-property user.slice AllowedCPUs=0-6
systemctl set-property --runtime init.scope AllowedCPUs=0-5
echo 3 >"/proc/irq/$irq/smp_affinity_list"
echo 7 >"$pool"
snapshot "$before"

start pinned-a
expect "user.slice" "$(</sys/fs/cgroup/user.slice/cpuset.cpus.effective)" 0-1,4-6
expect "init.scope" "$(</sys/fs/cgroup/init.scope/cpuset.cpus.effective)" 0-1,4-5
expect "pinned interrupt" "$(<"/proc/irq/$irq/smp_affinity_list")" 0-1,4-7
expect "pages, the seven used first" "$(pages 0)/$(free_pages 0)" 32/0
destroy pinned-a
same_as "$before"

# A reload in the middle takes a persistent setting's isolation away; it comes back as it was all the same.
start pinned-a
systemctl daemon-reload
destroy pinned-a
same_as "$before"

# The admin changes three knobs while the guest runs: they stay as he left them, and it is said.
start pinned-a
systemctl set-property --runtime system.slice AllowedCPUs=0-4
echo 5 >"/proc/irq/$irq/smp_affinity_list"
echo 40 >"$pool"
# The keeper may have seen it first: then it counts as his from now on, and the log says so.
vfio-hook status | grep -q 'AllowedCPUs of system.slice .*changed from outside: now 0-4' ||
    said 'AllowedCPUs of system.slice was changed from outside'
destroy pinned-a
expect "system.slice" "$(systemctl show -P AllowedCPUs system.slice)" 0-4
expect "interrupt" "$(<"/proc/irq/$irq/smp_affinity_list")" 5
expect "pages" "$(pages 0)" 15
log=$(journalctl -q -t vfio-hook -o cat --since -1min)
[[ $log == *'AllowedCPUs of system.slice was changed from outside'* ]] || fail "nothing was said: $log"
expect "lease" "$(vfio-hook status)" "no guest holds anything"

# The kernel lets no group with tasks go back to an empty list: what is merely taken away would go on to act.
systemctl set-property --runtime system.slice AllowedCPUs=0-7
systemctl set-property --runtime system.slice AllowedCPUs=
rm -rf /run/systemd/system.control/system.slice.d
echo 3 >"/proc/irq/$irq/smp_affinity_list"
echo 7 >"$pool"
same_as "$before"

# And the host as it was before this case.
systemctl set-property user.slice AllowedCPUs=
systemctl set-property --runtime init.scope AllowedCPUs=
rm -rf /etc/systemd/system.control /run/systemd/system.control
systemctl daemon-reload
echo 0-3 >"/proc/irq/$irq/smp_affinity_list"

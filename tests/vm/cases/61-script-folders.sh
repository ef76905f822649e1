#!/usr/bin/env bash
# Three folders of scripts as people write them, each beside the guests' files for the same. While the guest runs the
# host's values are alike with both, but where the scripts are wrong; after it only vfio-hook leaves the host as it was.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

folders=$(dirname "$0")/../script-folders
hooks=/etc/libvirt/hooks
thp=/sys/kernel/mm/transparent_hugepage
before=$(mktemp)
trap 'rm -rf $hooks/qemu.d /run/systemd/system/libvirt-nosleep@.service /usr/local/bin/looking-glass-client \
        /dev/shm/looking-glass
    echo 1 >/proc/sys/vm/stat_interval
    echo "$thp_of_boot" >$thp/enabled
    echo "$defrag_of_boot" >$thp/defrag
    systemctl daemon-reload' EXIT

# The word that a file of choices has in brackets.
chosen() { sed 's/.*\[\(.*\)\].*/\1/' "$1"; }
thp_of_boot=$(chosen $thp/enabled) defrag_of_boot=$(chosen $thp/defrag)

use_scripts() {
    rm -rf $hooks/qemu /etc/vfio-hook/hooks.d/*
    cp -r "$folders/qemu" "$folders/$1/qemu.d" $hooks
    systemctl reload libvirtd
}
use_vfio_hook() {
    rm -rf $hooks/qemu $hooks/qemu.d
    ln -s /usr/bin/vfio-hook $hooks/qemu
    install -m 644 -t /etc/vfio-hook/hooks.d "$folders/$1"/*.yaml
    systemctl reload libvirtd
}
# alike VALUES: what this prints is what it printed with the scripts, now or within 20 s: what is done at `started` takes
# its time.
alike() {
    local deadline=$((SECONDS + 20)) difference
    until difference=$(diff -U0 "$before.$1" <("$1")); do
        ((SECONDS < deadline)) || fail "with the scripts (-) and with vfio-hook (+):"$'\n'"$difference"
        sleep 0.3
    done
}
# becomes WHAT WANTED COMMAND...: within 20 s.
becomes() {
    local deadline=$((SECONDS + 20)) is
    until is=$("${@:3}" || true) && [[ $is == "$2" ]]; do
        ((SECONDS < deadline)) || fail "$1: '$is' instead of '$2'"
        sleep 0.3
    done
}

# Two guests with CPUs and pages of their own.
allowed() { systemctl show -P AllowedCPUs "${1-user.slice}"; }
cpus() {
    local unit
    for unit in user.slice system.slice init.scope; do
        echo "AllowedCPUs of $unit: $(allowed "$unit"), $(<"/sys/fs/cgroup/$unit/cpuset.cpus.effective")"
    done
    echo "CPUs of unbound workqueues: $(</sys/devices/virtual/workqueue/cpumask)"
    echo "pages: $(pages 0)/$(free_pages 0) $(pages 1)/$(free_pages 1)"
}
snapshot "$before"
use_scripts two-guests
start pinned-a
cpus >"$before.cpus"
[[ $(movable_interrupts_on 2 3) ]] || fail "the scripts moved interrupts"
# Each guest's scripts know nothing of the other guest.
start pinned-b
expect "CPUs of the host beside both guests, with scripts" "$(allowed)" 0-3
destroy pinned-b
expect "CPUs of the host beside pinned-a, with scripts" "$(allowed)" 0-7
destroy pinned-a
for unit in user.slice system.slice init.scope; do
    expect "what scripts leave of AllowedCPUs of $unit" "$(allowed "$unit")" 0-7
    systemctl set-property --runtime "$unit" AllowedCPUs=
done
rm -rf /run/systemd/{system.control,transient/init.scope.d}
systemctl daemon-reload
same_as "$before"

use_vfio_hook two-guests
start pinned-a
alike cpus
expect "interrupts on CPUs 2-3" "$(movable_interrupts_on 2 3)" ""
start pinned-b
expect "CPUs of the host beside both guests" "$(allowed)" 0-1
expect "pages of both" "$(pages 0)/$(free_pages 0) $(pages 1)/$(free_pages 1)" "32/0 64/0"
destroy pinned-b
alike cpus
destroy pinned-a
same_as "$before"
expect "what vfio-hook leaves" "$(find /run/systemd/{system.control,transient} -name '*AllowedCPUs.conf' 2>/dev/null || true)" ""
echo "figure: alike with two guests: AllowedCPUs, effective CPUs, workqueues, pages"
wait_no_keepers

# A laptop: governor, values of memory management, no sleep. Its own are not those that the scripts take for granted.
speeds() {
    cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor
    echo "vm.stat_interval: $(</proc/sys/vm/stat_interval)"
    echo "pages: $(chosen $thp/enabled) $(chosen $thp/defrag)"
    echo "locks: $(systemd-inhibit --list --no-legend | grep -c ' sleep .* block' || true)"
}
load_clocks
echo 10 >/proc/sys/vm/stat_interval
echo madvise >$thp/enabled
echo defer >$thp/defrag
install -m 644 -t /run/systemd/system "$folders/laptop/libvirt-nosleep@.service"
systemctl daemon-reload
snapshot "$before"
speeds >"$before.own"
use_scripts laptop
start plain
becomes "locks" "locks: 1" eval 'speeds | tail -n 1'
speeds >"$before.speeds"
expect "values" "$(sort -u "$before.speeds" | paste -sd,)" \
    "locks: 1,pages: never never,performance,vm.stat_interval: 120"
destroy plain
expect "what scripts leave" "$(speeds | sort -u | paste -sd,)" \
    "locks: 0,ondemand,pages: always always,vm.stat_interval: 1"
echo schedutil | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor >/dev/null
echo 10 >/proc/sys/vm/stat_interval
echo madvise >$thp/enabled
echo defer >$thp/defrag
same_as "$before"

use_vfio_hook laptop
start plain
alike speeds
destroy plain
expect "values" "$(speeds)" "$(<"$before.own")"
same_as "$before"
echo "figure: alike on a laptop: governors of 8 CPUs, vm.stat_interval, transparent huge pages and defrag, the sleep lock"
wait_no_keepers
unload_clocks

# Looking Glass, beside another guest. Under emulation libvirt names no threads of vCPUs: only QEMU's first one is compared.
first_thread() { ps -o nice= -p "$(</run/libvirt/qemu/"$1".pid)" | tr -d ' '; }
client() { pgrep -f '^looking-glass-client'; }
glass() {
    local client
    echo "nice of QEMU: $(first_thread looking-glass)"
    echo "shared memory: $(stat -c '%s %U %G %a' /dev/shm/looking-glass)"
    client=$(client) || return
    echo "client: $(ps -o user= -p "$client") $(tr '\0' '\n' <"/proc/$client/environ" | grep '^LG_')"
}
install -m 755 -t /usr/local/bin "$folders/looking-glass/looking-glass-client"
virsh -q define "$folders/looking-glass/guest.xml"
rm -f /etc/vfio-hook/hooks.d/*
start plain
snapshot "$before"
use_scripts looking-glass
start looking-glass
becomes "the client" 1 pgrep -cf '^looking-glass-client'
glass >"$before.glass"
expect "values" "$(paste -sd, "$before.glass")" \
    "nice of QEMU: -10,shared memory: 4194304 player kvm 660,client: player LG_WIDTH=800"
# They take each QEMU for theirs.
expect "nice of the other guest's QEMU, with scripts" "$(first_thread plain)" -10
destroy looking-glass
[[ ! -e /dev/shm/looking-glass ]] || fail "the scripts leave the shared memory"
for task in "/proc/$(</run/libvirt/qemu/plain.pid)"/task/*; do
    renice -n 0 -p "${task##*/}"
done
becomes "clients" 0 pgrep -cf '^looking-glass-client'
same_as "$before"

use_vfio_hook looking-glass
start looking-glass
alike glass
expect "nice of the other guest's QEMU" "$(first_thread plain)" 0
destroy looking-glass
wait_no_keepers_for 20
[[ ! -e /dev/shm/looking-glass ]] || fail "the shared memory stays"
expect "clients" "$(client || true)" ""
same_as "$before"
echo "figure: alike with Looking Glass: QEMU's nice value, the shared memory, the client's user and environment"
destroy plain
virsh -q undefine looking-glass

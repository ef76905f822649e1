#!/usr/bin/env bash
# The machine has what the other cases rely on.
# releases: trixie bookworm
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

# Linux 6.1 sees no siblings here.
case $(. /etc/os-release && echo "$VERSION_CODENAME") in
    trixie) systemd=257 libvirt=11 siblings="0-1 2-3 4-5 6-7" ;;
    bookworm) systemd=252 libvirt=9 siblings="0 1 2 3 4 5 6 7" ;;
esac

cpu=/sys/devices/system/cpu
expect "CPUs" "$(<$cpu/online)" 0-7
expect "nodes" "$(cat /sys/devices/system/node/node*/cpulist | paste -sd' ')" "0-3 4-7"
expect "siblings" "$(cat $cpu/cpu*/topology/thread_siblings_list | sort -u | paste -sd' ')" \
    "$siblings"

expect "init" "$(</proc/1/comm)" systemd
expect "systemd" "$(systemctl --version | awk 'NR == 1 { print $2 }')" "$systemd"
expect "cgroups" "$(stat -f -c %T /sys/fs/cgroup)" cgroup2fs
expect "units" "$(systemctl is-active libvirtd systemd-machined irqbalance | paste -sd' ')" \
    "active active inactive"
expect "failed units" "$(systemctl --failed --plain --no-legend)" ""
[[ $(virsh version) == *"Using library: libvirt $libvirt."* ]] || fail "libvirt: $(virsh version)"
grep -q '^libvirtd (enforce)$' /sys/kernel/security/apparmor/profiles || fail "no AppArmor profile"
expect "libvirtd's profile" "$(cat "/proc/$(systemctl show -P MainPID libvirtd)/attr/current")" \
    "libvirtd (enforce)"

expect "pages" "$(cd /sys/kernel/mm/hugepages && echo *)" "hugepages-1048576kB hugepages-2048kB"
expect "pages in use" "$(cat /sys/kernel/mm/hugepages/*/nr_hugepages | paste -sd' ')" "0 0"
mountpoint -q /dev/hugepages || fail "/dev/hugepages is not mounted"

# A card with two functions behind a switch, a display with a host driver, a network card.
ids() { echo "$(<"/sys/bus/pci/devices/$1/vendor"):$(<"/sys/bus/pci/devices/$1/device")"; }
group() { (cd "/sys/bus/pci/devices/$1/iommu_group/devices" && echo *); }
driver() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")"; }
expect "card" "$(ids 0000:03:00.0)" 0x1002:0x5046
expect "card's group" "$(group 0000:03:00.0)" "0000:02:00.0 0000:03:00.0 0000:03:00.1"
expect "card's sound" "$(driver 0000:03:00.1)" snd_hda_intel
expect "display's group" "$(group 0000:04:00.0)" 0000:04:00.0
expect "display" "$(driver 0000:04:00.0)" bochs-drm
expect "network card's group" "$(group 0000:05:00.0)" 0000:05:00.0
expect "network card" "$(driver 0000:05:00.0)" e1000e
expect "card with virtual functions" "$(ids 0000:06:00.0)" 0x8086:0x10c9
[[ ! -e /sys/bus/pci/devices/0000:06:00.0/driver ]] || fail "0000:06:00.0 has a driver"
compgen -G '/dev/dri/card*' >/dev/null || fail "no /dev/dri/card*"

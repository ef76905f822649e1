#!/usr/bin/env bash
# What the machine said from the moment it was switched off. Whether the hook is still called depends on libvirtd, which
# may be killed before.
set -euo pipefail

log=$(sed '1,/vfio-hook test: power off/d' "$1")
[[ $log ]] || { echo "it was not switched off"; exit 1; }
! grep 'initializing kernel modesetting' <<<"$log" || { echo "the host's driver was given the card"; exit 1; }
grep -q 'reboot: Power down' <<<"$log" || { echo "no end: $(tail -20 <<<"$log")"; exit 1; }

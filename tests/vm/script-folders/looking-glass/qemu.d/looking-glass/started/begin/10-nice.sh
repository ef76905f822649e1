#!/usr/bin/env bash
for pid in $(pidof qemu-system-x86_64); do
    for task in /proc/"$pid"/task/*; do
        renice -n -10 -p "${task##*/}" >/dev/null
    done
done

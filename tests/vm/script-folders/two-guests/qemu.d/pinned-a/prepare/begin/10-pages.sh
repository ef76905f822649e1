#!/usr/bin/env bash
# Pages of the guest, on its node.
pages=32
nr=/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages

echo "$pages" >"$nr"
for _ in {1..20}; do
    [[ $(<"$nr") -lt $pages ]] || exit 0
    echo 1 >/proc/sys/vm/compact_memory
    echo "$pages" >"$nr"
done
echo "not enough memory for $pages pages" >&2
echo 0 >"$nr"
exit 1

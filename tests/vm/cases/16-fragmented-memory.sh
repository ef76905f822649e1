#!/usr/bin/env bash
# Memory fragmented on purpose: more than a plain write gets, or a refusal in time with all given back.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
pool=/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages
shreds=/mnt/shreds
configure pinned-b <<<$'hugepages:\n  timeout: 10s\n  keep_free: 256MiB'

# All of node 1 but so many pages of 2 MiB is held in huge pages; the rest is filled with small files of which every second goes.
shred() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
    echo 1 >/sys/devices/system/node/node1/compact
    echo 100000 >"$pool"
    echo "$(($(<"$pool") - $1))" >"$pool"
    fallocate -l "$(($(free_pages 1) * 2))M" /dev/hugepages/filler
    mkdir -p "$shreds"
    mount -t tmpfs -o mpol=prefer:1,size=100%,nr_inodes=0 shreds "$shreds"
    perl -e '
        chdir shift;
        my $page = "x" x 4096;
        sub free {
            open my $info, "<", "/sys/devices/system/node/node1/meminfo";
            my ($free) = map { /MemFree:\s+(\d+)/ ? $1 : () } <$info>;
            return $free;
        }
        # No more than fit: from where the kernel begins to hold back, it takes from the other node.
        my ($count, $most) = (0, free() / 4);
        while ($count < $most) {
            open my $file, ">", "$count" or last;
            (syswrite($file, $page) // 0) == 4096 or last;
            last if ++$count % 1000 == 0 && free() < 48 * 1024;
        }
        for (my $i = 0; $i < $count; $i += 2) { unlink $i }
        print "$count files, every second removed\n";
    ' "$shreds"
}

unshred() {
    umount "$shreds"
    rm -f /dev/hugepages/filler
    echo 0 >"$pool"
}

# QEMU itself has to fit beside its 64 pages, or the kernel kills whom it finds.
shred 240
held=$(pages 1)
snapshot "$before"

# A plain write first.
echo "$((held + 64))" >"$pool"
plain=$(($(pages 1) - held))
echo "$held" >"$pool"
echo "figure: a plain write got $plain of 64 pages"

if message=$(start pinned-b 2>&1); then
    expect "pages" "$(pages 1)/$(free_pages 1)" "$((held + 64))/0"
    echo "figure: the hook got all 64: $(journalctl -q -t vfio-hook -o cat --since -2min | grep -m1 'huge pages of' || echo 'in one round')"
    destroy pinned-b
else
    echo "figure: the hook refused: $message"
    grep -q 'wanted 64 huge pages' <<<"$message" || fail "$message"
    ((plain < 64)) || fail "a plain write would have done"
fi
same_as "$before"
unshred

# No room at all: refused within the time, with the figures.
shred 20
snapshot "$before"
began=$SECONDS
message=$(start pinned-b 2>&1) && fail "pinned-b was started"
((SECONDS - began < 30)) || fail "the refusal took $((SECONDS - began)) s"
echo "figure: refused after $((SECONDS - began)) s: $(tail -n 2 <<<"$message" | head -c 300 | tr '\n' ' ')"
grep -q 'wanted 64 huge pages of 2 MiB (128 MiB) on node 1, got' <<<"$message" || fail "$message"
same_as "$before"
unshred

#!/usr/bin/env bash
# Two guests with CPUs of their own, started at once and stopped in both orders; one of them failing.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
for guest in pinned-a pinned-b broken-start; do
    configure "$guest" <<<$'isolate_cpus: {}\nhugepages: {}'
done
snapshot "$before"

slices() { cat /sys/fs/cgroup/{init.scope,system.slice,user.slice}/cpuset.cpus.effective | sort -u; }

for order in "pinned-a pinned-b" "pinned-b pinned-a"; do
    read -r first second <<<"$order"
    start pinned-a &
    start pinned-b
    wait $!
    expect "CPUs of the host" "$(slices)" 0-1
    expect "interrupts on CPUs 2-7" "$(movable_interrupts_on 2 3 4 5 6 7)" ""
    expect "pages" "$(pages 0) $(pages 1)" "32 64"
    destroy "$first"
    [[ $second == pinned-a ]] && rest=0-1,4-7 pages="32 0" || rest=0-3 pages="0 64"
    expect "CPUs of the host without $first" "$(slices)" "$rest"
    expect "pages without $first" "$(pages 0) $(pages 1)" "$pages"
    destroy "$second"
    same_as "$before"
done

# One fails while the other starts.
start pinned-b &
! start broken-start || fail "broken-start was started"
wait $!
expect "CPUs of the host" "$(slices)" 0-3
destroy pinned-b
same_as "$before"

# One that wants what the other has is refused, and says whose it is.
sed 's/pinned-a/rival/; s/00000000000a</0000000000ff</' "$(dirname "$0")/../guests/pinned-a.xml" >/tmp/rival.xml
virsh -q define /tmp/rival.xml
configure rival <<<$'isolate_cpus: {}'
start pinned-a
refused rival 'CPU 2-3 already belongs to guest pinned-a' 'help: '
destroy pinned-a
same_as "$before"

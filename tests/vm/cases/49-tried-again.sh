#!/usr/bin/env bash
# What the host refuses while a lease is given back is tried again by the guest's keeper, without a person and without an
# event; and calls come in odd circumstances.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
guest_xml pinned-a >/tmp/xml
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}\nblock_sleep: {}'

call() {
    hook pinned-a "$@" </tmp/xml >/tmp/out 2>/tmp/said || fail "$1 failed: $(cat /tmp/said)"
    [[ ! -s /tmp/out ]] || fail "$1 wrote to standard output: $(cat /tmp/out)"
}

# hold_systemd SECONDS: process 1 takes no signal that stops it, so that it is traced (PTRACE_SEIZE, PTRACE_INTERRUPT).
cat >/tmp/hold.pl <<'PERL'
my $time = shift;
syscall(101, 0x4206, 1, 0, 0) == 0 or die "seize: $!";
syscall(101, 0x4207, 1, 0, 0) == 0 or die "interrupt: $!";
my $status = pack("i", 0);
syscall(61, 1, $status, 0x40000000, 0);
$| = 1;
print "held\n";
sleep $time;
syscall(101, 17, 1, 0, 0);
PERL

# systemd hangs while the lease is given back.
call prepare begin -
call started begin -
mkfifo /tmp/held
perl /tmp/hold.pl 60 >/tmp/held &
holder=$!
read -r _ </tmp/held
call stopped end -
call release end destroyed
deadline=$((SECONDS + 55))
until vfio-hook status | grep -q 'not all given back'; do
    ((SECONDS < deadline)) || fail "$(vfio-hook status)"
    sleep 1
done
kill "$holder"
wait
wait_no_keepers_for 90
same_as "$before" 5
[[ ! -e /run/vfio-hook/ledger.json ]] || fail "$(vfio-hook status)"

# A unit that is gone with its stop: said once, and settled.
systemd-run --unit=aside sleep infinity
configure pinned-a <<<'services: {stop: [aside.service]}'
call prepare begin -
call release end destroyed
wait_no_keepers_for 30
[[ ! -e /run/vfio-hook/ledger.json ]] || fail "$(vfio-hook status)"
journalctl -t vfio-hook | grep -q 'aside.service is gone, nothing to give back' || fail "the log says nothing of it"

# SIGCHLD is ignored by the caller: children cannot be waited for.
configure pinned-a <<<$'isolate_cpus: {}\nhugepages: {}'
for arguments in "prepare begin -" "started begin -" "stopped end -" "release end destroyed"; do
    began=$SECONDS
    # shellcheck disable=SC2016,SC2086
    (cd / && exec env -i perl -e '$SIG{CHLD} = "IGNORE"; exec @ARGV' /etc/libvirt/hooks/qemu pinned-a $arguments) \
        </tmp/xml >/tmp/out 2>/tmp/said || fail "$arguments: $(cat /tmp/said)"
    ((SECONDS - began <= 6)) || fail "$arguments took $((SECONDS - began)) s"
done
wait_no_keepers_for 30
same_as "$before" 5

# Without a bus there is no logind: a warning, no refusal.
configure pinned-a <<<'block_sleep: {}'
systemctl stop dbus.socket dbus.service
call prepare begin -
call release end destroyed
systemctl start dbus.socket dbus.service
# They do not come back to a bus by themselves.
systemctl try-restart systemd-logind systemd-machined
vfio-hook undo --stale
wait_no_keepers_for 30
same_as "$before" 5

# Commands share the time of `prepare`; what they may fail at is theirs.
configure pinned-a <<'YAML'
run:
  - {when: prepare, timeout: 50s, command: [/bin/sleep, "300"], on_failure: warn}
  - {when: prepare, timeout: 50s, command: [/bin/sleep, "300"], on_failure: warn}
YAML
began=$SECONDS
call prepare begin -
((SECONDS - began < 60)) || fail "prepare took $((SECONDS - began)) s"
call release end destroyed
wait_no_keepers_for 30
same_as "$before" 5

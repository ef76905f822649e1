# Functions for the cases; each case sources this file, inside the virtual machine.
# What a case prints is shown only when it fails, so it may print freely.
# shellcheck shell=bash

set -Eeuo pipefail
shopt -s inherit_errexit
trap 'echo "$0:$LINENO: failed: $BASH_COMMAND" >&2' ERR

fail() {
    echo "$0:${BASH_LINENO[-2]}: $*" >&2
    exit 1
}

# expect WHAT ACTUAL WANTED
expect() {
    [[ $2 == "$3" ]] || fail "$1: '$2' instead of '$3'"
}

# Test monitors: N is 0, 1, ..., or smbus for the adapter that nobody must touch. The README tells the knobs.
test_monitors=/sys/kernel/debug/vh_ddc

# load_monitors COUNT [PARAMETER...]
load_monitors() {
    modprobe i2c-dev
    insert_module vh_ddc "monitors=$1" "${@:2}"
}

# Somebody who holds a bus keeps the module loaded.
unload_monitors() {
    local hang
    for hang in "$test_monitors"/*/hang; do
        echo 0 >"$hang"
    done
    remove_module vh_ddc
}

# monitor_knob N NAME [VALUE]: read, or set
monitor_knob() {
    if (($# > 2)); then
        echo "$3" >"$test_monitors/$1/$2"
    else
        cat "$test_monitors/$1/$2"
    fi
}

# The number in /dev/i2c-*.
monitor_bus() { monitor_knob "$1" bus; }

# Each message: begin and end in microseconds of the monotonic clock; w or r; address; ok, nak or eio; bytes.
monitor_log() { cat "$test_monitors/$1/log"; }

forget_monitor_log() { echo >"$test_monitors/$1/log"; }

# wait_monitor N NAME VALUE: within 12 s.
wait_monitor() {
    local deadline=$((SECONDS + 12))
    until [[ $(monitor_knob "$1" "$2") == "$3" ]]; do
        ((SECONDS < deadline)) || fail "monitor $1: $2 is $(monitor_knob "$1" "$2") instead of $3; $(vfio-hook status)"
        sleep 0.2
    done
}

# What was said with the monitor (get, set, save; reply; failure: a message that it did not take or answer), and the
# microseconds until the next message, whoever made it, one each a line.
ddc_gaps() {
    monitor_log "$1" | perl -ne '
        die "the log is not whole: $_" if /^lost/;
        my ($begin, $end, $direction, $address, $result, @bytes) = split;
        next if $address ne "37";
        print "$what ", $begin - $since, "\n" if $what;
        $since = $end;
        $what = $result ne "ok" ? "failure" : $direction eq "r" ? "reply"
            : {qw(01 get f3 get 03 set 0c save)}->{$bytes[2] // ""};'
}

# assert_ddc_delays N [WHAT...]: as much time as DDC/CI asks for; after these only, if there are any.
assert_ddc_delays() {
    local short
    short=$(ddc_gaps "$1" | awk -v judged=" ${*:2} " '
        BEGIN {
            needs["get"] = 40000; needs["set"] = 50000; needs["save"] = 200000
            needs["reply"] = 50000; needs["failure"] = 50000
        }
        judged !~ /[a-z]/ || index(judged, " " $1 " ") {
            if ($2 < needs[$1]) print "only " $2 " us after a " $1
        }')
    [[ ! $short ]] || fail "monitor $1: $short"
}

# The test card behind its switch: the functions, and the port that they are below. The README tells of its driver and
# of its faults.
test_card=(0000:03:00.0 0000:03:00.1)
test_port=0000:02:00.0
test_gpu=/sys/module/vh_gpu/parameters
test_faults=/sys/kernel/debug/vh_fault

# The card's host driver.
load_gpu() { load_gpu_with ids=; }

# load_gpu_with PARAMETER...
load_gpu_with() {
    modprobe drm
    insert_module vh_gpu "$@"
}

# What the first guest changes for good is changed: an interrupt that the sound function gets, the VGA console that goes
# when vfio-pci takes the card. With the hook: libvirt leaves a card with vfio-pci that the hook once gave it there.
warm_up_gpu() {
    configure gpu <<<'gpu: {guest_reboot: allow}'
    start gpu
    destroy gpu
    wait_no_keepers
    rm /etc/vfio-hook/hooks.d/gpu.yaml
}

# Nobody waits in the driver any more, or holds something of the card.
free_gpu() {
    gpu_knob probe_hang 0
    gpu_knob remove_hang 0
    let_go
}

unload_gpu() {
    free_gpu
    remove_module vh_gpu
}

# gpu_knob NAME [VALUE]: read, or set
gpu_knob() {
    if (($# > 1)); then
        echo "$2" >"$test_gpu/$1"
    else
        cat "$test_gpu/$1"
    fi
}

# load_faults [powered]: with power management, the card's functions are as real ones are; they are found anew for it.
load_faults() {
    local function
    insert_module vh_fault
    [[ ${1-} == powered ]] || return 0
    remove_card
    for function in "${test_card[@]}"; do
        echo "$function" >$test_faults/powered
    done
    find_card
}

# The card is found anew, for a reset under a fault may have taken its registers away.
unload_faults() {
    heal all
    remove_card
    remove_module vh_fault
    find_card
}

remove_card() {
    local function
    for function in "${test_card[@]}"; do
        [[ ! -e /sys/bus/pci/devices/$function ]] || echo 1 >"/sys/bus/pci/devices/$function/remove"
    done
}

find_card() {
    echo 1 >/sys/bus/pci/devices/$test_port/rescan
    udevadm settle
}

# wedge [below] ADDRESS [MILLISECONDS]: reads all ones from now on, for so long or for good.
wedge() { echo "$*" >$test_faults/dead; }

# wedge_at_reset [below] ADDRESS [MILLISECONDS]: the same from the next reset of its bus on.
wedge_at_reset() { echo "$*" >$test_faults/dies_at_reset; }

# heal all, or heal [below] ADDRESS: of all faults.
heal() { echo "$*" >$test_faults/heal; }

# watch_config ADDRESS...: from now on what is written to their configuration space is logged: microseconds of the
# monotonic clock; address; register; value; ok, or lost on a wedged one; the writer's name.
watch_config() {
    local function
    for function in "$@"; do
        echo "$function" >$test_faults/watch
    done
}
config_log() { cat $test_faults/log; }
forget_config_log() { echo >$test_faults/log; }

# bus_resets PORT: how often the log has that port reset the bus below it (bit 6 of its bridge control, register 3eh).
bus_resets() {
    local address register value resets=0
    while read -r _ address register value _; do
        if [[ $address == "$1" && $register == 3e ]] && ((16#$value & 0x40)); then
            resets=$((resets + 1))
        fi
    done < <(config_log)
    echo "$resets"
}

# driver_of ADDRESS: nothing if it has none.
driver_of() {
    local driver=/sys/bus/pci/devices/$1/driver
    [[ ! -e $driver ]] || basename "$(readlink "$driver")"
}

# hold FILE: a process that has it open; prints its id.
hold() { hold_as open "$1"; }

# hold_mapped FILE: a process that has its first page mapped, but not open.
hold_mapped() { hold_as mapped "$1"; }

hold_as() {
    perl -e '
        my ($how, $path) = @ARGV;
        open my $file, "+<", $path or die "$path: $!\n";
        if ($how eq "mapped") {
            # mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0)
            syscall(9, 0, 4096, 1, 1, fileno $file, 0) != -1 or die "$path: $!\n";
        }
        defined(my $child = fork) or die "fork: $!\n";
        if ($child) {
            print "$child\n";
            exit;
        }
        close $file if $how eq "mapped";
        open STDOUT, ">", "/dev/null";
        open STDERR, ">", "/dev/null";
        $0 = "vh-holder";
        sleep;' "$1" "$2" </dev/null
}

# let_go: all that hold something.
let_go() {
    local deadline=$((SECONDS + 10))
    while pkill -KILL -x vh-holder; do
        ((SECONDS < deadline)) || fail "still there: $(pgrep -ax vh-holder)"
        sleep 0.1
    done
}

# load_clocks, unload_clocks: CPUs with governors and the switch for boost; the machine has none of its own.
load_clocks() { insert_module vh_clock; }
unload_clocks() { remove_module vh_clock; }

# insert_module NAME [PARAMETER...]
insert_module() {
    insmod "$(dirname "${BASH_SOURCE[0]}")/modules/$1.ko" "${@:2}"
    udevadm settle
}

# remove_module NAME: somebody who just ended may need a moment to let go of it.
remove_module() {
    local deadline=$((SECONDS + 10))
    until rmmod "$1" 2>/dev/null; do
        ((SECONDS < deadline)) || fail "$(rmmod "$1" 2>&1 || true)"
        sleep 0.2
    done
}

# mark_kernel_log: from here on kernel_said looks.
mark_kernel_log() {
    kernel_mark="mark $BASHPID $EPOCHREALTIME"
    echo "$kernel_mark" >/dev/kmsg
}

kernel_log() { dmesg --notime | sed "1,/$kernel_mark/d"; }

# kernel_said PATTERN
kernel_said() {
    kernel_log | grep -e "$1" >/dev/null || fail "not in the kernel's log: $1"$'\n'"$(kernel_log)"
}

# Every knob of this host that can be read, one a line: what must be the same after a guest as before.
# An absent cpuset.cpus, an empty one and one with all CPUs are alike: systemd creates and removes the file as it goes,
# and the kernel lets no group with tasks go back to an empty one.
# An interrupt that may be served everywhere is like an absent one: the first guest with a device has the kernel show
# such ones, and a driver asks for its interrupt some time after it was bound.
# Of the consoles those on frame buffers: the VGA console goes for good when vfio-pci first gets the card.
# Effective affinities and free pages are not knobs.
knobs() {
    local cpu=/sys/devices/system/cpu/cpu node=/sys/devices/system/node/node online
    grep -Hs . \
        /proc/irq/default_smp_affinity /proc/irq/*/smp_affinity_list \
        /sys/devices/virtual/workqueue/cpumask /sys/devices/virtual/workqueue/*/cpumask \
        "$cpu"*/cpufreq/{scaling_governor,scaling_{min,max}_freq,energy_performance_preference} \
        "$cpu"*/power/pm_qos_resume_latency_us \
        /proc/sys/vm/nr_hugepages "$node"*/hugepages/*/{nr,surplus}_hugepages \
        /sys/kernel/mm/hugepages/*/{nr,surplus,nr_overcommit}_hugepages \
        "$test_monitors"/[0-9]/{input,power,brightness,contrast} \
        /sys/bus/pci/devices/*/{driver_override,power/control,d3cold_allowed,reset_method} \
        /sys/fs/cgroup/*/cpuset.cpus |
        grep -v "cpuset.cpus:$(</sys/devices/system/cpu/online)\$" |
        grep -vx "/proc/irq/[0-9]*/smp_affinity_list:$(</sys/devices/system/cpu/online)" || true

    grep -ls 'frame buffer' /sys/class/vtconsole/*/name | while read -r name; do
        grep -H . "${name%/name}/bind"
    done || true
    find /sys/bus/pci/devices/*/ -maxdepth 1 -name driver -printf '%p:%l\n'

    # Without the cpuset controller, which comes and goes with pinned guests, a slice runs everywhere.
    online=$(</sys/devices/system/cpu/online)
    systemctl show -p Id -p AllowedCPUs -p EffectiveCPUs \
        init.scope system.slice user.slice machine.slice |
        awk -v RS= '{ $1 = $1; print }' | sed -E "s/EffectiveCPUs=( |\$)/EffectiveCPUs=$online\1/"
    find /run/systemd/system.control /etc/systemd/system.control -type f \
        -exec grep -H '' {} + 2>/dev/null || true

    # Runtime settings of irqbalance: asked for over its socket, there is no file.
    perl -MIO::Socket::UNIX -e '
        for my $path (glob "/run/irqbalance/*.sock") {
            my $socket = IO::Socket::UNIX->new(Peer => $path) or next;
            syswrite $socket, "setup";
            sysread $socket, my $answer, 65536;
            print "irqbalance:$answer\n";
        }'

    # Masks, and what logind was told.
    find /run/systemd/system -maxdepth 1 -lname /dev/null 2>/dev/null || true
    find /run/systemd/logind.conf.d -type f 2>/dev/null || true

    # How often a guest was started again is forgotten after five minutes.
    find /run/vfio-hook ! -type d ! -name '*lock*' ! -name '*.restarts' 2>/dev/null || true
}

# snapshot FILE
snapshot() {
    knobs >"$1"
}

# same_as FILE [SECONDS]: the knobs are as they were at the snapshot, now or within SECONDS.
same_as() {
    local deadline=$((SECONDS + ${2:-3})) difference
    until difference=$(diff -U0 "$1" <(knobs)); do
        ((SECONDS < deadline)) || fail "the host is not as it was:"$'\n'"$difference"
    done
}

start() {
    virsh -q start "$1"
}

# drm_node FUNCTION card|renderD: the device node that a function's driver has made.
drm_node() {
    local node
    node=$(cd "/sys/bus/pci/devices/$1/drm" && echo "$2"*)
    [[ -c /dev/dri/$node ]] || fail "$1 has no $2: $node"
    echo "/dev/dri/$node"
}

# bind_card DRIVER: by hand: the functions of the card go to this driver; with none, to those that know them.
bind_card() {
    local function
    for function in "${test_card[@]}"; do
        echo "$1" >"/sys/bus/pci/devices/$function/driver_override"
        echo "$function" >"/sys/bus/pci/devices/$function/driver/unbind"
        echo "$function" >/sys/bus/pci/drivers_probe
    done
}

# refused GUEST WORD...: it is not started, and the message has all the words.
refused() {
    local said word
    said=$(start "$1" 2>&1) && fail "$1 was started"
    for word in "${@:2}"; do
        [[ $said == *"$word"* ]] || fail "no '$word' in: $said"
    done
}

destroy() {
    virsh -q destroy "$1"
}

# wait_for_monitor GUEST: until a libvirtd that was restarted has connected to this guest again. A `destroy` before that
# kills QEMU and then fails, because the guest does not run.
wait_for_monitor() {
    virsh -q qemu-monitor-command "$1" --hmp 'info status' >/dev/null
}

# wait_off GUEST SECONDS: libvirt answers only after the hook's last event.
wait_off() {
    local deadline=$((SECONDS + $2))
    until [[ $(virsh -q domstate "$1") == "shut off" ]]; do
        ((SECONDS < deadline)) || fail "$1 is still running after $2 s"
        sleep 0.5
    done
}

# hook GUEST OPERATION SUB-OPERATION EXTRA <XML: as libvirt calls it, without libvirt.
hook() {
    (cd / && env -i LC_ALL=C PATH="$PATH" /etc/libvirt/hooks/qemu "$@")
}

# A guest's XML, as a definition: for `hook` and for changed copies.
guest_xml() {
    cat "$(dirname "${BASH_SOURCE[0]}")/guests/$1.xml"
}

# The keepers are gone a moment after the lease is.
wait_no_keepers() { wait_no_keepers_for 10; }

# wait_no_keepers_for SECONDS
wait_no_keepers_for() {
    local deadline=$((SECONDS + $1)) left
    while left=$(pgrep -af '^vfio-hook keeper'); do
        ((SECONDS < deadline)) || fail "left running: $left"
        sleep 0.2
    done
}

# start_service_aside [LINE]: a service of the host's that runs; `host clean` takes it away.
start_service_aside() {
    printf '[Service]\nExecStart=sleep infinity\n%s\n' "${1-}" >/etc/systemd/system/aside.service
    systemctl daemon-reload
    systemctl start aside
}

# said PATTERN [SINCE]: the log has such a line.
said() {
    # Read to the end: whoever writes into a pipe that nobody reads any more fails.
    journalctl -q -t vfio-hook -o cat ${2:+--since "$2"} | grep -e "$1" >/dev/null || fail "not in the log: $1"
}

# wait_active UNIT: it is not waited for when it is started again, and what it does first takes its time.
wait_active() {
    local deadline=$((SECONDS + 10)) state
    until state=$(systemctl is-active "$1"); do
        ((SECONDS < deadline)) || fail "$1 is $state"
        sleep 0.1
    done
}

# configure GUEST < YAML
configure() {
    cat >"/etc/vfio-hook/hooks.d/$1.yaml"
}

# Huge pages of 2 MiB on a node: all of them, and those that nobody uses.
pages() { cat "/sys/devices/system/node/node$1/hugepages/hugepages-2048kB/nr_hugepages"; }
free_pages() { cat "/sys/devices/system/node/node$1/hugepages/hugepages-2048kB/free_hugepages"; }

# Interrupts that can be moved but may be served by one of these CPUs.
movable_interrupts_on() {
    perl -e '
        for my $file (glob "/proc/irq/*/smp_affinity_list") {
            next unless (stat $file)[2] & 0200;
            open my $in, "<", $file or next;
            chomp(my $list = <$in>);
            my %on = map { my ($a, $b) = split /-/; map { $_ => 1 } $a .. $b // $a } split /,/, $list;
            print "$file: $list\n" if grep { $on{$_} } @ARGV;
        }' "$@"
}

# Threads of programs, QEMU apart, that may run on one of these CPUs.
programs_on() {
    perl -e '
        for my $file (glob "/proc/[0-9]*/task/*/status") {
            open my $in, "<", $file or next;
            my %status = map { /^(\w+):\s*(.*)/ ? ($1, $2) : () } <$in>;
            next unless $status{VmSize};
            (my $group = $file) =~ s{task/.*}{cgroup};
            open my $cgroup, "<", $group or next;
            next if <$cgroup> =~ m{/machine\.slice/};
            my %on = map { my ($a, $b) = split /-/; map { $_ => 1 } $a .. $b // $a } split /,/, $status{Cpus_allowed_list};
            print "$status{Name} $file $status{Cpus_allowed_list}\n" if grep { $on{$_} } @ARGV;
        }' "$@"
}

# restore_interrupts: without irqbalance, which leaves interrupts where it put them; the next case finds them as after
# the boot.
restore_interrupts() {
    local irq saved
    systemctl stop irqbalance
    for irq in /proc/irq/[0-9]*; do
        saved=$(sed -n "s|^$irq/smp_affinity_list:||p" /root/pristine)
        echo "${saved:-$(</sys/devices/system/cpu/online)}" >"$irq/smp_affinity_list" 2>/dev/null || true
    done
}

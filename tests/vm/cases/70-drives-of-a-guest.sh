#!/usr/bin/env bash
# An NVMe drive that the host uses is handed over: refused, with who uses it; or taken down for the guest, whatever is upon
# it (ext4 on LVM in LUKS with a key file, a RAID array, swap), and brought back as it was, in each way in which a guest
# ends, and where the hook is killed at a write.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
drive=/dev/nvme0n1
key=/etc/vh-games.key
ln -sf /usr/bin/vfio-hook-failpoints /tmp/qemu

# define_with NAME OF ELEMENT: a guest like another one, with one device more.
define_with() {
    virsh -q dumpxml --inactive "$2" |
        sed -e "s|<name>.*</name>|<name>$1</name>|" -e '/<uuid>/d' -e '/<memoryBacking>/,/<.memoryBacking>/d' -e "s|</devices>|$3</devices>|" >/tmp/"$1".xml
    virsh -q define /tmp/"$1".xml
    virsh -q dumpxml "$1" >/tmp/"$1".xml
}

modprobe nvme
deadline=$((SECONDS + 30))
until [[ -b $drive ]]; do
    ((SECONDS < deadline)) || fail "no $drive: $(lspci -nn)"
    sleep 0.3
done
IFS=:. read -r domain bus slot function </sys/class/nvme/nvme0/address
address="<address domain='0x$domain' bus='0x$bus' slot='0x$slot' function='0x$function'/>"
hostdev="<hostdev mode='subsystem' type='pci' managed='yes'><source>$address</source></hostdev>"
define_with with-drive plain "$hostdev"
define_with with-drive-off poweroff "$hostdev"
define_with with-block plain "<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='$drive'/><target dev='vdb' bus='virtio'/></disk>"

clean_up() {
    set +e
    trap - ERR
    umount /games/more /games 2>/dev/null
    swapoff ${drive}p4 2>/dev/null
    vgchange -q -an vh-games 2>/dev/null
    systemctl stop systemd-cryptsetup@cr_games.service
    cryptsetup close cr_games 2>/dev/null
    mdadm --quiet --stop /dev/md/vh 2>/dev/null
    sed -i '/^cr_games /d' /etc/crypttab
    rm -rf /games $key
    # An array would be found again with the next partitions.
    dd if=/dev/zero of=$drive bs=4M count=64 status=none
    blockdev --rereadpt $drive
    for guest in with-drive with-drive-off with-block; do virsh -q undefine $guest; done
    systemctl daemon-reload
}
trap clean_up EXIT

# p1: LUKS, LVM in it, ext4 in that. p2 and p3: an array with ext4. p4: swap.
# A table of DOS: starts and lengths in sectors of 512 bytes.
perl -e '
    my $start = 2048;
    print "\0" x 446;
    for my $mib (100, 40, 40, 30) {
        print pack "C8 V2", 0, (0) x 3, 0x83, (0) x 3, $start, $mib * 2048;
        $start += $mib * 2048;
    }
    print "\x55\xaa";' >$drive
blockdev --rereadpt $drive
udevadm settle
head -c 64 /dev/urandom >$key
chmod 600 $key
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file $key ${drive}p1
touch /etc/crypttab
echo "cr_games UUID=$(blkid -s UUID -o value ${drive}p1) $key discard,nofail" >>/etc/crypttab
systemctl daemon-reload
systemctl start systemd-cryptsetup@cr_games.service
vgcreate -q vh-games /dev/mapper/cr_games
lvcreate -q -y -L 40M -n my-games vh-games
lvcreate -q -y -L 8M -n unused vh-games
mkfs.ext4 -q -L games /dev/vh-games/my-games
mdadm --quiet --create /dev/md/vh --level=1 --raid-devices=2 --metadata=1.2 --run ${drive}p2 ${drive}p3
mkfs.ext4 -q /dev/md/vh
mkswap -q ${drive}p4
udevadm settle
mkdir -p /games
mount -o noatime,nosuid,errors=remount-ro /dev/vh-games/my-games /games
mkdir -p /games/more
mount -o ro,nodev /dev/md/vh /games/more
swapon --priority 7 ${drive}p4
echo kept >/games/kept

# The mounts with their options, the volumes, the arrays, swap; the kernel may give a drive that comes back other numbers.
storage() {
    findmnt -rno TARGET,SOURCE,FSTYPE,OPTIONS,PROPAGATION | grep -E '^/games'
    dmsetup table | sed 's/ 259:[0-9]*/ DRIVE/g; s/ 25[0-9]:[0-9]*/ VOLUME/g' | sort
    dmsetup info -c --noheadings -o name,open,uuid | sort
    mdadm --detail --export /dev/md/vh | grep -E 'LEVEL|DEVICES|UUID|NAME'
    awk 'NR > 1 { print $1, $2, $3, $5 }' /proc/swaps
}
snapshot_all() {
    snapshot "$before"
    storage >"$before.storage"
}
# all_as_before [SECONDS]: keepers may be the ones that give back.
all_as_before() {
    local deadline=$((SECONDS + ${1:-60})) difference
    until difference=$(diff -U0 "$before.storage" <(storage 2>&1)); do
        ((SECONDS < deadline)) || fail "storage is not as it was:"$'\n'"$difference"$'\n'"$(vfio-hook status)"
        sleep 0.5
    done
    same_as "$before" 20
    [[ $(</games/kept) == kept ]] || fail "the file in /games is not as it was"
}
is_down() {
    ! grep -q ' /games' /proc/mounts || fail "$(grep ' /games' /proc/mounts)"
    [[ ! -e /dev/mapper/cr_games && ! -e /dev/md/vh ]] || fail "volumes are there: $(dmsetup ls)"
    ! grep -q nvme /proc/swaps || fail "$(cat /proc/swaps)"
}

snapshot_all
storage

# Refused: who uses it, and what to do.
for guest in with-drive with-block; do
    configure $guest <<<'disks: {}'
    refused $guest 'is in use on the host' 'serial VH-NVME-1' 'is mounted at /games' 'is mounted at /games/more' \
        'LVM volume vh-games/my-games' 'encrypted volume cr_games'
done
configure with-drive <<<'disks: {expect: SOME-OTHER}'
refused with-drive 'does not hand over the drive SOME-OTHER, but'
configure with-drive <<<'block_sleep: {}'
vfio-hook test with-drive 2>&1 | grep -q 'is handed over, and the host uses it' || fail "no warning without the section"
all_as_before 5

unmount="disks: {expect: VH-NVME-1, unmount: [/games, ${drive}p4]}"
for guest in with-drive with-drive-off with-block; do
    configure $guest <<<"$unmount"
done

# A program that uses it, and a volume that needs a person.
(cd /games && exec sleep 7788) &
holder=$!
refused with-drive "/games is in use by sleep (process $holder, /games)"
kill $holder
wait $holder || true
sed -i "s|$key|none|" /etc/crypttab
refused with-drive 'would not come back without a person'
sed -i "s| none | $key |" /etc/crypttab
configure with-drive <<<"disks: {unmount: /games}"
refused with-drive 'is swapped to'
configure with-drive <<<"$unmount"
all_as_before 5
vfio-hook test with-drive | grep -q 'encrypted volume cr_games' || fail "$(vfio-hook test with-drive)"

# Taken down, and back.
ends_as() {
    local guest=$1 began=$SECONDS
    start "$guest"
    is_down
    "$2" "$guest"
    all_as_before
    echo "figure: $guest, $2: $((SECONDS - began)) s from the start until all is back"
}
by_itself() { wait_off "$1" 90; }
destroyed() { destroy "$1"; }
qemu_killed() {
    pkill -KILL -f "guest=$1"
    wait_off "$1" 60
}
without_libvirtd() {
    systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
    pkill -KILL -f "guest=$1"
    systemctl start libvirtd
    wait_off "$1" 60
}
ends_as with-block destroyed
ends_as with-drive destroyed
ends_as with-drive qemu_killed
ends_as with-drive-off by_itself
ends_as with-drive without_libvirtd
wait_no_keepers_for 60

# The hook is killed at a write; in a soak at every third.
event() { hook "$1" "$2" "$3" - <"/tmp/$1.xml"; }
points() {
    VFIO_HOOK_FAILPOINT=count:/tmp/points /tmp/qemu with-block "$1" "$2" - </tmp/with-block.xml
    cat /tmp/points
}
killed() { VFIO_HOOK_FAILPOINT=kill:$1 /tmp/qemu with-block "$2" "$3" - </tmp/with-block.xml 2>/dev/null || true; }
recover() {
    case $(($1 % 3)) in
        0) vfio-hook undo --stale >/dev/null ;;
        1) event with-block release end && vfio-hook undo --stale >/dev/null ;;
        2) event with-block prepare begin && event with-block release end ;;
    esac
}
in_prepare=$(points prepare begin)
in_release=$(points release end)
all_as_before
((in_prepare > 20 && in_release > 3)) || fail "only $in_prepare and $in_release points"
turn=0
each() { if [[ ${SOAK-} ]]; then echo 3; else echo $(($1 / 4 + 1)); fi; }
for ((point = 2; point <= in_prepare; point += $(each "$in_prepare"))); do
    killed "$point" prepare begin
    recover $((turn++))
    all_as_before
done
for ((point = 2; point <= in_release; point += $(each "$in_release"))); do
    event with-block prepare begin
    is_down
    killed "$point" release end
    recover $((turn++))
    all_as_before
done
echo "figure: killed $turn times at the $in_prepare and $in_release writes of prepare and release"
wait_no_keepers_for 60

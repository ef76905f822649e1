#!/usr/bin/env bash
# What keeps libvirt from the hook, or the hook from a file, is said with the command that repairs it.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

link=/etc/libvirt/hooks/qemu
folder=/etc/vfio-hook/hooks.d
target=$(readlink "$link")
trap 'ln -sfn "$target" "$link"; rm -f "$folder"/plain.y*ml "$folder"/plian.yaml; systemctl reload libvirtd' EXIT
told() { { vfio-hook status >/dev/null; } 2>&1; }
says() { [[ $(told) == *"$1"* ]] || fail "not said: $1: $(told)"; }

systemctl reload libvirtd
expect "nothing is wrong" "$(told)" ""

rm "$link"
says "there is no $link: libvirt calls no hook"
says "ln -s /usr/bin/vfio-hook $link"

# Made again later than the daemon started: it may not look for it until it is reloaded.
sleep 2
ln -s "$target" "$link"
says "may not have looked again"
systemctl reload libvirtd
expect "reloaded" "$(told)" ""

echo 'hugepages: {}' >"$folder/plain.yml"
says "plain.yml is not read"
mv "$folder/plain.yml" "$folder/plian.yaml"
says "none is called plian"
says "mv $folder/plian.yaml $folder/plain.yaml"

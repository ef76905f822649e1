#!/usr/bin/env bash
# Installs vfio-hook as libvirt's qemu hook, or removes it. See usage below.
set -euo pipefail

usage() {
    cat <<END
usage: install.sh [--binary PATH] [--root DIR]
       install.sh --uninstall [--force] [--root DIR]
  --binary PATH  install this one; without it, it is built with cargo
  --root DIR     install below DIR, for packages: no daemon is told, and root is not needed
  --uninstall    remove what this script installed; guests' files stay
  --force        remove it even while guests hold something
END
}

wrong_usage() { usage >&2; exit 2; }
say() { echo "$*"; }

# warn MESSAGE [HELP]: the rest is done all the same.
warn() {
    echo "install.sh: $1" >&2
    [[ -z ${2-} ]] || echo "help: $2" >&2
}

# die MESSAGE [HELP]: only used before anything is changed.
die() {
    warn "$@"
    exit 1
}

# AppArmor lets libvirt run programs in /usr/bin, and none in /usr/local.
program=/usr/bin/vfio-hook
hooks=/etc/libvirt/hooks
main_hook=$hooks/qemu
side_hook=$hooks/qemu.d/50-vfio-hook
settings=/etc/vfio-hook
# The unit that gives back what no running guest holds, and the link that has it started at boot.
recovery=vfio-hook-recover.service
recovery_unit=/usr/lib/systemd/system/$recovery
recovery_link=/etc/systemd/system/multi-user.target.wants/$recovery

exists() { [[ -e $root$1 || -L $root$1 ]]; }

is_ours() {
    local target
    [[ -L $root$1 ]] || return 1
    target=$(readlink "$root$1")
    [[ $target == /* ]] && target=$root$target || target=$root${1%/*}/$target
    [[ $(realpath -ms "$target") == $(realpath -ms "$root$program") ]]
}

# The version of the libvirt that is here, or nothing.
libvirt_version() {
    local PATH=$PATH:/usr/sbin:/sbin
    {
        libvirtd --version || virtqemud --version || dpkg-query -W -f '${Version}' libvirt-daemon ||
            rpm -q --qf '%{VERSION}' libvirt-daemon || pacman -Q libvirt
    } 2>/dev/null | grep -Eom1 '[0-9]+\.[0-9]+\.[0-9]+' || true
}

# Sets `link` to where libvirt will find the hook. Nothing is changed here.
choose_link() {
    local version
    if is_ours "$main_hook"; then
        link=$main_hook
    elif is_ours "$side_hook"; then
        link=$side_hook
    elif ! exists "$main_hook"; then
        link=$main_hook
    else
        ! exists "$side_hook" || die "$side_hook is not ours; nothing was changed"
        version=$(libvirt_version)
        if [[ $(printf '%s\n' 6.5.0 "${version:-0}" | sort -V | head -n 1) != 6.5.0 ]]; then
            die "$main_hook is another hook, and libvirt ${version:-of unknown version} runs no second one (6.5.0 does); nothing was changed" \
                "move that hook away, or let it end with: exec $program \"\$@\""
        fi
        link=$side_hook
    fi
}

refuse_other_layouts() {
    if [[ -e $root/etc/NIXOS || (-d $root/var/lib/libvirt/hooks && ! -d $root$hooks) ]]; then
        die "this libvirt has its hooks in /var/lib/libvirt/hooks, and NixOS fills that folder itself; nothing was changed" \
            "set virtualisation.libvirtd.hooks.qemu.\"50-vfio-hook\" to the path of the binary, then restart libvirtd"
    fi
}

here=$(dirname "$(readlink -f "$0")")

build() {
    local source=${here%/*}
    command -v cargo >/dev/null || die "cargo is not in the PATH of $(id -un)" \
        "build it as the user who has it (cargo build --release --locked), then add --binary target/*/release/vfio-hook"
    (cd "$source" && cargo build --release --locked)
    binary=${CARGO_TARGET_DIR:-$source/target}/$(rustc -vV | sed -n 's/^host: //p')/release/vfio-hook
}

make_folder() {
    [[ ! -d $root$1 ]] || return 0
    mkdir -m 0755 "$root$1"
    say "made $1"
}

# A hook that is running keeps the old file; one that starts finds the old or the new one, never half of it.
install_program() {
    local new
    if cmp -s "$binary" "$root$program"; then
        say "$program is up to date"
        return
    fi
    mkdir -p "$root${program%/*}"
    new=$(mktemp "$root$program.XXXXXX")
    trap 'rm -f "$new"' EXIT
    cp "$binary" "$new"
    chmod 0755 "$new"
    mv -fT "$new" "$root$program"
    trap - EXIT
    say "installed $program"
}

install_link() {
    if is_ours "$link"; then
        say "$link is there already"
    else
        [[ $link == "$main_hook" ]] || say "$main_hook is another hook and stays as it is"
        mkdir -p "$root${link%/*}"
        ln -s "$program" "$root$link"
        say "linked $link -> $program"
    fi
    if [[ $link == "$main_hook" ]] && is_ours "$side_hook"; then
        rm "$root$side_hook"
        say "removed $side_hook: the hook would run twice"
    fi
}

# Whether systemd runs the machine that this is installed on.
has_systemd() { [[ ! $root && -d /run/systemd/system ]]; }

# A package gets the file; to enable the unit is for its own scripts.
install_recovery() {
    local new
    if [[ ! $root ]] && ! has_systemd; then
        say "no systemd here: after a keeper was lost, $program undo --stale gives back what no running guest holds"
        return
    fi
    new=$(sed "s|^ExecStart=[^ ]*|ExecStart=$program|" "$here/$recovery")
    if [[ $(cat "$root$recovery_unit" 2>/dev/null) == "$new" ]]; then
        say "$recovery is up to date"
    else
        mkdir -p "$root${recovery_unit%/*}"
        rm -f "$root$recovery_unit"
        echo "$new" >"$root$recovery_unit"
        chmod 0644 "$root$recovery_unit"
        say "installed $recovery_unit"
    fi
    has_systemd || return 0
    # It has systemd read its files again, too.
    if systemctl --quiet enable "$recovery"; then
        say "enabled $recovery"
    else
        warn "$recovery cannot be enabled: after a soft-reboot nothing is given back by itself" "systemctl enable $recovery"
    fi
}

remove_recovery() {
    if exists "$recovery_unit"; then
        ! has_systemd || systemctl --quiet disable "$recovery" || warn "$recovery cannot be disabled"
        rm -f "$root$recovery_unit"
        say "removed $recovery_unit"
        ! has_systemd || systemctl daemon-reload || warn "systemd still knows $recovery" "systemctl daemon-reload"
    fi
    # Where no systemd was there to be asked.
    if [[ -L $root$recovery_link ]]; then
        rm "$root$recovery_link"
        say "removed $recovery_link"
    fi
}

# A daemon that started without hooks does not look again until it is told to.
tell_daemon() {
    local daemon told=''
    if [[ ! -d /run/systemd/system ]]; then
        say "no systemd here: send SIGHUP to libvirtd (or virtqemud), if it runs, for it to see the hook"
        return
    fi
    for daemon in libvirtd virtqemud; do
        if systemctl --quiet is-active "$daemon.service"; then
            systemctl reload "$daemon.service"
            say "reloaded $daemon"
            told=1
        fi
    done
    [[ $told ]] || say "no libvirt daemon is running; it finds the hook when it starts"
}

install_all() {
    local link
    refuse_other_layouts
    choose_link
    [[ $binary ]] || build
    [[ -f $binary && -x $binary ]] || die "$binary is not an executable file"
    [[ -f $here/$recovery ]] || die "$here/$recovery is missing" "run this script where it came from"
    install_program
    mkdir -p "$root/etc"
    make_folder "$settings"
    make_folder "$settings/hooks.d"
    install_link
    install_recovery
    [[ ! $root ]] || return 0
    ! command -v restorecon >/dev/null || restorecon -iR "$program" "$hooks" "$settings" "$recovery_unit"
    tell_daemon
}

refuse_while_leased() {
    local status
    [[ ! $force && -x $root$program ]] || return 0
    status=$("$root$program" status --json) || die "cannot tell whether guests hold something" "--force removes it all the same"
    if [[ $status != *'"leases": []'* || $status != *'"unsettled": []'* ]]; then
        die "guests hold something of this host; nothing was changed" \
            "$program status shows it; shut them down, or give it back with: $program undo --stale"
    fi
}

remove_if_empty() {
    ! rmdir "$root$1" 2>/dev/null || say "removed $1"
}

uninstall_all() {
    local link
    refuse_while_leased
    for link in "$main_hook" "$side_hook"; do
        if is_ours "$link"; then
            rm "$root$link"
            say "removed $link"
            # Only the folder of the second one may be of our making.
            [[ $link == "$main_hook" ]] || remove_if_empty "${link%/*}"
        elif exists "$link"; then
            say "$link is another hook and stays as it is"
        fi
    done
    remove_recovery
    if exists "$program"; then
        rm "$root$program"
        say "removed $program"
    fi
    remove_if_empty "$settings/hooks.d"
    remove_if_empty "$settings"
    if [[ -d $root$settings ]]; then
        say "kept:"
        find "$root$settings" -type f -printf "  $settings/%P\n"
    fi
}

binary='' root='' uninstall='' force=''
while (($#)); do
    case $1 in
        --binary | --root)
            (($# > 1)) || wrong_usage
            [[ $1 == --root ]] && root=$2 || binary=$2
            shift
            ;;
        --uninstall) uninstall=1 ;;
        --force) force=1 ;;
        --help) usage; exit ;;
        *) wrong_usage ;;
    esac
    shift
done

if [[ $root ]]; then
    root=$(realpath "$root")
    [[ $root != / ]] || root=''
fi
[[ $root || $EUID == 0 ]] || die "this needs root" "sudo $0; or --root DIR, to make a package"

if [[ $uninstall ]]; then uninstall_all; else install_all; fi

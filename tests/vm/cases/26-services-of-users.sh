#!/usr/bin/env bash
# releases: trixie bookworm
# A service of a user who is logged in steps aside too; one of somebody who is not is only mentioned.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
loginctl enable-linger player
trap 'loginctl disable-linger player; rm -rf /home/player/.config' EXIT
as_player() { runuser -u player -- env XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
install -d -o player -g player /home/player /home/player/.config{,/systemd,/systemd/user}
printf '[Service]\nExecStart=sleep infinity\n' >/home/player/.config/systemd/user/aside.service
deadline=$((SECONDS + 60))
until as_player systemctl --user daemon-reload; do
    ((SECONDS < deadline)) || fail "no manager of the user"
    sleep 0.5
done
as_player systemctl --user start aside
configure plain <<'END'
services:
  stop:
  - {unit: aside.service, user: player}
END
snapshot "$before"
state() { as_player systemctl --user is-active aside || true; }

for _ in 1 2 3; do
    start plain
    expect "service" "$(state)" inactive
    vfio-hook status | grep -q 'aside.service of player *running -> stopped' || fail "$(vfio-hook status)"
    destroy plain
    expect "service" "$(state)" active
    same_as "$before"
done

# A command of that user is in the user's session, and sees what the desktop has told it; nothing else of it.
as_player systemctl --user set-environment WAYLAND_DISPLAY=wayland-7 "XAUTHORITY=/run/user/1000/x y" LD_PRELOAD=/tmp/x.so
configure plain <<'END'
run:
- {when: started, command: [/usr/bin/env], user: player}
- {when: started, command: [/usr/bin/busctl, --user, status], user: player}
END
began=$(date '+%F %T')
start plain
# in_the_log TEXT: within 20 s.
in_the_log() {
    local deadline=$((SECONDS + 20))
    until journalctl -t vfio-hook --since "$began" -o cat | grep -qF -- "$1"; do
        ((SECONDS < deadline)) || fail "no '$1' in the log: $(journalctl -t vfio-hook --since "$began" -o cat)"
        sleep 0.5
    done
}
in_the_log 'env: WAYLAND_DISPLAY=wayland-7'
in_the_log 'env: XAUTHORITY=/run/user/1000/x y'
in_the_log 'env: XDG_RUNTIME_DIR=/run/user/1000'
in_the_log 'busctl: '
! journalctl -t vfio-hook --since "$began" -o cat | grep -q 'LD_PRELOAD\|busctl (started)' || fail "$(journalctl -t vfio-hook --since "$began" -o cat)"
destroy plain
same_as "$before"
configure plain <<'END'
services:
  stop:
  - {unit: aside.service, user: player}
END

# The user logs out meanwhile: nothing is left to be given back.
start plain
loginctl disable-linger player
loginctl terminate-user player || true
deadline=$((SECONDS + 60))
while [[ -e /run/user/1000/systemd/private ]]; do
    ((SECONDS < deadline)) || fail "the user's manager stays"
    sleep 0.5
done
destroy plain
same_as "$before"
start plain
said 'player is not logged in'
destroy plain
same_as "$before"

# Nobody is logged in: the command runs all the same, and the log says what it lacks.
configure plain <<<'run: {when: started, command: [/usr/bin/env], user: player}'
began=$(date '+%F %T')
start plain
in_the_log 'player is not logged in: it has neither a bus of the user nor a display'
in_the_log 'env: USER=player'
destroy plain
same_as "$before"

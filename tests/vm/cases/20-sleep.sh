#!/usr/bin/env bash
# releases: trixie bookworm
# While a guest holds a sleep lock the host does not sleep, whoever asks, as far as its systemd allows; afterwards it does.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
# The kernel freezes everything, waits a second and thaws it: a sleep that a test survives.
echo freezer >/sys/power/pm_test
echo 1 >/sys/module/suspend/parameters/pm_test_delay
# Otherwise a user without a session is refused for that alone.
cat >/etc/polkit-1/rules.d/50-test.rules <<'END'
polkit.addRule(function (action, subject) {
    if (/^org\.freedesktop\.login1\.(suspend|suspend-multiple-sessions)$/.test(action.id) && subject.user == "player")
        return polkit.Result.YES;
});
END
trap 'rm -f /etc/polkit-1/rules.d/50-test.rules; echo none >/sys/power/pm_test' EXIT
version=$(systemctl --version | awk 'NR == 1 { print $2 }')

# sleeps COMMAND...: whether the host has slept because of it.
sleeps() {
    local count deadline=$((SECONDS + 20))
    count=$(</sys/power/suspend_stats/success)
    timeout 40 "$@" >/tmp/said 2>&1 || return 1
    until (($(</sys/power/suspend_stats/success) > count)); do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
    until [[ $(busctl get-property org.freedesktop.login1 /org/freedesktop/login1 \
        org.freedesktop.login1.Manager PreparingForSleep) == "b false" &&
        $(systemctl is-active systemd-suspend.service) == inactive ]]; do
        ((SECONDS < deadline)) || fail "the host does not wake"
        sleep 0.2
    done
}
asleep() { sleeps "$@" || fail "$* was denied: $(</tmp/said)"; }
denied() { ! sleeps "$@" || fail "$* put the host to sleep"; }
as_user=(runuser -u player -- systemctl suspend)
as_root=(systemctl suspend)
locks() { systemd-inhibit --list --no-legend | grep -c vfio-hook || true; }

asleep "${as_user[@]}"
asleep "${as_root[@]}"
snapshot "$before"

# A lock, and nothing else.
configure plain <<<'block_sleep: {}'
start plain
systemd-inhibit --list --no-legend | grep -E 'vfio-hook +.* sleep +guest plain runs +block' ||
    fail "no lock: $(systemd-inhibit --list)"
denied "${as_user[@]}"
if ((version >= 257)); then
    denied "${as_root[@]}"
else
    # systemd before 257 lets root pass over locks.
    asleep "${as_root[@]}"
fi
destroy plain
expect "locks" "$(locks)" 0
same_as "$before"
asleep "${as_user[@]}"

# A lock and masks: nobody.
configure plain <<<'block_sleep: {strength: mask, lid: ignore, what: [sleep, idle]}'
start plain
denied "${as_user[@]}"
denied "${as_root[@]}"
denied systemctl suspend --force
denied systemctl suspend -i
denied systemctl start systemd-suspend.service
lid() { busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager HandleLidSwitch; }
expect "lid" "$(lid)" 's "ignore"'
destroy plain
expect "lid" "$(lid)" 's "suspend"'
same_as "$before"
asleep "${as_user[@]}"
asleep "${as_root[@]}"

# A unit that is loaded and names a sleep target takes a daemon-reload, for the masks and for their end.
systemd-run --quiet --unit=names-sleep -p Before=sleep.target -p Before=suspend.target sleep infinity
start plain
denied systemctl suspend --force
destroy plain
asleep "${as_root[@]}"
systemctl stop names-sleep

# However the guest ends, the lock goes with it.
configure plain <<<'block_sleep: {}'
start plain
pkill -KILL -f 'guest=plain'
wait_off plain 30
expect "locks" "$(locks)" 0
same_as "$before"
asleep "${as_root[@]}"

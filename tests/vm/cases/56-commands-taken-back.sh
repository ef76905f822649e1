#!/usr/bin/env bash
# What takes a command back runs if the command began: after a whole life, after a refused start, and with the keeper
# killed. A command in the background ends with the guest.
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

before=$(mktemp)
snapshot "$before"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# ran WORDS...: what the commands wrote, once all is given back.
ran() {
    wait_no_keepers_for 30
    expect "commands" "$(tr '\n' ' ' <"$log")" "$*"
    : >"$log"
}

configure plain <<END
run:
- {when: prepare, command: [/bin/sh, -c, 'echo one >>$log'], undo: [/bin/sh, -c, 'echo not-one >>$log']}
- {when: start, command: [/bin/sh, -c, 'echo two >>$log'], undo: [/bin/sh, -c, 'echo not-two >>$log']}
- {when: started, command: [/bin/sh, -c, 'kill -0 \$VFIO_HOOK_QEMU_PID && echo up >>$log']}
- {when: started, command: [/bin/sh, -c, 'trap "echo saved >>$log; exit" TERM; while :; do sleep 0.1; done'], background: true}
END
start plain
deadline=$((SECONDS + 20))
until grep -q up "$log"; do
    ((SECONDS < deadline)) || fail "QEMU's number is not known"
    sleep 0.2
done
# The file does not matter any more.
configure plain <<<"run: [{when: started, command: [/bin/true]}]"
destroy plain
ran one two up saved not-two not-one ''
same_as "$before"

configure plain <<END
run:
- {when: prepare, command: [/bin/sh, -c, 'echo one >>$log'], undo: [/bin/sh, -c, 'echo not-one >>$log']}
- {when: prepare, command: [/bin/sh, -c, 'echo it cannot; exit 3'], on_failure: refuse}
- {when: prepare, command: [/bin/sh, -c, 'echo three >>$log'], undo: [/bin/sh, -c, 'echo not-three >>$log']}
END
refused plain 'plain.yaml:3:3: /bin/sh (prepare) ended with exit status 3: it cannot'
ran one not-one ''
same_as "$before"

# The keeper is killed while the guest runs, and its background command with it.
configure plain <<END
run:
- {when: prepare, command: [/bin/sh, -c, 'echo one >>$log'], undo: [/bin/sh, -c, 'echo not-one >>$log']}
- {when: started, command: [/bin/sleep, "7777"], background: true}
END
start plain
deadline=$((SECONDS + 20))
until pgrep -f 'sleep 7777' >/dev/null; do
    ((SECONDS < deadline)) || fail "the command in the background does not run"
    sleep 0.2
done
pkill -9 -f 'vfio-hook.* keeper'
deadline=$((SECONDS + 20))
while pgrep -f 'sleep 7777' >/dev/null; do
    ((SECONDS < deadline)) || fail "the command in the background outlives its keeper"
    sleep 0.2
done
destroy plain
ran one not-one ''
same_as "$before"

//! Talks with monitors, by a shell script in a worker's place.

use std::fs;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::host::i2c::I2cBus;

const LONG: Duration = Duration::from_secs(20);

/// No other test has it: all of this process know which buses hang.
const BUS: I2cBus = I2cBus(4711);

struct Scripted {
    folder: tempfile::TempDir,
    workers: Workers,
}

impl Scripted {
    /// A script that appends its number to `started`, and has the folder as `$here`. Another process writes it: a child
    /// that another test starts just then would have it open for writing, and it could not be run.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("worker");
        let write =
            r#"printf '#!/bin/sh\nhere=%s\necho $$ >>$here/started\n%s\n' "$1" "$2" >"$0" && chmod +x "$0""#;
        let mut shell = Command::new("/bin/sh");
        let written = shell.args(["-c", write]).arg(&program).arg(folder.path()).arg(script).status();
        assert!(written.unwrap().success());
        Self { workers: Workers::machine(program), folder }
    }

    fn talk(&self, time: Duration) -> Heard<Said<u8>> {
        self.workers.talk(Talk::Find, Vec::new(), Deadline::after(time)).unwrap().unwrap()
    }

    fn started(&self) -> Vec<Pid> {
        let started = fs::read_to_string(self.folder.path().join("started")).unwrap();
        started.lines().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
    }

    fn has_one_at_hand(&self) -> bool {
        match &self.workers {
            Workers::Machine { at_hand, .. } => lock(at_hand).is_some(),
            Workers::Simulated { .. } | Workers::Itself => false,
        }
    }
}

fn said(answer: u8, hanging: &[I2cBus]) -> Said<u8> {
    Said { answer: Ok(answer), hanging: hanging.to_vec() }
}

#[test]
fn one_that_talked_is_at_hand_for_the_next_contact() {
    let scripted =
        Scripted::new(r#"while read -r order; do echo '{"Ok":{"answer":{"Ok":3},"hanging":[]}}'; done"#);
    for _ in 0..2 {
        let heard = scripted.talk(LONG);
        assert!(matches!(heard.end, End::Answered), "{heard:?}");
        assert_eq!(heard.answers, [Ok(said(3, &[]))]);
    }
    assert!(scripted.has_one_at_hand());
    assert_eq!(scripted.started().len(), 1);
}

#[test]
fn one_that_a_bus_keeps_is_left_behind_and_the_bus_is_named_until_it_ends() {
    // Neither the end of its orders nor anything else but a signal ends it.
    let scripted = Scripted::new(
        r#"read -r order
        echo "$order" >>$here/orders
        echo '{"Ok":{"answer":{"Ok":3},"hanging":[4711]}}'
        exec sleep 1000"#,
    );
    let stuck = StuckRegistry::of_this_process();
    assert!(!stuck.is_stuck(&StuckIn::Bus(BUS)));
    let began = Instant::now();
    let heard = scripted.talk(LONG);
    assert!(matches!(heard.end, End::Answered), "{heard:?}");
    assert_eq!(heard.answers, [Ok(said(3, &[BUS]))]);
    assert!(!scripted.has_one_at_hand(), "the next contact would hang with it");
    assert!(stuck.is_stuck(&StuckIn::Bus(BUS)));
    scripted.talk(LONG);
    scripted.workers.dismiss();
    assert!(began.elapsed() < LONG, "it is waited for");

    let started = scripted.started();
    assert_eq!(started.len(), 2, "the one that hangs is asked again");
    let orders = fs::read_to_string(scripted.folder.path().join("orders")).unwrap();
    let hanging: Vec<Vec<u32>> = orders
        .lines()
        .map(|order| serde_json::from_str::<serde_json::Value>(order).unwrap())
        .map(|order| serde_json::from_value(order["monitors"]["hanging"].clone()).unwrap())
        .collect();
    assert!(!hanging[0].contains(&BUS.0) && hanging[1].contains(&BUS.0), "{hanging:?}");

    for pid in started {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let time = Deadline::after(LONG);
    while stuck.is_stuck(&StuckIn::Bus(BUS)) {
        assert!(!time.has_passed(), "it has ended, and still the bus is not touched");
        std::thread::yield_now();
    }
}

/// One whose bus let go meanwhile ends by itself, and keeps nothing from being touched.
#[test]
fn one_that_ends_after_all_is_not_left_behind() {
    let scripted = Scripted::new(
        r#"read -r order; echo '{"Ok":{"answer":{"Ok":3},"hanging":[4712]}}'; exec sleep 0.01"#,
    );
    scripted.talk(LONG);
    assert!(!scripted.has_one_at_hand());
    let (stuck, time) = (StuckRegistry::of_this_process(), Deadline::after(LONG));
    while stuck.is_stuck(&StuckIn::Bus(I2cBus(4712))) {
        assert!(!time.has_passed(), "it has ended, and still the bus is not touched");
        std::thread::yield_now();
    }
}

#[test]
fn half_an_answer_is_waited_for_no_longer_than_there_is_time() {
    let end = |script: &str, time| {
        let scripted = Scripted::new(script);
        let heard = scripted.talk(time);
        assert!(heard.answers.is_empty() && !scripted.has_one_at_hand(), "{script}: {heard:?}");
        heard.end
    };
    let short = Duration::from_millis(300);
    let began = Instant::now();
    assert!(matches!(end("read -r order; printf half; exec sleep 1000", short), End::Killed));
    assert!(matches!(end("read -r order; printf half", LONG), End::Died(_)));
    assert!(began.elapsed() < LONG);
}

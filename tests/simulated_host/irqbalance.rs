//! irqbalance: asked to keep away from a guest's CPUs, and left as it was.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use vfio_hook::cpuset::CpuSet;

use crate::support::{Life, Machine, guest, life};

/// When a new list can be read back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounds {
    /// At once.
    Always,
    /// After the next round only, as irqbalance really does it.
    ByHand,
}

#[derive(Default)]
struct State {
    /// `IRQBALANCE_BANNED_CPULIST`.
    configured: CpuSet,
    /// The last `settings cpus`.
    asked: Option<CpuSet>,
    /// What `setup` shows.
    shown: CpuSet,
}

impl State {
    fn round(&mut self) {
        self.shown = self.asked.clone().unwrap_or_else(|| self.configured.clone());
    }
}

/// A daemon of which only the socket is there.
struct Irqbalance {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Irqbalance {
    fn start(machine: &Machine, configured: &str, rounds: Rounds) -> Self {
        let folder = machine.path("/run/irqbalance");
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("irqbalance4711.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut state = State { configured: configured.parse().unwrap(), ..State::default() };
        state.round();
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &shared, rounds);
            }
        });
        Self { socket, state }
    }

    /// Its ten seconds are over.
    fn round(&self) {
        self.state.lock().unwrap().round();
    }

    /// The CPUs it will keep away from.
    fn banned(&self) -> String {
        self.round();
        self.state.lock().unwrap().shown.to_string()
    }

    /// It ends, and takes its socket away.
    fn end(&self) {
        fs::remove_file(&self.socket).unwrap();
    }

    /// It is killed: the socket stays, and nobody listens.
    fn kill(&self) {
        self.end();
        drop(UnixListener::bind(&self.socket).unwrap());
    }
}

fn answer(mut stream: UnixStream, state: &Mutex<State>, rounds: Rounds) {
    let mut buffer = [0; 256];
    let Ok(length) = stream.read(&mut buffer) else { return };
    let command = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let mut state = state.lock().unwrap();
    if command == "setup" {
        let mask = state.shown.to_mask();
        let _ = write!(stream, "SLEEP 10 IRQ 9 LOAD 0 DIFF 0 CLASS 0 BANNED {mask}");
    } else if let Some(list) = command.strip_prefix("settings cpus ") {
        state.asked = (list != "NULL").then(|| list.parse().unwrap());
        if rounds == Rounds::Always {
            state.round();
        }
    }
}

fn isolating(number: u8, cpus: &str) -> Life {
    life(guest(number, cpus, ""), "isolate_cpus: {}")
}

#[test]
fn the_list_grows_and_comes_back() {
    for (configured, with_guest) in [("", "2-3"), ("7", "2-3,7"), ("2", "2-3")] {
        let machine = Machine::new("two-nodes");
        let irqbalance = Irqbalance::start(&machine, configured, Rounds::Always);
        let before = machine.files();
        let life = isolating(1, "2-3");
        machine.prepare(&life).unwrap();
        assert_eq!(irqbalance.banned(), with_guest);
        machine.release(&life).unwrap();
        assert_eq!(irqbalance.banned(), configured);
        machine.assert_is(&before, "released");
    }
}

#[test]
fn a_guest_that_comes_back_within_a_round_does_not_find_its_own_list() {
    let machine = Machine::new("two-nodes");
    let irqbalance = Irqbalance::start(&machine, "7", Rounds::ByHand);
    let before = machine.files();
    let life = isolating(1, "2-3");
    for _ in 0..3 {
        machine.prepare(&life).unwrap();
        assert_eq!(irqbalance.banned(), "2-3,7");
        machine.release(&life).unwrap();
    }
    assert_eq!(irqbalance.banned(), "7");
    machine.open_and_close();
    machine.assert_is(&before, "released");
}

#[test]
fn guests_that_go_within_a_round_leave_nothing() {
    for first in [0, 1] {
        let machine = Machine::new("two-nodes");
        let irqbalance = Irqbalance::start(&machine, "", Rounds::ByHand);
        let before = machine.files();
        let lives = [isolating(1, "2-3"), isolating(2, "4-5")];
        machine.prepare(&lives[0]).unwrap();
        machine.prepare(&lives[1]).unwrap();
        irqbalance.round();
        machine.release(&lives[first]).unwrap();
        machine.release(&lives[1 - first]).unwrap();
        assert_eq!(irqbalance.banned(), "");
        machine.open_and_close();
        machine.assert_is(&before, "released");
    }
}

#[test]
fn what_is_banned_stays_banned_for_the_guest_that_stays() {
    let machine = Machine::new("two-nodes");
    let irqbalance = Irqbalance::start(&machine, "", Rounds::ByHand);
    let lives = [isolating(1, "2-3"), isolating(2, "4-5")];
    machine.prepare(&lives[0]).unwrap();
    machine.prepare(&lives[1]).unwrap();
    machine.release(&lives[0]).unwrap();
    assert_eq!(irqbalance.banned(), "4-5");
    machine.prepare(&lives[0]).unwrap();
    assert_eq!(irqbalance.banned(), "2-5");
}

#[test]
fn a_daemon_that_ended_meanwhile_is_no_failure() {
    for end in [Irqbalance::end, Irqbalance::kill] {
        let machine = Machine::new("two-nodes");
        let irqbalance = Irqbalance::start(&machine, "", Rounds::Always);
        let before = machine.files();
        let life = isolating(1, "2-3");
        machine.prepare(&life).unwrap();
        end(&irqbalance);
        let outcome = machine.release(&life).unwrap();
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        machine.assert_is(&before, "released");
    }
}

#[test]
fn a_socket_without_a_daemon_is_passed_over() {
    let machine = Machine::new("two-nodes");
    let folder = machine.path("/run/irqbalance");
    fs::create_dir_all(&folder).unwrap();
    drop(UnixListener::bind(folder.join("irqbalance1.sock")).unwrap());
    let before = machine.files();
    let life = isolating(1, "2-3");
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

//! irqbalance: asked to keep away from a guest's CPUs, and left as it was.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};
use vfio_hook::cpuset::CpuSet;
use vfio_hook::ledger::{NoteLevel, Outcome, SettingKey};

use crate::support::{Files, Life, Machine, assert_same, guest, life};

/// Far more than an event with a daemon that hangs may take, on a busy machine too.
const LONG: Duration = Duration::from_secs(20);

/// The pause between two looks for a connection.
const PAUSE: Duration = Duration::from_millis(1);

/// When a new list can be read back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounds {
    /// At once.
    Always,
    /// After the next round only, as irqbalance really does it.
    ByHand,
}

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    #[default]
    Well,
    /// It takes no connection, and its queue for them is full.
    TakesNoConnection,
    /// It takes connections, and says nothing.
    SaysNothing,
    /// As before, once it has said how it is set up.
    TakesNoSettings,
    /// It answers so many times, and then says nothing.
    Answers(usize),
    /// It says its answers again and again, a byte at a time.
    Trickles,
    /// It closes each connection.
    Closes,
}

#[derive(Default)]
struct State {
    manner: Manner,
    /// How many connections it took.
    taken: usize,
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
        listener.set_nonblocking(true).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let mut state = State { configured: configured.parse().unwrap(), ..State::default() };
        state.round();
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            let mut unanswered = Vec::new();
            loop {
                let mut state = shared.lock().unwrap();
                if state.manner == Manner::Trickles {
                    unanswered.retain_mut(|stream: &mut UnixStream| stream.write_all(b"0").is_ok());
                }
                if state.manner != Manner::TakesNoConnection
                    && let Ok((stream, _)) = listener.accept()
                {
                    state.taken += 1;
                    unanswered.extend(answer(stream, &mut state, rounds));
                    continue;
                }
                drop(state);
                thread::sleep(PAUSE);
            }
        });
        Self { socket, state }
    }

    /// From now on it answers like that. Gives the connections of others that wait to be taken.
    fn behave(&self, manner: Manner) -> Vec<UnixStream> {
        self.state.lock().unwrap().manner = manner;
        if manner != Manner::TakesNoConnection {
            return Vec::new();
        }
        // One more than the queue is long may wait.
        (0..2).map(|_| UnixStream::connect(&self.socket).unwrap()).collect()
    }

    fn taken(&self) -> usize {
        self.state.lock().unwrap().taken
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

/// Gives the connection where it is neither answered nor closed.
fn answer(mut stream: UnixStream, state: &mut State, rounds: Rounds) -> Option<UnixStream> {
    match state.manner {
        Manner::SaysNothing | Manner::Trickles => return Some(stream),
        Manner::Closes => return None,
        Manner::Answers(0) => return Some(stream),
        Manner::Answers(left) => state.manner = Manner::Answers(left - 1),
        Manner::Well | Manner::TakesNoSettings | Manner::TakesNoConnection => {}
    }
    let mut buffer = [0; 256];
    let length = stream.read(&mut buffer).ok()?;
    let command = String::from_utf8_lossy(&buffer[..length]).into_owned();
    if command == "setup" {
        let mask = state.shown.to_mask();
        let _ = write!(stream, "SLEEP 10 IRQ 9 LOAD 0 DIFF 0 CLASS 0 BANNED {mask}");
    } else if state.manner == Manner::TakesNoSettings {
        return Some(stream);
    } else if let Some(list) = command.strip_prefix("settings cpus ") {
        state.asked = (list != "NULL").then(|| list.parse().unwrap());
        if rounds == Rounds::Always {
            state.round();
        }
    }
    None
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

/// Does something that must not hang: a test that does would never be told as failed.
fn in_time<T>(manner: Manner, what: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    thread::spawn(move || {
        if is_done.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "{manner:?}: an event hangs");
            std::process::exit(101);
        }
    });
    let result = what();
    drop(done);
    result
}

fn warnings(outcome: &Outcome) -> Vec<&str> {
    let notes = outcome.notes.iter().filter(|note| note.level == NoteLevel::Warning);
    notes.map(|note| note.text.as_str()).filter(|text| text.contains("irqbalance")).collect()
}

const HANGING: [Manner; 4] =
    [Manner::TakesNoConnection, Manner::SaysNothing, Manner::Trickles, Manner::Closes];

#[test]
fn a_guest_starts_beside_a_daemon_that_hangs() {
    for manner in HANGING {
        let machine = Machine::new("two-nodes");
        let irqbalance = Irqbalance::start(&machine, "7", Rounds::Always);
        let before = machine.files();
        let _waiting = irqbalance.behave(manner);
        let life = isolating(1, "2-3");
        let outcome = in_time(manner, || machine.prepare(&life).unwrap());
        let [warning] = warnings(&outcome)[..] else { panic!("{manner:?}: {:?}", outcome.notes) };
        assert!(
            warning.starts_with(
                "irqbalance cannot be asked to keep away from CPUs 2-3, and may move interrupts"
            ),
            "{warning}"
        );
        assert_ne!(machine.files(), before, "{manner:?}: the rest is taken");
        assert!(irqbalance.taken() <= 1, "{manner:?}: it was asked {} times", irqbalance.taken());
        in_time(manner, || machine.release(&life).unwrap());
        machine.assert_is(&before, "released");
    }
}

#[test]
fn a_daemon_that_hangs_later_keeps_nothing_but_its_own_list() {
    for manner in HANGING {
        let machine = Machine::new("two-nodes");
        let irqbalance = Irqbalance::start(&machine, "7", Rounds::Always);
        let before = machine.files();
        let (life, other) = (isolating(1, "2-3"), isolating(2, "4-5"));
        machine.prepare(&life).unwrap();
        let (waiting, asked) = (irqbalance.behave(manner), irqbalance.taken());
        let outcome = in_time(manner, || machine.release(&life).unwrap());
        let [failure] = &outcome.failures[..] else { panic!("{manner:?}: {:?}", outcome.failures) };
        assert!(failure.starts_with("CPUs banned in irqbalance not given back: "), "{failure}");
        assert_same(&but_keepers(&machine), &before, "the rest is given back");
        assert!(irqbalance.taken() - asked <= 1, "{manner:?}: {} times", irqbalance.taken() - asked);

        // Others go on, too.
        in_time(manner, || machine.prepare(&other).unwrap());
        in_time(manner, || machine.started(&other).unwrap());
        in_time(manner, || machine.release(&other).unwrap());
        assert_same(&but_keepers(&machine), &before, "of the other one too");
        let record = machine.record().unwrap();
        let left: Vec<SettingKey> = record.entries().map(|entry| entry.key()).collect();
        assert!(matches!(&left[..], [SettingKey::Keeper(_), SettingKey::IrqbalanceBan(_)]), "{left:?}");

        drop(waiting);
        irqbalance.behave(Manner::Well);
        machine.release(&life).unwrap();
        machine.release(&other).unwrap();
        machine.open_and_close();
        assert_eq!(irqbalance.banned(), "7", "{manner:?}");
        machine.assert_is(&before, "released");
    }
}

fn but_keepers(machine: &Machine) -> Files {
    let mut files = machine.files();
    files.retain(|path, _| !path.starts_with("/simulated/keepers/"));
    files
}

#[test]
fn a_daemon_that_hangs_meanwhile_does_not_keep_a_guest_from_starting() {
    for manner in [Manner::Answers(1), Manner::TakesNoSettings] {
        let machine = Machine::new("two-nodes");
        let irqbalance = Irqbalance::start(&machine, "7", Rounds::Always);
        let before = machine.files();
        irqbalance.behave(manner);
        let life = isolating(1, "2-3");
        let outcome = in_time(manner, || machine.prepare(&life).unwrap());
        let [warning] = warnings(&outcome)[..] else { panic!("{manner:?}: {:?}", outcome.notes) };
        assert!(warning.starts_with("CPUs banned in irqbalance left alone: "), "{warning}");
        irqbalance.behave(Manner::Well);
        machine.release(&life).unwrap();
        assert_eq!(irqbalance.banned(), "7", "{manner:?}");
        machine.assert_is(&before, "released");
    }
}

#[test]
fn whether_the_list_is_back_is_not_known_of_a_daemon_that_hangs() {
    let machine = Machine::new("two-nodes");
    let irqbalance = Irqbalance::start(&machine, "7", Rounds::ByHand);
    let before = machine.files();
    let life = isolating(1, "2-3");
    machine.prepare(&life).unwrap();
    irqbalance.round();
    // It says what it has, and takes the list, which it shows at its next round.
    irqbalance.behave(Manner::Answers(2));
    in_time(Manner::Answers(2), || machine.release(&life).unwrap());
    assert!(machine.has_ledger(), "what it shows may be the guest's");
    irqbalance.behave(Manner::Well);
    machine.prepare(&life).unwrap();
    assert_eq!(irqbalance.banned(), "2-3,7");
    machine.release(&life).unwrap();
    assert_eq!(irqbalance.banned(), "7");
    machine.open_and_close();
    machine.assert_is(&before, "released");
}

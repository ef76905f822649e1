use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use super::*;
use crate::host::hung_peer::{HungPeer, Kind};

/// Far more than anything here takes, on a busy machine too.
const LONG: Duration = Duration::from_secs(20);

/// What is waited for a bus that hangs.
const PATIENCE: Duration = Duration::from_millis(200);

const SYSTEMD: Object<'_> = Object {
    service: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

fn builder(socket: &Path) -> Builder<'static> {
    Builder::address(format!("unix:path={}", socket.display()).as_str())
}

/// Runs something that must not hang, in a thread that can be left behind.
fn in_time<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = channel();
    thread::spawn(move || sender.send(what()));
    result.recv_timeout(LONG).expect("it hangs")
}

#[track_caller]
fn assert_timed_out<T: std::fmt::Debug>(result: zbus::Result<T>) {
    match result {
        Err(zbus::Error::InputOutput(error)) if error.kind() == io::ErrorKind::TimedOut => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bus_that_hangs_before_it_greets_is_not_waited_for() {
    for kind in [Kind::TakesNoConnection, Kind::SaysNothing, Kind::TricklesForEver] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let _peer = HungPeer::start(&socket, kind);
        let connected = in_time({
            let connect = builder(&socket);
            move || within_patience(PATIENCE, Deadline::after(LONG), connect.build())
        });
        match (kind, connected) {
            // What it sends is no greeting, which the library may find out before.
            (Kind::TricklesForEver, connected) => drop(connected.unwrap_err()),
            (_, connected) => assert_timed_out(connected),
        }
    }
}

/// A bus that greets each client, and says nothing after that.
struct Greeting(PathBuf);

impl Greeting {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let greeted: Vec<UnixStream> =
                listener.incoming().flatten().filter_map(|stream| greet(stream).ok()).collect();
            drop(greeted);
        });
        Self(socket)
    }

    fn bus(&self) -> Bus {
        let connected = within(Deadline::after(LONG), builder(&self.0).build()).unwrap();
        Bus(Mutex::new(Some(connected)))
    }
}

/// The handshake as far as the answer to `Hello` (D-Bus specification, "Authentication Protocol" and "Message
/// Protocol").
fn greet(mut stream: UnixStream) -> io::Result<UnixStream> {
    let mut said = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        said.push(byte[0]);
        if !said.ends_with(b"\r\n") {
            continue;
        }
        let line = String::from_utf8_lossy(&said).trim_matches(['\0', '\r', '\n']).to_owned();
        said.clear();
        match line.split(' ').next() {
            Some("AUTH") => stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")?,
            Some("NEGOTIATE_UNIX_FD") => stream.write_all(b"AGREE_UNIX_FD\r\n")?,
            Some("BEGIN") => break,
            _ => stream.write_all(b"ERROR\r\n")?,
        }
    }
    let mut header = [0; 16];
    stream.read_exact(&mut header)?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let (body, serial, fields) = (number(4), number(8), number(12));
    let mut rest = vec![0; (fields.next_multiple_of(8) + body) as usize];
    stream.read_exact(&mut rest)?;
    stream.write_all(&name_given(serial))?;
    Ok(stream)
}

/// The answer to `Hello`: the name of who said it.
fn name_given(serial: u32) -> Vec<u8> {
    let string = |text: &str| {
        let mut bytes = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend(text.bytes());
        bytes.push(0);
        bytes
    };
    let body = string(":1.1");
    let mut fields = vec![5, 1, b'u', 0];
    fields.extend(serial.to_le_bytes());
    fields.extend([8, 1, b'g', 0, 1, b's', 0, 0]);
    fields.extend([7, 1, b's', 0]);
    fields.extend(string("org.freedesktop.DBus"));
    let mut message = vec![b'l', 2, 1, 1];
    message.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    message.extend(1_u32.to_le_bytes());
    message.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
    message.extend(fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

#[test]
fn a_call_that_is_not_answered_is_not_waited_for_longer_than_there_is_time() {
    let folder = tempfile::tempdir().unwrap();
    let greeting = Greeting::start(folder.path());
    let waited = in_time(move || {
        let (bus, began) = (greeting.bus(), Instant::now());
        assert_timed_out(within(Deadline::after(PATIENCE), bus.call(SYSTEMD, "Subscribe", &())));
        // Half of a message may have been sent over it.
        assert!(bus.known().is_none());
        began.elapsed()
    });
    assert!((PATIENCE..ANSWER).contains(&waited), "{waited:?}");
}

#[test]
fn a_call_that_is_not_taken_is_not_waited_for_either() {
    let folder = tempfile::tempdir().unwrap();
    let greeting = Greeting::start(folder.path());
    in_time(move || {
        let bus = greeting.bus();
        let much = "x".repeat(16 * 1024 * 1024);
        assert_timed_out(within(Deadline::after(PATIENCE), bus.call(SYSTEMD, "GetUnit", &much)));
        assert!(bus.known().is_none());
    });
}

#[test]
fn nothing_is_begun_without_time() {
    assert_timed_out(within(Deadline::after(Duration::ZERO), async { Ok(()) }));
}

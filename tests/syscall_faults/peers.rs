//! Peers of the program that answer as they should.

use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How often a peer looks whether its machine is gone.
const LOOK: Duration = Duration::from_millis(50);

/// journald: what was said to it.
pub(crate) struct Journal {
    lines: Arc<Mutex<Vec<String>>>,
    _lives: Lives,
}

/// irqbalance: the CPUs that it keeps interrupts away from.
pub(crate) struct Irqbalance {
    banned: Arc<Mutex<String>>,
    _lives: Lives,
}

/// Tells a peer's thread to end.
struct Lives(Arc<AtomicBool>);

impl Drop for Lives {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Journal {
    pub(crate) fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let lives = Arc::new(AtomicBool::new(true));
        let (heard, listens) = (Arc::clone(&lines), Arc::clone(&lives));
        thread::spawn(move || {
            let mut entry = vec![0; 256 * 1024];
            while listens.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut entry) else { continue };
                heard.lock().unwrap().extend(message(&entry[..length]));
            }
        });
        Self { lines, _lives: Lives(lives) }
    }

    /// All messages so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// `MESSAGE` of an entry in journald's native protocol: `MESSAGE=text`, or its length in 8 bytes before the text.
fn message(entry: &[u8]) -> Option<String> {
    let at = entry.windows(8).position(|name| name == b"MESSAGE=" || name == b"MESSAGE\n")?;
    let rest = &entry[at + 8..];
    let text = if entry[at + 7] == b'=' {
        rest.split(|byte| *byte == b'\n').next()?
    } else {
        let (length, text) = rest.split_first_chunk::<8>()?;
        text.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?
    };
    Some(String::from_utf8_lossy(text).into_owned())
}

impl Irqbalance {
    pub(crate) fn listen(path: &Path) -> Self {
        let socket = UnixListener::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let banned = Arc::new(Mutex::new("00".to_owned()));
        let lives = Arc::new(AtomicBool::new(true));
        let (mask, listens) = (Arc::clone(&banned), Arc::clone(&lives));
        thread::spawn(move || {
            while listens.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = socket.accept() else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                let mut command = [0; 1024];
                let length = stream.read(&mut command).unwrap_or(0);
                let command = String::from_utf8_lossy(&command[..length]).into_owned();
                let answer = obey(&command, &mut mask.lock().unwrap());
                let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
            }
        });
        Self { banned, _lives: Lives(lives) }
    }

    /// Its mask.
    pub(crate) fn banned(&self) -> String {
        self.banned.lock().unwrap().clone()
    }
}

fn obey(command: &str, banned: &mut String) -> String {
    if command.starts_with("setup") {
        return format!("SLEEP 10 BANNED {banned}");
    }
    if let Some(list) = command.strip_prefix("settings cpus ") {
        let cpus: vfio_hook::cpuset::CpuSet = list.trim().parse().unwrap_or_default();
        *banned = format!("{:0>2}", cpus.to_mask());
    }
    String::new()
}

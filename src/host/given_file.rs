//! Files that a person names on the command line, which may be anything: a pipe that nobody writes to, a device without
//! an end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::deadline::Deadline;
use crate::host::error::rounded;
use crate::host::presence::told_from_dangling;

/// How long a pipe's other end may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// From one piece to the next.
    next: Duration,
    /// In all.
    whole: Duration,
}

/// `virsh dumpxml` answers within a second; it waits as long as libvirt does for a guest whose lock is held.
const PATIENCE: Patience = Patience { next: Duration::from_secs(10), whole: Duration::from_secs(60) };

/// Reads a regular file or a pipe (`/dev/stdin`, a shell's `<(...)`), but at most one byte more than `limit`: who gets
/// more than the limit knows that it is too large. Anything else is not even opened.
///
/// # Errors
/// It is not there, or is neither file nor pipe; nothing comes from the pipe for 10 s, or it does not end within 60 s.
pub fn read_given_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_patiently(path, limit, PATIENCE)
}

fn read_patiently(path: &Path, limit: usize, patience: Patience) -> io::Result<Vec<u8>> {
    refuse_other_kinds(&fs::metadata(path).map_err(|error| told_from_dangling(path, error))?)?;
    // Without O_NONBLOCK the opening of a named pipe waits for a writer.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    let kind = file.metadata()?;
    refuse_other_kinds(&kind)?;
    let most = limit.saturating_add(1);
    let mut bytes = Vec::new();
    if kind.file_type().is_fifo() {
        read_pipe(&file, most, patience, &mut bytes)?;
    } else {
        file.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn read_pipe(mut file: &File, most: usize, patience: Patience, bytes: &mut Vec<u8>) -> io::Result<()> {
    let whole = Deadline::after(patience.whole);
    let mut chunk = vec![0; 64 * 1024];
    while bytes.len() < most {
        wait_for_more(file, whole, patience)?;
        let room = chunk.len().min(most - bytes.len());
        match file.read(&mut chunk[..room]) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            // Another process reads it too.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until there is something to read, or the end.
fn wait_for_more(file: &File, whole: Deadline, patience: Patience) -> io::Result<()> {
    let next = Deadline::after(patience.next);
    loop {
        let late = |what: &str, within: Duration| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {}", rounded(within))))
        };
        if whole.has_passed() {
            return late("its end did not come", patience.whole);
        }
        if next.has_passed() {
            return late("nothing arrived", patience.next);
        }
        let remaining = next.earlier(whole).remaining() + Duration::from_millis(1);
        let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::try_from(remaining).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A device may never end, and opening one may do something.
fn refuse_other_kinds(found: &fs::Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let name = if kind.is_file() || kind.is_fifo() {
        return Ok(());
    } else if kind.is_dir() {
        return Err(nix::errno::Errno::EISDIR.into());
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a socket"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {name}, not a file or a pipe")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::thread;
    use std::time::Instant;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// Long enough for a writer that is there.
    const LONG: Patience = Patience { next: Duration::from_secs(20), whole: Duration::from_secs(20) };
    const SHORT: Patience = Patience { next: Duration::from_millis(50), whole: Duration::from_secs(20) };

    fn text(read: io::Result<Vec<u8>>) -> Result<String, String> {
        read.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_read_up_to_one_byte_more_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.xml");
        for (length, read) in [(0, 0), (9, 9), (10, 10), (11, 11), (12, 11), (100_000, 11)] {
            fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(read_given_file(&path, 10).unwrap().len(), read, "{length}");
        }
    }

    #[test]
    fn pipes_are_read_to_their_end_or_the_limit() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        writer.write_all(b"<domain/>").unwrap();
        let slow = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            writer.write_all(b"\n").unwrap();
        });
        assert_eq!(text(read_patiently(path.as_ref(), 100, LONG)), Ok("<domain/>\n".to_owned()));
        slow.join().unwrap();
        // Its writer has gone.
        assert_eq!(text(read_patiently(path.as_ref(), 100, LONG)), Ok(String::new()));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let writer = thread::spawn({
            let path = path.clone();
            // Until nobody reads any more.
            move || fs::write(path, vec![b'x'; 1_000_000])
        });
        assert_eq!(read_patiently(&path, 100_000, LONG).unwrap().len(), 100_001);
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_given_up() {
        let began = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let nothing = Err("nothing arrived within 50 ms".to_owned());
        assert_eq!(text(read_patiently(&path, 100, SHORT)), nothing);

        // One that has it open, begins and does not go on.
        let mut open = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert_eq!(text(read_patiently(&path, 100, SHORT)), nothing);
        open.write_all(b"<domain>").unwrap();
        assert_eq!(text(read_patiently(&path, 100, SHORT)), nothing);

        // One that never ends.
        let endless = Patience { next: Duration::from_secs(20), whole: Duration::from_millis(50) };
        let late = Err("its end did not come within 50 ms".to_owned());
        assert_eq!(text(read_patiently(&path, 100, endless)), late);
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn what_is_neither_file_nor_pipe_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        symlink("circle", folder.path().join("circle")).unwrap();
        for (path, reason) in [
            (Path::new("/dev/zero"), "it is a device, not a file or a pipe"),
            (Path::new("/dev/null"), "it is a device, not a file or a pipe"),
            (&path, "it is a socket, not a file or a pipe"),
            (folder.path(), "Is a directory (os error 21)"),
            (&folder.path().join("none"), "No such file or directory (os error 2)"),
            (&folder.path().join("dangling"), "a symbolic link leads to nothing"),
            (&folder.path().join("circle"), "Too many levels of symbolic links (os error 40)"),
        ] {
            assert_eq!(text(read_patiently(path, 100, LONG)), Err(reason.to_owned()), "{}", path.display());
        }
    }
}

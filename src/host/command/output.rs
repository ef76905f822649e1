//! What a command prints: whole lines for the log, and never more than a log bears.

use std::io::{self, PipeReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::printable::printable;

/// The longest line; what is longer is cut.
const MAX_LINE: usize = 2 * 1024;
/// The most lines of one command.
const MAX_LINES: usize = 500;
/// The most bytes of one command.
const MAX_BYTES: usize = 64 * 1024;

/// The reader's stack: room for a line, a chunk and the log.
const STACK: usize = 256 * 1024;

/// Takes each line.
pub(in crate::host) type LineSink = Box<dyn FnMut(&str) + Send>;

/// Ends, without a message, when everything is read.
pub(super) struct Drained(pub(super) Receiver<()>);

/// Reads a pipe to its end in a thread of its own, which may outlive the command: what that leaves in the background
/// may still print.
pub(super) fn read_in_background(pipe: PipeReader, sink: LineSink) -> io::Result<Drained> {
    let (end, drained) = channel();
    let read = move || {
        let mut pipe = pipe;
        let mut lines = Lines::new(sink);
        let mut chunk = vec![0; 16 * 1024];
        loop {
            match pipe.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => lines.take(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        lines.finish();
        drop(end);
    };
    thread::Builder::new().name("output".to_owned()).stack_size(STACK).spawn(read)?;
    Ok(Drained(drained))
}

/// Cuts a stream of bytes into lines.
struct Lines {
    sink: LineSink,
    line: Vec<u8>,
    /// The line was longer than it may be, and is already handed on: its end is looked for.
    is_cut: bool,
    lines: usize,
    bytes: usize,
    dropped: usize,
}

impl Lines {
    fn new(sink: LineSink) -> Self {
        Self { sink, line: Vec::new(), is_cut: false, lines: 0, bytes: 0, dropped: 0 }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.part(&bytes[..end]);
            if !self.is_cut {
                self.hand_on("");
            }
            self.is_cut = false;
            bytes = &bytes[end + 1..];
        }
        self.part(bytes);
    }

    fn part(&mut self, bytes: &[u8]) {
        if self.is_full() || self.is_cut {
            self.dropped += bytes.len();
            return;
        }
        let (fits, rest) = bytes.split_at(bytes.len().min(MAX_LINE - self.line.len()));
        self.line.extend_from_slice(fits);
        if !rest.is_empty() {
            self.dropped += rest.len();
            // A character cut in two goes with the rest.
            if let Err(error) = std::str::from_utf8(&self.line)
                && error.error_len().is_none()
            {
                self.dropped += self.line.len() - error.valid_up_to();
                self.line.truncate(error.valid_up_to());
            }
            self.hand_on("…");
            self.is_cut = true;
        }
    }

    fn hand_on(&mut self, mark: &str) {
        let line = std::mem::take(&mut self.line);
        if self.is_full() {
            return;
        }
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
        (self.sink)(&format!("{}{mark}", printable(&text)));
        self.lines += 1;
        self.bytes += line.len() + 1;
    }

    fn is_full(&self) -> bool {
        self.lines >= MAX_LINES || self.bytes >= MAX_BYTES
    }

    fn finish(mut self) {
        if !self.line.is_empty() {
            self.hand_on("");
        }
        if self.dropped > 0 {
            (self.sink)(&format!("… {} more bytes not logged", self.dropped));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (sender, receiver) = channel();
        let mut lines = Lines::new(Box::new(move |line| sender.send(line.to_owned()).unwrap()));
        for chunk in chunks {
            lines.take(chunk);
        }
        lines.finish();
        receiver.iter().collect()
    }

    #[test]
    fn puts_lines_together_and_makes_them_printable() {
        assert_eq!(
            lines(&[b"a", b"b\n\nc\r\n", b"\x1b[31m\xff\nlast"]),
            ["ab", "", "c", "\\u{1b}[31m\u{fffd}", "last"]
        );
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn cuts_a_long_line_between_characters() {
        let text = format!("x{}\nnext\n", "é".repeat(MAX_LINE));
        let expected = format!("x{}…", "é".repeat((MAX_LINE - 1) / 2));
        let dropped = text.len() - "\nnext\n".len() - (expected.len() - "…".len());
        for size in [1, 7, text.len()] {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let found = lines(&chunks);
            assert_eq!(found, [expected.as_str(), "next", &format!("… {dropped} more bytes not logged")]);
        }
    }

    #[test]
    fn stops_at_so_many_lines_or_bytes() {
        let many = lines(&[&b"x\n".repeat(MAX_LINES + 7)]);
        assert_eq!(many.len(), MAX_LINES + 1);
        assert_eq!(many[MAX_LINES], "… 7 more bytes not logged");

        let large = lines(&[&[&[b'x'; 1000][..], b"\n"].concat().repeat(1000)]);
        assert!(large.iter().map(String::len).sum::<usize>() <= MAX_BYTES + MAX_LINE);
        assert!(large[large.len() - 1].ends_with(" more bytes not logged"), "{}", large[large.len() - 1]);
    }
}

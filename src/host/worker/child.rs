//! What a worker does: orders, one after the other, until there are no more to come.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use serde::Serialize;

use super::order::{Answer, Order};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::exit_at_once;
use crate::host::files::{read_limited, write_existing};
use crate::host::monitors::talk_in_worker;
use crate::host::pci;

/// Carries out the orders on standard input, and answers on standard output. The process ends with the last of them, or
/// when nothing is there any more to hear an answer: at once, as each answer is flushed and nothing else is open.
pub fn run_worker() -> ! {
    exit_at_once(match serve(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    })
}

fn serve(mut orders: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        orders.read_until(b'\n', &mut line)?;
        // Half a line is no order: the parent was killed while it wrote.
        if !line.ends_with(b"\n") {
            return Ok(());
        }
        match serde_json::from_slice(&line)? {
            Order::Write { path, value } => {
                tell(&mut answers, &write_existing(&path, &value).map_err(Into::into))?;
            }
            Order::Read(paths) => {
                for path in paths {
                    let text = read_limited(&path)
                        .map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
                        .map_err(Into::into);
                    tell(&mut answers, &text)?;
                }
            }
            Order::Sync => {
                nix::unistd::sync();
                tell(&mut answers, &Ok(()))?;
            }
            Order::Probe(looks) => {
                pci::look_at_each(&looks, |looked| tell(&mut answers, &looked.map_err(Into::into)))?;
            }
            Order::Monitors { talk, milliseconds, hanging, found } => {
                let deadline = Deadline::after(Duration::from_millis(milliseconds));
                tell(&mut answers, &Ok(talk_in_worker(&talk, &found, &hanging, deadline)))?;
            }
        }
    }
}

/// Answers, at once: what comes next may hang.
fn tell<T: Serialize>(answers: &mut impl Write, answer: &Answer<T>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    answers.write_all(&line)?;
    answers.flush()
}

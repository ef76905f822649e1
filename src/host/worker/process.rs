//! The process of a worker, as its parent has it.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::WORKER;
use super::order::{Answer, LEAVES, Order};
use super::stuck::{StuckIn, StuckRegistry};
use crate::deadline::Deadline;
use crate::host::ProcessId;
use crate::host::bounded_child::{ChildEnd, MAX_HEARD, end_it, hear_more};
use crate::host::children::{OwnedChild, Wake, inherit_nothing};

/// How long one that is dismissed may take to end.
const ENDS: Duration = Duration::from_millis(200);

/// A worker that waits for an order.
pub(in crate::host) struct Worker {
    orders: ChildStdin,
    answers: ChildStdout,
    child: OwnedChild,
}

/// What came of an order.
#[derive(Debug)]
pub(in crate::host) struct Heard<T> {
    /// The answers, in their order, as far as there are any.
    pub(in crate::host) answers: Vec<Answer<T>>,
    /// How that came to an end.
    pub(in crate::host) end: End,
}

/// How a worker came to the end of an order.
#[derive(Debug)]
pub(in crate::host) enum End {
    /// All was answered.
    Answered,
    /// It ended before that, or answered nonsense: why.
    Died(io::Error),
    /// A signal that is not ours ended it: an administrator's, the kernel's for lack of memory, or the kernel's because
    /// it failed in what this process had it do.
    Signalled {
        /// The process's number.
        pid: i32,
        /// Which signal, in words.
        reason: io::Error,
    },
    /// It took too long, and was killed.
    Killed,
    /// It took too long, and the kernel does not let it end.
    Stuck(ProcessId),
}

impl Worker {
    fn start(vfio_hook: &Path) -> io::Result<Self> {
        let mut command = Command::new(vfio_hook);
        command.arg0("vfio-hook").arg(WORKER);
        Self::of(command)
    }

    fn of(mut command: Command) -> io::Result<Self> {
        // An environment would cost it time: the C library looks through all of it.
        inherit_nothing(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = OwnedChild::spawn(&mut command)?;
        match (child.take_stdin(), child.take_stdout()) {
            (Some(orders), Some(answers)) => {
                // Neither one that does not read nor one that does not end is waited for here.
                fcntl(&orders, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                fcntl(&answers, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                Ok(Self { orders, answers, child })
            }
            _ => Err(io::Error::other("the worker has no standard streams")),
        }
    }

    /// Has a worker carry out an order: this one, or a new one, of this program, where there is none any more. It comes
    /// back unless it is lost over the order.
    pub(super) fn ask<T: DeserializeOwned>(
        worker: Option<Self>,
        vfio_hook: &Path,
        order: &Order,
        deadline: Deadline,
    ) -> io::Result<(Heard<T>, Option<Self>)> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let mut worker = match worker {
            Some(worker) if !worker.child.has_ended()? => worker,
            // Another thread has ended the worker since.
            Some(ended) => {
                let _ = ended.child.reap();
                Self::start(vfio_hook)?
            }
            None => Self::start(vfio_hook)?,
        };
        let mut heard = Vec::new();
        let wake = match worker.orders.write_all(&line) {
            Ok(()) => worker.hear(order.answers(), &mut heard, deadline)?,
            // It is ending, or does not read. What it has of the order is not whole, and is not carried out.
            Err(_) => Hearing::Lost(Wake::TimedOut),
        };
        match wake {
            Hearing::Answered => {
                let answers = answers_in(&heard);
                let makes_sense = answers.len() == order.answers();
                let end = if makes_sense { End::Answered } else { End::Died(no_sense()) };
                Ok((Heard { answers, end }, Some(worker).filter(|_| makes_sense)))
            }
            Hearing::Lost(wake) => Ok((worker.part(wake, heard, order)?, None)),
        }
    }

    /// Reads answers as they come.
    fn hear(&mut self, count: usize, heard: &mut Vec<u8>, deadline: Deadline) -> io::Result<Hearing> {
        while lines(heard) < count {
            match hear_more(&self.child, &mut self.answers, heard, deadline)? {
                Some(Wake::Cancelled) => return self.child.wait(deadline, None).map(Hearing::Lost),
                Some(wake) => return Ok(Hearing::Lost(wake)),
                None if heard.len() > MAX_HEARD => return Ok(Hearing::Lost(Wake::TimedOut)),
                None => {}
            }
        }
        Ok(Hearing::Answered)
    }

    /// Parts with one that has ended or takes too long. What it answered until then counts.
    fn part<T: DeserializeOwned>(
        self,
        wake: Wake,
        mut heard: Vec<u8>,
        order: &Order,
    ) -> io::Result<Heard<T>> {
        let Self { orders, answers, child } = self;
        let pid = child.pid().as_raw();
        drop(orders);
        let end = match wake {
            Wake::Ended => ChildEnd::Ended(child.reap()?),
            Wake::Cancelled | Wake::TimedOut => end_it(child, order.ends())?,
        };
        // The pipe is read as far as it is filled: one that is stuck keeps it open.
        let _ = answers.take(MAX_HEARD as u64).read_to_end(&mut heard);
        let answers = answers_in(&heard);
        let end = match end {
            _ if answers.len() == order.answers() => End::Answered,
            ChildEnd::Ended(status) if status.signal().is_some() => {
                End::Signalled { pid, reason: death(status) }
            }
            ChildEnd::Ended(status) => End::Died(death(status)),
            ChildEnd::Killed => End::Killed,
            ChildEnd::Stuck(process) => End::Stuck(process),
        };
        Ok(Heard { answers, end })
    }

    /// Parts with one that a thread of its hangs in, at these places: it has no order to come, and ends as soon as the
    /// kernel lets it. Until it has, that is known.
    pub(super) fn leave_behind(self, hangs_in: Vec<StuckIn>, stuck: &StuckRegistry) {
        let Self { orders, answers: _, child } = self;
        drop(orders);
        if matches!(child.wait(Deadline::after(LEAVES), None), Ok(Wake::Ended)) {
            let _ = child.reap();
        } else {
            stuck.add_child(child, hangs_in);
        }
    }

    /// Has it end, which it does without an order to come.
    pub(super) fn dismiss(self) {
        let Self { orders, answers: _, child } = self;
        drop(orders);
        if matches!(child.wait(Deadline::after(ENDS), None), Ok(Wake::Ended)) {
            let _ = child.reap();
        } else {
            child.signal_group(Signal::SIGKILL);
        }
    }
}

/// Whether all was heard.
enum Hearing {
    Answered,
    /// The worker ended before that, or the time did.
    Lost(Wake),
}

fn lines(heard: &[u8]) -> usize {
    heard.iter().filter(|byte| **byte == b'\n').count()
}

/// The answers in what was heard, as far as each is whole.
fn answers_in<T: DeserializeOwned>(heard: &[u8]) -> Vec<Answer<T>> {
    let whole = heard.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    whole.map_while(|line| serde_json::from_slice(line).ok()).collect()
}

/// Why one that ended did not answer.
fn death(status: ExitStatus) -> io::Error {
    match status.signal() {
        Some(signal) => {
            let signal = Signal::try_from(signal).map_or("?", Signal::as_str);
            let words = format!("the process that did it was ended by {signal}");
            io::Error::new(io::ErrorKind::Interrupted, words)
        }
        None => io::Error::other(format!("the process that did it ended without an answer, with {status}")),
    }
}

fn no_sense() -> io::Error {
    io::Error::other("what the process that did it answers makes no sense")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);

    fn shell(script: &str) -> Worker {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Worker::of(command).unwrap()
    }

    fn two() -> Order {
        Order::Read(vec![PathBuf::from("/one"), PathBuf::from("/two")])
    }

    fn ask(worker: Worker, time: Duration) -> (Heard<String>, Option<Worker>) {
        Worker::ask(Some(worker), Path::new("/none"), &two(), Deadline::after(time)).unwrap()
    }

    #[test]
    fn one_that_answers_is_asked_again() {
        let mut worker = shell(r#"while read -r order; do echo "{\"Ok\":\"$$\"}"; echo '{"Err":5}'; done"#);
        let pid = worker.child.pid();
        for _ in 0..3 {
            let (heard, still_there) = ask(worker, LONG);
            assert!(matches!(heard.end, End::Answered), "{heard:?}");
            assert_eq!(heard.answers[0], Ok(pid.to_string()));
            assert!(heard.answers[1].is_err());
            worker = still_there.unwrap();
        }
        let began = Instant::now();
        worker.dismiss();
        assert!(began.elapsed() < ENDS, "it has an order less to wait for");
    }

    #[test]
    fn one_that_hangs_is_ended_and_what_it_answered_counts() {
        let (heard, worker) = ask(shell(r#"read -r order; echo '{"Ok":"a"}'; exec sleep 1000"#), SHORT);
        assert!(matches!(heard.end, End::Killed), "{heard:?}");
        assert_eq!(heard.answers, [Ok("a".to_owned())]);
        assert!(worker.is_none());
        let (heard, worker) = ask(shell("exec sleep 1000"), SHORT);
        assert!(matches!(heard.end, End::Killed) && heard.answers.is_empty(), "{heard:?}");
        assert!(worker.is_none());
    }

    #[test]
    fn one_that_dies_says_how() {
        let end = |script| match ask(shell(script), LONG).0.end {
            End::Died(reason) => reason.to_string(),
            end => panic!("{end:?}"),
        };
        assert_eq!(
            end("read -r order; echo a; echo b; read -r order"),
            "what the process that did it answers makes no sense"
        );
        assert_eq!(
            end("read -r order; exit 3"),
            "the process that did it ended without an answer, with exit status: 3"
        );
    }

    /// The kernel ends a process that it failed in with SIGSEGV or SIGKILL (`oops_end`, `make_task_dead`).
    #[test]
    fn one_that_a_signal_ends_is_told_from_one_that_ends() {
        for (signal, name) in [("TERM", "SIGTERM"), ("SEGV", "SIGSEGV"), ("KILL", "SIGKILL")] {
            let worker = shell(&format!("read -r order; kill -{signal} $$"));
            let number = worker.child.pid().as_raw();
            match ask(worker, LONG).0.end {
                End::Signalled { pid, reason } => {
                    assert_eq!(pid, number);
                    assert_eq!(reason.kind(), io::ErrorKind::Interrupted);
                    assert_eq!(reason.to_string(), format!("the process that did it was ended by {name}"));
                }
                end => panic!("{end:?}"),
            }
        }
    }

    /// Neither a flood, nor half an answer, nor one that something in the background may still give, is waited for.
    #[test]
    fn nothing_is_heard_without_an_end() {
        for script in
            ["exec cat /dev/zero", "printf '{\"Ok\"'; exec sleep 1000", "exec 1>&-; exec sleep 1000"]
        {
            let (heard, worker) = ask(shell(script), SHORT);
            assert!(matches!(heard.end, End::Killed), "{script}: {:?}", heard.end);
            assert!(heard.answers.is_empty() && worker.is_none(), "{script}");
        }
        let began = Instant::now();
        let (heard, _) = ask(shell("read -r order; sleep 60 & exit 0"), LONG);
        assert!(matches!(heard.end, End::Died(_)), "{heard:?}");
        assert!(began.elapsed() < LONG, "it waits for what is left in the background");
    }

    /// A pipe that nobody reads is full at some time.
    #[test]
    fn one_that_does_not_read_is_not_waited_for() {
        let order = Order::Write { path: PathBuf::from("/one"), value: "1".repeat(1 << 20) };
        let worker = shell("exec sleep 1000");
        let (heard, worker) =
            Worker::ask::<()>(Some(worker), Path::new("/none"), &order, Deadline::after(LONG)).unwrap();
        assert!(matches!(heard.end, End::Killed) && worker.is_none(), "{heard:?}");
    }
}

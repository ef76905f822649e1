//! The guest's commands that run in the background until it ends, each with a thread of its own.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::HostSource;
use super::command_queue::printing;
use super::notices::{Notice, NoticeSender, STACK};
use crate::command::Command;
use crate::host::{CommandEnd, CommandLine};

/// Ends all of them when it is dropped.
pub(super) struct EndOfGuest {
    _hangs_up: PipeWriter,
}

/// What starts them, and counts those that run.
#[derive(Clone)]
pub(super) struct Background {
    hosts: HostSource,
    notices: NoticeSender,
    running: Arc<AtomicUsize>,
    /// Hangs up when the guest has ended.
    guest_ended: Arc<PipeReader>,
}

impl Background {
    pub(super) fn new(hosts: HostSource, notices: NoticeSender) -> io::Result<(Self, EndOfGuest)> {
        let (reader, writer) = io::pipe()?;
        let running = Arc::new(AtomicUsize::new(0));
        let background = Self { hosts, notices, running, guest_ended: Arc::new(reader) };
        Ok((background, EndOfGuest { _hangs_up: writer }))
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Starts one. What becomes of it the log says.
    pub(super) fn start(&self, command: &Command, line: CommandLine, label: String) -> io::Result<()> {
        let this = self.clone();
        let (command, ends_within) = (command.clone(), command.timeout);
        self.running.fetch_add(1, Ordering::SeqCst);
        let run = move || {
            let began = Instant::now();
            // One that never counts as ended would keep the lease for ever.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let (print, last) = printing(&line.program);
                let cancel = this.guest_ended.as_fd();
                let end = (this.hosts)().run_in_background(&line, cancel, ends_within, print);
                tell(&command, &label, &end, &last.take(), began.elapsed());
            }));
            if ended.is_err() {
                crate::log::log_warning!("{}", command.say(format_args!("a bug in vfio-hook ended {label}")));
            }
            this.running.fetch_sub(1, Ordering::SeqCst);
            this.notices.send(Notice::BackgroundEnded);
        };
        let started = thread::Builder::new().name("background".to_owned()).stack_size(STACK).spawn(run);
        if started.is_err() {
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
        started.map(drop)
    }
}

/// Only the end that comes with that of the guest is as it should be.
fn tell(command: &Command, label: &str, end: &CommandEnd, said: &str, ran: Duration) {
    let seconds = ran.as_secs();
    match end {
        CommandEnd::Cancelled => tracing::debug!("{label} ended with the guest"),
        CommandEnd::Exited(0) => {
            crate::log::log_info!(
                "{}",
                command.say(format_args!("{label} ended by itself after {seconds} s"))
            );
        }
        end => {
            let words =
                format_args!("{label} failed after {seconds} s, and is not started again: {end}{said}");
            crate::log::log_warning!("{}", command.say(words));
        }
    }
}

//! Work that is done when this process is gone, whatever ended it.

use std::fs;
use std::io::{self, PipeWriter, Read};

use nix::unistd::ForkResult;

use super::apart::{block_signals, fork_alone};
use super::exit_at_once::exit_at_once;
use crate::exit::Exit;

/// Keeps the work waiting for as long as it, or this process, is there.
#[derive(Debug)]
pub(crate) struct Afterwards {
    _alive: PipeWriter,
}

/// Has a child do the work once this process is gone. None where there can be no child, as in a process of several
/// threads: one of these may hold a lock that nobody would open in the child.
pub(crate) fn afterwards(work: impl FnOnce()) -> Option<Afterwards> {
    let is_alone = fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    let (mut end, alive) = io::pipe().ok().filter(|_| is_alone)?;
    match fork_alone().ok()? {
        ForkResult::Parent { .. } => Some(Afterwards { _alive: alive }),
        ForkResult::Child => {
            // What a terminal or a shell sends to this process reaches its children, too.
            block_signals();
            drop(alive);
            let _ = end.read(&mut [0]);
            drop(end);
            work();
            exit_at_once(Exit::Done)
        }
    }
}

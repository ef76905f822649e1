//! The end of a process at which nothing else is done.

use nix::libc;

use crate::exit::Exit;

/// Ends the process, whatever its threads are at: no destructor runs, no buffer is flushed, no lock is taken.
#[expect(unsafe_code, reason = "neither std, nix nor rustix has `_exit` as a safe call")]
pub(crate) fn exit_at_once(exit: Exit) -> ! {
    // SAFETY: `_exit` takes a number, returns never, and runs nothing of this program.
    unsafe { libc::_exit(exit.code()) }
}

//! Waiting for a future, but not for ever: the library's own `block_on` has no end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::deadline::Deadline;

/// Runs a future on this thread until it is done; none where it is not by the deadline, and then it is dropped. It
/// must not block, which nothing of the D-Bus library does: its sockets are read and its timers run by a thread of its
/// own where nobody is inside its `block_on`.
pub(super) fn run_until<T>(deadline: Deadline, future: impl Future<Output = T>) -> Option<T> {
    run(Some(deadline), future)
}

/// Runs a future that has no end of its own.
pub(super) fn run_without_end<T>(future: impl Future<Output = T>) -> Option<T> {
    run(None, future)
}

fn run<T>(deadline: Option<Deadline>, future: impl Future<Output = T>) -> Option<T> {
    let signal = Arc::new(Signal { thread: thread::current(), is_woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        // Not the thread's own mark: what the future does may have used that up.
        while !signal.is_woken.swap(false, Ordering::AcqRel) {
            match deadline.map(Deadline::remaining) {
                None => thread::park(),
                Some(remaining) if remaining.is_zero() => return None,
                Some(remaining) => thread::park_timeout(remaining),
            }
        }
        // One that is woken again and again makes no time either.
        if deadline.is_some_and(Deadline::has_passed) {
            return None;
        }
    }
}

struct Signal {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn waits_for_what_comes_and_no_longer_than_until_the_deadline() {
        let later = Deadline::after(Duration::from_secs(20));
        let mut wakers = 0;
        let from_another_thread = poll_fn(|context| {
            wakers += 1;
            let waker = context.waker().clone();
            if wakers > 3 {
                return Poll::Ready(wakers);
            }
            thread::spawn(move || waker.wake());
            Poll::Pending
        });
        assert_eq!(run_until(later, from_another_thread), Some(4));
        assert_eq!(run_without_end(async { 7 }), Some(7));

        let (began, wait) = (Instant::now(), Duration::from_millis(50));
        assert_eq!(run_until(Deadline::after(wait), pending::<()>()), None);
        assert!(began.elapsed() >= wait);
        let restless = poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!(run_until(Deadline::after(wait), restless), None);
    }
}

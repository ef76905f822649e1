//! A thread that may hang in the kernel. It is waited for until a deadline and then left behind: its wait ends with the
//! process at the latest, or, where a driver keeps it, with the driver's.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::stuck::{StuckIn, StuckRegistry};
use crate::deadline::Deadline;

/// What such a thread needs: a few frames, a path, a message of at most 128 bytes, lines on the heap. The tests pass
/// with a quarter of this, without optimisation.
const STACK: usize = 256 * 1024;

/// One that was started, and what it answers.
#[derive(Debug)]
pub(in crate::host) struct BoundedThread<T> {
    answers: Receiver<T>,
    /// None once it has ended or was left behind.
    thread: Option<JoinHandle<()>>,
    hangs_in: StuckIn,
    registry: StuckRegistry,
}

/// Why none was started.
#[derive(Debug)]
pub(in crate::host) enum NotStarted {
    /// An earlier one still hangs there.
    Hangs,
    /// The kernel has no thread to give.
    NoThread(io::Error),
}

/// It did not answer until the deadline.
#[derive(Debug)]
pub(in crate::host) struct TookTooLong;

impl<T: Send + 'static> BoundedThread<T> {
    /// Starts a job that gives its answers to a sender. What it may hang in is the key under which `registry` remembers
    /// it then. Where the sender fails nothing listens any more, and the job ends.
    ///
    /// # Errors
    /// An earlier one hangs there, or there is no thread to be had.
    pub(in crate::host) fn start(
        registry: &StuckRegistry,
        may_hang_in: StuckIn,
        job: impl FnOnce(&Sender<T>) + Send + 'static,
    ) -> Result<Self, NotStarted> {
        if registry.is_stuck(&may_hang_in) {
            return Err(NotStarted::Hangs);
        }
        let (sender, answers) = channel();
        let thread = Builder::new().name(thread_name(&may_hang_in)).stack_size(STACK);
        let thread = thread.spawn(move || job(&sender)).map_err(NotStarted::NoThread)?;
        Ok(Self { answers, thread: Some(thread), hangs_in: may_hang_in, registry: registry.clone() })
    }

    /// Its next answer; none once it has ended.
    ///
    /// # Errors
    /// It did not answer until the deadline: it is left behind.
    ///
    /// # Panics
    /// Where the job did.
    pub(in crate::host) fn next(&mut self, deadline: Deadline) -> Result<Option<T>, TookTooLong> {
        match self.answers.recv_timeout(deadline.remaining()) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Disconnected) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(panic)) => resume_unwind(panic),
                Some(Ok(())) | None => Ok(None),
            },
            Err(RecvTimeoutError::Timeout) => {
                if let Some(thread) = self.thread.take() {
                    self.registry.add_thread(thread, self.hangs_in.clone());
                }
                Err(TookTooLong)
            }
        }
    }
}

/// What `ps -T` shows: at most 15 bytes.
fn thread_name(may_hang_in: &StuckIn) -> String {
    match may_hang_in {
        StuckIn::Bus(bus) => bus.to_string(),
        StuckIn::Processes(_) => "processes".to_owned(),
        StuckIn::Mappings(_) => "maps".to_owned(),
        StuckIn::Path(_) => "stat".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::host::i2c::I2cBus;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    #[test]
    fn one_that_hangs_is_not_waited_for_nor_joined_by_another() {
        let registry = StuckRegistry::default();
        let place = || StuckIn::Processes(PathBuf::from("/proc"));
        let (lets_go, hangs) = channel::<()>();
        let job = move |tell: &Sender<u8>| {
            tell.send(1).unwrap();
            let _ = hangs.recv();
        };
        let mut hanging = BoundedThread::start(&registry, place(), job).unwrap();
        assert_eq!(hanging.next(soon()).unwrap(), Some(1));
        hanging.next(Deadline::after(Duration::from_millis(20))).unwrap_err();
        let start = |place| BoundedThread::start(&registry, place, |tell| tell.send(2_u8).unwrap());
        assert!(matches!(start(place()), Err(NotStarted::Hangs)));
        let mut elsewhere = start(StuckIn::Bus(I2cBus(7))).unwrap();
        assert_eq!(elsewhere.next(soon()).unwrap(), Some(2), "what hangs elsewhere is no reason");
        assert_eq!(elsewhere.next(soon()).unwrap(), None);
        drop(lets_go);
        let time = soon();
        let mut again = loop {
            match start(place()) {
                Ok(again) => break again,
                Err(_) if !time.has_passed() => thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(again.next(soon()).unwrap(), Some(2));
    }

    /// One that has answered, or that nothing listens to any more, has not hung.
    #[test]
    fn one_that_is_slow_after_its_answer_is_not_stuck() {
        let registry = StuckRegistry::default();
        let (lets_go, hangs) = channel::<()>();
        let job = move |tell: &Sender<u8>| {
            tell.send(1).unwrap();
            let _ = hangs.recv();
        };
        let mut slow = BoundedThread::start(&registry, StuckIn::Bus(I2cBus(7)), job).unwrap();
        assert_eq!(slow.next(soon()).unwrap(), Some(1));
        drop(slow);
        assert_eq!(registry.buses(), []);
        drop(lets_go);
    }

    #[test]
    fn a_panic_is_passed_on() {
        let registry = StuckRegistry::default();
        let job = |_: &Sender<()>| panic!("as it is told");
        let mut thread = BoundedThread::start(&registry, StuckIn::Bus(I2cBus(7)), job).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| thread.next(soon()))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"as it is told"));
    }
}

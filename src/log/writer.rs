//! The thread that writes lines to the journal: it alone waits for a journald that does not read.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::dispatcher::with_default;
use tracing::field::{Field, Value, Visit};
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::deadline::Deadline;
use crate::printable::count;

/// How many lines wait while journald is busy: all that one event of a guest says, several times over.
const QUEUE: usize = 256;

/// The thread's stack: the journal's lines are built on the heap.
const STACK: usize = 256 * 1024;

/// A line of the log, apart from the call that made it.
#[derive(Debug)]
pub(super) struct Line {
    metadata: &'static Metadata<'static>,
    /// The values of its fields, in their order.
    values: Vec<Option<String>>,
}

impl Line {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut line = Self { metadata, values: vec![None; metadata.fields().len()] };
        event.record(&mut line);
        line
    }

    fn set(&mut self, field: &Field, value: String) {
        if let Some(place) = self.values.get_mut(field.index()) {
            *place = Some(value);
        }
    }

    /// `info`, `warn`, `error`.
    pub(super) fn level(&self) -> String {
        self.metadata.level().as_str().to_lowercase()
    }

    pub(super) fn message(&self) -> &str {
        self.message_index().and_then(|index| self.values.get(index)?.as_deref()).unwrap_or_default()
    }

    fn message_index(&self) -> Option<usize> {
        self.metadata.fields().field("message").map(|field| field.index())
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }
}

/// journald, as the thread has it.
pub(super) struct Journal {
    dispatch: Dispatch,
    /// What stands before each message: `journalctl` shows no field but that.
    subject: String,
}

impl Journal {
    pub(super) fn new(layer: tracing_journald::Layer, subject: String) -> Self {
        Self { dispatch: Dispatch::new(tracing_subscriber::registry().with(layer)), subject }
    }

    fn write(&self, line: &Line) {
        let message = format!("{}: {}", self.subject, line.message());
        let is_message = |index| line.message_index() == Some(index);
        let values = line.values.iter().enumerate().map(|(index, value)| match value {
            Some(_) if is_message(index) => Some(&message as &dyn Value),
            value => value.as_ref().map(|value| value as &dyn Value),
        });
        let values: Vec<Option<&dyn Value>> = values.collect();
        let values = line.metadata.fields().value_set_all(&values);
        self.dispatch.event(&Event::new(line.metadata, &values));
    }
}

/// The sending side of the thread.
pub(super) struct Writer {
    /// None where no thread could be started: then every line is kept.
    queue: Option<SyncSender<Order>>,
    progress: Arc<Progress>,
    keep: fn(&Line),
}

/// What the thread is to do.
enum Order {
    Write(Line),
    /// To write this at that moment, if it is still there.
    AnnounceAt(Deadline, String),
}

/// How far the thread has come.
#[derive(Default)]
struct Progress {
    lines: Mutex<Lines>,
    written: Condvar,
}

#[derive(Default)]
struct Lines {
    /// In the queue, or being written.
    waiting: usize,
    /// That the queue could not hold, and that no line has told of yet.
    lost: usize,
}

impl Progress {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) {
        let mut lines = self.lines();
        lines.waiting -= 1;
        if lines.waiting == 0 {
            self.written.notify_all();
        }
    }

    fn take_lost(&self) -> usize {
        std::mem::take(&mut self.lines().lost)
    }
}

impl Writer {
    /// Starts the thread. It connects to the journal by itself; where there is none, lines go to `keep`.
    pub(super) fn start(connect: impl FnOnce() -> Option<Journal> + Send + 'static, keep: fn(&Line)) -> Self {
        Self::start_with(
            move || {
                let journal = connect();
                move |line: &Line| match &journal {
                    Some(journal) => journal.write(line),
                    None => keep(line),
                }
            },
            keep,
        )
    }

    /// The same with any sink, which the thread makes for itself.
    fn start_with<S: FnMut(&Line)>(make_sink: impl FnOnce() -> S + Send + 'static, keep: fn(&Line)) -> Self {
        let (queue, orders) = sync_channel(QUEUE);
        let progress = Arc::<Progress>::default();
        let shared = Arc::clone(&progress);
        let work = move || write_all(&orders, &shared, make_sink());
        let thread = thread::Builder::new().name("log".to_owned()).stack_size(STACK).spawn(work);
        Self { queue: thread.is_ok().then_some(queue), progress, keep }
    }

    /// Hands a line over. Never waits: a line for which there is no room is lost, and counted.
    pub(super) fn write(&self, line: Line) {
        let Some(queue) = &self.queue else { return (self.keep)(&line) };
        // Counted first: the thread may be done with it before this goes on.
        self.progress.lines().waiting += 1;
        if queue.try_send(Order::Write(line)).is_err() {
            self.progress.lines().lost += 1;
            self.progress.is_done();
        }
    }

    /// Has the thread write this at that moment.
    pub(super) fn announce_at(&self, moment: Deadline, text: String) {
        if let Some(queue) = &self.queue {
            // Without room for it the log has other troubles.
            let _ = queue.try_send(Order::AnnounceAt(moment, text));
        }
    }

    /// Waits until nothing is waiting any more, or for the deadline.
    pub(super) fn flush(&self, deadline: Deadline) {
        let lines = self.progress.lines();
        let wait = |lines: &mut Lines| lines.waiting > 0;
        drop(self.progress.written.wait_timeout_while(lines, deadline.remaining(), wait));
    }
}

/// What the thread does, to the end of the process.
fn write_all(orders: &Receiver<Order>, progress: &Progress, mut sink: impl FnMut(&Line)) {
    let mut announced: Option<(Deadline, String)> = None;
    loop {
        let until = announced.as_ref().map_or(Duration::MAX, |(moment, _)| moment.remaining());
        match orders.recv_timeout(until) {
            Ok(Order::Write(line)) => {
                sink(&line);
                let lost = progress.take_lost();
                if lost > 0 {
                    say_lost(lost, &mut sink);
                }
                progress.is_done();
            }
            Ok(Order::AnnounceAt(moment, text)) => announced = Some((moment, text)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, text)) = announced.take() {
                    announce(text, &mut sink);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn say_lost(lost: usize, sink: &mut impl FnMut(&Line)) {
    let lines = count(lost, "line");
    through(sink, || tracing::warn!("{lines} lost: the journal did not take them in time"));
}

fn announce(text: String, sink: &mut impl FnMut(&Line)) {
    through(sink, || tracing::error!("{text}"));
}

/// Makes lines with the log's own macros, in this thread, and gives them to the sink.
fn through(sink: &mut impl FnMut(&Line), say: impl FnOnce()) {
    let said = Arc::<Mutex<Vec<Line>>>::default();
    with_default(&Dispatch::new(tracing_subscriber::registry().with(Collect(Arc::clone(&said)))), say);
    said.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(sink);
}

/// Collects lines.
struct Collect(Arc<Mutex<Vec<Line>>>);

impl<S: Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Line::of(event));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Far more than anything here takes.
    const SOON: Duration = Duration::from_secs(20);

    /// A line as a macro makes it.
    fn line(text: &str) -> Line {
        let said = Arc::<Mutex<Vec<Line>>>::default();
        let collect = tracing_subscriber::registry().with(Collect(Arc::clone(&said)));
        with_default(&Dispatch::new(collect), || tracing::info!("{text}"));
        said.lock().unwrap().pop().unwrap()
    }

    fn no_thread(_: &Line) {
        panic!("there is a thread");
    }

    /// A journal that takes a line whenever the test says so, and what it took.
    fn journal(taken: Sender<String>, may_take: Receiver<()>) -> Writer {
        let sink = move || {
            move |line: &Line| {
                let _ = may_take.recv();
                let _ = taken.send(format!("{} {}", line.level(), line.message()));
            }
        };
        Writer::start_with(sink, no_thread)
    }

    #[test]
    fn a_journal_that_takes_nothing_keeps_nobody_and_loses_what_the_queue_cannot_hold() {
        let ((taken, takes), (let_it, may_take)) = (channel(), channel());
        let writer = journal(taken, may_take);
        // One more than the queue holds may be with the thread.
        for number in 0..QUEUE + 40 {
            writer.write(line(&number.to_string()));
        }
        writer.flush(Deadline::after(Duration::from_millis(1)));
        drop(let_it);
        writer.flush(Deadline::after(SOON));
        drop(writer);
        let took: Vec<String> = takes.iter().collect();
        let lost: Vec<&String> = took.iter().filter(|line| line.starts_with("warn ")).collect();
        let written = took.len() - lost.len();
        assert!((QUEUE..=QUEUE + 1).contains(&written), "{written}");
        let expected =
            format!("warn {} lines lost: the journal did not take them in time", QUEUE + 40 - written);
        assert_eq!(lost, [&expected]);
        assert_eq!(took[0], "info 0");
    }

    #[test]
    fn a_flush_waits_for_what_was_handed_over() {
        let ((taken, takes), (let_it, may_take)) = (channel(), channel());
        let writer = journal(taken, may_take);
        writer.write(line("one"));
        writer.write(line("two"));
        let_it.send(()).unwrap();
        let_it.send(()).unwrap();
        writer.flush(Deadline::after(SOON));
        assert_eq!(takes.try_iter().collect::<Vec<_>>(), ["info one", "info two"]);
    }

    #[test]
    fn an_announcement_comes_when_nothing_else_does() {
        let ((taken, takes), (let_it, may_take)) = (channel(), channel());
        let writer = journal(taken, may_take);
        drop(let_it);
        writer.announce_at(Deadline::after(Duration::from_millis(1)), "release takes long".to_owned());
        assert_eq!(takes.recv_timeout(SOON).unwrap(), "error release takes long");
    }
}

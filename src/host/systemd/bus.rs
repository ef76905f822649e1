//! A connection to a bus, made when it is first needed, so that a host without work never pays for it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use zbus::connection::Builder;
use zbus::{Connection, DynamicType, Message};

use super::executor::run_until;
use crate::deadline::Deadline;

/// The longest wait for one answer; systemd and logind answer in milliseconds unless they are stuck.
pub(super) const ANSWER: Duration = Duration::from_secs(4);

/// The system bus.
#[derive(Debug, Default)]
pub(in crate::host) struct Bus(Mutex<Option<Connection>>);

/// An object, and the interface of it that is meant.
#[derive(Clone, Copy, Debug)]
pub(in crate::host) struct Object<'a> {
    pub(in crate::host) service: &'a str,
    pub(in crate::host) path: &'a str,
    pub(in crate::host) interface: &'a str,
}

/// A call that is under way. One that is given up may have sent half of its message: the connection is of no use to
/// others then.
struct UnderWay<'a>(&'a Bus);

impl Bus {
    async fn connection(&self) -> zbus::Result<Connection> {
        // A restart of the bus closes the connection, and a keeper lives longer than that.
        let known = self.known().clone();
        if let Some(connection) = known.filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        let connection = connect().await?;
        *self.known() = Some(connection.clone());
        Ok(connection)
    }

    /// Calls a method. To be waited for by [`within`] alone: there is no other limit.
    pub(in crate::host) async fn call(
        &self,
        object: Object<'_>,
        method: &str,
        body: &(impl Serialize + DynamicType),
    ) -> zbus::Result<Message> {
        let connection = self.connection().await?;
        let under_way = UnderWay(self);
        let called = connection
            .call_method(Some(object.service), object.path, Some(object.interface), method, body)
            .await;
        std::mem::forget(under_way);
        called
    }

    fn known(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.known() = None;
    }
}

/// A connection of one's own to the system bus.
pub(in crate::host) async fn connect() -> zbus::Result<Connection> {
    Builder::system().build().await
}

/// Waits for an answer, but not for longer than one may take, nor than is left. Connecting, the bus's greeting and all
/// calls of the future count.
pub(in crate::host) fn within<T>(
    deadline: Deadline,
    call: impl Future<Output = zbus::Result<T>>,
) -> zbus::Result<T> {
    within_patience(ANSWER, deadline, call)
}

/// The same for a call that may take so long.
pub(super) fn within_patience<T>(
    patience: Duration,
    deadline: Deadline,
    call: impl Future<Output = zbus::Result<T>>,
) -> zbus::Result<T> {
    let timed_out = |words: &str| zbus::Error::from(io::Error::new(io::ErrorKind::TimedOut, words));
    if deadline.has_passed() {
        return Err(timed_out("no time is left"));
    }
    let deadline = Deadline::after(patience).earlier(deadline);
    run_until(deadline, call).unwrap_or_else(|| Err(timed_out("it did not answer in time")))
}

/// Whether nobody answered in time.
pub(in crate::host) fn is_timeout(error: &zbus::Error) -> bool {
    matches!(
        error,
        zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _)
            if error.kind() == io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests;

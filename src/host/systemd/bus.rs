//! A connection to a bus, made when it is first needed, so that a host without work never pays for it.

use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use zbus::connection::Builder;
use zbus::{Connection, DynamicType, Message};

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

impl Bus {
    pub(in crate::host) async fn connection(&self) -> zbus::Result<Connection> {
        // A restart of the bus closes the connection, and a keeper lives longer than that.
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = known.filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        let connection = connect(ANSWER).await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }

    pub(in crate::host) async fn call(
        &self,
        object: Object<'_>,
        method: &str,
        body: &(impl Serialize + DynamicType),
    ) -> zbus::Result<Message> {
        self.connection()
            .await?
            .call_method(Some(object.service), object.path, Some(object.interface), method, body)
            .await
    }
}

/// A connection that waits so long for each answer, the first one included.
pub(in crate::host) async fn connect(patience: Duration) -> zbus::Result<Connection> {
    build(Builder::system(), patience)
}

/// The library has no limit for the greeting. A bus that takes the connection and says nothing is waited for by a
/// thread, which ends with the program.
fn build(builder: Builder<'static>, patience: Duration) -> zbus::Result<Connection> {
    let (made, connection) = mpsc::channel();
    let greet = move || {
        // Nobody may listen any more.
        let _ = made.send(zbus::block_on(builder.method_timeout(patience).build()));
    };
    thread::Builder::new()
        .name("greeting".to_owned())
        .spawn(greet)
        .map_err(|error| zbus::Error::Failure(format!("no thread for the bus: {error}")))?;
    connection
        .recv_timeout(patience)
        .unwrap_or_else(|_| Err(zbus::Error::Failure("the bus does not answer".to_owned())))
}

/// Waits for an answer, but not for longer than is left.
pub(in crate::host) fn within<T>(
    deadline: Deadline,
    call: impl Future<Output = zbus::Result<T>>,
) -> Result<T, zbus::Error> {
    if deadline.has_passed() {
        return Err(zbus::Error::Failure("no time is left".to_owned()));
    }
    zbus::block_on(call)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_bus_that_says_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let _silent = UnixListener::bind(&socket).unwrap();
        let address = format!("unix:path={}", socket.display());
        let builder = Builder::address(address.as_str());
        let error = build(builder, Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.to_string(), "the bus does not answer");
    }
}

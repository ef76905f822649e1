//! What systemd and logind announce on the bus.

use std::pin::Pin;
use std::time::Duration;

use zbus::connection::Builder;
use zbus::export::futures_core::Stream;
use zbus::{Connection, Message, MessageStream};

use super::bus::within;
use super::executor::run_without_end;
use super::{MANAGER, MANAGER_PATH, SYSTEMD};
use crate::deadline::Deadline;
use crate::host::logind::{LOGIN_MANAGER, LOGIND};

/// The first and the longest pause before a bus that went away is tried again.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// How long connecting and asking for the messages may take.
const SUBSCRIBE: Duration = Duration::from_secs(4);

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// Something that may have changed what was set at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusSignal {
    /// systemd has read its unit files again (`daemon-reload`), or may have while the bus was away.
    Reloaded,
    /// logind came back, or may have.
    LogindIsBack,
    /// The host has slept, or has not after all (`PrepareForSleep`).
    HostWokeUp,
}

/// Listens for as long as the process lives, and connects again when the bus was restarted or does not answer. Only the
/// messages wanted wake it.
pub fn watch_bus_signals(mut on: impl FnMut(BusSignal)) {
    let [mut pause, longest] = RETRY;
    let mut was_away = false;
    loop {
        if let Ok(connection) = within(Deadline::after(SUBSCRIBE), subscribe(Builder::system())) {
            if was_away {
                on(BusSignal::Reloaded);
                on(BusSignal::LogindIsBack);
            }
            run_without_end(listen(&connection, &mut on));
            pause = RETRY[0];
        }
        was_away = true;
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

async fn subscribe(bus: Builder<'static>) -> zbus::Result<Connection> {
    let connection = bus.build().await?;
    let (login_path, login_interface) = (LOGIN_MANAGER.path, LOGIN_MANAGER.interface);
    let rules = [
        format!(
            "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',member='Reloading'"
        ),
        format!(
            "type='signal',sender='{LOGIND}',path='{login_path}',interface='{login_interface}',member='PrepareForSleep'"
        ),
        owner_changed(LOGIND),
        owner_changed(SYSTEMD),
    ];
    for rule in rules {
        connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", &rule).await?;
    }
    // systemd sends signals only while a client has asked for them.
    connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Subscribe", &()).await?;
    Ok(connection)
}

fn owner_changed(name: &str) -> String {
    format!("type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{name}'")
}

/// Until the connection is closed.
async fn listen(connection: &Connection, on: &mut impl FnMut(BusSignal)) {
    let mut messages = MessageStream::from(connection);
    while let Some(message) = next(&mut messages).await {
        let Ok(message) = message else { return };
        let header = message.header();
        match header.member().map(|member| member.as_str()) {
            // Sent with true before, and with false after.
            Some("Reloading") if message.body().deserialize::<bool>() == Ok(false) => on(BusSignal::Reloaded),
            // Before and after a sleep, in the same way.
            Some("PrepareForSleep") if message.body().deserialize::<bool>() == Ok(false) => {
                on(BusSignal::HostWokeUp);
            }
            Some("NameOwnerChanged") => match message.body().deserialize::<(String, String, String)>() {
                Ok((name, _, owner)) if !owner.is_empty() && name == LOGIND => on(BusSignal::LogindIsBack),
                // systemd was executed anew: it knows none of its subscribers any more.
                Ok((name, _, owner)) if !owner.is_empty() && name == SYSTEMD => return,
                _ => {}
            },
            _ => {}
        }
    }
}

async fn next(messages: &mut MessageStream) -> Option<zbus::Result<Message>> {
    std::future::poll_fn(|context| Pin::new(&mut *messages).poll_next(context)).await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::host::hung_peer::{HungPeer, Kind};

    #[test]
    fn a_bus_that_takes_the_connection_and_says_nothing_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let _peer = HungPeer::start(&socket, Kind::SaysNothing);
        let address = format!("unix:path={}", socket.display());
        let (sender, end) = channel();
        thread::spawn(move || {
            let bus = Builder::address(address.as_str());
            let soon = Deadline::after(Duration::from_millis(200));
            sender.send(within(soon, subscribe(bus)).is_err())
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(true));
    }
}

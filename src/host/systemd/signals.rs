//! What systemd and logind announce on the bus.

use std::pin::Pin;
use std::time::Duration;

use zbus::export::futures_core::Stream;
use zbus::{Connection, Message, MessageStream};

use super::bus::ANSWER;
use super::{MANAGER, MANAGER_PATH, SYSTEMD};
use crate::host::logind::LOGIND;

/// The first and the longest pause before a bus that went away is tried again.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// Something that may have changed what was set at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusSignal {
    /// systemd has read its unit files again (`daemon-reload`), or may have while the bus was away.
    Reloaded,
    /// logind came back, or may have.
    LogindIsBack,
}

/// Listens for as long as the process lives, and connects again when the bus was restarted. Only the messages wanted
/// wake it.
pub fn watch_bus_signals(mut on: impl FnMut(BusSignal)) {
    let [mut pause, longest] = RETRY;
    let mut was_away = false;
    loop {
        if let Ok(connection) = zbus::block_on(subscribe()) {
            if was_away {
                on(BusSignal::Reloaded);
                on(BusSignal::LogindIsBack);
            }
            zbus::block_on(listen(&connection, &mut on));
            pause = RETRY[0];
        }
        was_away = true;
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

async fn subscribe() -> zbus::Result<Connection> {
    let connection = zbus::connection::Builder::system().method_timeout(ANSWER).build().await?;
    let rules = [
        format!(
            "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',member='Reloading'"
        ),
        owner_changed(LOGIND),
        owner_changed(SYSTEMD),
    ];
    for rule in rules {
        connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", &rule).await?;
    }
    // systemd sends signals only while somebody has asked for them.
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

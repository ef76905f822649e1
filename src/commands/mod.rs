//! A person's commands: one file each. They read and print; what they decide about the host is decided elsewhere.

mod check;
mod demo;
mod given_guest;
mod gpu;
mod grouped;
mod hold;
mod lock;
mod log;
mod monitors;
mod output;
mod quarantines;
mod reach;
mod reading;
mod status;
mod test;
mod undo;
mod user_error;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit::Exit;
use crate::guest::GuestName;
use output::Format;
use undo::Whose;

/// Carries out what a person typed, and prints what came of it. Output that cannot be written is a failure, whatever
/// else came of it.
#[must_use]
pub fn run_command_line() -> Exit {
    output::finish(match Cli::try_parse() {
        Ok(cli) => {
            if cli.verbose {
                crate::log::open_for_a_person();
            }
            run(cli.command)
        }
        Err(answer) => output::usage(&answer),
    })
}

fn run(command: Command) -> Exit {
    let result = match command {
        Command::Test { guest, operation, xml, json } => {
            test::run(&guest, operation.into(), xml.as_deref(), format_of(json))
        }
        Command::Check { targets, json } => check::run(&targets, format_of(json)),
        Command::Status { guest, json } => status::run(guest.as_deref(), format_of(json)),
        Command::Hold { guest, xml, json } => hold::run(&guest, xml.as_deref(), format_of(json)),
        Command::Undo { guest, stale: _, unattended, force, json } => {
            let whose = match guest.map(GuestName::new) {
                Some(guest) if force => Whose::Forced(guest),
                Some(guest) => Whose::Stopped(guest),
                None if unattended => Whose::StaleUnattended,
                None => Whose::Stale,
            };
            undo::run(&whose, format_of(json))
        }
        Command::Log { guest, boot, follow } => {
            let scope = if boot { log::Scope::ThisBoot } else { log::Scope::All };
            let end = if follow { log::End::Never } else { log::End::AtTheLastLine };
            log::run(guest, scope, end)
        }
        Command::Demo { config, xml } => demo::run(config.as_deref(), xml.as_deref()),
        Command::Monitors { command, json } => monitors::run(command, format_of(json)),
        Command::Gpu { command, address, json } => gpu::run(command, address, format_of(json)),
    };
    result.unwrap_or_else(|error| {
        output::error(&error);
        error.exit
    })
}

/// What the option `--json` asks for.
fn format_of(json: bool) -> Format {
    if json { Format::Json } else { Format::Text }
}

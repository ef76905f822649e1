//! A person's commands: one file each. They read and print; what they decide about the host is decided elsewhere.

mod check;
mod demo;
mod gpu;
mod lock;
mod monitors;
mod output;
mod quarantines;
mod status;
mod test;
mod undo;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit::Exit;
use crate::host::StartAgain;

/// Carries out what a person typed, and prints what came of it. Output that cannot be written is a failure, whatever
/// else came of it.
#[must_use]
pub fn run_command_line() -> Exit {
    output::finish(match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        Err(answer) => output::usage(&answer),
    })
}

fn run(command: Command) -> Exit {
    let result = match command {
        Command::Test { guest, operation, xml, json } => {
            test::run(&guest, operation.into(), xml.as_deref(), output::Format::new(json))
        }
        Command::Check { targets, json } => check::run(&targets, output::Format::new(json)),
        Command::Status { guest, json } => status::run(guest.as_deref(), output::Format::new(json)),
        Command::Undo { guest, stale: _, force, json } => {
            let whose = undo::Whose::new(guest, force);
            undo::run(&whose, output::Format::new(json))
        }
        Command::Demo { config, xml } => demo::run(config.as_deref(), xml.as_deref()),
        Command::Monitors { command, json } => monitors::run(command, output::Format::new(json)),
        Command::Gpu { command, address, json } => gpu::run(command, address, output::Format::new(json)),
        Command::Keeper { guest } => return crate::keeper::run(guest),
        Command::WriteAttribute { path, value } => Ok(crate::host::write_attribute(&path, &value)),
        Command::ReadAttributes { paths } => crate::host::read_attributes(&paths).map_err(Into::into),
        Command::ProbePci { order } => crate::host::probe_pci(&order).map_err(Into::into),
        Command::StartAgain { apart, guest, name } => {
            let part = if apart { StartAgain::Apart } else { StartAgain::Here };
            return crate::host::start_again(part, guest, &name);
        }
        Command::TalkToMonitors { order } => crate::host::talk_to_monitors(&order).map_err(Into::into),
        Command::RunProgram { run_as, program, arguments } => {
            Ok(crate::host::run_program(&run_as, &program, &arguments))
        }
    };
    result.unwrap_or_else(|error| {
        output::error(&error);
        Exit::Failed
    })
}

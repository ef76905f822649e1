//! `vfio-hook gpu`: the graphics cards that are there, how they are, and one in quarantine out of it again.

mod card;
mod clear;
mod look;
mod report;
mod sheet;
#[cfg(test)]
mod tests;

use super::format_of;
use super::output::Format;
use crate::cli::GpuCommand;
use crate::commands::user_error::UserResult;
use crate::exit::Exit;
use crate::host::Host;
use crate::pci::PciSlot;

pub(super) fn run(command: Option<GpuCommand>, address: Option<PciSlot>, format: Format) -> UserResult<Exit> {
    let mut host = Host::real();
    match command {
        None => look::run(&host, address, format),
        Some(GpuCommand::Report { address, json }) => report::run(&host, address, format_of(json)),
        Some(GpuCommand::Clear { address, json }) => clear::run(&mut host, address, format_of(json)),
    }
}

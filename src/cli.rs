//! The command line of a person.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::event::Operation;
use crate::pci::PciSlot;

/// The libvirt hook for virtual machines with a passed-through GPU.
///
/// libvirt runs it as /etc/libvirt/hooks/qemu; these commands are for people.
#[derive(Debug, Parser)]
#[command(name = "vfio-hook", version)]
pub struct Cli {
    /// Say on standard error what is done, step by step
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What a person can ask for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what would happen to the host at an event of a guest; changes nothing
    Test {
        /// The guest's name
        guest: OsString,
        /// The event
        #[arg(value_enum, default_value_t = TestedOperation::Prepare)]
        operation: TestedOperation,
        /// The guest's XML; libvirt's own file if not given
        #[arg(long, value_name = "FILE")]
        xml: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check YAML files, with the place of every mistake
    Check {
        /// Guests or files (`host.yaml` is the host's, `guests.yaml` that of groups); all of this host if none is given
        #[arg(value_name = "GUEST|FILE")]
        targets: Vec<OsString>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who holds what, since when, and what differs from the ledger
    Status {
        /// Only this guest
        guest: Option<OsString>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take what a guest's file asks for without starting it, until `undo` or its start
    Hold {
        /// The guest's name
        guest: OsString,
        /// The guest's XML; libvirt's own file if not given
        #[arg(long, value_name = "FILE")]
        xml: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give back what a guest holds
    #[command(group = clap::ArgGroup::new("whose").required(true))]
    Undo {
        /// The guest's name or UUID
        #[arg(group = "whose")]
        guest: Option<OsString>,
        /// Give back what guests hold that do not run
        #[arg(long, group = "whose")]
        stale: bool,
        /// With --stale: spare a guest that libvirt may just be starting; for the unit that does this by itself
        #[arg(long, requires = "stale", conflicts_with = "guest")]
        unattended: bool,
        /// Give back even while the guest runs
        #[arg(long, requires = "guest", conflicts_with = "stale")]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the journal has of this program
    Log {
        /// Only the lines about this guest
        guest: Option<OsString>,
        /// Only since the host was started
        #[arg(long)]
        boot: bool,
        /// Stay, and show what comes
        #[arg(long)]
        follow: bool,
    },
    /// Show the whole life of a guest on a simulated host; needs no root and touches nothing
    Demo {
        /// A YAML file to try instead of the built-in one
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A guest's XML to try instead of the built-in one
        #[arg(long, value_name = "FILE")]
        xml: Option<PathBuf>,
    },
    /// Show the monitors that are there, and their inputs
    Monitors {
        /// What to do; without it, show them all
        #[command(subcommand)]
        command: Option<MonitorsCommand>,
        /// Print JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Show the graphics cards that are there, how they are, who has them and what can reset them
    #[command(args_conflicts_with_subcommands = true)]
    Gpu {
        /// What to do; without it, show them
        #[command(subcommand)]
        command: Option<GpuCommand>,
        /// Only this card: a function or a slot, such as 0000:03:00.0 or 03:00
        #[arg(value_parser = PciSlot::meant_by)]
        address: Option<PciSlot>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What can be done with a monitor. MONITOR is its connector, serial number or model, or how one of them begins.
#[derive(Debug, Subcommand)]
pub enum MonitorsCommand {
    /// Show the input of a monitor
    Get {
        /// Its connector, serial number or model, or how one of them begins; not needed where there is only one
        monitor: Option<String>,
    },
    /// Switch a monitor to another input
    Set {
        /// Its connector, serial number or model, or how one of them begins
        monitor: String,
        /// A name such as hdmi-1, or a number such as 0x11
        input: String,
    },
    /// Learn what to write into a guest's file: switch by the monitor's own button and see what changes
    Learn {
        /// Its connector, serial number or model, or how one of them begins; not needed where there is only one
        monitor: Option<String>,
    },
}

/// What can be done with graphics cards.
#[derive(Debug, Subcommand)]
pub enum GpuCommand {
    /// Print what a report of a problem with a card needs, as text to paste
    Report {
        /// Only this card: a function or a slot, such as 0000:03:00.0 or 03:00
        #[arg(value_parser = PciSlot::meant_by)]
        address: Option<PciSlot>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at a card in quarantine again: one that answers goes where it belongs
    Clear {
        /// Which card: a function or a slot, such as 0000:03:00.0 or 03:00; not needed where only one is in quarantine
        #[arg(value_parser = PciSlot::meant_by)]
        address: Option<PciSlot>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The events that change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TestedOperation {
    /// Before the guest starts
    Prepare,
    /// QEMU is about to start
    Start,
    /// QEMU runs
    Started,
    /// QEMU is gone
    Stopped,
    /// All is given back
    Release,
}

impl From<TestedOperation> for Operation {
    fn from(operation: TestedOperation) -> Self {
        match operation {
            TestedOperation::Prepare => Self::Prepare,
            TestedOperation::Start => Self::Start,
            TestedOperation::Started => Self::Started,
            TestedOperation::Stopped => Self::Stopped,
            TestedOperation::Release => Self::Release,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn undo_is_told_whose_lease_and_only_one_of_the_ways() {
        let parses = |words: &[&str]| Cli::try_parse_from([&["vfio-hook", "undo"], words].concat()).is_ok();
        for words in [&["win11"][..], &["win11", "--force"], &["--stale"], &["--stale", "--unattended"]] {
            assert!(parses(words), "{words:?}");
        }
        for words in [
            &[][..],
            &["--force"],
            &["--stale", "--force"],
            &["win11", "--stale"],
            &["a", "b"],
            &["win11", "--unattended"],
        ] {
            assert!(!parses(words), "{words:?}");
        }
    }

    #[test]
    fn a_card_may_be_named_with_or_without_a_command() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["vfio-hook", "gpu"], words].concat());
        let slot: PciSlot = "0000:03:00".parse().unwrap();
        for words in [&["03:00.0"][..], &["0000:03:00", "--json"], &["--json", "0000:03:00.1"]] {
            let Command::Gpu { command: None, address, .. } = parse(words).unwrap().command else {
                panic!("{words:?}")
            };
            assert_eq!(address, Some(slot), "{words:?}");
        }
        for words in [&["report"][..], &["report", "03:00", "--json"], &["clear"], &["clear", "0000:03:00.0"]]
        {
            let cli = parse(words).unwrap();
            assert!(matches!(cli.command, Command::Gpu { command: Some(_), address: None, .. }), "{words:?}");
        }
        for words in [&["explode"][..], &["03:00", "report"], &["clear", "03"], &["03:00", "0e:00"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}

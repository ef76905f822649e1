//! The hook that libvirt runs for every virtual machine with a passed-through GPU.
//!
//! Three layers, and no way round them: [`actions`] say what a guest wants (claims), the [`ledger`] decides
//! and records, and only [`host`] touches the machine. Applying, rolling back, giving back and recovering are one step:
//! recompute a knob from the ledger and write it if it differs.

pub mod actions;
pub mod cli;
pub mod command;
pub mod commands;
pub mod config;
pub mod cpuset;
pub mod deadline;
pub mod event;
pub mod exit;
mod failpoint;
mod given_name;
pub mod gpu;
pub mod guest;
pub mod hook;
pub mod host;
mod keeper;
pub mod ledger;
pub mod lifecycle;
mod log;
pub mod monitor;
pub mod pages;
pub mod pci;
mod printable;
mod serde_as_text;
mod wall_clock;

//! The hook that libvirt runs for every virtual machine with a passed-through GPU.
//!
//! Three layers, and no way round them: [`actions`] say what a guest wants (claims), the [`ledger`] decides
//! and records, and only [`host`] touches the machine. Applying, rolling back, giving back and recovering are one step:
//! recompute a setting from the ledger and write it if it differs.
//!
//! Below them are values: what the words mean ([`guest`], [`gpu`], [`monitor`], [`pci`], [`cpuset`] and others). Above
//! them is what uses them: [`lifecycle`] has the events of a guest's life, [`hook`] is what libvirt calls, and
//! [`commands`] are for people. `tests/layers.rs` has the table of what may use what.

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
pub mod hidden_command;
pub mod hook;
pub mod host;
mod keeper;
pub mod keeper_protocol;
pub mod kernel_log;
pub mod key_path;
pub mod ledger;
pub mod lifecycle;
mod log;
pub mod log_level;
pub mod monitor;
pub mod pages;
pub mod pci;
mod printable;
pub mod process_id;
pub mod restart;
pub mod resume_latency;
pub mod scheduling;
mod serde_as_text;
pub mod shared_memory;
pub mod unit_file_name;
pub mod user_name;
mod wall_clock;

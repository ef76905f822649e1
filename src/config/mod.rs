//! The YAML files, a guest's and the host's, as typed values, and what is wrong with them in words that help.
//!
//! A file is read in three steps: YAML into a tree (`tree`), the tree into typed sections (`section`), and for
//! what is wrong a second walk that finds the line and column (`locate`). All mistakes of a file come back at once.

mod block_sleep;
mod deviation;
mod diagnostic;
mod document;
mod duration;
mod gpu;
mod gpu_family;
mod guest;
mod host;
mod hugepages;
mod isolate_cpus;
mod item;
mod locate;
mod monitor;
mod resolve;
mod run;
mod section;
mod services;
mod source;
mod suggest;
mod switch_input;
mod syntax;
mod timeout;
mod tree;
mod trust;
mod value;
mod vcp;

#[cfg(test)]
mod tests;

pub use block_sleep::{BlockSleep, Blocked, LidSwitch, LockStrength};
pub use diagnostic::{ConfigErrors, Diagnostic, Place, Style};
pub use duration::{ParseDurationError, parse_duration};
pub use gpu::{DeviceChoice, DisplayManager, Gpu, Holders, OtherDevices};
pub use gpu_family::built_in_gpu_families;
pub use guest::GuestConfig;
pub use host::HostConfig;
pub use hugepages::{Hugepages, OnShortage};
pub use isolate_cpus::{CpuChoice, CpuSharing, EppName, GovernorName, IsolateCpus, VfioIrqs};
pub use resolve::{InputValues, ResolvedSwitch, Unresolved};
pub use run::{OnFailure, Run, RunCommand, RunEntry, RunScripts, RunWhen};
pub use services::{Services, StoppedUnit};
pub use source::{ConfigSource, MAX_FILE_BYTES};
pub use suggest::did_you_mean;
pub use switch_input::{HostInput, MonitorChoice, MonitorSharing, MonitorSwitch, OnUnreachable, SwitchInput};
pub use trust::{Owners, Purpose, TrustError, check_trusted_program, read_trusted};
pub use value::Toggle;
pub use vcp::InputChoice;

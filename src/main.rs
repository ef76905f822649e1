//! The program: a call by libvirt, what it starts itself as, or a person's command.

use std::ffi::OsString;
use std::path::Path;

use vfio_hook::event::{Event, is_hooks_name};
use vfio_hook::hidden_command::{HiddenCommand, run_hidden_command};
use vfio_hook::{commands, hook};

fn main() {
    let mut arguments = std::env::args_os();
    let called_as = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let is_hook = is_hooks_name(Path::new(&called_as)) || Event::is_libvirts(&rest);
    let exit = match HiddenCommand::of(&rest) {
        _ if is_hook => hook::run(&rest),
        Some(hidden) => run_hidden_command(hidden),
        None => commands::run_command_line(),
    };
    std::process::exit(exit.code());
}

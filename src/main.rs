//! The program: a call by libvirt, or a person's command.

use std::ffi::OsString;
use std::path::Path;

use vfio_hook::event::Event;
use vfio_hook::{commands, hook};

fn main() {
    let mut arguments = std::env::args_os();
    let called_as = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let is_hook = Path::new(&called_as).file_name() != Some("vfio-hook".as_ref());
    let exit =
        if is_hook || Event::is_libvirts(&rest) { hook::run(&rest) } else { commands::run_command_line() };
    std::process::exit(exit.code());
}

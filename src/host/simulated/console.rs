//! Text consoles of a host in a folder. A number in `/simulated/console` is that of a process that hangs while it binds
//! one.

use std::fs;
use std::io;
use std::path::Path;

use super::SimulatedFiles;
use super::pci::hangs;
use crate::host::files::Files;

/// Where the drivers of text consoles are.
pub(super) const VTCONSOLES: &str = "/sys/class/vtconsole";

impl SimulatedFiles {
    /// `store_bind` in `drivers/tty/vt/vt.c`: it takes every value. Without a framebuffer nothing can be bound to, and
    /// nobody is told (`fbcon_startup`).
    pub(super) fn bind_console(&self, path: &Path, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        if let Some(pid) = self.text("/simulated/console".as_ref()).ok().and_then(|text| text.parse().ok()) {
            return Err(hangs(pid));
        }
        let graphics = self.list("/sys/class/graphics".as_ref()).unwrap_or_default();
        let has_framebuffer = graphics.iter().any(|name| name.to_string_lossy().starts_with("fb"));
        if value == "0" || has_framebuffer { self.set(path, value) } else { Ok(()) }
    }
}

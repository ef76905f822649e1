//! Uevents of a host in a folder, and the desktops that follow them.
//!
//! | file | what |
//! |---|---|
//! | `/simulated/uevents` | gets a line for each event about a display: `remove card1`, and `(synthetic)` after it where a program had it sent |
//! | `/simulated/desktops/PID/follows` | this process lets go of a card that is removed, and opens it again when it is added |

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::SimulatedFiles;
use crate::host::files::{Files, list_sorted};
use crate::pci::PciAddress;

const LOG: &str = "/simulated/uevents";
const DESKTOPS: &str = "/simulated/desktops";

/// `kobject_actions` in `lib/kobject_uevent.c`.
const ACTIONS: &str = "add remove change move online offline bind unbind";

impl SimulatedFiles {
    /// `uevent_store` in `drivers/base/core.c`: the file holds what it held.
    pub(super) fn send_uevent(&self, path: &Path, action: &str) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        if !ACTIONS.split(' ').any(|known| known == action) {
            return Err(Errno::EINVAL.into());
        }
        match path.parent() {
            Some(node) => self.desktops_hear(node, action, " (synthetic)"),
            None => Ok(()),
        }
    }

    /// What the kernel says by itself when a driver makes the display of a function, or takes it away.
    pub(in crate::host::simulated) fn announce_display(
        &self,
        function: PciAddress,
        action: &str,
    ) -> io::Result<()> {
        let drm = Path::new("/sys/bus/pci/devices").join(function.to_string()).join("drm");
        for name in list_sorted(&self.locate(&drm)).unwrap_or_default() {
            if name.to_string_lossy().starts_with("card") {
                self.desktops_hear(&drm.join(name), action, "")?;
            }
        }
        Ok(())
    }

    fn desktops_hear(&self, node: &Path, action: &str, by: &str) -> io::Result<()> {
        let name = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Ok(log) = self.text(LOG.as_ref()) {
            self.set(LOG.as_ref(), format!("{log}\n{action} {name}{by}").trim())?;
        }
        // All nodes of the card: the one to render with is found by the other.
        let siblings = list_sorted(&self.locate(node.parent().unwrap_or(node))).unwrap_or_default();
        let is_of_card = |target: &Path| {
            target.starts_with("/dev/dri") && siblings.iter().any(|name| target.file_name() == Some(name))
        };
        for pid in list_sorted(&self.locate(DESKTOPS.as_ref())).unwrap_or_default() {
            let kept = self.locate(&Path::new(DESKTOPS).join(&pid));
            if !kept.join("follows").exists() {
                continue;
            }
            let (open, closed) = (self.locate(&Path::new("/proc").join(&pid).join("fd")), kept.join("fd"));
            match action {
                "remove" => move_links(&open, &closed, is_of_card)?,
                "add" => move_links(&closed, &open, is_of_card)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Moves the links that lead to such a target from one folder to another.
fn move_links(from: &Path, to: &Path, is_meant: impl Fn(&Path) -> bool) -> io::Result<()> {
    for name in list_sorted(from).unwrap_or_default() {
        if fs::read_link(from.join(&name)).is_ok_and(|target| is_meant(&target)) {
            fs::create_dir_all(to)?;
            fs::rename(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

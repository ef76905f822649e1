//! Text consoles: which driver shows them, and whether on a card.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;
use crate::serde_as_text::serde_as_text;

const VTCONSOLES: &str = "/sys/class/vtconsole";

/// How long the kernel may take to say whether a text console is shown.
const READ: Duration = Duration::from_secs(5);

/// The end of the name of the driver that draws on framebuffers; `(M)` or `(S)` stands before it
/// (`show_name` in `drivers/tty/vt/vt.c`, `fb_display_desc` in `drivers/video/fbdev/core/fbcon.c`).
const FRAMEBUFFER_CONSOLE: &str = "frame buffer device";

/// Whether a driver of text consoles shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleBinding {
    /// A text console is on the screen, and uses the card.
    Bound,
    /// The card is free of it.
    Unbound,
}

impl fmt::Display for ConsoleBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bound => "bound",
            Self::Unbound => "unbound",
        })
    }
}

impl FromStr for ConsoleBinding {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "bound" => Ok(Self::Bound),
            "unbound" => Ok(Self::Unbound),
            other => Err(format!("`{other}` is neither bound nor unbound")),
        }
    }
}

serde_as_text!(ConsoleBinding);

impl Host {
    /// The number of the driver (`vtconN`) that shows text consoles on these functions, or would if it were bound; none
    /// where they are not on one of them. It is one for all framebuffers: unbound, no card shows a text console.
    ///
    /// With the last framebuffer the kernel takes it away, and with the next one makes and binds it again
    /// (`fbcon_fb_unregistered` and `fbcon_fb_registered` in `drivers/video/fbdev/core/fbcon.c`).
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn vtconsole_on(&self, functions: &[PciAddress]) -> Result<Option<u32>, HostError> {
        if self.framebuffers_on(functions)?.is_disjoint(&self.console_framebuffers()?) {
            return Ok(None);
        }
        let numbers = match self.numbered(VTCONSOLES, "vtcon") {
            // Built without text consoles.
            Err(error) if error.is_absent() => return Ok(None),
            numbers => numbers?,
        };
        for number in numbers {
            let name = self.text_if_present(format!("{VTCONSOLES}/vtcon{number}/name"))?;
            if name.is_some_and(|name| name.ends_with(FRAMEBUFFER_CONSOLE)) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// `/sys/class/vtconsole/vtconN/bind`. The kernel answers when nobody draws on a text console, which a driver that
    /// hangs does for ever.
    ///
    /// # Errors
    /// There is no such driver, its file cannot be read, or not in time.
    pub fn vtconsole_bind(&self, number: u32) -> Result<ConsoleBinding, HostError> {
        let path = bind_path(number);
        let mut texts = self.read_bounded(std::slice::from_ref(&path), Deadline::after(READ))?;
        let text = texts.pop().flatten();
        let text = text.ok_or_else(|| HostError::gone(format!("the host has no {}", path.display())))?;
        match text.as_str() {
            "1" => Ok(ConsoleBinding::Bound),
            "0" => Ok(ConsoleBinding::Unbound),
            other => Err(HostError::content(&path, format!("`{other}` is neither 0 nor 1"))),
        }
    }

    /// Sets `/sys/class/vtconsole/vtconN/bind`.
    ///
    /// # Errors
    /// There is no such driver, the kernel does not do it, or takes longer than there is time: it may have to wait for
    /// a program that draws.
    pub fn set_vtconsole_bind(
        &mut self,
        number: u32,
        binding: ConsoleBinding,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let path = bind_path(number);
        let value = match binding {
            ConsoleBinding::Bound => "1",
            ConsoleBinding::Unbound => "0",
        };
        self.write_bounded(&path, value, deadline)?;
        // The kernel takes every value and keeps a failure for itself (`store_bind`).
        match self.vtconsole_bind(number)? {
            now if now == binding => Ok(()),
            now => Err(HostError::write(&path, value, io::Error::other(format!("it is still {now}")))),
        }
    }
}

fn bind_path(number: u32) -> PathBuf {
    PathBuf::from(format!("{VTCONSOLES}/vtcon{number}/bind"))
}

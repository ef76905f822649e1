//! The sleep of a host in a folder: it is awake again at once.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::SimulatedFiles;
use crate::host::files::Files;

const STATE: &str = "/sys/power/state";
const MEM_SLEEP: &str = "/sys/power/mem_sleep";
const WAKE_ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";

impl SimulatedFiles {
    /// What is written into a file of sleep, or into the alarm clock; none where the file is an ordinary one.
    pub(super) fn write_sleep(&self, path: &Path, value: &str) -> Option<io::Result<()>> {
        match path.to_str()? {
            STATE => Some(self.sleep(path, value)),
            MEM_SLEEP => Some(self.choose_sleep(path, value)),
            WAKE_ALARM => Some(self.set(path, if value == "0" { "" } else { value })),
            _ => None,
        }
    }

    /// `mem` into `/sys/power/state`: back again at once, and cards had no power where it was a deep sleep.
    fn sleep(&self, path: &Path, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        self.log(&format!("sleep {value}"));
        if value != "mem" {
            return Err(Errno::EINVAL.into());
        }
        self.set(WAKE_ALARM.as_ref(), "")?;
        if !self.text(MEM_SLEEP.as_ref())?.contains("[deep]") {
            return Ok(());
        }
        self.heal_all("mem")
    }

    /// The kinds of sleep that there are, the chosen one in brackets.
    fn choose_sleep(&self, path: &Path, value: &str) -> io::Result<()> {
        let text = self.text(path)?;
        let names: Vec<&str> = text.split_whitespace().map(|name| name.trim_matches(['[', ']'])).collect();
        if !names.contains(&value) {
            return Err(Errno::EINVAL.into());
        }
        let shown =
            names.iter().map(|name| if *name == value { format!("[{name}]") } else { (*name).to_owned() });
        self.set(path, &shown.collect::<Vec<_>>().join(" "))
    }
}

//! A host in a folder: the kernel's and systemd's part, as far as the program can tell the difference.
//!
//! Used by `vfio-hook demo` and by the tests. It keeps the properties that matter for giving back exactly: masks come
//! back in the kernel's own spelling, an interrupt that cannot be moved refuses, a page pool grows only as far as
//! contiguous memory reaches, a governor drags the preference along, systemd leaves a drop-in behind, a PCI
//! function goes to the driver that its override names, and desktops hear of displays that come and go.

mod console;
mod detached;
mod faults;
mod i2c;
mod keepers;
mod libvirt;
mod logind;
mod mask;
mod memory;
mod monitor;
mod pci;
mod platform;
mod power_profiles;
mod processes;
mod sleep;
mod storage;
mod uevents;
mod units;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::files::{
    Files, ReadRegisters, list_sorted, make_link, make_with_folders, open_slot, read_limited, read_link,
    remove_any, replace_flushed, write_existing, write_reserved,
};
use crate::cpuset::CpuSet;

pub use detached::SimulatedDetachedProcesses;
pub use faults::Faults;
pub use i2c::{SimulatedBuses, bytes_of, digits};
pub use keepers::{COMMANDS, SimulatedKeepers};
pub use libvirt::SimulatedLibvirt;
pub use logind::SimulatedLogind;
pub use monitor::SimulatedMonitor;
pub(super) use pci::{signalled_process, stuck_process};
pub use power_profiles::SimulatedPowerProfiles;
use processes::{NICE, POLICY, RT_PRIORITY};
pub use processes::{kernel_thread, qemu_process, qemu_scope, qemu_thread};
pub use units::SimulatedUnits;

/// The files of a host in a folder.
#[derive(Clone, Debug)]
pub struct SimulatedFiles {
    root: PathBuf,
    faults: Faults,
}

impl SimulatedFiles {
    /// The host below this folder.
    #[must_use]
    pub fn new(root: PathBuf, faults: Faults) -> Self {
        Self { root, faults }
    }

    fn text(&self, path: &Path) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&read_limited(&self.locate(path))?).trim().to_owned())
    }

    fn number(&self, path: &Path) -> io::Result<u64> {
        self.text(path)?.parse().map_err(|_| Errno::EINVAL.into())
    }

    fn set(&self, path: &Path, value: &str) -> io::Result<()> {
        let path = self.locate(path);
        fs::metadata(&path)?;
        fs::write(path, format!("{value}\n"))
    }

    /// `store_scaling_governor`, and `amd_pstate` and `intel_pstate` in active mode: `performance` forces the
    /// preference of the same name and does not give the old one back.
    fn set_governor(&self, path: &Path, value: &str) -> io::Result<()> {
        let known = self.text(&path.with_file_name("scaling_available_governors"))?;
        if !known.split_whitespace().any(|name| name == value) {
            return Err(Errno::EINVAL.into());
        }
        let preference = path.with_file_name("energy_performance_preference");
        if value == "performance" && self.locate(&preference).exists() {
            self.set(&preference, value)?;
        }
        self.set(path, value)
    }

    /// `store_boost` in `drivers/cpufreq/cpufreq.c`: all policies follow.
    fn set_boost(&self, path: &Path, value: &str) -> io::Result<()> {
        for cpu in list_sorted(&self.locate("/sys/devices/system/cpu".as_ref()))? {
            let policy = Path::new("/sys/devices/system/cpu").join(cpu).join("cpufreq/boost");
            if self.locate(&policy).exists() {
                self.set(&policy, value)?;
            }
        }
        self.set(path, value)
    }

    fn set_preference(&self, path: &Path, value: &str) -> io::Result<()> {
        let governor = self.text(&path.with_file_name("scaling_governor"))?;
        if governor == "performance" && value != "performance" {
            return Err(Errno::EBUSY.into());
        }
        self.set(path, value)
    }
}

/// The kernel of a host in a folder, for who writes to it without this program.
#[derive(Clone, Debug)]
pub struct SimulatedKernel(SimulatedFiles);

impl SimulatedKernel {
    /// That of the host below this folder.
    #[must_use]
    pub fn new(root: PathBuf, faults: Faults) -> Self {
        Self(SimulatedFiles::new(root, faults))
    }

    /// What `echo VALUE > PATH` does.
    ///
    /// # Errors
    /// The kernel refuses the value.
    pub fn write(&self, path: impl AsRef<Path>, value: &str) -> io::Result<()> {
        self.0.write(path.as_ref(), value)
    }
}

impl Files for SimulatedFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.faults.before_read(path)?;
        let bytes = read_limited(&self.locate(path))?;
        // The attributes that are no text; a host is described in one.
        if path.ends_with("edid") {
            return bytes_of(&String::from_utf8_lossy(&bytes)).ok_or(Errno::EINVAL.into());
        }
        if path.ends_with("config") && path.starts_with("/sys/bus/pci") {
            return self.read_pci_config(path, &bytes);
        }
        Ok(bytes)
    }

    fn registers(&self, path: &Path) -> io::Result<ReadRegisters<'_>> {
        let path = path.to_owned();
        Ok(Box::new(move |offset, buffer| {
            let bytes = self.read(&path)?;
            let offset = usize::try_from(offset).ok();
            let rest = offset.and_then(|offset| bytes.get(offset..)).unwrap_or_default();
            let length = buffer.len().min(rest.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        }))
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        crate::failpoint::reached("setting");
        self.faults.before_write(path)?;
        let value = value.trim();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !self.is_writable(path) {
            fs::metadata(self.locate(path))?;
            return Err(Errno::EPERM.into());
        }
        let written = match name {
            "bind" if path.starts_with(console::VTCONSOLES) => self.bind_console(path, value),
            "bind" | "unbind" if path.starts_with(platform::DRIVERS) => {
                self.bind_platform_device(path, value)
            }
            _ if path.starts_with("/sys/bus/pci") => {
                self.write_pci(path, value).unwrap_or_else(|| self.set(path, value))
            }
            _ if path.starts_with("/sys/power") || path.starts_with("/sys/class/rtc") => {
                self.write_sleep(path, value).unwrap_or_else(|| self.set(path, value))
            }
            "state" if path.starts_with(storage::STORAGE) => self.set_storage(path, value),
            "uevent" => self.send_uevent(path, value),
            "nr_hugepages" => self.resize_pool(path, value.parse().map_err(|_| Errno::EINVAL)?),
            "compact" => self.compact(path),
            "drop_caches" => self.drop_caches(value),
            "smp_affinity_list" => self.set(path, &mask::as_list(value)?),
            "cpumask" | "default_smp_affinity" => {
                self.set(path, &mask::as_wide_as(&self.text(path)?, value)?)
            }
            "scaling_governor" => self.set_governor(path, value),
            "energy_performance_preference" => self.set_preference(path, value),
            "dirty_bytes" => self.set_of_pair(path, value, "dirty_ratio"),
            "dirty_ratio" => self.set_of_pair(path, value, "dirty_bytes"),
            "dirty_background_bytes" => self.set_of_pair(path, value, "dirty_background_ratio"),
            "dirty_background_ratio" => self.set_of_pair(path, value, "dirty_background_bytes"),
            "boost" if path == Path::new("/sys/devices/system/cpu/cpufreq/boost") => {
                self.set_boost(path, value)
            }
            _ => self.set_or_choose(path, value),
        };
        crate::failpoint::reached("setting");
        written
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.faults.before_write(path)?;
        if self.faults.is_disk_full() {
            return Err(Errno::ENOSPC.into());
        }
        replace_flushed(&self.locate(path), bytes)
    }

    /// As the kernel does it, with a moment in the middle of the write.
    fn write_slot(&self, path: &Path, bytes: &[u8], reserved: u64) -> io::Result<()> {
        self.faults.before_write(path)?;
        let there = self.locate(path);
        if self.faults.is_disk_full() {
            let set_aside = fs::metadata(&there).map_or(0, |file| file.blocks() * 512);
            if set_aside < reserved.max(bytes.len() as u64) {
                return Err(Errno::ENOSPC.into());
            }
        }
        let file = open_slot(&there, reserved)?;
        write_reserved(&file, &bytes[..bytes.len() / 2])?;
        self.faults.before_write(path)?;
        write_reserved(&file, bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.faults.before_read(path)?;
        list_sorted(&self.locate(path))
    }

    fn is_writable(&self, path: &Path) -> bool {
        fs::metadata(self.locate(path)).is_ok_and(|file| file.permissions().mode() & 0o200 != 0)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let there = self.locate(path);
        if there.is_file() {
            self.faults.before_write(path)?;
        }
        remove_any(&there)
    }

    fn make(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.faults.before_write(path)?;
        make_with_folders(&self.locate(path), bytes)?;
        match path.strip_prefix("/sys/module").ok().and_then(|rest| rest.parent()?.to_str()) {
            Some(module) => self.load_pci_driver(module),
            None => Ok(()),
        }
    }

    fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        self.faults.before_write(path)?;
        make_link(&self.locate(path), target)
    }

    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        self.faults.before_read(path)?;
        read_link(&self.locate(path))
    }

    fn set_affinity(&self, thread: i32, cpus: &CpuSet) -> io::Result<()> {
        crate::failpoint::reached("setting");
        let path = PathBuf::from(format!("/proc/{thread}/status"));
        self.faults.before_write(&path)?;
        let text = self.text(&path).map_err(|_| Errno::ESRCH)?;
        let lines = text.lines().map(|line| match line.split_once(':') {
            Some((name @ "Cpus_allowed_list", _)) => format!("{name}: {cpus}"),
            _ => line.to_owned(),
        });
        self.set(&path, &lines.collect::<Vec<_>>().join("\n"))?;
        crate::failpoint::reached("setting");
        Ok(())
    }

    fn set_scheduling_policy(&self, stat: &Path, _thread: i32, policy: i32, priority: i32) -> io::Result<()> {
        self.set_stat(stat, &[(RT_PRIORITY, priority), (POLICY, policy)])
    }

    fn set_nice(&self, stat: &Path, _thread: i32, nice: i32) -> io::Result<()> {
        self.set_stat(stat, &[(NICE, nice)])
    }

    fn announce_change(&self, path: &Path) -> io::Result<()> {
        crate::failpoint::reached("setting");
        self.faults.before_write(path)
    }

    fn locate(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl SimulatedFiles {
    /// Sets a value, or chooses one of those that stand in a line with the chosen one in brackets.
    fn set_or_choose(&self, path: &Path, value: &str) -> io::Result<()> {
        let now = self.text(path)?;
        let words: Vec<&str> = now.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect();
        let switch = match value {
            "1" => "Y",
            "0" => "N",
            other => other,
        };
        // `param_set_bool` and `param_get_bool` in `kernel/params.c`.
        let value =
            if path.starts_with("/sys/module") && ["Y", "N"].contains(&&*now) { switch } else { value };
        if !now.contains('[') {
            write_existing(&self.locate(path), value)?;
            return self.set(path, value);
        }
        if !words.contains(&value) {
            return Err(Errno::EINVAL.into());
        }
        let chosen = |word: &&str| if *word == value { format!("[{word}]") } else { (*word).to_owned() };
        self.set(path, &words.iter().map(chosen).collect::<Vec<_>>().join(" "))
    }

    /// Sets one file of a pair, which zeroes the other.
    fn set_of_pair(&self, path: &Path, value: &str, other: &str) -> io::Result<()> {
        self.set(&path.with_file_name(other), "0")?;
        self.set(path, value)
    }
}

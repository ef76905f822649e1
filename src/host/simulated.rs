//! A host in a folder: the kernel's and systemd's part, as far as the program can tell the difference.
//!
//! Used by `vfio-hook demo` and by the tests. It keeps the properties that matter for giving back exactly: masks come
//! back in the kernel's own spelling, an interrupt that cannot be moved refuses, a page pool grows only as far as
//! contiguous memory reaches, and systemd leaves a drop-in behind.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::error::HostError;
use super::files::{Files, list_sorted, read_limited, remove_any, write_existing};
use super::systemd::{UnitName, Units};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;

/// Where the simulated systemd keeps a unit's property.
fn property_path(unit: &UnitName) -> PathBuf {
    PathBuf::from(format!("/simulated/systemd/{unit}/AllowedCPUs"))
}

/// What goes wrong, and when; shared by a test and the host it breaks.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<FaultState>>);

#[derive(Debug, Default)]
struct FaultState {
    writes: usize,
    fail_at: Option<usize>,
    panic_at: Option<usize>,
}

impl Faults {
    /// The Nth write from now (counted from 1) fails with EIO.
    pub fn fail_write(&self, nth: usize) {
        let mut state = self.lock();
        *state = FaultState { fail_at: Some(nth), ..FaultState::default() };
    }

    /// The Nth write from now panics.
    pub fn panic_at_write(&self, nth: usize) {
        let mut state = self.lock();
        *state = FaultState { panic_at: Some(nth), ..FaultState::default() };
    }

    /// No more faults; counts from zero again.
    pub fn clear(&self) {
        *self.lock() = FaultState::default();
    }

    /// How many writes there were since the last change of orders.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FaultState> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn before_write(&self) -> io::Result<()> {
        let (writes, fail_at, panic_at) = {
            let mut state = self.lock();
            state.writes += 1;
            (state.writes, state.fail_at, state.panic_at)
        };
        assert!(panic_at != Some(writes), "simulated panic at write {writes}");
        if fail_at == Some(writes) {
            return Err(Errno::EIO.into());
        }
        Ok(())
    }
}

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

    fn replace(&self, path: &Path, value: &str) -> io::Result<()> {
        let path = self.locate(path);
        fs::metadata(&path)?;
        fs::write(path, format!("{value}\n"))
    }

    /// `mm/hugetlb.c`: takes what contiguous memory allows and reports success even when that was less.
    fn resize_pool(&self, path: &Path, wanted: u64) -> io::Result<()> {
        let folder = path.parent().ok_or(Errno::EINVAL)?;
        let node = folder.parent().and_then(Path::parent).ok_or(Errno::EINVAL)?;
        let page_kib: u64 = folder
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok())
            .ok_or(Errno::EINVAL)?;
        let (pages, free) = (self.number(path)?, self.number(&folder.join("free_hugepages"))?);
        let contiguous = node.join("simulated_contiguous_kB");
        let room = self.number(&contiguous)?;
        let (pages_then, free_then, room_then) = if wanted >= pages {
            let grown = (wanted - pages).min(room / page_kib);
            (pages + grown, free + grown, room - grown * page_kib)
        } else {
            let shrunk = (pages - wanted).min(free);
            (pages - shrunk, free - shrunk, room + shrunk * page_kib)
        };
        self.replace(&contiguous, &room_then.to_string())?;
        self.replace(path, &pages_then.to_string())?;
        self.replace(&folder.join("free_hugepages"), &free_then.to_string())
    }

    /// Compaction turns what is fragmented into contiguous memory.
    fn compact(&self, path: &Path) -> io::Result<()> {
        let node = path.parent().ok_or(Errno::EINVAL)?;
        let (contiguous, fragmented) =
            (node.join("simulated_contiguous_kB"), node.join("simulated_fragmented_kB"));
        let sum = self.number(&contiguous)? + self.number(&fragmented).unwrap_or(0);
        self.replace(&contiguous, &sum.to_string())?;
        self.replace(&fragmented, "0").or(Ok(()))
    }
}

impl Files for SimulatedFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_limited(&self.locate(path))
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        crate::failpoint::reached("knob");
        self.faults.before_write()?;
        let value = value.trim();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !self.is_writable(path) {
            fs::metadata(self.locate(path))?;
            return Err(Errno::EPERM.into());
        }
        let written = match name {
            "nr_hugepages" => self.resize_pool(path, value.parse().map_err(|_| Errno::EINVAL)?),
            "compact" => self.compact(path),
            "smp_affinity_list" => {
                let cpus: CpuSet = value.parse().map_err(|_| Errno::EINVAL)?;
                if cpus.is_empty() {
                    Err(Errno::EINVAL.into())
                } else {
                    self.replace(path, &cpus.to_string())
                }
            }
            "cpumask" | "default_smp_affinity" => {
                let cpus = CpuSet::from_mask(value).map_err(|_| Errno::EINVAL)?;
                self.replace(path, &cpus.to_mask())
            }
            "drop_caches" => Ok(()),
            _ => {
                write_existing(&self.locate(path), value)?;
                self.replace(path, value)
            }
        };
        crate::failpoint::reached("knob");
        written
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        list_sorted(&self.locate(path))
    }

    fn is_writable(&self, path: &Path) -> bool {
        fs::metadata(self.locate(path)).is_ok_and(|file| file.permissions().mode() & 0o200 != 0)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        remove_any(&self.locate(path))
    }

    fn locate(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The units of a host in a folder.
#[derive(Debug)]
pub struct SimulatedUnits(SimulatedFiles);

impl SimulatedUnits {
    /// The units of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }
}

impl Units for SimulatedUnits {
    fn allowed_cpus(&self, units: &[UnitName], _deadline: Deadline) -> Result<Vec<CpuSet>, HostError> {
        let read = |unit| {
            let path = property_path(unit);
            let text = self.0.text(&path).map_err(|error| HostError::read(&path, error))?;
            text.parse().map_err(|reason| HostError::content(&path, reason))
        };
        units.iter().map(read).collect()
    }

    fn set_allowed_cpus(&self, unit: &UnitName, cpus: &CpuSet, _deadline: Deadline) -> Result<(), HostError> {
        let path = property_path(unit);
        let drop_in = self.0.locate(&unit.allowed_cpus_drop_in());
        let write = || {
            self.0.write(&path, &cpus.to_string())?;
            fs::create_dir_all(drop_in.parent().unwrap_or(Path::new("/")))?;
            fs::write(&drop_in, format!("[{}]\nAllowedCPUs={cpus}\n", unit.section()))
        };
        write().map_err(|error| HostError::write(&path, &cpus.to_string(), error))
    }
}

//! Page pools and the memory they are made of (`mm/hugetlb.c`).

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::SimulatedFiles;
use crate::host::files::Files;

const MEMINFO: &str = "/proc/meminfo";

/// Which way memory goes.
#[derive(Clone, Copy)]
enum Flow {
    IntoPool(u64),
    OutOfPool(u64),
}

impl Flow {
    fn apply(self, kib: u64) -> Option<u64> {
        match self {
            Self::IntoPool(moved) => kib.checked_sub(moved),
            Self::OutOfPool(moved) => kib.checked_add(moved),
        }
    }
}

impl SimulatedFiles {
    /// Takes what contiguous memory allows and reports success even when that was less. Pages in use stay, as surplus
    /// (`set_max_huge_pages`).
    pub(super) fn resize_pool(&self, path: &Path, wanted: u64) -> io::Result<()> {
        let folder = path.parent().ok_or(Errno::EINVAL)?;
        let node = folder.parent().and_then(Path::parent).ok_or(Errno::EINVAL)?;
        let page_kib: u64 = folder
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok())
            .ok_or(Errno::EINVAL)?;
        let (free_path, surplus_path) = (folder.join("free_hugepages"), folder.join("surplus_hugepages"));
        let (pages, free) = (self.number(path)?, self.number(&free_path)?);
        let surplus = self.number(&surplus_path)?;
        let persistent = pages - surplus;
        if wanted >= persistent {
            let adopted = (wanted - persistent).min(surplus);
            let room = self.number(&node.join("simulated_contiguous_kB"))?;
            let grown = (wanted - persistent - adopted).min(room / page_kib);
            self.move_memory(node, Flow::IntoPool(grown * page_kib))?;
            self.set(&surplus_path, &(surplus - adopted).to_string())?;
            self.set(path, &(pages + grown).to_string())?;
            self.set(&free_path, &(free + grown).to_string())
        } else {
            let freed = (persistent - wanted).min(free).min(self.pages_to_spare(
                node,
                folder,
                persistent - wanted,
            )?);
            self.move_memory(node, Flow::OutOfPool(freed * page_kib))?;
            self.set(&surplus_path, &(surplus + persistent - wanted - freed).to_string())?;
            self.set(path, &(pages - freed).to_string())?;
            self.set(&free_path, &(free - freed).to_string())
        }
    }

    /// How many pages the kernel frees at most when a pool shrinks by so many: as many persistent ones as there are pages in
    /// use stay, whichever nodes these are on, and whether they are surplus or not.
    fn pages_to_spare(&self, node: &Path, pool: &Path, fewer: u64) -> io::Result<u64> {
        let nodes = node.parent().ok_or(Errno::EINVAL)?;
        let (mut persistent, mut in_use) = (0, 0);
        for name in self.list(nodes)? {
            let pool = nodes.join(name).join("hugepages").join(pool.file_name().ok_or(Errno::EINVAL)?);
            let Ok(total) = self.number(&pool.join("nr_hugepages")) else { continue };
            persistent += total - self.number(&pool.join("surplus_hugepages"))?;
            in_use += total - self.number(&pool.join("free_hugepages"))?;
        }
        Ok(persistent - in_use.max(persistent - fewer).min(persistent))
    }

    fn move_memory(&self, node: &Path, flow: Flow) -> io::Result<()> {
        let contiguous = node.join("simulated_contiguous_kB");
        let then = flow.apply(self.number(&contiguous)?).ok_or(Errno::ENOMEM)?;
        self.set(&contiguous, &then.to_string())?;
        self.move_in_lines(&node.join("meminfo"), flow)?;
        self.move_in_lines(MEMINFO.as_ref(), flow)
    }

    /// `MemFree` and `MemAvailable` follow.
    fn move_in_lines(&self, path: &Path, flow: Flow) -> io::Result<()> {
        let text = self.text(path)?;
        let lines = text.lines().map(|line| {
            let Some((name, rest)) = line.split_once(':') else { return Ok(line.to_owned()) };
            if !(name.ends_with("MemFree") || name.ends_with("MemAvailable")) {
                return Ok(line.to_owned());
            }
            let kib = rest.trim().trim_end_matches("kB").trim().parse().map_err(|_| Errno::EINVAL)?;
            let then = flow.apply(kib).ok_or(Errno::ENOMEM)?;
            Ok(format!("{name}: {then} kB"))
        });
        let lines = lines.collect::<Result<Vec<_>, Errno>>()?;
        self.set(path, &lines.join("\n"))
    }

    /// What a host says that a kind of cache holds becomes free.
    pub(super) fn drop_caches(&self, kind: &str) -> io::Result<()> {
        let cache = Path::new("/proc/sys/vm").join(format!("simulated_cache_{kind}_kB"));
        let Ok(freed) = self.number(&cache) else { return Ok(()) };
        self.set(&cache, "0")?;
        let text = self.text(MEMINFO.as_ref())?;
        let free = text.lines().find_map(|line| line.strip_prefix("MemFree:")?.trim().strip_suffix(" kB"));
        let free: u64 = free.and_then(|free| free.parse().ok()).ok_or(Errno::EINVAL)?;
        let now = (format!("MemFree: {free} kB"), format!("MemFree: {} kB", free + freed));
        self.set(MEMINFO.as_ref(), &text.replace(&now.0, &now.1))
    }

    /// Compaction turns what is fragmented into contiguous memory.
    pub(super) fn compact(&self, path: &Path) -> io::Result<()> {
        let node = path.parent().ok_or(Errno::EINVAL)?;
        let (contiguous, fragmented) =
            (node.join("simulated_contiguous_kB"), node.join("simulated_fragmented_kB"));
        let sum = self.number(&contiguous)? + self.number(&fragmented).unwrap_or(0);
        self.set(&contiguous, &sum.to_string())?;
        self.set(&fragmented, "0").or(Ok(()))
    }
}

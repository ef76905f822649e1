//! The memory that the program's own code takes in a process that mostly waits.

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};
use rustix::mm::{Advice, madvise};

/// Lets go of the program's code in this process; what runs next is mapped again, from the page cache. The kernel maps
/// sixteen pages for each one that is touched (`fault_around_bytes`), so that soon nearly all of a program stays.
pub(crate) fn let_go_of_code() {
    let Ok(process) = Process::myself() else { return };
    let (Ok(program), Ok(maps)) = (process.exe(), process.maps()) else { return };
    let code = MMPermissions::READ | MMPermissions::EXECUTE | MMPermissions::PRIVATE;
    let is_code = |map: &&MemoryMap| {
        map.perms == code && matches!(&map.pathname, MMapPath::Path(path) if *path == program)
    };
    for map in maps.iter().filter(is_code) {
        let_go(map);
    }
}

/// Without the pages of a mapping, which come back from its file when they are touched.
#[expect(unsafe_code, reason = "`madvise` can take content away, and so no crate has it as a safe call")]
fn let_go(map: &MemoryMap) {
    let (from, to) = map.address;
    let (Ok(start), Ok(length)) = (usize::try_from(from), usize::try_from(to - from)) else { return };
    // SAFETY: the mapping is private, comes from a file, and was never writable in this process (it is code): its pages
    // hold nothing but what the file does, and the file of a running program cannot be written (ETXTBSY).
    let advised =
        unsafe { madvise(std::ptr::with_exposed_provenance_mut(start), length, Advice::LinuxDontNeed) };
    // Then it stays, and costs no more than before.
    let _ = advised;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_before_runs_after() {
        let words = || (0..1000).map(|number: u32| number.to_string()).collect::<Vec<_>>().join(" ");
        let before = words();
        let_go_of_code();
        assert_eq!(words(), before);
    }
}

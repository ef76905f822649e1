//! Where tests end the program: before and after every write to the ledger and to a setting.
//!
//! Built only with the feature `failpoints`. `VFIO_HOOK_FAILPOINT`, or the file `/run/vfio-hook-failpoint` where
//! libvirt is the caller, holds `kill:N`, `panic:N` (at the Nth point), `count:FILE` (write the number of points to a
//! file) or `without:keeper` (no keeper can be started: what one costs, a benchmark compares).

/// Marks a point; the kind (`ledger` or `setting`) is for the reader of the code.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn reached(_kind: &str) {}

/// Whether no keeper can be started.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn is_without_keeper() -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub(crate) use enabled::{is_without_keeper, reached};

#[cfg(feature = "failpoints")]
mod enabled {
    use std::fs;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    enum Order {
        Kill(usize),
        Panic(usize),
        Count(String),
        WithoutKeeper,
    }

    static ORDER: OnceLock<Option<Order>> = OnceLock::new();
    static REACHED: AtomicUsize = AtomicUsize::new(0);

    pub(crate) fn reached(_kind: &str) {
        let count = REACHED.fetch_add(1, Ordering::SeqCst) + 1;
        match ORDER.get_or_init(read_order) {
            Some(Order::Kill(at)) if *at == count => {
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
            Some(Order::Panic(at)) if *at == count => panic!("failpoint {count}"),
            Some(Order::Count(file)) => {
                let _ = fs::write(file, count.to_string());
            }
            _ => {}
        }
    }

    pub(crate) fn is_without_keeper() -> bool {
        matches!(ORDER.get_or_init(read_order), Some(Order::WithoutKeeper))
    }

    fn read_order() -> Option<Order> {
        let text = std::env::var("VFIO_HOOK_FAILPOINT")
            .or_else(|_| fs::read_to_string("/run/vfio-hook-failpoint"))
            .ok()?;
        match text.trim().split_once(':')? {
            ("kill", at) => at.parse().ok().map(Order::Kill),
            ("panic", at) => at.parse().ok().map(Order::Panic),
            ("without", "keeper") => Some(Order::WithoutKeeper),
            ("count", file) => Some(Order::Count(file.to_owned())),
            _ => None,
        }
    }
}

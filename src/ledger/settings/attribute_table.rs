//! The table of attributes: one row each.

use crate::ledger::setting::{OnRefusal, Place};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct AttributeRow {
    /// Its name in the ledger.
    pub name: &'static str,
    /// Its name for people: `{}` stands for what it is of, `{name}` for its name.
    pub words: &'static str,
    /// Its file, in the same way.
    pub path: &'static str,
    /// How its file has the value.
    pub codec: Codec,
    /// How it is reached.
    pub contact: Contact,
    /// When it is taken.
    pub place: Place,
    /// What it means when the kernel refuses a value.
    pub on_refusal: OnRefusal,
    /// What a person may set it to, for those that can be asked for by their name.
    pub tunable: Option<Tunable>,
}

/// Rows are told apart by their names.
impl PartialEq for AttributeRow {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for AttributeRow {}

/// What a person may set an attribute to.
#[derive(Clone, Copy, Debug)]
pub struct Tunable {
    /// The values.
    pub accepts: Accepts,
    /// The values in words.
    pub values: &'static str,
    /// What it does, a sentence without its full stop.
    pub about: &'static str,
}

/// The values of an attribute that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Whole numbers, both ends among them.
    Numbers(i64, i64),
    /// An amount of memory of at least so many bytes, which the file has in bytes.
    Bytes(u64),
    /// One of these words.
    Words(&'static [&'static str]),
}

/// How a file has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Plain,
    /// All that there are, in a line, the chosen one in brackets (`always [madvise] never`).
    Bracketed,
    /// Microseconds, or `n/a`.
    ResumeLatency,
    /// A list of names, of which the kernel shows some that it does not take back ([`crate::host::Host::set_pci_attribute`]).
    ResetMethods,
    /// A number that is zero while this other file has the value (`dirty_bytes` and `dirty_ratio`): writing one zeroes
    /// the other.
    ZeroedBy(&'static str),
}

/// How an attribute is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// At once: the kernel has it in memory.
    Direct,
    /// The kernel may wake up a device for a write, or wait for a driver: a child makes it, without the lock.
    Device,
}

/// The attributes that the program has a use for itself. All there are: these and [`TUNABLES`].
static OWN: &[&AttributeRow] = &[
    &SCALING_GOVERNOR,
    &ENERGY_PREFERENCE,
    &RESUME_LATENCY,
    &POLICY_BOOST,
    &HOST_BOOST,
    &NO_TURBO,
    &D3COLD_ALLOWED,
    &POWER_CONTROL,
    &RESET_METHOD,
    &DRIVERS_AUTOPROBE,
    &X3D_MODE,
    &DISK_SCHEDULER,
    &DISK_READ_AHEAD,
    &BACKLIGHT,
];

/// All attributes, in the order in which those of one place are taken.
pub fn attributes() -> impl Iterator<Item = &'static AttributeRow> {
    OWN.iter().copied().chain(TUNABLES)
}

/// What most rows have: a value that the kernel takes at once, and refuses with a reason.
const PLAIN: AttributeRow = AttributeRow {
    name: "",
    words: "{name}",
    path: "",
    codec: Codec::Plain,
    contact: Contact::Direct,
    place: Place::Kernel,
    on_refusal: OnRefusal::Refuse,
    tunable: None,
};

pub(super) static SCALING_GOVERNOR: AttributeRow = AttributeRow {
    name: "scaling_governor",
    words: "governor of CPU {}",
    path: "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor",
    place: Place::Governor,
    ..PLAIN
};

pub(super) static ENERGY_PREFERENCE: AttributeRow = AttributeRow {
    name: "energy_performance_preference",
    words: "energy preference of CPU {}",
    path: "/sys/devices/system/cpu/cpu{}/cpufreq/energy_performance_preference",
    place: Place::EnergyPreference,
    ..PLAIN
};

/// `Documentation/ABI/testing/sysfs-devices-power`, in microseconds; `n/a` is no waiting at all.
pub(super) static RESUME_LATENCY: AttributeRow = AttributeRow {
    name: "pm_qos_resume_latency_us",
    words: "resume latency of CPU {}",
    path: "/sys/devices/system/cpu/cpu{}/power/pm_qos_resume_latency_us",
    codec: Codec::ResumeLatency,
    place: Place::ResumeLatency,
    ..PLAIN
};

/// Not `power/control`, and not the others: vfio's driver changes them, and only a guest with a claim on them puts them
/// back.
pub(super) static D3COLD_ALLOWED: AttributeRow =
    AttributeRow { name: "d3cold_allowed", on_refusal: OnRefusal::Skip, ..of_device("d3cold_allowed") };

pub(super) static POWER_CONTROL: AttributeRow = of_device("power/control");

pub(super) static RESET_METHOD: AttributeRow =
    AttributeRow { codec: Codec::ResetMethods, ..of_device("reset_method") };

/// `/sys/bus/pci/drivers_autoprobe`: not while a card is looked for that is to come back without a driver.
pub(super) static DRIVERS_AUTOPROBE: AttributeRow = AttributeRow {
    name: "drivers_autoprobe",
    words: "drivers_autoprobe of PCI",
    path: "/sys/bus/pci/drivers_autoprobe",
    place: Place::Autoprobe,
    ..of_device("")
};

/// `show_local_boost` in `drivers/cpufreq/cpufreq.c`: of a CPU's policy, on kernels that have it.
pub(super) static POLICY_BOOST: AttributeRow = AttributeRow {
    name: "boost",
    words: "boost of CPU {}",
    path: "/sys/devices/system/cpu/cpu{}/cpufreq/boost",
    place: Place::Boost,
    ..PLAIN
};

/// `Documentation/admin-guide/pm/cpufreq.rst`: of all CPUs.
pub(super) static HOST_BOOST: AttributeRow = AttributeRow {
    name: "cpufreq_boost",
    words: "boost of all CPUs",
    path: "/sys/devices/system/cpu/cpufreq/boost",
    place: Place::Boost,
    ..PLAIN
};

/// `Documentation/admin-guide/pm/intel_pstate.rst`: `1` is no boost, for all CPUs.
pub(super) static NO_TURBO: AttributeRow = AttributeRow {
    name: "no_turbo",
    words: "no_turbo of intel_pstate (all CPUs)",
    path: "/sys/devices/system/cpu/intel_pstate/no_turbo",
    place: Place::Boost,
    ..PLAIN
};

/// `Documentation/ABI/testing/sysfs-bus-platform-drivers-amd_x3d_vcache`: `frequency` or `cache`.
pub(super) static X3D_MODE: AttributeRow = AttributeRow {
    name: "x3d_mode",
    words: "amd_x3d_mode of {}",
    path: "/sys/bus/platform/drivers/amd_x3d_vcache/{}/amd_x3d_mode",
    ..PLAIN
};

/// `Documentation/ABI/stable/sysfs-block`. The kernel waits until the disk has answered what it was asked before.
pub(super) static DISK_SCHEDULER: AttributeRow = AttributeRow {
    name: "scheduler",
    words: "scheduler of {}",
    path: "/sys/block/{}/queue/scheduler",
    codec: Codec::Bracketed,
    contact: Contact::Device,
    ..PLAIN
};

/// `Documentation/ABI/stable/sysfs-block`, in KiB.
pub(super) static DISK_READ_AHEAD: AttributeRow = AttributeRow {
    name: "read_ahead_kb",
    words: "read_ahead_kb of {}",
    path: "/sys/block/{}/queue/read_ahead_kb",
    ..PLAIN
};

/// `Documentation/ABI/stable/sysfs-class-backlight`. Firmware or a graphics card sets it.
pub(super) static BACKLIGHT: AttributeRow = AttributeRow {
    name: "brightness",
    words: "brightness of {}",
    path: "/sys/class/backlight/{}/brightness",
    contact: Contact::Device,
    ..PLAIN
};

/// A row whose value is a number.
macro_rules! number {
    ($name:literal, $words:literal, $path:literal, $min:literal to $max:literal, $about:literal) => {
        AttributeRow {
            name: $name,
            words: $words,
            path: $path,
            tunable: Some(Tunable {
                accepts: Accepts::Numbers($min, $max),
                values: concat!("`", stringify!($min), "` to `", stringify!($max), "`"),
                about: $about,
            }),
            ..PLAIN
        }
    };
}

/// A row of which the file has all words in a line, and the chosen one in brackets.
macro_rules! word {
    ($name:literal, $path:literal, [$first:literal $(, $word:literal)*], $about:literal) => {
        AttributeRow {
            name: $name,
            path: $path,
            codec: Codec::Bracketed,
            tunable: Some(Tunable {
                accepts: Accepts::Words(&[$first $(, $word)*]),
                values: concat!("`", $first, "`" $(, ", `", $word, "`")*),
                about: $about,
            }),
            ..PLAIN
        }
    };
}

/// What a person may ask for by its name, of the kernel as a whole. The file of each one has it for all CPUs, disks and
/// programs at once.
///
/// `Documentation/admin-guide/sysctl/{vm,kernel}.rst`, `admin-guide/mm/{transhuge,ksm}.rst`, `virt/kvm/halt-polling.rst`,
/// `core-api/workqueue.rst`.
pub static TUNABLES: &[AttributeRow] = &[
    number!(
        "stat_interval",
        "vm.stat_interval",
        "/proc/sys/vm/stat_interval",
        1 to 3600,
        "seconds between two updates of each CPU's memory statistics, which interrupt it"
    ),
    number!(
        "swappiness",
        "vm.swappiness",
        "/proc/sys/vm/swappiness",
        0 to 200,
        "how soon memory of programs is swapped out rather than files dropped; at most 100 before Linux 5.8"
    ),
    number!(
        "compaction_proactiveness",
        "vm.compaction_proactiveness",
        "/proc/sys/vm/compaction_proactiveness",
        0 to 100,
        "how much memory is put together in the background; `0`: none"
    ),
    AttributeRow {
        codec: Codec::ZeroedBy("/proc/sys/vm/dirty_ratio"),
        ..bytes(
            "dirty_bytes",
            "vm.dirty_bytes",
            "/proc/sys/vm/dirty_bytes",
            // `dirty_bytes_min` in `mm/page-writeback.c`: two pages.
            8192,
            "files changed in memory, at which programs that write have to wait; counterpart of `dirty_ratio`",
        )
    },
    AttributeRow {
        codec: Codec::ZeroedBy("/proc/sys/vm/dirty_bytes"),
        ..number!(
            "dirty_ratio",
            "vm.dirty_ratio",
            "/proc/sys/vm/dirty_ratio",
            1 to 100,
            "the same in percent of the memory that is free or caches files"
        )
    },
    AttributeRow {
        codec: Codec::ZeroedBy("/proc/sys/vm/dirty_background_ratio"),
        ..bytes(
            "dirty_background_bytes",
            "vm.dirty_background_bytes",
            "/proc/sys/vm/dirty_background_bytes",
            4096,
            "files changed in memory, at which the kernel starts to write; counterpart of `dirty_background_ratio`",
        )
    },
    AttributeRow {
        codec: Codec::ZeroedBy("/proc/sys/vm/dirty_background_bytes"),
        ..number!(
            "dirty_background_ratio",
            "vm.dirty_background_ratio",
            "/proc/sys/vm/dirty_background_ratio",
            1 to 100,
            "the same in percent of the memory that is free or caches files"
        )
    },
    number!(
        "sched_rt_runtime_us",
        "kernel.sched_rt_runtime_us",
        "/proc/sys/kernel/sched_rt_runtime_us",
        -1 to 1000000,
        "microseconds of each period that real-time tasks may run, but not `0`; `-1`: no limit, so that one can stop the host"
    ),
    number!(
        "numa_balancing",
        "kernel.numa_balancing",
        "/proc/sys/kernel/numa_balancing",
        0 to 3,
        "moving memory to the node that uses it: `0` off, `1` on, `2` and `3` with memory tiers"
    ),
    // Above `watchdog`, which switches it too: what is taken first is given back last.
    number!(
        "nmi_watchdog",
        "kernel.nmi_watchdog",
        "/proc/sys/kernel/nmi_watchdog",
        0 to 1,
        "finding CPUs that do not answer interrupts any more"
    ),
    number!(
        "watchdog",
        "kernel.watchdog",
        "/proc/sys/kernel/watchdog",
        0 to 1,
        "finding CPUs that hang, `nmi_watchdog` included"
    ),
    word!(
        "transparent_hugepages",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        ["always", "madvise", "never"],
        "large pages for memory of programs"
    ),
    word!(
        "transparent_hugepages_defrag",
        "/sys/kernel/mm/transparent_hugepage/defrag",
        ["always", "defer", "defer+madvise", "madvise", "never"],
        "who waits until there is room for a large page"
    ),
    number!(
        "ksm",
        "KSM (mm/ksm/run)",
        "/sys/kernel/mm/ksm/run",
        0 to 1,
        "merging pages that are alike: `0` stops, what is merged stays so"
    ),
    number!(
        "halt_poll_ns",
        "halt_poll_ns of kvm",
        "/sys/module/kvm/parameters/halt_poll_ns",
        0 to 1000000000,
        "nanoseconds for which the host waits for work of an idle vCPU before its CPU sleeps"
    ),
    number!(
        "writeback_numa",
        "numa of workqueue writeback",
        "/sys/devices/virtual/workqueue/writeback/numa",
        0 to 1,
        "writing files back on the node that they are on; not on Linux 6.5 and newer"
    ),
];

/// An attribute of a PCI function (`Documentation/ABI/testing/sysfs-bus-pci`, `sysfs-devices-power`).
const fn of_device(name: &'static str) -> AttributeRow {
    AttributeRow {
        name,
        words: "{name} of {}",
        path: "/sys/bus/pci/devices/{}/{name}",
        contact: Contact::Device,
        place: Place::Devices,
        ..PLAIN
    }
}

/// A row whose value is an amount of memory.
const fn bytes(
    name: &'static str,
    words: &'static str,
    path: &'static str,
    min: u64,
    about: &'static str,
) -> AttributeRow {
    let tunable = Tunable { accepts: Accepts::Bytes(min), values: "an amount such as `256MiB`", about };
    AttributeRow { name, words, path, tunable: Some(tunable), ..PLAIN }
}

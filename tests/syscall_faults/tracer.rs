//! Follows an event through all its processes and lets one system call fail or come late.
//!
//! What `strace -f -e inject` does, but for one thing: strace counts the calls of each process for itself and cannot be
//! told which of them is meant, so that the keeper that a hook starts could not be hit without the hook. Here a call is
//! told by who makes it, and by what it is about.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::{Call, LAST_BEFORE_MAIN, Subject};
use crate::place::class;
use crate::sandbox::PROGRAM;

/// `PTRACE_EVENT_STOP`: a new process stands at its beginning, or one was interrupted.
const EVENT_STOP: i32 = 128;

/// A call is the same as another one if the same process makes it at the same class of places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// `hook`, `keeper`, `keeper:ledger` (a thread of it), `run-program` …
    pub(crate) who: String,
    pub(crate) call: &'static str,
    pub(crate) place: String,
    /// Which of several that are told apart by nothing else, from 0.
    pub(crate) occurrence: u32,
}

/// A call that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) key: Key,
    pub(crate) errors: Vec<Errno>,
    pub(crate) may_block: bool,
    pub(crate) when: When,
}

/// Whether libvirt still waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    BeforeAnswer,
    AfterAnswer,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not made, and fails.
    Fails(Errno),
    /// It is made later.
    Late(Duration),
}

/// How the hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookEnd {
    Exited(i32),
    Killed(Signal),
    /// It did not, and was killed by the test.
    Hangs,
}

/// What came of an event.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) end: HookEnd,
    /// From the call to the end.
    pub(crate) took: Duration,
    pub(crate) seen: Vec<Seen>,
    /// Whether the fault was made.
    pub(crate) was_made: bool,
}

/// What is to be traced.
pub(crate) struct Order<'a> {
    pub(crate) root: &'a Path,
    /// Its next child is the hook.
    pub(crate) daemon: Pid,
    /// The keeper that runs already.
    pub(crate) keeper: Option<Pid>,
    pub(crate) fault: Option<(&'a Key, Fault)>,
    /// The longest wait for the hook's end.
    pub(crate) patience: Duration,
    /// How long others are followed after it, where the fault was not made by then.
    pub(crate) linger: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Daemon,
    /// This program, and its name in a key.
    Program(String),
    /// Another program.
    Foreign,
}

struct Tracee {
    role: Role,
    /// The process, where this is one of its threads.
    group: Pid,
    /// Rust's runtime has done its part.
    is_in_main: bool,
    /// What is to be done at the end of the call that it is at.
    at_exit: Option<AtExit>,
}

#[derive(Clone, Copy)]
enum AtExit {
    /// The call was not made, and fails.
    Fail(Errno),
    /// It was asked for something else: the caller finds its first argument as it was.
    Restore(u64),
}

struct Tracer<'a> {
    order: Order<'a>,
    tracees: HashMap<Pid, Tracee>,
    /// Sockets by their inodes, and what they lead to.
    sockets: HashMap<String, String>,
    seen: BTreeMap<Key, Seen>,
    counts: HashMap<Key, u32>,
    was_made: bool,
    hook: Option<Pid>,
    end: Option<(HookEnd, Duration)>,
    began: Instant,
    timers: Vec<Timer>,
}

/// A child that ends when something is due: its end is waited for together with everything else.
struct Timer {
    child: Child,
    due: Due,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    HookHangs,
    LingerOver,
    GoesOn(Pid),
}

/// Traces the event that `begin` begins.
pub(crate) fn trace(order: Order<'_>, begin: impl FnOnce()) -> Traced {
    let (daemon, keeper, patience) = (order.daemon, order.keeper, order.patience);
    let mut tracer = Tracer {
        order,
        tracees: HashMap::new(),
        sockets: HashMap::new(),
        seen: BTreeMap::new(),
        counts: HashMap::new(),
        was_made: false,
        hook: None,
        end: None,
        began: Instant::now(),
        timers: Vec::new(),
    };
    tracer.seize(daemon, Role::Daemon);
    if let Some(keeper) = keeper {
        tracer.seize_keeper(keeper);
    }
    tracer.set_timer(patience, Due::HookHangs);
    tracer.began = Instant::now();
    begin();
    while !tracer.is_over() {
        tracer.step();
    }
    tracer.let_go();
    let (end, took) = tracer.end.unwrap_or((HookEnd::Hangs, tracer.began.elapsed()));
    Traced { end, took, seen: tracer.seen.into_values().collect(), was_made: tracer.was_made }
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL
}

/// What a process is shown as having open at a number.
fn descriptor(pid: Pid, number: u64) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{}", number as i32)).ok()?;
    Some(link.to_string_lossy().into_owned())
}

fn status_number(pid: Pid, name: &str) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_start_matches(':').trim().parse().ok().map(Pid::from_raw)
}

/// Whether this thread traces a task.
fn is_ours(pid: Pid) -> bool {
    status_number(pid, "TracerPid").is_some_and(|tracer| tracer == nix::unistd::gettid())
}

/// Whether a task has ended, or is about to.
fn is_ending(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_none_or(|state| matches!(state.trim().chars().next(), Some('Z' | 'X') | None))
}

impl Tracer<'_> {
    fn seize(&mut self, pid: Pid, role: Role) {
        match ptrace::seize(pid, options()) {
            // The kernel has attached it already where a thread that is traced has just made it.
            Err(Errno::EPERM) if is_ours(pid) => self.insert(pid, role),
            Ok(()) => self.insert(pid, role),
            Err(Errno::ESRCH) => {}
            // One that is just ending (`ptrace_attach` in `kernel/ptrace.c`).
            Err(Errno::EPERM) if is_ending(pid) => {}
            Err(errno) => panic!("process {pid} cannot be traced: {errno}"),
        }
    }

    fn insert(&mut self, pid: Pid, role: Role) {
        let group = status_number(pid, "Tgid").unwrap_or(pid);
        self.tracees.insert(pid, Tracee { role, group, is_in_main: true, at_exit: None });
    }

    /// All threads: others may come meanwhile, from those that are not traced yet.
    fn seize_keeper(&mut self, keeper: Pid) {
        loop {
            let tasks = fs::read_dir(format!("/proc/{keeper}/task")).into_iter().flatten().flatten();
            let tasks = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok().map(Pid::from_raw));
            let new: Vec<Pid> = tasks.filter(|task| !self.tracees.contains_key(task)).collect();
            if new.is_empty() {
                return;
            }
            for task in new {
                self.seize(task, Role::Program("keeper".to_owned()));
                // From here on each of its calls is seen.
                let _ = ptrace::interrupt(task);
            }
        }
    }

    fn set_timer(&mut self, time: Duration, due: Due) {
        let child = Command::new("sleep").arg(time.as_secs_f64().to_string()).spawn().unwrap();
        self.timers.push(Timer { child, due });
    }

    /// The hook has ended, and so have those that were to be followed.
    fn is_over(&self) -> bool {
        let lingers = self.timers.iter().any(|timer| timer.due == Due::LingerOver);
        let is_alone = self.tracees.values().all(|tracee| tracee.role == Role::Daemon);
        let waits = self.timers.iter().any(|timer| matches!(timer.due, Due::GoesOn(_)))
            || self.tracees.values().any(|tracee| tracee.at_exit.is_some());
        self.end.is_some() && (is_alone || !lingers || (self.was_made && !waits))
    }

    fn step(&mut self) {
        match wait(None) {
            Ok(status) => self.on(status),
            Err(errno) => panic!("nobody is left to wait for: {errno}"),
        }
    }

    fn on(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        if let Some(place) = self.timers.iter().position(|timer| timer.child.id() == pid.as_raw() as u32) {
            let due = self.timers.swap_remove(place).due;
            return self.on_timer(due);
        }
        match status {
            WaitStatus::Exited(_, code) => self.on_end(pid, HookEnd::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => self.on_end(pid, HookEnd::Killed(signal)),
            WaitStatus::PtraceEvent(_, _, event) => {
                self.on_event(pid, event);
                self.resume(pid, None);
            }
            WaitStatus::PtraceSyscall(_) => self.pass_call(pid),
            WaitStatus::Stopped(_, signal) => self.resume(pid, Some(signal)),
            _ => {}
        }
    }

    /// Lets a call go on, unless it is held back.
    fn pass_call(&mut self, pid: Pid) {
        if !self.on_call(pid) {
            self.resume(pid, None);
        }
    }

    fn on_timer(&mut self, due: Due) {
        match due {
            Due::HookHangs => {
                if let (Some(hook), None) = (self.hook, &self.end) {
                    self.end = Some((HookEnd::Hangs, self.began.elapsed()));
                    let _ = kill(hook, Signal::SIGKILL);
                }
            }
            Due::LingerOver => {}
            Due::GoesOn(pid) => self.resume(pid, None),
        }
    }

    fn on_end(&mut self, pid: Pid, end: HookEnd) {
        self.tracees.remove(&pid);
        if self.hook != Some(pid) {
            return;
        }
        if self.end.is_none() {
            self.end = Some((end, self.began.elapsed()));
        }
        if !self.order.linger.is_zero() {
            self.set_timer(self.order.linger, Due::LingerOver);
        }
    }

    fn on_event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_EXEC => {
                // A thread that executes a program becomes the first one.
                let role = self.role_of_program(pid);
                // Seen once on a busy machine: its beginning did not tell whose child it is.
                if self.hook.is_none() && role == Role::Program("hook".to_owned()) {
                    self.hook = Some(pid);
                }
                self.tracees.insert(pid, Tracee { role, group: pid, is_in_main: false, at_exit: None });
            }
            EVENT_STOP => self.meet(pid),
            _ => {}
        }
    }

    /// A process or thread that was just made has the role of the one that made it.
    fn meet(&mut self, pid: Pid) {
        if self.tracees.contains_key(&pid) {
            return;
        }
        let group = status_number(pid, "Tgid").unwrap_or(pid);
        let maker = if group == pid { status_number(pid, "PPid").unwrap_or(pid) } else { group };
        let (role, is_in_main) = match self.tracees.get(&maker) {
            Some(Tracee { role: Role::Daemon, .. }) => {
                self.hook.get_or_insert(pid);
                (Role::Foreign, false)
            }
            Some(Tracee { role: Role::Program(name), is_in_main, .. }) => {
                let fork = if group == pid && !name.ends_with("/fork") { "/fork" } else { "" };
                (Role::Program(format!("{name}{fork}")), *is_in_main)
            }
            Some(Tracee { role: Role::Foreign, .. }) | None => (Role::Foreign, false),
        };
        self.tracees.insert(pid, Tracee { role, group, is_in_main, at_exit: None });
    }

    fn role_of_program(&self, pid: Pid) -> Role {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let on_host = program.strip_prefix(self.order.root).unwrap_or(&program);
        if on_host != Path::new(PROGRAM.trim_start_matches('/')) && on_host != Path::new(PROGRAM) {
            return Role::Foreign;
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let name = words.next().unwrap_or_default();
        let role = if name == b"vfio-hook" { words.next().unwrap_or_default() } else { b"hook" };
        Role::Program(String::from_utf8_lossy(role).into_owned())
    }

    /// Goes on, to the next call where they are looked at.
    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        let is_looked_at = self.tracees.get(&pid).is_some_and(|tracee| {
            let is_done = self.was_made && tracee.at_exit.is_none();
            matches!(tracee.role, Role::Program(_)) && !is_done
        });
        // One that was killed meanwhile is gone.
        let _ = if is_looked_at { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
    }

    /// At a call's beginning or end. Whether it has to wait.
    fn on_call(&mut self, pid: Pid) -> bool {
        let (Ok(info), Ok(mut registers)) = (ptrace::syscall_info(pid), ptrace::getregs(pid)) else {
            return false;
        };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some(tracee) = self.tracees.get_mut(&pid)
                && let Some(at_exit) = tracee.at_exit.take()
            {
                at_exit.apply(pid);
            }
            return false;
        }
        let number = registers.orig_rax as i64;
        let arguments =
            [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
        let Some(tracee) = self.tracees.get_mut(&pid) else { return false };
        let Role::Program(role) = &tracee.role else { return false };
        if !tracee.is_in_main {
            tracee.is_in_main = number == LAST_BEFORE_MAIN && arguments[0] != 0;
            return false;
        }
        let (role, group) = (role.clone(), tracee.group);
        let Some(call) = Call::of(number) else { return false };
        let Some(place) = self.place(pid, call, &arguments) else { return false };
        let errors = call.errors(&place, &arguments);
        if errors.is_empty() {
            return false;
        }
        let mut key = Key { who: who(pid, group, role), call: call.name, place, occurrence: 0 };
        let count = self.counts.entry(key.clone()).or_default();
        key.occurrence = *count;
        *count += 1;
        if key.occurrence >= call.occurrences(&key.place) {
            return false;
        }
        let when = if self.end.is_none() { When::BeforeAnswer } else { When::AfterAnswer };
        let may_block = call.may_block(&key.place, &arguments, is_nonblocking(pid, call, &arguments));
        let fault = self.order.fault.filter(|(wanted, _)| **wanted == key && !self.was_made);
        self.seen.insert(key.clone(), Seen { key, errors, may_block, when });
        let (Some((_, fault)), Some(tracee)) = (fault, self.tracees.get_mut(&pid)) else { return false };
        self.was_made = true;
        match fault {
            Fault::Fails(errno) => {
                if number == libc::SYS_brk {
                    // It says no more than where the heap ends: asked for nothing, that stays where it is.
                    tracee.at_exit = Some(AtExit::Restore(registers.rdi));
                    registers.rdi = 0;
                } else {
                    tracee.at_exit = Some(AtExit::Fail(errno));
                    registers.orig_rax = u64::MAX;
                }
                let _ = ptrace::setregs(pid, registers);
                false
            }
            Fault::Late(time) => {
                self.set_timer(time, Due::GoesOn(pid));
                true
            }
        }
    }

    /// What a call is about; none where that cannot be told.
    fn place(&mut self, pid: Pid, call: &Call, arguments: &[u64; 6]) -> Option<String> {
        let root = self.order.root;
        Some(match call.subject {
            Subject::None => "-".to_owned(),
            Subject::Memory(flags) => {
                let is_anonymous = arguments[flags] & libc::MAP_ANONYMOUS as u64 != 0;
                if is_anonymous { "anonymous" } else { "file" }.to_owned()
            }
            Subject::Path(path) => class(&text(pid, arguments[path])?, root),
            Subject::At(folder, path) => {
                let path = text(pid, arguments[path])?;
                let is_below = !path.starts_with('/') && arguments[folder] as i32 != libc::AT_FDCWD;
                match is_below.then(|| self.descriptor(pid, arguments[folder])) {
                    Some(folder) if path.is_empty() => folder,
                    Some(folder) => class(&format!("{}/{path}", folder.trim_end_matches('/')), root),
                    None => class(&path, root),
                }
            }
            Subject::Descriptor(number) => self.descriptor(pid, arguments[number]),
            Subject::Address(number, address) => {
                if arguments[address] == 0 {
                    return Some(self.descriptor(pid, arguments[number]));
                }
                // `sockaddr_un`: two bytes of family, then the path.
                let path = text(pid, arguments[address] + 2).unwrap_or_default();
                let place = format!("socket {}", class(&path, root));
                if let Some(socket) = descriptor(pid, arguments[number]) {
                    self.sockets.insert(socket, place.clone());
                }
                place
            }
            Subject::Waits(list, length) => {
                let count = usize::try_from(arguments[length]).ok().filter(|count| *count <= 16)?;
                let mut bytes = vec![0; count * 8];
                memory(pid)?.read_exact_at(&mut bytes, arguments[list]).ok()?;
                let numbers = bytes.chunks(8).map(|entry| u64::from(entry[0]) | u64::from(entry[1]) << 8);
                let places: Vec<String> = numbers.map(|number| self.descriptor(pid, number)).collect();
                places.join(" + ")
            }
        })
    }

    /// The class of what a descriptor stands for.
    fn descriptor(&self, pid: Pid, number: u64) -> String {
        let Some(shown) = descriptor(pid, number) else { return "closed".to_owned() };
        match self.sockets.get(&shown) {
            Some(place) => place.clone(),
            None => class(&shown, self.order.root),
        }
    }

    /// Nobody is traced any more.
    fn let_go(&mut self) {
        for mut timer in self.timers.drain(..) {
            let _ = timer.child.kill();
            let _ = timer.child.wait();
            // One that waits at a call is not told of again.
            if let Due::GoesOn(pid) = timer.due
                && ptrace::detach(pid, None).is_ok()
            {
                self.tracees.remove(&pid);
            }
        }
        for pid in self.tracees.keys() {
            let _ = ptrace::interrupt(*pid);
        }
        // What was made meanwhile stands at its beginning, and is seen here too.
        while let Ok(status) = wait(None) {
            let signal = match status {
                WaitStatus::Stopped(_, signal) => Some(signal),
                _ => None,
            };
            if let Some(pid) = status.pid() {
                if let (WaitStatus::PtraceSyscall(_), Some(at_exit)) =
                    (status, self.tracees.get_mut(&pid).and_then(|tracee| tracee.at_exit.take()))
                {
                    at_exit.apply(pid);
                }
                let _ = ptrace::detach(pid, signal);
            }
        }
    }
}

/// Whether the call's descriptor does not wait: then it is slow in no kernel.
fn is_nonblocking(pid: Pid, call: &Call, arguments: &[u64; 6]) -> bool {
    let (Subject::Descriptor(number) | Subject::Address(number, _)) = call.subject else { return false };
    let shown = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", arguments[number])).unwrap_or_default();
    let flags = shown.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i64::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & i64::from(libc::O_NONBLOCK) != 0)
}

impl AtExit {
    fn apply(self, pid: Pid) {
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        match self {
            Self::Fail(errno) => registers.rax = (-i64::from(errno as i32)) as u64,
            Self::Restore(argument) => registers.rdi = argument,
        }
        let _ = ptrace::setregs(pid, registers);
    }
}

/// The next one of those that this thread traces, or started.
fn wait(pid: Option<Pid>) -> Result<WaitStatus, Errno> {
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => {}
            waited => return waited,
        }
    }
}

/// The process's role, and its thread where that has a name of its own.
fn who(pid: Pid, group: Pid, role: String) -> String {
    if pid == group {
        return role;
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{role}:{}", name.trim_end())
}

fn memory(pid: Pid) -> Option<File> {
    File::open(PathBuf::from(format!("/proc/{pid}/mem"))).ok()
}

/// The text in a process's memory that ends with a zero.
fn text(pid: Pid, address: u64) -> Option<String> {
    if address == 0 {
        return Some(String::new());
    }
    let mut bytes = vec![0; 4096];
    let memory = memory(pid)?;
    let mut length = memory.read_at(&mut bytes, address).unwrap_or(0);
    if length == 0 {
        // The page behind it may not be there.
        length = memory.read_at(&mut bytes[..4096 - (address % 4096) as usize], address).ok()?;
    }
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

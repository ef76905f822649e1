//! The built program on a host of plain files: a folder that is the root of its own mounts, processes and network.
//!
//! Nothing of the machine can be reached from there but `/usr`, read-only. A shell by the name of libvirt's daemon calls
//! the hook as libvirt does: the guest's XML on a pipe, standard output and standard error into pipes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chdir, chroot, mkfifo};
use tempfile::TempDir;
use vfio_hook::event::Operation;
use vfio_hook::host::manifest;

use crate::peers::{Irqbalance, Journal};

const BINARY: &str = env!("CARGO_BIN_EXE_vfio-hook");
const HOST: &str = include_str!("plain-files.host");

/// The host that has the card, and the port that it is below.
const HOST_WITH_CARD: &str = include_str!("../../src/commands/demo/ryzen-7950x.host");
const PORT: &str = "0000:00:01.1";

/// The card's functions.
const CARD: [&str; 4] = ["0000:03:00.0", "0000:03:00.1", "0000:03:00.2", "0000:03:00.3"];

/// Where the program is; `/etc/libvirt/hooks/qemu` is a link to it.
pub(crate) const PROGRAM: &str = "/opt/vfio-hook";

pub(crate) const GUEST: &str = "win11";
pub(crate) const UUID: &str = "c0ffee00-1111-4222-8333-44445555666f";

/// What takes the guest as much as a host of plain files can give.
const CONFIG: &str = "\
isolate_cpus: {}
cpu_power: {governor: powersave, resume_latency: 20us, dma_latency: 50us}
hugepages: {}
gpu: {return_to: vfio, keep_awake: never, guest_reboot: allow}
run:
- {when: prepare, command: [/usr/bin/echo, hello], on_failure: refuse}
- {when: started, command: [/usr/bin/echo, it runs]}
- {when: stopped, command: [/usr/bin/echo, it has stopped]}
- {when: release, command: [/usr/bin/echo, bye]}
- {scripts: /opt/scripts}
";

const SCRIPT: &str = "#!/bin/sh\nread -r line && echo \"$line\"\n";

/// The first process: it mounts, then waits for orphans until the test is over, or gone.
const INIT: &str = "mount -a -T /etc/fstab && echo ready >/pipes/status && cat /pipes/lives";

/// Does what it is told, a line at a time, and says how it went.
const DAEMON: &str = r#"
while read -r what operation sub reason; do
    case $what in
    event)
        /etc/libvirt/hooks/qemu win11 "$operation" "$sub" "$reason" </pipes/stdin >/pipes/stdout 2>/pipes/stderr
        echo "$?" ;;
    command)
        /opt/vfio-hook "$operation" ${sub:+"$sub"} ${reason:+"$reason"} </dev/null >/pipes/stdout 2>/pipes/stderr
        echo "$?" ;;
    qemu)
        /opt/qemu-system-x86_64 -c 'sleep 1000; :' qemu -uuid "$operation" </dev/null >/dev/null 2>&1 &
        echo "$!" ;;
    kill)
        kill -KILL "$!"
        wait "$!"
        echo 0 ;;
    esac >/pipes/status
done </pipes/control
"#;

/// What is mounted over the kernel's `/proc`, from `/shown`.
const SHOWN: [&str; 5] = ["irq", "cpuinfo", "meminfo", "cmdline", "sys"];

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a person's command may take: `undo` alone waits 30 s for a keeper.
const COMMAND: Duration = Duration::from_secs(90);

/// What libvirt gets to see of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 128 and the signal's number where it was killed.
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// A machine with one guest.
pub(crate) struct Sandbox {
    root: TempDir,
    init: Child,
    daemon: Child,
    control: File,
    status: File,
    _lives: File,
    pub(crate) journal: Journal,
    pub(crate) irqbalance: Irqbalance,
    _parent: Sender<()>,
}

/// An event that was begun.
pub(crate) struct Begun {
    stdout: File,
    stderr: File,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let root = tempfile::Builder::new().prefix("vfio-hook-faults.").tempdir_in(parent).unwrap();
        lay_out(root.path()).unwrap();
        let pipe = |name: &str| {
            let path = root.path().join("pipes").join(name);
            mkfifo(&path, Mode::S_IRWXU).unwrap();
            path
        };
        let [control, status, lives] = ["control", "status", "lives"].map(|name| {
            let flags = OFlag::O_NONBLOCK.bits();
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(pipe(name)).unwrap()
        });
        for name in ["stdin", "stdout", "stderr"] {
            pipe(name);
        }
        let journal = Journal::listen(&root.path().join("run/systemd/journal/socket"));
        let irqbalance = Irqbalance::listen(&root.path().join("run/irqbalance/irqbalance41.sock"));
        let folder = root.path().to_owned();
        let said = status.try_clone().unwrap();
        let (started, children) = channel();
        let (parent, ends) = channel();
        // A thread of its own: what it leaves for good is the machine's mounts, processes and network. It stays the
        // parent of what it starts.
        thread::spawn(move || {
            started.send(launch(&folder, &said)).unwrap();
            ends.recv().unwrap_or(())
        });
        let (init, daemon) = children.recv().unwrap().unwrap_or_else(|error| {
            panic!(
                "no mounts and processes of its own for the test ({error}): it takes root and CAP_SYS_ADMIN"
            )
        });
        Self { root, init, daemon, control, status, journal, irqbalance, _lives: lives, _parent: parent }
    }

    /// Where a path of the host is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// libvirt's daemon, which calls the hook.
    pub(crate) fn daemon(&self) -> Pid {
        pid(&self.daemon)
    }

    /// The guest's keeper, if it runs.
    pub(crate) fn keeper(&self) -> Option<Pid> {
        let is_keeper = |pid: &Pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line == format!("vfio-hook\0keeper\0{UUID}\0").as_bytes()
        };
        children(pid(&self.init)).into_iter().find(is_keeper)
    }

    /// Has libvirt's daemon call the hook.
    pub(crate) fn begin(&mut self, operation: Operation, reason: &str) -> Begun {
        let xml = self.path("/pipes/stdin");
        // Waits for its reader, as the writer of a pipe does.
        thread::spawn(move || fs::write(xml, guest_xml()));
        let begun = self.open_pipes();
        let words = [operation.as_str(), operation.sub_operation(), reason];
        self.tell(&format!("event {}", words.join(" ")));
        begun
    }

    fn open_pipes(&self) -> Begun {
        let open = |name: &str| {
            let flags = OFlag::O_NONBLOCK.bits();
            OpenOptions::new().read(true).custom_flags(flags).open(self.path(name)).unwrap()
        };
        Begun { stdout: open("/pipes/stdout"), stderr: open("/pipes/stderr") }
    }

    /// Waits for the end of what was begun; none where it takes longer.
    pub(crate) fn finish(&mut self, begun: Begun, patience: Duration) -> Option<Answer> {
        let status = self.hear(patience)?;
        let (stdout, stderr) = (to_the_end(begun.stdout)?, to_the_end(begun.stderr)?);
        Some(Answer { status, stdout, stderr })
    }

    /// A person's command.
    pub(crate) fn command(&mut self, words: &str) -> Option<Answer> {
        let begun = self.open_pipes();
        self.tell(&format!("command {words}"));
        self.finish(begun, COMMAND)
    }

    /// QEMU begins to run the guest, and libvirt notes it.
    pub(crate) fn qemu_runs(&mut self) {
        self.tell(&format!("qemu {UUID}"));
        let pid = self.hear(PATIENCE).expect("QEMU's stand-in is started");
        fs::write(self.path(&format!("/run/libvirt/qemu/{GUEST}.pid")), format!("{pid}\n")).unwrap();
        let status = format!(
            "<domstatus state='running' reason='booted' pid='{pid}'>\n{}\n</domstatus>\n",
            guest_xml()
        );
        fs::write(self.path(&format!("/run/libvirt/qemu/{GUEST}.xml")), status).unwrap();
    }

    pub(crate) fn qemu_ends(&mut self) {
        self.tell("kill");
        self.hear(PATIENCE).expect("QEMU's stand-in ends");
        for name in ["pid", "xml"] {
            let _ = fs::remove_file(self.path(&format!("/run/libvirt/qemu/{GUEST}.{name}")));
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.control, "{line}").unwrap();
    }

    /// The daemon's next word.
    fn hear(&mut self, patience: Duration) -> Option<i32> {
        hear(&self.status, patience)?.trim().parse().ok()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // All others die with the first process, which ends when they are waited for.
        let _ = self.init.kill();
        let _ = self.daemon.wait();
        let _ = self.init.wait();
    }
}

fn hear(mut status: &File, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        wait_until_readable(status, deadline).then_some(())?;
        let mut piece = [0; 256];
        match status.read(&mut piece) {
            Ok(length) => said.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("the daemon's pipe: {error}"),
        }
    }
    String::from_utf8(said).ok()
}

fn wait_until_readable(file: &File, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], timeout).unwrap_or(0) > 0
}

/// All that was written to a pipe; none where its end does not come, because a process keeps it open.
fn to_the_end(mut pipe: File) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    while wait_until_readable(&pipe, deadline) {
        let mut piece = [0; 4096];
        match pipe.read(&mut piece) {
            Ok(0) => return Some(bytes),
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("a pipe of the hook's: {error}"),
        }
    }
    None
}

pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok().map(Pid::from_raw)).collect()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

fn guest_xml() -> String {
    let pins: String = (0..6).map(|cpu| format!("<vcpupin vcpu='{cpu}' cpuset='{cpu}'/>")).collect();
    let devices: String = (0..CARD.len())
        .map(|function| {
            format!(
                "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x03' \
                 slot='0x00' function='0x{function}'/></source></hostdev>"
            )
        })
        .collect();
    // Fifty pages, of which ten are there.
    format!(
        "<domain type='kvm'><name>{GUEST}</name><uuid>{UUID}</uuid><memory unit='MiB'>100</memory>\
         <memoryBacking><hugepages/></memoryBacking><vcpu>6</vcpu><cputune>{pins}</cputune>\
         <devices>{devices}</devices></domain>\n"
    )
}

/// A card that vfio-pci has already: nothing but a kernel can bind a driver.
fn card() -> String {
    let mut text = "/sys/bus/pci/drivers/vfio-pci/unbind =\n/sys/bus/pci/drivers_probe =\n".to_owned();
    for line in HOST_WITH_CARD.lines().filter(|line| line.contains(PORT) && !line.starts_with('#')) {
        let mut line = line.replace("power/control = auto", "power/control = on");
        if CARD.iter().any(|function| line.contains(function)) {
            line = line.replace("driver_override = (null)", "driver_override = vfio-pci");
            for driver in ["amdgpu", "snd_hda_intel", "xhci_hcd", "i2c-designware-pci"] {
                line = line.replace(&format!("drivers/{driver}"), "drivers/vfio-pci");
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The kernel's `config` is bytes, that of a host in a folder their digits.
fn make_binary(config: &Path) -> io::Result<()> {
    let digits = fs::read_to_string(config)?;
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    fs::write(config, (0..digits.len()).step_by(2).map_while(byte).collect::<Vec<u8>>())
}

fn lay_out(root: &Path) -> io::Result<()> {
    manifest::lay_out(HOST, root).map_err(io::Error::other)?;
    manifest::lay_out(&card(), root).map_err(io::Error::other)?;
    for function in fs::read_dir(root.join("sys/bus/pci/devices"))? {
        make_binary(&function?.path().join("config"))?;
    }
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for folder in ["proc", "usr", "pipes", "dev/hugepages", "run/systemd/journal", "run/irqbalance"] {
        fs::create_dir_all(root.join(folder))?;
    }
    // Debian's `/bin` and its kind are links into `/usr`.
    for name in ["bin", "sbin", "lib", "lib64"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, root.join(name))?;
        }
    }
    let write = |path: &str, text: &str, mode| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
    };
    write(&format!("etc/vfio-hook/hooks.d/{GUEST}.yaml"), CONFIG, 0o644)?;
    write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
    let mut mounts =
        "proc /proc proc defaults 0 0\nnone /dev/hugepages hugetlbfs pagesize=2M 0 0\n".to_owned();
    for name in SHOWN {
        mounts.push_str(&format!("/shown/proc/{name} /proc/{name} none bind 0 0\n"));
    }
    write("etc/fstab", &mounts, 0o644)?;
    write("opt/daemon", DAEMON, 0o755)?;
    for event in ["prepare/begin", "release/end"] {
        write(&format!("opt/scripts/{GUEST}/{event}/say"), SCRIPT, 0o755)?;
    }
    for name in ["opt/libvirtd", "opt/qemu-system-x86_64"] {
        symlink("/bin/sh", root.join(name))?;
    }
    fs::create_dir_all(root.join("etc/libvirt/hooks"))?;
    symlink(PROGRAM, root.join("etc/libvirt/hooks/qemu"))?;
    // What is mounted over them are files.
    write("opt/vfio-hook", "", 0o755)?;
    write("dev/null", "", 0o666)
}

/// Starts the first process and libvirt's daemon, in a world of their own.
fn launch(root: &Path, status: &File) -> io::Result<(Child, Child)> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let bind = |from: &str, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        mount(Some(from), &to, none, MsFlags::MS_BIND, none)?;
        mount(none, &to, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)
    };
    bind("/usr", "/usr")?;
    bind(BINARY, PROGRAM)?;
    bind("/dev/null", "/dev/null")?;
    chroot(root)?;
    chdir("/")?;
    let shell = |name: &str| {
        let mut command = Command::new(name);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let init = shell("/bin/sh").args(["-c", INIT]).spawn()?;
    if hear(status, PATIENCE).is_none() {
        return Err(io::Error::other("its first process cannot mount /proc"));
    }
    let daemon = shell("/opt/libvirtd").arg("/opt/daemon").spawn()?;
    Ok((init, daemon))
}

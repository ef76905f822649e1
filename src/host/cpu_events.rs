//! CPUs that come online, as the kernel announces them (`device_online` in `drivers/base/core.c`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};

/// The group in which the kernel itself speaks; udev's is another (`UDEV_MONITOR_KERNEL` in `libudev-monitor.c`).
const KERNEL: u32 = 1;

/// The beginning of the message of a CPU that has come online.
const ONLINE: &[u8] = b"online@/devices/system/cpu/cpu";

/// As much as has to be read of a message: its first line, which is action and device.
const FIRST_LINE: usize = 128;

/// What the kernel says of CPUs from now on.
#[derive(Debug)]
pub(crate) struct CpuEvents(OwnedFd);

impl CpuEvents {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel has no such socket.
    pub(crate) fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkKObjectUEvent)?;
        // Without it, all that happens to any device wakes this process up.
        let _ = only_online(socket.as_fd());
        // The kernel chooses the number.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(socket))
    }

    /// Whether CPUs have come online since the last time, or may have: some messages may be lost.
    ///
    /// # Errors
    /// Nothing more is to be heard.
    pub(crate) fn came_online(&self) -> io::Result<bool> {
        let mut came = false;
        let mut message = [0; FIRST_LINE];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut message) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, sender)) => {
                    came |= sender.is_some_and(is_kernel) && is_cpu_online(&message[..length]);
                }
                Err(Errno::EAGAIN) => return Ok(came),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => came = true,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for CpuEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Others may send into the same group, with their own number.
fn is_kernel(sender: NetlinkAddr) -> bool {
    sender.pid() == 0 && sender.groups() == KERNEL
}

fn is_cpu_online(message: &[u8]) -> bool {
    let first_line = message.split(|byte| *byte == 0).next().unwrap_or_default();
    let number = first_line.strip_prefix(ONLINE);
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Has the kernel keep back all messages but those that begin with `onli`.
#[expect(unsafe_code, reason = "no crate here has SO_ATTACH_FILTER as a safe call")]
fn only_online(socket: BorrowedFd<'_>) -> io::Result<()> {
    let instruction =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k };
    // `Documentation/networking/filter.rst`: the first word, compared; all of the message, or nothing.
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from_be_bytes(*b"onli")),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    let size = u32::try_from(size_of_val(&program)).unwrap_or_default();
    // SAFETY: `program` is what the option takes, of that size, and points to four instructions that outlive the call;
    // the kernel copies both.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    Errno::result(set).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_cpu_that_came_from_all_else() {
        let message = |first: &str| format!("{first}\0ACTION=online\0SUBSYSTEM=cpu\0SEQNUM=7\0").into_bytes();
        assert!(is_cpu_online(&message("online@/devices/system/cpu/cpu3")));
        assert!(is_cpu_online(b"online@/devices/system/cpu/cpu128"));
        for other in [
            "offline@/devices/system/cpu/cpu3",
            "add@/devices/system/cpu/cpu3",
            "online@/devices/system/memory/memory32",
            "online@/devices/system/cpu/cpu",
            "online@/devices/system/cpu/cpu3/cache",
            "libudev",
            "",
        ] {
            assert!(!is_cpu_online(&message(other)), "{other}");
        }
        assert!(!is_cpu_online(b""));
    }

    #[test]
    fn only_the_kernel_counts() {
        assert!(is_kernel(NetlinkAddr::new(0, KERNEL)));
        assert!(!is_kernel(NetlinkAddr::new(4711, KERNEL)));
        assert!(!is_kernel(NetlinkAddr::new(0, 2)));
        assert!(!is_kernel(NetlinkAddr::new(0, 0)));
    }

    /// A message can be had only from a kernel with a CPU to spare: the virtual machine has one.
    #[test]
    fn nothing_happens_most_of_the_time() {
        let Ok(events) = CpuEvents::listen() else { return };
        only_online(events.as_fd()).unwrap();
        assert!(!events.came_online().unwrap());
    }
}

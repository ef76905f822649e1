//! The guest's QEMU on the simulated host: its process, its threads, its control group, and libvirt's file of it.

use std::fs;
use std::io;
use std::path::Path;

use super::own_files::make_file;
use crate::guest::Guest;
use crate::host::manifest;
use crate::host::simulated::{qemu_process, qemu_scope, qemu_thread};

/// The number of the process; its threads have the numbers after it.
const PROCESS: i32 = 4242;

/// The name in that of its control group, whatever the guest's is.
const NAME: &str = "guest";

/// More threads than a guest may have with libvirt's defaults are not made.
const MOST_THREADS: usize = 512;

pub(super) fn start(root: &Path, guest: &Guest) -> io::Result<()> {
    let vcpus: Vec<u32> = guest.vcpus.running.iter().copied().take(MOST_THREADS).collect();
    let mut text = qemu_process(PROCESS, guest.uuid, NAME);
    text.push_str(&qemu_thread(PROCESS, PROCESS, "qemu-system-x86"));
    let mut in_status = String::new();
    let names = vcpus.iter().map(|vcpu| (Some(vcpu), format!("CPU {vcpu}/KVM")));
    let iothreads = (1..=guest.qemu_threads.iothreads).take(MOST_THREADS);
    let names = names.chain(iothreads.map(|iothread| (None, format!("IO iothread{iothread}"))));
    for (thread, (vcpu, name)) in (PROCESS + 1..).zip(names) {
        text.push_str(&qemu_thread(PROCESS, thread, &name));
        if let Some(vcpu) = vcpu {
            in_status.push_str(&format!("<vcpu id='{vcpu}' pid='{thread}'/>"));
        }
    }
    manifest::lay_out(&text, root).map_err(io::Error::other)?;
    let status = format!(
        "<domstatus state='running' pid='{PROCESS}'><vcpus>{in_status}</vcpus><domain><uuid>{}</uuid></domain>\
         </domstatus>",
        guest.uuid
    );
    make_file(root, status_file(guest).as_ref(), &status)?;
    Ok(())
}

/// It ends; what is not there need not.
pub(super) fn end(root: &Path, guest: &Guest) {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    for folder in [format!("/proc/{PROCESS}"), qemu_scope(NAME)] {
        let _ = fs::remove_dir_all(below(&folder));
    }
    let _ = fs::remove_file(below(&status_file(guest)));
}

fn status_file(guest: &Guest) -> String {
    format!("/run/libvirt/qemu/{}.xml", guest.name)
}

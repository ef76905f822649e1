//! `vfio-hook demo`, as a person sees it.

mod ends;
mod every_section;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What a demo with these arguments comes to; it leaves no folder behind.
fn demo(arguments: &[&Path]) -> Output {
    // Thousands of small files: in memory where the machine has such a folder.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let temp = tempfile::tempdir_in(parent).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-hook"))
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", temp.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "the demo left something behind");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn shows_a_whole_life_and_brings_the_host_back() {
    let output = demo(&[]);
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn tries_a_persons_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mine.yaml");
    fs::write(
        &config,
        "isolate_cpus: {cpus: \"8-11,24-27\", irqs: false}\ncpu_power: {epp: power, resume_latency: 20us}\n",
    )
    .unwrap();
    let output = demo(&["--config".as_ref(), &config]);
    assert!(output.status.success());
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn a_refusal_leaves_the_host_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mine.yaml");
    fs::write(&config, "cpu_power:\n  governor: ondemand\nisolate_cpus:\n  cpus: 0-63\n").unwrap();
    let output = demo(&["--config".as_ref(), &config]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).ends_with("the host is as it was: 635 files compared\n"));
    let message = text(&output.stderr).replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(message);
}

/// A guest with a card and its sound, a USB controller on the first bus and a drive.
const XML: &str = "\
<domain type='kvm'><name>win10</name><uuid>11111111-1111-4222-8333-444455556666</uuid>
<memory unit='GiB'>8</memory>MEMORY<vcpu>4</vcpu>
<cputune><vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='18'/><vcpupin vcpu='2' cpuset='3'/>\
<vcpupin vcpu='3' cpuset='19'/></cputune><on_reboot>destroy</on_reboot><devices>
<hostdev mode='subsystem' type='pci' managed='yes'><source><address bus='BUS' slot='0' function='0'/></source></hostdev>
<hostdev mode='subsystem' type='pci' managed='yes'><source><address bus='BUS' slot='0' function='1'/></source></hostdev>
<hostdev mode='subsystem' type='pci' managed='yes'><source><address bus='0' slot='0x14' function='0'/></source></hostdev>
<hostdev mode='subsystem' type='pci' managed='yes'><source><address bus='0x44' slot='0' function='0'/></source></hostdev>
</devices></domain>";

/// Files as people have them; they name devices, units, users, programs and monitors that the built-in host has not.
const YAMLS: [(&str, &str); 12] = [
    ("a card", "gpu: {}\n"),
    (
        "a card by its address",
        "gpu: {devices: [\"0000:BUS:00.0\"], other_devices: libvirt, return_to: vfio}\n",
    ),
    (
        "the only card",
        "gpu:\n  display_manager: stop\n  holders: {wait: 5s, stop: [nvidia-persistenced.service, \
         {unit: wireplumber.service, user: bob}]}\n  reset_method: [flr]\n  bars: {0: 16 GiB}\n  recover: [rescan]\n",
    ),
    (
        "CPUs",
        "cpu_power: {governor: schedutil, epp: balance_power, dma_latency: 20us, resume_latency: none}\n",
    ),
    (
        "CPUs by their numbers",
        "isolate_cpus: {cpus: \"2-3,18-19\", irqs: false, workqueues: false, vfio_irqs: host}\n",
    ),
    ("huge pages", "hugepages: {keep_free: 1GiB}\n"),
    ("sleep", "block_sleep: {what: [sleep, idle, shutdown], strength: mask, lid: ignore}\n"),
    (
        "services",
        "services: {stop: [docker.service, docker.socket, {unit: pipewire.socket, user: bob}, srv-games.mount]}\n",
    ),
    (
        "monitors",
        "switch_input:\n- {monitor: desk, guest: hdmi-2, delay: 10s, set: {0x10: 80}}\n\
         - {monitor: {manufacturer: DEL, model: U2720Q, serial: 5K3X}, guest: usb-c, host: dp-1}\n\
         - {monitor: {connector: HDMI-A-2}, guest: dp-2, deviation: lg-f4, host: dp-1}\n\
         - {monitor: tv, guest: 0x06, host: 0x05, deviation: my-tv}\n",
    ),
    (
        "commands",
        "run:\n- {when: prepare, command: [/usr/local/bin/my-tool, a], on_failure: refuse}\n\
         - {when: started, command: [/opt/x/bin/on, \"1\"], user: carol}\n\
         - {when: stopped, command: [/bin/sh, -c, \"echo $VFIO_HOOK_REASON > /x\"]}\n\
         - {when: release, command: [/opt/x/bin/off]}\n- {scripts: /srv/hooks/qemu.d}\n",
    ),
    ("a program outside of every folder", "run: {when: prepare, command: [/bin/../../../../tmp/x]}\n"),
    (
        "an example",
        "services: {stop: [ollama.service, {unit: sunshine.service, user: anna}]}\nfree_memory: {}\n",
    ),
];

/// What a demo of these files comes to: its output, with the folder of the files left out.
fn own_files(xml: &str, yaml: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let (config, guest) = (folder.path().join("mine.yaml"), folder.path().join("mine.xml"));
    fs::write(&config, yaml).unwrap();
    fs::write(&guest, xml).unwrap();
    let output = demo(&["--config".as_ref(), &config, "--xml".as_ref(), &guest]);
    let text = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.success(), text.replace(folder.path().to_str().unwrap(), "FOLDER"))
}

/// For a card where the built-in host has none, where it has a port, and where it has another card.
#[test]
fn whatever_a_persons_files_name_the_host_is_as_it_was() {
    for (bus, yamls) in [("0b", &YAMLS[..]), ("01", &YAMLS[..1]), ("03", &YAMLS[..1])] {
        for (name, yaml) in yamls {
            let memory = match yaml.contains("hugepages") {
                true => "<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>",
                false => "",
            };
            let xml = XML.replace("BUS", &format!("0x{bus}")).replace("MEMORY", memory);
            let (succeeded, text) = own_files(&xml, &yaml.replace("BUS", bus));
            let (is_back, is_refused) =
                (text.contains("\nthe host is as it was: "), name.starts_with("a program outside"));
            assert!(is_back && succeeded != is_refused, "{name}, {bus}:\n{text}");
        }
    }
}

#[test]
fn all_of_a_persons_file_is_shown() {
    let all: String =
        YAMLS[2..=9].iter().filter(|(name, _)| !name.contains("numbers")).map(|(_, yaml)| *yaml).collect();
    let memory = "<memoryBacking><hugepages/></memoryBacking>";
    let (succeeded, text) = own_files(&XML.replace("BUS", "0x0b").replace("MEMORY", memory), &all);
    assert!(succeeded, "{text}");
    insta::assert_snapshot!(text);
}

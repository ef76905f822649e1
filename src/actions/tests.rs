//! Whole files: broken ones and what is said about them, and the examples that are shipped.

mod as_people_write;
mod block_sleep;
mod cpu_power;
mod disks;
mod gpu;
mod gpu_family;
mod host;
mod isolate_cpus;
mod kernel_line;
mod no_panic;
mod run;
mod services;
mod switch_input;
mod tune;

use std::path::Path;
use std::time::{Duration, Instant};

use super::GuestConfig;
use crate::config::*;
use crate::monitor::{MonitorSelector, VcpFeature, VcpValue};
use crate::pages::MemorySize;
use crate::resume_latency::ResumeLatency;
use crate::user_name::UserName;

const FILE: &str = "/etc/vfio-hook/hooks.d/win11.yaml";

const GOOD: &str = "\
# win11
isolate_cpus:
  cpus: \"4-15,20-31\"
  irqs: true
  vfio_irqs: host
  workqueues: false
cpu_power:
  cpus: all
  governor: performance
  epp: balance_performance
  boost: false
  resume_latency: 20us
  dma_latency: none
hugepages:
  timeout: 5s
  keep_free: 2GiB
  on_shortage: warn
block_sleep:
  what: [sleep, idle]
  strength: mask
  lid: ignore
switch_input:
  - monitor: {manufacturer: GSM, serial: 007}
    guest: hdmi-1
    host: 0x0f
    delay: 5s
    set: {0xD6: 1}
    shared: last
    deviation: lg-f4
    on_failure: refuse
services:
  stop: [ollama.service, {unit: pipewire.socket, user: anna}]
  start: evsieve@win11.service
  timeout: 5s
gpu:
  devices: [\"0000:03:00.0\"]
  return_to: host-if-clean
  keep_awake: never
  consoles: free
  reset_after: [bus-reset]
  guest_reboot: restart
  holders: {wait: 15s, stop: [sunshine.service, {unit: wireplumber.service, user: anna}]}
  compositors: udev-remove
  display_manager: stop
  reset_method: [device_specific, flr]
  bars: {0: 16 GiB, 2: 256 MiB}
  recover: [reset, rescan-card]
  timeout: 20s
  other_devices: libvirt
shared_memory:
  - {path: /dev/shm/looking-glass, size: 128MiB, owner: anna, group: kvm, mode: \"0660\"}
  - {path: /dev/kvmfr0, size: auto, mode: 0600}
sriov: [{device: \"0000:05:00.0\", count: 4}, {device: enp6s0f1, count: auto}]
schedule: {vcpus: {fifo: 3}, emulator: {nice: -5}, io: {nice: 19}}
requires:
  - /dev/kvm
  - {unit: srv-games.mount, user: anna, message: the NAS is off}
  - {device: \"046d:c52b\"}
conflicts: [macos, {guest: ubuntu, message: \"both use: the card\"}]
run:
  - when: prepare
    command: [/usr/bin/logger, -p, 5, \"a: b\"]
    undo: [/usr/bin/logger, undone]
    env: {DISPLAY: \":0\"}
    background: false
    unless_exists: /.no-hooks
    timeout: 5s
    user: anna
    on_failure: refuse
  - {scripts: /etc/libvirt/hooks/qemu.d, timeout: 5s}
";

fn parse(text: &str) -> Result<GuestConfig, ConfigErrors> {
    GuestConfig::parse(Path::new(FILE), text)
}

/// Each mistake as `LINE:COLUMN: message (help)`.
fn mistakes(text: &str) -> Vec<String> {
    listed(&parse(text).unwrap_err())
}

fn listed(errors: &ConfigErrors) -> Vec<String> {
    assert!(errors.to_string().len() <= 2048);
    errors
        .diagnostics()
        .iter()
        .map(|each| {
            let place = each.place.map_or("-".to_owned(), |place| format!("{}:{}", place.line, place.column));
            let help = each.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
            format!("{place}: {}{help}", each.message)
        })
        .collect()
}

#[test]
fn reads_every_key() {
    let config = parse(GOOD).unwrap();
    let cpus = config.isolate_cpus.unwrap();
    assert_eq!(cpus.cpus, CpuChoice::List("4-15,20-31".parse().unwrap()));
    assert_eq!((cpus.irqs, cpus.workqueues), (Toggle::On, Toggle::Off));
    assert_eq!(cpus.vfio_irqs, VfioIrqs::Host);
    let power = config.cpu_power.unwrap();
    assert_eq!((power.cpus, power.boost), (PowerCpus::All, Some(Toggle::Off)));
    assert_eq!(power.governor.unwrap().as_str(), "performance");
    assert_eq!(power.epp.unwrap().as_str(), "balance_performance");
    assert_eq!(power.resume_latency, Some(ResumeLatency::AtMost(20.try_into().unwrap())));
    assert_eq!((power.dma_latency, power.profile), (Some(ResumeLatency::None), None));
    assert_eq!(
        config.hugepages.unwrap(),
        Hugepages {
            timeout: Duration::from_secs(5),
            keep_free: Some(MemorySize::from_gib(2)),
            on_shortage: OnShortage::Warn,
        }
    );
    assert_eq!(
        config.block_sleep.unwrap(),
        BlockSleep {
            what: [Blocked::Sleep, Blocked::Idle].into(),
            strength: LockStrength::Mask,
            lid: LidSwitch::Ignored,
        }
    );
    assert_eq!(
        config.switch_input.unwrap().monitors,
        [MonitorSwitch {
            monitor: MonitorChoice::Selector(MonitorSelector {
                manufacturer: Some("GSM".parse().unwrap()),
                serial: Some("007".to_owned()),
                ..MonitorSelector::default()
            }),
            guest: Some(switch_input::input("hdmi-1")),
            host: HostInput::Input(InputChoice::Raw(VcpValue(0x0f))),
            delay: Duration::from_secs(5),
            set: vec![(VcpFeature::POWER_MODE, VcpValue(1))],
            sharing: MonitorSharing::LastStarted,
            deviation: Some("lg-f4".parse().unwrap()),
            on_failure: OnUnreachable::Refuse,
        }]
    );
    assert_eq!(
        config.services.unwrap(),
        Services {
            stop: vec![services::unit("ollama.service"), services::unit_of("anna", "pipewire.socket")],
            start: vec![StartedUnit {
                unit: crate::unit_file_name::UnitFileName::new("evsieve@win11.service").unwrap(),
                user: None,
            }],
            timeout: Duration::from_secs(5),
        }
    );
    assert_eq!(config.gpu.unwrap(), gpu::every_key());
    let command = RunCommand {
        when: RunWhen::Prepare,
        command: ["/usr/bin/logger", "-p", "5", "a: b"].map(str::to_owned).into(),
        undo: Some(vec!["/usr/bin/logger".to_owned(), "undone".to_owned()]),
        timeout: Duration::from_secs(5),
        background: Toggle::Off,
        env: [("DISPLAY".to_owned(), ":0".to_owned())].into(),
        unless_exists: Some("/.no-hooks".into()),
        user: Some(UserName::new("anna").unwrap()),
        on_failure: OnFailure::Refuse,
    };
    let scripts =
        RunScripts { directory: "/etc/libvirt/hooks/qemu.d".into(), timeout: Duration::from_secs(5) };
    let entries = vec![RunEntry::Command(command), RunEntry::Scripts(scripts)];
    assert_eq!(config.run.unwrap(), Run { entries });
}

#[test]
fn empty_sections_do_the_default() {
    for text in [
        "isolate_cpus: {}\nhugepages: {}\nblock_sleep: {}\ngpu: {}\n",
        "isolate_cpus:\nhugepages:\nblock_sleep:\ngpu:\n",
        "{isolate_cpus: ~, hugepages: , block_sleep: , gpu: }",
    ] {
        let config = parse(text).unwrap();
        assert_eq!(config.isolate_cpus, Some(IsolateCpus::default()), "{text:?}");
        assert_eq!(config.hugepages, Some(Hugepages::default()), "{text:?}");
        assert_eq!(config.block_sleep, Some(BlockSleep::default()), "{text:?}");
        assert_eq!(config.gpu, Some(Gpu::default()), "{text:?}");
        assert_eq!((&config.services, &config.run), (&None, &None), "{text:?}");
    }
    assert_eq!(parse("hugepages: {}").unwrap().isolate_cpus, None);
}

#[test]
fn the_example_of_the_design_is_read() {
    let config = parse(
        "isolate_cpus:\n  cpus: auto                  # the CPUs the XML pins vCPUs to; or \"4-15,20-31\"\n  \
         irqs: true                  # units, irqs, workqueues, kernel_threads: each may be turned off\n\
         cpu_power:                    # how fast CPUs are\n  cpus: guest                 # guest | all | a list\n  \
         governor: performance\nhugepages: {}                 # size, count and node\n\
         tune: { transparent_hugepages: never, stat_interval: 120 }\n",
    )
    .unwrap();
    assert_eq!(config.cpu_power.unwrap().governor.unwrap().as_str(), "performance");
    assert!(config.tune.is_some());
    assert_eq!(config.isolate_cpus.unwrap().cpus, CpuChoice::Auto);
}

#[test]
fn the_timeout_has_bounds() {
    for (text, good) in [("1s", true), ("50s", true), ("999ms", false), ("51s", false), ("1min", false)] {
        assert_eq!(parse(&format!("hugepages: {{timeout: {text}}}")).is_ok(), good, "{text}");
    }
}

/// Broken files, and a snapshot of what a person sees of each.
#[test]
fn shows_people_what_is_wrong() {
    for (name, text) in [
        ("unknown_section", "isolate-cpu: {}\nmonitors: {}\n"),
        ("unknown_key", "isolate_cpus:\n  host-cpus: auto\n  workqueue: true\n"),
        ("duplicate_key", "hugepages:\n  timeout: 5s\n  keep_free: 1GiB\n  timeout: 6s\nhugepages: {}\n"),
        ("wrong_type", "isolate_cpus: true\nhugepages:\n  - timeout: 5s\n"),
        ("bad_cpulist", "isolate_cpus:\n  cpus: 4-15,x-31   # all but four\n"),
        ("isolates_none", "isolate_cpus:\n  cpus: \"\"\n"),
        ("missing_unit", "hugepages:\n  timeout: 20\n  keep_free: 2048\n"),
        ("unknown_enum_value", "hugepages: {timeout: 5s, on_shortage: refuze}\n"),
        ("not_a_boolean", "isolate_cpus:\n\n  irqs: yes\n"),
        ("no_value", "cpu_power:\n  governor:\n"),
        ("keys_of_earlier_versions", "isolate_cpus: {governor: performance, cpu_dma_latency: 20us}\n"),
        ("tab", "hugepages:\n\ttimeout: 5s\n"),
        ("open_quote", "isolate_cpus:\n  cpus: \"4-15\n  irqs: true\n"),
        ("two_documents", "hugepages: {}\n---\nisolate_cpus: {}\n"),
        ("no_section", "# later\n"),
        ("no_effect", "services: {}\nblock_sleep: {what: [shutdown], strength: mask}\n"),
        ("unit_without_type", "services:\n  stop:\n    - ollama\n    - {unit: sunshine.servce, usr: anna}\n"),
        ("shell_command", "run:\n  - when: started\n    command: logger up && true\n"),
        ("command_without_event", "run:\n  - command: [logger, up]\n    shell: bash\n"),
        (
            "monitor_by_its_connector",
            "switch_input:\n  - monitor: {connector: HDMI-1}\n    guest: displayport-1\n",
        ),
        ("input_in_other_words", "switch_input: {monitor: desk, guest: HDMI-1, hots: dp-1}\n"),
        ("gpu_as_in_guides", "gpu:\n  device: 03:00.0\n  reset_method: function-level\n  bars: {0: 12GiB}\n"),
        (
            "gpu_in_other_words",
            "gpu: {guest_reboot: reset, return_to: Host, recover: [reset, bus_reset, reset]}\n",
        ),
        (
            "schedule_in_other_words",
            "schedule:\n  vcpus: {nice: -21, fifo: 100}\n  emulator: fifo\n  io: -5\n",
        ),
        ("schedule_as_chrt_has_it", "schedule: {vcpus: FIFO, emulator: {fifo: 1}, iothreads: {nice: 1}}\n"),
        ("schedule_of_nothing", "schedule: {}\n"),
        (
            "requires_in_other_words",
            "requires:\n  - ollama\n  - kvmfr0: /dev/kvmfr0\n  - {unit: a.service, path: /x}\n  - ../x\n  - \"3:0.0\"\n",
        ),
        (
            "requires_twice",
            "requires: [/dev/kvm, {path: /dev/kvm}, {path: /x, user: anna}, {path: /y, message: \"\"}]\n",
        ),
        (
            "conflicts_in_other_words",
            "conflicts:\n  - 11\n  - name: macos\n  - a/b\n  - macos\n  - {guest: macos}\n",
        ),
        ("conflicts_with_none", "conflicts: []\nrequires: {}\n"),
        (
            "shared_memory_in_other_words",
            "shared_memory:\n  - {file: /dev/shm/x}\n  - {path: /tmp/x, mode: 770}\n  - {path: /dev/shm/../sda, size: 100}\n  \
             - {path: /dev/kvmfr0, size: 3MiB, owner: 1000}\n  - path: /dev/kvmfr0\n",
        ),
        (
            "sriov_in_other_words",
            "sriov:\n  - {device: \"05:00.0\"}\n  - {count: 4}\n  - {device: eth0, count: 0}\n  - {device: eth0, count: \"4\"}\n  \
             - {device: /dev/x, numvfs: 2}\n  - {device: eth1, count: 65536}\n  - eth2\n",
        ),
        ("list_of_steps", "- hugepages\n- isolate_cpus\n"),
        ("wide_letters", "hugepages: {on_shortage: \"警告\", größe: 5s}\n"),
    ] {
        let rendered = parse(text).unwrap_err().render(Style::Plain);
        insta::with_settings!({ description => text, omit_expression => true }, {
            insta::assert_snapshot!(name, rendered);
        });
    }
}

#[test]
fn tells_all_mistakes_at_once_each_with_its_place() {
    let text = "\
isolate_cpus:
  cpus: 9-4
  irqs: 1
  irqs: true
cpu_power:
  resume_latency: 0us
  governor: [performance]
hugepages:
  timeout: 2min
  on_shortage: &a warm
  7: seven
usb: {devices: auto, devices: auto}
";
    assert_eq!(
        mistakes(text),
        [
            "2:9: `isolate_cpus.cpus`: no list of CPUs: the range `9-4` runs backwards (`auto` takes the CPUs that the guest's XML pins \
             its vCPUs to; a list looks like \"4-15,20-31\")",
            "3:9: `isolate_cpus.irqs`: expected `true` or `false`, found the number 1 (write `true`)",
            "4:3: the key `irqs` stands here for the second time (keep one of the two)",
            "6:19: `cpu_power.resume_latency`: a limit of zero has no effect: the kernel reads it as no limit (`none` tolerates no wake-up time \
             at all; `20us` leaves the light sleep states)",
            "7:13: `cpu_power.governor`: expected a governor's name such as `performance`, found a list",
            "9:12: `hugepages.timeout`: not between 1s and 50s (libvirt waits meanwhile, and `prepare` has 60 s in all; \
             without a timeout it is 20s)",
            "10:16: `hugepages.on_shortage`: expected `refuse` or `warn`, found `warm` (did you mean `warn`?)",
            "11:3: expected a key's name in `hugepages`, found the number 7",
            "12:1: unknown section `usb` (allowed here: `requires`, `conflicts`, `block_sleep`, `services`, `run`, `tune`, \
             `shared_memory`, `disks`, `sriov`, `gpu`, `free_memory`, `hugepages`, `isolate_cpus`, `cpu_power`, `schedule` or `switch_input`)",
            "12:22: the key `devices` stands here for the second time (keep one of the two)",
        ]
    );
}

#[test]
fn places_hold_with_any_line_ending_and_a_byte_order_mark() {
    let text = "\u{feff}# ü\u{85}# \u{2028}\r\nhugepages:\r\n  timeot: 5s\r\n";
    assert_eq!(mistakes(text)[0].split(' ').next(), Some("3:3:"));
    let crlf = GOOD.replace('\n', "\r\n");
    assert_eq!(parse(&crlf), parse(GOOD));
}

#[test]
fn control_characters_are_told_and_never_printed() {
    assert!(mistakes("hugepages: {}\n# \u{1b}[2J\n")[0].starts_with("2:3: the control character U+001B"));
    let errors = parse("\"\\e[2J\\n\": {}\n").unwrap_err();
    let clean = |text: &str| !text.contains('\u{1b}');
    assert!(clean(&errors.to_string()) && clean(&errors.render(Style::Plain)), "{errors}");
    assert!(errors.to_string().contains("unknown section `\\u{1b}[2J\\n`"), "{errors}");
    assert!(errors.render(Style::Coloured).contains('\u{1b}'));
}

#[test]
fn files_beyond_reason_are_refused() {
    let large = format!("hugepages: {{}}\n{}", "# x\n".repeat(MAX_FILE_BYTES / 4));
    assert_eq!(mistakes(&large), ["-: the file is larger than 1048576 bytes"]);

    let many: String = (0..1000).map(|number| format!("key_{number}: {{}}\n")).collect();
    let errors = parse(&many).unwrap_err();
    assert_eq!((errors.diagnostics().len(), errors.omitted()), (20, 980));
    assert!(errors.to_string().ends_with(" more mistakes"), "{errors}");
    assert!(errors.to_string().len() <= 2048);

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(10)));
    }
    assert_eq!(mistakes(&bomb).len(), 1);
    assert!(mistakes(&"[".repeat(MAX_FILE_BYTES))[0].starts_with("1:5001: more than 5000 opening brackets"));
    assert!(mistakes("hugepages: &a {timeout: *a}")[0].contains("nested too deeply"));
}

#[test]
fn no_file_takes_long_to_refuse() {
    let filled = |begin: &str, each: &str| {
        format!("{begin}{}", each.repeat((MAX_FILE_BYTES - begin.len()) / each.len()))
    };
    let directives: String = (0..50_000).map(|number| format!("%TAG !a{number}! tag:b\n")).collect();
    for (text, message) in [
        (filled(&"{a: ".repeat(4990), "x,"), "too much follows 4990 opening brackets"),
        (format!("{directives}---\nx"), "101:1: more than 100 lines that begin with `%`"),
        (filled("", "- "), "nested too deeply"),
        (filled("", "- *a\n").replacen("*a", "&a", 1), "more than 5000 values"),
        (format!("{}]", filled("isolate_cpus: {cpus: [0", ",0-8191")), "more than 5000 values"),
        (
            format!("{}\"", filled("isolate_cpus:\n  cpus: \"0", ",0-8191")),
            "more than 16384 parts in one list",
        ),
    ] {
        let began = Instant::now();
        let mistakes = mistakes(&text[..text.len().min(MAX_FILE_BYTES)]);
        assert!(mistakes[0].contains(message), "{mistakes:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{message}: {:?}", began.elapsed());
    }
}

#[test]
fn flow_style_within_reason_is_read() {
    let commands = "{when: started, command: [/usr/bin/logger, a-long-word, 'another one']},\n".repeat(600);
    assert_eq!(parse(&format!("run: [{commands}]")).unwrap().run.unwrap().entries.len(), 600);
}

#[test]
fn anchors_within_reason_are_read() {
    let config = parse("cpu_power: {epp: &p performance, governor: *p}").unwrap();
    assert_eq!(config.cpu_power.unwrap().governor.unwrap().as_str(), "performance");
}

#[test]
fn short_form_and_json_name_file_line_and_column() {
    let errors = parse("hugepages:\n  timeout: 20\n").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "/etc/vfio-hook/hooks.d/win11.yaml:2:12: `hugepages.timeout`: 20 has no unit\nhelp: add a unit: for example `20s`"
    );
    assert_eq!(
        serde_json::to_value(&errors).unwrap(),
        serde_json::json!([{
            "file": FILE, "line": 2, "column": 12,
            "message": "`hugepages.timeout`: 20 has no unit", "help": "add a unit: for example `20s`",
        }])
    );
}

/// Only what is stopped must not be what the host needs.
#[test]
fn units_of_the_host_can_be_required() {
    assert!(GuestConfig::parse(Path::new(FILE), "requires: [libvirtd.service]\n").is_ok());
    assert!(mistakes("services: {stop: libvirtd.service}\n")[0].contains("cannot be stopped"));
}

#[test]
fn a_file_may_say_its_version() {
    assert!(GuestConfig::parse(Path::new(FILE), "version: 1\nhugepages: {}\n").is_ok());
    assert_eq!(
        mistakes("version: 2\nhugepages: {}\n"),
        [
            "1:10: `version`: this program does not read version 2 of the format (it reads version `1`; a newer \
             vfio-hook may read it)"
        ]
    );
    assert_eq!(
        mistakes("version: one\nhugepages: {}\n"),
        ["1:10: `version`: expected a version of the format, found `one` (write `version: 1`)"]
    );
    assert_eq!(mistakes("version: 1\n").len(), 1);
}

#[test]
fn the_shipped_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks.d-examples");
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let bytes = std::fs::read(&path).unwrap();
            all.push_str(&String::from_utf8_lossy(&bytes));
            let source = ConfigSource::from_bytes(&path, bytes).unwrap();
            let result = match path.file_name().and_then(|name| name.to_str()) {
                Some("host.yaml") => source.parse_host().map(drop),
                Some("guests.yaml") => crate::actions::Groups::read(&source).map(drop),
                _ => GuestConfig::read(&source).map(drop),
            };
            if let Err(errors) = result {
                panic!("{}", errors.render(Style::Plain));
            }
        }
    }
    for section in super::SECTIONS {
        assert!(all.contains(&format!("\n{}:", section.name)), "no example shows `{}`", section.name);
    }
}

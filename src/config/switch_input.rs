//! The section `switch_input`: monitors show the guest while it runs, and the host again after it.

use std::time::Duration;

use super::item::Item;
use super::key::Key;
use super::monitor::{self, deviation_name, monitor_name};
use super::section::Section;
use super::tree::Node;
use super::value::{Fault, choice, duration};
use super::vcp::{InputChoice, PREVIOUS, input, number, refuse_decimal_input};
use crate::monitor::{DeviationName, MonitorName, MonitorSelector, VcpFeature, VcpValue};

/// After that most guests have a picture: a monitor that is switched to an input without one goes back by itself.
const DEFAULT_DELAY: Duration = Duration::from_secs(3);

const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Features that put settings back to the factory's, or to those that were saved: there is no value to put back.
const NOT_UNDONE: [VcpFeature; 6] = [
    VcpFeature(0x04),
    VcpFeature(0x05),
    VcpFeature(0x06),
    VcpFeature(0x08),
    VcpFeature(0x0a),
    VcpFeature(0xb0),
];

/// Monitors that are switched for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchInput {
    /// In the order of the file; never none.
    pub monitors: Vec<MonitorSwitch>,
}

impl SwitchInput {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "monitor",
            "`{ model: \"LG ULTRAGEAR\" }`, or a name from the file of the host",
            "needed",
            "which one: `manufacturer` (three letters), `model`, `serial`, `connector` (the kernel's \
                    name, such as `DP-1`), or several of them, which then all must fit",
        ),
        Key::new(
            "guest",
            "a name such as `hdmi-1`, `dp-2`, `usb-c`, or the monitor's own value such as `0x11`",
            "needed if there is no `set`",
            "the input that the guest is on",
        ),
        Key::new(
            "host",
            "`previous`, or an input",
            "`previous`",
            "the input that is shown after the guest; `previous` is the one that was active",
        ),
        Key::new(
            "delay",
            "`0s` to `60s`",
            "`3s`",
            "how long after the guest's start: a monitor goes back by itself from an input without a \
                    picture",
        ),
        Key::new(
            "set",
            "features and values such as `{ 0x10: 80 }`",
            "nothing",
            "other features, by their numbers; what was there comes back after the guest",
        ),
        Key::new(
            "shared",
            "`false`, `last`",
            "`false`",
            "whether another guest may have this monitor too: not at all, or the one that was started \
                    last has it",
        ),
        Key::new(
            "deviation",
            "a name",
            "by the monitor",
            "how the monitor differs from the standard, where that is not known by itself",
        ),
        Key::new(
            "on_failure",
            "`warn`, `refuse`",
            "`warn`",
            "the monitor does not answer before the start: a line in the log, or the start is refused",
        ),
    ];
}

/// What is done with one monitor; it has an input for the guest or other features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSwitch {
    /// The monitor that is switched.
    pub monitor: MonitorChoice,
    /// The input that the guest is on; none if inputs are not switched.
    pub guest: Option<InputChoice>,
    /// The input that is shown after the guest.
    pub host: HostInput,
    /// How long after the guest's start.
    pub delay: Duration,
    /// Other features and their values for the guest, in the order of the file; none twice.
    pub set: Vec<(VcpFeature, VcpValue)>,
    /// Whether another guest may have it too.
    pub sharing: MonitorSharing,
    /// How it differs from the standard; none leaves that to what the monitor says of itself.
    pub deviation: Option<DeviationName>,
    /// What happens if the monitor does not answer before the guest starts.
    pub on_failure: OnUnreachable,
}

/// How a file says which monitor is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorChoice {
    /// By what is known of it.
    Selector(MonitorSelector),
    /// By a name that the host's file has for it.
    Named(MonitorName),
}

/// The input that is shown after the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostInput {
    /// The one that was active before.
    Previous,
    /// The input that the file names.
    Input(InputChoice),
}

/// Whether several guests may have a monitor at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MonitorSharing {
    /// The second guest is refused.
    Refused,
    /// The guest that was started last has it.
    LastStarted,
}

/// What a monitor that cannot be reached means to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnUnreachable {
    /// The log says so.
    Warn,
    /// Its start is refused.
    Refuse,
}

impl SwitchInput {
    pub(crate) fn read(item: Item<'_>) -> Self {
        let mut seen = Vec::new();
        let monitors = item.elements("switches nothing", |element| {
            let example = "{monitor: {model: \"LG ULTRAGEAR\"}, guest: hdmi-1}";
            MonitorSwitch::read(element.section(example)?, &mut seen)
        });
        Self { monitors }
    }
}

impl MonitorSwitch {
    fn read(mut section: Section<'_>, seen: &mut Vec<MonitorChoice>) -> Option<Self> {
        let missing = Fault::new(
            "`switch_input.monitor` is missing",
            format!("say which: `monitor: {}`; `vfio-hook monitors` shows those there are", monitor::EXAMPLE),
        );
        let monitor = section.required("monitor", missing).and_then(read_monitor);
        let guest = section.value("guest", input);
        let host = section.value("host", read_host).unwrap_or(HostInput::Previous);
        for key in ["guest", "host"] {
            section.item(key).map(refuse_decimal_input);
        }
        let delay = section.value("delay", read_delay).unwrap_or(DEFAULT_DELAY);
        let set = section.item("set").map_or_else(Vec::new, read_set);
        let sharing = section.value("shared", read_sharing).unwrap_or(MonitorSharing::Refused);
        let deviation = section.value("deviation", deviation_name);
        let on_failure = section.value("on_failure", |node| {
            choice(node, &[("warn", OnUnreachable::Warn), ("refuse", OnUnreachable::Refuse)])
        });
        if let Some(monitor) = &monitor {
            if seen.iter().any(|other| is_same(other, monitor)) {
                let fault = Fault::new("this monitor stands here for the second time", "keep one of the two");
                section.refuse("monitor", fault);
            }
            seen.push(monitor.clone());
        }
        refuse_without_effect(&mut section, guest.as_ref(), &host);
        section.finish();
        let on_failure = on_failure.unwrap_or(OnUnreachable::Warn);
        Some(Self { monitor: monitor?, guest, host, delay, set, sharing, deviation, on_failure })
    }
}

/// Notes keys that change nothing beside the others.
fn refuse_without_effect(section: &mut Section<'_>, guest: Option<&InputChoice>, host: &HostInput) {
    if !section.has("guest") {
        for key in ["host", "deviation"] {
            section
                .refuse(key, Fault::new("has no effect without `guest`", "add `guest`, or remove the key"));
        }
        if !section.has("set") {
            section.refuse_as_empty(Fault::new(
                "has no effect: nothing is switched",
                "add the input that the guest is on, for example `guest: hdmi-1`",
            ));
        }
    }
    if let (Some(guest), HostInput::Input(host)) = (guest, host)
        && guest == host
    {
        let fault = Fault::new("this is the guest's input", "name the host's, or `previous`");
        section.refuse("host", fault);
    }
}

/// Whether two choices are the same words.
fn is_same(one: &MonitorChoice, other: &MonitorChoice) -> bool {
    match (one, other) {
        (MonitorChoice::Selector(one), MonitorChoice::Selector(other)) => one.is_same(other),
        (one, other) => one == other,
    }
}

fn read_monitor(item: Item<'_>) -> Option<MonitorChoice> {
    match item.node() {
        Node::Map(_) => monitor::selector(item).map(MonitorChoice::Selector),
        Node::Text(text) if text.parse::<MonitorName>().is_err() => {
            let help =
                format!("a monitor without a name is selected like this: `monitor: {}`", monitor::EXAMPLE);
            let fault =
                Fault::expected_like("a monitor's name in host.yaml, or keys and values", item.node(), help);
            item.refuse(fault);
            None
        }
        Node::Integer(_) => {
            let help = format!(
                "numbers of monitors change: `vfio-hook monitors` shows what to write, for example `monitor: {}`",
                monitor::EXAMPLE
            );
            let fault =
                Fault::expected_like("a monitor's name in host.yaml, or keys and values", item.node(), help);
            item.refuse(fault);
            None
        }
        _ => item.value(monitor_name).map(MonitorChoice::Named),
    }
}

fn read_host(node: &Node) -> Result<HostInput, Fault> {
    match node {
        Node::Text(text) if text == PREVIOUS => Ok(HostInput::Previous),
        Node::Text(text) if super::did_you_mean(text, &[PREVIOUS]).is_some() => {
            Err(Fault::expected_like("an input or `previous`", node, "did you mean `previous`?"))
        }
        Node::Bool(false) => Err(always_comes_back(node)),
        Node::Text(text) if NOTHING.contains(&text.to_lowercase().as_str()) => Err(always_comes_back(node)),
        other => input(other).map(HostInput::Input),
    }
}

/// Words for a monitor that stays where it is after the guest.
const NOTHING: [&str; 7] = ["none", "no", "off", "never", "keep", "leave", "stay"];

fn always_comes_back(node: &Node) -> Fault {
    let help = "remove the key: the input that was active comes back after the guest; or name another one";
    Fault::expected_like("an input or `previous`", node, help)
}

fn read_delay(node: &Node) -> Result<Duration, Fault> {
    let delay = duration(node, "5s")?;
    if delay > LONGEST_DELAY {
        let help = "the guest's picture is there sooner; without a delay it is 3s";
        return Err(Fault::new("not between 0s and 60s", help));
    }
    Ok(delay)
}

fn read_set(mut item: Item<'_>) -> Vec<(VcpFeature, VcpValue)> {
    item.judge_keys_as_written(feature_as_written);
    item.pairs("sets nothing", "{0xD6: 1}", read_feature, |value| {
        value.value(|node| number(node, "a value from 0 to 0xffff"))
    })
}

/// Reads a feature's number; one that YAML has made of its text is judged by that.
fn read_feature(node: &Node) -> Result<VcpFeature, Fault> {
    let feature = number(node, "a feature's number from 0 to 0xff")?;
    match node {
        Node::Text(text) => feature_as_written(text).map_or(Ok(feature), Err),
        _ => Ok(feature),
    }
}

/// What is wrong with a feature's number that is written like this. Guides and monitors have these numbers in
/// hexadecimal, many without the `0x`.
fn feature_as_written(text: &str) -> Option<Fault> {
    let Ok(feature) = text.parse::<VcpFeature>() else {
        // What is too large is told anyway.
        let is_usual = text.starts_with("0x") || text.bytes().all(|byte| byte.is_ascii_digit());
        if is_usual {
            return None;
        }
        return Some(Fault::new(format!("`{text}` is no feature's number"), "write it like `0x10`"));
    };
    let meant = u8::from_str_radix(text, 16).ok().map(VcpFeature).filter(|meant| *meant != feature);
    if let Some(meant) = meant {
        let message = format!("`{text}` is {feature} in decimal, and {meant} in hexadecimal");
        return Some(Fault::new(message, format!("write `{meant}`, or `{feature}` if that is meant")));
    }
    check_feature(feature).err()
}

fn check_feature(feature: VcpFeature) -> Result<VcpFeature, Fault> {
    if feature == VcpFeature::INPUT_SOURCE {
        return Err(Fault::new("0x60 is the input", "name it with `guest` and `host`"));
    }
    if NOT_UNDONE.contains(&feature) {
        let message = format!("{feature} puts settings back, which nothing can undo after the guest");
        return Err(Fault::new(message, "remove it"));
    }
    Ok(feature)
}

fn read_sharing(node: &Node) -> Result<MonitorSharing, Fault> {
    const WHAT: &str = "`last` or `false`";
    match node {
        Node::Bool(false) => Ok(MonitorSharing::Refused),
        Node::Text(text) if text == "last" => Ok(MonitorSharing::LastStarted),
        Node::Text(text) if text.eq_ignore_ascii_case("false") => Err(Fault::quoted(WHAT, node)),
        Node::Text(text) if super::did_you_mean(text, &["last"]).is_some() => {
            Err(Fault::expected_like(WHAT, node, "did you mean `last`?"))
        }
        other => Err(Fault::expected_like(
            WHAT,
            other,
            "with `last` the guest that was started last has the monitor",
        )),
    }
}

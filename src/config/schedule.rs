//! The section `schedule`: how the kernel schedules the guest's threads.

use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::tree::{Node, is_quoted};
use super::value::Fault;
use crate::scheduling::{FifoPriority, Nice, WantedScheduling};

const EXAMPLE: &str = "{vcpus: {nice: -10}, emulator: {nice: 0}}";

/// How the kernel schedules the guest's threads; at least one kind of them is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Those that run its virtual CPUs.
    pub vcpus: Option<WantedScheduling>,
    /// QEMU's first thread, and what it starts from then on.
    pub emulator: Option<Nice>,
    /// Those of `<iothreads>`.
    pub io: Option<Nice>,
}

impl Schedule {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "vcpus",
            "`{ nice: -20 }` to `{ nice: 19 }`, `fifo`, or `{ fifo: 1 }` to `{ fifo: 99 }`",
            "left alone",
            "the threads of the guest's CPUs; `fifo` needs isolated CPUs that nothing else runs on",
        ),
        Key::new(
            "emulator",
            "`{ nice: -20 }` to `{ nice: 19 }`",
            "left alone",
            "QEMU's main thread, and those that it starts from then on",
        ),
        Key::new("io", "`{ nice: -20 }` to `{ nice: 19 }`", "left alone", "the threads of `<iothreads>`"),
    ];

    pub(crate) fn read(mut section: Section<'_>) -> Self {
        if section.has_only(&[]) {
            let help = format!("add `vcpus`, `emulator` or `io`: for example `{EXAMPLE}`");
            section.refuse_as_empty(Fault::new("has no effect: it names no threads", help));
        }
        let config = Self {
            vcpus: section.item("vcpus").and_then(vcpus),
            emulator: section.item("emulator").and_then(only_nice),
            io: section.item("io").and_then(only_nice),
        };
        section.finish();
        config
    }
}

fn vcpus(item: Item<'_>) -> Option<WantedScheduling> {
    const WHAT: &str = "`{nice: -10}` or `fifo`";
    match item.node() {
        Node::Map(_) => {
            let mut section = item.section("{nice: -10}")?;
            let (has_nice, has_fifo) = (section.has("nice"), section.has("fifo"));
            let nice = section.value("nice", nice);
            let priority = section.value("fifo", priority);
            if has_nice && has_fifo {
                let fault = Fault::new(
                    "has no effect beside `fifo`: a real-time thread has no nice value",
                    "keep one of the two",
                );
                section.refuse("nice", fault);
            } else if !has_nice && !has_fifo && section.has_only(&[]) {
                section.refuse_as_empty(Fault::new("has no effect", format!("write {WHAT}")));
            }
            section.finish();
            priority.map(WantedScheduling::Fifo).or(nice.map(WantedScheduling::Nice))
        }
        Node::Text(text) if text == "fifo" => Some(WantedScheduling::Fifo(FifoPriority::LOWEST)),
        node => {
            let help = match node {
                Node::Text(text) if super::did_you_mean(text, &["fifo"]).is_some() => "did you mean `fifo`?",
                Node::Integer(_) => "a nice value is written as `{nice: -10}`",
                _ => "`{fifo: 10}` is `fifo` with a priority of its own",
            };
            item.refuse(Fault::expected_like(WHAT, node, help));
            None
        }
    }
}

fn only_nice(item: Item<'_>) -> Option<Nice> {
    let never_fifo = || {
        let message =
            "`fifo` is for vCPUs alone: QEMU's other threads would keep what they wait for from its CPU";
        Fault::new(message, "write a nice value: `{nice: -5}`")
    };
    match item.node() {
        Node::Text(text) if text == "fifo" => {
            item.refuse(never_fifo());
            None
        }
        Node::Integer(digits) => {
            let help = format!("write `{{nice: {digits}}}`");
            let fault = Fault::expected_like("keys and values", item.node(), help);
            item.refuse(fault);
            None
        }
        _ => {
            let mut section = item.section("{nice: -5}")?;
            section.refuse("fifo", Fault::new("is for vCPUs alone", "write a nice value: `{nice: -5}`"));
            if section.has_only(&[]) {
                section.refuse_as_empty(Fault::new("has no effect", "write a nice value: `{nice: -5}`"));
            }
            let nice = section.value("nice", nice);
            section.finish();
            nice
        }
    }
}

fn nice(node: &Node) -> Result<Nice, Fault> {
    const WHAT: &str = "a whole number from -20 to 19";
    number(node, WHAT)?.and_then(Nice::new).ok_or_else(|| {
        let help = "-20 gets the most time, 19 the least; without the key it stays as it is";
        Fault::expected_like(WHAT, node, help)
    })
}

fn priority(node: &Node) -> Result<FifoPriority, Fault> {
    const WHAT: &str = "a whole number from 1 to 99";
    number(node, WHAT)?.and_then(FifoPriority::new).ok_or_else(|| {
        let help = "1 comes before all threads that are not real-time ones";
        Fault::expected_like(WHAT, node, help)
    })
}

/// None for what is no number; an error for one in quotes.
fn number(node: &Node, what: &str) -> Result<Option<i64>, Fault> {
    match node {
        Node::Integer(digits) => Ok(digits.parse().ok()),
        Node::Text(text) if is_quoted(text) => Err(Fault::quoted(what, node)),
        _ => Ok(None),
    }
}

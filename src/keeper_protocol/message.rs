//! What a keeper is asked, and what it answers: one line of JSON each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Command, OnCommandFailure};
use crate::event::Operation;
use crate::process_id::ProcessId;

/// The longest message, in bytes: a few hundred commands.
pub(crate) const MAX_MESSAGE: usize = 1024 * 1024;

/// What a keeper is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// What it holds and watches.
    State,
    /// To hold this sleep lock (logind's words, joined by colons), or none.
    SleepLock(Option<String>),
    /// To keep all CPUs from idle states that take longer to leave than so many microseconds, or none.
    CpuDmaLatency(Option<u32>),
    /// To have the host's daemon hold this power profile, or none.
    PowerProfile(Option<String>),
    /// To look at the ledger again: the guest has come further in its life.
    Look,
    /// To run commands, one after the other.
    Run(CommandBatch),
    /// To give the guest's lease back, because libvirt said that it stopped.
    GiveBack {
        /// libvirt's reason.
        reason: String,
        /// The process that starts the guest again, and gets its monitors as they are; generation 4 calls it so.
        #[serde(rename = "heir")]
        restarted_by: Option<ProcessId>,
    },
    /// To end.
    Leave,
}

impl Request {
    /// Whether asking twice is the same as asking once.
    pub(crate) fn may_be_repeated(&self) -> bool {
        match self {
            Self::State
            | Self::SleepLock(_)
            | Self::CpuDmaLatency(_)
            | Self::PowerProfile(_)
            | Self::Look
            | Self::GiveBack { .. } => true,
            Self::Run(_) | Self::Leave => false,
        }
    }
}

/// Commands to be run, and what they are told about the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBatch {
    /// The commands.
    pub commands: Vec<Command>,
    /// The event they belong to.
    pub event: Operation,
    /// Why the guest stopped, where libvirt said so; else empty.
    pub reason: String,
    /// When the answer comes.
    pub answer: AnswerAt,
    /// How long they may take, all together; none where nothing waits for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// The guest's QEMU, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<i32>,
}

/// When a keeper answers that it ran what it was asked to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerAt {
    /// Before it begins.
    Once,
    /// When all is run. Hanging up ends what is running.
    End,
}

/// What a keeper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It did what it was asked, and this is how it stands now.
    Done(KeeperState),
    /// It ran the commands; these failed.
    Ran(Vec<CommandFailure>),
    /// It could not.
    Failed(String),
}

/// How a keeper stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperState {
    /// The keeper.
    pub process: ProcessId,
    /// The sleep lock it holds.
    pub sleep_lock: Option<String>,
    /// The latency it asked the kernel for, in microseconds.
    pub cpu_dma_latency: Option<u32>,
    /// The power profile it has the host's daemon hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_profile: Option<String>,
    /// How many batches of commands it has not finished; generation 4 calls them so.
    #[serde(rename = "errands")]
    pub unfinished: usize,
    /// libvirt's daemon, while it is about to start QEMU.
    pub daemon: Option<i32>,
    /// The guest's QEMU, while it is watched.
    pub qemu: Option<i32>,
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandFailure {
    /// Which, and how, in words.
    pub words: String,
    /// What that means.
    pub meaning: OnCommandFailure,
    /// Whether it began at all.
    #[serde(default, skip_serializing_if = "Beginning::is_default")]
    pub beginning: Beginning,
}

/// Whether a command that failed began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beginning {
    /// It did, or that cannot be told.
    #[default]
    Perhaps,
    /// It certainly did not: there is nothing to take back.
    Never,
}

impl Beginning {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper_protocol::GENERATION;

    /// Keepers and hooks of one generation may be of different builds: what one says, the other understands. A message
    /// that changes needs a new generation.
    #[test]
    fn messages_of_a_generation_stay_as_they_are() {
        let guest = "c0ffee00-1111-4222-8333-44445555666f".parse().unwrap();
        assert!(GENERATION.lock_file(guest).starts_with("keeper-4-"));
        let requests = [
            r#""state""#,
            r#"{"sleep-lock":"sleep"}"#,
            r#"{"sleep-lock":null}"#,
            r#"{"cpu-dma-latency":20}"#,
            r#"{"power-profile":"performance"}"#,
            r#""look""#,
            r#"{"run":{"commands":[],"event":"release","reason":"shutdown","answer":"end","within":{"secs":5,"nanos":0}}}"#,
            r#"{"run":{"commands":[],"event":"started","reason":"","answer":"once"}}"#,
            r#"{"run":{"commands":[],"event":"started","reason":"","answer":"once","qemu":4712}}"#,
            r#"{"run":{"commands":[{"when":"prepare","program":{"arguments":["/bin/true"]},"timeout":{"secs":10,"nanos":0},"on_failure":"warn"}],"event":"prepare","reason":"","answer":"end"}}"#,
            r#"{"run":{"commands":[{"when":"started","program":{"arguments":["/bin/a","b"]},"timeout":{"secs":10,"nanos":0},"user":"anna","on_failure":"warn","env":{"NAME":"value"},"mode":"background","unless_exists":"/.skip","undo":{"entry":0,"command":["/bin/c"]},"place":"win11.yaml:2:3"}],"event":"started","reason":"","answer":"once"}}"#,
            r#"{"give-back":{"reason":"crashed","heir":{"pid":4711,"start_time":12}}}"#,
            r#"{"give-back":{"reason":"failed","heir":null}}"#,
            r#""leave""#,
        ];
        for text in requests {
            let request: Request = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
        }
        let answers = [
            r#"{"done":{"process":{"pid":4711,"start_time":12},"sleep_lock":"sleep","cpu_dma_latency":null,"errands":0,"daemon":null,"qemu":4712}}"#,
            r#"{"ran":[{"words":"false ended with exit status 1","meaning":"warn"}]}"#,
            r#"{"ran":[{"words":"false could not be started","meaning":"refuse","beginning":"never"}]}"#,
            r#"{"failed":"it could not"}"#,
        ];
        for text in answers {
            let answer: Answer = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        }
        let newer = answers[0].replace("\"errands\"", "\"new\":1,\"errands\"");
        assert_eq!(
            serde_json::from_str::<Answer>(&newer).unwrap(),
            serde_json::from_str(answers[0]).unwrap(),
            "a field that is not known"
        );
    }
}

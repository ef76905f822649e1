//! `block_sleep`: the host stays awake while the guest is there.

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{BlockSleep, Key, LidSwitch, LockStrength, Section};
use crate::host::{HostError, LidSwitchHandling, SleepMasks, SleepState};
use crate::ledger::{self, MaskedSleep, OrNone, SleepLock};

const SECTION: &[&str] = &["block_sleep"];

impl Action for BlockSleep {
    const SECTION: &'static str = "block_sleep";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.section(Self::SECTION, "block_sleep: {}").map(Self::read)
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let (host, uuid) = (situation.host, situation.guest.uuid);
        match host.sleep_state(situation.deadline)? {
            SleepState::Awake => {
                let words: Vec<&str> = self.what.iter().map(|what| what.as_str()).collect();
                proposal.claim(SleepLock(uuid), OrNone(Some(words.join(":"))), &["block_sleep", "what"]);
            }
            SleepState::GoingToSleep => proposal.refuse(
                SECTION,
                "the host is just going to sleep",
                "start the guest when the host is awake again",
            ),
            SleepState::NoLogind => proposal.warn(
                "the host has neither logind nor elogind: nothing is there that could be kept from \
                 putting it to sleep",
            ),
        }
        if self.strength == LockStrength::Mask {
            if host.has_systemd() {
                proposal.claim(MaskedSleep, SleepMasks::all(), &["block_sleep", "strength"]);
            } else {
                proposal.warn("the host has no systemd: there is nothing to mask");
            }
        }
        if self.lid == LidSwitch::Ignored {
            if host.has_systemd() {
                proposal.claim(ledger::LidSwitch, LidSwitchHandling::Ignored, &["block_sleep", "lid"]);
            } else {
                proposal.warn("the host has no systemd-logind: closing the lid does what it always does");
            }
        }
        Ok(())
    }
}

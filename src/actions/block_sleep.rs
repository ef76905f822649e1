//! `block_sleep`: the host stays awake while the guest is there.

use super::{Proposal, Situation};
use crate::config::{BlockSleep, LidSwitch, LockStrength};
use crate::host::{HostError, LidSwitchHandling, SleepMasks, SleepState};
use crate::ledger::{Knob, Want};

const SECTION: &[&str] = &["block_sleep"];

pub(super) fn propose(
    config: &BlockSleep,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let (host, uuid) = (situation.host, situation.guest.uuid);
    match host.sleep_state(situation.deadline)? {
        SleepState::Awake => {
            let words: Vec<&str> = config.what.iter().map(|what| what.as_str()).collect();
            proposal.claim(Knob::SleepLock(uuid), Want::Text(words.join(":")));
        }
        SleepState::GoingToSleep => proposal.refuse(
            SECTION,
            "the host is just going to sleep",
            "start the guest when the host is awake again",
        ),
        SleepState::NoLogind => proposal.warn(
            "the host has neither logind nor elogind: nothing is there that could be kept from putting it to sleep",
        ),
    }
    if config.strength == LockStrength::Mask {
        if host.has_systemd() {
            proposal.claim(Knob::SleepMasks, Want::Text(SleepMasks::all().to_string()));
        } else {
            proposal.warn("the host has no systemd: there is nothing to mask");
        }
    }
    if config.lid == LidSwitch::Ignored {
        if host.has_systemd() {
            proposal.claim(Knob::LidSwitch, Want::Text(LidSwitchHandling::Ignored.to_string()));
        } else {
            proposal.warn("the host has no systemd-logind: closing the lid does what it always does");
        }
    }
    Ok(())
}

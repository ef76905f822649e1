//! What of the host uses a card: programs, desktops, text consoles.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Card, DEVICES};
use crate::actions::{Proposal, Situation, services};
use crate::config::{DisplayManager, Gpu, StoppedUnit};
use crate::deadline::Deadline;
use crate::gpu::services_of_driver;
use crate::host::{ConsoleBinding, Holder, HolderUnit, HostError, LoginSession, ServiceUnit};
use crate::ledger::{EMPTY, Knob, Want};

/// How long the look through all processes may take.
const LOOK: Duration = Duration::from_secs(5);

/// Who draws on the host's own seats.
struct Desktops {
    display_manager: Option<StoppedUnit>,
    sessions: Vec<LoginSession>,
}

/// Claims that nothing of the host uses the card, or refuses where something does that is not to be stopped.
pub(super) fn propose(
    config: &Gpu,
    card: &Card,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let functions = card.functions.as_slice();
    let mut holders =
        situation.host.holders_of(functions, Deadline::after(LOOK).earlier(situation.deadline))?;
    let console = situation.host.vtconsole_on(functions)?;
    let console = match console {
        Some(number) if situation.host.vtconsole_bind(number)? == ConsoleBinding::Bound => Some(number),
        _ => None,
    };
    let framebuffers = situation.host.firmware_framebuffers_on(functions)?;
    let all = holders.len();
    if config.display_manager == DisplayManager::Stop {
        let desktops = Desktops::of(situation)?;
        holders.retain(|holder| !desktops.have(holder));
        if holders.len() < all {
            desktops.claim(situation, proposal)?;
        }
        if let Some(number) = console {
            let unbound = ConsoleBinding::Unbound.to_string();
            proposal.claim(Knob::VtConsole(number), Want::Text(unbound));
        }
        for framebuffer in framebuffers {
            proposal.claim(Knob::FirmwareFramebuffer(framebuffer), Want::Text(EMPTY.to_owned()));
        }
    } else {
        refuse_consoles(card, console, &framebuffers, situation, proposal)?;
    }
    holders.retain(|holder| !is_stopped(holder, &config.holders.stop));
    // A broker lets go when those end that it has the card for: the others that were found.
    if holders.len() < all || !holders.iter().all(Holder::is_session_broker) {
        holders.retain(|holder| !holder.is_session_broker());
    }
    if !holders.is_empty() && config.holders.wait.is_zero() {
        refuse_holders(card, &holders, proposal);
    }
    let disks = situation.host.disks_in_use(functions)?;
    if !disks.is_empty() {
        proposal.refuse(
            DEVICES,
            format!("{} has disks that the host uses: {}", card.functions, disks.join("; ")),
            "unmount them first, or leave the device to the host",
        );
    }
    proposal.claim(Knob::CardUsers(card.functions.clone()), Want::Text(EMPTY.to_owned()));
    Ok(())
}

impl Desktops {
    fn of(situation: Situation<'_>) -> Result<Self, HostError> {
        let unit = situation.host.display_manager_unit();
        let sessions = situation.host.graphical_sessions(situation.deadline)?;
        Ok(Self { display_manager: unit.map(|unit| StoppedUnit { unit, user: None }), sessions })
    }

    /// Whether a program is gone once the display manager has stopped and the desktops have ended: what runs in a
    /// user's own manager is a part of the user's desktop.
    fn have(&self, holder: &Holder) -> bool {
        let is_users = |uid| self.sessions.iter().any(|session| session.uid == uid);
        match &holder.unit {
            _ if holder.is_session_broker() => true,
            Some(HolderUnit::System(unit)) => {
                self.display_manager.as_ref().is_some_and(|manager| manager.unit.as_str() == unit)
            }
            Some(HolderUnit::Session { owner, .. } | HolderUnit::User { owner, .. }) => is_users(owner.uid),
            None => false,
        }
    }

    fn claim(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        services::claim_stopped(
            self.display_manager.as_slice(),
            &["gpu", "display_manager"],
            situation,
            proposal,
        )?;
        if !self.sessions.is_empty() {
            proposal.claim(Knob::GraphicalSessions, Want::Text(EMPTY.to_owned()));
        }
        Ok(())
    }
}

fn is_stopped(holder: &Holder, stopped: &[StoppedUnit]) -> bool {
    let unit = holder.unit.as_ref().and_then(HolderUnit::service_unit);
    unit.is_some_and(|ServiceUnit { unit, user }| {
        stopped.iter().any(|stopped| stopped.unit == unit && stopped.user == user)
    })
}

fn refuse_consoles(
    card: &Card,
    console: Option<u32>,
    framebuffers: &[crate::host::FirmwareFramebuffer],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let mut shown: Vec<String> =
        console.map(|number| format!("the text console vtcon{number}")).into_iter().collect();
    for framebuffer in framebuffers {
        if situation.host.firmware_framebuffer_driver(framebuffer)?.is_some() {
            shown.push(format!("the firmware's picture ({framebuffer})"));
        }
    }
    if !shown.is_empty() {
        proposal.refuse(
            DEVICES,
            format!("the host shows {} on {}", shown.join(" and "), card.functions),
            "`display_manager: stop` takes it away while the guest runs; the host has no picture then",
        );
    }
    Ok(())
}

fn refuse_holders(card: &Card, holders: &[Holder], proposal: &mut Proposal) {
    let words: Vec<String> = holders.iter().map(ToString::to_string).collect();
    let units: BTreeSet<String> =
        holders.iter().filter_map(|holder| Some(as_yaml(&holder.unit.as_ref()?.service_unit()?))).collect();
    let known: BTreeSet<String> = card
        .members
        .iter()
        .filter_map(|member| member.driver.as_ref())
        .flat_map(|driver| services_of_driver(driver.as_str()))
        .map(|unit| (*unit).to_owned())
        .collect();
    let mut help = "end these programs".to_owned();
    if !units.is_empty() {
        let units: Vec<String> = units.union(&known).cloned().collect();
        help.push_str(&format!(", or have them stopped: `holders: {{stop: [{}]}}`", units.join(", ")));
    }
    help.push_str("; a desktop on this card goes with `display_manager: stop`");
    proposal.refuse(DEVICES, format!("{} is in use: {}", card.functions, words.join("; ")), help);
}

/// A unit as the list `stop` takes it.
fn as_yaml(unit: &ServiceUnit) -> String {
    match &unit.user {
        None => unit.unit.to_string(),
        Some(user) => format!("{{unit: {}, user: {user}}}", unit.unit),
    }
}

//! What of the host uses a card: programs, desktops, text consoles.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    CONSOLES, Card, DEVICES, DISPLAY_MANAGER, compositors, of_driver, units_patience, users_patience,
};
use crate::actions::{Proposal, Situation, Until, services};
use crate::config::{Compositors, Consoles, DisplayManager, Gpu, StoppedUnit};
use crate::deadline::Deadline;
use crate::gpu::{Compositor, compositor_of, services_of_driver};
use crate::host::{ConsoleBinding, Holder, HolderUnit, HostError, LoginSession, ServiceUnit, UnitActivity};
use crate::key_path::KeyPath;
use crate::ledger::{
    CardUsers, ClaimTerms, FirmwareFramebufferDriver, GraphicalSessions, OrNone, TextConsole, WordList,
};
use crate::pci::PciAddress;

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
        if holders.len() < all || desktops.come_up(situation)? {
            desktops.claim(config, situation, proposal)?;
        }
    }
    match key_that_frees(config, situation)? {
        Some(key) => {
            if let Some(number) = console {
                if key == CONSOLES {
                    proposal.inform(
                        "no text console is shown while the guest has the card: the kernel has one driver of them for all",
                    );
                }
                proposal.claim(TextConsole(number), ConsoleBinding::Unbound, of_driver(config, key));
            }
            for framebuffer in framebuffers {
                let setting = FirmwareFramebufferDriver(framebuffer);
                proposal.claim(setting, OrNone(None), of_driver(config, key));
            }
        }
        None => refuse_consoles(config, card, console, &framebuffers, situation, proposal)?,
    }
    holders.retain(|holder| !is_stopped(holder, &config.holders.stop, proposal));
    compositors::propose(config, card, &mut holders, situation, proposal)?;
    // A broker lets go when those end that it has the card for: the others that were found.
    if holders.len() < all || !holders.iter().all(Holder::is_session_broker) {
        holders.retain(|holder| !holder.is_session_broker());
    }
    if !holders.is_empty() && config.holders.wait.is_zero() {
        refuse_holders(config, card, &holders, situation, proposal)?;
    }
    let disks = situation.host.disks_in_use(functions)?;
    if !disks.is_empty() {
        proposal.refuse_until(
            Until::UnitsStopped,
            DEVICES,
            format!("{} has disks that the host uses: {}", card.functions, disks.join("; ")),
            "unmount them first (`services: {stop: [NAME.mount]}` does it for each start), or leave the device to the host",
        );
    }
    let terms = ClaimTerms::from(&["gpu", "holders"]).within(users_patience(config));
    proposal.claim(CardUsers(card.functions.clone()), WordList::default(), terms);
    Ok(())
}

/// The key that has text consoles and the firmware's picture taken away; none where they stay.
fn key_that_frees(
    config: &Gpu,
    situation: Situation<'_>,
) -> Result<Option<&'static [&'static str]>, HostError> {
    Ok(match (config.consoles, config.display_manager) {
        (Consoles::Keep, _) => None,
        (Consoles::Auto, DisplayManager::Stop) => Some(DISPLAY_MANAGER),
        (Consoles::Free, _) => Some(CONSOLES),
        (Consoles::Auto, DisplayManager::Keep) => has_other_picture(situation)?.then_some(CONSOLES),
    })
}

/// Whether a driver of the host's shows something on a graphics card that the guest does not get.
pub(super) fn has_other_picture(situation: Situation<'_>) -> Result<bool, HostError> {
    for address in displays_of_host(situation)? {
        if !situation.host.drm_cards_of(address)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The graphics cards that the guest does not get.
fn displays_of_host(situation: Situation<'_>) -> Result<Vec<PciAddress>, HostError> {
    let hostdevs = &situation.guest.pci_hostdevs;
    let mut displays = Vec::new();
    for address in situation.host.pci_functions()? {
        let is_guests = hostdevs.iter().any(|hostdev| hostdev.address.slot() == address.slot());
        if !is_guests && situation.host.pci_function(address)?.class.is_display() {
            displays.push(address);
        }
    }
    Ok(displays)
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

    /// Whether the display manager runs but has no card yet, as at boot: it would take this one later.
    fn come_up(&self, situation: Situation<'_>) -> Result<bool, HostError> {
        let Some(StoppedUnit { unit, user }) = &self.display_manager else { return Ok(false) };
        let manager = ServiceUnit { unit: unit.clone(), user: user.clone() };
        let activity = situation.host.unit_activity(&manager, situation.deadline);
        if !self.sessions.is_empty() || !activity.is_ok_and(|activity| activity == UnitActivity::Running) {
            return Ok(false);
        }
        let others = displays_of_host(situation)?;
        let holders =
            situation.host.holders_of(&others, Deadline::after(LOOK).earlier(situation.deadline))?;
        Ok(!holders.iter().any(|holder| self.have(holder) && !holder.is_session_broker()))
    }

    fn claim(
        &self,
        config: &Gpu,
        situation: Situation<'_>,
        proposal: &mut Proposal,
    ) -> Result<(), HostError> {
        services::claim_stopped(
            self.display_manager.as_slice(),
            &KeyPath::from(DISPLAY_MANAGER),
            &units_patience(config),
            situation,
            proposal,
        )?;
        if !self.sessions.is_empty() {
            let terms = ClaimTerms::from(DISPLAY_MANAGER).within(users_patience(config));
            proposal.claim(GraphicalSessions, WordList::default(), terms);
        }
        Ok(())
    }
}

/// Whether it ends with a unit that is stopped before the card is taken: for the card, or by `services.stop`.
fn is_stopped(holder: &Holder, stopped: &[StoppedUnit], proposal: &Proposal) -> bool {
    let unit = holder.unit.as_ref().and_then(HolderUnit::service_unit);
    unit.is_some_and(|unit| {
        let ServiceUnit { unit: name, user } = &unit;
        stopped.iter().any(|stopped| stopped.unit == *name && stopped.user == *user) || proposal.stops(&unit)
    })
}

fn refuse_consoles(
    config: &Gpu,
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
        let help = match config.consoles {
            Consoles::Keep => "`consoles: free` takes it away while the guest runs",
            Consoles::Auto | Consoles::Free => {
                "`consoles: free` takes it away while the guest runs; the host has no other graphics card with a picture"
            }
        };
        proposal.refuse_until(
            Until::CommandsRan,
            DEVICES,
            format!("the host shows {} on {}", shown.join(" and "), card.functions),
            help,
        );
    }
    Ok(())
}

fn refuse_holders(
    config: &Gpu,
    card: &Card,
    holders: &[Holder],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
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
    let desktops: Vec<&Compositor> =
        holders.iter().filter_map(|holder| compositor_of(&holder.name)).collect();
    match desktops.first() {
        None => help.push_str("; a desktop on this card goes with `display_manager: stop`"),
        Some(desktop) => {
            help.push_str(&format!(
                "; a desktop that has its picture on another card leaves this one alone with {}, and with `return_to: vfio` \
                 from the first guest on",
                desktop.setting
            ));
            if config.compositors == Compositors::Refuse && has_other_picture(situation)? {
                help.push_str("; `compositors: udev-remove` asks it to let go (not seen on hardware)");
            }
            help.push_str("; `display_manager: stop` ends it");
        }
    }
    let message = format!("{} is in use: {}", card.functions, words.join("; "));
    proposal.refuse_until(Until::CommandsRan, DEVICES, message, help);
    Ok(())
}

/// A unit as the list `stop` takes it.
fn as_yaml(unit: &ServiceUnit) -> String {
    match &unit.user {
        None => unit.unit.to_string(),
        Some(user) => format!("{{unit: {}, user: {user}}}", unit.unit),
    }
}

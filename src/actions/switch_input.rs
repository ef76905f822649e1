//! `switch_input`: monitors that follow the guest. Here it is found out which, and whether they can be had; the guest's
//! keeper switches them once the guest is up.

use std::fmt;
use std::time::Duration;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{Key, MonitorSharing, OnUnreachable, ResolvedSwitch, Section, SwitchInput};
use crate::deadline::Deadline;
use crate::host::{HostError, I2cDev, MonitorsFound};
use crate::ledger::{Claim, I2cDevModule, ListedClaim, ModulePresence, MonitorSetting, MonitorWish, Peer};
use crate::monitor::{FeatureControl, MonitorFeature, MonitorKey, MonitorSelector, Reading};

/// How long monitors may take to be found and, where the guest needs them, to answer.
const LOOK: Duration = Duration::from_secs(3);

/// Why a monitor cannot be had.
enum Missing {
    /// It is connected to a card that the guest gets: while that runs, the host's way to it is not there.
    HandedOver(String),
    /// None fits.
    None { selector: MonitorSelector, there: Vec<String> },
    /// Several fit.
    Several { selector: MonitorSelector, fitting: Vec<String> },
}

impl Action for SwitchInput {
    const SECTION: &'static str = "switch_input";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.item(Self::SECTION).map(Self::read)
    }

    fn peer(&self) -> Peer {
        Peer::MayHang
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let switches = match self.resolve(situation.host_config) {
            Ok(switches) => switches,
            Err(unresolved) => {
                for each in unresolved {
                    proposal.refuse(each.path, each.message, each.help);
                }
                return Ok(());
            }
        };
        let found = situation.host.monitors(Deadline::after(LOOK).earlier(situation.deadline))?;
        for switch in switches {
            match choose(&switch, situation, &found) {
                Ok(monitor) => propose_monitor(&switch, monitor, situation, proposal),
                // A start loads it first, and looks again.
                Err(missing) if situation.host.i2c_dev() == I2cDev::Absent => {
                    proposal.inform(format!("{missing}, as long as i2c-dev is not loaded"));
                }
                Err(missing) => tell(&switch, &missing, &found, proposal),
            }
        }
        if situation.host.i2c_dev() == I2cDev::Absent {
            proposal.claims.push(i2c_dev());
        }
        Ok(())
    }
}

/// What makes the buses of monitors reachable.
#[must_use]
pub fn i2c_dev() -> ListedClaim {
    Claim::new(I2cDevModule, ModulePresence::Loaded, (&["switch_input"]).into()).into()
}

/// The one monitor that is meant.
fn choose<'f>(
    switch: &ResolvedSwitch<'_>,
    situation: Situation<'_>,
    found: &'f MonitorsFound,
) -> Result<&'f MonitorKey, Missing> {
    let devices = &situation.guest.pci_hostdevs;
    let is_handed_over = |key: &MonitorKey| {
        key.place.card.is_some_and(|card| devices.iter().any(|device| device.address == card))
    };
    let keys = || found.monitors.iter().map(|monitor| &monitor.key);
    let fits = |key: &&MonitorKey| switch.selector.fits(&key.identity, &key.place);
    let (out_of_reach, fitting): (Vec<_>, Vec<_>) = keys().filter(fits).partition(|key| is_handed_over(key));
    match (fitting.as_slice(), out_of_reach.first()) {
        ([one], _) => Ok(one),
        ([], Some(key)) => Err(Missing::HandedOver(key.to_string())),
        ([], None) => Err(Missing::None {
            selector: switch.selector.clone(),
            there: keys().map(MonitorKey::in_full).collect(),
        }),
        (several, _) => Err(Missing::Several {
            selector: switch.selector.clone(),
            fitting: several.iter().map(|key| key.in_full()).collect(),
        }),
    }
}

fn tell(switch: &ResolvedSwitch<'_>, missing: &Missing, found: &MonitorsFound, proposal: &mut Proposal) {
    match switch.switch.on_failure {
        OnUnreachable::Refuse => {
            let help = match found.problems.first() {
                Some(problem) => problem.to_string(),
                None => missing.help().to_owned(),
            };
            proposal.refuse(switch.path("monitor"), missing.to_string(), help);
        }
        OnUnreachable::Warn => {
            proposal.warn(format!("{missing}: it is not switched"));
            for problem in &found.problems {
                proposal.warn(problem.to_string());
            }
        }
    }
}

fn propose_monitor(
    switch: &ResolvedSwitch<'_>,
    monitor: &MonitorKey,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) {
    let deviation = switch
        .deviation
        .or_else(|| situation.host_config.deviation_for(&monitor.identity, &monitor.place))
        .map(|named| named.deviation.clone())
        .unwrap_or_default();
    let values = match switch.input_values(&deviation) {
        Ok(values) => values,
        Err(unresolved) => {
            for each in unresolved {
                proposal.refuse(each.path, each.message, each.help);
            }
            return;
        }
    };
    let delay = switch.switch.delay;
    let wish = |control, value, afterwards| {
        let feature = MonitorFeature { monitor: monitor.clone(), control };
        MonitorWish { feature, value, afterwards, before: None, delay }
    };
    let input = values.guest.map(|value| wish(deviation.control, value, values.host));
    let others = switch.switch.set.iter().map(|(feature, value)| {
        let control = FeatureControl::standard(*feature);
        wish(control, *value, None)
    });
    let wishes: Vec<MonitorWish> = input.into_iter().chain(others).collect();
    if is_taken(switch, &wishes, situation, proposal) || !answers(switch, &wishes, situation, proposal) {
        return;
    }
    proposal.lease.monitors.extend(wishes);
}

/// Whether another guest has, or is going to have, what this one may not share. Two entries of one file may mean the
/// same monitor too.
fn is_taken(
    switch: &ResolvedSwitch<'_>,
    wishes: &[MonitorWish],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> bool {
    let is_same = |one: &MonitorFeature, other: &MonitorFeature| {
        one.monitor == other.monitor && one.control.feature == other.control.feature
    };
    let place = switch.path("monitor");
    for wish in wishes {
        if proposal.lease.monitors.iter().any(|earlier| is_same(&earlier.feature, &wish.feature)) {
            let message = format!("an entry above this one switches {} already", wish.feature.monitor);
            proposal.refuse(place, message, "keep one of the two");
            return true;
        }
        let mut others = situation.record.leases.iter().filter(|(uuid, _)| **uuid != situation.guest.uuid);
        let holder = others.find(|(uuid, lease)| {
            lease.monitors.iter().any(|held| is_same(&held.feature, &wish.feature))
                || situation
                    .record
                    .claims_of::<MonitorSetting>(**uuid)
                    .any(|(entry, _)| is_same(&entry.setting.0, &wish.feature))
        });
        let Some((_, lease)) = holder else { continue };
        let holder = &lease.name;
        match switch.switch.sharing {
            MonitorSharing::Refused => {
                let message = format!("the {} belongs to guest {holder}", wish.feature);
                let help = format!("shut {holder} down first, or write `shared: last`");
                proposal.refuse(place, message, help);
                return true;
            }
            MonitorSharing::LastStarted => {
                proposal.inform(format!("the {} is taken over from guest {holder}", wish.feature));
            }
        }
    }
    false
}

/// Whether a monitor can be reached now, where the guest is not to start without it.
fn answers(
    switch: &ResolvedSwitch<'_>,
    wishes: &[MonitorWish],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> bool {
    if switch.switch.on_failure == OnUnreachable::Warn || situation.host.i2c_dev() == I2cDev::Absent {
        return true;
    }
    let readable = wishes.iter().map(|wish| &wish.feature);
    let asked: Vec<MonitorFeature> =
        readable.filter(|feature| feature.control.reading != Reading::WriteOnly).cloned().collect();
    let deadline = Deadline::after(LOOK).earlier(situation.deadline);
    let error = situation.host.vcp_features(&asked, deadline).into_iter().find_map(Result::err);
    let Some(error) = error else { return true };
    let help = error
        .help()
        .unwrap_or("look with `vfio-hook monitors`; `on_failure: warn` starts the guest all the same");
    proposal.refuse(switch.path("monitor"), error.to_string(), help);
    false
}

impl Missing {
    fn help(&self) -> &'static str {
        match self {
            Self::HandedOver(_) => "connect the monitor to a card that stays with the host as well",
            Self::None { .. } => "`vfio-hook monitors` shows those there are",
            Self::Several { .. } => "add what tells them apart: `serial` or `connector`",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HandedOver(key) => {
                write!(
                    f,
                    "{key} is connected to a card that the guest gets, so that the host cannot reach it"
                )
            }
            Self::None { selector, there } if there.is_empty() => {
                write!(f, "no monitor with {selector}: this host sees none")
            }
            Self::None { selector, there } => {
                write!(f, "no monitor with {selector}; there are: {}", there.join("; "))
            }
            Self::Several { selector, fitting } => {
                write!(f, "several monitors with {selector}: {}", fitting.join("; "))
            }
        }
    }
}

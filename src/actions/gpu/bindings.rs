//! The card itself: who it is bound to, its power, and whether it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Card, DEVICES, DeadCard, Role, bars, resets};
use crate::actions::{Proposal, Situation};
use crate::config::Gpu;
use crate::deadline::Deadline;
use crate::guest::Managed;
use crate::host::{Binding, Bindings, Expected, HostError, PciAttribute, PortsAbove};
use crate::ledger::{CardKind, CardTerms, CardUsage, Knob, Verdict, Want};
use crate::pci::PciAddress;

/// How long a card may take to answer.
const PROBE: Duration = Duration::from_secs(5);

/// What `power/control` keeps awake.
const ON: &str = "on";

/// What `d3cold_allowed` keeps from losing its power.
const NOT_ALLOWED: &str = "0";

/// Claims the card, or says that it does not answer.
pub(super) fn propose(
    config: &Gpu,
    card: &Card,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let Some(first) = card.functions.as_slice().first() else { return Ok(()) };
    let ports = situation.host.pci_ports_above(*first)?;
    let terms = terms(config, card, &ports, situation)?;
    let report = situation.host.probe_pci(
        &terms.expected,
        &terms.ports,
        Deadline::after(PROBE).earlier(situation.deadline),
    )?;
    match Verdict::of(&report, &[]) {
        Verdict::Clean => {}
        Verdict::Doubtful(evidence) => proposal.warn(format!("{}: {}", terms.name, evidence.join("; "))),
        Verdict::Dead(evidence) => {
            proposal.refuse(
                DEVICES,
                format!("{} does not answer: {}", terms.name, evidence.join("; ")),
                "switch the host's power off and on; `vfio-hook gpu report` prints what a report of the problem needs",
            );
            proposal.dead_cards.push(DeadCard { terms, evidence });
            return Ok(());
        }
        Verdict::Stuck(operation) => {
            let evidence = vec![operation.what.clone()];
            proposal.refuse(
                DEVICES,
                format!("{} hangs the kernel: {}", terms.name, operation.what),
                operation.help(),
            );
            let terms = CardTerms { stuck: Some(operation), ..terms };
            proposal.dead_cards.push(DeadCard { terms, evidence });
            return Ok(());
        }
    }
    resets::propose(config, card, situation, proposal)?;
    warn_of_unmanaged(card, situation, proposal);
    keep_awake(card, &terms, proposal);
    let bindings = wanted(config, card, situation, proposal)?;
    proposal.claim(terms.knob(), Want::Bindings(bindings.clone()));
    proposal.cards.push(CardTerms { handed_over: bindings, ..terms });
    Ok(())
}

fn terms(
    config: &Gpu,
    card: &Card,
    ports: &PortsAbove,
    situation: Situation<'_>,
) -> Result<CardTerms, HostError> {
    let has_drm =
        |function: &PciAddress| situation.host.drm_cards_of(*function).map(|cards| !cards.is_empty());
    let mut kind = CardKind::Other;
    for function in card.functions.as_slice() {
        if has_drm(function)? {
            kind = CardKind::Drm;
        }
    }
    Ok(CardTerms {
        functions: card.functions.clone(),
        name: name(card, situation),
        kind,
        handed_over: Bindings::default(),
        ports: ports.nearest_first().collect(),
        card_ports: ports.card.clone(),
        framebuffers: situation.host.firmware_framebuffers_on(card.functions.as_slice())?,
        expected: card.members.iter().map(Expected::from).collect(),
        return_to: config.return_to,
        usage: CardUsage::NotYet,
        recover: config.recover.clone(),
        timeout: config.timeout,
        log_position: situation.host.kernel_log_position()?,
        stuck: None,
    })
}

/// `graphics card 0000:03:00.{0,1} (1002:73bf, navi-2x)`.
fn name(card: &Card, situation: Situation<'_>) -> String {
    match card.members.iter().find(|member| member.class.is_display()) {
        Some(display) => {
            let family = situation.host_config.family_of(display.id);
            format!("graphics card {} ({}, {})", card.functions, display.id, family.name)
        }
        None => {
            let ids: Vec<String> = card.members.iter().map(|member| member.id.to_string()).collect();
            format!("device {} ({})", card.functions, ids.join(", "))
        }
    }
}

/// What the functions are to be bound to.
fn wanted(
    config: &Gpu,
    card: &Card,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Bindings, HostError> {
    let functions = card.functions.as_slice();
    let Bindings(now) = situation.host.bindings(functions, &situation.host.resizable_bars(functions))?;
    let mut wanted = BTreeMap::new();
    for member in &card.members {
        let driver = situation.host.vfio_driver_for(member.address)?;
        let mut sizes = now.get(&member.address).map(|now| now.bar_sizes.clone()).unwrap_or_default();
        if member.class.is_display() {
            bars::propose(config, member.address, &mut sizes, situation, proposal)?;
        }
        wanted.insert(member.address, Binding { bar_sizes: sizes, ..Binding::kept_for(driver) });
    }
    Ok(Bindings(wanted))
}

/// vfio-pci puts an idle card to sleep at once, and some do not wake up any more. Any other device may sleep with its
/// power on; it is kept awake because vfio's driver leaves it so when it is unbound
/// (`vfio_pci_core_unregister_device`), and only what was claimed is put back.
fn keep_awake(card: &Card, terms: &CardTerms, proposal: &mut Proposal) {
    if card.role == Role::Companion {
        for address in card.functions.as_slice() {
            let knob = Knob::PciAttribute { address: *address, attribute: PciAttribute::PowerControl };
            proposal.claim(knob, Want::Text(ON.to_owned()));
        }
        return;
    }
    for address in terms.addresses() {
        for (attribute, value) in
            [(PciAttribute::D3coldAllowed, NOT_ALLOWED), (PciAttribute::PowerControl, ON)]
        {
            proposal.claim(Knob::PciAttribute { address, attribute }, Want::Text(value.to_owned()));
        }
    }
}

/// With managed='no', libvirt resets a device that a hook did not bind under the host's driver
/// (`virHostdevPreparePCIDevices` takes it for prepared after the first guest).
fn warn_of_unmanaged(card: &Card, situation: Situation<'_>, proposal: &mut Proposal) {
    let hostdevs = situation.guest.pci_hostdevs.iter();
    let unmanaged: Vec<String> = hostdevs
        .filter(|hostdev| hostdev.managed == Managed::No && card.functions.contains(hostdev.address))
        .map(|hostdev| hostdev.address.to_string())
        .collect();
    if !unmanaged.is_empty() {
        proposal.inform(format!(
            "{}: managed='yes' in the guest's XML is safer, should this hook ever be missing",
            unmanaged.join(", ")
        ));
    }
}

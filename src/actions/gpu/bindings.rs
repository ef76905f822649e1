//! The card itself: who it is bound to, its power, and whether it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Card, DEVICES, DeadCard, Role, bars, of_driver, resets};
use crate::actions::{Problem, Proposal, Situation};
use crate::config::Gpu;
use crate::deadline::Deadline;
use crate::gpu::{KeepAwake, KernelLine};
use crate::guest::{HostdevPlace, Managed, PciHostdev};
use crate::host::{Binding, Bindings, Expected, HostError, PciAttribute, PciFunction, PortsAbove};
use crate::ledger::{Attribute, AttributeValue, CardHealth, CardKind, CardTerms, CardUsage, kept_awake_by};
use crate::pci::{PciAddress, listed};

/// How long a card may take to answer.
const PROBE: Duration = Duration::from_secs(5);

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
    match CardHealth::of(&report, &[]) {
        CardHealth::Clean => {}
        CardHealth::Doubtful(evidence) => proposal.warn(format!("{}: {}", terms.name, evidence.join("; "))),
        CardHealth::Dead(evidence) => {
            proposal.add_problem(Problem {
                at: DEVICES.into(),
                message: format!("{} does not answer: {}", terms.name, evidence.join("; ")),
                help: "switch the host's power off and on; `vfio-hook gpu report` prints what a report of the problem \
                       needs"
                    .to_owned(),
                dead_card: Some(Box::new(DeadCard { terms, evidence })),
            });
            return Ok(());
        }
        CardHealth::Stuck(operation) => {
            let evidence = vec![operation.what.clone()];
            let (message, help) =
                (format!("{} hangs the kernel: {}", terms.name, operation.what), operation.help());
            let terms = CardTerms { stuck: Some(operation), ..terms };
            let dead_card = Some(Box::new(DeadCard { terms, evidence }));
            proposal.add_problem(Problem { at: DEVICES.into(), message, help, dead_card });
            return Ok(());
        }
    }
    let vendor_reset = resets::propose(config, card, situation, proposal)?;
    warn_of_unmanaged(card, situation, proposal);
    keep_awake(config, card, &terms, proposal);
    let bindings = wanted(config, card, situation, proposal)?;
    proposal.claim(terms.drivers(), bindings.clone(), of_driver(config, DEVICES));
    proposal.lease.cards.push(CardTerms { handed_over: bindings, vendor_reset, ..terms });
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
        keep_awake: match card.role {
            Role::Graphics => config.keep_awake,
            Role::Companion => KeepAwake::Never,
        },
        usage: CardUsage::NotYet,
        recover: config.recover.clone(),
        reset_after: match card.role {
            Role::Graphics => config.reset_after.clone(),
            Role::Companion => Vec::new(),
        },
        timeout: config.timeout,
        log_position: situation.host.kernel_log_position()?,
        vendor_reset: None,
        kernel_lines: situation.host_config.kernel_lines.iter().map(KernelLine::for_ledger).collect(),
        stuck: None,
    })
}

/// `graphics card 0000:03:00.{0,1} (Navi 21 [Radeon RX 6800/6800 XT / 6900 XT], 1002:73bf, navi-2x)`, or without the
/// model's name where the host has none for it.
fn name(card: &Card, situation: Situation<'_>) -> String {
    match card.members.iter().find(|member| member.class.is_display()) {
        Some(display) => {
            let family = situation.host_config.family_of(display.id);
            let model = named_model(display, situation);
            format!("graphics card {} ({model}, {})", card.functions, family.name)
        }
        None => {
            let models: Vec<String> =
                card.members.iter().map(|member| named_model(member, situation)).collect();
            format!("device {} ({})", card.functions, models.join(", "))
        }
    }
}

fn named_model(function: &PciFunction, situation: Situation<'_>) -> String {
    match situation.host.pci_model_name(function.id) {
        Some(name) => format!("{name}, {}", function.id),
        None => function.id.to_string(),
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
fn keep_awake(config: &Gpu, card: &Card, terms: &CardTerms, proposal: &mut Proposal) {
    if card.role == Role::Companion {
        for address in card.functions.as_slice() {
            let setting = Attribute::of_function(*address, PciAttribute::PowerControl);
            proposal.claim(setting, AttributeValue::new("on"), of_driver(config, DEVICES));
        }
        return;
    }
    for address in terms.addresses() {
        for (setting, value) in kept_awake_by(address) {
            proposal.claim(setting, value, of_driver(config, DEVICES));
        }
    }
}

/// With managed='no', libvirt resets a device that a hook did not bind under the host's driver
/// (`virHostdevPreparePCIDevices` takes it for prepared after the first guest).
fn warn_of_unmanaged(card: &Card, situation: Situation<'_>, proposal: &mut Proposal) {
    let hostdevs = situation.guest.pci_hostdevs.iter();
    let of_card =
        hostdevs.filter(|hostdev| hostdev.managed == Managed::No && card.functions.contains(hostdev.address));
    let (as_arguments, unmanaged): (Vec<_>, Vec<_>) =
        of_card.partition(|hostdev| hostdev.place == HostdevPlace::QemuArgument);
    let addresses = |hostdevs: &[&PciHostdev]| -> Vec<PciAddress> {
        hostdevs.iter().map(|hostdev| hostdev.address).collect()
    };
    if !unmanaged.is_empty() {
        proposal.inform(format!(
            "{}: managed='yes' in the guest's XML is safer, should this hook ever be missing",
            listed(&addresses(&unmanaged))
        ));
    }
    if !as_arguments.is_empty() {
        proposal.inform(format!(
            "{}: libvirt knows nothing of what <qemu:commandline> hands over; a <hostdev managed='yes'> is safer",
            listed(&addresses(&as_arguments))
        ));
    }
}

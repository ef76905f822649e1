//! What is known of one card.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::commands::quarantines::{self, QuarantineView, StuckView};
use crate::commands::status;
use crate::config::HostConfig;
use crate::deadline::Deadline;
use crate::gpu::{Family, FamilyName, ReturnTo, Robustness, VENDOR_RESET, VendorReset};
use crate::guest::{GuestName, GuestUuid};
use crate::host::{
    BusReset, ConnectorStatus, DriverName, Expected, Host, HostError, Link, PciFunction, PciModelName,
    PortsAbove,
};
use crate::ledger::{CardHealth, CardTerms, PciBindings, Record};
use crate::pci::{PciAddress, PciId, PciSlot};

/// How long a card may take to answer.
const PROBE: Duration = Duration::from_secs(5);

/// How long the look through all processes may take.
const LOOK: Duration = Duration::from_secs(5);

/// Where cards are looked at, and what is known of them.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) host: &'a Host,
    pub(super) record: Option<&'a Record>,
    pub(super) config: &'a HostConfig,
}

/// A card, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct CardView {
    pub(super) slot: PciSlot,
    /// Its model for people; none where the host has no name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<PciModelName>,
    pub(super) functions: Vec<FunctionView>,
    /// None for what is no graphics card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<FamilyView>,
    pub(super) ports: PortsView,
    /// What the host uses of the card's IOMMU groups.
    pub(super) group_others: Vec<GroupOtherView>,
    pub(super) bus_reset: BusResetView,
    /// Whether the firmware showed its picture on it.
    pub(super) boot_display: bool,
    pub(super) drm_cards: Vec<DrmCardView>,
    pub(super) users: UsersView,
    pub(super) health: HealthView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) guest: Option<GuestView>,
    pub(super) quarantines: Vec<QuarantineView>,
    pub(super) stuck: Vec<StuckView>,
}

/// A function. One that the kernel no longer has is known from the ledger only.
#[derive(Debug, Serialize)]
pub(super) struct FunctionView {
    pub(super) address: PciAddress,
    pub(super) model: PciId,
    /// None where the kernel no longer has it.
    pub(super) class: Option<String>,
    pub(super) driver: Option<DriverName>,
    pub(super) power_state: Option<String>,
    pub(super) iommu_group: Option<u32>,
    pub(super) reset_methods: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct FamilyView {
    pub(super) name: FamilyName,
    pub(super) resets: Option<String>,
    pub(super) driver_reset: Option<String>,
    pub(super) fails: Option<String>,
    pub(super) note: Option<String>,
    pub(super) vendor_reset: VendorResetView,
    pub(super) host_driver: Robustness,
}

/// Whether the module vendor-reset can reset the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum VendorResetView {
    Unsupported,
    NotLoaded,
    Loaded,
}

/// The ports above, the nearest first.
#[derive(Debug, Default, Serialize)]
pub(super) struct PortsView {
    pub(super) card: Vec<PciAddress>,
    pub(super) mainboard: Vec<PciAddress>,
    pub(super) root: Option<PciAddress>,
}

/// A function of another device in one of the card's IOMMU groups.
#[derive(Debug, Serialize)]
pub(super) struct GroupOtherView {
    pub(super) group: u32,
    pub(super) address: PciAddress,
    pub(super) driver: Option<DriverName>,
}

/// What the reset of the whole bus would reset.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BusResetView {
    /// The kernel no longer has the card.
    Unknown,
    NoPort,
    OnlyTheCard,
    Others(Vec<PciAddress>),
}

#[derive(Debug, Serialize)]
pub(super) struct DrmCardView {
    pub(super) name: String,
    /// The connectors with a monitor.
    pub(super) monitors: Vec<String>,
}

/// The processes that use the card.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum UsersView {
    Known(Vec<String>),
    /// Why they are not.
    Unknown(String),
    /// Who is not root cannot see what others have open.
    OnlyRoot,
}

/// How it is, as far as can be seen from outside.
#[derive(Debug, Serialize)]
pub(super) struct HealthView {
    pub(super) state: HealthState,
    pub(super) evidence: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HealthState {
    Answers,
    Doubtful,
    Dead,
    Stuck,
    /// An operation hangs on it already: another one would hang too.
    NotAsked,
}

/// The guest that has the card.
#[derive(Debug, Serialize)]
pub(super) struct GuestView {
    pub(super) name: String,
    uuid: GuestUuid,
    pub(super) phase: &'static str,
    /// Seconds since 1970.
    pub(super) since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) return_to: Option<ReturnTo>,
}

impl CardView {
    /// Looks at a card.
    ///
    /// # Errors
    /// It goes away meanwhile; the kernel refuses.
    pub(super) fn of(known: Known<'_>, slot: PciSlot) -> Result<Self, HostError> {
        let Known { host, record, config } = known;
        let present = host.pci_functions_of(slot);
        let members: Vec<PciFunction> =
            present.iter().map(|address| host.pci_function(*address)).collect::<Result<_, _>>()?;
        let terms = terms_of(record, slot);
        let ports = match (present.first(), terms.first()) {
            (Some(first), _) => host.pci_ports_above(*first)?,
            (None, Some(terms)) => ports_in(terms),
            (None, None) => PortsAbove::default(),
        };
        let stuck = quarantines::stuck(host, terms.iter().copied());
        let expected = expected(&members, &terms);
        let display = members.iter().find(|member| member.class.is_display());
        let named = display.or(members.first());
        Ok(Self {
            slot,
            name: named.and_then(|function| host.pci_model_name(function.id)),
            functions: functions(host, &members, &expected)?,
            family: display.map(|display| FamilyView::of(host, config.family_of(display.id))),
            group_others: group_others(host, &members)?,
            bus_reset: bus_reset(host, &present)?,
            boot_display: is_boot_display(host, &present)?,
            drm_cards: drm_cards(host, &present)?,
            users: users(host, &present),
            health: health(host, &expected, &ports, &stuck)?,
            ports: PortsView { card: ports.card, mainboard: ports.mainboard, root: ports.root },
            guest: record.and_then(|record| guest(record, slot)),
            quarantines: record.map_or_else(Vec::new, |record| quarantines_of(record, slot)),
            stuck,
        })
    }

    /// All addresses above the card.
    pub(super) fn ports(&self) -> Vec<PciAddress> {
        let PortsView { card, mainboard, root } = &self.ports;
        card.iter().chain(mainboard).chain(root).copied().collect()
    }

    /// Whether the kernel has it, and none of it is in an IOMMU group.
    pub(super) fn is_without_iommu(&self) -> bool {
        let mut present = self.functions.iter().filter(|function| function.class.is_some()).peekable();
        present.peek().is_some() && present.all(|function| function.iommu_group.is_none())
    }
}

impl FamilyView {
    fn of(host: &Host, family: &Family) -> Self {
        Self {
            name: family.name.clone(),
            resets: family.resets.clone(),
            driver_reset: family.driver_reset.clone(),
            fails: family.fails.clone(),
            note: family.note.clone(),
            vendor_reset: match family.vendor_reset {
                VendorReset::Unsupported => VendorResetView::Unsupported,
                VendorReset::Supported if host.has_module(VENDOR_RESET) => VendorResetView::Loaded,
                VendorReset::Supported => VendorResetView::NotLoaded,
            },
            host_driver: family.host_driver,
        }
    }
}

/// What guests and quarantines have agreed about a card.
fn terms_of(record: Option<&Record>, slot: PciSlot) -> Vec<&CardTerms> {
    let Some(record) = record else { return Vec::new() };
    let quarantined = record.quarantines.iter().map(|quarantine| &quarantine.terms);
    let all = quarantined.chain(record.leases.values().flat_map(|lease| &lease.cards));
    all.filter(|terms| terms.functions.slot() == slot).collect()
}

/// The ports above a card that the kernel no longer has.
fn ports_in(terms: &CardTerms) -> PortsAbove {
    let mut others: Vec<PciAddress> =
        terms.ports.iter().filter(|port| !terms.card_ports.contains(port)).copied().collect();
    let root = others.pop();
    PortsAbove { card: terms.card_ports.clone(), mainboard: others, root }
}

/// What each function should say it is: what was handed over, then what the kernel found.
fn expected(members: &[PciFunction], terms: &[&CardTerms]) -> Vec<Expected> {
    let found = members.iter().map(Expected::from);
    let agreed = terms.iter().flat_map(|terms| &terms.expected).copied();
    let expected: BTreeMap<PciAddress, Expected> =
        found.chain(agreed).map(|expected| (expected.address, expected)).collect();
    expected.into_values().collect()
}

fn functions(
    host: &Host,
    members: &[PciFunction],
    expected: &[Expected],
) -> Result<Vec<FunctionView>, HostError> {
    let mut functions = Vec::new();
    for Expected { address, id } in expected {
        let member = members.iter().find(|member| member.address == *address);
        functions.push(FunctionView {
            address: *address,
            model: member.map_or(*id, |member| member.id),
            class: member.map(|member| member.class.to_string()),
            driver: member.and_then(|member| member.driver.clone()),
            power_state: member.map(|_| host.pci_power_state(*address).to_string()),
            iommu_group: member.and_then(|member| member.iommu_group),
            reset_methods: member.map_or_else(|| Ok(Vec::new()), |_| host.pci_reset_methods(*address))?,
        });
    }
    Ok(functions)
}

/// What is no port and no function of the card.
fn group_others(host: &Host, members: &[PciFunction]) -> Result<Vec<GroupOtherView>, HostError> {
    let mut groups: Vec<u32> = members.iter().filter_map(|member| member.iommu_group).collect();
    groups.dedup();
    let mut others = Vec::new();
    for group in groups {
        for address in host.iommu_group_members(group)? {
            let function = host.pci_function(address)?;
            if !function.class.is_bridge() && members.iter().all(|member| member.address != address) {
                others.push(GroupOtherView { group, address, driver: function.driver });
            }
        }
    }
    Ok(others)
}

fn bus_reset(host: &Host, present: &[PciAddress]) -> Result<BusResetView, HostError> {
    if present.is_empty() {
        return Ok(BusResetView::Unknown);
    }
    Ok(match host.pci_bus_reset(present)? {
        BusReset::NoPort => BusResetView::NoPort,
        BusReset::OnlyThem => BusResetView::OnlyTheCard,
        BusReset::Others(others) => BusResetView::Others(others),
    })
}

fn is_boot_display(host: &Host, present: &[PciAddress]) -> Result<bool, HostError> {
    for address in present {
        if host.is_boot_display(*address)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn drm_cards(host: &Host, present: &[PciAddress]) -> Result<Vec<DrmCardView>, HostError> {
    let mut views = Vec::new();
    for address in present {
        for card in host.drm_cards_of(*address)? {
            let connected = card.connectors.iter().filter(|one| one.status == ConnectorStatus::Connected);
            let monitors = connected.map(|connector| connector.name.to_string()).collect();
            views.push(DrmCardView { name: card.to_string(), monitors });
        }
    }
    Ok(views)
}

fn users(host: &Host, present: &[PciAddress]) -> UsersView {
    match host.holders_of(present, Deadline::after(LOOK)) {
        Ok(holders) => UsersView::Known(holders.iter().map(ToString::to_string).collect()),
        Err(error) if error.kind() == Some(std::io::ErrorKind::PermissionDenied) => UsersView::OnlyRoot,
        Err(error) => UsersView::Unknown(error.to_string()),
    }
}

fn health(
    host: &Host,
    expected: &[Expected],
    ports: &PortsAbove,
    stuck: &[StuckView],
) -> Result<HealthView, HostError> {
    if !stuck.is_empty() {
        return Ok(HealthView { state: HealthState::NotAsked, evidence: Vec::new(), link: None });
    }
    let above: Vec<PciAddress> = ports.nearest_first().collect();
    let report = host.probe_pci(expected, &above, Deadline::after(PROBE))?;
    let link = report.functions.values().find_map(|probed| probed.link);
    let (state, evidence) = match CardHealth::of(&report, &[]) {
        CardHealth::Clean => (HealthState::Answers, Vec::new()),
        CardHealth::Doubtful(evidence) => (HealthState::Doubtful, evidence),
        CardHealth::Dead(evidence) => (HealthState::Dead, evidence),
        CardHealth::Stuck(_) => (HealthState::Stuck, report.evidence()),
    };
    Ok(HealthView { state, evidence, link: link.map(|link: Link| link.to_string()) })
}

/// The guest that claims the card's drivers.
fn guest(record: &Record, slot: PciSlot) -> Option<GuestView> {
    let has_card = |uuid: GuestUuid| {
        record.claims_of::<PciBindings>(uuid).any(|(entry, _)| entry.setting.0.slot() == slot)
    };
    let (uuid, lease) = record.leases.iter().find(|(uuid, _)| has_card(**uuid))?;
    let terms = lease.cards.iter().find(|terms| terms.functions.slot() == slot);
    Some(GuestView {
        name: GuestName::new(&lease.name).to_string(),
        uuid: *uuid,
        phase: status::phase(lease.phase),
        since: lease.since,
        return_to: terms.map(|terms| terms.return_to),
    })
}

fn quarantines_of(record: &Record, slot: PciSlot) -> Vec<QuarantineView> {
    let quarantines = record.quarantines.iter();
    let on_card = quarantines.filter(|quarantine| quarantine.terms.functions.slot() == slot);
    on_card.map(QuarantineView::from).collect()
}

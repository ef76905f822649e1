//! All graphics cards, or the one that is named.

use std::collections::BTreeSet;

use serde::Serialize;

use super::card::{CardView, Known};
use super::sheet;
use crate::commands::output::{self, Format};
use crate::commands::user_error::{UserError, UserResult};
use crate::config::HostConfig;
use crate::exit::Exit;
use crate::host::{Host, HostError};
use crate::ledger::{Ledger, Record, remedy};
use crate::lifecycle::{self, LifecycleError};
use crate::pci::PciSlot;

/// The cards, and what could not be found out.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) cards: Vec<CardView>,
    problems: Vec<ProblemView>,
    /// How many cards there are, those too that could not be looked at.
    #[serde(skip)]
    found: usize,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    problem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

pub(super) fn run(host: &Host, wanted: Option<PciSlot>, format: Format) -> UserResult<Exit> {
    let view = view(host, wanted)?;
    match format {
        Format::Json => output::json(&view),
        Format::Text => lines(&view).iter().for_each(output::line),
    }
    Ok(Exit::Done)
}

/// Every card is looked at as far as it can be: what is wrong with one keeps nobody from seeing the others.
///
/// # Errors
/// There is no such card; PCI cannot be read.
pub(super) fn view(host: &Host, wanted: Option<PciSlot>) -> UserResult<View> {
    let mut problems = Vec::new();
    let record = Ledger::peek(host).unwrap_or_else(|error| {
        let problem = format!("who has a card and which are in quarantine is not known: {error}");
        problems.push(ProblemView { problem, help: error.help() });
        None
    });
    let config = lifecycle::load_host_config(host).unwrap_or_else(|error| {
        problems.push(ProblemView::of_config(&error));
        HostConfig::default()
    });
    let known = Known { host, record: record.as_ref(), config: &config };
    let mut cards = Vec::new();
    let slots = slots(host, record.as_ref(), wanted)?;
    let found = slots.len();
    for slot in slots {
        match CardView::of(known, slot) {
            Ok(card) => cards.push(card),
            Err(error) => {
                problems.push(ProblemView { problem: format!("{slot}: {error}"), help: remedy(&error) })
            }
        }
    }
    Ok(View { cards, problems, found })
}

impl ProblemView {
    fn of_config(error: &LifecycleError) -> Self {
        let problem = match error {
            LifecycleError::Config(errors) => {
                errors.render(crate::config::Style::Plain).trim_end().to_owned()
            }
            other => other.to_string(),
        };
        Self { problem, help: error.help() }
    }
}

/// The cards to look at: the one named, else all with a display controller and all in quarantine.
fn slots(host: &Host, record: Option<&Record>, wanted: Option<PciSlot>) -> UserResult<Vec<PciSlot>> {
    let quarantines = record.map_or(&[][..], |record| &record.quarantines);
    let quarantined = quarantines.iter().map(|quarantine| quarantine.terms.functions.slot());
    let mut slots: BTreeSet<PciSlot> = displays(host)?.into_iter().chain(quarantined).collect();
    if let Some(wanted) = wanted
        && !slots.contains(&wanted)
        && host.pci_functions_of(wanted).is_empty()
    {
        let there: Vec<String> = slots.iter().map(PciSlot::to_string).collect();
        let help = match there.is_empty() {
            true => "this host has no graphics card".to_owned(),
            false => format!("the graphics cards are {}", there.join(", ")),
        };
        return Err(UserError::new(format!("this host has no device {wanted}")).with_help(help));
    }
    if let Some(wanted) = wanted {
        slots = [wanted].into();
    }
    Ok(slots.into_iter().collect())
}

fn displays(host: &Host) -> Result<Vec<PciSlot>, HostError> {
    let mut displays = Vec::new();
    for address in host.pci_functions()? {
        // One that goes away just now is none.
        let is_display = host.pci_function(address).is_ok_and(|function| function.class.is_display());
        if is_display && !host.is_virtual_function(address)? {
            displays.push(address.slot());
        }
    }
    Ok(displays)
}

pub(super) fn lines(view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    for card in &view.cards {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(sheet::of_card(card));
    }
    if view.found == 0 {
        lines.push("this host has no graphics card".to_owned());
    }
    for ProblemView { problem, help } in &view.problems {
        lines.push(format!("warning: {problem}"));
        lines.extend(help.as_ref().map(|help| format!("help: {help}")));
    }
    lines
}

//! Out of quarantine.

use std::time::Duration;

use serde::Serialize;

use crate::commands::output::{self, Format, OutcomeView};
use crate::commands::quarantines::{self, StuckView};
use crate::commands::user_error::{UserError, UserResult};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::Host;
use crate::ledger::{Cleared, Ledger, Outcome, Quarantine};
use crate::lifecycle::{self, Clearing};
use crate::pci::{PciFunctions, PciSlot};

/// Enough for a QEMU to let go of the card, for a card to be asked twice, and for drivers that take their time.
const PATIENCE: Duration = Duration::from_secs(150);

/// What helps where nothing else does.
const SWITCH_OFF: &str = "a card that stays dead needs the host's power switched off and on";

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Clearances {
    cards: Vec<Clearance>,
    recovered: Outcome,
    /// The card asked for, where that was in no quarantine.
    asked: Option<PciSlot>,
}

#[derive(Debug)]
struct Clearance {
    card: String,
    slot: PciSlot,
    cleared: Cleared,
    /// The operations that hang on it.
    stuck: Vec<StuckView>,
}

/// The same, as JSON.
#[derive(Debug, Serialize)]
struct ClearanceView<'a> {
    card: &'a str,
    in_quarantine: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    done: Option<OutcomeView<'a>>,
    /// What is seen now.
    evidence: &'a [String],
    stuck: &'a [StuckView],
}

pub(super) fn run(host: &mut Host, wanted: Option<PciSlot>, format: Format) -> UserResult<Exit> {
    let clearances = carry_out(host, wanted, Deadline::after(PATIENCE))?;
    match format {
        Format::Json => output::json(&views(&clearances)),
        Format::Text => lines(&clearances).iter().for_each(output::line),
    }
    Ok(exit(&clearances))
}

/// Clears the card that is meant, as far as it can be. Looks first: without a quarantine nothing is made on the host,
/// not even the folder of the ledger's lock.
///
/// # Errors
/// Several are in quarantine and none is named; the ledger cannot be used.
pub(super) fn carry_out(
    host: &mut Host,
    wanted: Option<PciSlot>,
    deadline: Deadline,
) -> UserResult<Clearances> {
    let mut clearances = Clearances { asked: wanted, ..Clearances::default() };
    for (functions, card) in meant(host, wanted)? {
        let slot = functions.slot();
        let Clearing { recovered, cleared } = lifecycle::clear_quarantine(host, &functions, deadline)?;
        clearances.recovered.absorb(recovered);
        let record = Ledger::peek(host)?;
        let quarantine = record.as_ref().and_then(|record| record.quarantine_of(&functions));
        let stuck = quarantines::stuck(host, quarantine.map(|quarantine| &quarantine.terms).into_iter());
        clearances.cards.push(Clearance { card, slot, cleared, stuck });
    }
    Ok(clearances)
}

/// The functions in quarantine of the card that is named, or of the only one, and what it is.
fn meant(host: &Host, wanted: Option<PciSlot>) -> UserResult<Vec<(PciFunctions, String)>> {
    let quarantines = Ledger::peek(host)?.map_or_else(Vec::new, |record| record.quarantines);
    let slot = |quarantine: &Quarantine| quarantine.terms.functions.slot();
    let first = quarantines.first().map(slot);
    if wanted.is_none() && quarantines.iter().any(|quarantine| Some(slot(quarantine)) != first) {
        let names: Vec<String> = quarantines.iter().map(|quarantine| quarantine.terms.name.clone()).collect();
        return Err(UserError::new("several cards are in quarantine: say which")
            .with_help(format!("there is {}", names.join(", "))));
    }
    let meant = wanted.or(first);
    let of_card = quarantines.into_iter().filter(|quarantine| Some(slot(quarantine)) == meant);
    Ok(of_card.map(|quarantine| (quarantine.terms.functions, quarantine.terms.name)).collect())
}

pub(super) fn exit(clearances: &Clearances) -> Exit {
    let is_well = |clearance: &Clearance| match &clearance.cleared {
        Cleared::Yes(outcome) => outcome.failures.is_empty(),
        Cleared::NotThere => true,
        Cleared::No { .. } => false,
    };
    let is_all_well = clearances.cards.iter().all(is_well) && clearances.recovered.failures.is_empty();
    if is_all_well { Exit::Done } else { Exit::Failed }
}

pub(super) fn lines(clearances: &Clearances) -> Vec<String> {
    let mut lines = done(&clearances.recovered);
    if clearances.cards.is_empty() {
        lines.push(match clearances.asked {
            Some(slot) => format!("{slot} is not in quarantine"),
            None => "no card is in quarantine".to_owned(),
        });
    }
    for Clearance { card, slot, cleared, stuck } in &clearances.cards {
        match cleared {
            Cleared::Yes(outcome) => {
                lines.push(format!("{card} is out of quarantine"));
                lines.extend(done(outcome));
            }
            Cleared::NotThere => lines.push(format!("{card} is not in quarantine any more")),
            Cleared::No { evidence } => {
                lines.push(format!("{card} stays in quarantine"));
                lines.extend(evidence.iter().map(|line| format!("  {line}")));
                let help = stuck.first().map_or(SWITCH_OFF, |stuck| stuck.help.as_str());
                let report =
                    format!("`vfio-hook gpu report {slot}` prints what a report of the problem needs");
                lines.push(format!("help: {help}; {report}"));
            }
        }
    }
    lines
}

fn done(outcome: &Outcome) -> Vec<String> {
    let mut lines = output::note_lines(&outcome.notes);
    lines.extend(output::change_lines(&outcome.changes));
    lines.extend(outcome.failures.iter().map(|failure| format!("  failed: {failure}")));
    lines
}

fn views(clearances: &Clearances) -> Vec<ClearanceView<'_>> {
    clearances.cards.iter().map(ClearanceView::from).collect()
}

impl<'a> From<&'a Clearance> for ClearanceView<'a> {
    fn from(clearance: &'a Clearance) -> Self {
        let (in_quarantine, done, evidence) = match &clearance.cleared {
            Cleared::Yes(outcome) => (false, Some(OutcomeView::from(outcome)), &[][..]),
            Cleared::NotThere => (false, None, &[][..]),
            Cleared::No { evidence } => (true, None, evidence.as_slice()),
        };
        Self { card: &clearance.card, in_quarantine, done, evidence, stuck: &clearance.stuck }
    }
}

//! Cards in quarantine: out of it again, when a person asks for it.

use super::LifecycleError;
use crate::deadline::Deadline;
use crate::host::Host;
use crate::ledger::{Cleared, Ledger, Outcome};
use crate::pci::PciFunctions;

/// What came of a try to take a card out of quarantine.
#[derive(Debug)]
pub struct Clearing {
    /// What of an earlier run was settled before.
    pub recovered: Outcome,
    /// What became of the card.
    pub cleared: Cleared,
}

/// Looks at a card in quarantine again: one that answers goes where it belongs, any other stays where it is. Others get
/// at the ledger while the card is asked and its drivers are at work.
///
/// # Errors
/// The ledger cannot be used.
pub fn clear_quarantine(
    host: &mut Host,
    functions: &PciFunctions,
    deadline: Deadline,
) -> Result<Clearing, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let cleared = ledger.clear_quarantine(functions)?;
    Ok(Clearing { recovered: ledger.recovered().clone(), cleared })
}

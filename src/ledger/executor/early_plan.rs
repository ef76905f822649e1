//! Plans for which peers are asked that may take their time: monitors, file systems, users' service managers, cards.

use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;

/// How often peers are asked while others have the ledger. Where it was changed each time, they are asked with it locked.
const LOOKS: u32 = 3;

impl Ledger<'_> {
    /// Makes a plan twice: first while others get at the ledger, so that peers take their time then, and again with the
    /// ledger locked, on the same answers. A plan that fails is not made again. Where another process changed the ledger
    /// meanwhile the answers count for nothing: it may have started the unit that was seen to be stopped.
    ///
    /// # Errors
    /// Those of the plan. The ledger cannot be written or locked again.
    pub(crate) fn plan_on_early_answers<P, E: From<LedgerError>>(
        &mut self,
        plan: impl Fn(&Self) -> Result<P, E>,
    ) -> Result<P, E> {
        for _ in 0..LOOKS {
            self.store()?;
            let before = self.slots.newest();
            self.unlock();
            self.host.keep_answers();
            let early = plan(self);
            let locked = self.relock();
            let planned = match (locked, early) {
                (Err(error), _) => Some(Err(error.into())),
                (Ok(()), _) if self.slots.newest() != before => None,
                (Ok(()), Err(error)) => Some(Err(error)),
                (Ok(()), Ok(_)) => Some(plan(self)),
            };
            self.host.forget_answers();
            if let Some(planned) = planned {
                return planned;
            }
        }
        plan(self)
    }
}

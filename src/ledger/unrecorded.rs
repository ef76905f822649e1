//! Giving back where not even the ledger can be written: what can be done without it, and no more.

use super::entry::Change;
use super::error::LedgerError;
use super::open::Ledger;
use super::setting::Phase;
use super::settings::SettingKey;

impl Ledger<'_> {
    /// Writes the baselines of settings whose last claim goes, as far as writing one twice is the same as writing it
    /// once. The file still says that they are claimed, and the next event that can write it finds them back already.
    /// What is a share of something, what other guests claim too, cards, and the keeper, which tries again, wait.
    pub(super) fn give_back_unrecorded(&mut self, changes: Vec<Change>, reason: LedgerError) -> LedgerError {
        let mut given_back = 0;
        let mut waiting = Vec::new();
        for change in changes {
            let setting = &change.setting;
            if self.needs_no_record(setting) && self.execute(setting).is_ok() {
                given_back += 1;
            } else {
                waiting.push(setting.to_string());
            }
        }
        LedgerError::Unrecorded { reason: Box::new(reason), given_back, waiting }
    }

    fn needs_no_record(&self, setting: &SettingKey) -> bool {
        let is_last = |entry: &dyn super::AnyEntry| {
            entry.is_absolute() && !entry.is_claimed() && entry.traits().phase != Phase::Cards
        };
        !matches!(setting, SettingKey::Keeper(_)) && self.record.any(setting).is_some_and(is_last)
    }
}

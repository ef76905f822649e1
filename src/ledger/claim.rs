//! A claim: what one guest wants of one setting, and on which terms it is taken.

use std::collections::BTreeMap;
use std::time::Duration;

use super::remedy::remedy;
use super::setting::{OnRefusal, Setting};
use super::settings::SettingKey;
use crate::deadline::Deadline;
use crate::host::HostError;
use crate::key_path::KeyPath;

/// What one guest wants of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<S: Setting> {
    /// The setting.
    pub setting: S,
    /// What is wanted of it.
    pub want: S::Want,
    /// What it holds, where that was looked at already.
    pub now: Option<S::Value>,
    /// How it is taken.
    pub terms: ClaimTerms,
}

/// How a claim is taken. The ledger's file does not have it: once a claim is taken, nothing asks for it any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimTerms {
    /// The key of the guest's file that asks for it; none for what the program needs itself.
    pub key: Option<KeyPath>,
    /// How long it may take; none leaves it the whole event.
    pub patience: Option<Patience>,
    /// What it means when the host refuses it. A setting may let more pass by itself.
    pub on_refusal: OnRefusal,
}

/// How long the taking of claims may last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// So long.
    pub time: Duration,
    /// From when on.
    pub clock: Clock,
    /// The key of the guest's file that sets it.
    pub key: KeyPath,
}

/// From when on a patience counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Each write has all of it.
    EachWrite,
    /// All claims whose patience the same key sets have it together, from the first write on.
    AllTogether,
}

impl<S: Setting> Claim<S> {
    /// A claim on a setting that was not looked at.
    #[must_use]
    pub fn new(setting: S, want: S::Want, terms: ClaimTerms) -> Self {
        Self { setting, want, now: None, terms }
    }
}

impl Patience {
    /// Each write may take so long.
    #[must_use]
    pub fn for_each_write(time: Duration, key: impl Into<KeyPath>) -> Self {
        Self { time, clock: Clock::EachWrite, key: key.into() }
    }

    /// All claims with this key may take so long together.
    #[must_use]
    pub fn for_all_together(time: Duration, key: impl Into<KeyPath>) -> Self {
        Self { time, clock: Clock::AllTogether, key: key.into() }
    }
}

impl ClaimTerms {
    /// The same, with this patience.
    #[must_use]
    pub fn within(self, patience: Patience) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// The same, where a refusal means this.
    #[must_use]
    pub fn on_refusal(self, on_refusal: OnRefusal) -> Self {
        Self { on_refusal, ..self }
    }

    /// What a person can do about a refusal.
    pub(super) fn help(&self, error: &HostError) -> Option<String> {
        let more_time = self.patience.as_ref().filter(|_| error.ran_out_of_time());
        let more_time = more_time.map(|patience| format!("`{}` gives it more time", patience.key));
        let parts: Vec<String> = remedy(error).into_iter().chain(more_time).collect();
        let advice = (!parts.is_empty()).then(|| parts.join("; "));
        KeyPath::add_to_hint(self.key.as_ref(), advice)
    }
}

impl<K: Into<KeyPath>> From<K> for ClaimTerms {
    fn from(key: K) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }
}

/// The terms of a plan's claims while they are taken, and the clocks that run.
#[derive(Debug, Default)]
pub(super) struct TakingTerms {
    terms: BTreeMap<SettingKey, ClaimTerms>,
    /// By when all claims have to be taken whose patience this key sets.
    clocks: BTreeMap<KeyPath, Deadline>,
}

/// By when a write has to be made.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimeLimit {
    /// By then.
    Until(Deadline),
    /// So long from its beginning.
    From(Duration),
}

impl TimeLimit {
    /// The end of a write that begins now.
    pub(super) fn deadline(self) -> Deadline {
        match self {
            Self::Until(deadline) => deadline,
            Self::From(time) => Deadline::after(time),
        }
    }
}

impl TakingTerms {
    pub(super) fn new(terms: BTreeMap<SettingKey, ClaimTerms>) -> Self {
        Self { terms, clocks: BTreeMap::new() }
    }

    /// The terms of the claim on a setting.
    pub(super) fn of(&self, setting: &SettingKey) -> ClaimTerms {
        self.terms.get(setting).cloned().unwrap_or_default()
    }

    /// By when a write to a setting has to be made; `end` is that of the event.
    pub(super) fn time_limit(&mut self, setting: &SettingKey, end: Deadline) -> TimeLimit {
        match self.terms.get(setting).and_then(|terms| terms.patience.as_ref()) {
            None => TimeLimit::Until(end),
            Some(Patience { time, clock: Clock::EachWrite, .. }) => TimeLimit::From(*time),
            Some(Patience { time, clock: Clock::AllTogether, key }) => {
                let begun = self.clocks.entry(key.clone()).or_insert_with(|| Deadline::after(*time));
                TimeLimit::Until(begun.earlier(end))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Attribute, Listed};

    const MINUTE: Duration = Duration::from_secs(60);

    fn setting(cpu: u32) -> SettingKey {
        Attribute::scaling_governor(cpu).key()
    }

    /// How long a write to each of these settings may take, where both were claimed with this patience.
    fn limits(patience: &Patience, end: Deadline) -> [Duration; 2] {
        let terms = ClaimTerms::from(&["services", "stop"]).within(patience.clone());
        let terms = [0, 1].map(|cpu| (setting(cpu), terms.clone()));
        let mut taking = TakingTerms::new(terms.into());
        let first = taking.time_limit(&setting(0), end).deadline().remaining();
        std::thread::sleep(Duration::from_millis(20));
        [first, taking.time_limit(&setting(1), end).deadline().remaining()]
    }

    #[test]
    fn claims_with_one_key_share_its_time_or_each_write_has_all_of_it() {
        let (key, end) = (&["services", "timeout"], Deadline::after(10 * MINUTE));
        let [first, second] = limits(&Patience::for_all_together(MINUTE, key), end);
        assert!(second + Duration::from_millis(20) <= first, "{first:?} {second:?}");
        let [first, second] = limits(&Patience::for_each_write(MINUTE, key), end);
        assert!(second + Duration::from_millis(10) > first, "{first:?} {second:?}");
    }

    #[test]
    fn what_shares_a_time_has_no_more_than_the_event() {
        let end = Deadline::after(Duration::from_secs(1));
        let limits = limits(&Patience::for_all_together(MINUTE, &["services", "timeout"]), end);
        assert!(limits.iter().all(|limit| *limit <= Duration::from_secs(1)), "{limits:?}");
        let limit = TakingTerms::default().time_limit(&setting(0), end);
        assert!(limit.deadline().remaining() <= Duration::from_secs(1), "{limit:?}");
    }

    #[test]
    fn more_time_is_offered_only_where_it_would_help() {
        let terms = ClaimTerms::from(&["gpu", "holders", "stop"])
            .within(Patience::for_all_together(MINUTE, &["gpu", "holders", "wait"]));
        let late = HostError::late_call("StopUnit", "a.service", "it is still deactivating");
        let refused = HostError::call("StopUnit", "a.service", "refused");
        assert_eq!(
            terms.help(&late).unwrap(),
            "`gpu.holders.wait` gives it more time; `gpu.holders.stop` of the YAML file asks for it"
        );
        assert_eq!(terms.help(&refused).unwrap(), "`gpu.holders.stop` of the YAML file asks for it");
    }
}

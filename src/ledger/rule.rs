//! The rules: a setting's value is a function of its baseline and the live claims.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::setting::{Combining, InLedger, Setting};
use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;

/// Two guests want different values of one setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The guest that has it.
    pub holder: GuestUuid,
    /// What it has.
    pub held: String,
    /// What the other one wants.
    pub wanted: String,
}

/// How a baseline and the wants of several guests become one value.
pub trait Rule<S: Setting> {
    /// What giving back goes from.
    const BASIS: Basis = Basis::LastWritten;

    /// What the setting has to hold.
    ///
    /// # Errors
    /// Two guests want different values.
    fn combine(of: &Combining<'_, S>) -> Result<S::Value, Conflict>;

    /// Whether the baseline and some of the claims lead to a value: then it is no change from outside, whichever claims
    /// had come or gone when its writer was killed.
    fn explains(of: &Combining<'_, S>, value: &S::Value) -> bool;

    /// Takes in a change from outside, if what the setting holds is one: the note to tell.
    fn adopt(entry: &mut Entry<S>, now: &S::Value, online: &CpuSet) -> Option<String> {
        entry.adopt_external(now, online)
    }
}

/// What giving back goes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// What was last written.
    LastWritten,
    /// What is there, which other programs may use and change meanwhile.
    Now,
}

/// A value that is, or has in it, a set of CPUs.
pub trait OfCpus: Clone {
    /// The CPUs.
    fn cpus(&self) -> &CpuSet;

    /// These CPUs, as the setting holds them while it is claimed.
    fn claimed(cpus: CpuSet) -> Self;

    /// The CPUs that a baseline stands for: where nothing is set, that may be all of the host's.
    fn meant<'a>(&'a self, _online: &'a CpuSet) -> &'a CpuSet {
        self.cpus()
    }
}

impl OfCpus for CpuSet {
    fn cpus(&self) -> &CpuSet {
        self
    }

    fn claimed(cpus: CpuSet) -> Self {
        cpus
    }
}

fn union<'a>(claims: impl IntoIterator<Item = &'a CpuSet>) -> CpuSet {
    claims.into_iter().fold(CpuSet::new(), |all, cpus| all.union(cpus))
}

/// The baseline minus all the CPUs claimed; where nothing would be left, all online CPUs without them.
#[derive(Debug)]
pub enum MinusCpus {}

impl MinusCpus {
    fn rest<V: OfCpus + PartialEq>(baseline: &V, claimed: &CpuSet, online: &CpuSet) -> V {
        if claimed.is_empty() {
            return baseline.clone();
        }
        let rest = baseline.meant(online).minus(claimed);
        V::claimed(if rest.is_empty() { online.minus(claimed) } else { rest })
    }
}

impl<S: Setting<Want = CpuSet>> Rule<S> for MinusCpus
where
    S::Value: OfCpus,
{
    fn combine(of: &Combining<'_, S>) -> Result<S::Value, Conflict> {
        Ok(Self::rest(of.baseline, &union(of.claims.values()), of.online))
    }

    /// The claims that do not show in the value are the ones that can have led to it, and it does not matter which of
    /// them: what they take away is not there.
    fn explains(of: &Combining<'_, S>, value: &S::Value) -> bool {
        let applied = of.claims.values().filter(|cpus| !value.cpus().intersects(cpus));
        S::is_same(&Self::rest(of.baseline, &union(applied), of.online), value)
    }
}

/// The baseline plus all the CPUs claimed: a list of CPUs to keep away from.
#[derive(Debug)]
pub enum PlusCpus {}

impl<S: Setting<Value = CpuSet, Want = CpuSet>> Rule<S> for PlusCpus {
    fn combine(of: &Combining<'_, S>) -> Result<CpuSet, Conflict> {
        Ok(of.baseline.union(&union(of.claims.values())))
    }

    fn explains(of: &Combining<'_, S>, value: &CpuSet) -> bool {
        let applied = of.claims.values().filter(|cpus| cpus.minus(value).is_empty());
        of.baseline.union(&union(applied)) == *value
    }
}

/// The CPUs claimed, whatever the baseline.
#[derive(Debug)]
pub enum OnlyCpus {}

impl<S: Setting<Value = CpuSet, Want = CpuSet>> Rule<S> for OnlyCpus {
    fn combine(of: &Combining<'_, S>) -> Result<CpuSet, Conflict> {
        Ok(match of.claims.is_empty() {
            true => of.baseline.clone(),
            false => union(of.claims.values()),
        })
    }

    fn explains(of: &Combining<'_, S>, value: &CpuSet) -> bool {
        let applied = of.claims.values().filter(|cpus| cpus.minus(value).is_empty());
        *of.baseline == *value || union(applied) == *value
    }
}

/// The value that all guests want which want one; two different ones are a conflict.
#[derive(Debug)]
pub enum SameForAll {}

impl<V: InLedger, S: Setting<Value = V, Want = V>> Rule<S> for SameForAll {
    fn combine(of: &Combining<'_, S>) -> Result<V, Conflict> {
        Ok(one_want(of.claims)?.unwrap_or(of.baseline).clone())
    }

    fn explains(of: &Combining<'_, S>, value: &V) -> bool {
        of.claims.values().chain([of.baseline]).any(|known| S::is_same(known, value))
    }
}

fn one_want<W: Eq + std::fmt::Display>(claims: &BTreeMap<GuestUuid, W>) -> Result<Option<&W>, Conflict> {
    let Some((holder, held)) = claims.first_key_value() else { return Ok(None) };
    match claims.values().find(|want| *want != held) {
        Some(wanted) => Err(Conflict { holder: *holder, held: held.to_string(), wanted: wanted.to_string() }),
        None => Ok(Some(held)),
    }
}

/// What the one guest wants that has it.
#[derive(Debug)]
pub enum OneOwner {}

impl<V: InLedger, S: Setting<Value = V, Want = V>> Rule<S> for OneOwner {
    fn combine(of: &Combining<'_, S>) -> Result<V, Conflict> {
        let mut claims = of.claims.iter();
        match (claims.next(), claims.next()) {
            (Some((holder, held)), Some((_, wanted))) => {
                Err(Conflict { holder: *holder, held: held.to_string(), wanted: wanted.to_string() })
            }
            (Some((_, want)), None) => Ok(want.clone()),
            (None, _) => Ok(of.baseline.clone()),
        }
    }

    fn explains(of: &Combining<'_, S>, value: &V) -> bool {
        <SameForAll as Rule<S>>::explains(of, value)
    }
}

/// It is emptied for a guest, and nothing is put back.
#[derive(Debug)]
pub enum Emptied {}

impl<S: Setting> Rule<S> for Emptied {
    fn combine(of: &Combining<'_, S>) -> Result<S::Value, Conflict> {
        Ok(of.baseline.clone())
    }

    fn explains(_of: &Combining<'_, S>, _value: &S::Value) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{AllowedCpus, DropIn, PagePool, UnitName, Workqueue};
    use crate::ledger::settings::{
        Attribute, AttributeValue, IrqbalanceBan, NodeBinding, PagePoolSize, PageShare, UnitCpus,
        WorkqueueMask,
    };
    use crate::pages::PageSize;

    fn guest(number: u8) -> GuestUuid {
        format!("00000000-0000-0000-0000-0000000000{number:02x}").parse().unwrap()
    }

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    fn entry<S: Setting>(setting: S, baseline: S::Value, wants: Vec<S::Want>) -> Entry<S> {
        let mut entry = Entry::new(setting, baseline);
        entry.claims = (1..).map(guest).zip(wants).collect();
        entry
    }

    fn combined<S: Setting>(entry: &Entry<S>, now: &S::Value) -> Result<S::Value, Conflict> {
        S::Rule::combine(&entry.combining(now, &cpus("0-7")))
    }

    fn mask(baseline: &str, wants: &[&str]) -> Entry<WorkqueueMask> {
        let wants = wants.iter().map(|list| cpus(list)).collect();
        entry(WorkqueueMask(Workqueue::AllUnbound), cpus(baseline), wants)
    }

    #[test]
    fn masks_lose_the_union_of_what_is_claimed() {
        let rest = |baseline: &str, wants: &[&str]| {
            let entry = mask(baseline, wants);
            combined(&entry, &entry.baseline).unwrap().to_string()
        };
        assert_eq!(rest("0-7", &["2-3"]), "0-1,4-7");
        assert_eq!(rest("0-7", &["2-3", "3-5"]), "0-1,6-7");
        assert_eq!(rest("0-7", &[]), "0-7");
        // An interrupt that was pinned to the guest's CPUs alone goes to the rest of the host.
        assert_eq!(rest("2", &["2-3"]), "0-1,4-7");
    }

    /// A writer that died between two guests' claims leaves what one of them leads to.
    #[test]
    fn what_some_of_the_claims_lead_to_is_no_change_from_outside() {
        let entry = mask("0-6", &["2-3", "4", "4-5"]);
        let is_ours = |value: &str| entry.is_ours(&cpus(value), &cpus("0-7"));
        for value in ["0-6", "0-1,4-6", "0-3,5-6", "0-3,6", "0-1,5-6", "0-1,6"] {
            assert!(is_ours(value), "{value}");
        }
        for value in ["0-7", "0-5", "0-1", "0-2,4-6", "1-6", "0-1,4,6"] {
            assert!(!is_ours(value), "{value}");
        }
        let ban = entry_of_ban("7", &["2-3", "4"]);
        for (value, is_ours) in [("7", true), ("2-3,7", true), ("4,7", true), ("2,7", false), ("2-3", false)]
        {
            assert_eq!(ban.is_ours(&cpus(value), &cpus("0-7")), is_ours, "{value}");
        }
    }

    fn entry_of_ban(baseline: &str, wants: &[&str]) -> Entry<IrqbalanceBan> {
        let socket = serde_json::from_str("\"irqbalance1.sock\"").unwrap();
        entry(IrqbalanceBan(socket), cpus(baseline), wants.iter().map(|list| cpus(list)).collect())
    }

    #[test]
    fn an_empty_setting_of_a_unit_means_all_cpus_and_comes_back_empty() {
        let setting = UnitCpus(UnitName::new("user.slice").unwrap());
        let unset = AllowedCpus { cpus: CpuSet::new(), drop_in: DropIn::Absent };
        let claimed = entry(setting.clone(), unset.clone(), vec![cpus("2-3")]);
        let then = combined(&claimed, &unset).unwrap();
        assert_eq!(then, AllowedCpus { cpus: cpus("0-1,4-7"), drop_in: DropIn::Present });
        assert_eq!(combined(&entry(setting, unset.clone(), Vec::new()), &then).unwrap(), unset);
    }

    #[test]
    fn a_list_of_banned_cpus_grows_by_what_is_claimed() {
        let ban = entry_of_ban("7", &["2-3"]);
        assert_eq!(combined(&ban, &ban.baseline).unwrap().to_string(), "2-3,7");
    }

    #[test]
    fn different_words_are_a_conflict() {
        let governors = |wants: &[&str]| {
            let wants = wants.iter().map(|word| AttributeValue::new(*word)).collect();
            entry(Attribute::scaling_governor(2), AttributeValue::new("powersave"), wants)
        };
        let same = governors(&["performance", "performance"]);
        assert_eq!(combined(&same, &same.baseline).unwrap().to_string(), "performance");
        let different = governors(&["performance", "schedutil"]);
        let conflict = combined(&different, &different.baseline).unwrap_err();
        assert_eq!((conflict.holder, conflict.held.as_str()), (guest(1), "performance"));
        assert!(different.is_ours(&AttributeValue::new("schedutil"), &CpuSet::new()));
        assert!(!different.is_ours(&AttributeValue::new("ondemand"), &CpuSet::new()));
    }

    #[test]
    fn a_pool_shrinks_to_baseline_and_shares_but_never_grows_back() {
        let pool = PagePoolSize(PagePool { node: 0, size: PageSize::MIB_2 });
        let share = |added: &u64| PageShare { added: *added, ..PageShare::new(*added, NodeBinding::Bound) };
        let left = |now: u64, shares: &[u64]| {
            combined(&entry(pool, 7, shares.iter().map(share).collect()), &now).unwrap()
        };
        assert_eq!(left(17, &[10]), 17);
        assert_eq!(left(17, &[]), 7);
        assert_eq!(left(37, &[10, 20]), 37);
        assert_eq!(left(0, &[]), 0);
    }
}

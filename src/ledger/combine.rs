//! The one rule: a knob's value is a function of its baseline and the live claims.

use std::collections::BTreeMap;

use super::knob::{CombineRule, Knob};
use super::record::Entry;
use super::value::{MonitorTurn, Value, Want};
use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;

/// Two guests want different words of one knob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The guest that has it.
    pub holder: GuestUuid,
    /// What it has.
    pub held: String,
    /// What the other one wants.
    pub wanted: String,
}

/// What an entry's knob has to hold. `now` is what it holds, `online` the CPUs of the host.
///
/// # Errors
/// Two guests want different words.
pub(super) fn combine(entry: &Entry, now: &Value, online: &CpuSet) -> Result<Value, Conflict> {
    if entry.claims.is_empty() && entry.knob.rule() != CombineRule::Shares {
        return Ok(entry.baseline.clone());
    }
    match entry.knob.rule() {
        CombineRule::MinusCpus => Ok(minus_cpus(&entry.knob, &entry.baseline, &entry.claims, online)),
        CombineRule::PlusCpus => {
            Ok(entry.knob.value_of_cpus(cpus_of(&entry.baseline).union(&claimed_cpus(&entry.claims))))
        }
        CombineRule::OnlyCpus => Ok(entry.knob.value_of_cpus(claimed_cpus(&entry.claims))),
        CombineRule::LastComer => Ok(last_comer(entry)),
        CombineRule::SameText | CombineRule::Emptied => same_text(&entry.claims).map(Value::Text),
        CombineRule::OneOwner => one_owner(&entry.claims),
        CombineRule::Shares => Ok(Value::Pages(shares(entry, pages_of(now)))),
    }
}

/// The baseline without the CPUs claimed; where nothing would be left, all online CPUs without them.
fn minus_cpus(knob: &Knob, baseline: &Value, claims: &BTreeMap<GuestUuid, Want>, online: &CpuSet) -> Value {
    let claimed = claimed_cpus(claims);
    let base = match cpus_of(baseline) {
        cpus if cpus.is_empty() && knob.unset_means_all() => online,
        cpus => cpus,
    };
    let rest = base.minus(&claimed);
    knob.value_of_cpus(if rest.is_empty() { online.minus(&claimed) } else { rest })
}

/// Giving back never grows a pool: the baseline and the shares that stay, but no more than there is. What an
/// administrator added meanwhile was moved into the baseline before; what was taken away stays away.
fn shares(entry: &Entry, now: u64) -> u64 {
    let added: u64 = entry.claims.values().filter_map(Want::pages).map(|share| share.added).sum();
    now.min(pages_of(&entry.baseline).saturating_add(added))
}

/// What the last of the guests wants that are still there.
fn last_comer(entry: &Entry) -> Value {
    let claims = entry.claims.values().filter_map(Want::monitor);
    let last = claims.filter(|claim| claim.turn != MonitorTurn::Over).max_by_key(|claim| claim.turn);
    last.map_or_else(|| entry.baseline.clone(), |claim| entry.knob.value_of_vcp(claim.value))
}

fn one_owner(claims: &BTreeMap<GuestUuid, Want>) -> Result<Value, Conflict> {
    let mut wants = claims.iter().filter_map(|(uuid, want)| match want {
        Want::Bindings(bindings) => Some((*uuid, bindings)),
        _ => None,
    });
    match (wants.next(), wants.next()) {
        (Some((holder, held)), Some((_, wanted))) => {
            Err(Conflict { holder, held: held.to_string(), wanted: wanted.to_string() })
        }
        (Some((_, bindings)), None) => Ok(Value::Bindings(bindings.clone())),
        (None, _) => Ok(Value::Unknown),
    }
}

fn same_text(claims: &BTreeMap<GuestUuid, Want>) -> Result<String, Conflict> {
    let mut words = claims.iter().filter_map(|(uuid, want)| match want {
        Want::Text(text) => Some((*uuid, text)),
        _ => None,
    });
    let Some((holder, held)) = words.next() else { return Ok(String::new()) };
    match words.find(|(_, word)| *word != held) {
        Some((_, wanted)) => Err(Conflict { holder, held: held.clone(), wanted: wanted.clone() }),
        None => Ok(held.clone()),
    }
}

fn claimed_cpus(claims: &BTreeMap<GuestUuid, Want>) -> CpuSet {
    claims.values().fold(CpuSet::new(), |all, want| match want {
        Want::Cpus(cpus) => all.union(cpus),
        _ => all,
    })
}

fn cpus_of(value: &Value) -> &CpuSet {
    static NONE: std::sync::LazyLock<CpuSet> = std::sync::LazyLock::new(CpuSet::new);
    match value {
        Value::Cpus(cpus) | Value::AllowedCpus { cpus, .. } => cpus,
        _ => &NONE,
    }
}

/// A number of pages; nothing for any other value.
pub(super) fn pages_of(value: &Value) -> u64 {
    match value {
        Value::Pages(pages) => *pages,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{DropIn, PagePool, UnitName, Workqueue};
    use crate::ledger::value::{NodeBinding, PageShare};
    use crate::pages::PageSize;

    fn guest(number: u8) -> GuestUuid {
        format!("00000000-0000-0000-0000-0000000000{number:02x}").parse().unwrap()
    }

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    fn entry(knob: Knob, baseline: Value, wants: &[Want]) -> Entry {
        let mut entry = Entry::new(knob, baseline);
        entry.claims = (1..).map(guest).zip(wants.iter().cloned()).collect();
        entry
    }

    #[test]
    fn masks_lose_the_union_of_what_is_claimed() {
        let mask = |baseline: &str, wants: &[&str]| {
            let wants: Vec<_> = wants.iter().map(|list| Want::Cpus(cpus(list))).collect();
            let entry =
                entry(Knob::WorkqueueMask(Workqueue::AllUnbound), Value::Cpus(cpus(baseline)), &wants);
            combine(&entry, &entry.baseline, &cpus("0-7")).unwrap().to_string()
        };
        assert_eq!(mask("0-7", &["2-3"]), "0-1,4-7");
        assert_eq!(mask("0-7", &["2-3", "3-5"]), "0-1,6-7");
        assert_eq!(mask("0-7", &[]), "0-7");
        // An interrupt that was pinned to the guest's CPUs alone goes to the rest of the host.
        assert_eq!(mask("2", &["2-3"]), "0-1,4-7");
    }

    #[test]
    fn an_empty_setting_of_a_unit_means_all_cpus_and_comes_back_empty() {
        let knob = Knob::AllowedCpus(UnitName::new("user.slice").unwrap());
        let unset = Value::AllowedCpus { cpus: CpuSet::new(), drop_in: DropIn::Absent };
        let claimed = entry(knob.clone(), unset.clone(), &[Want::Cpus(cpus("2-3"))]);
        let then = combine(&claimed, &unset, &cpus("0-7")).unwrap();
        assert_eq!(then, Value::AllowedCpus { cpus: cpus("0-1,4-7"), drop_in: DropIn::Present });
        assert_eq!(combine(&entry(knob, unset.clone(), &[]), &then, &cpus("0-7")).unwrap(), unset);
    }

    #[test]
    fn a_list_of_banned_cpus_grows_by_what_is_claimed() {
        let socket = serde_json::from_str("\"irqbalance1.sock\"").unwrap();
        let entry = entry(Knob::IrqbalanceBan(socket), Value::Cpus(cpus("7")), &[Want::Cpus(cpus("2-3"))]);
        assert_eq!(combine(&entry, &entry.baseline, &cpus("0-7")).unwrap().to_string(), "2-3,7");
    }

    #[test]
    fn different_words_are_a_conflict() {
        let knob = Knob::ScalingGovernor { cpu: 2 };
        let word = |word: &str| Want::Text(word.to_owned());
        let same =
            entry(knob.clone(), Value::Text("powersave".into()), &[word("performance"), word("performance")]);
        assert_eq!(combine(&same, &same.baseline, &cpus("0-7")).unwrap().to_string(), "performance");
        let different =
            entry(knob, Value::Text("powersave".into()), &[word("performance"), word("schedutil")]);
        let conflict = combine(&different, &different.baseline, &cpus("0-7")).unwrap_err();
        assert_eq!((conflict.holder, conflict.held.as_str()), (guest(1), "performance"));
    }

    #[test]
    fn a_pool_shrinks_to_baseline_and_shares_but_never_grows_back() {
        let knob = Knob::PagePool(PagePool { node: 0, size: PageSize::MIB_2 });
        let share = |added| Want::Pages(PageShare { added, ..PageShare::new(added, NodeBinding::Bound) });
        let pool = |now: u64, shares: &[u64]| {
            let wants: Vec<_> = shares.iter().map(|added| share(*added)).collect();
            let entry = entry(knob.clone(), Value::Pages(7), &wants);
            combine(&entry, &Value::Pages(now), &cpus("0-7")).unwrap()
        };
        assert_eq!(pool(17, &[10]), Value::Pages(17));
        assert_eq!(pool(17, &[]), Value::Pages(7));
        assert_eq!(pool(37, &[10, 20]), Value::Pages(37));
        assert_eq!(pool(0, &[]), Value::Pages(0));
    }
}

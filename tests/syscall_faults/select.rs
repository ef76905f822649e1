//! Which cases are run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vfio_hook::event::Operation;

use crate::life::{Case, longest};
use crate::tracer::{Fault, Seen, When};

/// How many a sample has.
const SAMPLE: usize = 40;

/// How much later than the event's end a late call comes.
const TOO_LATE: Duration = Duration::from_secs(2);

/// What `SYSCALL_FAULTS` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    Sample,
    All,
    /// One of so many parts, from 1.
    Part(u64, u64),
    /// Those whose name has this text.
    Only(String),
}

impl Selection {
    /// None where it makes no sense.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(text) = text.strip_prefix("only:") {
            return Some(Self::Only(text.to_owned()));
        }
        match text {
            "" => Some(Self::Sample),
            "all" => Some(Self::All),
            text => {
                let (part, of) = text.split_once('/')?;
                let (part, of) = (part.parse().ok()?, of.parse().ok()?);
                (1..=of).contains(&part).then_some(Self::Part(part, of))
            }
        }
    }

    pub(crate) fn of(&self, cases: Vec<Case>) -> Vec<Case> {
        match self {
            Self::All => cases,
            Self::Sample => sample(cases),
            Self::Part(part, of) => cases.into_iter().filter(|case| hash(case) % of == part - 1).collect(),
            Self::Only(text) => cases.into_iter().filter(|case| case.to_string().contains(text)).collect(),
        }
    }
}

/// Each way in which each call can fail, and a late one of each kind that can block.
pub(crate) fn cases(life: &[(Operation, Vec<Seen>)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (event, calls) in life {
        let mut late = BTreeSet::new();
        for Seen { key, errors, may_block, when } in calls {
            let case = |fault| Case { event: *event, key: key.clone(), when: *when, fault };
            cases.extend(errors.iter().map(|error| case(Fault::Fails(*error))));
            if *may_block && *when == When::BeforeAnswer && late.insert((kind_of_process(&key.who), key.call))
            {
                cases.push(case(Fault::Late(longest(*event) + TOO_LATE)));
            }
        }
    }
    cases
}

fn kind_of_process(who: &str) -> String {
    who.split([':', '/']).next().unwrap_or(who).to_owned()
}

/// The same ones each time, from all events and of all kinds of errors.
fn sample(cases: Vec<Case>) -> Vec<Case> {
    let mut kinds = BTreeMap::<String, Vec<Case>>::new();
    // A late one takes as long as libvirt would wait.
    for case in cases.into_iter().filter(|case| matches!(case.fault, Fault::Fails(_))) {
        kinds.entry(format!("{} {:?}", case.event.as_str(), case.fault)).or_default().push(case);
    }
    for cases in kinds.values_mut() {
        cases.sort_by_key(hash);
    }
    let mut chosen = Vec::new();
    while chosen.len() < SAMPLE && kinds.values().any(|cases| !cases.is_empty()) {
        chosen.extend(kinds.values_mut().filter_map(Vec::pop));
    }
    chosen.truncate(SAMPLE);
    chosen
}

/// FNV-1a of its name: a part stays the same when the program makes a call more or less.
fn hash(case: &Case) -> u64 {
    let bytes = case.to_string().into_bytes();
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_variable_says() {
        assert_eq!(Selection::parse(""), Some(Selection::Sample));
        assert_eq!(Selection::parse("all"), Some(Selection::All));
        assert_eq!(Selection::parse("3/8"), Some(Selection::Part(3, 8)));
        assert_eq!(Selection::parse("only:EIO"), Some(Selection::Only("EIO".to_owned())));
        for wrong in ["0/8", "9/8", "3", "x/y", "some"] {
            assert_eq!(Selection::parse(wrong), None, "{wrong}");
        }
    }
}

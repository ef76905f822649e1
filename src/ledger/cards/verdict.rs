//! How a card is, after all that can be seen from outside.

use super::{CardUsage, StuckKind, StuckOperation};
use crate::gpu::{ReturnTo, Severity, Sign};
use crate::host::{Bindings, ProbeReport};

/// How a card is. That it answers does not mean that it is well: firmware that hangs answers config reads perfectly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers, and the kernel said nothing.
    Clean,
    /// It answers, but there are signs of trouble.
    Doubtful(Vec<String>),
    /// It does not answer, or would not survive a driver.
    Dead(Vec<String>),
    /// The kernel hangs in an operation on it.
    Stuck(StuckOperation),
}

/// Where a card goes after the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To what it was before.
    Baseline,
    /// It stays with the VFIO driver.
    Vfio,
}

impl Verdict {
    /// What a probe and the kernel's log come to. A card that the kernel gave up is dead, even where it answers.
    #[must_use]
    pub fn of(report: &ProbeReport, signs: &[Sign]) -> Self {
        let mut evidence = report.evidence();
        if let Some(process) = report.stuck {
            return Self::Stuck(StuckOperation::new(process, StuckKind::InKernel, evidence.join("; ")));
        }
        evidence.extend(signs.iter().map(Sign::to_string));
        let is_given_up = signs.iter().any(|sign| sign.severity == Severity::Wedged);
        match evidence.is_empty() {
            true => Self::Clean,
            false if report.is_fit_for_host_driver() && !is_given_up => Self::Doubtful(evidence),
            false => Self::Dead(evidence),
        }
    }

    /// The same, but for a doubt: a card that answers is not clean then.
    pub(super) fn but(self, doubt: Option<String>) -> Self {
        match (self, doubt) {
            (Self::Clean, Some(doubt)) => Self::Doubtful(vec![doubt]),
            (Self::Doubtful(mut evidence), Some(doubt)) => {
                evidence.push(doubt);
                Self::Doubtful(evidence)
            }
            (verdict, _) => verdict,
        }
    }
}

/// Where a card that answers goes: never to a host driver that it did not come from.
pub(super) fn destination(
    return_to: ReturnTo,
    usage: CardUsage,
    baseline: &Bindings,
    verdict: &Verdict,
) -> Destination {
    match (return_to, verdict) {
        _ if !baseline.has_host_driver() => Destination::Baseline,
        (ReturnTo::Vfio, Verdict::Clean) if usage == CardUsage::NotYet => Destination::Baseline,
        (ReturnTo::Host, _) | (ReturnTo::HostIfClean, Verdict::Clean) => Destination::Baseline,
        (ReturnTo::Vfio | ReturnTo::HostIfClean, _) => Destination::Vfio,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::{Binding, Health, PowerState, Probed};
    use crate::pci::PciAddress;

    fn address() -> PciAddress {
        "0000:03:00.0".parse().unwrap()
    }

    fn report(health: Health, unplaced_bars: &[u8]) -> ProbeReport {
        let unplaced_bars = unplaced_bars.to_vec();
        let probed = Probed { health, link: None, power_state: PowerState::D0, unplaced_bars };
        ProbeReport { ports: BTreeMap::new(), functions: [(address(), probed)].into(), stuck: None }
    }

    #[test]
    fn what_does_not_answer_or_has_no_memory_is_dead() {
        assert_eq!(Verdict::of(&report(Health::Answers, &[]), &[]), Verdict::Clean);
        let dead = "0000:03:00.0: config space reads ff".to_owned();
        assert_eq!(Verdict::of(&report(Health::Dead(dead.clone()), &[]), &[]), Verdict::Dead(vec![dead]));
        assert!(matches!(Verdict::of(&report(Health::Absent, &[]), &[]), Verdict::Dead(_)));
        assert!(matches!(Verdict::of(&report(Health::TimedOut, &[]), &[]), Verdict::Dead(_)));
        assert!(matches!(Verdict::of(&report(Health::Answers, &[0]), &[]), Verdict::Dead(_)));
        assert!(matches!(Verdict::of(&report(Health::Slow(2000), &[]), &[]), Verdict::Doubtful(_)));
        let sign = |severity| Sign {
            address: address(),
            severity,
            meaning: "it did not come back after a reset".to_owned(),
            line: "vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up".to_owned(),
        };
        let answers = report(Health::Answers, &[]);
        assert!(matches!(Verdict::of(&answers, &[sign(Severity::Suspicious)]), Verdict::Doubtful(_)));
        assert!(matches!(Verdict::of(&answers, &[sign(Severity::Wedged)]), Verdict::Dead(_)));
    }

    #[test]
    fn whatever_is_in_doubt_is_not_clean() {
        let doubt = || Some("doubt".to_owned());
        let (one, two) = (vec!["doubt".to_owned()], vec!["slow".to_owned(), "doubt".to_owned()]);
        assert_eq!(Verdict::Clean.but(None), Verdict::Clean);
        assert_eq!(Verdict::Clean.but(doubt()), Verdict::Doubtful(one));
        assert_eq!(Verdict::Doubtful(vec!["slow".to_owned()]).but(doubt()), Verdict::Doubtful(two));
        assert_eq!(Verdict::Dead(Vec::new()).but(doubt()), Verdict::Dead(Vec::new()));
    }

    #[test]
    fn only_a_card_that_came_from_the_host_goes_back_there() {
        let host = Bindings([(address(), Binding::to_host("amdgpu".parse().unwrap()))].into());
        let vfio = Bindings([(address(), Binding::kept_for("vfio-pci".parse().unwrap()))].into());
        let doubtful = Verdict::Doubtful(vec!["slow".to_owned()]);
        for (return_to, baseline, verdict, expected) in [
            (ReturnTo::Host, &host, &Verdict::Clean, Destination::Baseline),
            (ReturnTo::Host, &host, &doubtful, Destination::Baseline),
            (ReturnTo::HostIfClean, &host, &Verdict::Clean, Destination::Baseline),
            (ReturnTo::HostIfClean, &host, &doubtful, Destination::Vfio),
            (ReturnTo::Vfio, &host, &Verdict::Clean, Destination::Vfio),
            (ReturnTo::Vfio, &vfio, &Verdict::Clean, Destination::Baseline),
            (ReturnTo::Host, &vfio, &Verdict::Clean, Destination::Baseline),
        ] {
            let destination = destination(return_to, CardUsage::ByGuest, baseline, verdict);
            assert_eq!(destination, expected, "{return_to} {verdict:?}");
        }
        let unused = destination(ReturnTo::Vfio, CardUsage::NotYet, &host, &Verdict::Clean);
        assert_eq!(unused, Destination::Baseline, "a start that failed");
    }
}

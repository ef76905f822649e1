//! How a card is, after all that can be seen from outside.

use super::{CardUsage, StuckKind, StuckOperation};
use crate::gpu::{RecognisedLine, ReturnTo, Severity};
use crate::host::{Bindings, ProbeReport};

/// How a card is. That it answers does not mean that it is well: firmware that hangs answers config reads perfectly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardHealth {
    /// It answers, and the kernel said nothing.
    Clean,
    /// It answers, but something speaks of trouble.
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

impl CardHealth {
    /// What a probe and the kernel's log come to. A card that the kernel gave up is dead, even where it answers.
    #[must_use]
    pub fn of(report: &ProbeReport, lines: &[RecognisedLine]) -> Self {
        let mut evidence = report.evidence();
        if let Some(process) = report.stuck {
            return Self::Stuck(StuckOperation::new(process, StuckKind::InKernel, evidence.join("; ")));
        }
        evidence.extend(lines.iter().map(RecognisedLine::to_string));
        let is_given_up = lines.iter().any(|line| line.severity == Severity::Wedged);
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
            (health, _) => health,
        }
    }
}

/// Where a card that answers goes: never to a host driver that it did not come from.
pub(super) fn destination(
    return_to: ReturnTo,
    usage: CardUsage,
    baseline: &Bindings,
    health: &CardHealth,
) -> Destination {
    match (return_to, health) {
        _ if !baseline.has_host_driver() => Destination::Baseline,
        (ReturnTo::Vfio, CardHealth::Clean) if usage == CardUsage::NotYet => Destination::Baseline,
        (ReturnTo::Host, _) | (ReturnTo::HostIfClean, CardHealth::Clean) => Destination::Baseline,
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
        assert_eq!(CardHealth::of(&report(Health::Answers, &[]), &[]), CardHealth::Clean);
        let dead = "0000:03:00.0: config space reads ff".to_owned();
        assert_eq!(
            CardHealth::of(&report(Health::Dead(dead.clone()), &[]), &[]),
            CardHealth::Dead(vec![dead])
        );
        assert!(matches!(CardHealth::of(&report(Health::Absent, &[]), &[]), CardHealth::Dead(_)));
        assert!(matches!(CardHealth::of(&report(Health::TimedOut, &[]), &[]), CardHealth::Dead(_)));
        assert!(matches!(CardHealth::of(&report(Health::Answers, &[0]), &[]), CardHealth::Dead(_)));
        assert!(matches!(CardHealth::of(&report(Health::Slow(2000), &[]), &[]), CardHealth::Doubtful(_)));
        let said = |severity| RecognisedLine {
            name: "reset-gave-up".parse().unwrap(),
            address: address(),
            severity,
            meaning: "it did not come back after a reset".to_owned(),
            line: "vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up".to_owned(),
            fix: None,
            times: 1,
            recovery: None,
        };
        let answers = report(Health::Answers, &[]);
        assert!(matches!(CardHealth::of(&answers, &[said(Severity::Suspicious)]), CardHealth::Doubtful(_)));
        assert!(matches!(CardHealth::of(&answers, &[said(Severity::Wedged)]), CardHealth::Dead(_)));
    }

    #[test]
    fn whatever_is_in_doubt_is_not_clean() {
        let doubt = || Some("doubt".to_owned());
        let (one, two) = (vec!["doubt".to_owned()], vec!["slow".to_owned(), "doubt".to_owned()]);
        assert_eq!(CardHealth::Clean.but(None), CardHealth::Clean);
        assert_eq!(CardHealth::Clean.but(doubt()), CardHealth::Doubtful(one));
        assert_eq!(CardHealth::Doubtful(vec!["slow".to_owned()]).but(doubt()), CardHealth::Doubtful(two));
        assert_eq!(CardHealth::Dead(Vec::new()).but(doubt()), CardHealth::Dead(Vec::new()));
    }

    #[test]
    fn only_a_card_that_came_from_the_host_goes_back_there() {
        let host = Bindings([(address(), Binding::to_host("amdgpu".parse().unwrap()))].into());
        let vfio = Bindings([(address(), Binding::kept_for("vfio-pci".parse().unwrap()))].into());
        let doubtful = CardHealth::Doubtful(vec!["slow".to_owned()]);
        for (return_to, baseline, health, expected) in [
            (ReturnTo::Host, &host, &CardHealth::Clean, Destination::Baseline),
            (ReturnTo::Host, &host, &doubtful, Destination::Baseline),
            (ReturnTo::HostIfClean, &host, &CardHealth::Clean, Destination::Baseline),
            (ReturnTo::HostIfClean, &host, &doubtful, Destination::Vfio),
            (ReturnTo::Vfio, &host, &CardHealth::Clean, Destination::Vfio),
            (ReturnTo::Vfio, &vfio, &CardHealth::Clean, Destination::Baseline),
            (ReturnTo::Host, &vfio, &CardHealth::Clean, Destination::Baseline),
        ] {
            let destination = destination(return_to, CardUsage::ByGuest, baseline, health);
            assert_eq!(destination, expected, "{return_to} {health:?}");
        }
        let unused = destination(ReturnTo::Vfio, CardUsage::NotYet, &host, &CardHealth::Clean);
        assert_eq!(unused, Destination::Baseline, "a start that failed");
    }
}

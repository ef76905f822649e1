//! Claims an attribute of the kernel's that this host may not have: where it has not, the guest is refused with the reason
//! instead of a failed write.

use super::{Proposal, Situation};
use crate::key_path::KeyPath;
use crate::ledger::{Attribute, AttributeValue, Codec, Setting};

/// Whether a claim was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The host has the attribute and takes the value.
    Yes,
    /// The guest is refused instead.
    No,
}

/// Claims an attribute, if it is there, can be written, and has the word among its choices; else the guest is refused.
pub(super) fn claim_checked(
    attribute: Attribute,
    value: AttributeValue,
    at: &KeyPath,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Claimed {
    let host = situation.host;
    let path = attribute.path();
    let text = match host.attribute(&path) {
        Ok(text) => text,
        Err(error) if error.is_absent() => {
            proposal.refuse(
                at.clone(),
                format!("the host has no {}", path.display()),
                "remove the key; is it of another kernel's version, or is its module not loaded?",
            );
            return Claimed::No;
        }
        Err(error) => {
            let help = error.help().unwrap_or("remove the key");
            proposal.refuse(at.clone(), error.to_string(), help);
            return Claimed::No;
        }
    };
    if !host.is_writable(&path) {
        proposal.refuse(at.clone(), format!("{} can only be read", path.display()), "remove the key");
        return Claimed::No;
    }
    let word = value.as_str();
    let choices: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect();
    if attribute.row().codec == Codec::Bracketed && !choices.contains(&word) {
        proposal.refuse(
            at.clone(),
            format!("{} has no `{word}`", path.display()),
            format!("it has {}", choices.join(", ")),
        );
        return Claimed::No;
    }
    if let Err(error) = attribute.read(host, situation.deadline) {
        proposal.refuse(at.clone(), error.to_string(), error.help().unwrap_or("remove the key"));
        return Claimed::No;
    }
    proposal.claim(attribute, value, at.clone());
    Claimed::Yes
}

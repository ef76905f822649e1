//! Functions that are handed over together.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{PciAddress, PciSlot};

/// Functions that are handed over and taken back together, in their order: all of a graphics card's, one of another
/// device. Never none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<PciAddress>", into = "Vec<PciAddress>")]
pub struct PciFunctions(Vec<PciAddress>);

impl PciFunctions {
    /// These; none where there are none.
    #[must_use]
    pub fn new(functions: impl IntoIterator<Item = PciAddress>) -> Option<Self> {
        let mut functions: Vec<PciAddress> = functions.into_iter().collect();
        functions.sort_unstable();
        functions.dedup();
        (!functions.is_empty()).then_some(Self(functions))
    }

    /// They, lowest first.
    #[must_use]
    pub fn as_slice(&self) -> &[PciAddress] {
        &self.0
    }

    /// Whether a function is among them.
    #[must_use]
    pub fn contains(&self, address: PciAddress) -> bool {
        self.0.contains(&address)
    }

    /// Whether both have a function in common.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> bool {
        self.0.iter().any(|address| other.contains(*address))
    }

    /// The card of the first one.
    #[must_use]
    pub fn slot(&self) -> PciSlot {
        // There is always one.
        self.0[0].slot()
    }
}

impl TryFrom<Vec<PciAddress>> for PciFunctions {
    type Error = &'static str;

    fn try_from(functions: Vec<PciAddress>) -> Result<Self, Self::Error> {
        Self::new(functions).ok_or("no PCI function")
    }
}

impl From<PciFunctions> for Vec<PciAddress> {
    fn from(functions: PciFunctions) -> Self {
        functions.0
    }
}

impl fmt::Display for PciFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = self.slot();
        let is_one_card = self.0.iter().all(|address| address.slot() == slot);
        match self.0.as_slice() {
            [one] => one.fmt(f),
            several if is_one_card => {
                let numbers: Vec<String> =
                    several.iter().map(|address| format!("{:x}", address.function())).collect();
                write!(f, "{slot}.{{{}}}", numbers.join(","))
            }
            several => f.write_str(&listed(several)),
        }
    }
}

/// `0000:03:00.0, 0000:03:00.1`.
pub(crate) fn listed(addresses: &[PciAddress]) -> String {
    addresses.iter().map(PciAddress::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(addresses: &[&str]) -> PciFunctions {
        PciFunctions::new(addresses.iter().map(|address| address.parse().unwrap())).unwrap()
    }

    #[test]
    fn functions_of_a_card_are_written_short() {
        assert_eq!(functions(&["0000:03:00.1", "0000:03:00.0"]).to_string(), "0000:03:00.{0,1}");
        assert_eq!(functions(&["0000:05:00.0", "0000:05:00.0"]).to_string(), "0000:05:00.0");
        assert_eq!(functions(&["0000:05:00.0", "0000:06:00.0"]).to_string(), "0000:05:00.0, 0000:06:00.0");
    }

    #[test]
    fn the_ledger_holds_a_list_that_is_never_empty() {
        let card = functions(&["0000:03:00.0", "0000:03:00.1"]);
        let text = serde_json::to_string(&card).unwrap();
        assert_eq!(text, r#"["0000:03:00.0","0000:03:00.1"]"#);
        assert_eq!(serde_json::from_str::<PciFunctions>(&text).unwrap(), card);
        assert!(serde_json::from_str::<PciFunctions>("[]").is_err());
    }

    #[test]
    fn cards_overlap_where_they_share_a_function() {
        let card = functions(&["0000:03:00.0", "0000:03:00.1"]);
        assert!(card.overlap(&functions(&["0000:03:00.1", "0000:04:00.0"])));
        assert!(!card.overlap(&functions(&["0000:03:00.2"])));
    }
}

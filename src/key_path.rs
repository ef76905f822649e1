//! Which key of a guest's file something comes from.

use std::borrow::Cow;
use std::fmt;

/// The keys of a YAML file down to a value: `gpu.holders.stop`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Key(Cow<'static, str>),
    /// An element of a list, counted from 0.
    Element(usize),
}

impl KeyPath {
    /// A key below this one.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// An element of this list, counted from 0.
    #[must_use]
    pub fn element(&self, number: usize) -> Self {
        self.with(Step::Element(number))
    }

    /// The same keys below others.
    #[must_use]
    pub fn below(&self, outer: &Self) -> Self {
        Self(outer.0.iter().chain(&self.0).cloned().collect())
    }

    /// The outermost key; empty for no key at all.
    #[must_use]
    pub fn outermost(&self) -> &str {
        match self.0.first() {
            Some(Step::Key(key)) => key,
            Some(Step::Element(_)) | None => "",
        }
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Each step as the file has it: a key, or the number of an element.
    pub fn steps(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.iter().map(|step| match step {
            Step::Key(key) => Cow::Borrowed(&**key),
            Step::Element(number) => Cow::Owned(number.to_string()),
        })
    }

    /// What a person can do, with the key that what failed came from; none where neither is known.
    #[must_use]
    pub fn add_to_hint(key: Option<&Self>, hint: Option<String>) -> Option<String> {
        let reason = key.map(|key| format!("`{key}` of the YAML file asks for it"));
        match (hint, reason) {
            (Some(hint), Some(reason)) if hint.ends_with('?') => Some(format!("{hint} {reason}")),
            (Some(hint), Some(reason)) => Some(format!("{hint}; {reason}")),
            (hint, reason) => hint.or(reason),
        }
    }
}

impl From<&[&'static str]> for KeyPath {
    fn from(keys: &[&'static str]) -> Self {
        Self(keys.iter().map(|key| Step::Key(Cow::Borrowed(key))).collect())
    }
}

impl<const N: usize> From<&[&'static str; N]> for KeyPath {
    fn from(keys: &[&'static str; N]) -> Self {
        Self::from(&keys[..])
    }
}

/// As messages name keys: an element has the name of its list.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(&**key),
            Step::Element(_) => None,
        });
        for (number, key) in keys.enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            f.write_str(key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_named_after_its_list_and_found_by_its_number() {
        let path = KeyPath::from(&["gpu", "holders", "stop"]).element(1).key("unit");
        assert_eq!(path.to_string(), "gpu.holders.stop.unit");
        assert_eq!(path.steps().collect::<Vec<_>>(), ["gpu", "holders", "stop", "1", "unit"]);
        assert_eq!(KeyPath::from(&["gpu", "bars"]).key("2").to_string(), "gpu.bars.2");
    }
}

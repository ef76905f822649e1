//! Types that have one word for each of their values, in YAML files, in the ledger and for people.

use thiserror::Error;

/// Why a text is none of the words.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{word}` is no {what}")]
pub struct UnknownWord {
    /// The text.
    pub word: String,
    /// What was expected.
    pub what: &'static str,
}

/// Writes a type by its `as_str`, and reads it by looking through its `ALL`.
macro_rules! named_enum {
    ($type:ty, $what:literal) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::gpu::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let unknown = || crate::gpu::UnknownWord { word: word.to_owned(), what: $what };
                Self::ALL.iter().copied().find(|value| value.as_str() == word).ok_or_else(unknown)
            }
        }

        crate::serde_as_text::serde_as_text!($type);
    };
}

pub(super) use named_enum;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::gpu::{GuestReboot, KeepAwake, RecoveryStep, ResetMethod, ReturnTo};

    fn come_back<T>(all: &[T])
    where
        T: Copy + fmt::Debug + fmt::Display + PartialEq + Serialize + DeserializeOwned,
    {
        let words: BTreeSet<String> = all.iter().map(T::to_string).collect();
        assert_eq!(words.len(), all.len(), "two values have one word");
        for value in all {
            let json = serde_json::to_string(value).unwrap();
            assert_eq!(json, format!("\"{value}\""));
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value);
        }
    }

    #[test]
    fn every_value_has_a_word_of_its_own() {
        come_back(ReturnTo::ALL);
        come_back(GuestReboot::ALL);
        come_back(KeepAwake::ALL);
        come_back(ResetMethod::ALL);
        come_back(RecoveryStep::ALL);
    }

    #[test]
    fn other_words_are_refused() {
        assert_eq!(
            "Reset".parse::<RecoveryStep>().unwrap_err().to_string(),
            "`Reset` is no step of a recovery"
        );
        assert!(serde_json::from_str::<ReturnTo>("\"\"").is_err());
    }
}

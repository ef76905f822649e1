//! Durations with a unit: `20us`, `500ms`, `5s`, `2min`.

use std::time::Duration;

use thiserror::Error;

/// Why a text is no duration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseDurationError {
    /// A number and nothing else.
    #[error("`{0}` has no unit")]
    NoUnit(String),
    /// A unit, but none of the known ones.
    #[error("`{unit}` in `{text}` is no unit of time")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// What stands where the unit belongs.
        unit: String,
    },
    /// What stands before the unit is no whole number.
    #[error("`{0}` is not a whole number with a unit")]
    NotANumber(String),
    /// More than any user waits.
    #[error("`{0}` is too long")]
    TooLong(String),
}

/// The units, each with its microseconds.
const UNITS: [(&str, u64); 4] = [("us", 1), ("ms", 1000), ("s", 1_000_000), ("min", 60_000_000)];

/// Reads a whole number with one of the units `us`, `ms`, `s` and `min`; blanks between them are allowed.
///
/// # Errors
/// No unit, an unknown one, no whole number, or more than 64 bits of microseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    if number.is_empty() || unit.starts_with(['.', ',', '-', '+']) {
        return Err(ParseDurationError::NotANumber(text.to_owned()));
    }
    if unit.is_empty() {
        return Err(ParseDurationError::NoUnit(text.to_owned()));
    }
    let Some((_, micros)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(ParseDurationError::UnknownUnit { text: text.to_owned(), unit: unit.to_owned() });
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*micros))
        .map(Duration::from_micros)
        .ok_or_else(|| ParseDurationError::TooLong(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_unit() {
        for (text, micros) in
            [("20us", 20), ("500ms", 500_000), ("5s", 5_000_000), (" 2 min ", 120_000_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text:?}");
        }
    }

    #[test]
    fn says_why_a_text_is_no_duration() {
        for (text, reason) in [
            ("20", "`20` has no unit"),
            ("20 sec", "`sec` in `20 sec` is no unit of time"),
            ("20S", "`S` in `20S` is no unit of time"),
            ("1.5s", "`1.5s` is not a whole number with a unit"),
            ("-5s", "`-5s` is not a whole number with a unit"),
            ("s", "`s` is not a whole number with a unit"),
            ("", "`` is not a whole number with a unit"),
            ("18446744073709551615s", "`18446744073709551615s` is too long"),
            ("99999999999999999999us", "`99999999999999999999us` is too long"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), reason, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}

//! Which guests' names are meant.

use std::fmt;
use std::str::FromStr;

use glob::{MatchOptions, Pattern};
use thiserror::Error;

/// A pattern as shells have it for file names: `*`, `?` and `[...]`. With `!` before it, it takes names out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    effect: Effect,
    pattern: Pattern,
}

/// Why a text is no pattern of names.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ParsePatternError {
    /// Nothing, or nothing behind a `!`.
    #[error("it is empty")]
    Empty,
    /// A `[` that nothing closes, or one with nothing in it.
    #[error("a `[` has to be closed by a `]`, with letters between them")]
    Bracket,
    /// `win{10,11}`: a shell fills that in, and no pattern has it.
    #[error("braces stand for themselves: write a pattern for each, or `win1[01]`")]
    Braces,
    /// No guest's name has one.
    #[error("no guest's name has a `/`")]
    Slash,
    /// `^win.*$`: that would match no guest.
    #[error(
        "it is no regular expression: `*` stands for any letters, `win*` for all names that begin with `win`"
    )]
    RegularExpression,
    /// Several in one text.
    #[error("write a list of names, each of its own: `[win10, win11]`")]
    Several,
    /// Blanks around it, which no guest's name has.
    #[error("no guest's name begins or ends with a blank")]
    Blanks,
    /// `***`.
    #[error("`*` stands for any letters: one of them is enough")]
    Stars,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Includes,
    Excludes,
}

/// A name has no folders, and may begin with a dot.
const AS_NAMES: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: false,
};

impl NamePattern {
    /// Whether a name is one of those that a list means: the patterns without `!` include, or none of them is there, and
    /// none with `!` takes it out.
    #[must_use]
    pub fn mean(patterns: &[Self], name: &str) -> bool {
        let fits = |effect| {
            let mut these = patterns.iter().filter(move |each| each.effect == effect).peekable();
            these.peek()?;
            Some(these.any(|each| each.pattern.matches_with(name, AS_NAMES)))
        };
        fits(Effect::Includes).unwrap_or(true) && !fits(Effect::Excludes).unwrap_or(false)
    }
}

impl FromStr for NamePattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, ParsePatternError> {
        let (effect, pattern) = match text.strip_prefix('!') {
            Some(rest) => (Effect::Excludes, rest),
            None => (Effect::Includes, text),
        };
        refuse_what_matches_nothing(pattern)?;
        let pattern = Pattern::new(pattern).map_err(|_| match pattern.contains('[') {
            true => ParsePatternError::Bracket,
            false => ParsePatternError::Stars,
        })?;
        Ok(Self { effect, pattern })
    }
}

/// What people write who know other patterns: it would be read, and match no guest.
fn refuse_what_matches_nothing(pattern: &str) -> Result<(), ParsePatternError> {
    let has_word_after_comma = || {
        pattern.split(',').skip(1).any(|word| word.trim().starts_with(|c: char| c.is_ascii_alphanumeric()))
    };
    match pattern {
        "" => Err(ParsePatternError::Empty),
        _ if pattern.trim() != pattern => Err(ParsePatternError::Blanks),
        _ if pattern.contains('/') => Err(ParsePatternError::Slash),
        _ if pattern.contains('{') && pattern.contains('}') => Err(ParsePatternError::Braces),
        _ if pattern.starts_with('^') || pattern.ends_with('$') || pattern.contains(['|', '\\']) => {
            Err(ParsePatternError::RegularExpression)
        }
        _ if has_word_after_comma() => Err(ParsePatternError::Several),
        _ => Ok(()),
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.effect {
            Effect::Includes => "",
            Effect::Excludes => "!",
        };
        write!(f, "{mark}{}", self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(patterns: &[&str], name: &str) -> bool {
        let patterns: Vec<NamePattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        NamePattern::mean(&patterns, name)
    }

    #[test]
    fn a_name_is_meant_by_one_pattern_and_taken_out_by_another() {
        assert!(mean(&["win*", "linux-?"], "win11") && mean(&["win*", "linux-?"], "linux-1"));
        assert!(!mean(&["win*"], "my-win11") && !mean(&["win*"], "Win11"));
        assert!(mean(&["win*", "!win7"], "win11") && !mean(&["win*", "!win7"], "win7"));
        assert!(mean(&["!win7"], "anything") && !mean(&["!win7"], "win7"));
        assert!(mean(&[], "anything") && mean(&["*"], ".hidden") && mean(&["*"], "a\nb"));
    }

    #[test]
    fn shows_what_it_was_made_of() {
        for text in ["win*", "!win7", "vm[0-9]"] {
            assert_eq!(text.parse::<NamePattern>().unwrap().to_string(), text);
        }
        assert!("vm[".parse::<NamePattern>().is_err());
    }

    #[test]
    fn what_would_match_no_guest_is_no_pattern() {
        use ParsePatternError::{Blanks, Braces, Bracket, Empty, RegularExpression, Several, Slash, Stars};
        for (text, error) in [
            ("", Empty),
            ("!", Empty),
            ("[abc", Bracket),
            ("[]", Bracket),
            ("win{10,11}", Braces),
            ("a/b", Slash),
            ("^win.*$", RegularExpression),
            ("^win", RegularExpression),
            ("win10|win11", RegularExpression),
            ("win\\d+", RegularExpression),
            ("win10, win11", Several),
            ("win10,win11", Several),
            ("!win7 ", Blanks),
            ("***", Stars),
        ] {
            assert_eq!(text.parse::<NamePattern>().unwrap_err(), error, "{text:?}");
        }
        for text in ["win.*", "vm (copy)", "a, b"] {
            assert_eq!(text.parse::<NamePattern>().is_ok(), text != "a, b", "{text:?}");
        }
    }
}

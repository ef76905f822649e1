//! The rows of `kernel_lines.yaml`, which are known without the host's configuration.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::kernel_line::{KernelLine, KernelLineName, KernelVersion, Severity};
use super::line_pattern::LinePattern;

/// The table, in the form that host.yaml has for it.
pub const KERNEL_LINES: &str = include_str!("kernel_lines.yaml");

/// A row as the table has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    pattern: OneOrMore,
    severity: Severity,
    meaning: String,
    fix: Option<String>,
    since: Option<KernelVersion>,
    until: Option<KernelVersion>,
    source: String,
    example: String,
    near_miss: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(LinePattern),
    More(Vec<LinePattern>),
}

/// The kinds of lines that are known, in their order: the first one that fits a line holds for it.
#[must_use]
pub fn known_kernel_lines() -> &'static [KernelLine] {
    static LINES: LazyLock<Vec<KernelLine>> = LazyLock::new(|| {
        // A test reads it.
        read(KERNEL_LINES).unwrap_or_default()
    });
    &LINES
}

fn read(text: &str) -> Result<Vec<KernelLine>, serde_yaml::Error> {
    let sections: BTreeMap<String, serde_yaml::Mapping> = serde_yaml::from_str(text)?;
    let rows = sections.into_values().flatten();
    rows.map(|(name, row)| {
        let name: KernelLineName = serde_yaml::from_value(name)?;
        let row: Row = serde_yaml::from_value(row)?;
        Ok(KernelLine {
            name,
            patterns: match row.pattern {
                OneOrMore::One(pattern) => vec![pattern],
                OneOrMore::More(patterns) => patterns,
            },
            severity: row.severity,
            meaning: row.meaning,
            fix: row.fix,
            since: row.since,
            until: row.until,
            source: Some(row.source),
            example: Some(row.example),
            near_miss: Some(row.near_miss),
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The first row that fits a line: the one that holds.
    fn row_of(line: &str) -> Option<&'static KernelLineName> {
        known_kernel_lines().iter().find(|row| row.fits(line)).map(|row| &row.name)
    }

    #[test]
    fn the_table_can_be_read() {
        let rows = read(KERNEL_LINES).unwrap();
        assert!(rows.len() > 90, "{}", rows.len());
        let names: BTreeSet<&KernelLineName> = rows.iter().map(|row| &row.name).collect();
        assert_eq!(names.len(), rows.len(), "two rows have one name");
    }

    #[test]
    fn each_row_takes_its_example_and_not_the_line_beside_it() {
        for row in known_kernel_lines() {
            let (example, near_miss) = (row.example.as_deref().unwrap(), row.near_miss.as_deref().unwrap());
            assert_eq!(row_of(example), Some(&row.name), "{example}");
            assert_ne!(row_of(near_miss), Some(&row.name), "{near_miss}");
            for pattern in &row.patterns {
                assert!(!pattern.fits(near_miss), "{}: {pattern} fits {near_miss}", row.name);
            }
        }
    }

    /// A row that stands below another may fit the same line only if both say the same of it.
    #[test]
    fn no_row_hides_another_one() {
        for row in known_kernel_lines() {
            let example = row.example.as_deref().unwrap();
            let others =
                known_kernel_lines().iter().filter(|other| other.name != row.name && other.fits(example));
            for other in others {
                let is_exception = other.name.as_str() == "xid-other";
                let is_same = other.severity == row.severity;
                assert!(
                    is_exception || is_same || row.is_exception_of(other),
                    "{} and {}",
                    row.name,
                    other.name
                );
            }
        }
    }

    impl KernelLine {
        /// Whether each of its patterns says more than one of the other's does.
        fn is_exception_of(&self, other: &Self) -> bool {
            let begins = |mine: &LinePattern| {
                other.patterns.iter().any(|theirs| mine.to_string().starts_with(&theirs.to_string()))
            };
            self.patterns.iter().all(begins)
        }
    }

    /// Wedged cards are kept from everybody: a person needs to know what to do then.
    #[test]
    fn what_is_trouble_has_a_fix_and_every_row_a_source() {
        for row in known_kernel_lines() {
            assert!(row.fix.is_some() || !row.severity.is_trouble(), "{}", row.name);
            assert!(row.source.as_deref().is_some_and(|source| source.contains(['/', '.'])), "{}", row.name);
            assert!(
                !row.meaning.ends_with('.') && !row.meaning.starts_with(char::is_uppercase),
                "{}",
                row.name
            );
            if let (Some(since), Some(until)) = (row.since, row.until) {
                assert!(since <= until, "{}", row.name);
            }
        }
    }
}

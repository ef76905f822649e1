//! How a line of the kernel's log looks.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::pci::PciAddress;
use crate::serde_as_text::serde_as_text;

/// More wildcards no line needs; each one multiplies the time of a comparison.
const MAX_WILDCARDS: usize = 6;

/// With fewer letters a pattern fits lines that nobody thought of.
const MIN_LETTERS: usize = 6;

/// What a message begins with: text, `*` for one word or a part of it, `**` for anything, a space included. The names of
/// driver and device before the message are no part of it, nor are DRM's marks (`[drm:psp_hw_start [amdgpu]] *ERROR*`):
/// they differ from kernel to kernel. What a program may have a say in, such as its name, comes late in a message, where
/// no pattern without `**` looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinePattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// One or more characters that are no space.
    Word,
    /// Any number of characters.
    Anything,
}

/// Why a text is no pattern.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseLinePatternError {
    /// It would fit nearly any line.
    #[error("the pattern `{0}` has fewer than {MIN_LETTERS} letters beside its wildcards")]
    Short(String),
    /// Comparing would take too long.
    #[error("the pattern `{0}` has more than {MAX_WILDCARDS} wildcards")]
    Wildcards(String),
}

impl LinePattern {
    /// Whether a line's message begins like this.
    #[must_use]
    pub fn fits(&self, line: &str) -> bool {
        fits(message(line), &self.parts)
    }
}

fn fits(text: &str, parts: &[Part]) -> bool {
    let Some((first, rest)) = parts.split_first() else { return true };
    let ends = |stop: fn(char) -> bool| {
        let end = text.find(stop).unwrap_or(text.len());
        text[..end].char_indices().map(|(at, _)| at).chain([end])
    };
    match first {
        Part::Text(part) => text.strip_prefix(part.as_str()).is_some_and(|text| fits(text, rest)),
        Part::Word => ends(|c| c == ' ').skip(1).any(|end| fits(&text[end..], rest)),
        Part::Anything => ends(|_| false).any(|end| fits(&text[end..], rest)),
    }
}

/// A line without what stands before its message.
pub(super) fn message(line: &str) -> &str {
    let mut rest = line.trim_start();
    while let Some(next) = without_mark(rest) {
        rest = next.trim_start();
    }
    rest
}

/// A line as a person pastes it, without what `dmesg` (`[  123.456789] `) and the journal (`Dec 28 04:26:18 host kernel: `)
/// put before it.
pub(crate) fn pasted(line: &str) -> &str {
    let line = line.trim();
    let line = line.split_once(" kernel: ").map_or(line, |(_, rest)| rest.trim_start());
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match time {
        // `[14] CmpltTO` is a message.
        Some((time, rest)) if time.contains('.') && time.trim().parse::<f64>().is_ok() => rest.trim_start(),
        _ => line,
    }
}

/// A line without its first mark.
fn without_mark(line: &str) -> Option<&str> {
    if line.starts_with("[drm]") || line.starts_with("[drm:") {
        return after_brackets(line);
    }
    if let Some(rest) = ["*ERROR*", "amdgpu: "].into_iter().find_map(|mark| line.strip_prefix(mark)) {
        return Some(rest);
    }
    let (mark, rest) = line.split_once(": ")?;
    let is_tile = mark.strip_prefix("Tile").is_some_and(|number| number.parse::<u8>().is_ok());
    let names_device = || {
        let (driver, device) = mark.rsplit_once(' ')?;
        let is_driver = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        (driver.chars().all(is_driver) && device.parse::<PciAddress>().is_ok()).then_some(())
    };
    (is_tile || names_device().is_some()).then_some(rest)
}

/// What comes after the bracket that a line begins with, and those in it.
fn after_brackets(line: &str) -> Option<&str> {
    let mut open = 0_u32;
    for (at, character) in line.char_indices() {
        match character {
            '[' => open += 1,
            ']' if open == 1 => return Some(&line[at + 1..]),
            ']' => open -= 1,
            _ => {}
        }
    }
    None
}

impl FromStr for LinePattern {
    type Err = ParseLinePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = message(pasted(text));
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find('*').unwrap_or(rest.len());
            if end > 0 {
                parts.push(Part::Text(rest[..end].to_owned()));
            }
            rest = &rest[end..];
            if let Some(after) = rest.strip_prefix("**") {
                parts.push(Part::Anything);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('*') {
                parts.push(Part::Word);
                rest = after;
            }
        }
        let is_letter = |c: &char| c.is_alphanumeric();
        let letters: usize = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.chars().filter(is_letter).count(),
                Part::Word | Part::Anything => 0,
            })
            .sum();
        if letters < MIN_LETTERS {
            return Err(ParseLinePatternError::Short(text.to_owned()));
        }
        if parts.iter().filter(|part| !matches!(part, Part::Text(_))).count() > MAX_WILDCARDS {
            return Err(ParseLinePatternError::Wildcards(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl fmt::Display for LinePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_as_text!(LinePattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> LinePattern {
        text.parse().unwrap()
    }

    #[test]
    fn what_stands_before_a_message_is_no_part_of_it() {
        for (line, expected) in [
            ("vfio-pci 0000:03:00.0: not ready", "not ready"),
            ("amdgpu 0000:03:00.0: amdgpu: PSP resume failed", "PSP resume failed"),
            ("amdgpu 0000:03:00.0: [drm:amdgpu_ring_test_helper [amdgpu]] *ERROR* ring x", "ring x"),
            (
                "[drm:psp_hw_start [amdgpu]] *ERROR* amdgpu 0000:03:00.0: PSP load kdb failed!",
                "PSP load kdb failed!",
            ),
            ("xe 0000:03:00.0: [drm] *ERROR* Tile0: GT1: reset failed (-110)", "GT1: reset failed (-110)"),
            ("pcieport 0000:00:01.1:    [14] CmpltTO", "[14] CmpltTO"),
            ("NVRM: GPU 0000:03:00.0: x", "NVRM: GPU 0000:03:00.0: x"),
            ("[drm: never closed", "[drm: never closed"),
            ("10000:e1:00.0: x: y", "10000:e1:00.0: x: y"),
            ("", ""),
        ] {
            assert_eq!(message(line), expected, "{line}");
        }
    }

    #[test]
    fn wildcards_stand_for_a_word_or_for_anything() {
        let ready = pattern("not ready *ms after **; giving up");
        assert!(ready.fits("vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up"));
        assert!(!ready.fits("vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; waiting"));
        assert!(!ready.fits("vfio-pci 0000:03:00.0: not ready ms after bus reset; giving up"), "no word");
        assert!(
            !ready.fits("vfio-pci 0000:03:00.0: was not ready 1ms after x; giving up"),
            "not at its start"
        );
        let xid = pattern("NVRM: Xid (PCI:*): 79, ");
        assert!(xid.fits("NVRM: Xid (PCI:0000:0b:00): 79, pid=1, GPU has fallen off the bus."));
        assert!(!xid.fits("NVRM: Xid (PCI:0000:0b:00): 31, pid=1, name=x): 79, Ch 1"), "a program's name");
        assert!(pattern("**probe of * failed").fits("amdgpu: probe of 0000:03:00.0 failed with error -22"));
        assert!(pattern("über * größe").fits("über ä größe"));
    }

    #[test]
    fn a_line_that_was_pasted_is_a_pattern_too() {
        for text in [
            "vfio-pci 0000:03:00.0: [drm] *ERROR* some line of mine",
            "[88812.345678] vfio-pci 0000:03:00.0: some line of mine",
            "[    4.711000] [drm:some_function [amdgpu]] some line of mine",
            "Dec 28 04:26:18 desktop kernel: amdgpu 0000:03:00.0: amdgpu: some line of mine",
        ] {
            assert_eq!(pattern(text).to_string(), "some line of mine", "{text}");
        }
        assert!(pattern("some line of mine").fits("amdgpu 0000:0e:00.0: some line of mine, and more"));
        // What the kernel says is taken as it is: a program may choose what comes late in it.
        assert!(!pattern("some line of mine").fits("amdgpu 0000:0e:00.0: x of kernel: some line of mine"));
    }

    #[test]
    fn patterns_that_fit_anything_are_none() {
        for text in ["", "*", "** **", "** error", "vfio-pci 0000:03:00.0: a"] {
            assert!(matches!(text.parse::<LinePattern>(), Err(ParseLinePatternError::Short(_))), "{text}");
        }
        let many = "abcdef * * * * * * *".parse::<LinePattern>();
        assert!(matches!(many, Err(ParseLinePatternError::Wildcards(_))));
    }
}

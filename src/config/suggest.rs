//! "did you mean …?"

/// Longer words are no misspelling of ours, and the comparison is quadratic.
const MAX_WORD: usize = 64;

/// The candidate that a word was probably meant to be: at most a third of its letters differ, and neither the case
/// nor `-` instead of `_` counts.
#[must_use]
pub fn did_you_mean<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if word.chars().count() > MAX_WORD {
        return None;
    }
    let word = normalised(word);
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .iter()
        .map(|candidate| (strsim::osa_distance(&word, &normalised(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn normalised(word: &str) -> String {
    word.trim().to_lowercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let candidates = ["isolate_cpus", "hugepages", "irqs"];
        for (word, meant) in [
            ("isolate-cpus", Some("isolate_cpus")),
            ("isolate_cpu", Some("isolate_cpus")),
            ("HugePages", Some("hugepages")),
            ("huge_pages", Some("hugepages")),
            ("hguepages", Some("hugepages")),
            ("irq", Some("irqs")),
            ("services", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(word, &candidates), meant, "{word:?}");
        }
        assert_eq!(did_you_mean(&"hugepages".repeat(1000), &candidates), None);
    }
}

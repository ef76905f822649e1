//! Identities of messages that other programs wait for: `journalctl MESSAGE_ID=...`. They never change.

/// A guest's start was refused.
pub(crate) const REFUSED: &str = "9f0c5d5e1b1c4a6d8a37d0f4a3f1c2b7";

/// A graphics card went into quarantine.
pub(crate) const QUARANTINED: &str = "4be2a0d96c7f4b19b6c1e2d85f03a7e4";

/// Something could not be given back yet.
pub(crate) const NOT_GIVEN_BACK: &str = "d8e1f6b3a2c94705974e5b60c81d3f2a";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_them() {
        let readme = include_str!("../../README.md");
        for id in [REFUSED, QUARANTINED, NOT_GIVEN_BACK] {
            assert!(readme.contains(&format!("| `{id}` |")), "{id}");
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
    }
}

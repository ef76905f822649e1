//! What a key of a guest's file is, for people: the README's tables are made of these rows, and a test compares them.

/// One key of a section. What only the documents have of it is left out of the program: each text is a relocation, which
/// every start pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name, as the file has it.
    pub name: &'static str,
    /// Its type: the values that it may have, in Markdown.
    #[cfg(test)]
    pub values: &'static str,
    /// Its value where the file has none, in Markdown.
    #[cfg(test)]
    pub default: &'static str,
    /// What it is for, in one sentence without a full stop, in Markdown.
    #[cfg(test)]
    pub about: &'static str,
}

impl Key {
    /// A key with this name, these values, this default, and what it is for.
    pub(crate) const fn new(
        name: &'static str,
        values: &'static str,
        default: &'static str,
        about: &'static str,
    ) -> Self {
        let _ = (values, default, about);
        Self {
            name,
            #[cfg(test)]
            values,
            #[cfg(test)]
            default,
            #[cfg(test)]
            about,
        }
    }
}

/// A section of a guest's file and its keys, for people.
#[derive(Clone, Copy, Debug)]
pub struct SectionKeys {
    /// The section's name.
    pub name: &'static str,
    /// Its keys, in the order of the README.
    pub keys: &'static [Key],
}

impl SectionKeys {
    /// Whether it has a key of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }
}

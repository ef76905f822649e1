//! Lists of words that are looked up now and then.

/// Words with spaces between them. A list of texts would be a relocation for each, which every start of the program pays for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordList(pub(crate) &'static str);

impl WordList {
    /// The words.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'static str> {
        self.0.split(' ')
    }

    /// Whether a word is among them.
    pub(crate) fn contain(self, word: &str) -> bool {
        self.iter().any(|known| known == word)
    }
}

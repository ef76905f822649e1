//! What is known of graphics cards.

mod signs;

pub use signs::{KnownSign, SIGNS, Severity, Sign, signs_in};

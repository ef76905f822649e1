//! Who may have written a file. It decides what root runs, so it is trusted like sudo trusts its own: the owner alone
//! can have changed it, its folders, and whatever a link on the way leads to.

mod error;
#[cfg(test)]
mod tests;
mod walk;

pub use error::TrustError;
pub use walk::read_trusted;

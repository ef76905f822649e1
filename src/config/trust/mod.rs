//! Who may have written a file. It decides what root runs, so it is trusted like sudo trusts its own: the owner alone
//! can have changed it, its folders, and whatever a link on the way leads to.

mod error;
mod owners;
#[cfg(test)]
mod tests;
mod walk;

pub use error::TrustError;
pub use owners::{Owners, Purpose};
pub use walk::{check_trusted_program, read_trusted};

//! What the rest of the program says to a guest's keeper, and what it hears. How a keeper is reached is the host's
//! ([`crate::host::Keepers`]); what it does is in `keeper`.

mod generation;
mod message;

pub use generation::Generation;
pub(crate) use generation::{EARLIER_GENERATIONS, GENERATION};
pub(crate) use message::MAX_MESSAGE;
pub use message::{Answer, AnswerAt, Beginning, CommandBatch, CommandFailure, KeeperState, Request};

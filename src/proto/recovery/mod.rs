//! What was sent, what arrived, what is lost (RFC 9002 on one packet number space per path).

mod carried;
mod ranges;
mod reordering;
mod sent;

pub use carried::KeptId;
pub use ranges::Ranges;
pub use sent::{Acked, Fate, Lost, Sent, SentPackets};

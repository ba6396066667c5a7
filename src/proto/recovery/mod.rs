//! What was sent, what arrived, what is lost (RFC 9002 on one packet number space per path).

mod ranges;
mod sent;

pub use ranges::Ranges;
pub use sent::{Acked, Lost, Sent, SentPackets};

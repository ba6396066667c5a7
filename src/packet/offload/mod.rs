//! Super-packets: many segments of one flow under one header, as a device with segmentation offload
//! takes and gives them. [`Segments`] splits one into packets for the tunnel, [`Joiner`] makes some
//! of the tunnel's packets. Splitting what was joined gives every packet back, bit by bit: what
//! cannot be told exactly by the first header goes alone.

pub mod checksum;
mod headers;
mod join;
mod split;
pub mod virtio;

pub use join::{Group, Joiner, Kinds, MOST_PACKETS, MOST_SEGMENTS};
pub use split::{Segments, SplitError};
pub use virtio::VirtioHeader;

/// A super-packet's length at most, bytes: what IPv4's length can say (RFC 791 section 3.1).
pub const LONGEST: usize = 65_535;

#[cfg(test)]
mod tests;

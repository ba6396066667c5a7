//! Which flow a packet belongs to: a keyed hash of its addresses, protocol and ports.

/// A hash that packets of one flow share. Keyed, so that nobody outside can aim at a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowHash(pub u32);

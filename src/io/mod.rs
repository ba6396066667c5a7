//! Moves bytes between the kernel and the core; decides nothing.

pub mod entropy;

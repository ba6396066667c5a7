//! What a run is judged by.

pub mod outcome;
pub mod record;
pub mod samples;
pub mod series;

//! What follows from readings: alarm logic now; scores, beats and profiles later. Numbers in, numbers out.

pub mod silence;
pub mod statistics;
pub mod threshold;
pub mod trend;

pub use threshold::{Limit, LimitError, ThresholdMonitor, Transition};

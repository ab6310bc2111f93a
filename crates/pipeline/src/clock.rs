//! Where time comes from: injected, so that every test can set it.

use std::time::{SystemTime, UNIX_EPOCH};

use clinical_model::Timestamp;

/// A source of the present instant.
pub trait Clock: Send + Sync + 'static {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The bytes of a new id (UUID version 7) drawn at an instant.
pub fn new_id(at: Timestamp) -> [u8; 16] {
    trust::uuid_v7(u64::try_from(at.as_millis()).unwrap_or(0)).into_bytes()
}

//! Silence: when a device that should be heard is not, that is itself an alert.

use clinical_model::Timestamp;

/// Seconds added to the expected interval, so that one slow delivery is no alert.
pub const GRACE_S: u32 = 5;

/// Whether a device has been silent for too long at `now`.
///
/// `since` is the latest of: last heard, assigned, server started. `expected_interval_s` is the longest usual silence.
pub fn is_silent(since: Timestamp, expected_interval_s: u32, now: Timestamp) -> bool {
    now.duration_since(since).as_secs() > u64::from(expected_interval_s) + u64::from(GRACE_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_after_the_interval_and_its_grace() {
        let since = Timestamp::from_seconds(100);
        assert!(!is_silent(since, 10, Timestamp::from_seconds(115)));
        assert!(is_silent(since, 10, Timestamp::from_seconds(116)));
        assert!(!is_silent(since, 10, Timestamp::from_seconds(0)), "a clock that went back is no silence");
    }
}

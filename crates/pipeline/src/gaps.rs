//! Gaps: when a device counts its messages and some did not arrive, that is a fact of its own and stands in the chart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use clinical_model::measure::DATA_GAP;
use clinical_model::{Decimal, Decoded, DecodedEvent, DeviceId, DeviceTime, Timestamp};

/// A count that falls by more than this began anew: the device was restarted. By less, a message came late.
const RESTARTED_BELOW: u32 = 64;

/// The last message number of each device with its time of receipt: at most one entry a registered device.
#[derive(Debug, Default)]
pub struct MessageNumbers(HashMap<DeviceId, (u32, Timestamp)>);

impl MessageNumbers {
    /// Takes the number of a message that arrived; the gap before it, if there is one. The first message since the
    /// server started, and the first since the device did, begin a new count.
    pub fn observe(&mut self, device: DeviceId, number: u32, received_at: Timestamp) -> Option<Decoded> {
        let Some((last, heard_at)) = self.0.get_mut(&device) else {
            self.0.insert(device, (number, received_at));
            return None;
        };
        *heard_at = received_at.max(*heard_at);
        let before = *last;
        let late = number <= before && before - number < RESTARTED_BELOW;
        if late {
            return None;
        }
        *last = number;
        let last = before;
        let missing = number.checked_sub(last)?.checked_sub(1).filter(|missing| *missing > 0)?;
        let text = match missing {
            1 => format!("message {} did not arrive", last + 1),
            _ => format!("messages {} to {} did not arrive", last + 1, number - 1),
        };
        let amount = Decimal::new(i64::from(missing), 0).map(|count| (count, "{message}".to_owned()));
        Some(Decoded::Event(DecodedEvent {
            measure: DATA_GAP,
            // It is noticed when the next message arrives.
            time: DeviceTime::Unknown,
            // The chart keeps 24 bits of a sequence.
            sequence: number & 0x00FF_FFFF,
            amount,
            text: Some(text),
        }))
    }

    /// The last number of a device.
    pub fn last(&self, device: DeviceId) -> Option<u32> {
        self.0.get(&device).map(|(last, _)| *last)
    }

    /// A message that was counted is not kept, and will come again: the count goes on from the one before, unless others
    /// were counted since.
    fn take_back(&mut self, device: DeviceId, number: u32, before: Option<u32>) {
        let Some((last, _)) = self.0.get_mut(&device).filter(|(last, _)| *last == number) else { return };
        match before {
            Some(before) => *last = before,
            None => drop(self.0.remove(&device)),
        }
    }

    /// A message without a number arrived here.
    pub fn heard_here(&mut self, device: DeviceId, received_at: Timestamp) {
        if let Some((_, heard_at)) = self.0.get_mut(&device) {
            *heard_at = received_at.max(*heard_at);
        }
    }

    /// A message was committed by some node. One that arrived after the last one here came to another node, which counts
    /// now: what this node counted says nothing about what is missing.
    pub fn heard_anywhere(&mut self, device: DeviceId, received_at: Timestamp) {
        if self.0.get(&device).is_some_and(|(_, heard_at)| *heard_at < received_at) {
            self.0.remove(&device);
        }
    }
}

/// A message that was counted and is not kept yet. Dropped without [`Counted::keep`], it is as if it had not come: the
/// gap before it is found again when it comes again.
pub(crate) struct Counted {
    numbers: Arc<Mutex<MessageNumbers>>,
    device: DeviceId,
    number: u32,
    before: Option<u32>,
    is_kept: bool,
}

impl Counted {
    /// A message that follows the one with the number `before`.
    pub(crate) fn new(
        numbers: Arc<Mutex<MessageNumbers>>,
        device: DeviceId,
        number: u32,
        before: Option<u32>,
    ) -> Self {
        Counted { numbers, device, number, before, is_kept: false }
    }

    /// The message is on stable storage.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.is_kept {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.take_back(self.device, self.number, self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: &[u32], expected: &[&str]) {
        let mut seen = MessageNumbers::default();
        let device = DeviceId::from_bytes([1; 16]);
        let gaps: Vec<String> = numbers
            .iter()
            .filter_map(|number| match seen.observe(device, *number, Timestamp::from_seconds(1))? {
                Decoded::Event(event) => event.text,
                _ => None,
            })
            .collect();
        assert_eq!(gaps, expected, "{numbers:?}");
    }

    #[test]
    fn missing_messages_are_named_and_repeats_restarts_and_late_ones_are_no_gap() {
        check(&[5, 6, 7], &[]);
        check(&[5, 6, 8], &["message 7 did not arrive"]);
        check(&[5, 10, 11], &["messages 6 to 9 did not arrive"]);
        check(&[5, 5, 6, 6], &[]);
        check(&[5, 8, 6, 7, 9], &["messages 6 to 7 did not arrive"]);
        check(&[500, 0, 1, 3], &["message 2 did not arrive"]);
        check(&[u32::MAX, 0, 1], &[]);
    }

    #[test]
    fn what_another_node_received_is_no_gap_here() {
        let mut seen = MessageNumbers::default();
        let device = DeviceId::from_bytes([1; 16]);
        let at = Timestamp::from_seconds;
        assert!(seen.observe(device, 5, at(10)).is_none());
        // What this node received itself changes nothing.
        seen.heard_anywhere(device, at(10));
        seen.heard_here(device, at(11));
        seen.heard_anywhere(device, at(11));
        assert!(seen.observe(device, 7, at(12)).is_some());
        seen.heard_anywhere(device, at(13));
        assert!(seen.observe(device, 20, at(14)).is_none(), "8 to 19 may have come to the other node");
    }
}

//! The readings of a load: unique, told apart by device and sequence, with values that show a mix-up.

use std::collections::VecDeque;
use std::fmt::Write as _;

use clinical_model::measure::HEART_RATE;
use clinical_model::{DeviceId, Timestamp};

use super::{Load, MAX_BATCH};
use crate::random::Random;

/// Most readings whose times are shuffled among each other.
const MAX_DISORDER: usize = 1_000;

/// One reading: when, its sequence, its value.
pub(crate) type Reading = (Timestamp, u32, i32);

/// The readings of one device, one after another.
pub(crate) struct Readings {
    batch: usize,
    disorder: usize,
    random: Random,
    last: Timestamp,
    sequence: u32,
    times: VecDeque<Timestamp>,
}

impl Readings {
    pub(crate) fn new(device: DeviceId, load: &Load) -> Self {
        Readings {
            batch: load.batch.clamp(1, MAX_BATCH),
            disorder: load.disorder.clamp(1, MAX_DISORDER),
            random: Random::for_part(u64::from(load.first_sequence), &device.to_string()),
            last: Timestamp::MIN,
            sequence: load.first_sequence,
            times: VecDeque::new(),
        }
    }

    /// The readings of the next message.
    pub(crate) fn next_batch(&mut self) -> Vec<Reading> {
        (0..self.batch)
            .map(|_| {
                let at = self.next_time();
                let reading = (at, self.sequence, rate_of(self.sequence));
                self.sequence = self.sequence.wrapping_add(1);
                reading
            })
            .collect()
    }

    fn next_time(&mut self) -> Timestamp {
        if self.times.is_empty() {
            for _ in 0..self.disorder {
                let now = now();
                self.last = if now > self.last { now } else { self.last.plus_micros(1) };
                self.times.push_back(self.last);
            }
            for index in (1..self.times.len()).rev() {
                let other = self.random.below(index + 1);
                self.times.swap(index, other);
            }
        }
        self.times.pop_front().unwrap_or(self.last)
    }
}

/// The wall clock of the devices.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The heart rate of a sequence number: up and down between 60 and 120 by one, so that no change is odd.
pub fn rate_of(sequence: u32) -> i32 {
    let turn = (sequence % 120) as i32;
    if turn < 60 { 60 + turn } else { 180 - turn }
}

/// The envelope of a batch, written by hand: the load must not measure its own encoder.
pub(crate) fn envelope(readings: &[Reading]) -> String {
    // Longest entry, with room to spare.
    let mut text = String::with_capacity(readings.len() * 112 + 16);
    if readings.len() != 1 {
        text.push_str("{\"readings\":[");
    }
    let (mut second, mut date_time) = (i64::MIN, String::new());
    for (index, (at, sequence, value)) in readings.iter().enumerate() {
        if at.as_seconds() != second {
            second = at.as_seconds();
            date_time = Timestamp::from_seconds(second).to_rfc3339().trim_end_matches('Z').to_owned();
        }
        let micros = at.as_micros().rem_euclid(1_000_000);
        let comma = if index == 0 { "" } else { "," };
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{comma}{{\"measure\":\"{}\",\"value\":{value},\"unit\":\"{}\",\
             \"time\":\"{date_time}.{micros:06}Z\",\"sequence\":{sequence}}}",
            HEART_RATE.name, HEART_RATE.unit
        );
    }
    if readings.len() != 1 {
        text.push_str("]}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clinical_model::{Decimal, Decoded, DecodedValue, DeviceTime, FrameKind};
    use device_codecs::decode;

    use super::*;

    fn check(readings: &[(Timestamp, u32, i32)]) {
        let frame = decode(FrameKind::Envelope, envelope(readings).as_bytes());
        assert_eq!(frame.entries.len(), readings.len());
        for (entry, (at, sequence, value)) in frame.entries.into_iter().zip(readings) {
            let decoded = entry.result.unwrap();
            let [Decoded::Scalar(scalar)] = &decoded[..] else { panic!("{decoded:?}") };
            assert_eq!(scalar.time, DeviceTime::Utc(*at));
            assert_eq!((scalar.measure, scalar.sequence), (HEART_RATE, *sequence));
            assert_eq!(scalar.value, DecodedValue::Number(Decimal::from_integer(*value)));
        }
    }

    #[test]
    fn what_is_sent_is_what_the_ledger_will_say() {
        let at = Timestamp::from_micros(1_790_000_000_999_999);
        check(&[(at, 7, 67)]);
        check(&[(at, 0, 60), (at.plus_micros(1), 1, 61), (at.plus_micros(2_000_000), 2, 62)]);
    }

    #[test]
    fn heart_rates_change_by_one() {
        assert_eq!((rate_of(0), rate_of(60), rate_of(119), rate_of(120)), (60, 120, 61, 60));
        assert!((0..500).all(|sequence| (rate_of(sequence + 1) - rate_of(sequence)).abs() == 1));
    }

    #[test]
    fn times_are_shuffled_within_their_window_and_sequences_rise() {
        let device = DeviceId::from_bytes([3; 16]);
        let load = Load { batch: 8, disorder: 8, first_sequence: 40, ..Load::new(vec![device]) };
        let mut readings = Readings::new(device, &load);
        let (first, second) = (readings.next_batch(), readings.next_batch());
        let sequences: Vec<u32> = first.iter().chain(&second).map(|reading| reading.1).collect();
        assert_eq!(sequences, (40..56).collect::<Vec<_>>());
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_ne!(sorted, first, "they are shuffled");
        assert!(first.iter().all(|(at, ..)| second.iter().all(|(later, ..)| at < later)));
    }
}

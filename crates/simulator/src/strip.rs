//! A recording as a monitor shows it: two curves and the heart rate counted from the beats, second by second.

use clinical_model::decoded::{DecodedScalar, DecodedWaveform};
use clinical_model::measure::{
    ARTERIAL_WAVEFORM, ECG, ECG_I, ECG_II, ECG_III, ECG_V1, ECG_V2, ECG_V4, ECG_V5, HEART_RATE,
    PLETHYSMOGRAM, RESPIRATION_WAVEFORM,
};
use clinical_model::reading::Absent;
use clinical_model::{Decimal, DecodedValue, DeviceTime, Findings, Measure, Timestamp};

use crate::wfdb::{Record, Signal};

/// Beats over which the heart rate is averaged.
pub const AVERAGED_BEATS: usize = 8;
/// Without a beat for so long, in seconds, no heart rate is shown.
pub const PAUSE_LIMIT_S: f64 = 5.0;
/// Digits kept of the size of one count: enough that a curve of a day drifts by less than one count.
const GAIN_DECIMALS: u8 = 9;

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// Which curve.
    pub measure: Measure,
    /// Size of one count, in the unit of the measure.
    pub gain: Decimal,
    /// Value at count 0.
    pub offset: Decimal,
    /// Samples a second, a whole number in all recordings that travel with the program.
    pub rate_hz: u32,
    /// Counts.
    pub samples: Vec<i16>,
}

/// A recording, ready to be played in a loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// The curves.
    pub leads: Vec<Lead>,
    beats_s: Vec<f64>,
    duration_s: f64,
}

/// Why a record cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// Nothing in it is a curve that a monitor shows.
    #[error("record {record} has no signal that is known here; it has {signals}")]
    NothingKnown {
        /// The record.
        record: String,
        /// Descriptions of its signals.
        signals: String,
    },
    /// Shorter than a second.
    #[error("record {record} is shorter than one second")]
    TooShort {
        /// The record.
        record: String,
    },
}

/// Which curve a signal is, by the description in its header.
fn measure(description: &str) -> Option<Measure> {
    Some(match description.trim().to_ascii_uppercase().as_str() {
        // A modified limb lead II is shown as lead II.
        "II" | "MLII" | "ECG LEAD II" => ECG_II,
        "I" | "MLI" => ECG_I,
        "III" | "MLIII" => ECG_III,
        "V1" => ECG_V1,
        "V2" => ECG_V2,
        "V4" => ECG_V4,
        "V5" => ECG_V5,
        "V" | "MCL1" | "ECG" => ECG,
        "PLETH" => PLETHYSMOGRAM,
        "ABP" | "ART" => ARTERIAL_WAVEFORM,
        "RESP" => RESPIRATION_WAVEFORM,
        _ => return None,
    })
}

impl Strip {
    /// The first ECG and, beside it, arterial pressure, else the plethysmogram, else a second lead.
    ///
    /// # Errors
    /// [`StripError`].
    pub fn two_leads(name: &str, record: &Record) -> Result<Strip, StripError> {
        let mut strip = Strip::all_leads(name, record)?;
        let rank = |lead: &Lead| match lead.measure {
            m if m == ARTERIAL_WAVEFORM => 0,
            m if m == PLETHYSMOGRAM => 1,
            m if m == RESPIRATION_WAVEFORM => 3,
            _ => 2,
        };
        let first = strip.leads.remove(0);
        strip.leads.sort_by_key(rank);
        strip.leads.truncate(1);
        strip.leads.insert(0, first);
        Ok(strip)
    }

    /// Every curve that is known here, each measure once.
    ///
    /// # Errors
    /// [`StripError`].
    pub fn all_leads(name: &str, record: &Record) -> Result<Strip, StripError> {
        let mut leads: Vec<Lead> = Vec::new();
        for signal in &record.signals {
            let known = measure(&signal.header.description);
            if let Some(measure) = known.filter(|m| leads.iter().all(|lead| lead.measure != *m)) {
                leads.extend(lead(measure, signal));
            }
        }
        if leads.is_empty() {
            let signals: Vec<&str> = record.signals.iter().map(|s| s.header.description.as_str()).collect();
            let signals = signals.join(", ");
            return Err(StripError::NothingKnown { record: name.to_owned(), signals });
        }
        let duration_s = record.duration_s();
        if duration_s < 1.0 {
            return Err(StripError::TooShort { record: name.to_owned() });
        }
        Ok(Strip { leads, beats_s: record.beat_times_s(), duration_s })
    }

    /// Length of one round in seconds.
    pub fn duration_s(&self) -> f64 {
        self.duration_s
    }

    /// The block of each curve for second number `second` (counted on through the loops), stamped `at`.
    pub fn blocks(&self, second: u64, at: Timestamp) -> Vec<DecodedWaveform> {
        self.leads.iter().map(|lead| lead.block(second, at)).collect()
    }

    /// The heart rate at the end of second number `second`, in whole beats a minute; absent in a pause.
    pub fn heart_rate(&self, second: u64, at: Timestamp) -> DecodedScalar {
        let now_s = (second + 1) as f64 % self.duration_s;
        let value = match self.rate_at(now_s).and_then(|rate| Decimal::from_f64(rate, 0)) {
            Some(rate) => DecodedValue::Number(rate),
            None => DecodedValue::Absent(Absent::Unavailable),
        };
        DecodedScalar {
            measure: HEART_RATE,
            value,
            unit: HEART_RATE.unit.to_owned(),
            time: DeviceTime::Utc(at),
            sequence: 0,
            findings: Findings::empty(),
        }
    }

    /// The intervals between the beats of second number `second`, in seconds.
    pub fn intervals_s(&self, second: u64) -> Vec<f64> {
        let from_s = second as f64 % self.duration_s;
        let beats = self.beats_until(from_s + 1.0, usize::MAX);
        beats.windows(2).filter(|pair| pair[1] > from_s).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Times of the last `count` beats until `now_s`, those of the round before with negative times.
    fn beats_until(&self, now_s: f64, count: usize) -> Vec<f64> {
        let here = self.beats_s.partition_point(|beat| *beat <= now_s);
        let mut beats: Vec<f64> = self.beats_s[..here].iter().rev().take(count).copied().collect();
        let missing = count.saturating_sub(beats.len());
        beats.extend(self.beats_s.iter().rev().take(missing).map(|beat| beat - self.duration_s));
        beats.reverse();
        beats
    }

    fn rate_at(&self, now_s: f64) -> Option<f64> {
        let mut beats = self.beats_until(now_s, AVERAGED_BEATS);
        // After a pause the count begins anew.
        if let Some(at) = beats.windows(2).rposition(|pair| pair[1] - pair[0] > PAUSE_LIMIT_S) {
            beats.drain(..=at);
        }
        let (first, last) = (beats.first()?, beats.last()?);
        // Three beats make two intervals: fewer are no rhythm.
        if beats.len() < 3 || now_s - last > PAUSE_LIMIT_S || last <= first {
            return None;
        }
        Some(60.0 * (beats.len() - 1) as f64 / (last - first))
    }
}

fn lead(measure: Measure, signal: &Signal) -> Option<Lead> {
    let gain = Decimal::from_f64(1.0 / signal.header.gain, GAIN_DECIMALS)?;
    let offset = Decimal::from_f64(-f64::from(signal.header.baseline) / signal.header.gain, GAIN_DECIMALS)?;
    let rate_hz = signal.rate_hz.round() as u32;
    (rate_hz > 0 && !signal.samples.is_empty() && gain.mantissa() != 0).then(|| Lead {
        measure,
        gain,
        offset,
        rate_hz,
        samples: signal.samples.clone(),
    })
}

impl Lead {
    fn block(&self, second: u64, at: Timestamp) -> DecodedWaveform {
        let length = self.samples.len() as u64;
        let start = second.wrapping_mul(u64::from(self.rate_hz)) % length;
        let samples = (start..start + u64::from(self.rate_hz))
            .map(|index| self.samples[(index % length) as usize])
            .collect();
        DecodedWaveform {
            measure: self.measure,
            time: DeviceTime::Utc(at),
            rate_numerator: self.rate_hz,
            rate_denominator: 1,
            unit: self.measure.unit.to_owned(),
            gain: self.gain,
            offset: self.offset,
            samples,
            findings: Findings::empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recordings;

    fn strip(name: &str) -> Strip {
        Strip::two_leads(name, &recordings::record(name).unwrap()).unwrap()
    }

    #[test]
    fn two_curves_are_chosen() {
        let measures = |name: &str| strip(name).leads.iter().map(|l| l.measure).collect::<Vec<_>>();
        assert_eq!(measures("mitdb/208"), vec![ECG_II, ECG_V1]);
        assert_eq!(measures("icu/v102s"), vec![ECG_II, PLETHYSMOGRAM]);
        assert_eq!(measures("icu/3975656_0015"), vec![ECG_II, ARTERIAL_WAVEFORM]);
        assert_eq!(measures("icu/03700181"), vec![ECG, ARTERIAL_WAVEFORM]);
        let numerics = recordings::record("icu/3975656n").unwrap();
        assert!(matches!(Strip::two_leads("n", &numerics), Ok(_) | Err(StripError::NothingKnown { .. })));
    }

    #[test]
    fn blocks_follow_each_other_through_the_end() {
        let strip = strip("mitdb/208");
        let at = Timestamp::from_seconds(1_000);
        let first = &strip.blocks(0, at)[0];
        assert_eq!((first.samples.len(), first.rate_numerator), (360, 360));
        assert_eq!(first.samples[..4], [1004, 1005, 1008, 1007]);
        assert_eq!(first.gain.to_string(), "0.005000000");
        assert_eq!(first.offset.to_string(), "-5.120000000");
        assert_eq!(strip.blocks(2, at)[0].samples[280..283], [978, 980, 981]);
        assert_eq!(strip.blocks(180, at)[0].samples, first.samples);
    }

    #[test]
    fn the_heart_rate_is_counted_from_the_beats() {
        let check = |name: &str, low: f64, high: f64| {
            let strip = strip(name);
            for second in [0, 20, 90, 179, 180, 400] {
                let DecodedValue::Number(rate) = strip.heart_rate(second, Timestamp::default()).value else {
                    panic!("{name} has no rate at {second} s");
                };
                assert!((low..=high).contains(&rate.to_f64()), "{name} at {second} s: {rate}");
            }
        };
        check("mitdb/101", 55.0, 85.0);
        check("mitdb/102", 68.0, 80.0);
        check("icu/3975656_0015", 50.0, 70.0);
    }

    #[test]
    fn a_pause_has_no_heart_rate() {
        let mut strip = strip("mitdb/101");
        strip.beats_s = vec![1.0, 2.0, 3.0, 4.0, 100.0];
        let value = |second| strip.heart_rate(second, Timestamp::default()).value;
        assert_eq!(value(4), DecodedValue::Number(Decimal::from_integer(60)));
        assert_eq!(value(50), DecodedValue::Absent(Absent::Unavailable));
    }

    #[test]
    fn intervals_lie_in_their_second() {
        let strip = strip("mitdb/102");
        let intervals: Vec<f64> = (0..180).flat_map(|second| strip.intervals_s(second)).collect();
        // Every beat ends one interval.
        assert_eq!(intervals.len(), strip.beats_s.len());
        assert!(intervals.iter().all(|interval| *interval > 0.2 && *interval < 3.0));
    }
}

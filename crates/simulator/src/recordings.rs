//! The recordings that travel with the program: real ECGs, pressures and intensive-care stays, cut short.
//!
//! Sources, licences and how each was cut stand in `recordings/*/LICENCE.md`.

use rust_embed::Embed;

use crate::stay::{Stay, StayError};
use crate::wfdb::{Record, RecordError};

#[derive(Embed)]
#[folder = "recordings/"]
struct Files;

/// Why a recording that travels with the program could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// There is none of that name.
    #[error("no recording is named \"{name}\"; known are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A record is damaged.
    #[error("recording {name} cannot be read")]
    Record {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// A stay is damaged.
    #[error("stay {name} cannot be read")]
    Stay {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: StayError,
    },
}

/// Names of the waveform records, such as `mitdb/208`, in order.
pub fn record_names() -> Vec<String> {
    names("", ".hea")
}

/// Names of the stays, such as `132979`, in order.
pub fn stay_names() -> Vec<String> {
    names("stays/", ".txt")
}

/// A waveform record by its name.
///
/// # Errors
/// [`RecordingError`] where there is none, or where it is damaged.
pub fn record(name: &str) -> Result<Record, RecordingError> {
    let unknown = || RecordingError::Unknown { name: name.to_owned(), known: record_names().join(", ") };
    let header = Files::get(&format!("{name}.hea")).ok_or_else(unknown)?;
    let signals = Files::get(&format!("{name}.dat")).ok_or_else(unknown)?;
    let annotations = Files::get(&format!("{name}.atr")).or_else(|| Files::get(&format!("{name}.qrs")));
    let header = String::from_utf8_lossy(&header.data);
    Record::from_bytes(name, &header, &signals.data, annotations.as_ref().map(|file| file.data.as_ref()))
        .map_err(|source| RecordingError::Record { name: name.to_owned(), source })
}

/// A stay by its number.
///
/// # Errors
/// [`RecordingError`] where there is none, or where it is damaged.
pub fn stay(name: &str) -> Result<Stay, RecordingError> {
    let file = Files::get(&format!("stays/{name}.txt"))
        .ok_or_else(|| RecordingError::Unknown { name: name.to_owned(), known: stay_names().join(", ") })?;
    Stay::parse(&String::from_utf8_lossy(&file.data))
        .map_err(|source| RecordingError::Stay { name: name.to_owned(), source })
}

fn names(prefix: &str, suffix: &str) -> Vec<String> {
    let mut names: Vec<String> = Files::iter()
        .filter_map(|path| path.strip_prefix(prefix)?.strip_suffix(suffix).map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wfdb::MISSING;

    /// What an independent reader (Python `wfdb` 4.3.1) finds in one signal; `sum` without missing samples.
    struct Expected {
        record: &'static str,
        signal: usize,
        length: usize,
        first: [i16; 4],
        at_1000: [i16; 3],
        sum: i64,
        physical_1000: f64,
    }

    fn expected(
        record: &'static str,
        signal: usize,
        length: usize,
        first: [i16; 4],
        at_1000: [i16; 3],
        sum: i64,
        physical_1000: f64,
    ) -> Expected {
        Expected { record, signal, length, first, at_1000, sum, physical_1000 }
    }

    #[test]
    fn samples_are_those_of_an_independent_reader() {
        let table = [
            expected("mitdb/208", 0, 64_800, [1004, 1005, 1008, 1007], [978, 980, 981], 63_753_954, -0.23),
            expected("mitdb/208", 1, 64_800, [1046, 1049, 1048, 1051], [1052, 1050, 1046], 66_969_432, 0.14),
            expected("mitdb/101", 0, 64_800, [927, 925, 924, 922], [932, 931, 930], 62_778_461, -0.46),
            expected("icu/v102s", 0, 45_000, [538, 485, 389, 292], [-65, -71, -74], 2_237_532, -0.028_496),
            expected(
                "icu/v102s",
                2,
                45_000,
                [1537, 1496, 1471, 1426],
                [-1492, -1518, -1537],
                -509_014,
                -1.1936,
            ),
            expected(
                "icu/a103l",
                1,
                37_500,
                [8634, 8766, 8798, 8733],
                [8880, 9000, 9045],
                326_432_193,
                0.844_106,
            ),
            expected("icu/03700181", 0, 90_000, [67, 67, 67, 23], [-20, -20, -20], -52_589, -0.006_748),
            expected(
                "icu/03700181",
                1,
                22_500,
                [-943, -946, -951, -958],
                [-1206, -1205, -1204],
                -26_256_703,
                31.074_766,
            ),
            expected("icu/3000003_0003", 0, 1_028, [-5, -5, -6, -7], [2, 0, -2], -3_441, 0.068_966),
            expected("icu/3975656_0015", 2, 22_500, [-7, -7, -7, -7], [-5, -8, -10], -388_331, 114.000_046),
            expected("icu/3975656n", 6, 1_936, [0, 0, 0, 0], [965, 964, 970], 1_527_671, 96.5),
        ];
        for row in table {
            let name = format!("{} signal {}", row.record, row.signal);
            let record = record(row.record).unwrap();
            let signal = &record.signals[row.signal];
            assert_eq!(signal.samples.len(), row.length, "{name}");
            assert_eq!(signal.samples[..4], row.first, "{name}");
            assert_eq!(signal.samples[1000..1003], row.at_1000, "{name}");
            let present = signal.samples.iter().filter(|sample| **sample != MISSING);
            assert_eq!(present.map(|sample| i64::from(*sample)).sum::<i64>(), row.sum, "{name}");
            assert!((signal.physical(1000).unwrap() - row.physical_1000).abs() < 1e-6, "{name}");
        }
    }

    #[test]
    fn a_skewed_signal_is_brought_into_line() {
        let record = record("icu/03700181").unwrap();
        let respiration = &record.signals[2];
        assert_eq!(respiration.samples[..4], [-208, -186, -164, -143]);
        assert_eq!(respiration.samples.last(), Some(&MISSING));
        assert_eq!(record.signals[0].rate_hz, 500.0);
    }

    #[test]
    fn annotations_are_those_of_an_independent_reader() {
        let record = record("mitdb/207").unwrap();
        assert_eq!(record.annotations.len(), 430);
        assert_eq!(record.annotations.iter().filter(|a| a.code == 31).count(), 340);
        assert_eq!(record.annotations.last().map(|a| a.sample), Some(64_780));
        let rhythms: Vec<_> = record.annotations.iter().filter_map(|a| a.rhythm()).collect();
        assert_eq!(rhythms, vec!["N", "B", "VFL"]);
        let ventricular = super::record("mitdb/208").unwrap();
        assert_eq!(ventricular.annotations.iter().filter(|a| a.is_ventricular()).count(), 142);
        assert_eq!(ventricular.annotations.iter().filter(|a| a.is_beat()).count(), 286);
        assert_eq!(ventricular.annotations[1].sample, 81);
    }

    #[test]
    fn everything_that_travels_can_be_read() {
        assert_eq!(record_names().len(), 21);
        for name in record_names() {
            let record = record(&name).unwrap();
            assert!(record.duration_s() >= 8.0, "{name}");
        }
        assert_eq!(stay_names().len(), 40);
        for name in stay_names() {
            let stay = stay(&name).unwrap();
            assert_eq!(stay.number, name);
            assert!(stay.age_years.is_some() && stay.rows.len() > 150, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = record("mitdb/999").unwrap_err().to_string();
        assert!(error.contains("mitdb/208"), "{error}");
    }
}

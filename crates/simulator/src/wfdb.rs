//! Reader of WFDB records (PhysioNet): text header, signals in formats 212, 16 and 80, MIT annotations.
//!
//! Source: the WFDB Applications Guide, pages `header(5)`, `signal(5)` and `annot(5)`. Multi-segment
//! records and other formats are refused by name, never guessed.

mod annotation;
mod header;
mod signal;

use std::path::{Path, PathBuf};

pub use annotation::{Annotation, AnnotationError, read_annotations};
pub use header::{Header, HeaderError, SignalHeader};
pub use signal::{MISSING, SignalError};

/// Largest header that is read, in bytes: real ones have a few hundred, long comments included.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Largest signal or annotation file that is read, in bytes: a day of three leads at 250 Hz has 97 MB.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// One signal of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// What the header says of it.
    pub header: SignalHeader,
    /// Counts of the converter; [`MISSING`] where there is no value.
    pub samples: Vec<i16>,
    /// Samples a second.
    pub rate_hz: f64,
}

impl Signal {
    /// The value at `at` in the signal's unit; `None` beyond the end and where the sample is missing.
    pub fn physical(&self, at: usize) -> Option<f64> {
        let count = *self.samples.get(at)?;
        (count != MISSING).then(|| (f64::from(count) - f64::from(self.header.baseline)) / self.header.gain)
    }
}

/// A record: header, signals, and annotations where there is a file of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The header.
    pub header: Header,
    /// The signals, in the order of the header.
    pub signals: Vec<Signal>,
    /// The annotations in order of time; sample numbers count frames.
    pub annotations: Vec<Annotation>,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file is not there or cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than is read.
    #[error("{} has {length} bytes, more than the {limit} that are read", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The header is not understood.
    #[error("the header of record {record} is not understood")]
    Header {
        /// Which record.
        record: String,
        /// Why.
        #[source]
        source: HeaderError,
    },
    /// The signal file does not fit the header.
    #[error("the signals of record {record} do not fit its header")]
    Signals {
        /// Which record.
        record: String,
        /// Why.
        #[source]
        source: SignalError,
    },
    /// The annotation file is damaged.
    #[error("the annotations of record {record} are damaged")]
    Annotations {
        /// Which record.
        record: String,
        /// Why.
        #[source]
        source: AnnotationError,
    },
}

impl Record {
    /// Reads a record from the bytes of its files; `annotations` may be missing.
    ///
    /// All signals must lie in one file, which is what every record of ours and nearly every published one does.
    ///
    /// # Errors
    /// [`RecordError`] names the part at fault.
    pub fn from_bytes(
        name: &str,
        header: &str,
        signals: &[u8],
        annotations: Option<&[u8]>,
    ) -> Result<Self, RecordError> {
        let record = || name.to_owned();
        let header =
            Header::parse(header).map_err(|source| RecordError::Header { record: record(), source })?;
        let columns = signal::demultiplex(&header, signals)
            .map_err(|source| RecordError::Signals { record: record(), source })?;
        let annotations = match annotations {
            Some(bytes) => read_annotations(bytes)
                .map_err(|source| RecordError::Annotations { record: record(), source })?,
            None => Vec::new(),
        };
        let frame_rate_hz = header.frame_rate_hz;
        let signals = header
            .signals
            .iter()
            .zip(columns)
            .map(|(described, samples)| Signal {
                rate_hz: frame_rate_hz * f64::from(described.samples_per_frame),
                header: described.clone(),
                samples,
            })
            .collect();
        Ok(Record { header, signals, annotations })
    }

    /// Opens a record on disk: `path` is its header, or its name without an extension.
    ///
    /// Annotations are taken from the file beside it that ends in `atr`, else `qrs`.
    ///
    /// # Errors
    /// [`RecordError`] names the file or the part at fault.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let stem = if path.extension().is_some_and(|e| e == "hea") {
            path.with_extension("")
        } else {
            path.to_path_buf()
        };
        // Appended, not replaced: a record's name may hold a dot.
        let beside = |extension: &str| {
            let mut name = stem.clone().into_os_string();
            name.push(".");
            name.push(extension);
            PathBuf::from(name)
        };
        let header_path = beside("hea");
        let name = stem.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let text = String::from_utf8_lossy(&read(&header_path, MAX_HEADER_BYTES as u64)?).into_owned();
        let header =
            Header::parse(&text).map_err(|source| RecordError::Header { record: name.clone(), source })?;
        let folder = stem.parent().unwrap_or(Path::new("."));
        let signals = match header.signals.first() {
            Some(first) => read(&folder.join(&first.file), MAX_FILE_BYTES)?,
            None => Vec::new(),
        };
        let annotations = ["atr", "qrs"]
            .into_iter()
            .map(beside)
            .find(|path| path.exists())
            .map(|path| read(&path, MAX_FILE_BYTES))
            .transpose()?;
        Record::from_bytes(&name, &text, &signals, annotations.as_deref())
    }

    /// Length in seconds.
    pub fn duration_s(&self) -> f64 {
        self.header.frames as f64 / self.header.frame_rate_hz
    }

    /// Times of the heart beats, in seconds from the start.
    pub fn beat_times_s(&self) -> Vec<f64> {
        let rate_hz = self.header.frame_rate_hz;
        self.annotations.iter().filter(|a| a.is_beat()).map(|a| a.sample as f64 / rate_hz).collect()
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, RecordError> {
    let failed = |source| RecordError::File { path: path.to_path_buf(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > limit {
        return Err(RecordError::TooLong { path: path.to_path_buf(), length, limit });
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "r 2 100 4\nr.dat 80 1/mV 8 0 0 0 0 a\nr.dat 80 1/mV 8 0 0 0 0 b\n";

    fn refused(header: &str) -> String {
        match Record::from_bytes("r", header, &[], None).unwrap_err() {
            RecordError::Header { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        assert!(refused("").contains("no record line"));
        assert!(refused("r/3 2 100 4").contains("segments"));
        assert!(refused("r 1 100 4\nr.dat 311 200 10\n").contains("format 311"));
        assert!(refused("r 1 100 4\n../r.dat 16 200 10\n").contains("file name"));
        assert!(refused("r 2 100 4\nr.dat 16\n").contains("announces 2"));
        assert!(refused("r 2 100 4\nr.dat 16\ns.dat 16\n").contains("s.dat"));
        assert!(refused("r 1 fast 4\nr.dat 16\n").contains("sampling frequency"));
        assert!(refused("r 1 100 4\nr.dat 16 200\n").contains("do not fit"));
    }

    #[test]
    fn defaults_are_those_of_the_format() {
        let header = Header::parse("r 1\nr.dat 16\n# a comment\n").unwrap();
        assert_eq!((header.frame_rate_hz, header.frames), (250.0, 0));
        let signal = &header.signals[0];
        assert_eq!((signal.gain, signal.baseline, signal.unit.as_str()), (200.0, 0, "mV"));
        assert_eq!(header.comments, vec!["a comment"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Record::open(Path::new("/nowhere/100")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/100.hea"), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(text in "\\PC{0,300}") {
            let _ = Header::parse(&text);
        }

        #[test]
        fn damaged_headers_and_signals_never_panic(
            at in 0..HEADER.len(),
            with in "[ -~]{0,4}",
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut header = HEADER.to_owned();
            header.replace_range(at..=at, &with);
            let _ = Record::from_bytes("r", &header, &bytes, Some(&bytes));
        }
    }
}

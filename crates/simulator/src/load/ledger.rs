//! The ledger: one line for each reading that the server has acknowledged, kept outside the server.

use std::path::{Path, PathBuf};

use clinical_model::{DeviceId, Timestamp};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::readings::Reading;

/// Bytes gathered before a write, where more acknowledgements are waiting.
const GATHER_BYTES: usize = 64 * 1024;

/// Why the ledger cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened, written or read.
    #[error("ledger {} cannot be {action}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is not one of ours.
    #[error("ledger {}, line {line}: \"{text}\" is no entry", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The text, cut to 80 characters.
        text: String,
    },
}

/// One acknowledged reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerLine {
    /// Who sent it.
    pub device: DeviceId,
    /// When it was measured.
    pub measured_at: Timestamp,
    /// Its sequence.
    pub sequence: u32,
    /// The heart rate that was sent.
    pub value: i32,
    /// When the client knew that it was acknowledged, by the client's clock.
    pub acked_at: Timestamp,
}

/// The ledger being written. Lines are handed to the disk whole, some at a time.
pub(super) struct Ledger {
    file: File,
    path: PathBuf,
    gathered: Vec<u8>,
}

impl Ledger {
    pub(super) async fn open(path: &Path) -> Result<Self, LedgerError> {
        let opened = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await;
        let file = opened.map_err(|source| file_error(path, "opened", source))?;
        Ok(Ledger { file, path: path.to_owned(), gathered: Vec::new() })
    }

    /// Writes down the readings of one acknowledged message; `now` when nothing else is waiting.
    pub(super) async fn append(
        &mut self,
        device: DeviceId,
        readings: &[Reading],
        acked_at: Timestamp,
        now: bool,
    ) -> Result<(), LedgerError> {
        for (at, sequence, value) in readings {
            let (at, acked_at) = (at.as_micros(), acked_at.as_micros());
            let line = format!("{device} {at} {sequence} {value} {acked_at}\n");
            self.gathered.extend(line.as_bytes());
        }
        if now || self.gathered.len() >= GATHER_BYTES { self.flush().await } else { Ok(()) }
    }

    pub(super) async fn flush(&mut self) -> Result<(), LedgerError> {
        let failed = |source| file_error(&self.path, "written", source);
        self.file.write_all(&self.gathered).await.map_err(failed)?;
        self.file.sync_data().await.map_err(failed)?;
        self.gathered.clear();
        Ok(())
    }
}

fn file_error(path: &Path, action: &'static str, source: std::io::Error) -> LedgerError {
    LedgerError::File { path: path.to_owned(), action, source }
}

/// Reads a ledger back, for whoever checks that nothing in it was lost.
///
/// A last line without its end was never handed over whole and is left out.
///
/// # Errors
/// [`LedgerError`].
pub fn read_ledger(path: &Path) -> Result<Vec<LedgerLine>, LedgerError> {
    let text = std::fs::read_to_string(path).map_err(|source| file_error(path, "read", source))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let entry = |(index, line): (usize, &str)| {
        parse(line).ok_or_else(|| LedgerError::Line {
            path: path.to_owned(),
            line: index + 1,
            text: line.chars().take(80).collect(),
        })
    };
    whole.lines().enumerate().map(entry).collect()
}

fn parse(line: &str) -> Option<LedgerLine> {
    let mut fields = line.split(' ');
    let entry = LedgerLine {
        device: fields.next()?.parse().ok()?,
        measured_at: Timestamp::from_micros(fields.next()?.parse().ok()?),
        sequence: fields.next()?.parse().ok()?,
        value: fields.next()?.parse().ok()?,
        acked_at: Timestamp::from_micros(fields.next()?.parse().ok()?),
    };
    fields.next().is_none().then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.txt");
        let device = DeviceId::from_bytes([7; 16]);
        let at = Timestamp::from_micros(1_790_000_000_000_123);
        let mut ledger = Ledger::open(&path).await.unwrap();
        ledger.append(device, &[(at, 0, 60)], at, false).await.unwrap();
        // Gathered, not yet written.
        assert_eq!(read_ledger(&path).unwrap(), vec![]);
        ledger.append(device, &[(at.plus_micros(1), 1, 61)], at, true).await.unwrap();
        let expected = |sequence: u32| LedgerLine {
            device,
            measured_at: at.plus_micros(i64::from(sequence)),
            sequence,
            value: 60 + sequence as i32,
            acked_at: at,
        };
        assert_eq!(read_ledger(&path).unwrap(), vec![expected(0), expected(1)]);
    }

    #[test]
    fn a_broken_last_line_is_left_out_and_any_other_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.txt");
        let whole = format!("{} 5 0 60 9\n", DeviceId::from_bytes([1; 16]));
        std::fs::write(&path, format!("{whole}0101")).unwrap();
        assert_eq!(read_ledger(&path).unwrap().len(), 1);
        std::fs::write(&path, format!("nonsense\n{whole}")).unwrap();
        assert!(matches!(read_ledger(&path), Err(LedgerError::Line { line: 1, .. })));
    }
}

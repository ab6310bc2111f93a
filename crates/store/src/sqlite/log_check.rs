//! The write-ahead log, looked at before SQLite does: SQLite takes a damaged log for one that ends early, and says nothing.
//!
//! A frame whose checksum fails ends recovery there, because a power failure leaves such a frame at the end of the last,
//! unfinished transaction. A bit that flips in the midst of the log looks the same, and everything behind it would be
//! gone without a word. Two witnesses tell them apart: frames of the same log behind the end of the first transaction
//! after the bad frame (commits wait for each other's sync, so an unfinished one is the last), and the index beside the
//! log, which counts frames only after they were synced. Source: the WAL-mode file format, sqlite.org/walformat.html.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use super::session::open_failure;
use crate::OpenError;

/// Bytes of the log's header.
const HEADER_BYTES: usize = 32;
/// Bytes of a frame's header.
const FRAME_HEADER_BYTES: usize = 24;
/// First word of a log whose checksums read words with the least byte first; one more for the greatest first.
const MAGIC: u32 = 0x377f_0682;
/// The index: its header stands twice.
const INDEX_HEADER_BYTES: usize = 48;
/// Smallest and largest page that SQLite knows, in bytes.
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// Refuses a file whose log lost commits that had been made.
pub(super) fn check(database: &Path) -> Result<(), OpenError> {
    #[cfg(feature = "planted")]
    if trust::planted("unnamed-damage") {
        return Ok(());
    }
    let log = beside(database, "-wal");
    let failed = |source| OpenError::Path {
        path: log.clone(),
        what: "cannot be read".to_owned(),
        source: Some(source),
    };
    let file = match File::open(&log) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let index = std::fs::read(beside(database, "-shm")).ok().and_then(|bytes| Index::read(&bytes));
    match judge(&mut BufReader::new(file), index).map_err(failed)? {
        None => Ok(()),
        Some(what) => Err(OpenError::Damaged { path: log, what }),
    }
}

/// Empties the log after a clean recovery, so that frames of an earlier power failure never stand behind later ones.
pub(super) fn settle(connection: &Connection, database: &Path) -> Result<(), OpenError> {
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        // Nothing is wrong with the log; it is emptied when there is room.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
        Err(error) => Err(open_failure(database, "emptying the log", error)),
        Ok(()) => Ok(()),
    }
}

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// What the index remembers of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Index {
    frames: u64,
    salts: [u8; 8],
}

impl Index {
    /// `None` where it says nothing: not begun, or caught between its two copies.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (first, second) =
            (bytes.get(..INDEX_HEADER_BYTES)?, bytes.get(INDEX_HEADER_BYTES..2 * INDEX_HEADER_BYTES)?);
        if first != second || first[12] == 0 {
            return None;
        }
        let frames = u32::from_ne_bytes(first[16..20].try_into().ok()?);
        Some(Index { frames: u64::from(frames), salts: first[32..40].try_into().ok()? })
    }
}

/// The running checksum of the log.
struct Checksum {
    sums: (u32, u32),
    word: fn([u8; 4]) -> u32,
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let (first, second) = pair.split_at(4);
            let word = |bytes: &[u8]| (self.word)(bytes.try_into().unwrap_or_default());
            self.sums.0 = self.sums.0.wrapping_add(word(first)).wrapping_add(self.sums.1);
            self.sums.1 = self.sums.1.wrapping_add(word(second)).wrapping_add(self.sums.0);
        }
    }

    fn is(&self, stated: &[u8]) -> bool {
        stated == [self.sums.0.to_be_bytes(), self.sums.1.to_be_bytes()].concat()
    }
}

/// What is wrong with the log, if anything is.
fn judge(log: &mut impl std::io::Read, index: Option<Index>) -> std::io::Result<Option<String>> {
    let mut header = [0; HEADER_BYTES];
    if !fill(log, &mut header)? || header == [0; HEADER_BYTES] {
        return Ok(None);
    }
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap_or_default());
    let word = if number(0) & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let mut checksum = Checksum { sums: (0, 0), word };
    checksum.add(&header[..24]);
    let page = number(8) as usize;
    if number(0) & !1 != MAGIC || !checksum.is(&header[24..]) || !PAGE_SIZES.contains(&page) {
        // Written and synced before the first frame, in one sector: it is never half there.
        return Ok(Some("its header does not match its checksum".to_owned()));
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER_BYTES + page];
    // Frames that are sound one after another, and the last of them that ended a transaction.
    let (mut sound, mut committed) = (0_u64, 0_u64);
    // Behind the first unsound frame: has a transaction of this log ended there?
    let (mut is_broken, mut ended_behind) = (false, false);
    while fill(log, &mut frame)? {
        let ours = &frame[8..16] == salts;
        let ends = frame[4..8] != [0; 4];
        if !is_broken {
            checksum.add(&frame[..8]);
            checksum.add(&frame[FRAME_HEADER_BYTES..]);
            if ours && checksum.is(&frame[16..24]) {
                sound += 1;
                committed = if ends { sound } else { committed };
                continue;
            }
            is_broken = true;
        }
        if ours && ended_behind {
            return Ok(Some(format!(
                "frame {} does not match its checksum, and later commits stand behind it",
                sound + 1
            )));
        }
        ended_behind |= ours && ends;
    }
    Ok(index
        .filter(|index| index.salts == salts && index.frames > committed)
        .map(|index| format!("it ends after frame {committed}, and {} had been committed", index.frames)))
}

/// Fills the buffer; `false` at the end.
fn fill(log: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with a log of several transactions, as a process that was killed leaves it.
    fn killed() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(9000));").unwrap();
        for _ in 0..5 {
            connection.execute("INSERT INTO t VALUES(zeroblob(9000))", []).unwrap();
        }
        let left = directory.path().join("left");
        std::fs::create_dir(&left).unwrap();
        for name in ["a.db", "a.db-wal", "a.db-shm"] {
            std::fs::copy(directory.path().join(name), left.join(name)).unwrap();
        }
        (directory, left.join("a.db"))
    }

    fn damaged(path: &Path) -> bool {
        match check(path) {
            Ok(()) => false,
            Err(OpenError::Damaged { .. }) => true,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn every_flipped_byte_of_a_log_is_found() {
        let (_directory, path) = killed();
        let log = beside(&path, "-wal");
        let whole = std::fs::read(&log).unwrap();
        assert!(!damaged(&path));
        for place in (0..whole.len()).step_by(97).chain(0..HEADER_BYTES + FRAME_HEADER_BYTES) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            std::fs::write(&log, bytes).unwrap();
            assert!(damaged(&path), "byte {place}");
        }
    }

    #[test]
    fn without_the_index_all_but_the_last_transactions_are_found() {
        let (_directory, path) = killed();
        std::fs::remove_file(beside(&path, "-shm")).unwrap();
        let log = beside(&path, "-wal");
        let whole = std::fs::read(&log).unwrap();
        for place in (HEADER_BYTES..whole.len() / 2).step_by(97) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            std::fs::write(&log, bytes).unwrap();
            assert!(damaged(&path), "byte {place}");
        }
    }

    #[test]
    fn a_log_whose_end_the_power_took_is_sound() {
        let (_directory, path) = killed();
        std::fs::remove_file(beside(&path, "-shm")).unwrap();
        let log = beside(&path, "-wal");
        let whole = std::fs::read(&log).unwrap();
        for left in (0..=whole.len()).step_by(509) {
            std::fs::write(&log, &whole[..left]).unwrap();
            assert!(!damaged(&path), "{left} bytes left");
        }
        // The first frame of the last transaction never reached the disk, those behind it did: a whole page is three
        // frames of the last insert at least.
        let page = u32::from_be_bytes(whole[8..12].try_into().unwrap()) as usize;
        let frame = FRAME_HEADER_BYTES + page;
        let ends: Vec<usize> =
            (HEADER_BYTES..whole.len()).step_by(frame).filter(|at| whole[at + 4..at + 8] != [0; 4]).collect();
        let last = ends[ends.len() - 2] + frame;
        let mut bytes = whole.clone();
        bytes[last..last + frame].fill(0);
        std::fs::write(&log, bytes).unwrap();
        assert!(!damaged(&path), "an unfinished transaction");
    }
}

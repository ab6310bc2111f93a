//! What a store says once everything is opened, in one hash a table that does not depend on any order.

use trust::digest::Sha256;

use super::SqlStore;
use crate::StoreError;
use crate::sql::{Backend, Begin, Column, Session, Tx, read};

const DOING: &str = "hashing what is kept";

/// The tables with their columns; `sealed` stands last where there is one, and is hashed as what it says.
const TABLES: [(&str, &str); 19] = [
    ("series", "number, subject_kind, subject, measure, device"),
    ("journal", "number, committed_at, sealed"),
    ("group_summary", "number, committed_at, leaf, sealed"),
    ("cursor", "consumer, position"),
    ("latest", "series, measured_at, sequence, sealed"),
    ("block", "number, series, first_at, first_sequence, last_at, count, sealed"),
    ("wave_block", "number, series, start_at, duration_us, sealed"),
    ("event", "series, at, sequence, version, sealed"),
    ("frame_block", "number, device, patient, first_received, last_received, count, plain_bytes, sealed"),
    ("quarantine", "id, received_at, waiting, frame_bytes, sealed"),
    ("document", "kind, id, version, updated_at, sealed"),
    ("document_history", "kind, id, version, updated_at, sealed"),
    ("document_index", "kind, name, value, id, is_unique"),
    ("audit", "sequence, at, action, outcome, patient, device, actor, flags, leaf, sealed"),
    ("document_change", "change, kind, id, version, removed"),
    ("log_head", "log, size"),
    ("log_tile", "log, level, number, hashes"),
    ("log_checkpoint", "log, number, size, at, note"),
    ("log_thinned", "log, note"),
];

/// The rows of one table, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableDigest {
    pub(crate) table: &'static str,
    pub(crate) rows: u64,
    /// Of them, rows that cannot be opened because their patient was erased.
    pub(crate) erased: u64,
    /// The SHA-256 of every row, added up without carry.
    pub(crate) sum: [u8; 32],
}

impl<B: Backend> SqlStore<B> {
    /// Opens everything once, at one instant.
    pub(crate) fn digest(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<TableDigest>, StoreError> {
        let mut session = self.backend.another()?;
        let snapshot = Tx::begin(&mut session, Begin::Snapshot).map_err(read(DOING))?;
        let mut done = 0;
        TABLES
            .iter()
            .map(|(table, columns)| {
                let digest = self.digest_table(&snapshot, table, columns, &mut || {
                    done += 1;
                    progress(done);
                })?;
                Ok(digest)
            })
            .collect()
    }

    fn digest_table(
        &self,
        session: &B::Session,
        table: &'static str,
        columns: &str,
        each: &mut dyn FnMut(),
    ) -> Result<TableDigest, StoreError> {
        let mut digest = TableDigest { table, rows: 0, erased: 0, sum: [0; 32] };
        let is_sealed = columns.ends_with("sealed");
        let width = columns.split(',').count();
        let mut outcome = Ok(());
        session
            .stream(&format!("SELECT {columns} FROM {table}"), &[], &mut |row| {
                let mut hash = Sha256::new();
                for at in 0..width - usize::from(is_sealed) {
                    add_column(&mut hash, row.0.column(at)?);
                }
                if is_sealed {
                    match self.open_row(table, row, &row.get::<Vec<u8>>(width - 1)?) {
                        Ok(plain) => add_column(&mut hash, Column::Bytes(&plain)),
                        Err(StoreError::KeyGone { .. }) => digest.erased += 1,
                        Err(error) => {
                            outcome = Err(error);
                            return Ok(false);
                        }
                    }
                }
                for (sum, byte) in digest.sum.iter_mut().zip(hash.finish()) {
                    *sum ^= byte;
                }
                digest.rows += 1;
                each();
                Ok(true)
            })
            .map_err(read(DOING))?;
        outcome.map(|()| digest)
    }
}

/// Adds a value with its type and length, so that two rows never look alike by accident.
fn add_column(hash: &mut Sha256, column: Column<'_>) {
    let (tag, bytes): (u8, &[u8]) = match column {
        Column::Null => (0, &[]),
        Column::Int(number) => {
            hash.update(&[1]);
            return hash.update(&number.to_be_bytes());
        }
        Column::Text(text) => (2, text.as_bytes()),
        Column::Bytes(bytes) => (3, bytes),
    };
    hash.update(&[tag]);
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

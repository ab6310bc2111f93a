//! What a store says once everything is opened, in one hash a table that does not depend on any order.

use trust::digest::Sha256;

use super::SqlStore;
use super::append::{group_key, journal_place, latest_place, summary_place};
use super::audit;
use super::documents::{self, kind_from_number};
use super::fold_parts::{BlockRef, EventPlace, WaveRef, frames_place, frames_row_key};
use super::quarantine;
use crate::StoreError;
use crate::sql::{Backend, Begin, Column, DbError, Row, Session, Tx, read};

const DOING: &str = "hashing what is kept";

/// The tables with their columns; `sealed` stands last where there is one, and is hashed as what it says.
const TABLES: [(&str, &str); 15] = [
    ("series", "number, subject_kind, subject, measure, device"),
    ("journal", "number, committed_at, sealed"),
    ("group_summary", "number, committed_at, sealed"),
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
    ("audit", "sequence, at, action, outcome, patient, actor, leaf, sealed"),
    ("document_change", "change, kind, id, version, removed"),
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

    /// What a sealed row says.
    fn open_row(&self, table: &str, row: &Row<'_>, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let what = || {
            let first = row.get::<i64>(0).map_or(String::new(), |number| format!(" {number}"));
            format!("row{first} of table {table}")
        };
        let column = |outcome: DbError| read(DOING)(outcome);
        let open = |place: trust::Aad<'_>| self.keys.open_sealed(place, sealed, &what);
        let number = |at: usize| row.get::<i64>(at).map_err(column);
        let group = || Ok::<_, StoreError>(group_key(number(0)?.unsigned_abs(), number(1)?));
        match table {
            "journal" => open(journal_place(&group()?)),
            "group_summary" => open(summary_place(&group()?)),
            "latest" => open(latest_place(&row.get::<u32>(0).map_err(column)?.to_be_bytes())),
            "block" => {
                let block = BlockRef::from_row(row).map_err(column)?;
                open(block.place(&block.row_key()))
            }
            "wave_block" => {
                let wave = WaveRef::from_row(row).map_err(column)?;
                open(wave.place(&wave.row_key()))
            }
            "event" => {
                let (series, sequence) = (row.get(0).map_err(column)?, row.get(2).map_err(column)?);
                let place =
                    EventPlace { series, at: number(1)?, sequence, version: row.get(3).map_err(column)? };
                open(place.place(&place.row_key()))
            }
            "frame_block" => {
                let device = clinical_model::DeviceId::from_bytes(row.get(1).map_err(column)?);
                open(frames_place(&frames_row_key(number(0)?, device)))
            }
            "quarantine" => open(quarantine::place(&row.get(0).map_err(column)?)),
            "audit" => open(audit::place(&number(0)?.to_be_bytes())),
            _ => {
                let kind = row.get::<u8>(0).map_err(column)?;
                let kind = kind_from_number(kind).ok_or_else(|| StoreError::Damaged {
                    what: what(),
                    how: format!("this release does not know kind {kind}"),
                })?;
                let at = clinical_model::Timestamp::from_micros(number(3)?);
                let of = (kind, row.get(1).map_err(column)?, number(2)?.unsigned_abs(), at);
                open(documents::place(&documents::row_key(of)))
            }
        }
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

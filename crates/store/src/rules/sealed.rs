//! Every table with sealed rows, written down once: its columns, its key, and the place that each ciphertext is bound to.

use clinical_model::{DeviceId, Timestamp};

use super::append::{group_key, journal_place, latest_place, summary_place};
use super::documents::{self, kind_from_number};
use super::fold_parts::{BlockRef, EventPlace, WaveRef, frames_place, frames_row_key};
use super::{SqlStore, audit, quarantine};
use crate::StoreError;
use crate::sql::{Backend, DbError, Fault, Row, read};

/// A table with sealed rows.
pub(crate) struct SealedTable {
    pub(crate) name: &'static str,
    /// All columns that its place, its owner or its checks need; the sealed one stands last.
    pub(crate) columns: &'static str,
    /// The columns of its key, which are among [`SealedTable::columns`].
    pub(crate) key: &'static [&'static str],
}

const fn table(name: &'static str, columns: &'static str, key: &'static [&'static str]) -> SealedTable {
    SealedTable { name, columns, key }
}

/// All of them. A column `sealed` that is not here fails the tests.
pub(crate) const SEALED: [SealedTable; 11] = [
    table("journal", "number, committed_at, sealed", &["number"]),
    table("group_summary", "number, committed_at, sealed", &["number"]),
    table("latest", "series, measured_at, sequence, sealed", &["series"]),
    table("block", "number, series, first_at, first_sequence, last_at, count, sealed", &["number"]),
    table("wave_block", "number, series, start_at, duration_us, sealed", &["number"]),
    table("event", "series, at, sequence, version, sealed", &["series", "at", "sequence", "version"]),
    table(
        "frame_block",
        "number, device, patient, first_received, last_received, count, plain_bytes, sealed",
        &["number"],
    ),
    table("quarantine", "id, received_at, waiting, frame_bytes, sealed", &["id"]),
    table("document", "kind, id, version, updated_at, sealed", &["kind", "id"]),
    table("document_history", "kind, id, version, updated_at, sealed", &["kind", "id", "version"]),
    table("audit", "sequence, at, action, outcome, patient, actor, leaf, sealed", &["sequence"]),
];

impl SealedTable {
    /// The table of a name.
    pub(crate) fn named(name: &str) -> Option<&'static SealedTable> {
        SEALED.iter().find(|table| table.name == name)
    }

    /// Where the sealed column stands among the columns.
    pub(crate) fn sealed_at(&self) -> usize {
        self.columns.split(',').count() - 1
    }
}

/// The place that a ciphertext is bound to.
pub(crate) struct Place {
    table: &'static str,
    row: Vec<u8>,
    column: &'static str,
}

impl Place {
    pub(crate) fn aad(&self) -> trust::Aad<'_> {
        trust::Aad { table: self.table, row: &self.row, column: self.column }
    }

    fn of(place: trust::Aad<'static>, row: Vec<u8>) -> Self {
        Place { table: place.table, row, column: place.column }
    }
}

/// The place of a row with the columns of its [`SealedTable`].
pub(crate) fn place_of(table: &str, row: &Row<'_>) -> Result<Place, DbError> {
    let number = |at: usize| row.get::<i64>(at);
    let group = || Ok::<_, DbError>(group_key(number(0)?.unsigned_abs(), number(1)?).to_vec());
    Ok(match table {
        "journal" => Place::of(journal_place(&[0; 16]), group()?),
        "group_summary" => Place::of(summary_place(&[0; 16]), group()?),
        "latest" => Place::of(latest_place(&[0; 4]), row.get::<u32>(0)?.to_be_bytes().to_vec()),
        "block" => {
            let block = BlockRef::from_row(row)?;
            Place { table: "block", row: block.row_key(), column: "readings" }
        }
        "wave_block" => {
            let wave = WaveRef::from_row(row)?;
            Place { table: "wave_block", row: wave.row_key(), column: "samples" }
        }
        "event" => {
            let (series, sequence) = (row.get(0)?, row.get(2)?);
            let place = EventPlace { series, at: number(1)?, sequence, version: row.get(3)? };
            Place { table: "event", row: place.row_key(), column: "event" }
        }
        "frame_block" => {
            let device = DeviceId::from_bytes(row.get(1)?);
            Place::of(frames_place(&[]), frames_row_key(number(0)?, device))
        }
        "quarantine" => Place::of(quarantine::place(&[0; 16]), row.get::<[u8; 16]>(0)?.to_vec()),
        "audit" => Place::of(audit::place(&[0; 8]), number(0)?.to_be_bytes().to_vec()),
        "document" | "document_history" => {
            let kind = row.get::<u8>(0)?;
            let kind = kind_from_number(kind).ok_or_else(|| {
                DbError::new(Fault::Other, format!("this release does not know documents of kind {kind}"))
            })?;
            let of = (kind, row.get(1)?, number(2)?.unsigned_abs(), Timestamp::from_micros(number(3)?));
            Place::of(documents::place(&[]), documents::row_key(of))
        }
        _ => return Err(DbError::new(Fault::Other, format!("table {table} has no sealed rows"))),
    })
}

impl<B: Backend> SqlStore<B> {
    /// What a sealed row says; the row has the columns of its [`SealedTable`].
    pub(super) fn open_row(&self, table: &str, row: &Row<'_>, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let what = || {
            let first = row.get::<i64>(0).map_or(String::new(), |number| format!(" {number}"));
            format!("row{first} of table {table}")
        };
        let place = place_of(table, row).map_err(read("opening a row"))?;
        self.keys.open_sealed(place.aad(), sealed, &what)
    }
}

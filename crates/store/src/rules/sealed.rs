//! The place that each ciphertext is bound to, and what a sealed row says.

use clinical_model::{DeviceId, Timestamp};

use super::append::{group_key, journal_place, latest_place, summary_place};
use super::documents::{self, kind_from_number};
use super::fold_parts::{BlockRef, EventPlace, WaveRef, frames_place, frames_row_key};
use super::{SqlStore, audit, quarantine};
use crate::StoreError;
use crate::sql::{Backend, DbError, Fault, Row, read};

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

/// The place of a row with the columns of its [`super::tables::Table`].
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
    /// What a sealed row says; the row has the columns of its [`super::tables::Table`].
    pub(super) fn open_row(&self, table: &str, row: &Row<'_>, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let what = || {
            let first = row.get::<i64>(0).map_or(String::new(), |number| format!(" {number}"));
            format!("row{first} of table {table}")
        };
        let place = place_of(table, row).map_err(read("opening a row"))?;
        self.keys.open_sealed(place.aad(), sealed, &what)
    }
}

//! Verification: every page, every seal, every block and every count is looked at once; damage is named by table and row.

use clinical_model::{DeviceId, QuarantineId, Timestamp};

use super::append::{group_key, journal_place};
use super::audit::{COLUMNS, Plain};
use super::documents::kind_from_number;
use super::fold_parts::{BlockRef, EventPlace, WaveRef};
use super::quarantine::is_waiting;
use super::{SqlStore, journal, tables};
use crate::StoreError;
use crate::sql::{Backend, Begin, Column, DbError, Row as SqlRow, Session, Tx, read};
use crate::words::{VerifyFinding, VerifyReport};

const DOING: &str = "verifying the store";

/// A report in the making.
struct Work<'a> {
    report: VerifyReport,
    done: u64,
    all: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Work<'_> {
    fn find(&mut self, place: String, what: String) {
        #[cfg(feature = "planted")]
        if trust::planted("unnamed-damage") {
            return;
        }
        self.report.findings.push(VerifyFinding { place, what });
    }

    /// Counts one row, or notes what is wrong with it. `Ok` carries the readings inside.
    fn row(&mut self, place: String, outcome: Result<u64, StoreError>) {
        self.done += 1;
        match outcome {
            Ok(readings) => {
                self.report.opened += 1;
                self.report.readings += readings;
            }
            Err(error) => self.find(place, super::describe(&error)),
        }
        (self.progress)(self.done, self.all);
    }
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn verify_all(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, StoreError> {
        // A connection of its own: this takes long, and queries must not wait for it.
        let mut session = self.backend.another()?;
        // One snapshot, so that counts and rows belong together.
        let snapshot = Tx::begin(&mut session, Begin::Snapshot).map_err(read(DOING))?;
        if B::SHARED {
            self.refresh_series(&snapshot)?;
        }
        let all = count_rows(&*snapshot)?;
        let mut work = Work { report: VerifyReport::default(), done: 0, all, progress };
        (work.progress)(0, all);
        let data = B::check_pages(&snapshot).map_err(read(DOING));
        let files = [(B::PLACE, data), (B::KEYS_PLACE, self.keys.check_pages())];
        for (file, faults) in files {
            // A file that cannot even be walked is damage, not a failure of the verification.
            let faults = faults.unwrap_or_else(|error| vec![super::describe(&error)]);
            faults.into_iter().for_each(|fault| work.find(file.to_owned(), fault));
        }
        self.keys.verify(&mut |place, fault| match fault {
            Some(fault) => work.find(place, fault),
            None => work.report.opened += 1,
        })?;
        for table in tables::sealed().map(|table| table.name) {
            if let Err(error) = self.verify_table(&snapshot, table, &mut work) {
                work.find(format!("{}, table {table}", B::PLACE), super::describe(&error));
            }
        }
        for (table, column) in [("audit", "sequence"), ("group_summary", "number")] {
            verify_no_gaps::<B>(&snapshot, table, column, &mut work)?;
        }
        work.report.logs = self.log_reports()?;
        for log in work.report.logs.clone() {
            let place = format!("{}, log of {}", B::PLACE, log.log);
            for finding in log.findings {
                let row = finding.first.map(|row| format!(", row {row}")).unwrap_or_default();
                work.find(format!("{place}{row}"), finding.what);
            }
        }
        verify_blocks_apart::<B>(&snapshot, &mut work)?;
        verify_index::<B>(&snapshot, &mut work)?;
        verify_newest::<B>(&snapshot, &mut work)?;
        Ok(work.report)
    }

    fn verify_table(&self, session: &B::Session, table: &str, work: &mut Work<'_>) -> Result<(), StoreError> {
        let columns = match table {
            "journal" | "group_summary" => "number, committed_at, sealed",
            "latest" => "series, measured_at, sequence, sealed",
            "block" => "number, series, first_at, first_sequence, last_at, count, sealed",
            "wave_block" => "number, series, start_at, duration_us, sealed",
            "event" => "series, at, sequence, version, sealed",
            "frame_block" => "number, device, count, sealed",
            "quarantine" => "id, received_at, waiting, frame_bytes, sealed",
            "document" | "document_history" => "kind, id, version, updated_at, sealed",
            _ => COLUMNS,
        };
        session
            .stream(&format!("SELECT {columns} FROM {table}"), &[], &mut |row| {
                let (name, outcome) = self.verify_row(table, row);
                work.row(format!("{}, table {table}, {name}", B::PLACE), outcome);
                Ok(true)
            })
            .map_err(read(DOING))
    }

    /// Opens one row. Returns how to find it and how many readings it holds.
    fn verify_row(&self, table: &str, row: &SqlRow<'_>) -> (String, Result<u64, StoreError>) {
        let named_by = usize::from(table.starts_with("document"));
        let first = row.0.column(named_by).map(name_of).unwrap_or_default();
        let outcome = match table {
            "journal" => self.verify_journal(row),
            "group_summary" => columns(|| Ok((row.get(0)?, row.get(1)?, row.get::<Vec<u8>>(2)?)))
                .and_then(|(number, at, sealed)| self.open_summary(number, at, &sealed).map(|_| 0)),
            "latest" => self.verify_latest(row),
            "block" => columns(|| BlockRef::from_row(row))
                .and_then(|block| self.open_block(&block).map(|rows| rows.len() as u64)),
            "wave_block" => columns(|| WaveRef::from_row(row)).and_then(|wave| {
                let key = self.series_key(wave.series).ok_or_else(|| no_series(wave.series))?;
                self.open_wave(&wave, key).map(|_| 0)
            }),
            "event" => columns(|| {
                let (series, at) = (row.get(0)?, row.get(1)?);
                let place = EventPlace { series, at, sequence: row.get(2)?, version: row.get(3)? };
                Ok((place, row.get::<Vec<u8>>(4)?))
            })
            .and_then(|(place, sealed)| {
                let key = self.series_key(place.series).ok_or_else(|| no_series(place.series))?;
                self.open_event(&place, key, &sealed).map(|_| 0)
            }),
            "frame_block" => {
                columns(|| Ok((row.get(0)?, row.get(1)?, row.get::<i64>(2)?, row.get::<Vec<u8>>(3)?)))
                    .and_then(|(number, device, count, sealed)| {
                        let frames = self.open_frames(number, DeviceId::from_bytes(device), &sealed)?;
                        same_count("frames", frames.len() as u64, count).map(|()| 0)
                    })
            }
            "quarantine" => self.verify_quarantined(row),
            "document" | "document_history" => self.verify_document(row),
            _ => columns(|| Plain::from_row(row)).and_then(|plain| match self.open_audit(&plain) {
                // The patient was erased on purpose; the leaf still stands in the log.
                Ok(_) | Err(StoreError::KeyGone { .. }) => Ok(0),
                Err(error) => Err(error),
            }),
        };
        (first, outcome)
    }

    fn verify_journal(&self, row: &SqlRow<'_>) -> Result<u64, StoreError> {
        let (number, at, sealed) = columns(|| Ok((row.get(0)?, row.get(1)?, row.get::<Vec<u8>>(2)?)))?;
        let what = || format!("journal row {number}");
        let plain = self.keys.open_sealed(journal_place(&group_key(number, at)), &sealed, &what)?;
        let frames = journal::decode(&plain, false, &|series| self.series_key(series))
            .map_err(|malformed| malformed.of(what()))?;
        let facts = frames.iter().flat_map(|frame| &frame.facts);
        Ok(facts.filter(|(_, fact)| matches!(fact, clinical_model::Fact::Reading(_))).count() as u64)
    }

    fn verify_latest(&self, row: &SqlRow<'_>) -> Result<u64, StoreError> {
        let (series, measured_at, sequence, sealed) =
            columns(|| Ok((row.get(0)?, row.get::<i64>(1)?, row.get::<u32>(2)?, row.get::<Vec<u8>>(3)?)))?;
        let kept = self.open_latest(series, &sealed)?;
        if kept.key() == (measured_at, sequence) {
            return Ok(0);
        }
        let how = "its time or sequence does not match the columns beside it".to_owned();
        Err(StoreError::Damaged { what: format!("latest value of series {series}"), how })
    }

    fn verify_quarantined(&self, row: &SqlRow<'_>) -> Result<u64, StoreError> {
        let (id, received_at, waiting, bytes, sealed) = columns(|| {
            let sealed: Vec<u8> = row.get(4)?;
            Ok((row.get(0)?, row.get::<i64>(1)?, row.get::<bool>(2)?, row.get::<i64>(3)?, sealed))
        })?;
        let item = self.open_item(QuarantineId::from_bytes(id), &sealed)?;
        let beside = (item.received_at.as_micros(), is_waiting(&item), item.bytes.len() as i64);
        if beside == (received_at, waiting, bytes) {
            return Ok(0);
        }
        let how = "its time, state or size does not match the columns beside it".to_owned();
        Err(StoreError::Damaged { what: format!("quarantined item {}", item.id), how })
    }

    fn verify_document(&self, row: &SqlRow<'_>) -> Result<u64, StoreError> {
        let (number, id, version, at, sealed) = columns(|| {
            let (version, at) = (row.get(2)?, Timestamp::from_micros(row.get(3)?));
            Ok((row.get::<u8>(0)?, row.get(1)?, version, at, row.get::<Vec<u8>>(4)?))
        })?;
        let kind = kind_from_number(number).ok_or_else(|| StoreError::Damaged {
            what: format!("document of kind {number}"),
            how: "this release does not know the kind".to_owned(),
        })?;
        self.open_document((kind, id, version, at), &sealed).map(|_| 0)
    }
}

fn columns<T>(get: impl FnOnce() -> Result<T, DbError>) -> Result<T, StoreError> {
    get().map_err(read(DOING))
}

fn no_series(series: u32) -> StoreError {
    StoreError::Damaged { what: format!("series {series}"), how: "it has no row".to_owned() }
}

fn same_count(of: &str, found: u64, stated: i64) -> Result<(), StoreError> {
    if i64::try_from(found) == Ok(stated) {
        return Ok(());
    }
    let how = format!("it holds {found} {of}, the column beside it says {stated}");
    Err(StoreError::Damaged { what: "row".to_owned(), how })
}

/// A number as it is, bytes as hexadecimal digits.
fn name_of(column: Column<'_>) -> String {
    match column {
        Column::Int(number) => format!("row {number}"),
        Column::Bytes(bytes) => {
            let digits: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            format!("row {digits}")
        }
        Column::Null | Column::Text(_) => "a row without a number".to_owned(),
    }
}

/// Rows with something sealed in them.
pub(super) fn count_rows<S: Session>(session: &S) -> Result<u64, StoreError> {
    tables::sealed().map(|table| count_table(session, table.name)).sum()
}

pub(crate) fn count_table<S: Session>(session: &S, table: &str) -> Result<u64, StoreError> {
    session.one(&format!("SELECT count(*) FROM {table}"), &[]).map_err(read(DOING))
}

/// A log that begins at 1 and ends at its count has no gap.
fn verify_no_gaps<B: Backend>(
    session: &B::Session,
    table: &str,
    column: &str,
    work: &mut Work<'_>,
) -> Result<(), StoreError> {
    let sql = format!("SELECT coalesce(min({column}), 1), coalesce(max({column}), 0), count(*) FROM {table}");
    let found = session.row(&sql, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (first, last, count): (i64, i64, i64) = found.map_err(read(DOING))?.unwrap_or((1, 0, 0));
    if first != 1 || last != count {
        let what = format!("{count} rows from {first} to {last}: some were removed");
        work.find(format!("{}, table {table}", B::PLACE), what);
    }
    Ok(())
}

/// Blocks of one series must not overlap: queries rely on it.
fn verify_blocks_apart<B: Backend>(session: &B::Session, work: &mut Work<'_>) -> Result<(), StoreError> {
    let overlapping: Option<i64> = session
        .row(
            "SELECT number FROM (SELECT number, first_at,
                 lag(last_at) OVER (PARTITION BY series ORDER BY first_at, first_sequence) AS before
                 FROM block) AS b
             WHERE before > first_at LIMIT 1",
            &[],
            |row| row.get(0),
        )
        .map_err(read(DOING))?;
    if let Some(number) = overlapping {
        let place = format!("{}, table block, row {number}", B::PLACE);
        work.find(place, "it begins before the block in front of it ends".to_owned());
    }
    Ok(())
}

/// A document is newer than everything in its history.
fn verify_newest<B: Backend>(session: &B::Session, work: &mut Work<'_>) -> Result<(), StoreError> {
    let older: u64 = session
        .one(
            "SELECT count(*) FROM document d WHERE EXISTS(SELECT 1 FROM document_history h
                 WHERE h.kind = d.kind AND h.id = d.id AND h.version >= d.version)",
            &[],
        )
        .map_err(read(DOING))?;
    if older > 0 {
        let what = format!("{older} documents were put back to an earlier version");
        work.find(format!("{}, table document", B::PLACE), what);
    }
    Ok(())
}

/// Every index row must point to a document.
fn verify_index<B: Backend>(session: &B::Session, work: &mut Work<'_>) -> Result<(), StoreError> {
    let orphans: u64 = session
        .one(
            "SELECT count(*) FROM document_index i
             WHERE NOT EXISTS(SELECT 1 FROM document d WHERE d.kind = i.kind AND d.id = i.id)",
            &[],
        )
        .map_err(read(DOING))?;
    if orphans > 0 {
        let what = format!("{orphans} rows point to documents that do not exist");
        work.find(format!("{}, table document_index", B::PLACE), what);
    }
    Ok(())
}

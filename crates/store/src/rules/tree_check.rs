//! The check of a log as it is kept: every row against its leaf, every leaf against the tree, the tree against the
//! checkpoints, in one pass at one instant.

use clinical_model::{PatientId, Timestamp};
use trust::log::Hash;
use trust::log::check::{Check, Content, Expectation, Fault, Finding, Report, Signpost};
use trust::log::tree::Tiles as _;

use super::audit::{COLUMNS, Plain};
use super::keys::Domain;
use super::tree::{StoredTiles, leaf_of, page_checkpoints};
use super::{SqlStore, describe};
use crate::StoreError;
use crate::proven::{CONTENT_KEPT_FOR, Log, LogAgainst, LogEntry};
use crate::sql::{Backend, Begin, DbError, Row, Session, Tx, read};

const DOING: &str = "checking the log";
/// Checkpoints read at once.
const CHECKPOINTS_PAGE: usize = 10_000;

impl<B: Backend> SqlStore<B> {
    pub(super) fn check_whole_log(
        &self,
        log: Log,
        against: &LogAgainst,
        now: Timestamp,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Report, StoreError> {
        // Connections of their own: this takes long. The second reads tiles while the first streams rows.
        let mut rows = self.backend.another()?;
        let rows = Tx::begin(&mut rows, Begin::Snapshot).map_err(read(DOING))?;
        let (origin, epoch) = self.log_origin(&rows, log)?;
        let size = self.log_size(&rows, log)?;
        let mut signposts = self.own_signposts(&rows, log)?;
        signposts.extend(against.signposts.iter().cloned());
        let mut keys: Vec<_> =
            self.read_signers(now)?.iter().map(|signer| signer.verifier().clone()).collect();
        let missing = self.missing_checkpoints(&rows, log, &origin, &keys)?;
        keys.extend(against.witnesses.iter().cloned());
        let log_name = log.name().to_owned();
        let mut check = Check::new(Expectation { log: log_name, origin, epoch, size, keys, signposts });
        let beside = self.backend.another()?;
        let mut tiles = StoredTiles { session: &beside, log };
        let (table, columns, key) = match log {
            Log::Acts => ("audit", COLUMNS, "sequence"),
            Log::Groups => ("group_summary", "number, committed_at, leaf, sealed", "number"),
        };
        let all = rows.one(&format!("SELECT count(*) FROM {table}"), &[]).map_err(read(DOING))?;
        let mut done = 0;
        rows.stream(&format!("SELECT {columns} FROM {table} ORDER BY {key}"), &[], &mut |row| {
            let (sequence, kept, content) = self.row_content(log, row, now)?;
            while check.next_row() < sequence {
                give_tile(&mut check, &mut tiles)?;
                // A number far beyond the tree is no gap in it.
                if check.next_row() > size {
                    break;
                }
                check.missing();
            }
            check.gap(sequence);
            give_tile(&mut check, &mut tiles)?;
            check.row(sequence, kept, content);
            done += 1;
            progress(done, all);
            Ok(true)
        })
        .map_err(read(DOING))?;
        while check.next_row() <= size {
            give_tile(&mut check, &mut tiles).map_err(read(DOING))?;
            check.missing();
        }
        let mut fault = None;
        let mut report = check.finish(|level, number| match tiles.tile(level, number) {
            Ok(hashes) => Some(hashes),
            Err(error) => {
                fault = Some(error);
                None
            }
        });
        report.findings.extend(missing.map(|how| Finding {
            fault: Fault::Checkpoint,
            first: None,
            last: None,
            what: format!("the checkpoints of the log of {}: {how}", log.name()),
        }));
        fault.map_or(Ok(report), |error| Err(read(DOING)(error)))
    }

    /// Both logs against their own trees and checkpoints, for the verification of everything.
    pub(super) fn log_reports(&self) -> Result<Vec<Report>, StoreError> {
        let check = |log: Log| self.check_whole_log(log, &LogAgainst::default(), now(), &mut |_, _| {});
        Log::ALL.into_iter().map(check).collect()
    }

    /// All checkpoints of a log, oldest first.
    fn own_signposts(&self, session: &B::Session, log: Log) -> Result<Vec<Signpost>, StoreError> {
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let page = page_checkpoints(session, log, before, CHECKPOINTS_PAGE)?;
            before = page.last().map(|last| last.number);
            let is_last = page.len() < CHECKPOINTS_PAGE;
            all.extend(page.into_iter().map(|kept| Signpost {
                name: format!("checkpoint {} of the log of {}", kept.number, log.name()),
                note: kept.note,
                outside: false,
            }));
            if is_last {
                all.reverse();
                return Ok(all);
            }
        }
    }

    fn row_content(
        &self,
        log: Log,
        row: &Row<'_>,
        now: Timestamp,
    ) -> Result<(u64, Option<Hash>, Content), DbError> {
        let sequence: u64 = row.get(0)?;
        let (kept, entry) = match log {
            Log::Acts => match Plain::from_row(row) {
                Ok(plain) => {
                    let content = match self.open_payload(&plain) {
                        Ok(content) => self.read_audit(&plain, &content).map(|_| Some(content)),
                        Err(StoreError::KeyGone { .. }) => self.may_be_gone(&plain, now).map(|()| None),
                        Err(error) => Err(error),
                    };
                    let leaf = plain.leaf;
                    let entry =
                        content.map(|content| LogEntry { sequence, header: plain.header(), content, leaf });
                    (Some(leaf), entry)
                }
                // A column of another type or length is damage of the row, not of the database.
                Err(error) => return Ok((sequence, None, Content::Damaged(error.source.to_string()))),
            },
            Log::Groups => {
                let columns = (|| {
                    Ok::<_, DbError>((
                        row.get::<i64>(1)?,
                        row.get::<Option<Hash>>(2)?,
                        row.get::<Vec<u8>>(3)?,
                    ))
                })();
                match columns {
                    Ok((at, kept, sealed)) => (kept, self.group_entry(sequence, at, kept, &sealed)),
                    Err(error) => return Ok((sequence, None, Content::Damaged(error.source.to_string()))),
                }
            }
        };
        let content = match entry {
            Ok(entry) => leaf_of(&entry).map_or(Content::Erased, Content::Leaf),
            Err(error) => Content::Damaged(describe(&error)),
        };
        Ok((sequence, kept, content))
    }

    /// Whether content that cannot be read was erased on purpose: with its patient, or for its age. Anything else hides
    /// something.
    fn may_be_gone(&self, plain: &Plain, now: Timestamp) -> Result<(), StoreError> {
        let is_old = Timestamp::from_micros(plain.at).plus(CONTENT_KEPT_FOR) < now;
        let patient = plain.patient.map(PatientId::from_bytes);
        // A patient who was erased has no key any more.
        let is_erased = match patient {
            Some(patient) => self.keys.existing(Domain::Patient(patient))?.is_none(),
            None => false,
        };
        if is_old || is_erased {
            return Ok(());
        }
        let how = "its content was removed or made unreadable, and nobody was erased".to_owned();
        Err(StoreError::Damaged { what: format!("audit row {}", plain.sequence), how })
    }
}

fn give_tile<S: Session>(check: &mut Check, tiles: &mut StoredTiles<'_, S>) -> Result<(), DbError> {
    if let Some(number) = check.wants_tile(check.next_row()) {
        check.tile(number, tiles.tile(0, number)?);
    }
    Ok(())
}

/// Only to tell which content may be gone for its age, in years.
fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

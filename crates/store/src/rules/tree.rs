//! The trees over the audit log and over the records of groups: rows are read back from the database, their leaves
//! computed anew and appended to tiles; checkpoints and epochs are kept beside them.

use clinical_model::Timestamp;
use trust::log::note::{KeyKind, Signer};
use trust::log::tree::{Tile, Tiles, Tree, TreeError};
use trust::log::{Hash, tree};

use super::SqlStore;
use super::audit::{self, COLUMNS, Plain};
use super::keys::{Domain, Purpose};
use crate::proven::{KeptCheckpoint, Lease, Log, LogEntry, LogState};
use crate::sql::{Backend, Begin, Column, DbError, Session, Tx, read, values};
use crate::words::{Actor, AuditAction, AuditRecord, AuditRow};
use crate::{StoreError, TransactError};

const DOING: &str = "reading the log's tree";
const WRITING: &str = "writing the log's tree";
/// In the data: how often a backup was restored, plus one.
pub(crate) const META_EPOCH: &str = "log-epoch";
/// In the data: set by a restore, until a new epoch has begun.
pub(crate) const META_RESTORED: &str = "log-restored";
/// Length of a hash, in bytes.
const HASH_LEN: usize = 32;

/// Tiles in the database.
pub(super) struct StoredTiles<'a, S> {
    pub(super) session: &'a S,
    pub(super) log: Log,
}

impl<S: Session> Tiles for StoredTiles<'_, S> {
    type Error = DbError;

    fn tile(&mut self, level: u8, number: u64) -> Result<Vec<Hash>, DbError> {
        let found: Option<Vec<u8>> = self.session.row(
            "SELECT hashes FROM log_tile WHERE log = ?1 AND level = ?2 AND number = ?3",
            &values![self.log as u8, level, number],
            // What is no bytes any more counts as missing, and so does what is cut off in the middle of a hash.
            |row| Ok(if let Column::Bytes(hashes) = row.0.column(0)? { hashes.to_vec() } else { Vec::new() }),
        )?;
        Ok(found.unwrap_or_default().as_chunks::<HASH_LEN>().0.to_vec())
    }
}

fn broken(log: Log) -> impl Fn(TreeError<DbError>) -> StoreError {
    move |error| match error {
        TreeError::Tiles(error) => read(DOING)(error),
        error => {
            StoreError::Damaged { what: format!("tree of the log of {}", log.name()), how: error.to_string() }
        }
    }
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn log_size(&self, session: &B::Session, log: Log) -> Result<u64, StoreError> {
        let found =
            session.row("SELECT size FROM log_head WHERE log = ?1", &values![log as u8], |row| row.get(0));
        Ok(found.map_err(read(DOING))?.unwrap_or(0))
    }

    /// What origins of a log begin with, and the epoch now.
    pub(super) fn log_origin(&self, session: &B::Session, log: Log) -> Result<(String, u64), StoreError> {
        let meta = |name: &str| {
            let sql = "SELECT value FROM meta WHERE name = ?1";
            session.row::<Vec<u8>>(sql, &values![name], |row| row.get(0)).map_err(read(DOING))
        };
        let id = meta("store")?.unwrap_or_default();
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let epoch = meta(META_EPOCH)?.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        Ok((format!("auscult/{id}/{}/", log.name()), epoch.unwrap_or(1)))
    }

    pub(super) fn read_log_state(&self, log: Log) -> Result<LogState, StoreError> {
        let session = self.reader(DOING)?;
        let (origin, epoch) = self.log_origin(&session, log)?;
        let last = match log {
            Log::Acts => "SELECT coalesce(max(sequence), 0) FROM audit",
            Log::Groups => "SELECT coalesce(max(number), 0) FROM group_summary",
        };
        let rows = session.one(last, &[]).map_err(read(DOING))?;
        let size = self.log_size(&session, log)?;
        let checkpoint = page_checkpoints(&*session, log, None, 1)?.into_iter().next();
        Ok(LogState { origin, epoch, rows, size, checkpoint })
    }

    pub(super) fn integrate_log(&self, log: Log, limit: usize, lease: Lease) -> Result<u64, TransactError> {
        let (size, tiles, count) = {
            let session = self.reader(DOING)?;
            let size = self.log_size(&session, log)?;
            let mut leaves = Vec::new();
            for (expected, entry) in (size + 1..).zip(self.entries_on(&session, log, size + 1, limit)?) {
                leaves.push(sound_leaf(log, expected, &entry)?);
            }
            if leaves.is_empty() {
                return Ok(0);
            }
            let mut stored = StoredTiles { session: &*session, log };
            (size, tree::append(&mut stored, size, &leaves).map_err(broken(log))?, leaves.len() as u64)
        };
        let mut writer = self.acts(WRITING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(WRITING))?;
        self.check_lease(&transaction, lease)?;
        let changed = transaction
            .execute(
                "UPDATE log_head SET size = ?3 WHERE log = ?1 AND size = ?2",
                &values![log as u8, size, size + count],
            )
            .map_err(self.wrote(WRITING))?;
        if changed != 1 {
            let detail = "another process took these rows into the tree".to_owned();
            return Err(TransactError::Conflict { kind: "log", detail });
        }
        self.put_tiles(&transaction, log, &tiles)?;
        transaction.commit().map_err(self.wrote(WRITING))?;
        Ok(count)
    }

    fn put_tiles(&self, session: &B::Session, log: Log, tiles: &[Tile]) -> Result<(), StoreError> {
        let packed: Vec<Vec<u8>> = tiles.iter().map(|tile| tile.hashes.concat()).collect();
        let rows: Vec<_> = tiles
            .iter()
            .zip(&packed)
            .map(|(tile, hashes)| values![log as u8, tile.level, tile.number, hashes].to_vec())
            .collect();
        session
            .execute_each(
                "INSERT INTO log_tile(log, level, number, hashes) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(log, level, number) DO UPDATE SET hashes = excluded.hashes",
                &rows,
            )
            .map(drop)
            .map_err(self.wrote(WRITING))
    }

    /// Calls with the tree of the first `size` rows.
    pub(super) fn with_tree<T>(
        &self,
        log: Log,
        size: u64,
        ask: impl FnOnce(&mut Tree<StoredTiles<'_, B::Session>>) -> Result<T, TreeError<DbError>>,
    ) -> Result<T, StoreError> {
        let session = self.reader(DOING)?;
        let mut tree = Tree::new(StoredTiles { session: &*session, log }, size);
        ask(&mut tree).map_err(broken(log))
    }

    pub(super) fn read_tile(&self, log: Log, level: u8, number: u64) -> Result<Vec<Hash>, StoreError> {
        let session = self.reader(DOING)?;
        StoredTiles { session: &*session, log }.tile(level, number).map_err(read(DOING))
    }

    pub(super) fn read_checkpoints(
        &self,
        log: Log,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<KeptCheckpoint>, StoreError> {
        page_checkpoints(&*self.reader(DOING)?, log, before, limit)
    }

    pub(super) fn write_checkpoint(
        &self,
        log: Log,
        checkpoint: &KeptCheckpoint,
        lease: Lease,
    ) -> Result<(), TransactError> {
        let mut writer = self.acts(WRITING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(WRITING))?;
        self.check_lease(&transaction, lease)?;
        let KeptCheckpoint { number, size, at, note } = checkpoint;
        transaction
            .execute(
                "INSERT INTO log_checkpoint(log, number, size, at, note) VALUES(?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT(log, number) DO UPDATE SET note = excluded.note",
                &values![log as u8, *number, *size, at.as_micros(), note],
            )
            .map_err(self.wrote(WRITING))?;
        Ok(transaction.commit().map_err(self.wrote(WRITING))?)
    }

    /// The signing keys, oldest first; made where there is none.
    pub(super) fn read_signers(&self, at: Timestamp) -> Result<Vec<Signer>, StoreError> {
        let domain = Domain::System(Purpose::Log);
        self.keys.sealing(domain, at)?;
        let (origin, _) = self.log_origin(&*self.reader(DOING)?, Log::Acts)?;
        let name = origin.strip_suffix("/acts/").unwrap_or(&origin);
        let keys = self.keys.all_of(domain)?;
        Ok(keys.iter().map(|named| Signer::derive(&named.key, KeyKind::Log, name)).collect())
    }

    pub(super) fn begin_epoch(&self, at: Timestamp) -> Result<bool, TransactError> {
        let mut writer = self.acts(WRITING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(WRITING))?;
        if B::SHARED {
            let sql = "SELECT value FROM counter WHERE name = 'acts' FOR UPDATE";
            let _turn: u64 = transaction.one(sql, &[]).map_err(self.wrote(WRITING))?;
        }
        let gone = transaction
            .execute("DELETE FROM meta WHERE name = ?1", &values![META_RESTORED])
            .map_err(self.wrote(WRITING))?;
        if gone == 0 {
            return Ok(false);
        }
        let (_, epoch) = self.log_origin(&transaction, Log::Acts)?;
        let mut detail =
            format!("A backup was restored; epoch {} begins. The last checkpoints before it:", epoch + 1);
        for log in Log::ALL {
            for kept in page_checkpoints(&*transaction, log, None, 1)? {
                detail = format!("{detail}\n\n{}", kept.note);
            }
        }
        let epoch = (epoch + 1).to_string();
        transaction
            .execute(
                "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                &values![META_EPOCH, epoch.as_bytes()],
            )
            .map_err(self.wrote(WRITING))?;
        let record = AuditRecord {
            detail,
            ..AuditRecord::new(at, Actor::System, AuditAction::Administer, "Epoch of the log")
        };
        self.write_audit(&transaction, &[record])?;
        transaction.commit().map_err(self.wrote(WRITING))?;
        Ok(true)
    }

    pub(super) fn read_entry(&self, sequence: u64) -> Result<Option<(LogEntry, AuditRow)>, StoreError> {
        let session = self.reader(DOING)?;
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE sequence = ?1");
        let found = session.row(&sql, &values![sequence], Plain::from_row).map_err(read(DOING))?;
        let Some(plain) = found else { return Ok(None) };
        let entry = self.act_entry(&plain)?;
        let row = match &entry.content {
            Some(content) => self.read_audit(&plain, content)?,
            None => audit::erased(&plain)?,
        };
        Ok(Some((entry, row)))
    }

    fn act_entry(&self, plain: &Plain) -> Result<LogEntry, StoreError> {
        let content = match self.open_payload(plain) {
            Ok(content) => Some(content),
            Err(StoreError::KeyGone { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(LogEntry { sequence: plain.sequence, header: plain.header(), content, leaf: plain.leaf })
    }

    /// Rows of a log from a sequence on, on a session of one's own.
    pub(super) fn entries_on(
        &self,
        session: &B::Session,
        log: Log,
        from: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        match log {
            Log::Acts => {
                let sql =
                    format!("SELECT {COLUMNS} FROM audit WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2");
                let rows = session.rows(&sql, &values![from, limit], Plain::from_row).map_err(read(DOING))?;
                rows.iter().map(|row| self.act_entry(row)).collect()
            }
            Log::Groups => {
                let sql = "SELECT number, committed_at, leaf, sealed FROM group_summary
                     WHERE number >= ?1 ORDER BY number LIMIT ?2";
                let rows: Vec<(u64, i64, Option<Hash>, Vec<u8>)> = session
                    .rows(sql, &values![from, limit], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                    })
                    .map_err(read(DOING))?;
                rows.into_iter()
                    .map(|(number, at, leaf, sealed)| self.group_entry(number, at, leaf, &sealed))
                    .collect()
            }
        }
    }
}

/// The leaf of the row that must come next.
fn sound_leaf(log: Log, expected: u64, entry: &LogEntry) -> Result<Hash, StoreError> {
    let what = || format!("row {expected} of the log of {}", log.name());
    if entry.sequence != expected {
        return Err(StoreError::Damaged { what: what(), how: "it is missing".to_owned() });
    }
    match leaf_of(entry) {
        Some(leaf) if leaf != entry.leaf => {
            let how = "its leaf does not match its content; it was changed".to_owned();
            Err(StoreError::Damaged { what: what(), how })
        }
        _ => Ok(entry.leaf),
    }
}

/// The leaf computed from what a row says; `None` where that was erased.
pub(super) fn leaf_of(entry: &LogEntry) -> Option<Hash> {
    let (blinding, payload) = entry.content.as_ref()?;
    Some(trust::audit::leaf(&entry.header, blinding, payload))
}

pub(super) fn page_checkpoints<S: Session>(
    session: &S,
    log: Log,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<KeptCheckpoint>, StoreError> {
    session
        .rows(
            "SELECT number, size, at, note FROM log_checkpoint
             WHERE log = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3",
            &values![log as u8, before.unwrap_or(u64::MAX), limit],
            |row| {
                let at = Timestamp::from_micros(row.get(2)?);
                Ok(KeptCheckpoint { number: row.get(0)?, size: row.get(1)?, at, note: row.get(3)? })
            },
        )
        .map_err(read(DOING))
}

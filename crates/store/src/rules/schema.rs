//! The tables of both files, as a numbered list of scripts that only ever grows at its end.

use rusqlite::{Connection, TransactionBehavior};

/// Scripts of `data.db`. Plain columns hold random ids, numbers of measures, sequences, instants and sizes only.
pub(crate) const DATA: &[&str] = &[
    r"
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE journal(number INTEGER PRIMARY KEY, committed_at INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE group_summary(number INTEGER PRIMARY KEY, committed_at INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE cursor(consumer TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE series(
    number INTEGER PRIMARY KEY, subject_kind INTEGER NOT NULL, subject BLOB NOT NULL,
    measure INTEGER NOT NULL, device BLOB NOT NULL,
    UNIQUE(subject_kind, subject, measure, device));
CREATE TABLE latest(
    series INTEGER PRIMARY KEY, measured_at INTEGER NOT NULL, sequence INTEGER NOT NULL, sealed BLOB NOT NULL);

CREATE TABLE block(
    number INTEGER PRIMARY KEY, series INTEGER NOT NULL,
    first_at INTEGER NOT NULL, first_sequence INTEGER NOT NULL, last_at INTEGER NOT NULL,
    count INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE UNIQUE INDEX block_place ON block(series, first_at, first_sequence);
CREATE TABLE wave_block(
    number INTEGER PRIMARY KEY, series INTEGER NOT NULL, start_at INTEGER NOT NULL,
    duration_us INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE INDEX wave_block_place ON wave_block(series, start_at, duration_us);
CREATE INDEX wave_block_duration ON wave_block(series, duration_us);
CREATE TABLE event(
    series INTEGER NOT NULL, at INTEGER NOT NULL, sequence INTEGER NOT NULL, version INTEGER NOT NULL,
    sealed BLOB NOT NULL, PRIMARY KEY(series, at, sequence, version));
CREATE TABLE frame_block(
    number INTEGER PRIMARY KEY, device BLOB NOT NULL, patient BLOB,
    first_received INTEGER NOT NULL, last_received INTEGER NOT NULL,
    count INTEGER NOT NULL, plain_bytes INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE INDEX frame_block_place ON frame_block(device, first_received, last_received);
CREATE INDEX frame_block_open ON frame_block(device, patient, number);

CREATE TABLE quarantine(
    id BLOB PRIMARY KEY, received_at INTEGER NOT NULL, waiting INTEGER NOT NULL, frame_bytes INTEGER NOT NULL,
    sealed BLOB NOT NULL);
CREATE INDEX quarantine_time ON quarantine(received_at, id);
CREATE INDEX quarantine_waiting ON quarantine(received_at, id) WHERE waiting = 1;

CREATE TABLE document(
    kind INTEGER NOT NULL, id BLOB NOT NULL, version INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    sealed BLOB NOT NULL, PRIMARY KEY(kind, id));
CREATE TABLE document_history(
    kind INTEGER NOT NULL, id BLOB NOT NULL, version INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    sealed BLOB NOT NULL, PRIMARY KEY(kind, id, version));
CREATE TABLE document_index(
    kind INTEGER NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, id BLOB NOT NULL, is_unique INTEGER NOT NULL,
    PRIMARY KEY(kind, name, value, id)) WITHOUT ROWID;
CREATE UNIQUE INDEX document_index_unique ON document_index(kind, name, value) WHERE is_unique = 1;
CREATE INDEX document_index_owner ON document_index(kind, id);

CREATE TABLE audit(
    sequence INTEGER PRIMARY KEY, at INTEGER NOT NULL, action INTEGER NOT NULL, outcome INTEGER NOT NULL,
    patient BLOB, actor BLOB NOT NULL, sealed BLOB NOT NULL, leaf BLOB NOT NULL);
CREATE INDEX audit_patient ON audit(patient, sequence) WHERE patient IS NOT NULL;
CREATE INDEX audit_actor ON audit(actor, sequence);
CREATE INDEX audit_time ON audit(at);
",
    r"
CREATE TABLE document_change(
    change INTEGER PRIMARY KEY, kind INTEGER NOT NULL, id BLOB NOT NULL, version INTEGER NOT NULL,
    removed INTEGER NOT NULL);
",
    // The tree over the audit log and over the records of groups, and its signed checkpoints.
    r"
ALTER TABLE audit ADD COLUMN flags INTEGER;
ALTER TABLE audit ADD COLUMN device BLOB;
CREATE INDEX audit_flagged ON audit(sequence) WHERE flags > 0;
CREATE INDEX audit_device ON audit(device, sequence) WHERE device IS NOT NULL;
ALTER TABLE group_summary ADD COLUMN leaf BLOB;
CREATE TABLE log_head(log INTEGER PRIMARY KEY, size INTEGER NOT NULL);
INSERT INTO log_head(log, size) VALUES(1, 0), (2, 0);
CREATE TABLE log_tile(
    log INTEGER NOT NULL, level INTEGER NOT NULL, number INTEGER NOT NULL, hashes BLOB NOT NULL,
    PRIMARY KEY(log, level, number));
CREATE TABLE log_checkpoint(
    log INTEGER NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL, note TEXT NOT NULL,
    PRIMARY KEY(log, number));
",
    // The audit log is searched by what was done, by how it ended, and by broken glass without the heartbeats.
    r"
CREATE INDEX audit_action ON audit(action, sequence);
CREATE INDEX audit_unsuccessful ON audit(outcome, sequence) WHERE outcome <> 0;
CREATE INDEX audit_broken_glass ON audit(sequence) WHERE flags & 1 <> 0;
DROP INDEX audit_flagged;
",
    // Which checkpoints were left when old ones went.
    "CREATE TABLE log_thinned(log INTEGER PRIMARY KEY, note TEXT NOT NULL);",
];

/// Scripts of `keystore.db`.
pub(crate) const KEYSTORE: &[&str] = &[
    r"
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE data_key(
    number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, domain TEXT NOT NULL,
    created_at INTEGER NOT NULL, wrapped BLOB NOT NULL);
CREATE INDEX data_key_domain ON data_key(domain, number);
",
    // Who was erased and by which keys that is known; and which keys are being turned over.
    r"
CREATE TABLE erasure(
    patient BLOB PRIMARY KEY, begun_at INTEGER NOT NULL, purged_at INTEGER, last_group INTEGER NOT NULL,
    epoch TEXT NOT NULL, epoch_ended_at INTEGER);
CREATE TABLE erased_key(id BLOB PRIMARY KEY, patient BLOB NOT NULL);
CREATE TABLE rekey(
    domain TEXT PRIMARY KEY, begun_at INTEGER NOT NULL, newest INTEGER NOT NULL, done INTEGER NOT NULL,
    total INTEGER NOT NULL);
",
];

/// Why a file could not be brought to the format of this release.
pub(crate) enum MigrateError {
    /// The file was written by a later release.
    TooNew { found: u32, known: u32 },
    /// The database said no.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        MigrateError::Database(error)
    }
}

/// Runs the scripts that a file has not seen yet, each in its own transaction.
pub(crate) fn migrate(connection: &mut Connection, scripts: &[&str]) -> Result<(), MigrateError> {
    let found = version(connection)?;
    let known = u32::try_from(scripts.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(MigrateError::TooNew { found, known });
    }
    for (number, script) in (1_u32..).zip(scripts).skip(found as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(script)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The format of a file; 0 for an empty one.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

//! A store that was restored from a backup: what is not known about it since, until somebody has looked.

use clinical_model::Timestamp;
use serde::{Deserialize, Serialize};
use store::{
    Actor, AuditAction, AuditOutcome, AuditQuery, DocumentWrite, Expected, KeyDomain, Kind, Store,
    StoreError, TransactError, Transaction,
};

use crate::audited::Act;
use crate::records::{json_from, json_write};

/// The document that stands until somebody has looked.
const RESTORED_ID: [u8; 16] = *b"restored, look 1";
/// What the audit log calls it.
pub const OBJECT: &str = "Restore";

/// What a restore ended: whoever was let in by it since the backup comes back with the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Sessions, whole and half.
    pub sessions: u64,
    /// What programs were let in for.
    pub grants: u64,
    /// People whose one-time link, recovery codes or awaited sign-in were taken back.
    pub people: u64,
    /// Codes with which devices might still be claimed.
    pub claims: u64,
}

/// A restore that nobody has looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When it was restored.
    pub restored_at: Timestamp,
    /// The last thing that the backup knows of; `None` where it knows of nothing.
    pub as_of: Option<Timestamp>,
    /// What was ended.
    pub ended: Ended,
}

impl Restored {
    /// What nobody can know here, in a sentence.
    pub fn unknown(&self) -> String {
        let since = self.as_of.map_or_else(|| "the backup".to_owned(), |at| at.to_string());
        format!(
            "people and programs that were disabled, reset or removed, certificates that were revoked and consents that were \
             written since {since} are not known here"
        )
    }
}

/// When the last thing was committed that a store knows of: a group of readings or an act.
///
/// # Errors
/// [`StoreError`] on reading.
pub fn last_commit(store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    let groups = store.group_summaries(None, 1)?;
    let acts = store.audit_rows(&AuditQuery { limit: 1, ..AuditQuery::default() })?;
    let last = groups.iter().map(|group| group.committed_at).chain(acts.iter().map(|row| row.record.at));
    Ok(last.max())
}

/// The restore that nobody has looked at yet.
///
/// # Errors
/// [`StoreError`] on reading.
pub fn unseen(store: &dyn Store) -> Result<Option<Restored>, StoreError> {
    let Some(kept) = store.document(Kind::Setting, RESTORED_ID)? else { return Ok(None) };
    let read = json_from(&kept.body);
    let damaged = |error: crate::records::RecordError| StoreError::Damaged {
        what: "note of the restore".to_owned(),
        how: error.to_string(),
    };
    read.map(Some).map_err(damaged)
}

/// Ends what lets somebody in, in one transaction with its row and the note that stands until somebody has looked.
///
/// # Errors
/// [`TransactError`]; nothing was ended then.
pub fn end_access(
    store: &dyn Store,
    restored: &Restored,
    writes: Vec<DocumentWrite>,
) -> Result<(), TransactError> {
    let Restored { restored_at: at, ended, .. } = *restored;
    let detail = format!(
        "a backup was restored; ended: {} sessions, {} grants of programs, one-time links and recovery codes of {} people, \
         {} claim codes; {}",
        ended.sessions,
        ended.grants,
        ended.people,
        ended.claims,
        restored.unknown()
    );
    let act = Act::new(Actor::System, AuditAction::Administer, OBJECT).detail(detail);
    let mut writes = writes;
    writes.push(json_write(
        Kind::Setting,
        RESTORED_ID,
        Expected::Any,
        KeyDomain::System,
        restored,
        Vec::new(),
    ));
    let audit = vec![act.record(at, AuditOutcome::Success)];
    store.transact(&Transaction { at, writes, audit, ..Transaction::default() })
}

/// Notes that somebody has looked; what was restored, where nobody had yet.
///
/// # Errors
/// [`TransactError`].
pub fn confirm(store: &dyn Store, at: Timestamp, note: &str) -> Result<Option<Restored>, TransactError> {
    let Some(restored) = unseen(store)? else { return Ok(None) };
    let detail = format!("looked at after the restore of {}: {note}", restored.restored_at);
    let act = Act::new(Actor::System, AuditAction::Administer, OBJECT).detail(detail);
    let write = DocumentWrite::removal(Kind::Setting, RESTORED_ID);
    let audit = vec![act.record(at, AuditOutcome::Success)];
    store.transact(&Transaction { at, writes: vec![write], audit, ..Transaction::default() })?;
    Ok(Some(restored))
}

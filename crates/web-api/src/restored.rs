//! What a restored backup lets in again, gathered so that the restore can end all of it before anything is served.

use clinical_model::Timestamp;
use pipeline::enrolment::{EnrolError, withdrawal};
use pipeline::records::{RecordError, all_of, json_from};
use pipeline::restored::{Ended, Restored};
use store::{Document, DocumentWrite, Expected, Kind, Store, StoreError, TransactError};

use crate::people::UserRecord;

/// Documents read at once.
const PAGE_LIMIT: usize = 500;

/// Why access was not ended. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    /// The store cannot be read.
    #[error("the restored store cannot be read")]
    Store(#[from] StoreError),
    /// A person's record is not what it should be.
    #[error("the record of a person cannot be read")]
    Person(#[source] RecordError),
    /// What is known of a device's certificates is not what it should be.
    #[error("the enrolment of a device cannot be read")]
    Enrolment(#[from] EnrolError),
    /// It was not written.
    #[error("what lets somebody in could not be ended")]
    Transact(#[from] TransactError),
}

/// Ends everything by which somebody could come in who came in, or was shut out, since the backup: sessions, what programs
/// were let in for, one-time links and codes. Signed assertions that were spent stay spent, and answers
/// to devices stay remembered: they let nobody in.
///
/// # Errors
/// [`RestoredError`].
pub fn end_access(store: &dyn Store, at: Timestamp) -> Result<Restored, RestoredError> {
    let mut ended = Ended::default();
    let mut writes = Vec::new();
    let fleeting = [(Kind::Session, &mut ended.sessions), (Kind::Grant, &mut ended.grants)];
    for (kind, count) in fleeting {
        each(store, kind, |document| {
            *count += 1;
            writes.push(DocumentWrite::removal(kind, document.id));
            Ok(())
        })?;
    }
    each(store, Kind::User, |document| {
        let mut record: UserRecord = json_from(&document.body).map_err(RestoredError::Person)?;
        if take_one_time_ways(&mut record) {
            ended.people += 1;
            writes.push(record.write(store, Expected::Version(document.version)));
        }
        Ok(())
    })?;
    each(store, Kind::Enrolment, |document| {
        if let Some(write) = withdrawal(&document, at)? {
            ended.claims += 1;
            writes.push(write);
        }
        Ok(())
    })?;
    let as_of = pipeline::restored::last_commit(store)?;
    let restored = Restored { restored_at: at, as_of, ended };
    pipeline::restored::end_access(store, &restored, writes)?;
    Ok(restored)
}

/// Calls with every document of a kind.
fn each(
    store: &dyn Store,
    kind: Kind,
    mut take: impl FnMut(Document) -> Result<(), RestoredError>,
) -> Result<(), RestoredError> {
    let mut after = None;
    loop {
        let page = store.documents(&all_of(kind, after.take(), PAGE_LIMIT))?;
        let is_last = page.len() < PAGE_LIMIT;
        after = page.last().map(|last| (last.index_value.clone(), last.id));
        page.into_iter().try_for_each(&mut take)?;
        if is_last {
            return Ok(());
        }
    }
}

/// Takes from a person what works once, or lets in whoever comes first; true where there was something. What they know and
/// carry, password, authenticator app and passkeys, stays.
fn take_one_time_ways(record: &mut UserRecord) -> bool {
    let link = record.link.take().is_some();
    let secret = record.pending_totp.take().is_some();
    let codes = !std::mem::take(&mut record.recovery_codes).is_empty();
    link || secret || codes
}

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
    let provider = record.awaited_provider.take().is_some();
    let codes = !std::mem::take(&mut record.recovery_codes).is_empty();
    link || secret || provider || codes
}

#[cfg(test)]
mod tests {
    use clinical_model::UserId;
    use pipeline::records::json_write;
    use serde_json::{Value, json};
    use store::sqlite::{Options, SqliteStore};
    use store::{KeyDomain, Transaction};

    use super::*;

    const AT: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn put(store: &dyn Store, kind: Kind, id: u8, body: &Value) {
        let domain = KeyDomain::System;
        let writes = vec![json_write(kind, [id; 16], Expected::Absent, domain, body, Vec::new())];
        store.transact(&Transaction { at: AT, writes, ..Transaction::default() }).unwrap();
    }

    fn read(store: &dyn Store, kind: Kind, id: u8) -> Option<Value> {
        store.document(kind, [id; 16]).unwrap().map(|kept| json_from(&kept.body).unwrap())
    }

    fn person(id: u8, name: &str, one_time: Value) -> Value {
        let mut body = json!({
            "id": UserId::from_bytes([id; 16]), "name": name, "display": name, "role": "nurse", "wards": null,
            "disabled": false, "password_hash": "kept",
        });
        let fields = one_time.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(fields);
        body
    }

    /// ATTACK, 20:52: whatever works once, or lasts for a while, comes back with a backup.
    #[test]
    fn what_a_backup_would_let_in_again_is_ended_and_what_people_know_stays() {
        let directory = tempfile::tempdir().unwrap();
        let kek = trust::Kek::from_bytes(&[7; 32]);
        let store = SqliteStore::open(directory.path(), kek, Options::default()).unwrap();
        put(&store, Kind::Session, 1, &json!({}));
        put(&store, Kind::Session, 2, &json!({}));
        put(&store, Kind::Grant, 3, &json!({}));
        put(&store, Kind::SpentAssertion, 4, &json!({}));
        let link = json!({"hash": vec![0; 32], "expires_at": AT});
        put(&store, Kind::User, 5, &person(5, "invited", json!({ "link": link })));
        put(&store, Kind::User, 6, &person(6, "codes", json!({"recovery_codes": [vec![0; 32]]})));
        put(&store, Kind::User, 7, &person(7, "awaited", json!({"awaited_provider": "p1"})));
        put(&store, Kind::User, 8, &person(8, "plain", json!({})));
        let claim = |withdrawn: Option<Timestamp>| {
            json!({"claim": {
                "code_hash": "00", "created_at": AT, "expires_at": AT.plus(std::time::Duration::from_secs(60)),
                "created_by": null, "used_at": null, "used_key_sha256": null, "withdrawn_at": withdrawn,
            }, "certificates": [], "last_renewed_at": null, "review": null, "decommissioned_at": null})
        };
        put(&store, Kind::Enrolment, 9, &claim(None));
        put(&store, Kind::Enrolment, 10, &claim(Some(AT)));

        let restored = end_access(&store, AT).unwrap();
        assert_eq!(restored.ended, Ended { sessions: 2, grants: 1, people: 3, claims: 1 });
        assert_eq!(pipeline::restored::unseen(&store).unwrap(), Some(restored));
        for (kind, id) in [(Kind::Session, 1), (Kind::Session, 2), (Kind::Grant, 3)] {
            assert_eq!(read(&store, kind, id), None);
        }
        assert!(read(&store, Kind::SpentAssertion, 4).is_some(), "it would be believed once more");
        for id in 5..=8 {
            let person = read(&store, Kind::User, id).unwrap();
            assert_eq!(person["password_hash"], "kept");
            for field in ["link", "awaited_provider"] {
                assert!(person.get(field).is_none_or(Value::is_null), "{field} of {person}");
            }
            assert!(person.get("recovery_codes").is_none_or(|codes| codes.as_array().unwrap().is_empty()));
        }
        assert_eq!(read(&store, Kind::Enrolment, 9).unwrap()["claim"]["withdrawn_at"], json!(AT));
        // Once more there is nothing left, and the instant of what is known is that of the restore's own row.
        let again = end_access(&store, AT).unwrap();
        assert_eq!((again.ended, again.as_of), (Ended::default(), Some(AT)));
    }
}

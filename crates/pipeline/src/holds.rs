//! Legal holds: nothing of a patient on hold may be erased or removed, whatever a policy says.

use std::sync::PoisonError;

use clinical_model::{PatientId, RecordId as _, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use store::{
    Actor, AuditAction, AuditOutcome, DocumentWrite, Expected, KeyDomain, Kind, Store, StoreError,
    Transaction,
};

use crate::audited::{Act, Agent};
use crate::desk::{DeskError, refused};
use crate::records;
use crate::site::Site;

/// Documents read at once.
const PAGE_LIMIT: usize = 500;

/// A hold on a patient's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Whose record.
    pub patient: PatientId,
    /// Why.
    pub reason: String,
    /// Who set it.
    pub by: Option<UserId>,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None` until somebody ends it.
    pub until: Option<Timestamp>,
}

impl Hold {
    fn stands(&self, at: Timestamp) -> bool {
        self.until.is_none_or(|until| at < until)
    }
}

/// The hold that stands on a patient's record now.
///
/// # Errors
/// [`StoreError`].
pub fn find(store: &dyn Store, patient: PatientId, at: Timestamp) -> Result<Option<Hold>, StoreError> {
    let kept = store.document(Kind::LegalHold, patient.to_bytes())?;
    let Some(kept) = kept else { return Ok(None) };
    // A hold that cannot be read holds: nothing goes that somebody may have wanted kept.
    let hold = records::json_from(&kept.body).unwrap_or_else(|_| Hold {
        patient,
        reason: "this hold cannot be read".to_owned(),
        by: None,
        since: kept.updated_at,
        until: None,
    });
    Ok(Some(hold).filter(|hold| hold.stands(at)))
}

/// What must be true of the hold on a record for nobody to have changed it since now.
pub(crate) fn expected(store: &dyn Store, patient: PatientId) -> Result<Expected, StoreError> {
    let kept = store.document(Kind::LegalHold, patient.to_bytes())?;
    Ok(kept.map_or(Expected::Absent, |kept| Expected::Version(kept.version)))
}

/// All holds that stand now.
///
/// # Errors
/// [`StoreError`].
pub fn all(store: &dyn Store, at: Timestamp) -> Result<Vec<Hold>, StoreError> {
    let mut holds = Vec::new();
    let mut after = None;
    loop {
        let page = store.documents(&records::all_of(Kind::LegalHold, after, PAGE_LIMIT))?;
        for document in &page {
            holds.extend(find(store, PatientId::from_bytes(document.id), at)?);
        }
        match page.last() {
            Some(last) if page.len() == PAGE_LIMIT => after = Some((last.index_value.clone(), last.id)),
            _ => return Ok(holds),
        }
    }
}

impl Site {
    /// Sets a hold on a patient's record, or changes it.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn hold(
        &self,
        by: impl Into<Agent>,
        patient: PatientId,
        reason: &str,
        until: Option<Timestamp>,
    ) -> Result<Hold, DeskError> {
        let by = by.into();
        // Not while an erasure looks for holds.
        let _desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.clock().now();
        self.patient_is_here(patient)?;
        if reason.trim().is_empty() {
            return Err(DeskError::Time { what: "a hold needs a reason".to_owned() });
        }
        if until.is_some_and(|until| until <= at) {
            return Err(DeskError::Time { what: "the end of the hold has passed already".to_owned() });
        }
        let user = match by.who {
            Actor::User(user) => Some(user),
            _ => None,
        };
        let hold = Hold { patient, reason: reason.trim().to_owned(), by: user, since: at, until };
        let domain = KeyDomain::Patient(patient);
        let write = records::json_write(
            Kind::LegalHold,
            patient.to_bytes(),
            Expected::Any,
            domain,
            &hold,
            Vec::new(),
        );
        let act = by.act(AuditAction::Create, "legal hold").patient(patient).detail(reason);
        // Where another node erases the patient meanwhile, there is nothing to hold.
        let not_erased = DocumentWrite {
            kind: Kind::Erasure,
            id: patient.to_bytes(),
            expected: Expected::Absent,
            domain: KeyDomain::System,
            body: None,
            index: Vec::new(),
        };
        self.keep_hold(at, vec![write, not_erased], act)?;
        Ok(hold)
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn end_hold(&self, by: impl Into<Agent>, patient: PatientId, reason: &str) -> Result<(), DeskError> {
        let at = self.clock().now();
        self.patient_is_here(patient)?;
        if find(self.store(), patient, at).map_err(DeskError::Store)?.is_none() {
            return Err(DeskError::NotFound { what: "hold on", id: patient.to_string() });
        }
        let write = DocumentWrite {
            kind: Kind::LegalHold,
            id: patient.to_bytes(),
            expected: Expected::Any,
            domain: KeyDomain::Patient(patient),
            body: None,
            index: Vec::new(),
        };
        let act = by.into().act(AuditAction::Delete, "legal hold").patient(patient).detail(reason);
        self.keep_hold(at, vec![write], act)
    }

    fn patient_is_here(&self, patient: PatientId) -> Result<(), DeskError> {
        let known = self.registry().patient(patient);
        known.map(drop).ok_or_else(|| DeskError::NotFound { what: "patient", id: patient.to_string() })
    }

    fn keep_hold(&self, at: Timestamp, writes: Vec<DocumentWrite>, act: Act) -> Result<(), DeskError> {
        let audit = vec![act.record(at, AuditOutcome::Success)];
        let transaction = Transaction { at, writes, audit, ..Transaction::default() };
        self.store().transact(&transaction).map_err(|error| refused("the hold", error))
    }
}

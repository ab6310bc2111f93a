//! Consents: kept as the FHIR resources that were written, held in memory as one decision table a patient, and asked
//! before anything of a patient is shown.
//!
//! A change holds from the next question on, on this node at once and on the others as soon as they have heard of it.
//! Consents decide who sees; they never decide what is measured, judged or alarmed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use access::consent::{Allowed, Asker, CompileError, Defaults, Ruled, Table, Use, Wards};
use clinical_model::{
    Consent, ConsentAction, ConsentId, ConsentStatus, PatientId, Purpose, RecordId as _, Ruling, Subject,
    Timestamp, UserId,
};
use serde_json::Value;
use store::{
    AuditOutcome, Document, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Store, StoreError,
    Transaction,
};

use crate::audited::Act;
use crate::desk::{DeskError, refused};
use crate::live::Happening;
use crate::records;
use crate::site::Site;

/// The setting that says what holds where no consent speaks.
const DEFAULTS: [u8; 16] = *b"consent-defaults";
/// The index of a patient's consents.
const BY_PATIENT: &str = "about";
/// Documents read at once.
const PAGE: usize = 500;

/// A consent with the document it is kept in.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it says.
    pub consent: Arc<Consent>,
    /// Version of the document.
    pub version: u64,
    /// When that version was written.
    pub written_at: Timestamp,
    /// Who wrote it down: `Practitioner/…`, `Patient/…`.
    pub performer: Option<String>,
}

#[derive(Default)]
struct Known {
    kept: BTreeMap<ConsentId, Kept>,
    of: HashMap<PatientId, Vec<ConsentId>>,
    /// `Err`: they cannot be compiled, and nothing is shown by them.
    tables: HashMap<PatientId, Result<Arc<Table>, CompileError>>,
    named: HashMap<UserId, Vec<PatientId>>,
    defaults: Defaults,
}

impl Known {
    fn put(&mut self, kept: Kept) {
        let (id, patient) = (kept.consent.id, kept.consent.patient);
        // The patient of a consent never changes: who is not the same would be another's.
        if let Some(before) = self.kept.insert(id, kept).filter(|before| before.consent.patient != patient) {
            self.forget(before.consent.patient, id);
        }
        let of = self.of.entry(patient).or_default();
        if !of.contains(&id) {
            of.push(id);
        }
        self.compile(patient);
    }

    fn forget(&mut self, patient: PatientId, id: ConsentId) {
        if let Some(of) = self.of.get_mut(&patient) {
            of.retain(|one| *one != id);
        }
        self.compile(patient);
    }

    fn compile(&mut self, patient: PatientId) {
        let ids = self.of.get(&patient).map_or(&[][..], Vec::as_slice);
        let consents = ids.iter().filter_map(|id| self.kept.get(id)).map(|kept| kept.consent.as_ref());
        let table = Table::compile(consents).map(Arc::new);
        if let Err(error) = &table {
            tracing::error!(
                error = error as &dyn std::error::Error,
                patient = %patient,
                "the consents of a patient cannot be enforced; nothing is shown until they are put right"
            );
        }
        for patients in self.named.values_mut() {
            patients.retain(|one| *one != patient);
        }
        self.named.retain(|_, patients| !patients.is_empty());
        for user in table.as_ref().map(|table| table.caregivers()).unwrap_or_default() {
            self.named.entry(user).or_default().push(patient);
        }
        match &table {
            Ok(table) if table.is_empty() => drop(self.tables.remove(&patient)),
            _ => drop(self.tables.insert(patient, table)),
        }
    }
}

/// The consents of all patients, held in memory.
#[derive(Default)]
pub struct Consents {
    known: RwLock<Known>,
    /// Counts every change of what somebody may see.
    version: AtomicU64,
}

fn damaged(error: &records::RecordError) -> StoreError {
    StoreError::Damaged { what: "document of a consent".to_owned(), how: error.to_string() }
}

/// Reads a consent as it is kept.
fn consent_from(document: &Document) -> Result<Kept, StoreError> {
    let resource: Value = records::json_from(&document.body).map_err(|error| damaged(&error))?;
    let consent = health_codecs::fhir::consent::parse(&resource)
        .map_err(|issues| damaged(&records::RecordError::Meaning { what: format!("{issues:?}") }))?;
    let (version, written_at, performer) = (document.version, document.updated_at, performer_of(&resource));
    Ok(Kept { consent: Arc::new(consent), version, written_at, performer })
}

fn performer_of(resource: &Value) -> Option<String> {
    resource["performer"][0]["reference"].as_str().map(str::to_owned)
}

impl Consents {
    /// Everything that the store keeps.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let consents = Consents::default();
        consents.reload(store)?;
        Ok(consents)
    }

    /// Everything once more, in place of what was known.
    ///
    /// # Errors
    /// [`StoreError`]; what was known stays then.
    pub(crate) fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut known = Known { defaults: defaults_from(store)?, ..Known::default() };
        let mut after = None;
        loop {
            let page = store.documents(&records::all_of(Kind::Consent, after.take(), PAGE))?;
            for document in &page {
                known.put(consent_from(document)?);
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some((last.index_value.clone(), last.id)),
                _ => break,
            }
        }
        *self.write() = known;
        Ok(())
    }

    /// Takes up a consent that another node wrote or removed; whose it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn refresh(&self, store: &dyn Store, id: [u8; 16]) -> Result<Option<PatientId>, StoreError> {
        let id_of = ConsentId::from_bytes(id);
        let found = store.document(Kind::Consent, id)?;
        let kept = found.map(|document| consent_from(&document)).transpose()?;
        let mut known = self.write();
        Ok(match kept {
            Some(kept) if known.kept.get(&id_of).is_some_and(|before| kept.version <= before.version) => None,
            Some(kept) => {
                let patient = kept.consent.patient;
                known.put(kept);
                Some(patient)
            }
            None => known.kept.remove(&id_of).map(|before| {
                known.forget(before.consent.patient, id_of);
                before.consent.patient
            }),
        })
    }

    /// Takes up the defaults where the setting of that id is theirs; whether it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn refresh_defaults(&self, store: &dyn Store, id: [u8; 16]) -> Result<bool, StoreError> {
        if id != DEFAULTS {
            return Ok(false);
        }
        let defaults = defaults_from(store)?;
        self.write().defaults = defaults;
        Ok(true)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every change is counted before anybody can read it.
    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        let known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        self.moved();
        known
    }

    /// Something changed in what somebody may see.
    pub(crate) fn moved(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Grows with every change of a consent, of the defaults, or of a broken glass.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// One consent.
    pub fn get(&self, id: ConsentId) -> Option<Kept> {
        self.read().kept.get(&id).cloned()
    }

    /// The consents of a patient, the latest first.
    pub fn of(&self, patient: PatientId) -> Vec<Kept> {
        let known = self.read();
        let ids = known.of.get(&patient).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<Kept> = ids.iter().filter_map(|id| known.kept.get(id)).cloned().collect();
        found.sort_by(|a, b| {
            b.consent.dated_at.cmp(&a.consent.dated_at).then(b.consent.id.cmp(&a.consent.id))
        });
        found
    }

    /// Every consent, by id.
    pub fn all(&self) -> Vec<Kept> {
        self.read().kept.values().cloned().collect()
    }

    /// What holds where no consent speaks.
    pub fn defaults(&self) -> Defaults {
        self.read().defaults.clone()
    }

    /// The patients in whose consents somebody is named as a caregiver.
    pub fn named(&self, caregiver: UserId) -> Vec<PatientId> {
        self.read().named.get(&caregiver).cloned().unwrap_or_default()
    }

    /// Forgets everything about a patient who was erased.
    pub fn forget_patient(&self, patient: PatientId) {
        let mut known = self.write();
        for id in known.of.remove(&patient).unwrap_or_default() {
            known.kept.remove(&id);
        }
        known.compile(patient);
    }

    /// What consents and defaults leave of a patient.
    fn allowed(&self, patient: PatientId, asker: &Asker<'_>, using: Use) -> Allowed {
        let known = self.read();
        let ruled = match known.tables.get(&patient) {
            Some(Ok(table)) => table.rule(asker, using),
            Some(Err(_)) => return Allowed::NONE,
            None => Ruled::NOTHING,
        };
        Allowed::of(ruled, known.defaults.of(using.purpose))
    }
}

fn defaults_from(store: &dyn Store) -> Result<Defaults, StoreError> {
    let Some(document) = store.document(Kind::Setting, DEFAULTS)? else { return Ok(Defaults::default()) };
    let set: BTreeMap<Purpose, Ruling> =
        records::json_from(&document.body).map_err(|error| damaged(&error))?;
    Ok(Defaults::with(set))
}

fn consent_write(consent: &Consent, resource: &Value, expected: Expected) -> DocumentWrite {
    let about = IndexEntry { name: BY_PATIENT, value: consent.patient.to_bytes().to_vec(), unique: false };
    let domain = KeyDomain::Patient(consent.patient);
    records::json_write(Kind::Consent, consent.id.to_bytes(), expected, domain, resource, vec![about])
}

/// Roles that care for the patients of their wards.
const CARING: &[&str] = &["nurse", "physician"];

impl Site {
    /// The consents of all patients.
    pub fn consents(&self) -> &Consents {
        &self.documents.consents
    }

    /// What the patient's consents, the site's defaults and broken glasses leave of a patient to somebody now. Whoever
    /// cares for the patient in their ward always knows that the patient is there; who is the patient sees everything.
    pub fn consented(
        &self,
        patient: PatientId,
        asker: &Asker<'_>,
        purpose: Purpose,
        action: ConsentAction,
    ) -> Allowed {
        if asker.patient == Some(patient)
            || asker.program.is_none()
                && asker.user.is_some_and(|user| self.broken_glass(user, patient).is_some())
        {
            return Allowed::ALL;
        }
        let using = Use { purpose, action, at: self.clock().now() };
        let allowed = self.documents.consents.allowed(patient, asker, using);
        if self.cares_for(patient, asker) { allowed.with_record() } else { allowed }
    }

    /// Whether somebody is a nurse or physician of the ward where a patient lies now: no consent keeps an alarm from them.
    pub fn cares_for(&self, patient: PatientId, asker: &Asker<'_>) -> bool {
        if !asker.role.is_some_and(|role| CARING.contains(&role)) {
            return false;
        }
        let patient = self.registry().patient(patient);
        let ward = patient.and_then(|patient| self.registry().ward_of(&patient));
        match ward {
            Some(ward) => asker.wards.contains(ward),
            None => asker.wards == Wards::All,
        }
    }

    /// Keeps a consent, new or in place of the version that `expected` names; its version now.
    ///
    /// # Errors
    /// [`DeskError::Taken`] where the consents of the patient could then no longer be enforced, [`DeskError::NotFound`]
    /// where there is no such patient, [`DeskError::Conflict`] where `expected` does not hold.
    pub fn put_consent(
        &self,
        act: Act,
        consent: Consent,
        resource: &Value,
        expected: Expected,
    ) -> Result<u64, DeskError> {
        let _desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let patient = consent.patient;
        if self.registry().patient(patient).is_none() {
            return Err(DeskError::NotFound { what: "patient", id: patient.to_string() });
        }
        let before = self.documents.consents.get(consent.id);
        if before.as_ref().is_some_and(|before| before.consent.patient != patient) {
            return Err(DeskError::Taken { what: "a consent stays that of its patient".to_owned() });
        }
        let kept = self.documents.consents.of(patient);
        let others = kept.iter().map(|kept| kept.consent.as_ref()).filter(|other| other.id != consent.id);
        Table::compile(others.chain([&consent]))
            .map_err(|error| DeskError::Taken { what: error.to_string() })?;
        let write = consent_write(&consent, resource, expected);
        let written_at = self.clock().now();
        let act = act.patient(patient);
        self.transact_with(act, written_at, vec![write]).map_err(|error| refused("the consent", error))?;
        let version = match expected {
            Expected::Version(version) => version + 1,
            Expected::Absent | Expected::Any => 1,
        };
        let performer = performer_of(resource);
        self.documents.consents.write().put(Kept {
            consent: Arc::new(consent),
            version,
            written_at,
            performer,
        });
        self.live().happened(Happening::Assignment { subject: Subject::Patient(patient) });
        Ok(version)
    }

    /// Says what holds where no consent speaks.
    ///
    /// # Errors
    /// [`DeskError::Store`].
    pub fn set_consent_defaults(
        &self,
        act: Act,
        set: &BTreeMap<Purpose, Ruling>,
    ) -> Result<Defaults, DeskError> {
        let _desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let write =
            records::json_write(Kind::Setting, DEFAULTS, Expected::Any, KeyDomain::System, set, Vec::new());
        let kept = self.transact_with(act, self.clock().now(), vec![write]);
        kept.map_err(|error| refused("the defaults", error))?;
        let defaults = Defaults::with(set.clone());
        self.documents.consents.write().defaults = defaults.clone();
        self.live().lost();
        Ok(defaults)
    }

    pub(crate) fn transact_with(
        &self,
        act: Act,
        at: Timestamp,
        writes: Vec<DocumentWrite>,
    ) -> Result<(), store::TransactError> {
        let audit = vec![self.record_of(act, at, AuditOutcome::Success)];
        self.store().transact(&Transaction { at, writes, audit, ..Transaction::default() })
    }
}

/// Whether a consent says something now.
pub fn is_effective(consent: &Consent, at: Timestamp) -> bool {
    consent.status == ConsentStatus::Active
        && (consent.base == Some(Ruling::Deny)
            || consent.provision.as_ref().is_none_or(|provision| provision.holds_at(at)))
}

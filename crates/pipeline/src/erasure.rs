//! Erasing a patient: the hold is asked, the key destroyed, everything in memory forgotten, the rows removed step by step,
//! and a signed statement of it kept that anybody can check.

use std::sync::PoisonError;

use clinical_model::{Assignment, Patient, PatientId, RecordId as _, Subject, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use store::{
    Actor, AuditAction, AuditOutcome, Care, DocumentQuery, DocumentWrite, ErasedPatient, ErasureScope,
    Expected, KeyDomain, Kind, Order, Rows, Store, StoreError, TransactError, Transaction,
};
use trust::attest::{AttestError, Signer};

use crate::audited::{Act, Agent};
use crate::holds::{self, Hold};
use crate::records;
use crate::rekeying::Pace;
use crate::site::Site;

/// Rows removed in one step: short enough that a commit does not wait long behind it.
const STEP_LIMIT_ROWS: usize = 256;
/// Steps at one time before others have their turn.
const STEPS_AT_ONCE: usize = 64;
/// Documents about a patient under keys of the system that are looked for at once.
const PAGE_LIMIT: usize = 200;
/// Longest number of a request, in characters: a case number, not a letter.
pub const REQUEST_LIMIT_CHARS: usize = 80;
/// The document that holds the signer of statements.
const SIGNER_ID: [u8; 16] = *b"erasure signer 1";

/// What was removed, in the words of the statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRows {
    /// Blocks of readings, with latest values.
    pub readings: u64,
    /// Blocks of waveforms.
    pub waveforms: u64,
    /// Events.
    pub events: u64,
    /// Bundles of raw frames.
    pub raw_frames: u64,
    /// Documents with all their versions.
    pub documents: u64,
    /// Quarantined items.
    pub quarantine: u64,
    /// Details of audit rows.
    pub audit_details: u64,
}

impl RemovedRows {
    fn add(&mut self, rows: &Rows) {
        self.readings += rows.blocks + rows.latest;
        self.waveforms += rows.curves;
        self.events += rows.events;
        self.raw_frames += rows.raw_frames;
        self.documents += rows.documents;
        self.quarantine += rows.quarantine;
        self.audit_details += rows.audit_details;
    }
}

impl From<&Rows> for RemovedRows {
    fn from(rows: &Rows) -> Self {
        let mut removed = RemovedRows::default();
        removed.add(rows);
        removed
    }
}

/// A device and the time at which it was the patient's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worn {
    /// Which device.
    pub device: clinical_model::DeviceId,
    /// Since when.
    pub start: Timestamp,
    /// Until when; `None` where it still was.
    pub end: Option<Timestamp>,
}

/// One erasure, as it is kept: nothing in it says who the patient was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The random id of the patient; this erasure goes by it as well.
    pub patient: PatientId,
    /// The number of the request, without names.
    pub request: String,
    /// Who erased.
    pub by: Option<UserId>,
    /// When the key was destroyed.
    pub begun_at: Timestamp,
    /// When the last row was gone.
    pub purged_at: Option<Timestamp>,
    /// The epoch of the key-encryption key in which the patient's key was destroyed.
    pub epoch: String,
    /// When the key of that epoch was destroyed.
    pub epoch_destroyed_at: Option<Timestamp>,
    /// Until when the epoch must have turned.
    pub turn_due_by: Timestamp,
    /// What was removed.
    pub removed: RemovedRows,
    /// What devices sent while they were the patient's is removed too.
    pub worn: Vec<Worn>,
    /// The exact bytes of the newest statement, as text.
    pub statement: Option<String>,
    /// Its signature in DER, as hexadecimal digits.
    pub signature: Option<String>,
}

impl Erasure {
    fn scope(&self) -> ErasureScope {
        let interval = |worn: &Worn| clinical_model::Interval { start: worn.start, end: worn.end };
        ErasureScope { devices: self.worn.iter().map(|worn| (worn.device, interval(worn))).collect() }
    }

    /// `purging`, `waiting-for-turn` or `complete`.
    pub fn state(&self) -> &'static str {
        match (self.purged_at, self.epoch_destroyed_at) {
            (None, _) => "purging",
            (Some(_), None) => "waiting-for-turn",
            (Some(_), Some(_)) => "complete",
        }
    }
}

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct ErasureOrder {
    /// Whose record.
    pub patient: PatientId,
    /// Why; kept in the audit log.
    pub reason: String,
    /// The number of the request, without names.
    pub request: String,
    /// The record number, typed once more.
    pub confirm: String,
    /// Days within which the epoch must turn.
    pub turn_within_days: u32,
}

/// What would be removed.
#[derive(Clone, Debug)]
pub struct ErasurePreview {
    /// Who.
    pub patient: Patient,
    /// What holds it up.
    pub hold: Option<Hold>,
    /// Rows.
    pub rows: Rows,
    /// Devices that were the patient's.
    pub worn: Vec<Worn>,
    /// Open alerts.
    pub alerts_open: usize,
}

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// Nobody of that id is here.
    #[error("there is no such patient")]
    NotFound,
    /// A legal hold stands on the record.
    #[error("a legal hold stands on this record since {since}; end it first")]
    OnHold {
        /// Since when.
        since: Timestamp,
    },
    /// What was typed is not the record number.
    #[error("the confirmation is not the record number of this patient; nothing was erased")]
    NotConfirmed,
    /// A field makes no sense.
    #[error("{what}")]
    Field {
        /// Which, and in what way.
        what: &'static str,
    },
    /// The signer of statements failed.
    #[error("the statement cannot be signed")]
    Signer(#[source] AttestError),
    /// The store failed.
    #[error("the erasure could not be kept")]
    Transact(#[source] TransactError),
    /// The store failed.
    #[error("the store failed while erasing")]
    Store(#[source] StoreError),
}

impl From<StoreError> for ErasureError {
    fn from(error: StoreError) -> Self {
        ErasureError::Store(error)
    }
}

impl From<TransactError> for ErasureError {
    fn from(error: TransactError) -> Self {
        ErasureError::Transact(error)
    }
}

/// Goes on with erasures that were under way when the process ended, or that a restored copy must make up for, as far
/// as is needed before anything is loaded: no document of an erased patient is left.
///
/// # Errors
/// [`StoreError`]; the site must not start then.
pub(crate) fn resume(store: &dyn Store) -> Result<(), StoreError> {
    begin_ordered(store)?;
    let care = store.care();
    for erased in care.erasures()?.iter().filter(|erased| erased.purged_at.is_none()) {
        tracing::warn!(patient = %erased.patient, "an erasure goes on");
        let assignments = assignments_about(store, erased.patient)?;
        let mut erasure = remembered(store, erased, &assignments)?;
        for assignment in assignments {
            remove(store, Kind::Assignment, assignment.id.to_bytes())?;
        }
        loop {
            let (rows, _) = care.step_erasure(erased.patient, &ErasureScope::default(), STEP_LIMIT_ROWS)?;
            erasure.removed.add(&rows);
            if rows.total() == 0 {
                break;
            }
        }
        // The statement counts also what was removed here.
        keep(store, &erasure)?;
    }
    Ok(())
}

/// Destroys the keys of patients whose erasure was ordered, where the process ended, or the store failed, between the order
/// and the key. Whose they were.
fn begin_ordered(store: &dyn Store) -> Result<Vec<PatientId>, StoreError> {
    let known: std::collections::HashSet<PatientId> =
        store.care().erasures()?.iter().map(|erased| erased.patient).collect();
    let mut begun = Vec::new();
    for erasure in all_of(store)?.into_iter().filter(|erasure| !known.contains(&erasure.patient)) {
        tracing::warn!(patient = %erasure.patient, "an erasure was ordered and its key still there; it is destroyed now");
        store.care().begin_erasure(erasure.patient, erasure.begun_at)?;
        begun.push(erasure.patient);
    }
    Ok(begun)
}

/// All erasures as they are kept.
fn all_of(store: &dyn Store) -> Result<Vec<Erasure>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.documents(&records::all_of(Kind::Erasure, after, PAGE_LIMIT))?;
        all.extend(page.iter().filter_map(|one| records::json_from::<Erasure>(&one.body).ok()));
        match page.last() {
            Some(last) if page.len() == PAGE_LIMIT => after = Some((last.index_value.clone(), last.id)),
            _ => return Ok(all),
        }
    }
}

/// One that a list beside the key brought into a restored copy has no document here.
fn restored(erased: &ErasedPatient, worn: Vec<Worn>, now: Timestamp) -> Erasure {
    Erasure {
        patient: erased.patient,
        request: "restored from the list of erasures".to_owned(),
        by: None,
        begun_at: erased.begun_at,
        purged_at: None,
        epoch: erased.epoch.clone(),
        epoch_destroyed_at: None,
        turn_due_by: now,
        removed: RemovedRows::default(),
        worn,
        statement: None,
        signature: None,
    }
}

/// An erasure as it is kept; of one in a restored copy, which has none, which devices were the patient's is kept before its
/// assignments go: what they sent that nobody could read names no patient, and goes as well.
fn remembered(
    store: &dyn Store,
    erased: &ErasedPatient,
    assignments: &[Assignment],
) -> Result<Erasure, StoreError> {
    let kept = store.document(Kind::Erasure, erased.patient.to_bytes())?;
    if let Some(known) = kept.and_then(|one| records::json_from(&one.body).ok()) {
        return Ok(known);
    }
    let worn = |one: &Assignment| Worn {
        device: one.device,
        start: one.interval.start,
        // What was sent after the erasure was nobody's.
        end: Some(one.interval.end.unwrap_or(erased.begun_at)),
    };
    let erasure = restored(erased, assignments.iter().map(worn).collect(), wall_clock());
    keep(store, &erasure)?;
    Ok(erasure)
}

fn keep(store: &dyn Store, erasure: &Erasure) -> Result<(), StoreError> {
    let transaction =
        Transaction { at: wall_clock(), writes: vec![erasure_write(erasure)], ..Transaction::default() };
    match store.transact(&transaction) {
        Ok(()) | Err(TransactError::Conflict { .. } | TransactError::LeaseLost { .. }) => Ok(()),
        Err(TransactError::Store(error)) => Err(error),
    }
}

/// For when no site is there yet that has a clock.
fn wall_clock() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

fn remove(store: &dyn Store, kind: Kind, id: [u8; 16]) -> Result<(), StoreError> {
    let at = wall_clock();
    let transaction =
        Transaction { at, writes: vec![DocumentWrite::removal(kind, id)], ..Transaction::default() };
    match store.transact(&transaction) {
        Ok(()) | Err(TransactError::Conflict { .. } | TransactError::LeaseLost { .. }) => {}
        Err(TransactError::Store(error)) => return Err(error),
    }
    store.care().forget_versions(&[(kind, id)])
}

/// Assignments to a patient as they are kept; for when no registry is there yet.
fn assignments_about(store: &dyn Store, patient: PatientId) -> Result<Vec<Assignment>, StoreError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.documents(&records::all_of(Kind::Assignment, after, PAGE_LIMIT))?;
        let assignments = page.iter().filter_map(|one| records::json_from::<Assignment>(&one.body).ok());
        found.extend(assignments.filter(|one| one.subject == Subject::Patient(patient)));
        match page.last() {
            Some(last) if page.len() == PAGE_LIMIT => after = Some((last.index_value.clone(), last.id)),
            _ => return Ok(found),
        }
    }
}

/// The signer of statements, where there is one.
///
/// # Errors
/// [`ErasureError`].
pub fn known_signer(store: &dyn Store) -> Result<Option<Signer>, ErasureError> {
    let kept = store.document(Kind::Setting, SIGNER_ID)?;
    kept.map(|kept| Signer::from_bytes(&kept.body).map_err(ErasureError::Signer)).transpose()
}

/// The signer of statements: kept sealed, made with the first one.
///
/// # Errors
/// [`ErasureError`].
pub fn signer(store: &dyn Store, name: &str, at: Timestamp) -> Result<Signer, ErasureError> {
    loop {
        if let Some(known) = known_signer(store)? {
            return Ok(known);
        }
        let micros = u64::try_from(at.as_micros()).unwrap_or(0);
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros);
        let made = Signer::generate(&format!("{name}: erasures"), now).map_err(ErasureError::Signer)?;
        let write = DocumentWrite {
            kind: Kind::Setting,
            id: SIGNER_ID,
            expected: Expected::Absent,
            domain: KeyDomain::System,
            body: Some(made.to_bytes().to_vec()),
            index: Vec::new(),
        };
        match store.transact(&Transaction { at, writes: vec![write], ..Transaction::default() }) {
            Ok(()) => return Ok(made),
            // Another node was faster: its signer is everybody's.
            Err(TransactError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The statement of an erasure: what happened, in words and numbers, and nothing that says who it was.
#[derive(Serialize)]
struct Statement<'a> {
    statement: &'static str,
    site: &'a str,
    patient: PatientId,
    request: &'a str,
    key_destroyed_at: Timestamp,
    rows_removed_at: Option<Timestamp>,
    rows_removed: RemovedRows,
    epoch: &'a str,
    epoch_destroyed_at: Option<Timestamp>,
    copies: String,
}

fn statement(erasure: &Erasure, site: &str) -> String {
    let copies = match erasure.epoch_destroyed_at {
        Some(at) => format!(
            "The key-encryption key of epoch {} was destroyed at {at}. Copies made before hold the patient's key only \
             wrapped by it, so that nothing of the patient in them can be opened.",
            erasure.epoch
        ),
        None => format!(
            "Copies made before hold the patient's key wrapped by the key-encryption key of epoch {}. They stop being \
             readable for this patient when that key is destroyed, at the latest by {}.",
            erasure.epoch, erasure.turn_due_by
        ),
    };
    let statement = Statement {
        statement: "All data of this patient were erased: the data key was destroyed and the rows were removed.",
        site,
        patient: erasure.patient,
        request: &erasure.request,
        key_destroyed_at: erasure.begun_at,
        rows_removed_at: erasure.purged_at,
        rows_removed: erasure.removed,
        epoch: &erasure.epoch,
        epoch_destroyed_at: erasure.epoch_destroyed_at,
        copies,
    };
    // Our own words have text keys and whole numbers only, so that writing them as JSON cannot fail.
    serde_json::to_string_pretty(&statement).unwrap_or_default() + "\n"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn erasure_write(erasure: &Erasure) -> DocumentWrite {
    records::json_write(
        Kind::Erasure,
        erasure.patient.to_bytes(),
        Expected::Any,
        KeyDomain::System,
        erasure,
        Vec::new(),
    )
}

impl Site {
    fn care(&self) -> &dyn Care {
        self.store().care()
    }

    /// Devices and the times at which they were a patient's.
    fn worn_by(&self, patient: PatientId) -> Vec<(Assignment, Worn)> {
        let devices = self.registry().devices();
        let all = devices.iter().flat_map(|device| self.registry().assignments(device.id));
        all.filter(|one| one.subject == Subject::Patient(patient))
            .map(|one| {
                let (start, end) = (one.interval.start, one.interval.end);
                (one, Worn { device: one.device, start, end })
            })
            .collect()
    }

    /// What an erasure would remove. Counts only; shows nothing of the chart.
    ///
    /// # Errors
    /// [`ErasureError`].
    pub fn preview_erasure(
        &self,
        by: impl Into<Agent>,
        patient: PatientId,
    ) -> Result<ErasurePreview, ErasureError> {
        let known = self.registry().patient(patient).ok_or(ErasureError::NotFound)?;
        let act = by.into().act(AuditAction::Read, "erasure").patient(patient).detail("what would go");
        self.record(act, AuditOutcome::Success)?;
        let worn: Vec<Worn> = self.worn_by(patient).into_iter().map(|(_, worn)| worn).collect();
        let interval = |worn: &Worn| clinical_model::Interval { start: worn.start, end: worn.end };
        let scope = ErasureScope { devices: worn.iter().map(|worn| (worn.device, interval(worn))).collect() };
        let alarms = self.alarms().lock().unwrap_or_else(PoisonError::into_inner);
        let alerts_open = alarms.open().filter(|alert| alert.subject == Subject::Patient(patient)).count();
        drop(alarms);
        Ok(ErasurePreview {
            patient: (*known).clone(),
            hold: holds::find(self.store(), patient, self.clock().now())?,
            rows: self.care().count_patient(patient, &scope)?,
            worn,
            alerts_open,
        })
    }

    /// Destroys the key of a patient and begins to remove the rows; the rest follows in the background. When this
    /// returns, nothing of the patient can be read any more.
    ///
    /// # Errors
    /// [`ErasureError`]; nothing was erased then, unless it is a failure of the store.
    pub fn erase(&self, by: impl Into<Agent>, order: &ErasureOrder) -> Result<Erasure, ErasureError> {
        let by = by.into();
        let _desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let patient = order.patient;
        let known = self.registry().patient(patient).ok_or(ErasureError::NotFound)?;
        if order.reason.trim().is_empty() {
            return Err(ErasureError::Field { what: "a reason is needed" });
        }
        if order.request.trim().is_empty() || order.request.chars().count() > REQUEST_LIMIT_CHARS {
            return Err(ErasureError::Field {
                what: "the number of the request must have 1 to 80 characters",
            });
        }
        if order.confirm.trim() != known.record_number.expose() {
            return Err(ErasureError::NotConfirmed);
        }
        let at = self.clock().now();
        let hold = holds::expected(self.store(), patient)?;
        if let Some(hold) = holds::find(self.store(), patient, at)? {
            return Err(ErasureError::OnHold { since: hold.since });
        }
        let worn = self.worn_by(patient);
        let mut erasure = Erasure {
            patient,
            request: order.request.trim().to_owned(),
            by: match by.who {
                Actor::User(user) => Some(user),
                _ => None,
            },
            begun_at: at,
            purged_at: None,
            epoch: self.care().key_status()?.epoch,
            epoch_destroyed_at: None,
            turn_due_by: at.plus(std::time::Duration::from_secs(u64::from(order.turn_within_days) * 86_400)),
            removed: RemovedRows::default(),
            // What a device sends from now on is nobody's any more.
            worn: worn.iter().map(|(_, worn)| Worn { end: worn.end.or(Some(at)), ..*worn }).collect(),
            statement: None,
            signature: None,
        };
        // The act stands in the log before anything is gone, without the patient's name or key.
        let detail = format!("patient {patient}, request {}, because: {}", erasure.request, order.reason);
        let act = by.act(AuditAction::Erase, "erasure").detail(detail);
        let gone = self.documents_about(patient, &worn)?;
        let mut writes = vec![erasure_write(&erasure)];
        writes.extend(gone.iter().map(|(kind, id)| DocumentWrite::removal(*kind, *id)));
        // Nobody sets a hold meanwhile, on another node either: it is as it was looked at, or nothing is written.
        writes.push(DocumentWrite {
            expected: hold,
            ..DocumentWrite::removal(Kind::LegalHold, patient.to_bytes())
        });
        let audit = vec![act.record(at, AuditOutcome::Success)];
        self.store().transact(&Transaction { at, writes, audit, ..Transaction::default() })?;
        let erased = self.care().begin_erasure(patient, at)?;
        erasure.epoch = erased.epoch;
        self.forget_patient(patient);
        self.care().forget_versions(&[&gone[..], &[(Kind::LegalHold, patient.to_bytes())]].concat())?;
        Ok(erasure)
    }

    /// The documents that name a patient: those by which others know of them, and those under keys of the system.
    fn documents_about(
        &self,
        patient: PatientId,
        worn: &[(Assignment, Worn)],
    ) -> Result<Vec<(Kind, [u8; 16])>, StoreError> {
        let id = patient.to_bytes();
        let mut gone = vec![(Kind::Patient, id), (Kind::AlertLimits, id)];
        gone.extend(worn.iter().map(|(assignment, _)| (Kind::Assignment, assignment.id.to_bytes())));
        let query = DocumentQuery {
            kind: Kind::ResourceIdentifier,
            index: "about",
            prefix: id.to_vec(),
            after: None,
            order: Order::Ascending,
            limit: PAGE_LIMIT,
        };
        let mut after = None;
        loop {
            let page = self.store().documents(&DocumentQuery { after: after.clone(), ..query.clone() })?;
            gone.extend(page.iter().map(|one| (Kind::ResourceIdentifier, one.id)));
            match page.last() {
                Some(last) if page.len() == PAGE_LIMIT => after = Some((last.index_value.clone(), last.id)),
                _ => break,
            }
        }
        let mut present = Vec::with_capacity(gone.len());
        for (kind, id) in gone {
            if self.store().document(kind, id)?.is_some() {
                present.push((kind, id));
            }
        }
        Ok(present)
    }

    /// Forgets what this process holds of a patient in memory.
    pub(crate) fn forget_patient(&self, patient: PatientId) {
        self.alarms().lock().unwrap_or_else(PoisonError::into_inner).forget_patient(patient);
        self.registry().forget_patient(patient);
        self.consents().forget_patient(patient);
        self.glasses().forget_patient(patient);
        self.live().forget_patient(patient);
    }

    /// All erasures, newest first.
    ///
    /// # Errors
    /// [`ErasureError`].
    pub fn erasures(&self) -> Result<Vec<Erasure>, ErasureError> {
        let mut all = all_of(self.store())?;
        all.sort_by_key(|erasure| std::cmp::Reverse(erasure.begun_at));
        Ok(all)
    }

    /// Goes on with erasures; whether there is more to do. One that fails keeps no other from going on.
    pub(crate) fn keep_erasing(&self, site_name: &str) -> Result<Pace, ErasureError> {
        let (mut pace, mut failed) = (Pace::Idle, None);
        for patient in begin_ordered(self.store())? {
            self.forget_patient(patient);
        }
        for erased in self.care().erasures()? {
            match self.keep_erasing_one(&erased, site_name) {
                Ok(of_one) => pace = pace.max(of_one),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(pace), Err)
    }

    fn keep_erasing_one(&self, erased: &ErasedPatient, site_name: &str) -> Result<Pace, ErasureError> {
        let (now, mut pace) = (self.clock().now(), Pace::Idle);
        let kept = self.store().document(Kind::Erasure, erased.patient.to_bytes())?;
        let kept = kept.and_then(|one| records::json_from::<Erasure>(&one.body).ok());
        let mut erasure = kept.unwrap_or_else(|| restored(erased, Vec::new(), now));
        erasure.epoch.clone_from(&erased.epoch);
        let before = erasure.clone();
        if erased.purged_at.is_none() {
            pace = self.purge(&mut erasure)?;
            if pace == Pace::Idle {
                self.forget_answers(&erasure.scope())?;
                self.care().end_erasure(erased.patient, now)?;
                erasure.purged_at = Some(now);
                pace = Pace::Working;
            }
        } else if erasure.purged_at.is_none() {
            erasure.purged_at = erased.purged_at;
        }
        erasure.epoch_destroyed_at = erased.epoch_ended_at;
        if erasure != before || (erasure.purged_at.is_some() && erasure.statement.is_none()) {
            self.keep_erasure(&mut erasure, before.state(), site_name, now)?;
        }
        Ok(pace)
    }

    /// Takes away what devices were answered since they were the patient's: remembered answers name times and what was
    /// wrong with values. Those of whoever wears a device now go too; a request that is repeated is known all the same, by
    /// what it says.
    fn forget_answers(&self, scope: &ErasureScope) -> Result<(), ErasureError> {
        for (device, interval) in &scope.devices {
            let mut query = DocumentQuery {
                kind: Kind::IdempotentRequest,
                index: records::REQUESTS_BY_DEVICE,
                prefix: device.to_bytes().to_vec(),
                after: None,
                order: Order::Ascending,
                limit: PAGE_LIMIT,
            };
            loop {
                let page = self.store().documents(&query)?;
                let theirs = page.iter().filter(|one| one.updated_at >= interval.start);
                let writes: Vec<DocumentWrite> =
                    theirs.map(|one| DocumentWrite::removal(one.kind, one.id)).collect();
                let at = self.clock().now();
                self.store().transact(&Transaction { at, writes, ..Transaction::default() })?;
                match page.last() {
                    Some(last) if page.len() == PAGE_LIMIT => {
                        query.after = Some((last.index_value.clone(), last.id));
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Removes rows for a while; idle when none are left.
    fn purge(&self, erasure: &mut Erasure) -> Result<Pace, ErasureError> {
        let scope = erasure.scope();
        for _ in 0..STEPS_AT_ONCE {
            let (rows, more) = self.care().step_erasure(erasure.patient, &scope, STEP_LIMIT_ROWS)?;
            erasure.removed.add(&rows);
            if !more {
                return Ok(Pace::Idle);
            }
            if rows.total() == 0 {
                // The journal still tells of the patient, until it is folded, or another node has yet to hear of it.
                let folded = self.fold_now()?;
                return Ok(if folded.groups > 0 { Pace::Working } else { Pace::Waiting });
            }
        }
        Ok(Pace::Working)
    }

    fn keep_erasure(
        &self,
        erasure: &mut Erasure,
        before: &'static str,
        site_name: &str,
        at: Timestamp,
    ) -> Result<(), ErasureError> {
        let mut audit = Vec::new();
        if erasure.purged_at.is_some() && (erasure.statement.is_none() || before != erasure.state()) {
            let text = statement(erasure, site_name);
            let signer = signer(self.store(), site_name, at)?;
            erasure.signature = Some(hex(&signer.sign(text.as_bytes())));
            let digest = hex(&trust::digest::sha256(&[text.as_bytes()]));
            erasure.statement = Some(text);
            // The log is what the signer is anchored in: a certificate that stands for itself proves nothing.
            let detail = format!(
                "{} {}, statement SHA-256 {digest}, signer's certificate SHA-256 {}",
                erasure.patient,
                erasure.state(),
                signer.fingerprint_hex()
            );
            let act = Act::new(Actor::System, AuditAction::Erase, "erasure").detail(detail);
            audit.push(act.record(at, AuditOutcome::Success));
        }
        let writes = vec![erasure_write(erasure)];
        self.store().transact(&Transaction { at, writes, audit, ..Transaction::default() })?;
        Ok(())
    }
}

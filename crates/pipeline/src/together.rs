//! What is kept together: records, assignments, corrections, identifiers and measurements of one act, all or nothing.
//!
//! Records are documents and measurements are frames, which are committed in different transactions. The documents go
//! first, and with them, in the same transaction, the frames as what is still to be done. That is the moment at which it
//! is decided: whatever stops the server afterwards, the frames are charted when it runs again. Charting a frame twice
//! changes nothing.

use std::pin::pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use clinical_model::{Assignment, Device, Frame, Patient, PatientId, Subject, Timestamp};
use serde_json::Value;
use store::{
    AuditOutcome, Document, DocumentWrite, Expected, KeyDomain, Kind, StoreError, TransactError, Transaction,
};

use crate::audited::Act;
use crate::clock::new_id;
use crate::corrections::{self, NewCorrection};
use crate::desk::{DeskError, refused};
use crate::identifiers::KeptFrame;
use crate::intake::{Intake, IntakeError, Receipt};
use crate::live::Happening;
use crate::records;
use crate::registry::Registry;
use crate::search::Position;
use crate::site::{Site, Stop};

/// Unfinished transactions that are looked at in one go.
const PENDING_PAGE: usize = 256;
/// How often it is looked for what nobody finished.
const PENDING_EVERY: Duration = Duration::from_secs(5);
/// What was decided so long ago is finished by whoever finds it: whoever decided it is gone, or failed. Charting a frame
/// twice changes nothing.
const PENDING_AFTER: Duration = Duration::from_secs(30);

/// A patient to be kept.
#[derive(Clone, Debug)]
pub struct PatientChange {
    /// As we understand it.
    pub patient: Patient,
    /// As it was sent, with our id.
    pub resource: Value,
    /// What must be true of the record before.
    pub expected: Expected,
}

/// A device to be kept.
#[derive(Clone, Debug)]
pub struct DeviceChange {
    /// As we understand it.
    pub device: Device,
    /// As it was sent, with our id.
    pub resource: Value,
    /// What must be true of the record before.
    pub expected: Expected,
}

/// A correction to be kept.
#[derive(Clone, Debug)]
pub struct CorrectionChange {
    /// Of which observation.
    pub position: Position,
    /// The version that is corrected.
    pub version: u64,
    /// What it says.
    pub correction: NewCorrection,
}

/// A frame to be charted.
#[derive(Clone, Debug)]
pub struct FrameChange {
    /// The frame, of kind FHIR.
    pub frame: Frame,
    /// With whose key it is sealed until it is charted.
    pub patient: Option<PatientId>,
    /// By which acts it came: recorded where it is decided. Without any, whoever shows it records that.
    pub acts: Vec<Act>,
}

/// Everything that one act keeps.
#[derive(Clone, Debug, Default)]
pub struct Together {
    /// Patients.
    pub patients: Vec<PatientChange>,
    /// Devices.
    pub devices: Vec<DeviceChange>,
    /// Assignments from their start on; an assignment that the device has then ends there.
    pub assignments: Vec<Assignment>,
    /// Corrections.
    pub corrections: Vec<CorrectionChange>,
    /// Identifiers, as [`crate::identifiers`] writes them.
    pub identifiers: Vec<DocumentWrite>,
    /// Measurements.
    pub frames: Vec<FrameChange>,
    /// What is recorded of it.
    pub acts: Vec<Act>,
}

/// What is decided, with what is left to do.
#[derive(Debug)]
pub struct Decided {
    /// When.
    pub at: Timestamp,
    frames: Vec<DecidedFrame>,
}

/// A frame that is decided.
#[derive(Debug)]
struct DecidedFrame {
    frame: Frame,
    /// Under which it waits, where it is promised.
    waiting: Option<[u8; 16]>,
    /// Whether its acts were recorded with the decision.
    is_recorded: bool,
}

impl Together {
    fn is_frames_only(&self) -> bool {
        self.patients.is_empty()
            && self.devices.is_empty()
            && self.assignments.is_empty()
            && self.corrections.is_empty()
            && self.identifiers.is_empty()
    }

    /// The registry as it will be: what the measurements of this act are placed by.
    ///
    /// # Errors
    /// [`DeskError::Overlap`] where an assignment cannot be.
    pub fn registry(&self, site: &Site) -> Result<Registry, DeskError> {
        let imagined = site.registry().copied();
        for change in &self.patients {
            imagined.put_patient(change.patient.clone(), 0);
        }
        for change in &self.devices {
            imagined.put_device(change.device.clone(), 0);
        }
        for assignment in self.ending_and_new(site)? {
            imagined.put_assignment(assignment);
        }
        Ok(imagined)
    }

    /// The new assignments, each after the one that it ends.
    fn ending_and_new(&self, site: &Site) -> Result<Vec<Assignment>, DeskError> {
        let mut all = Vec::new();
        for assignment in &self.assignments {
            let start = assignment.interval.start;
            let mut history = site.registry().assignment_history(assignment.device);
            if let Some(mut before) =
                history.at(start).copied().filter(|before| before.interval.start < start)
            {
                before.interval.end = Some(start);
                history.put(before).map_err(DeskError::Overlap)?;
                all.push(before);
            }
            history.put(*assignment).map_err(DeskError::Overlap)?;
            all.push(*assignment);
        }
        Ok(all)
    }
}

impl Site {
    /// The intake as it will be once an act is kept.
    pub fn intake_with(&self, registry: Registry) -> Option<Intake> {
        self.intake().map(|intake| Intake { registry: Arc::new(registry), ..intake })
    }

    /// Decides an act: when it returns, everything in it is kept, or will be. Hand the outcome to
    /// [`Site::finish`]. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// [`DeskError`]; nothing was kept then.
    pub fn decide(&self, together: Together) -> Result<Decided, DeskError> {
        let at = self.clock().now();
        let mut acts = together.acts.iter().chain(together.frames.iter().flat_map(|change| &change.acts));
        if together.is_frames_only() && together.frames.len() == 1 && acts.next().is_none() {
            // One frame is one commit by itself.
            let alone =
                |change: FrameChange| DecidedFrame { frame: change.frame, waiting: None, is_recorded: false };
            let frames = together.frames.into_iter().map(alone).collect();
            return Ok(Decided { at, frames });
        }
        let _desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        self.beds_are_free(&together)?;
        for change in &together.patients {
            self.store().ensure_patient_key(change.patient.id).map_err(DeskError::Store)?;
        }
        let assignments = together.ending_and_new(self)?;
        let mut writes = self.writes_of(&together, &assignments)?;
        let mut frames = Vec::with_capacity(together.frames.len());
        for FrameChange { frame, patient, acts } in &together.frames {
            let kept = KeptFrame::of(frame);
            let id = kept.as_ref().map(|_| new_id(at));
            if let (Some(kept), Some(id)) = (kept, id) {
                let domain = patient.map_or(KeyDomain::System, KeyDomain::Patient);
                let kind = Kind::PendingTransaction;
                writes.push(records::json_write(kind, id, Expected::Absent, domain, &kept, Vec::new()));
            }
            let is_recorded = !acts.is_empty();
            frames.push(DecidedFrame { frame: frame.clone(), waiting: id, is_recorded });
        }
        for change in &together.corrections {
            self.corrections().note(change.position.series);
        }
        let acts = together.acts.iter().chain(together.frames.iter().flat_map(|change| &change.acts));
        let audit = acts.cloned().map(|act| self.record_of(act, at, AuditOutcome::Success)).collect();
        let transaction = Transaction { at, writes, audit, ..Transaction::default() };
        self.store().transact(&transaction).map_err(|error| match &error {
            TransactError::Conflict { kind, .. } => refused(kind, error),
            _ => refused("the record", error),
        })?;
        self.take_effect(&together, &assignments);
        Ok(Decided { at, frames })
    }

    /// Waits until what this node has decided so far is known to it: what stands in the store may be a moment ahead. Blocks.
    pub fn settled(&self) {
        drop(self.desk.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A second patient in one bed would hide the first from the ward board.
    fn beds_are_free(&self, together: &Together) -> Result<(), DeskError> {
        let changed = |id: PatientId| together.patients.iter().any(|change| change.patient.id == id);
        let mut taken: Vec<_> = self
            .registry()
            .patients()
            .iter()
            .filter(|patient| !changed(patient.id))
            .filter_map(|patient| patient.place)
            .collect();
        for change in together.patients.iter().filter(|change| change.patient.active) {
            let Some(place) = change.patient.place else { continue };
            if taken.contains(&place) {
                let name = self
                    .registry()
                    .place(place)
                    .map_or_else(|| place.to_string(), |found| found.name.clone());
                return Err(DeskError::Taken { what: format!("{name} is taken by another patient") });
            }
            taken.push(place);
        }
        Ok(())
    }

    /// What an assignment must be: new, or as this act found it.
    fn expected_of(&self, assignment: &Assignment) -> Result<Expected, DeskError> {
        let Some(before) = self.registry().assignment(assignment.id) else { return Ok(Expected::Absent) };
        match self.kept_assignment(assignment.id)? {
            Some((kept, version)) if kept == before => Ok(Expected::Version(version)),
            _ => {
                let detail = format!("assignment {} was changed on another node", assignment.id);
                Err(DeskError::Conflict { what: "the assignment", detail })
            }
        }
    }

    fn writes_of(
        &self,
        together: &Together,
        assignments: &[Assignment],
    ) -> Result<Vec<DocumentWrite>, DeskError> {
        let store = self.store();
        let mut writes = Vec::new();
        for PatientChange { patient, resource, expected } in &together.patients {
            writes.push(records::patient_write_as(store, patient, resource, *expected));
        }
        for DeviceChange { device, resource, expected } in &together.devices {
            writes.push(records::device_write_as(store, device, resource, *expected));
        }
        for assignment in assignments {
            writes.push(records::assignment_write(assignment, self.expected_of(assignment)?));
        }
        for CorrectionChange { position, version, correction } in &together.corrections {
            writes.push(corrections::write_of(position, *version, correction));
        }
        writes.extend(together.identifiers.iter().cloned());
        Ok(writes)
    }

    fn take_effect(&self, together: &Together, assignments: &[Assignment]) {
        let version_of = |expected: Expected| match expected {
            Expected::Version(before) => before + 1,
            Expected::Absent | Expected::Any => 1,
        };
        for PatientChange { patient, expected, .. } in &together.patients {
            self.registry().put_patient(patient.clone(), version_of(*expected));
            self.live().happened(Happening::Assignment { subject: Subject::Patient(patient.id) });
        }
        for DeviceChange { device, expected, .. } in &together.devices {
            self.registry().put_device(device.clone(), version_of(*expected));
            self.live().happened(Happening::Device(device.id));
        }
        for assignment in assignments {
            self.registry().put_assignment(*assignment);
            self.live().happened(Happening::Assignment { subject: assignment.subject });
            self.live().happened(Happening::Device(assignment.device));
        }
        for change in &together.corrections {
            self.follow(&change.position, &change.correction);
        }
    }

    /// Charts what was decided. The receipts come in the order of the frames.
    ///
    /// # Errors
    /// [`IntakeError`] where a frame could not be kept now. What was decided with other records is tried again, on any
    /// node, from half a minute later on.
    pub async fn finish(&self, decided: Decided) -> Result<Vec<Receipt>, IntakeError> {
        let intake = self.intake().ok_or(IntakeError::Stopping)?;
        let mut pending = Vec::with_capacity(decided.frames.len());
        let mut done = Vec::new();
        let mut recorded = Vec::with_capacity(decided.frames.len());
        for DecidedFrame { frame, waiting, is_recorded } in decided.frames {
            let submitted = match waiting {
                None => intake.submit_or_refuse(frame).await,
                // It was promised when it was decided.
                Some(_) => intake.submit_promised(frame).await,
            };
            pending.push(submitted?);
            recorded.push(is_recorded);
            done.extend(waiting);
        }
        let mut receipts = Vec::with_capacity(pending.len());
        for (answer, is_recorded) in pending.into_iter().zip(recorded) {
            let receipt = answer.await?;
            receipts.push(Receipt { is_recorded: receipt.is_recorded || is_recorded, ..receipt });
        }
        self.forget_pending(&done);
        Ok(receipts)
    }

    /// What is left of finished acts goes; where that fails, they are finished once more later, which changes nothing.
    fn forget_pending(&self, ids: &[[u8; 16]]) {
        if ids.is_empty() {
            return;
        }
        let gone = |id: &[u8; 16]| DocumentWrite {
            kind: Kind::PendingTransaction,
            id: *id,
            expected: Expected::Any,
            domain: KeyDomain::System,
            body: None,
            index: Vec::new(),
        };
        let at = self.clock().now();
        let transaction =
            Transaction { at, writes: ids.iter().map(gone).collect(), ..Transaction::default() };
        if let Err(error) = self.store().transact(&transaction) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                acts = ids.len(),
                "finished transactions could not be forgotten; they are finished again later"
            );
        }
    }

    /// Finishes what was decided before an instant and is not charted yet: the server stopped, or another node did.
    /// What cannot be finished now stays, and keeps nothing else from it. Returns how many frames were charted.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read.
    pub fn finish_pending(&self, decided_before: Timestamp) -> Result<usize, StoreError> {
        let (mut finished, mut after) = (0, None);
        loop {
            let query = records::all_of(Kind::PendingTransaction, after.take(), PENDING_PAGE);
            let page = self.store().documents(&query)?;
            for document in page.iter().filter(|document| document.updated_at < decided_before) {
                finished += usize::from(self.finish_one(document));
            }
            match page.last() {
                Some(last) if page.len() == PENDING_PAGE => {
                    after = Some((last.index_value.clone(), last.id));
                }
                _ => return Ok(finished),
            }
        }
    }

    fn finish_one(&self, document: &Document) -> bool {
        let kept: KeptFrame = match records::json_from(&document.body) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a transaction that was decided cannot be read; it is left"
                );
                return false;
            }
        };
        let frame = DecidedFrame { frame: kept.frame(), waiting: Some(document.id), is_recorded: false };
        let frames = vec![frame];
        let done = wait(self.finish(Decided { at: self.clock().now(), frames }));
        if let Err(error) = &done {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a transaction that was decided could not be finished; it is tried again"
            );
        }
        done.is_ok()
    }

    /// Finishes from time to time what this node, or one that is gone, decided and did not finish; of several nodes the
    /// one that judges the alarms does. Runs on its own thread until the site stops.
    pub(crate) fn keep_finishing(site: &Weak<Self>, stop: &Stop) {
        while !stop.wait(PENDING_EVERY) {
            let Some(site) = site.upgrade() else { return };
            if !site.judges_alarms() {
                continue;
            }
            let before = site.clock().now().minus(PENDING_AFTER);
            if let Err(error) = site.finish_pending(before) {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "what is unfinished cannot be read now"
                );
            }
        }
    }
}

/// Wakes the thread that waits.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread, which has no runtime.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

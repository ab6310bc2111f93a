//! The desk: what people do — register, assign, set limits, answer alerts, mend quarantine. Each act is one
//! transaction with its audit row.

use std::sync::PoisonError;

use clinical_analytics::{Limit, LimitError};
use clinical_model::alert::AlertTransitionError;
use clinical_model::assignment::AssignmentOverlap;
use clinical_model::quarantine::QuarantineState;
use clinical_model::{
    Alert, AlertId, Assignment, AssignmentId, Delivery, Device, DeviceId, Frame, Interval, Patient,
    PatientId, Place, QuarantineId, QuarantineItem, RecordId as _, Subject, Timestamp, UserId,
};
use store::{
    AuditAction, AuditOutcome, DocumentWrite, Expected, Kind, StoreError, TransactError, Transaction,
};

use crate::alarms::{self, Alarms};
use crate::audited::{Act, Agent};
use crate::intake::{EntryOutcome, IntakeError, Receipt};
use crate::live::Happening;
use crate::records::{self, PatientLimits};
use crate::site::Site;

/// Times that an answer is given again to an alert that another node changed meanwhile.
const ANSWER_LIMIT_TRIES: u32 = 4;

/// Why an act was not done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It is not there.
    #[error("there is no {what} {id}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Somebody else changed it, or it exists already.
    #[error("{what} was changed by somebody else, or exists already; look at it again ({detail})")]
    Conflict {
        /// What kind of thing.
        what: &'static str,
        /// Which expectation.
        detail: String,
    },
    /// It exists already, or the place is taken.
    #[error("{what}")]
    Taken {
        /// What is taken, and by what.
        what: String,
    },
    /// The assignment overlaps another.
    #[error("the device is assigned during that time already; end that assignment first")]
    Overlap(#[source] AssignmentOverlap),
    /// A time makes no sense.
    #[error("the time makes no sense: {what}")]
    Time {
        /// In what way.
        what: String,
    },
    /// A limit makes no sense.
    #[error("a limit cannot be used")]
    Limit(#[source] LimitError),
    /// The alert stands elsewhere.
    #[error("the alert was answered already")]
    Alert(#[source] AlertTransitionError),
    /// The item was dealt with already.
    #[error("the quarantined item was dealt with already")]
    DealtWith,
    /// Intake refused it.
    #[error("it could not be run again")]
    Intake(#[source] IntakeError),
    /// The store failed.
    #[error("it could not be kept")]
    Store(#[source] StoreError),
}

fn kept(what: &'static str, result: Result<(), TransactError>) -> Result<(), DeskError> {
    result.map_err(|error| refused(what, error))
}

/// Why a transaction of a person was refused.
pub(crate) fn refused(what: &'static str, error: TransactError) -> DeskError {
    match error {
        // Admitted on another node just now: this one's registry did not know it yet.
        TransactError::Conflict { detail, .. } if records::is_bed_taken(&detail) => {
            DeskError::Taken { what: "the bed is taken by another patient".to_owned() }
        }
        TransactError::Conflict { detail, .. } => DeskError::Conflict { what, detail },
        // No act of a person depends on a lease; were one lost, somebody else would have acted.
        TransactError::LeaseLost { lease } => {
            DeskError::Conflict { what, detail: format!("the lease of {lease} was lost") }
        }
        TransactError::Store(error) => DeskError::Store(error),
    }
}

/// As [`kept`], for what is new: a conflict can only mean that it exists.
fn kept_new(taken: &str, result: Result<(), TransactError>) -> Result<(), DeskError> {
    kept("it", result).map_err(|error| match error {
        DeskError::Conflict { .. } => DeskError::Taken { what: taken.to_owned() },
        other => other,
    })
}

/// What came of running an item again.
#[derive(Clone, Debug)]
pub enum Rerun {
    /// All of it is in the chart now.
    Committed(Receipt),
    /// It is still in quarantine, for the reason given.
    StillQuarantined {
        /// A sentence for a person.
        what: String,
    },
}

impl Site {
    fn desk_lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act_on(&self, act: Act, writes: Vec<DocumentWrite>) -> Result<(), TransactError> {
        let at = self.clock().now();
        let audit = vec![self.record_of(act, at, AuditOutcome::Success)];
        self.store().transact(&Transaction { at, writes, audit, ..Transaction::default() })
    }

    /// Adds a place.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn add_place(&self, by: impl Into<Agent>, place: Place) -> Result<Place, DeskError> {
        let _desk = self.desk_lock();
        let act = by.into().act(AuditAction::Create, "Place").detail(place.name.clone());
        kept("the place", self.act_on(act, vec![records::place_write(&place, Expected::Absent)]))?;
        self.registry().put_place(place.clone());
        Ok(place)
    }

    /// Admits a patient. The patient's own key is made first.
    ///
    /// # Errors
    /// [`DeskError::Taken`] where the record number is another patient's, or somebody lies in the bed: a second patient in
    /// one bed would hide the first from the ward board.
    pub fn add_patient(&self, by: impl Into<Agent>, patient: Patient) -> Result<Patient, DeskError> {
        let _desk = self.desk_lock();
        if let Some(place) = patient.place.and_then(|id| self.registry().place(id))
            && self.registry().patients().iter().any(|other| other.place == Some(place.id))
        {
            return Err(DeskError::Taken { what: format!("{} is taken by another patient", place.name) });
        }
        self.store().ensure_patient_key(patient.id).map_err(DeskError::Store)?;
        let act = by.into().act(AuditAction::Create, "Patient").patient(patient.id);
        let write = records::patient_write(self.store(), &patient, Expected::Absent);
        kept_new("another patient has this record number", self.act_on(act, vec![write]))?;
        self.registry().put_patient(patient.clone(), 1);
        self.live().happened(Happening::Assignment { subject: Subject::Patient(patient.id) });
        Ok(patient)
    }

    /// Registers a device.
    ///
    /// # Errors
    /// [`DeskError::Taken`] where maker, model and serial number are those of another device.
    pub fn add_device(&self, by: impl Into<Agent>, device: Device) -> Result<Device, DeskError> {
        let _desk = self.desk_lock();
        let act = by.into().act(AuditAction::Create, "Device").device(device.id);
        let write = records::device_write(self.store(), &device, Expected::Absent);
        let taken = "a device of this manufacturer, model and serial number is registered already";
        kept_new(taken, self.act_on(act, vec![write]))?;
        self.registry().put_device(device.clone(), 1);
        Ok(device)
    }

    /// Changes a device: its name, clock rule, zone, expected interval, or whether it is in service.
    ///
    /// # Errors
    /// [`DeskError::Conflict`] where `version` is no longer the current one.
    pub fn update_device(
        &self,
        by: impl Into<Agent>,
        device: Device,
        version: u64,
    ) -> Result<u64, DeskError> {
        let _desk = self.desk_lock();
        let act = by.into().act(AuditAction::Update, "Device").device(device.id).detail(format!(
            "clock {:?}, zone {} min, retired {}",
            device.clock, device.utc_offset_min, device.retired
        ));
        let write = self.renewed_write(&device, version)?;
        kept("the device", self.act_on(act, vec![write]))?;
        let id = device.id;
        self.registry().put_device(device, version + 1);
        self.live().happened(Happening::Device(id));
        Ok(version + 1)
    }

    /// The record of a device as it is now; what a program sent with it besides stays in it.
    fn renewed_write(&self, device: &Device, version: u64) -> Result<DocumentWrite, DeskError> {
        let expected = Expected::Version(version);
        let kept = self.store().document(Kind::Device, device.id.to_bytes()).map_err(DeskError::Store)?;
        let kept = kept.and_then(|kept| records::json_from::<serde_json::Value>(&kept.body).ok());
        Ok(match kept {
            Some(kept) => {
                let resource = health_codecs::fhir::device::renewed(kept, device);
                records::device_write_as(self.store(), device, &resource, expected)
            }
            None => records::device_write(self.store(), device, expected),
        })
    }

    /// Assigns a device to a patient or a place from `interval.start` on.
    ///
    /// # Errors
    /// [`DeskError::Overlap`] where it is assigned then already, [`DeskError::NotFound`] for an unknown device or
    /// subject.
    pub fn assign(&self, by: impl Into<Agent>, assignment: Assignment) -> Result<Assignment, DeskError> {
        let _desk = self.desk_lock();
        let Interval { start, end } = assignment.interval;
        if end.is_some_and(|end| end <= start) {
            return Err(DeskError::Time { what: format!("the end is not after the start {start}") });
        }
        self.known_device(assignment.device)?;
        self.known_subject(assignment.subject)?;
        let mut history = self.registry().assignment_history(assignment.device);
        history.put(assignment).map_err(DeskError::Overlap)?;
        let act = self.assignment_act(&by.into(), &assignment, format!("from {start}"));
        self.keep_assignment(act, assignment, Expected::Absent)?;
        Ok(assignment)
    }

    /// An assignment as it is kept now, with its version: what is in memory may lag behind another node.
    pub(crate) fn kept_assignment(&self, id: AssignmentId) -> Result<Option<(Assignment, u64)>, DeskError> {
        let found = self.store().document(Kind::Assignment, id.to_bytes()).map_err(DeskError::Store)?;
        let Some(document) = found else { return Ok(None) };
        let assignment = records::json_from(&document.body).map_err(|error| {
            let what = "document of an assignment".to_owned();
            DeskError::Store(StoreError::Damaged { what, how: error.to_string() })
        })?;
        Ok(Some((assignment, document.version)))
    }

    /// Ends an assignment at `end`.
    ///
    /// # Errors
    /// [`DeskError::Time`] where it ended already, [`DeskError::Conflict`] where somebody else is ending it just now.
    pub fn end_assignment(
        &self,
        by: impl Into<Agent>,
        id: AssignmentId,
        end: Timestamp,
    ) -> Result<Assignment, DeskError> {
        let _desk = self.desk_lock();
        let (mut assignment, version) = self
            .kept_assignment(id)?
            .ok_or_else(|| DeskError::NotFound { what: "assignment", id: id.to_string() })?;
        if end <= assignment.interval.start {
            return Err(DeskError::Time { what: format!("the end {end} is not after the start") });
        }
        if let Some(earlier) = assignment.interval.end {
            return Err(DeskError::Time { what: format!("the assignment ended at {earlier} already") });
        }
        assignment.interval.end = Some(end);
        let act = self.assignment_act(&by.into(), &assignment, format!("until {end}"));
        self.keep_assignment(act, assignment, Expected::Version(version))?;
        Ok(assignment)
    }

    /// Keeps an assignment with a new version of its device: to whom a device is assigned is part of what its resource
    /// says, so that who has seen the device before changes nothing by what he saw, and of two nodes that assign it at
    /// one time one is refused.
    fn keep_assignment(&self, act: Act, assignment: Assignment, expected: Expected) -> Result<(), DeskError> {
        let mut writes = vec![records::assignment_write(&assignment, expected)];
        let device = self.registry().device_versioned(assignment.device);
        if let Some((device, version)) = &device {
            writes.push(self.renewed_write(device, *version)?);
        }
        kept("the assignment", self.act_on(act, writes))?;
        if let Some((device, version)) = device {
            self.registry().put_device((*device).clone(), version + 1);
        }
        self.put_assignment(assignment);
        Ok(())
    }

    fn assignment_act(&self, by: &Agent, assignment: &Assignment, detail: String) -> Act {
        let act = by.act(AuditAction::Assign, "Assignment").device(assignment.device).detail(detail);
        match assignment.subject {
            Subject::Patient(patient) => act.patient(patient),
            Subject::Device(_) | Subject::Place(_) => act,
        }
    }

    fn put_assignment(&self, assignment: Assignment) {
        self.registry().put_assignment(assignment);
        self.live().happened(Happening::Assignment { subject: assignment.subject });
        self.live().happened(Happening::Device(assignment.device));
    }

    fn known_device(&self, device: DeviceId) -> Result<(), DeskError> {
        let found = self.registry().device(device).map(|_| ());
        found.ok_or_else(|| DeskError::NotFound { what: "device", id: device.to_string() })
    }

    fn known_subject(&self, subject: Subject) -> Result<(), DeskError> {
        let (what, id, found) = match subject {
            Subject::Patient(id) => ("patient", id.to_string(), self.registry().patient(id).is_some()),
            Subject::Place(id) => ("place", id.to_string(), self.registry().place(id).is_some()),
            Subject::Device(id) => ("device", id.to_string(), self.registry().device(id).is_some()),
        };
        if found { Ok(()) } else { Err(DeskError::NotFound { what, id }) }
    }

    /// Sets the alert limits of a patient.
    ///
    /// # Errors
    /// [`DeskError::Limit`] where one makes no sense.
    pub fn set_limits(
        &self,
        by: impl Into<Agent>,
        patient: PatientId,
        limits: Vec<Limit>,
    ) -> Result<(), DeskError> {
        let _desk = self.desk_lock();
        self.known_subject(Subject::Patient(patient))?;
        Limit::check_all(&limits).map_err(DeskError::Limit)?;
        let act = by.into().act(AuditAction::Update, "Alert limits").patient(patient);
        let write = records::limits_write(&PatientLimits { patient, limits: limits.clone() });
        kept("the alert limits", self.act_on(act, vec![write]))?;
        self.registry().put_limits(patient, limits);
        Ok(())
    }

    /// A person takes an alert.
    ///
    /// # Errors
    /// [`DeskError::Alert`] where it does not stand raised.
    pub fn acknowledge(
        &self,
        by: impl Into<Agent<UserId>>,
        id: AlertId,
        note: Option<String>,
    ) -> Result<Alert, DeskError> {
        let by = by.into();
        let user = by.who;
        self.answer(by, id, "acknowledged", |alert, at| alert.acknowledge(user, at, note.clone()))
    }

    /// A person closes an alert.
    ///
    /// # Errors
    /// [`DeskError::Alert`] where it is resolved already.
    pub fn resolve(
        &self,
        by: impl Into<Agent<UserId>>,
        id: AlertId,
        note: Option<String>,
    ) -> Result<Alert, DeskError> {
        let by = by.into();
        let user = by.who;
        self.answer(by, id, "resolved", |alert, at| alert.resolve(user, at, note.clone()))
    }

    fn answer(
        &self,
        by: Agent<UserId>,
        id: AlertId,
        word: &'static str,
        change: impl Fn(&mut Alert, Timestamp) -> Result<(), AlertTransitionError>,
    ) -> Result<Alert, DeskError> {
        self.change_alert((&by.into(), AuditAction::Answer), id, word, change)
    }

    /// Changes an open alert; somebody else's change in between is taken up first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub(crate) fn change_alert(
        &self,
        (by, action): (&Agent, AuditAction),
        id: AlertId,
        word: &'static str,
        change: impl Fn(&mut Alert, Timestamp) -> Result<(), AlertTransitionError>,
    ) -> Result<Alert, DeskError> {
        // The lock that the alarms' own changes are made under: an answer and a condition that ends never cross.
        let mut open = self.alarms().lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.clock().now();
        let mut tries = 1;
        let alert = loop {
            let Some(mut alert) = open.get(id).cloned() else {
                // Raised on another node a moment ago, perhaps.
                if self.take_up(&mut open, id)? {
                    continue;
                }
                return Err(self.not_open(id));
            };
            change(&mut alert, at).map_err(DeskError::Alert)?;
            let act = by
                .act(action, "Alert")
                .device(alert.device)
                .detail(format!("{word}: {}", alarms::describe(&alert)));
            let act = alert.subject.patient().into_iter().fold(act, Act::patient);
            let mut record = self.record_of(act, at, AuditOutcome::Success);
            record.alert = Some(id);
            let transaction = Transaction {
                at,
                writes: vec![records::alert_write(&alert, open.expected(id))],
                audit: vec![record],
                ..Transaction::default()
            };
            match self.store().transact(&transaction) {
                // Changed on another node meanwhile: the answer is given to the alert as it is now.
                Err(TransactError::Conflict { .. }) if tries < ANSWER_LIMIT_TRIES => {
                    tries += 1;
                    self.take_up(&mut open, id)?;
                }
                result => break kept("the alert", result).map(|()| alert)?,
            }
        };
        open.written(id);
        open.keep(alert.clone());
        drop(open);
        self.live().happened(Happening::Alert(Box::new(alert.clone())));
        Ok(alert)
    }

    /// Takes up an alert as the store has it; whether it is open and was not known so.
    fn take_up(&self, open: &mut Alarms, id: AlertId) -> Result<bool, DeskError> {
        let found = self.store().document(Kind::Alert, id.to_bytes()).map_err(DeskError::Store)?;
        let Some((alert, version)) = found
            .and_then(|document| Some((records::json_from::<Alert>(&document.body).ok()?, document.version)))
        else {
            return Ok(false);
        };
        Ok(open.adopt(alert, version) && open.get(id).is_some())
    }

    fn not_open(&self, id: AlertId) -> DeskError {
        match self.chart().alert(id) {
            Ok(Some(alert)) => DeskError::Alert(AlertTransitionError {
                from: alert.state,
                to: clinical_model::AlertState::Acknowledged,
            }),
            _ => DeskError::NotFound { what: "alert", id: id.to_string() },
        }
    }

    fn waiting_item(&self, id: QuarantineId) -> Result<QuarantineItem, DeskError> {
        let item = self.store().quarantined(id).map_err(DeskError::Store)?;
        let item =
            item.ok_or_else(|| DeskError::NotFound { what: "quarantined item", id: id.to_string() })?;
        if item.state == QuarantineState::Waiting { Ok(item) } else { Err(DeskError::DealtWith) }
    }

    /// Runs a quarantined item again, as it came and with its original times. What is believed now is committed and
    /// the item released in the same commit.
    ///
    /// # Errors
    /// [`DeskError`]; an item that is still not believed is no error.
    pub async fn rerun(&self, by: impl Into<Agent<UserId>>, id: QuarantineId) -> Result<Rerun, DeskError> {
        let by = by.into();
        let user = by.who;
        let item = self.waiting_item(id)?;
        let frame = Frame {
            device: item.device,
            kind: item.kind,
            received_at: item.received_at,
            delivery: if item.at_most_once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce },
            bytes: item.bytes.clone(),
        };
        let act = Agent::from(by)
            .act(AuditAction::Quarantine, "Quarantine")
            .device(item.device)
            .detail(format!("run again: {id}"));
        let at = self.clock().now();
        let record = self.record_of(act, at, AuditOutcome::Success);
        let intake = self.intake().ok_or(DeskError::Intake(IntakeError::Stopping))?;
        let pending = intake.submit_released(frame, (id, user), record).await.map_err(DeskError::Intake)?;
        let receipt = pending.await.map_err(DeskError::Intake)?;
        let refused = receipt.entries.iter().find_map(|entry| match entry {
            EntryOutcome::Quarantined { reason, what, .. } => Some((*reason, what.clone())),
            EntryOutcome::Committed { .. } => None,
        });
        let Some((reason, what)) = refused else { return Ok(Rerun::Committed(receipt)) };
        // Looked at again under the lock: somebody may have set it aside, or released it, in the meantime.
        let _desk = self.desk_lock();
        let still = QuarantineItem { reason, what: what.clone(), ..self.waiting_item(id)? };
        let transaction = Transaction { at, quarantine: vec![still], ..Transaction::default() };
        kept("the quarantined item", self.store().transact(&transaction))?;
        Ok(Rerun::StillQuarantined { what })
    }

    /// Sets a quarantined item aside for good; its bytes stay.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn discard(
        &self,
        by: impl Into<Agent<UserId>>,
        id: QuarantineId,
        reason: &str,
    ) -> Result<QuarantineItem, DeskError> {
        let by = by.into();
        let _desk = self.desk_lock();
        let item = self.waiting_item(id)?;
        let at = self.clock().now();
        let item = QuarantineItem { state: QuarantineState::Discarded { at, by: by.who }, ..item };
        let act = Agent::from(by)
            .act(AuditAction::Quarantine, "Quarantine")
            .device(item.device)
            .detail(format!("discarded {id}: {reason}"));
        let transaction = Transaction {
            at,
            quarantine: vec![item.clone()],
            audit: vec![act.record(at, AuditOutcome::Success)],
            ..Transaction::default()
        };
        kept("the quarantined item", self.store().transact(&transaction))?;
        self.live().happened(Happening::Quarantine { items: self.store().quarantine_count().items });
        Ok(item)
    }
}

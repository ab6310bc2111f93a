//! The registry: devices, places, patients, assignments and alert limits, held in memory and kept as documents.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use clinical_analytics::Limit;
use clinical_model::assignment::AssignmentHistory;
use clinical_model::{
    Assignment, Decimal, Device, DeviceId, Patient, PatientId, Place, PlaceId, SeriesKey, Subject, Timestamp,
};
use store::{Document, Kind, Store, StoreError};

use crate::records::{self, RecordError};

/// Series whose last value is remembered for the check of fast change: more than a large site has. Beyond it new
/// series go unchecked rather than memory unbounded.
const PREVIOUS_LIMIT_SERIES: usize = 200_000;

/// The last number of each series, for the check of fast change.
#[derive(Debug, Default)]
pub struct PreviousValues(HashMap<SeriesKey, (Timestamp, Decimal)>);

impl PreviousValues {
    /// The last number of a series.
    pub fn get(&self, series: &SeriesKey) -> Option<(Timestamp, Decimal)> {
        self.0.get(series).copied()
    }

    /// Remembers a number unless a later one is known.
    pub fn put(&mut self, series: SeriesKey, at: Timestamp, value: Decimal) {
        if self.0.len() >= PREVIOUS_LIMIT_SERIES && !self.0.contains_key(&series) {
            return;
        }
        let kept = self.0.entry(series).or_insert((at, value));
        if kept.0 <= at {
            *kept = (at, value);
        }
    }
}

/// Why the registry could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error("reading the {what} failed")]
    Store {
        /// Which documents.
        what: &'static str,
        /// How.
        #[source]
        source: StoreError,
    },
    /// A document does not say what it should.
    #[error("one of the {what} cannot be read")]
    Record {
        /// Which documents.
        what: &'static str,
        /// How.
        #[source]
        source: RecordError,
    },
}

#[derive(Clone, Default)]
struct Known {
    devices: HashMap<DeviceId, (Arc<Device>, u64)>,
    assignments: HashMap<DeviceId, AssignmentHistory>,
    patients: HashMap<PatientId, (Arc<Patient>, u64)>,
    places: HashMap<PlaceId, Arc<Place>>,
    limits: HashMap<PatientId, Arc<Vec<Limit>>>,
}

impl Known {
    fn load(store: &dyn Store) -> Result<Self, LoadError> {
        let mut known = Known::default();
        each(store, Kind::Place, "places", |_, body| {
            let place = records::place_from(body)?;
            known.places.insert(place.id, Arc::new(place));
            Ok(())
        })?;
        each(store, Kind::Patient, "patients", |version, body| {
            let patient = records::patient_from(body)?;
            known.patients.insert(patient.id, (Arc::new(patient), version));
            Ok(())
        })?;
        each(store, Kind::Device, "devices", |version, body| {
            let device = records::device_from(body)?;
            known.devices.insert(device.id, (Arc::new(device), version));
            Ok(())
        })?;
        each(store, Kind::Assignment, "assignments", |_, body| {
            let assignment: Assignment = records::json_from(body)?;
            if let Err(overlap) = known.assignments.entry(assignment.device).or_default().put(assignment) {
                // No assignment is worth that nothing starts; what stands in its way stands, and a person is told.
                tracing::error!(
                    error = &overlap as &dyn std::error::Error,
                    assignment = %assignment.id,
                    device = %assignment.device,
                    "an assignment overlaps another of its device and is left out; end one of them"
                );
            }
            Ok(())
        })?;
        each(store, Kind::AlertLimits, "alert limits", |_, body| {
            let limits: records::PatientLimits = records::json_from(body)?;
            known.limits.insert(limits.patient, Arc::new(limits.limits));
            Ok(())
        })?;
        Ok(known)
    }
}

/// What the site knows of its devices, places, patients and who is assigned to whom.
pub struct Registry {
    known: RwLock<Known>,
    /// Of whoever has none of their own; asked for with every reading.
    site_limits: Arc<Vec<Limit>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry { known: RwLock::default(), site_limits: Arc::new(Limit::adult_defaults()) }
    }
}

impl Registry {
    /// Everything that the store keeps.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(store: &dyn Store) -> Result<Self, LoadError> {
        Ok(Registry { known: RwLock::new(Known::load(store)?), ..Registry::default() })
    }

    /// Everything once more, in place of what was known: after changes of other nodes that are no longer listed.
    ///
    /// # Errors
    /// [`LoadError`]; what was known stays then.
    pub(crate) fn reload(&self, store: &dyn Store) -> Result<(), LoadError> {
        let known = Known::load(store)?;
        *self.write() = known;
        Ok(())
    }

    /// A copy, to try changes on.
    pub(crate) fn copied(&self) -> Self {
        Registry { known: RwLock::new(self.read().clone()), site_limits: Arc::clone(&self.site_limits) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A device.
    pub fn device(&self, id: DeviceId) -> Option<Arc<Device>> {
        self.read().devices.get(&id).map(|(device, _)| Arc::clone(device))
    }

    /// A device with the version of its document.
    pub fn device_versioned(&self, id: DeviceId) -> Option<(Arc<Device>, u64)> {
        self.read().devices.get(&id).cloned()
    }

    /// All devices, by name.
    pub fn devices(&self) -> Vec<Arc<Device>> {
        let mut all: Vec<_> = self.read().devices.values().map(|(device, _)| Arc::clone(device)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        all
    }

    /// A patient.
    pub fn patient(&self, id: PatientId) -> Option<Arc<Patient>> {
        self.read().patients.get(&id).map(|(patient, _)| Arc::clone(patient))
    }

    /// All patients in care, in no order.
    pub fn patients(&self) -> Vec<Arc<Patient>> {
        self.read().patients.values().map(|(patient, _)| Arc::clone(patient)).filter(|p| p.active).collect()
    }

    /// A place.
    pub fn place(&self, id: PlaceId) -> Option<Arc<Place>> {
        self.read().places.get(&id).cloned()
    }

    /// All places, by name.
    pub fn places(&self) -> Vec<Arc<Place>> {
        let mut all: Vec<_> = self.read().places.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        all
    }

    /// The ward that a patient lies in or is cared for by.
    pub fn ward_of(&self, patient: &Patient) -> Option<PlaceId> {
        let place = self.place(patient.place?)?;
        place.ward.or(Some(place.id))
    }

    /// To whom a device was assigned at an instant.
    pub fn subject_at(&self, device: DeviceId, at: Timestamp) -> Option<Subject> {
        self.assignment_at(device, at).map(|assignment| assignment.subject)
    }

    /// Which assignment a device had at an instant.
    pub fn assignment_at(&self, device: DeviceId, at: Timestamp) -> Option<Assignment> {
        self.read().assignments.get(&device)?.at(at).copied()
    }

    /// All assignments of a device, oldest first.
    pub fn assignments(&self, device: DeviceId) -> Vec<Assignment> {
        self.read().assignments.get(&device).map(|history| history.all().to_vec()).unwrap_or_default()
    }

    /// The assignment history of a device, to try a change on.
    pub fn assignment_history(&self, device: DeviceId) -> AssignmentHistory {
        self.read().assignments.get(&device).cloned().unwrap_or_default()
    }

    /// One assignment by its id.
    pub fn assignment(&self, id: clinical_model::AssignmentId) -> Option<Assignment> {
        let known = self.read();
        known.assignments.values().flat_map(AssignmentHistory::all).find(|one| one.id == id).copied()
    }

    /// The devices assigned to a subject at an instant, by name.
    pub fn devices_of(&self, subject: Subject, at: Timestamp) -> Vec<Arc<Device>> {
        let known = self.read();
        let mut devices: Vec<_> = known
            .assignments
            .iter()
            .filter(|(_, history)| history.at(at).is_some_and(|one| one.subject == subject))
            .filter_map(|(device, _)| known.devices.get(device))
            .map(|(device, _)| Arc::clone(device))
            .collect();
        devices.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        devices
    }

    /// The alert limits of a patient: their own, or those of the site.
    pub fn limits(&self, patient: PatientId) -> Arc<Vec<Limit>> {
        Arc::clone(self.read().limits.get(&patient).unwrap_or(&self.site_limits))
    }

    pub(crate) fn put_device(&self, device: Device, version: u64) {
        self.write().devices.insert(device.id, (Arc::new(device), version));
    }

    pub(crate) fn put_patient(&self, patient: Patient, version: u64) {
        self.write().patients.insert(patient.id, (Arc::new(patient), version));
    }

    pub(crate) fn put_place(&self, place: Place) {
        self.write().places.insert(place.id, Arc::new(place));
    }

    pub(crate) fn put_limits(&self, patient: PatientId, limits: Vec<Limit>) {
        self.write().limits.insert(patient, Arc::new(limits));
    }

    /// Puts an assignment that was committed; an overlap cannot occur, since the desk tried it under its lock.
    pub(crate) fn put_assignment(&self, assignment: Assignment) {
        let _ = self.write().assignments.entry(assignment.device).or_default().put(assignment);
    }
}

/// What a change of a document came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// It was known already, or is none of ours.
    Nothing,
    /// A device.
    Device(DeviceId),
    /// A patient.
    Patient(PatientId),
    /// A place: nothing on the screens hangs on it alone.
    Place,
    /// An assignment.
    Assignment(Assignment),
    /// The alert limits of a patient.
    Limits,
}

impl Registry {
    /// Takes up a document as the store has it now, after somebody on another node wrote or removed it.
    ///
    /// # Errors
    /// [`LoadError`]; what was known stays then.
    pub(crate) fn refresh(
        &self,
        store: &dyn Store,
        kind: Kind,
        id: [u8; 16],
    ) -> Result<Refreshed, LoadError> {
        let what = match kind {
            Kind::Device => "devices",
            Kind::Patient => "patients",
            Kind::Place => "places",
            Kind::Assignment => "assignments",
            Kind::AlertLimits => "alert limits",
            _ => return Ok(Refreshed::Nothing),
        };
        let document = store.document(kind, id).map_err(|source| LoadError::Store { what, source })?;
        let Some(document) = document else { return Ok(self.removed(kind, id)) };
        self.take_up(kind, &document).map_err(|source| LoadError::Record { what, source })
    }

    fn take_up(&self, kind: Kind, document: &Document) -> Result<Refreshed, RecordError> {
        let (version, body) = (document.version, &document.body);
        let mut known = self.write();
        Ok(match kind {
            Kind::Device => {
                let device = records::device_from(body)?;
                let id = device.id;
                if known.devices.get(&id).is_some_and(|(_, before)| version <= *before) {
                    return Ok(Refreshed::Nothing);
                }
                known.devices.insert(id, (Arc::new(device), version));
                Refreshed::Device(id)
            }
            Kind::Patient => {
                let patient = records::patient_from(body)?;
                let id = patient.id;
                if known.patients.get(&id).is_some_and(|(_, before)| version <= *before) {
                    return Ok(Refreshed::Nothing);
                }
                known.patients.insert(id, (Arc::new(patient), version));
                Refreshed::Patient(id)
            }
            Kind::Place => {
                let place = records::place_from(body)?;
                known.places.insert(place.id, Arc::new(place));
                Refreshed::Place
            }
            Kind::Assignment => {
                let assignment: Assignment = records::json_from(body)?;
                let history = known.assignments.entry(assignment.device).or_default();
                if history.all().contains(&assignment) {
                    return Ok(Refreshed::Nothing);
                }
                let put = history.put(assignment);
                put.map_err(|overlap| RecordError::Meaning { what: overlap.to_string() })?;
                Refreshed::Assignment(assignment)
            }
            Kind::AlertLimits => {
                let limits: records::PatientLimits = records::json_from(body)?;
                known.limits.insert(limits.patient, Arc::new(limits.limits));
                Refreshed::Limits
            }
            _ => Refreshed::Nothing,
        })
    }

    fn removed(&self, kind: Kind, id: [u8; 16]) -> Refreshed {
        let mut known = self.write();
        match kind {
            Kind::Device => {
                let id = DeviceId::from_bytes(id);
                known.devices.remove(&id).map_or(Refreshed::Nothing, |_| Refreshed::Device(id))
            }
            Kind::Patient => {
                let id = PatientId::from_bytes(id);
                known.patients.remove(&id).map_or(Refreshed::Nothing, |_| Refreshed::Patient(id))
            }
            Kind::Place => {
                known.places.remove(&PlaceId::from_bytes(id));
                Refreshed::Place
            }
            Kind::AlertLimits => {
                known.limits.remove(&PatientId::from_bytes(id));
                Refreshed::Limits
            }
            _ => Refreshed::Nothing,
        }
    }
}

impl Registry {
    /// Forgets a patient, their limits, and who was assigned to them: they were erased.
    pub(crate) fn forget_patient(&self, patient: PatientId) {
        let mut known = self.write();
        known.patients.remove(&patient);
        known.limits.remove(&patient);
        for history in known.assignments.values_mut() {
            let is_theirs = |one: &&Assignment| one.subject == Subject::Patient(patient);
            if history.all().iter().any(|one| is_theirs(&one)) {
                let mut left = AssignmentHistory::default();
                for one in history.all().iter().filter(|one| !is_theirs(one)) {
                    // They did not overlap before.
                    let _ = left.put(*one);
                }
                *history = left;
            }
        }
    }
}

/// How many documents one page of loading takes.
const LOAD_PAGE: usize = 500;

fn each(
    store: &dyn Store,
    kind: Kind,
    what: &'static str,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), RecordError>,
) -> Result<(), LoadError> {
    let mut after = None;
    loop {
        let page = store
            .documents(&records::all_of(kind, after.clone(), LOAD_PAGE))
            .map_err(|source| LoadError::Store { what, source })?;
        for document in &page {
            take(document.version, &document.body).map_err(|source| LoadError::Record { what, source })?;
        }
        match page.last() {
            Some(last) if page.len() == LOAD_PAGE => after = Some((last.index_value.clone(), last.id)),
            _ => return Ok(()),
        }
    }
}

//! Devices: the fleet, one device, its clock rule, and its assignments.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::{
    Assignment, AssignmentId, ClockRule, Device, DeviceId, Interval, Patient, PatientId, PlaceId, Subject,
    Timestamp,
};
use pipeline::audited::ReadError;
use serde::{Deserialize, Serialize};
use store::AuditAction;

use super::views::{self, DeviceState};
use super::{Answer, Body, id_of};
use crate::access::{Access, Permission, Permit, Sight, may};
use crate::problem::Problem;
use crate::state::Web;

/// Items of the quarantine that are counted a device.
const COUNTED_LIMIT: usize = 5_000;

#[derive(Serialize)]
pub(crate) struct SubjectView {
    kind: &'static str,
    id: String,
    label: String,
}

#[derive(Serialize)]
pub(crate) struct AssignmentView {
    id: String,
    device_id: String,
    subject: SubjectView,
    start: Timestamp,
    end: Option<Timestamp>,
}

/// Whether a device may be shown as that of a patient: not to those whom the patient does not let know how it works.
fn names(sight: &Sight<'_>, patient: &Patient) -> bool {
    sight.patient(patient) && sight.devices_of(patient)
}

/// Who it is, for those who may know; for others only that it is somebody.
fn subject_view(web: &Web, access: &Access, subject: Subject) -> SubjectView {
    let registry = web.site.registry();
    match subject {
        Subject::Patient(id) => {
            let sight = access.sight(web);
            let patient = registry.patient(id).filter(|patient| names(&sight, patient));
            let label = match patient {
                Some(patient) => {
                    format!("{}, {}", patient.family.expose().to_uppercase(), patient.given.expose())
                }
                None => "a patient".to_owned(),
            };
            SubjectView { kind: "patient", id: id.to_string(), label }
        }
        Subject::Place(id) => {
            let label = registry.place(id).map_or_else(|| "a place".to_owned(), |place| place.name.clone());
            SubjectView { kind: "place", id: id.to_string(), label }
        }
        Subject::Device(id) => SubjectView { kind: "device", id: id.to_string(), label: "itself".to_owned() },
    }
}

fn assignment_view(web: &Web, access: &Access, assignment: &Assignment) -> AssignmentView {
    AssignmentView {
        id: assignment.id.to_string(),
        device_id: assignment.device.to_string(),
        subject: subject_view(web, access, assignment.subject),
        start: assignment.interval.start,
        end: assignment.interval.end,
    }
}

#[derive(Serialize)]
pub(crate) struct DeviceView {
    #[serde(flatten)]
    state: DeviceState,
    manufacturer: String,
    serial: String,
    clock: ClockRule,
    utc_offset_min: i16,
    retired: bool,
    at_most_once: bool,
    waiting_in_quarantine: usize,
    assignment: Option<AssignmentView>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignments: Option<Vec<AssignmentView>>,
}

fn waiting(web: &Web) -> Result<HashMap<DeviceId, usize>, ReadError> {
    let mut counts = HashMap::new();
    for item in web.site.store().quarantine(true, None, COUNTED_LIMIT)? {
        *counts.entry(item.device).or_insert(0) += 1;
    }
    Ok(counts)
}

fn device_view(web: &Web, access: &Access, device: &Device, version: u64, waiting: usize) -> DeviceView {
    let registry = web.site.registry();
    let now = web.site.clock().now();
    DeviceView {
        state: views::device_state(web, device),
        manufacturer: device.manufacturer.clone(),
        serial: device.serial.clone(),
        clock: device.clock,
        utc_offset_min: device.utc_offset_min,
        retired: device.retired,
        at_most_once: web.site.live().heard(device.id).at_most_once,
        waiting_in_quarantine: waiting,
        assignment: registry.assignment_at(device.id, now).map(|one| assignment_view(web, access, &one)),
        version,
        assignments: None,
    }
}

fn full_view(web: &Web, access: &Access, id: DeviceId) -> Result<DeviceView, Problem> {
    let registry = web.site.registry();
    let (device, version) = registry.device_versioned(id).ok_or_else(|| Problem::not_found("device"))?;
    let count = waiting(web)?.get(&id).copied().unwrap_or(0);
    let mut view = device_view(web, access, &device, version, count);
    let all = registry.assignments(id);
    view.assignments = Some(all.iter().rev().map(|one| assignment_view(web, access, one)).collect());
    Ok(view)
}

#[derive(Serialize)]
pub(crate) struct Devices {
    devices: Vec<DeviceView>,
}

/// Of these subjects the patients, as far as they are named.
fn named(web: &Web, access: &Access, subjects: impl Iterator<Item = Subject>) -> Vec<PatientId> {
    let sight = access.sight(web);
    let known = subjects.filter_map(|subject| web.site.registry().patient(subject.patient()?));
    known.filter(|patient| names(&sight, patient)).map(|patient| patient.id).collect()
}

pub(crate) async fn list(State(web): State<Arc<Web>>, access: Permit<may::ReadDevices>) -> Answer<Devices> {
    let act = access.act(AuditAction::Search, "Device");
    web.blocking(move |web| {
        let (registry, now) = (web.site.registry(), web.site.clock().now());
        let subjects = registry.devices().into_iter().filter_map(|one| registry.subject_at(one.id, now));
        let devices = access.read_looking(web, act, named(web, &access, subjects), |chart| {
            let waiting = waiting(web)?;
            let registry = chart.registry();
            let view = |device: Arc<Device>| {
                let version = registry.device_versioned(device.id).map_or(0, |(_, version)| version);
                device_view(web, &access, &device, version, waiting.get(&device.id).copied().unwrap_or(0))
            };
            Ok(registry.devices().into_iter().map(view).collect())
        })?;
        Ok(Json(Devices { devices }))
    })
    .await?
}

pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadDevices>,
    Path(id): Path<String>,
) -> Answer<DeviceView> {
    let id: DeviceId = id_of(&id, "device")?;
    let act = access.act(AuditAction::Read, "Device").device(id);
    web.blocking(move |web| {
        let all = web.site.registry().assignments(id);
        let subjects = all.iter().map(|one| one.subject);
        access.read_looking(web, act, named(web, &access, subjects), |_| Ok(()))?;
        full_view(web, &access, id).map(Json)
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDevice {
    name: String,
    kind: String,
    manufacturer: String,
    model: String,
    serial: String,
    #[serde(default)]
    utc_offset_min: i16,
    expected_interval_s: Option<u32>,
}

fn checked_text(field: &str, value: &str) -> Result<String, Problem> {
    let value = value.trim();
    let length = value.chars().count();
    if length == 0 || length > 100 || value.chars().any(char::is_control) {
        return Err(Problem::bad_request(format!("{field} must have 1 to 100 characters")));
    }
    Ok(value.to_owned())
}

fn checked_times(utc_offset_min: i16, expected_interval_s: Option<u32>) -> Result<(), Problem> {
    if !(-720..=840).contains(&utc_offset_min) {
        return Err(Problem::bad_request("utc_offset_min must be -720 to 840 minutes"));
    }
    if expected_interval_s.is_some_and(|interval| interval == 0 || interval > 31 * 86_400) {
        return Err(Problem::bad_request("expected_interval_s must be 1 second to 31 days"));
    }
    Ok(())
}

pub(crate) async fn register(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageDevices>,
    Body(new): Body<NewDevice>,
) -> Answer<DeviceView> {
    checked_times(new.utc_offset_min, new.expected_interval_s)?;
    let device = Device {
        id: DeviceId::from_bytes(pipeline::new_id(web.site.clock().now())),
        name: checked_text("name", &new.name)?,
        kind: checked_text("kind", &new.kind)?,
        manufacturer: checked_text("manufacturer", &new.manufacturer)?,
        model: checked_text("model", &new.model)?,
        serial: checked_text("serial", &new.serial)?,
        clock: ClockRule::Trust,
        utc_offset_min: new.utc_offset_min,
        expected_interval_s: new.expected_interval_s,
        retired: false,
    };
    web.blocking(move |web| {
        let device = web.site.add_device(access.by(), device)?;
        full_view(web, &access, device.id).map(Json)
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangedDevice {
    version: u64,
    name: String,
    clock: ClockRule,
    utc_offset_min: i16,
    expected_interval_s: Option<u32>,
    retired: bool,
}

pub(crate) async fn update(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageDevices>,
    Path(id): Path<String>,
    Body(changed): Body<ChangedDevice>,
) -> Answer<DeviceView> {
    let id: DeviceId = id_of(&id, "device")?;
    checked_times(changed.utc_offset_min, changed.expected_interval_s)?;
    if let ClockRule::Shift { seconds } = changed.clock
        && seconds.unsigned_abs() > 200 * 366 * 86_400
    {
        return Err(Problem::bad_request("a clock can be shifted by at most 200 years"));
    }
    let name = checked_text("name", &changed.name)?;
    web.blocking(move |web| {
        let known = web.site.registry().device(id).ok_or_else(|| Problem::not_found("device"))?;
        let device = Device {
            name,
            clock: changed.clock,
            utc_offset_min: changed.utc_offset_min,
            expected_interval_s: changed.expected_interval_s,
            retired: changed.retired,
            ..Device::clone(&known)
        };
        web.site.update_device(access.by(), device, changed.version)?;
        full_view(web, &access, id).map(Json)
    })
    .await?
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "id")]
enum NewSubject {
    Patient(PatientId),
    Place(PlaceId),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAssignment {
    subject: NewSubject,
    start: Timestamp,
    end: Option<Timestamp>,
}

pub(crate) async fn assign(
    State(web): State<Arc<Web>>,
    access: Permit<may::AssignDevices>,
    Path(id): Path<String>,
    Body(new): Body<NewAssignment>,
) -> Answer<AssignmentView> {
    let device: DeviceId = id_of(&id, "device")?;
    let subject = match new.subject {
        NewSubject::Patient(id) => {
            if !access.sight(&web).may(Permission::AssignDevices, id) {
                return Err(Problem::not_found("patient"));
            }
            Subject::Patient(id)
        }
        NewSubject::Place(id) => {
            if !access.sight(&web).place_id(id) {
                return Err(Problem::not_found("place"));
            }
            Subject::Place(id)
        }
    };
    let assignment = Assignment {
        id: AssignmentId::from_bytes(pipeline::new_id(web.site.clock().now())),
        device,
        subject,
        interval: Interval { start: new.start, end: new.end },
    };
    web.blocking(move |web| {
        let assignment = web.site.assign(access.by(), assignment)?;
        Ok(Json(assignment_view(web, &access, &assignment)))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    end: Timestamp,
}

pub(crate) async fn end_assignment(
    State(web): State<Arc<Web>>,
    access: Permit<may::AssignDevices>,
    Path(id): Path<String>,
    Body(end): Body<End>,
) -> Answer<AssignmentView> {
    let id: AssignmentId = id_of(&id, "assignment")?;
    let known = web.site.registry().assignment(id).ok_or_else(|| Problem::not_found("assignment"))?;
    let is_theirs = match known.subject {
        Subject::Patient(patient) => access.sight(&web).may(Permission::AssignDevices, patient),
        Subject::Place(place) => access.sight(&web).place_id(place),
        Subject::Device(_) => true,
    };
    if !is_theirs {
        return Err(Problem::not_found("assignment"));
    }
    web.blocking(move |web| {
        let assignment = web.site.end_assignment(access.by(), id, end.end)?;
        Ok(Json(assignment_view(web, &access, &assignment)))
    })
    .await?
}

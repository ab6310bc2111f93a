//! The plan of a transaction: what every entry is or will be, what refers to what, and whether all of it can be kept.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use axum::http::StatusCode;
use clinical_model::{DeviceId, Frame, PatientId, Subject};
use health_codecs::fhir::IssueCode;
use health_codecs::fhir::bundle::{RequestEntry, creates};
use pipeline::identifiers::{self, IdentifierKey, KeptFrame, Target};
use pipeline::search::Position;
use pipeline::together::{FrameChange, Together};
use pipeline::{EntryOutcome, Peer, new_id};
use serde_json::Value;
use store::AuditAction;

use super::super::answer::Refusal;
use super::super::bundle::{self, Route, call_of, place_of, rank};
use super::super::call::{Call, shown};
use super::super::conditions::{Condition, lost_race};
use super::super::create::{
    self, Checked, acts_of, check, frame_of, intake, position_of, refuse_other_subject, sole_observation,
};
use super::super::registering::{self, Planned, Record, plan_new, plan_update};
use super::super::{permitted_now, update};
use super::{Refusals, would_not_be_charted};
use crate::access::Permission;
use crate::state::Web;

/// How deep references are looked for: the depth that the JSON reader allows.
const DEPTH_LIMIT: usize = 128;

/// What an entry of a planned transaction is.
pub(super) enum Outcome {
    /// A patient or a device.
    Record(Box<Planned>),
    /// A measurement: entry of a frame.
    Measured { frame: usize, entry: usize },
    /// A measurement that went by its identifier already.
    There(Position),
    /// A correction.
    Corrected(Position),
    /// Something that is gone now.
    Gone,
    /// A read, done when everything else is.
    Read,
}

/// What is kept together, and what each entry is then.
pub(super) struct Plan {
    pub together: Together,
    pub outcomes: Vec<Outcome>,
}

/// A measurement that is planned.
struct Measurement {
    index: usize,
    checked: Checked,
    resource: Value,
}

/// Everything that planning collects.
struct Planning<'a> {
    web: &'a Web,
    call: &'a Call,
    together: Together,
    outcomes: BTreeMap<usize, Outcome>,
    refusals: Refusals,
    /// Addresses of entries, with what they are.
    addresses: BTreeMap<String, String>,
    measurements: Vec<Measurement>,
}

impl Plan {
    pub(super) fn of(web: &Web, call: &Call, entries: &[RequestEntry]) -> Result<Plan, Refusal> {
        let mut planning = Planning {
            web,
            call,
            together: Together::default(),
            outcomes: BTreeMap::new(),
            refusals: Refusals::default(),
            addresses: BTreeMap::new(),
            measurements: Vec::new(),
        };
        let mut routes = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let route = bundle::route(call, entry, index).and_then(|route| {
                permitted_now(web, call, &route.interaction)?;
                Ok(route)
            });
            if let Some(route) = planning.refusals.take(index, route) {
                routes.push((index, entry, route));
            }
        }
        planning.refusals.done()?;
        planning.refusals = Refusals::default();
        // Patients before devices, which are assigned to them, before measurements, which are of both.
        routes.sort_by_key(|(index, entry, route)| {
            (rank(&entry.method), kind_rank(route.interaction.resource), *index)
        });
        let fresh = planning.name_all(&routes)?;
        planning.no_target_twice(&routes)?;
        for (index, entry, route) in &routes {
            let planned = planning.plan(*index, entry, route, fresh.get(index).copied());
            if let Some(outcome) = planning.refusals.take(*index, planned) {
                planning.outcomes.extend(outcome.map(|outcome| (*index, outcome)));
            }
        }
        planning.frames()?;
        std::mem::take(&mut planning.refusals).done()?;
        Ok(Plan { together: planning.together, outcomes: planning.outcomes.into_values().collect() })
    }
}

fn kind_rank(kind: &str) -> u8 {
    match kind {
        "Patient" => 0,
        "Device" => 1,
        _ => 2,
    }
}

fn record_of(kind: &str) -> Option<Record> {
    match kind {
        "Patient" => Some(Record::Patient),
        "Device" => Some(Record::Device),
        _ => None,
    }
}

impl Planning<'_> {
    /// Finds out what every entry's address stands for, before anything refers to it; the ids drawn for new records.
    fn name_all(
        &mut self,
        routes: &[(usize, &RequestEntry, Route)],
    ) -> Result<BTreeMap<usize, [u8; 16]>, Refusal> {
        let mut fresh = BTreeMap::new();
        for (index, entry, route) in routes {
            let kind = route.interaction.resource;
            let full_url = entry.full_url.clone().unwrap_or_default();
            let Some(record) = record_of(kind) else {
                // Observations are addressed by what they measure; nothing of ours refers to them.
                self.addresses.entry(full_url).or_default();
                continue;
            };
            let id = match (entry.method.as_str(), condition_of(entry, route)?) {
                ("POST" | "PUT", Some(condition)) => match record.by(self.web, &condition)? {
                    Some(id) => Some(id),
                    None => Some(*fresh.entry(*index).or_insert(new_id(self.web.site.clock().now()))),
                },
                ("POST", None) => Some(*fresh.entry(*index).or_insert(new_id(self.web.site.clock().now()))),
                _ => None,
            };
            let target = id.map_or_else(
                || format!("{kind}/{}", route.ids.0),
                |id| format!("{kind}/{}", record.text(id)),
            );
            self.addresses.insert(full_url, target);
        }
        self.addresses.remove("");
        Ok(fresh)
    }

    /// What is written twice in one transaction has no one outcome.
    fn no_target_twice(&mut self, routes: &[(usize, &RequestEntry, Route)]) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for (index, entry, route) in routes {
            let is_write = matches!(entry.method.as_str(), "PUT" | "DELETE") && !route.ids.0.is_empty();
            if is_write && !seen.insert((route.interaction.resource, &route.ids.0)) {
                let what = "the same resource is written twice in one transaction";
                self.refusals.add(*index, Refusal::new(StatusCode::BAD_REQUEST, IssueCode::Duplicate, what));
            }
        }
        std::mem::take(&mut self.refusals).done()
    }

    fn plan(
        &mut self,
        index: usize,
        entry: &RequestEntry,
        route: &Route,
        fresh: Option<[u8; 16]>,
    ) -> Result<Option<Outcome>, Refusal> {
        let (web, kind) = (self.web, route.interaction.resource);
        let inner = call_of(self.call, entry, route, Bytes::new())?;
        if matches!(entry.method.as_str(), "GET" | "HEAD") {
            return Ok(Some(Outcome::Read));
        }
        let condition = condition_of(entry, route)?;
        if entry.method == "DELETE" {
            let position = match &condition {
                Some(_) => update::by_identifier(web, &inner)?,
                None => Some(update::known_position(web, &inner, &inner.id, AuditAction::Delete)?),
            };
            if let Some(position) = position
                && let Some(change) = update::withdrawal(web, &inner, &position)?
            {
                self.together.acts.push(update::act_of(&inner, &change, AuditAction::Delete)?);
                self.together.corrections.push(change);
            }
            return Ok(Some(Outcome::Gone));
        }
        let Some(resource) = &entry.resource else {
            let what = "there is no resource to write";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, IssueCode::Required, what));
        };
        let resource = self.resolved(resource)?;
        if let Some(record) = record_of(kind) {
            return self.plan_record(&inner, record, &resource, (condition, fresh)).map(Some);
        }
        if entry.method == "PUT" {
            let position = match &condition {
                Some(_) => update::by_identifier(web, &inner)?,
                None => Some(update::known_position(web, &inner, &inner.id, AuditAction::Update)?),
            };
            if let Some(position) = position {
                update::same_id(&resource, &inner.id)?;
                if let Some(change) = update::checked_correction(web, &inner, &position, &resource)? {
                    self.together.acts.push(update::act_of(&inner, &change, AuditAction::Update)?);
                    self.together.corrections.push(change);
                }
                return Ok(Some(Outcome::Corrected(position)));
            }
        }
        self.plan_measurement(index, resource, condition)
    }

    fn plan_record(
        &mut self,
        inner: &Call,
        record: Record,
        resource: &Value,
        (condition, fresh): (Option<Condition>, Option<[u8; 16]>),
    ) -> Result<Outcome, Refusal> {
        let web = self.web;
        let planned = match (fresh, inner.id.is_empty()) {
            (Some(id), _) => {
                plan_new(web, inner, record, resource, id, condition.as_ref(), &mut self.together)?
            }
            (None, false) => {
                let id = record.known(web, inner, &inner.id, AuditAction::Update)?;
                update::same_id(resource, &inner.id)?;
                plan_update(web, inner, record, resource, id, &mut self.together)?
            }
            (None, true) => {
                let found =
                    condition.as_ref().map(|condition| record.by(web, condition)).transpose()?.flatten();
                let id = found.ok_or_else(lost_race)?;
                match inner.headers.contains_key("if-none-exist") {
                    true => registering::shown_as_is(web, inner, record, id)?,
                    false => {
                        let id = record.known(web, inner, &record.text(id), AuditAction::Update)?;
                        plan_update(web, inner, record, resource, id, &mut self.together)?
                    }
                }
            }
        };
        Ok(Outcome::Record(Box::new(planned)))
    }

    fn plan_measurement(
        &mut self,
        index: usize,
        resource: Value,
        condition: Option<Condition>,
    ) -> Result<Option<Outcome>, Refusal> {
        let place = format!("{}.resource", place_of(index));
        let checked = self.checked(&resource, &place)?;
        if let Some(condition) = condition {
            let key = condition.key(self.web, "Observation");
            if let Some((claimed, _)) = identifiers::find(self.web.site.store(), key)? {
                let position = sole_observation(self.call, &claimed)?;
                create::of_same_subject(self.call, &checked, &claimed)?;
                if let Some(kept) = claimed.frame {
                    // Its sender may have been stopped in between; the same frame twice changes nothing.
                    let patient = position.series.subject.patient();
                    self.together.frames.push(FrameChange { frame: kept.frame(), patient, acts: Vec::new() });
                }
                return Ok(Some(Outcome::There(position)));
            }
            self.claim(index, &checked, &resource, &condition)?;
        }
        self.measurements.push(Measurement { index, checked, resource });
        Ok(None)
    }

    /// Checks a measurement whose device may be one that the same transaction registers.
    fn checked(&self, resource: &Value, place: &str) -> Result<Checked, Refusal> {
        let named = resource["device"]["reference"].as_str().and_then(|named| named.strip_prefix("Device/"));
        let new =
            self.together.devices.iter().find(|change| Some(change.device.id.to_string().as_str()) == named);
        match new {
            Some(change) => {
                let observation =
                    health_codecs::fhir::observation::parse(resource).map_err(Refusal::invalid)?;
                Ok(Checked { device: change.device.id, observation })
            }
            None => check(self.web, self.call.access()?, resource, place),
        }
    }

    /// Plans the claim of an identifier, with the measurement as a frame of its own.
    fn claim(
        &mut self,
        index: usize,
        checked: &Checked,
        resource: &Value,
        condition: &Condition,
    ) -> Result<(), Refusal> {
        let frame = frame_of(self.web, checked.device, &Bytes::from(resource.to_string()));
        let outcomes = self.preview(frame.clone())?;
        let Some(EntryOutcome::Committed { facts }) = outcomes.first() else {
            // What is wrong with it is told when all frames are looked at.
            return Ok(());
        };
        let Some(position) = facts.first().map(position_of) else { return Ok(()) };
        let key = condition.key(self.web, "Observation");
        let write = identifiers::claim(key, Target::observation(&position), KeptFrame::of(&frame));
        if self.together.identifiers.iter().any(|planned| planned.id == write.id) {
            let what = "two entries of the transaction claim the same identifier";
            self.refusals
                .add(index, Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::Duplicate, what));
            return Ok(());
        }
        self.together.identifiers.push(write);
        Ok(())
    }

    /// What would become of a frame once everything planned so far is kept.
    fn preview(&mut self, frame: Frame) -> Result<Vec<EntryOutcome>, Refusal> {
        let changes_records = !self.together.devices.is_empty()
            || !self.together.patients.is_empty()
            || !self.together.assignments.is_empty();
        if !changes_records {
            return Ok(intake(self.web)?.preview(frame)?);
        }
        let registry =
            self.together.registry(&self.web.site).map_err(|error| registering::refusal(self.call, error))?;
        let imagined = self.web.site.intake_with(registry);
        let stopping = || Refusal::unavailable("the server is stopping; send again later");
        Ok(imagined.ok_or_else(stopping)?.preview(frame)?)
    }

    /// Makes one frame a device of what is measured, and looks at what would become of it.
    fn frames(&mut self) -> Result<(), Refusal> {
        let measurements = std::mem::take(&mut self.measurements);
        self.assign_from_the_first(&measurements);
        let mut by_device: BTreeMap<DeviceId, Vec<&Measurement>> = BTreeMap::new();
        for measurement in &measurements {
            by_device.entry(measurement.checked.device).or_default().push(measurement);
        }
        for (device, theirs) in by_device {
            let frame = frame_of(self.web, device, &Bytes::from(text_of(&theirs)));
            let outcomes = self.preview(frame.clone())?;
            let mut patient = None;
            for (entry, (outcome, measurement)) in outcomes.iter().zip(&theirs).enumerate() {
                let index = measurement.index;
                let subject = refuse_other_subject(self.web, self.call, &measurement.checked, outcome);
                if self.refusals.take(index, subject).is_some()
                    && let Some(refusal) = would_not_be_charted(outcome)
                {
                    self.refusals.add(index, refusal);
                }
                patient = patient.or_else(|| patient_of(outcome));
                self.name(measurement, outcome)?;
                self.outcomes.insert(index, Outcome::Measured { frame: self.together.frames.len(), entry });
            }
            // Who sent it is recorded where it is decided, not after.
            let acts = acts_of(self.call, device, &outcomes, &format!("{} sent", theirs.len()))?;
            self.together.frames.push(FrameChange { frame, patient, acts });
        }
        Ok(())
    }

    /// Lets a measurement go by the identifiers that it was sent with.
    fn name(&mut self, measurement: &Measurement, outcome: &EntryOutcome) -> Result<(), Refusal> {
        let EntryOutcome::Committed { facts } = outcome else { return Ok(()) };
        let Some(position) = facts.first().map(position_of) else { return Ok(()) };
        let store = self.web.site.store();
        let named = measurement.checked.observation.identifiers.iter().filter(|one| !one.ends_with('|'));
        for identifier in named {
            let key = IdentifierKey::of(store, "Observation", identifier);
            let write = identifiers::add(store, key, Target::observation(&position))?;
            let is_planned = |write: &store::DocumentWrite| {
                self.together.identifiers.iter().any(|planned| planned.id == write.id)
            };
            let write = write.filter(|write| !is_planned(write));
            self.together.identifiers.extend(write);
        }
        Ok(())
    }

    /// A device that is registered and assigned by the transaction that brings its first measurements was with its
    /// patient when it made them.
    fn assign_from_the_first(&mut self, measurements: &[Measurement]) {
        for assignment in &mut self.together.assignments {
            let is_new = self.web.site.registry().assignments(assignment.device).is_empty();
            let theirs = measurements.iter().filter(|one| one.checked.device == assignment.device);
            let first = theirs.filter_map(|one| create::time_of(&one.checked.observation)).min();
            if let Some(first) = first.filter(|first| is_new && *first < assignment.interval.start) {
                assignment.interval.start = first;
            }
        }
    }

    /// The resource with what it refers to by an entry's address or by an identifier.
    fn resolved(&self, resource: &Value) -> Result<Value, Refusal> {
        let mut resolved = resource.clone();
        self.resolve(&mut resolved, 0)?;
        Ok(resolved)
    }

    fn resolve(&self, value: &mut Value, depth: usize) -> Result<(), Refusal> {
        if depth > DEPTH_LIMIT {
            return Ok(());
        }
        match value {
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.resolve(item, depth + 1)),
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get_mut("reference")
                    && let Some(known) = self.target_of(target)?
                {
                    *target = known;
                }
                fields.values_mut().try_for_each(|field| self.resolve(field, depth + 1))
            }
            _ => Ok(()),
        }
    }

    /// Whether whoever asks may learn what goes by an identifier. A device knows itself and those it was assigned to: it
    /// must not find out who else is a patient here.
    fn may_know(&self, record: Record, id: [u8; 16]) -> bool {
        let Ok(access) = self.call.access() else { return false };
        let subject = match record {
            Record::Patient => Subject::Patient(PatientId::from_bytes(id)),
            Record::Device => Subject::Device(DeviceId::from_bytes(id)),
        };
        match access.peer() {
            Some(Peer::Device(own)) => {
                let assignments = self.web.site.registry().assignments(*own);
                subject == Subject::Device(*own) || assignments.iter().any(|one| one.subject == subject)
            }
            _ => {
                [Permission::ReadChart, Permission::AssignDevices].iter().any(|one| access.holds(*one))
                    && self.call.may_see(self.web, subject)
            }
        }
    }

    /// What a reference stands for, where it is one that has to be resolved.
    fn target_of(&self, reference: &str) -> Result<Option<String>, Refusal> {
        let unknown =
            |what: String| Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::NotFound, what));
        match self.addresses.get(reference) {
            Some(known) if !known.is_empty() => return Ok(Some(known.clone())),
            Some(_) => return Ok(None),
            None if reference.starts_with("urn:uuid:") || reference.starts_with("urn:oid:") => {
                return unknown(format!(
                    "\"{}\" is the address of no entry of this transaction",
                    shown(reference)
                ));
            }
            None => {}
        }
        let Some((kind, query)) = reference.split_once('?').filter(|(kind, _)| !kind.contains(':')) else {
            return Ok(None);
        };
        let Some(record) = record_of(kind) else {
            return unknown(format!("references to {} by a search are not supported", shown(kind)));
        };
        let found = record.by(self.web, &Condition::parse(query)?)?;
        match found.filter(|id| self.may_know(record, *id)) {
            Some(id) => Ok(Some(format!("{kind}/{}", record.text(id)))),
            None => {
                let what = format!("nothing goes by \"{}\"", shown(reference));
                Err(Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::NotFound, what))
            }
        }
    }
}

/// The condition of an entry, in its header or its address.
fn condition_of(entry: &RequestEntry, route: &Route) -> Result<Option<Condition>, Refusal> {
    let is_by_query = matches!(entry.method.as_str(), "PUT" | "DELETE") && route.ids.0.is_empty();
    match (&entry.if_none_exist, is_by_query) {
        (_, true) => Condition::parse(&route.query).map(Some),
        (Some(query), false) if entry.method == "POST" => Condition::parse(query).map(Some),
        _ => Ok(None),
    }
}

fn patient_of(outcome: &EntryOutcome) -> Option<PatientId> {
    match outcome {
        EntryOutcome::Committed { facts } => facts.iter().find_map(|fact| fact.series.subject.patient()),
        EntryOutcome::Quarantined { .. } => None,
    }
}

/// The measurements of one device as a frame: the resource itself, or a Bundle of them.
fn text_of(measurements: &[&Measurement]) -> String {
    match measurements {
        [one] => one.resource.to_string(),
        several => {
            let resources: Vec<&Value> = several.iter().map(|one| &one.resource).collect();
            creates(&resources).to_string()
        }
    }
}

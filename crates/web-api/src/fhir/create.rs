//! Creating Observations: read strictly, placed by the device's assignment, committed, and answered with what was
//! committed.
//!
//! A reading's identity is (series, time, sequence), so that a repeat finds itself and stores nothing new, under any
//! concurrency; nothing is searched before it is written.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use clinical_model::{
    Assignment, Decoded, Delivery, Device, DeviceId, DeviceTime, Frame, FrameKind, MeasureKind, PatientId,
    QuarantineId, QuarantineReason, Subject, Timestamp,
};
use health_codecs::fhir::observation::{ForeignObservation, parse};
use health_codecs::fhir::{IssueCode, OutcomeIssue, Severity, operation_outcome};
use pipeline::search::Position;
use pipeline::site::received_now;
use pipeline::{EntryOutcome, FactAddress, Intake, Peer, Receipt};
use serde_json::Value;
use store::AuditAction;

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::render::{self, Rendered};
use super::{Waiting, blocking};
use crate::access::Access;
use crate::state::Web;

/// What the caller wants back (`Prefer: return=…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Minimal,
    Representation,
    Outcome,
}

impl Wanted {
    /// Reads the header; unknown preferences are ignored, as RFC 7240 §2 demands.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        call.header("prefer")?.split([',', ';']).find_map(|part| match part.trim() {
            "return=minimal" => Some(Wanted::Minimal),
            "return=representation" => Some(Wanted::Representation),
            "return=OperationOutcome" => Some(Wanted::Outcome),
            _ => None,
        })
    }
}

/// `POST /fhir/Observation`
pub(crate) fn create(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(run(web, call))
}

async fn run(web: Arc<Web>, call: Arc<Call>) -> Result<Answer, Refusal> {
    if call.headers.contains_key("if-none-exist") {
        return Err(no_conditional_create("If-None-Exist"));
    }
    let checking = Arc::clone(&call);
    let frame = blocking(&web, move |web| {
        let value = health_codecs::fhir::json::parse(&checking.body)
            .map_err(|issue| Refusal::invalid(vec![issue]))?;
        let checked = check(web, checking.access()?, &value, "Observation")?;
        let frame = frame_of(web, checked.device, &checking.body);
        let outcomes = intake(web)?.preview(frame.clone())?;
        outcomes.iter().try_for_each(|outcome| refuse_other_subject(web, &checking, &checked, outcome))?;
        Ok(frame)
    })
    .await?;
    let device = frame.device;
    let receipt = submit(&web, frame).await?;
    let reading = Arc::clone(&call);
    let made = blocking(&web, move |web| {
        let entry = receipt.entries.first().cloned().ok_or_else(Refusal::internal)?;
        let mut made = read_back(web, &reading, device, &receipt, &[entry])?;
        made.pop().ok_or_else(Refusal::internal)
    })
    .await?;
    Ok(answer(&call, made))
}

fn answer(call: &Call, made: Made) -> Answer {
    let wanted = Wanted::of(call).unwrap_or(Wanted::Representation);
    match made {
        Made::Quarantined { id, reason, what } => {
            let issue = quarantined_issue(id, reason, &what);
            Answer::ok(operation_outcome(&[issue])).status(StatusCode::ACCEPTED)
        }
        Made::Committed { rendered, is_new, committed_at } => {
            let location = format!("{}/Observation/{}/_history/1", call.base, rendered.id);
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            let said =
                if is_new { "it was created" } else { "it was there already; nothing was stored anew" };
            let body = match wanted {
                Wanted::Minimal => None,
                Wanted::Representation => Some(rendered.resource),
                Wanted::Outcome => Some(operation_outcome(&[OutcomeIssue::information(said)])),
            };
            let answer = Answer { body, ..Answer::ok(Value::Null) };
            answer.status(status).version(1, committed_at).header(header::LOCATION, &location)
        }
    }
}

/// The refusal of a condition on a create, wherever it stands.
pub(crate) fn no_conditional_create(place: &str) -> Refusal {
    let what = format!(
        "{place} is not supported: a repeat is recognised by device, measure and time, so send it without a condition"
    );
    Refusal::new(StatusCode::BAD_REQUEST, IssueCode::NotSupported, what)
}

/// An Observation that is valid and names a device that may be sent for.
pub(crate) struct Checked {
    pub device: DeviceId,
    pub observation: ForeignObservation,
}

/// Checks an Observation as far as that needs no assignment.
pub(crate) fn check(web: &Web, access: &Access, value: &Value, place: &str) -> Result<Checked, Refusal> {
    let observation = parse(value).map_err(Refusal::invalid)?;
    let device = sending_device(web, access, &observation, place)?;
    Ok(Checked { device: device.id, observation })
}

/// The device whose measurement it is: the sender, or the device that a program names.
fn sending_device(
    web: &Web,
    access: &Access,
    observation: &ForeignObservation,
    place: &str,
) -> Result<Arc<Device>, Refusal> {
    let place = format!("{place}.device");
    let unprocessable =
        |code, what: String| Refusal::at(StatusCode::UNPROCESSABLE_ENTITY, code, what, place.clone());
    let named = match &observation.device {
        None => None,
        Some(reference) => {
            Some(reference.strip_prefix("Device/").and_then(|id| id.parse::<DeviceId>().ok()).ok_or_else(
                || {
                    unprocessable(
                        IssueCode::Value,
                        format!("\"{}\" is no device of this site: expected Device/id", shown(reference)),
                    )
                },
            )?)
        }
    };
    let device = match (access, named) {
        (Access::Peer(Peer::Device(own)), Some(other)) if *own != other => {
            return Err(Refusal::forbidden("a device sends its own measurements only"));
        }
        (Access::Peer(Peer::Device(own)), _) => *own,
        (Access::Peer(Peer::Program(_)), Some(device)) => device,
        (Access::Peer(Peer::Program(_)), None) => {
            return Err(unprocessable(
                IssueCode::Required,
                "the device that measured must be named".to_owned(),
            ));
        }
        (Access::Person(_), _) => return Err(Refusal::forbidden("people do not send measurements")),
    };
    let known = web.site.registry().device(device);
    known.ok_or_else(|| unprocessable(IssueCode::NotFound, format!("device {device} is not registered here")))
}

/// The exact bytes as a frame of the device.
pub(crate) fn frame_of(web: &Web, device: DeviceId, bytes: &Bytes) -> Frame {
    Frame {
        device,
        kind: FrameKind::Fhir,
        received_at: received_now(web.site.clock()),
        delivery: Delivery::AtLeastOnce,
        bytes: bytes.to_vec(),
    }
}

/// The way in. It is taken for one submission and let go, so that the site can stop.
pub(crate) fn intake(web: &Web) -> Result<Intake, Refusal> {
    web.site.intake().ok_or_else(|| Refusal::unavailable("the server is stopping; send again later"))
}

/// Hands a frame in and waits until it is on stable storage.
pub(crate) async fn submit(web: &Web, frame: Frame) -> Result<Receipt, Refusal> {
    let pending = intake(web)?.submit(frame).await?;
    Ok(pending.await?)
}

/// Refuses what names another subject than the device was assigned to: the sender must know, and keeps it.
pub(crate) fn refuse_other_subject(
    web: &Web,
    call: &Call,
    checked: &Checked,
    outcome: &EntryOutcome,
) -> Result<(), Refusal> {
    match outcome {
        EntryOutcome::Quarantined { reason: QuarantineReason::WrongSubject, .. } => {}
        _ => return Ok(()),
    }
    let named = checked.observation.subject.as_deref().unwrap_or("nobody");
    let at = time_of(&checked.observation).unwrap_or_else(|| web.site.clock().now());
    let is_program = matches!(call.access()?, Access::Peer(Peer::Program(_)));
    let assigned = match web.site.registry().assignment_at(checked.device, at) {
        Some(Assignment { id, subject, interval, .. }) => {
            // A device is told which assignment, not whose: it need not know its patient.
            let whom = if is_program { format!(" to {}", reference_of(subject)) } else { String::new() };
            format!("it was assigned{whom} then (assignment {id}, since {})", interval.start)
        }
        None => "it was assigned to nobody then".to_owned(),
    };
    let what = format!("the device {} does not measure {} at {at}: {assigned}", checked.device, shown(named));
    Err(Refusal::at(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::BusinessRule, what, "Observation.subject"))
}

fn reference_of(subject: Subject) -> String {
    match subject {
        Subject::Patient(id) => format!("Patient/{id}"),
        Subject::Device(id) => format!("Device/{id}"),
        Subject::Place(id) => format!("Location/{id}"),
    }
}

/// The time that the Observation states; the device's clock rule may shift it.
fn time_of(observation: &ForeignObservation) -> Option<Timestamp> {
    let time = match observation.decoded.first()? {
        Decoded::Scalar(scalar) => scalar.time,
        Decoded::Waveform(waveform) => waveform.time,
        Decoded::Event(event) => event.time,
    };
    match time {
        DeviceTime::Utc(at) | DeviceTime::Local(at) => Some(at),
        DeviceTime::Unknown => None,
    }
}

/// What became of one Observation.
pub(crate) enum Made {
    /// It is in the chart.
    Committed { rendered: Rendered, is_new: bool, committed_at: Timestamp },
    /// It waits in quarantine.
    Quarantined { id: QuarantineId, reason: QuarantineReason, what: String },
}

/// An issue that tells a sender that what was sent is kept, but not charted.
pub(crate) fn quarantined_issue(id: QuarantineId, reason: QuarantineReason, what: &str) -> OutcomeIssue {
    OutcomeIssue {
        severity: Severity::Warning,
        code: IssueCode::Incomplete,
        diagnostics: format!("kept in quarantine as {id} ({}), not charted: {what}", reason.word()),
        expression: Vec::new(),
    }
}

/// The address by which a fact is found: components by their panel, a curve by its first sample.
pub(crate) fn position_of(fact: &FactAddress) -> Position {
    let sequence = match fact.series.measure.kind {
        MeasureKind::Waveform => 0,
        _ => fact.sequence,
    };
    Position { at: fact.at, series: render::address_of(fact.series), sequence }
}

/// Records the act, and reads what was committed as the chart now shows it. Of an Observation that became several,
/// the first stands for all.
pub(crate) fn read_back(
    web: &Web,
    call: &Call,
    device: DeviceId,
    receipt: &Receipt,
    entries: &[EntryOutcome],
) -> Result<Vec<Made>, Refusal> {
    let mut patients: Vec<PatientId> = Vec::new();
    for entry in entries {
        if let EntryOutcome::Committed { facts } = entry {
            patients.extend(facts.iter().filter_map(|fact| fact.series.subject.patient()));
        }
    }
    patients.sort();
    patients.dedup();
    let detail = format!("{} in group {}", entries.len(), receipt.group);
    let acts = call.acts(AuditAction::Create, "Observation", &detail, &patients)?;
    let acts = acts.into_iter().map(|act| act.device(device)).collect();
    let made = web.site.read_each(acts, |chart| {
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries {
            let facts = match entry {
                EntryOutcome::Committed { facts } => facts,
                EntryOutcome::Quarantined { id, reason, what } => {
                    all.push(Some(Made::Quarantined { id: *id, reason: *reason, what: what.clone() }));
                    continue;
                }
            };
            let Some(position) = facts.first().map(position_of) else {
                all.push(None);
                continue;
            };
            let found = chart.found(&position)?;
            let made = found.map(|found| {
                let committed_at = render::committed_at(&found);
                let is_new = match render::group_of(&found) {
                    // Folded in between: only the time is left, cut to milliseconds.
                    0 => committed_at.as_millis() >= receipt.committed_at.as_millis(),
                    group => group == receipt.group,
                };
                render::observation(chart, &position, &found).map(|rendered| Made::Committed {
                    rendered,
                    is_new,
                    committed_at,
                })
            });
            all.push(made.transpose()?);
        }
        Ok(all)
    })?;
    // What was committed a moment ago and is not found is a fault of ours.
    made.into_iter().map(|made| made.ok_or_else(Refusal::internal)).collect()
}

//! Creating Observations: read strictly, placed by the device's assignment, committed, and answered with what was
//! committed.
//!
//! A reading's identity is (series, time, sequence), so that a repeat finds itself and stores nothing new, under any
//! concurrency; nothing is searched before it is written. A condition by identifier is decided by who claims the
//! identifier first.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use clinical_model::{
    Assignment, Decoded, Delivery, Device, DeviceId, DeviceTime, Frame, FrameKind, MeasureKind, PatientId,
    QuarantineId, QuarantineReason, Subject, Timestamp,
};
use health_codecs::fhir::foreign::{ForeignEntry, ForeignFrame};
use health_codecs::fhir::observation::{ForeignObservation, parse};
use health_codecs::fhir::{IssueCode, OutcomeIssue, Severity, json, operation_outcome};
use pipeline::audited::Act;
use pipeline::chart::Chart;
use pipeline::identifiers::{self, Claimed, IdentifierKey, KeptFrame, Outcome, Target};
use pipeline::intake::Prepared;
use pipeline::search::Position;
use pipeline::site::received_now;
use pipeline::{EntryOutcome, FactAddress, Intake, Peer, Receipt};
use serde_json::Value;
use store::AuditAction;

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::conditions::{Condition, lost_race, several};
use super::render::{self, Rendered};
use super::{Waiting, blocking};
use crate::access::{Access, Permission};
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
    Box::pin(async move {
        let condition = call.header("if-none-exist").map(Condition::parse).transpose()?;
        run(web, call, condition, false).await
    })
}

/// `PUT /fhir/Observation?identifier=…` where nothing goes by the identifier yet.
pub(crate) async fn create_under(web: Arc<Web>, call: Arc<Call>) -> Result<Answer, Refusal> {
    if !call.access()?.holds(Permission::SendMeasurements) {
        return Err(Refusal::forbidden("nothing goes by this identifier, and you may not send measurements"));
    }
    let condition = Condition::of(&call.params)?;
    run(web, call, Some(condition), true).await
}

/// What is to be done about an Observation that may be sent.
enum Ready {
    /// It is sent.
    Send(Box<Sending>),
    /// Something goes by its identifier already.
    Claimed(Claimed),
}

struct Sending {
    prepared: Prepared,
    /// What it will be, where it will be charted.
    position: Option<Position>,
    /// By which identifiers it will go besides.
    identifiers: Vec<IdentifierKey>,
    /// Whether it claimed its identifier and was not charted: then this request creates it, also where somebody else, who
    /// met the claim, charts it first.
    creates: bool,
}

async fn run(
    web: Arc<Web>,
    call: Arc<Call>,
    condition: Option<Condition>,
    is_update: bool,
) -> Result<Answer, Refusal> {
    let checking = Arc::clone(&call);
    let ready = blocking(&web, move |web| ready(web, &checking, condition.as_ref())).await?;
    let made = match ready {
        Ready::Send(sending) => send(&web, &call, *sending).await?,
        Ready::Claimed(claimed) => {
            let is_same = claimed.frame.as_ref().is_some_and(|kept| kept.frame().bytes == call.body);
            let made = claimed_already(&web, &call, claimed).await?;
            if is_update && !is_same {
                // Somebody else sent another measurement under it a moment ago: what was to stand there does not.
                return Err(lost_race());
            }
            made
        }
    };
    Ok(answer(&call, made))
}

/// Checks an Observation, and claims its identifier where that is the condition.
fn ready(web: &Web, call: &Call, condition: Option<&Condition>) -> Result<Ready, Refusal> {
    let value = json::parse(&call.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
    let checked = check(web, call.access()?, &value, "Observation")?;
    let entry = ForeignEntry { span: 0..call.body.len(), result: Ok(checked.observation.clone()) };
    let frame = frame_of(web, checked.device, &call.body);
    let prepared = intake(web)?.prepare(frame, ForeignFrame { entries: vec![entry] })?;
    prepared.outcomes().iter().try_for_each(|outcome| refuse_other_subject(web, call, &checked, outcome))?;
    let position = position_in(prepared.outcomes());
    let store = web.site.store();
    let condition = condition.map(|condition| condition.key(web, "Observation"));
    let identifiers = checked
        .observation
        .identifiers
        .iter()
        .filter(|identifier| !identifier.ends_with('|'))
        .map(|identifier| IdentifierKey::of(store, "Observation", identifier))
        .filter(|key| Some(*key) != condition)
        .collect();
    let mut creates = false;
    if let Some(key) = condition {
        if let Some((claimed, _)) = identifiers::find(store, key)? {
            return of_same_subject(call, &checked, &claimed).map(|()| Ready::Claimed(claimed));
        }
        // What goes to quarantine is no observation yet, and claims nothing.
        if let Some(position) = position {
            let (target, at) = (Target::observation(&position), web.site.clock().now());
            creates = !web.site.is_charted(&position)?;
            let outcome = identifiers::claim_now(store, at, key, target, KeptFrame::of(prepared.frame()))?;
            if let Outcome::Taken(claimed) = outcome {
                return of_same_subject(call, &checked, &claimed).map(|()| Ready::Claimed(claimed));
            }
        }
    }
    Ok(Ready::Send(Box::new(Sending { prepared, position, identifiers, creates })))
}

/// What the first entry of a frame will be, where it will be charted.
fn position_in(outcomes: &[EntryOutcome]) -> Option<Position> {
    match outcomes.first() {
        Some(EntryOutcome::Committed { facts }) => facts.first().map(position_of),
        _ => None,
    }
}

async fn send(web: &Arc<Web>, call: &Arc<Call>, sending: Sending) -> Result<Made, Refusal> {
    let Sending { prepared, position, identifiers, creates } = sending;
    let device = prepared.frame().device;
    let naming = async {
        match position.filter(|_| !identifiers.is_empty()) {
            None => Ok(()),
            Some(position) => {
                blocking(web, move |web| {
                    let (store, at) = (web.site.store(), web.site.clock().now());
                    let target = Target::observation(&position);
                    identifiers::add_now(store, at, &identifiers, target).map_err(Refusal::from)
                })
                .await
            }
        }
    };
    // Both reach the disk at the same time; an identifier without its observation is finished by whoever asks for it.
    let (receipt, named) = tokio::join!(submit_prepared(web, call, prepared), naming);
    let receipt = receipt?;
    named?;
    let reading = Arc::clone(call);
    blocking(web, move |web| {
        let entry = receipt.entries.first().cloned().ok_or_else(Refusal::internal)?;
        let wants_resource = Wanted::of(&reading).is_none_or(|wanted| wanted == Wanted::Representation);
        let mut made = read_back(web, &reading, (device, wants_resource), &receipt, &[entry])?;
        match made.pop().ok_or_else(Refusal::internal)? {
            Made::Committed { rendered, .. } if creates => Ok(Made::Committed { rendered, is_new: true }),
            made => Ok(made),
        }
    })
    .await
}

/// The observation that goes by the identifier. Where it was claimed and not charted, because its sender is at this
/// moment about to, or was stopped in between, it is charted now: the same frame twice is one observation.
async fn claimed_already(web: &Arc<Web>, call: &Arc<Call>, claimed: Claimed) -> Result<Made, Refusal> {
    let position = sole_observation(call, &claimed)?;
    let reading = Arc::clone(call);
    if let Some(made) = blocking(web, move |web| existing(web, &reading, &position)).await? {
        return Ok(made);
    }
    let Some(kept) = claimed.frame else {
        // It was sent without a condition, which keeps no frame, and was taken out of the chart since, or is not seen here yet.
        let what = "the identifier belongs to a measurement that is not in the chart now; nothing was stored";
        return Err(Refusal::new(StatusCode::CONFLICT, IssueCode::Conflict, what));
    };
    let receipt = submit(web, kept.frame()).await?;
    if let Some(EntryOutcome::Quarantined { id, reason, what }) = receipt.entries.into_iter().next() {
        return Ok(Made::Quarantined { id, reason, what });
    }
    let reading = Arc::clone(call);
    let made = blocking(web, move |web| existing(web, &reading, &position)).await?;
    made.ok_or_else(Refusal::internal)
}

/// The one observation of a claim, where whoever asks may know of it.
pub(crate) fn sole_observation(call: &Call, claimed: &Claimed) -> Result<Position, Refusal> {
    let [target] = claimed.targets.as_slice() else { return Err(several("Observation")) };
    let position = target.position().ok_or_else(Refusal::internal)?;
    match call.access()?.peer() {
        Some(Peer::Device(own)) if *own != position.series.device => {
            let what = "the identifier belongs to a measurement of another device";
            Err(Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, what))
        }
        _ => Ok(position),
    }
}

/// Refuses an identifier that a measurement of somebody else goes by: to be told that it is there already would be to
/// lose this one.
pub(crate) fn of_same_subject(call: &Call, checked: &Checked, claimed: &Claimed) -> Result<(), Refusal> {
    let position = sole_observation(call, claimed)?;
    let named = checked.observation.subject.as_ref();
    if named.is_none_or(|named| named.eq_ignore_ascii_case(&reference_of(position.series.subject))) {
        return Ok(());
    }
    let what = "the identifier belongs to a measurement of somebody else; nothing was stored";
    Err(Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, what))
}

/// An observation that was there before it was sent.
pub(crate) fn existing(web: &Web, call: &Call, position: &Position) -> Result<Option<Made>, Refusal> {
    let act = call.act(AuditAction::Create, "Observation")?.detail("it was there already");
    let act = act.device(position.series.device);
    let act = position.series.subject.patient().into_iter().fold(act, |act, id| act.patient(id));
    let found = web.site.read(act, |chart| {
        let Some(found) = chart.found(position)? else { return Ok(None) };
        render::observation(chart, position, &found).map(Some)
    })?;
    Ok(found.map(|rendered| Made::Committed { rendered, is_new: false }))
}

/// The answer to a create.
pub(crate) fn answer(call: &Call, made: Made) -> Answer {
    let wanted = Wanted::of(call).unwrap_or(Wanted::Representation);
    match made {
        Made::Quarantined { id, reason, what } => {
            let issue = quarantined_issue(id, reason, &what);
            Answer::ok(operation_outcome(&[issue])).status(StatusCode::ACCEPTED)
        }
        Made::Committed { rendered, is_new } => {
            let version = rendered.version;
            let location = format!("{}/Observation/{}/_history/{version}", call.base, rendered.id);
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            let said =
                if is_new { "it was created" } else { "it was there already; nothing was stored anew" };
            let body = match wanted {
                Wanted::Minimal => None,
                Wanted::Representation => Some(rendered.resource),
                Wanted::Outcome => Some(operation_outcome(&[OutcomeIssue::information(said)])),
            };
            let answer = Answer { body, ..Answer::ok(Value::Null) };
            answer.status(status).version(version, rendered.updated_at).header(header::LOCATION, &location)
        }
    }
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
    let device = match (access.peer(), named) {
        (Some(Peer::Device(own)), Some(other)) if *own != other => {
            return Err(Refusal::forbidden("a device sends its own measurements only"));
        }
        (Some(Peer::Device(own)), _) => *own,
        (_, Some(device)) if access.program().is_some() => device,
        (_, None) if access.program().is_some() => {
            return Err(unprocessable(
                IssueCode::Required,
                "the device that measured must be named".to_owned(),
            ));
        }
        _ => return Err(Refusal::forbidden("people do not send measurements")),
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

/// As [`submit`], for what was read and judged already; who sent it is recorded in its own commit.
pub(crate) async fn submit_prepared(web: &Web, call: &Call, prepared: Prepared) -> Result<Receipt, Refusal> {
    let count = prepared.outcomes().len();
    let acts = acts_of(call, prepared.frame().device, prepared.outcomes(), &format!("{count} sent"))?;
    let pending = intake(web)?.submit_recorded(prepared, acts).await?;
    Ok(pending.await?)
}

/// What is recorded of measurements that were sent: an act for each patient whose they are.
pub(crate) fn acts_of(
    call: &Call,
    device: DeviceId,
    entries: &[EntryOutcome],
    detail: &str,
) -> Result<Vec<Act>, Refusal> {
    let mut patients: Vec<PatientId> = Vec::new();
    for entry in entries {
        if let EntryOutcome::Committed { facts } = entry {
            patients.extend(facts.iter().filter_map(|fact| fact.series.subject.patient()));
        }
    }
    patients.sort();
    patients.dedup();
    let acts = call.acts(AuditAction::Create, "Observation", detail, &patients)?;
    Ok(acts.into_iter().map(|act| act.device(device)).collect())
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
    let is_program = call.access()?.program().is_some();
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

/// `Patient/…`, `Device/…` or `Location/…`.
pub(crate) fn reference_of(subject: Subject) -> String {
    match subject {
        Subject::Patient(id) => format!("Patient/{id}"),
        Subject::Device(id) => format!("Device/{id}"),
        Subject::Place(id) => format!("Location/{id}"),
    }
}

/// The time that the Observation states; the device's clock rule may shift it.
pub(crate) fn time_of(observation: &ForeignObservation) -> Option<Timestamp> {
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
    Committed { rendered: Rendered, is_new: bool },
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
    (device, wants_resource): (DeviceId, bool),
    receipt: &Receipt,
    entries: &[EntryOutcome],
) -> Result<Vec<Made>, Refusal> {
    let show = |chart: &Chart<'_>| {
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
                let rendered = match wants_resource {
                    true => render::observation(chart, &position, &found),
                    false => render::address(chart, &position, &found),
                };
                rendered.map(|rendered| Made::Committed { rendered, is_new })
            });
            all.push(made.transpose()?);
        }
        Ok(all)
    };
    let made = if receipt.is_recorded() {
        web.site.read_back(receipt, show)?
    } else {
        let detail = format!("{} in group {}", entries.len(), receipt.group);
        web.site.read_each(acts_of(call, device, entries, &detail)?, show)?
    };
    // What was committed a moment ago and is not found is a fault of ours.
    made.into_iter().map(|made| made.ok_or_else(Refusal::internal)).collect()
}

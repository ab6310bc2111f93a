//! Putting right what is charted: a new version beside what was measured, never in its place.
//!
//! What was measured, when, of whom and by which device is the identity of an Observation and cannot be changed: what is
//! wrong about it is entered in error, and sent anew. A value can be put right, as a new version with a status that says
//! so. DELETE takes an Observation out of the chart; its history stays, as a clinical record must.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use clinical_model::validation::replacement;
use clinical_model::{Decoded, DecodedValue, DeviceTime, Measure, MeasureKind, Value as Measured};
use health_codecs::fhir::foreign::{ForeignCorrection, parse_correction};
use health_codecs::fhir::{IssueCode, OutcomeIssue, json, operation_outcome};
use pipeline::chart::{Chart, Observed};
use pipeline::corrections::{CorrectError, CorrectedStatus, NewCorrection};
use pipeline::identifiers;
use pipeline::search::{Found, Position};
use pipeline::together::CorrectionChange;
use serde_json::Value;
use store::AuditAction;

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::conditions::{Condition, Expecting, if_match, lost_race, not_current, several};
use super::create::Wanted;
use super::observations::position_of;
use super::render::{self, Rendered};
use super::{Waiting, blocking, refused};
use crate::state::Web;

const KIND: &str = "Observation";
/// Times that a write without an expectation is tried again when somebody else was faster.
const TRIES_LIMIT: usize = 8;

/// `PUT /fhir/Observation/{id}`
pub(crate) fn update(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(async move {
        blocking(&web, move |web| {
            let position = known_position(web, &call, &call.id, AuditAction::Update)?;
            put(web, &call, &position)
        })
        .await
    })
}

/// `PUT /fhir/Observation?identifier=…`
pub(crate) fn update_by(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(async move {
        let finding = Arc::clone(&call);
        let found = blocking(&web, move |web| by_identifier(web, &finding)).await?;
        match found {
            Some(position) => blocking(&web, move |web| put(web, &call, &position)).await,
            None => super::create::create_under(web, call).await,
        }
    })
}

/// `DELETE /fhir/Observation/{id}`
pub(crate) fn delete(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(async move {
        blocking(&web, move |web| {
            let position = known_position(web, &call, &call.id, AuditAction::Delete)?;
            withdraw(web, &call, &position)
        })
        .await
    })
}

/// `DELETE /fhir/Observation?identifier=…`
pub(crate) fn delete_by(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(async move {
        blocking(&web, move |web| match by_identifier(web, &call)? {
            Some(position) => withdraw(web, &call, &position),
            // Nothing goes by it: that is what was asked for.
            None => Ok(nothing_left(&call)),
        })
        .await
    })
}

/// The one observation that goes by the identifier of the query and that whoever asks may see.
pub(crate) fn by_identifier(web: &Web, call: &Call) -> Result<Option<Position>, Refusal> {
    let condition = Condition::of(&call.params)?;
    let found = identifiers::find(web.site.store(), condition.key(web, KIND))?;
    let targets = found.map(|(claimed, _)| claimed.targets).unwrap_or_default();
    let all: Vec<Position> = targets.iter().filter_map(|target| target.position()).collect();
    // What they may not see does not exist for them, so that no answer tells who else goes by an identifier.
    let (positions, hidden): (Vec<Position>, Vec<Position>) =
        all.into_iter().partition(|position| call.may_see_series(web, &position.series));
    if positions.is_empty() && !hidden.is_empty() {
        refused(web, call.act(AuditAction::Update, KIND)?.detail(call.query_text(web)))?;
    }
    match positions.as_slice() {
        [] => Ok(None),
        // What is claimed and not charted yet is about to be: nothing goes by the identifier now.
        [one] => Ok(web.site.is_charted(one)?.then_some(*one)),
        _ => Err(several(KIND)),
    }
}

/// What an id stands for, where whoever asks may see it; the refusal is recorded.
pub(crate) fn known_position(
    web: &Web,
    call: &Call,
    id: &str,
    action: AuditAction,
) -> Result<Position, Refusal> {
    let position = position_of(web, id)?;
    match position.filter(|position| call.may_see_series(web, &position.series)) {
        Some(position) => Ok(position),
        None => {
            let act = call.act(action, KIND)?.detail(format!("{KIND}/{}", shown(id)));
            let patient = position.and_then(|position| position.series.subject.patient());
            let act = patient.into_iter().fold(act, |act, id| act.patient(id));
            refused(web, call.access()?.refused_look(web, act))?;
            Err(Refusal::not_found(KIND))
        }
    }
}

/// An observation as it stands, with what was measured.
struct Current {
    measured: Found,
    rendered: Rendered,
    status: Option<CorrectedStatus>,
    values: Vec<(Measure, Measured)>,
}

fn current(chart: &Chart<'_>, position: &Position) -> Result<Option<Current>, pipeline::audited::ReadError> {
    let Some(measured) = chart.as_measured(position)? else { return Ok(None) };
    let correction = chart.correction(position)?;
    let found = correction.as_ref().map_or_else(|| measured.clone(), |correction| correction.over(&measured));
    let values = match &found {
        Found::Readings(Observed { readings, .. }) => {
            readings.iter().map(|reading| (reading.series().measure, reading.value())).collect()
        }
        Found::Event(_) | Found::Curve(_) => Vec::new(),
    };
    let rendered = render::version(chart, position, &found, correction.as_ref())?;
    let status = correction.map(|correction| correction.status);
    Ok(Some(Current { measured, rendered, status, values }))
}

fn read_current(
    web: &Web,
    call: &Call,
    position: &Position,
    action: AuditAction,
) -> Result<Current, Refusal> {
    if position.series.measure.kind == MeasureKind::Waveform {
        let what = "curves are not corrected: their intervals are addresses, not observations of their own";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, IssueCode::NotSupported, what));
    }
    let detail = format!("{}: {}", shown(&call.id), call.header("if-match").unwrap_or("any version"));
    let act = call.act(action, KIND)?.detail(detail).device(position.series.device);
    let patient = position.series.subject.patient();
    let act = patient.into_iter().fold(act, |act, id| act.patient(id));
    let found = call.chart(web, act, |chart| current(chart, position))?;
    found.ok_or_else(|| Refusal::not_found(KIND))
}

/// What a body says about an observation, checked against what stands.
pub(crate) fn checked_correction(
    web: &Web,
    call: &Call,
    position: &Position,
    body: &Value,
) -> Result<Option<CorrectionChange>, Refusal> {
    let foreign = parse_correction(body).map_err(Refusal::invalid)?;
    let current = read_current(web, call, position, AuditAction::Update)?;
    let version = current.rendered.version;
    match (if_match(call)?, foreign.version) {
        (Some(Expecting::Any), _) => {}
        (Some(Expecting::Version(expected)), _) | (None, Some(expected)) if expected == version => {}
        (Some(Expecting::Version(expected)), _) | (None, Some(expected)) => {
            return Err(not_current(expected, version));
        }
        (None, None) => {
            let what = "a charted value is put right by somebody who has seen it: name the version with \
                        If-Match: W/\"…\", or leave meta.versionId in the resource";
            return Err(Refusal::new(StatusCode::PRECONDITION_REQUIRED, IssueCode::Required, what));
        }
    }
    let correction = correction_of(position, &current, &foreign)?;
    Ok(correction.map(|correction| CorrectionChange { position: *position, version, correction }))
}

fn put(web: &Web, call: &Call, position: &Position) -> Result<Answer, Refusal> {
    let body = json::parse(&call.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
    same_id(&body, &call.id)?;
    let Some(change) = checked_correction(web, call, position, &body)? else {
        // It says what stands already: the answer is what stands.
        return shown_again(web, call, position);
    };
    let act = act_of(call, &change, AuditAction::Update)?;
    web.site
        .correct(act, position, change.version, &change.correction)
        .map_err(|error| refusal(call, error))?;
    shown_again(web, call, position)
}

/// The act of a correction, with its reason.
pub(crate) fn act_of(
    call: &Call,
    change: &CorrectionChange,
    action: AuditAction,
) -> Result<pipeline::audited::Act, Refusal> {
    let CorrectionChange { position, version, correction } = change;
    let status = render::status_code(correction.status);
    let reason = correction.reason.as_deref().unwrap_or("no reason given");
    let detail = format!("version {} is {status}: {reason}", version + 1);
    let act = call.act(action, KIND)?.detail(detail).device(position.series.device);
    Ok(position.series.subject.patient().into_iter().fold(act, |act, id| act.patient(id)))
}

/// The id of the body is that of the address, as the standard demands.
pub(crate) fn same_id(body: &Value, id: &str) -> Result<(), Refusal> {
    if id.is_empty() {
        return Ok(());
    }
    match body["id"].as_str() {
        Some(given) if given == id => Ok(()),
        given => {
            let given = given.map_or_else(|| "none".to_owned(), shown);
            let what = format!("the id of the resource must be that of the address, found {given}");
            Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::Value, what, "id")]))
        }
    }
}

fn refusal(call: &Call, error: CorrectError) -> Refusal {
    match error {
        CorrectError::Changed { expected } if call.headers.contains_key(header::IF_MATCH) => {
            let what = format!("version {expected} is no longer the current one; read it again");
            Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, what)
        }
        CorrectError::Changed { .. } => lost_race(),
        CorrectError::Keep(error) => error.into(),
    }
}

/// What stands now, as the answer to a write.
pub(crate) fn shown_again(web: &Web, call: &Call, position: &Position) -> Result<Answer, Refusal> {
    let act = call.act(AuditAction::Read, KIND)?.device(position.series.device);
    let act = position.series.subject.patient().into_iter().fold(act, |act, id| act.patient(id));
    let now = call.chart(web, act, |chart| current(chart, position))?;
    let rendered = now.ok_or_else(Refusal::internal)?.rendered;
    let (version, updated_at) = (rendered.version, rendered.updated_at);
    let location = format!("{}/{KIND}/{}/_history/{version}", call.base, rendered.id);
    let body = match Wanted::of(call).unwrap_or(Wanted::Representation) {
        Wanted::Minimal => None,
        Wanted::Representation => Some(rendered.resource),
        Wanted::Outcome => {
            let said = format!("it stands in version {version}");
            Some(operation_outcome(&[OutcomeIssue::information(said)]))
        }
    };
    Ok(Answer { body, ..Answer::ok(Value::Null) }
        .version(version, updated_at)
        .header(header::LOCATION, &location))
}

/// What the body changes; `None` where it says what stands already.
fn correction_of(
    position: &Position,
    current: &Current,
    foreign: &ForeignCorrection,
) -> Result<Option<NewCorrection>, Refusal> {
    is_the_same_measurement(position, foreign)?;
    let values = values_of(current, foreign)?;
    let mut changed = values.clone();
    changed.retain(|(measure, value)| !current.values.contains(&(*measure, *value)));
    let was_preliminary = current.status.is_none() && render::is_preliminary(&current.measured);
    let status = match foreign.status.as_str() {
        "amended" => CorrectedStatus::Amended,
        "corrected" => CorrectedStatus::Corrected,
        "entered-in-error" => CorrectedStatus::EnteredInError,
        _ if was_preliminary && changed.is_empty() => CorrectedStatus::Final,
        _ if current.status.is_none_or(|status| status == CorrectedStatus::Final) && changed.is_empty() => {
            return Ok(None);
        }
        _ => {
            let what =
                "what was final stays what it was: give the status amended, corrected or entered-in-error";
            return Err(unprocessable(IssueCode::BusinessRule, what.to_owned(), "Observation.status"));
        }
    };
    if current.status == Some(status) && changed.is_empty() && !current.rendered.is_withdrawn {
        return Ok(None);
    }
    // What was entered in error may come without its values: they are shown all the same, marked.
    let values = if values.is_empty() { current.values.clone() } else { values };
    Ok(Some(NewCorrection { status, withdrawn: false, values, reason: foreign.reason.clone() }))
}

fn unprocessable(code: IssueCode, what: String, place: &str) -> Refusal {
    Refusal::at(StatusCode::UNPROCESSABLE_ENTITY, code, what, place)
}

/// Subject, device, code and time are what they were.
fn is_the_same_measurement(position: &Position, foreign: &ForeignCorrection) -> Result<(), Refusal> {
    let differs = |what: &str, place: &str| {
        let what = format!(
            "the {what} of a charted Observation cannot be changed: say that it was entered in error, and send a new one"
        );
        Err(unprocessable(IssueCode::BusinessRule, what, place))
    };
    let subject = super::create::reference_of(position.series.subject);
    if foreign.subject.as_ref().is_some_and(|named| !named.eq_ignore_ascii_case(&subject)) {
        return differs("subject", "Observation.subject");
    }
    let device = format!("Device/{}", position.series.device);
    if foreign.device.as_ref().is_some_and(|named| !named.eq_ignore_ascii_case(&device)) {
        return differs("device", "Observation.device");
    }
    for decoded in &foreign.decoded {
        let (measure, time) = match decoded {
            Decoded::Scalar(scalar) => (scalar.measure, scalar.time),
            Decoded::Event(event) => (event.measure, event.time),
            Decoded::Waveform(waveform) => (waveform.measure, waveform.time),
        };
        if measure.panel().unwrap_or(measure) != position.series.measure && measure != position.series.measure
        {
            return differs("code", "Observation.code");
        }
        if matches!(time, DeviceTime::Utc(at) if at != position.at) {
            return differs("time", "Observation.effective");
        }
    }
    Ok(())
}

/// The values that the body gives, in the units of their series; all of what was measured must be there.
fn values_of(current: &Current, foreign: &ForeignCorrection) -> Result<Vec<(Measure, Measured)>, Refusal> {
    let mut values: Vec<(Measure, Measured)> = Vec::new();
    for decoded in &foreign.decoded {
        let Decoded::Scalar(scalar) = decoded else { continue };
        let measure = scalar.measure;
        let was_measured = current.values.iter().any(|(own, _)| *own == measure);
        match scalar.value {
            // A component that did not come is said to be unknown when it is shown.
            DecodedValue::Absent(_) if !was_measured => continue,
            DecodedValue::Number(_) if !was_measured => {
                let what =
                    format!("{} was not measured; what was not measured is sent as a new one", measure.name);
                return Err(unprocessable(IssueCode::BusinessRule, what, "Observation.component"));
            }
            _ => {}
        }
        let value = replacement(measure, scalar.value, &scalar.unit).map_err(|rejection| {
            let cause =
                std::error::Error::source(&rejection).map(|cause| format!(": {cause}")).unwrap_or_default();
            unprocessable(IssueCode::Value, format!("{rejection}{cause}"), "Observation.value[x]")
        })?;
        values.push((measure, value));
    }
    let missing = current.values.iter().find(|(own, _)| !values.iter().any(|(given, _)| given == own));
    match missing {
        Some((measure, _)) if !values.is_empty() || foreign.status != "entered-in-error" => {
            let what = format!("{} was measured and is missing; give it, or why there is none", measure.name);
            Err(unprocessable(IssueCode::Required, what, "Observation.component"))
        }
        _ => Ok(values),
    }
}

/// What a delete of an observation comes to; `None` where it is gone already.
pub(crate) fn withdrawal(
    web: &Web,
    call: &Call,
    position: &Position,
) -> Result<Option<CorrectionChange>, Refusal> {
    let current = read_current(web, call, position, AuditAction::Delete)?;
    let version = current.rendered.version;
    if let Some(Expecting::Version(expected)) = if_match(call)?
        && expected != version
    {
        return Err(not_current(expected, version));
    }
    if current.rendered.is_withdrawn {
        return Ok(None);
    }
    let correction = NewCorrection {
        status: CorrectedStatus::EnteredInError,
        withdrawn: true,
        values: current.values,
        reason: None,
    };
    Ok(Some(CorrectionChange { position: *position, version, correction }))
}

fn withdraw(web: &Web, call: &Call, position: &Position) -> Result<Answer, Refusal> {
    for _ in 0..TRIES_LIMIT {
        let Some(change) = withdrawal(web, call, position)? else { break };
        let act = act_of(call, &change, AuditAction::Delete)?;
        match web.site.correct(act, position, change.version, &change.correction) {
            Ok(version) => return Ok(nothing_left(call).version(version, web.site.clock().now())),
            Err(CorrectError::Changed { .. }) if !call.headers.contains_key(header::IF_MATCH) => {}
            Err(error) => return Err(refusal(call, error)),
        }
    }
    Ok(nothing_left(call))
}

fn nothing_left(call: &Call) -> Answer {
    match Wanted::of(call) {
        Some(Wanted::Outcome) => {
            let said = "it is no longer in the chart; its history is";
            Answer::ok(operation_outcome(&[OutcomeIssue::information(said)]))
        }
        _ => Answer { body: None, ..Answer::ok(Value::Null).status(StatusCode::NO_CONTENT) },
    }
}

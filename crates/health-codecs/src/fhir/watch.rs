//! What watches over a patient, as it stands in a record that is taken out: assignments of devices as DeviceUseStatement,
//! alerts as DetectedIssue, and alarm limits as Basic.

use clinical_model::alert::AlertStep;
use clinical_model::{
    Alert, AlertState, Assignment, Decimal, Measure, PatientId, Priority, Timestamp, UserId,
};
use serde_json::{Value, json};

use super::element::{number, reference, subject_reference};
use super::system;

/// Renders an assignment; active while it has not ended `now`.
pub fn assignment(assignment: &Assignment, device: &str, now: Timestamp) -> Value {
    let is_over = assignment.interval.end.is_some_and(|end| end <= now);
    let mut period = json!({ "start": assignment.interval.start.to_rfc3339() });
    if let Some(end) = assignment.interval.end {
        period["end"] = json!(end.to_rfc3339());
    }
    json!({
        "resourceType": "DeviceUseStatement",
        "id": assignment.id.to_string(),
        "status": if is_over { "completed" } else { "active" },
        "subject": reference(&subject_reference(assignment.subject), None),
        "timingPeriod": period,
        "device": reference(&format!("Device/{}", assignment.device), Some(device)),
    })
}

/// Renders an alert of a patient with all its steps: `text` says what was noticed, `device` is the name of the device, and
/// `person` names who took a step.
pub fn alert(
    alert: &Alert,
    patient: PatientId,
    (text, device): (&str, &str),
    person: &dyn Fn(UserId) -> Option<String>,
) -> Value {
    let severity = match alert.priority {
        Priority::High => "high",
        Priority::Medium => "moderate",
        Priority::Low => "low",
    };
    let mut period = json!({ "start": alert.raised_at.to_rfc3339() });
    if let Some(end) = alert.condition_ended_at {
        period["end"] = json!(end.to_rfc3339());
    }
    let answered = alert.steps.iter().filter(|step| step.state != AlertState::Raised);
    let steps: Vec<Value> = answered.map(|step| mitigation(step, person)).collect();
    let mut issue = json!({
        "resourceType": "DetectedIssue",
        "id": alert.id.to_string(),
        "status": "final",
        "code": { "text": text },
        "severity": severity,
        "patient": reference(&format!("Patient/{patient}"), None),
        "identifiedPeriod": period,
        "implicated": [reference(&format!("Device/{}", alert.device), Some(device))],
        "detail": text,
    });
    if !steps.is_empty() {
        issue["mitigation"] = Value::Array(steps);
    }
    issue
}

fn mitigation(step: &AlertStep, person: &dyn Fn(UserId) -> Option<String>) -> Value {
    let word = match step.state {
        AlertState::Raised => "raised",
        AlertState::Acknowledged => "acknowledged",
        AlertState::Resolved => "resolved",
    };
    let text = match step.note.as_deref().filter(|note| !note.trim().is_empty()) {
        Some(note) => format!("{word}: {note}"),
        None => word.to_owned(),
    };
    let mut step_json = json!({ "action": { "text": text }, "date": step.at.to_rfc3339() });
    if let Some(by) = step.by {
        step_json["author"] = reference(&format!("Practitioner/{by}"), person(by).as_deref());
    }
    step_json
}

/// An alarm limit, in the unit of its measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitInput {
    /// What is watched.
    pub measure: Measure,
    /// Below this.
    pub low: Option<f64>,
    /// Above this.
    pub high: Option<f64>,
    /// How urgent.
    pub priority: Priority,
    /// For so many seconds.
    pub persistence_s: u32,
}

/// Renders the alarm limits of a patient.
pub fn limits(patient: PatientId, limits: &[LimitInput]) -> Value {
    let side = |limit: &LimitInput, url: &str, value: Option<f64>| {
        let value = value.and_then(|value| value.to_string().parse::<Decimal>().ok())?;
        let unit = json!({
            "value": number(value), "unit": limit.measure.unit_display,
            "system": system::UCUM, "code": limit.measure.unit,
        });
        Some(json!({ "url": url, "valueQuantity": unit }))
    };
    let rendered = limits.iter().map(|limit| {
        let priority = match limit.priority {
            Priority::High => "high",
            Priority::Medium => "medium",
            Priority::Low => "low",
        };
        let mut parts = vec![json!({ "url": "measure", "valueCode": limit.measure.name })];
        parts.extend(side(limit, "low", limit.low));
        parts.extend(side(limit, "high", limit.high));
        parts.push(json!({ "url": "priority", "valueCode": priority }));
        parts.push(json!({ "url": "persistence-s", "valueUnsignedInt": limit.persistence_s }));
        json!({ "url": system::EXT_LIMIT, "extension": parts })
    });
    json!({
        "resourceType": "Basic",
        "id": format!("limits-{patient}"),
        "code": { "text": "alarm limits" },
        "subject": reference(&format!("Patient/{patient}"), None),
        "extension": rendered.collect::<Vec<_>>(),
    })
}

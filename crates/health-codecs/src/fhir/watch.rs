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

#[cfg(test)]
mod tests {
    use clinical_model::measure::HEART_RATE;
    use clinical_model::{
        AlertId, AlertKind, AssignmentId, DeviceId, Interval, PlaceId, Subject, alert::Side,
    };

    use super::*;

    const PATIENT: PatientId = PatientId::from_bytes([1; 16]);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(1_795_336_200 + second)
    }

    #[test]
    fn an_alert_has_its_steps_and_who_took_them() {
        let (subject, device) = (Subject::Patient(PATIENT), DeviceId::from_bytes([2; 16]));
        let value = "190".parse().unwrap();
        let measured_at = at(0);
        let what =
            AlertKind::Threshold { measure: HEART_RATE, side: Side::Above, limit: 120.0, value, measured_at };
        let mut raised =
            Alert::raise(AlertId::from_bytes([3; 16]), subject, device, Priority::Medium, what, at(1));
        let rendered = alert(&raised, PATIENT, ("HR 190 > 120", "Monitor"), &|_| None);
        assert!(rendered.get("mitigation").is_none() && rendered["identifiedPeriod"].get("end").is_none());
        let nurse = UserId::from_bytes([4; 16]);
        raised.acknowledge(nurse, at(2), Some("seen".into())).unwrap();
        let rendered = alert(&raised, PATIENT, ("HR 190 > 120", "Monitor"), &|_| Some("Nick".into()));
        assert_eq!(rendered["severity"], "moderate");
        assert_eq!(rendered["implicated"][0]["display"], "Monitor");
        let step = &rendered["mitigation"][0];
        assert_eq!(step["action"]["text"], "acknowledged: seen");
        assert_eq!(
            step["author"],
            json!({ "reference": format!("Practitioner/{nurse}"), "display": "Nick" })
        );
    }

    #[test]
    fn an_assignment_is_over_when_it_has_ended() {
        let (start, end) = (at(0), Some(at(60)));
        let one = Assignment {
            id: AssignmentId::from_bytes([5; 16]),
            device: DeviceId::from_bytes([2; 16]),
            subject: Subject::Place(PlaceId::from_bytes([6; 16])),
            interval: Interval { start, end },
        };
        assert_eq!(assignment(&one, "Monitor", at(59))["status"], "active");
        let over = assignment(&one, "Monitor", at(60));
        assert_eq!(over["status"], "completed");
        assert_eq!(over["timingPeriod"]["end"], "2026-11-22T08:31:00Z");
        assert!(over["subject"]["reference"].as_str().unwrap().starts_with("Location/"));
    }

    #[test]
    fn a_limit_has_the_sides_that_it_has() {
        let (low, high, priority, persistence_s) = (None, Some(120.5), Priority::High, 10);
        let limit = LimitInput { measure: HEART_RATE, low, high, priority, persistence_s };
        let parts = limits(PATIENT, &[limit])["extension"][0]["extension"].clone();
        let of = |url: &str| parts.as_array().unwrap().iter().find(|part| part["url"] == url).cloned();
        assert!(of("low").is_none());
        assert_eq!(of("high").unwrap()["valueQuantity"]["value"].to_string(), "120.5");
        assert_eq!(of("priority").unwrap()["valueCode"], "high");
    }
}

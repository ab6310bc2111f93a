//! How much of a resource is shown: `_summary` and `_elements` (R4 §3.1.1.5.8 and §3.1.1.5.9).

use serde_json::{Map, Value, json};

use super::element::cut;
use super::outcome::{IssueCode, OutcomeIssue};

/// Names in one `_elements`: more than any resource here has.
pub const ELEMENT_LIMIT: usize = 50;

/// How much of each resource is shown.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum View {
    /// All of it.
    #[default]
    Full,
    /// What the standard marks as summary, what it demands, and why a value is missing.
    Summary,
    /// The text for people with what the standard demands.
    Text,
    /// All but the text for people.
    Data,
    /// No resource, only their number.
    Count,
    /// These elements, with what the standard demands.
    Elements(Vec<String>),
}

/// What every view keeps.
const ALWAYS: &[&str] = &["resourceType", "id", "meta", "implicitRules", "modifierExtension"];

/// Elements with a minimum of 1, by type.
fn mandatory(kind: &str) -> &'static [&'static str] {
    match kind {
        "Observation" => &["status", "code"],
        "AuditEvent" => &["type", "recorded", "agent", "source"],
        "Group" => &["type", "actual"],
        _ => &[],
    }
}

/// Elements marked as summary in the definitions of R4, by type, and what no reader may miss.
fn summary(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "Patient" => &[
            "identifier",
            "active",
            "name",
            "telecom",
            "gender",
            "birthDate",
            "deceasedBoolean",
            "deceasedDateTime",
            "address",
            "managingOrganization",
            "link",
        ],
        "Device" => &["udiCarrier", "status", "safety"],
        "Location" => &[
            "identifier",
            "status",
            "operationalStatus",
            "name",
            "description",
            "mode",
            "type",
            "physicalType",
            "managingOrganization",
        ],
        // The reason for a missing value is not marked, but without it unknown would look like nothing.
        "Observation" => &[
            "identifier",
            "basedOn",
            "partOf",
            "status",
            "code",
            "subject",
            "focus",
            "encounter",
            "effectiveDateTime",
            "effectivePeriod",
            "effectiveInstant",
            "issued",
            "performer",
            "valueQuantity",
            "valueString",
            "valueSampledData",
            "dataAbsentReason",
            "hasMember",
            "derivedFrom",
            "component",
        ],
        "AuditEvent" => {
            &["type", "subtype", "action", "recorded", "outcome", "outcomeDesc", "purposeOfEvent"]
        }
        "Group" => &["identifier", "active", "type", "actual", "code", "name", "quantity", "managingEntity"],
        _ => return None,
    })
}

impl View {
    /// Reads `_summary` and `_elements`; other parameters are passed over.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of(params: &[(String, String)]) -> Result<View, Vec<OutcomeIssue>> {
        let refuse = |what: String, name: &str| {
            Err(vec![OutcomeIssue::error(IssueCode::Value, what, format!("http.{name}"))])
        };
        let values = |wanted: &str| {
            params
                .iter()
                .filter(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
                .collect::<Vec<_>>()
        };
        let (summaries, elements) = (values("_summary"), values("_elements"));
        if summaries.len() > 1 {
            return refuse("_summary may be given once".to_owned(), "_summary");
        }
        let summary = match summaries.first().copied() {
            None | Some("false") => None,
            Some("true") => Some(View::Summary),
            Some("text") => Some(View::Text),
            Some("data") => Some(View::Data),
            Some("count") => Some(View::Count),
            Some(other) => {
                let what = format!("\"{}\" is no summary: true, text, data, count and false are", cut(other));
                return refuse(what, "_summary");
            }
        };
        if elements.is_empty() {
            return Ok(summary.unwrap_or_default());
        }
        if summary.is_some() {
            return refuse("_summary and _elements cannot be given together".to_owned(), "_elements");
        }
        let names: Vec<String> =
            elements.iter().flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect();
        let is_sound =
            |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
        if names.len() > ELEMENT_LIMIT || !names.iter().all(is_sound) {
            let what = format!("_elements takes up to {ELEMENT_LIMIT} names of elements, parted by commas");
            return refuse(what, "_elements");
        }
        Ok(View::Elements(names))
    }

    /// Cuts a resource to the view and tags it as cut. A Bundle is cut entry by entry; what says something about a
    /// search stays whole.
    pub fn cut(&self, resource: &mut Value) {
        if matches!(self, View::Full | View::Count) {
            return;
        }
        if resource["resourceType"] == "Bundle" {
            for entry in resource["entry"].as_array_mut().into_iter().flatten() {
                if entry["search"]["mode"] != "outcome"
                    && let Some(inner) = entry.get_mut("resource")
                {
                    self.cut(inner);
                }
            }
            return;
        }
        let Some(fields) = resource.as_object_mut() else { return };
        let kind = fields.get("resourceType").and_then(Value::as_str).unwrap_or("").to_owned();
        if kind == "OperationOutcome" {
            return;
        }
        let before = fields.len();
        let demanded = mandatory(&kind);
        match self {
            View::Summary => {
                let Some(kept) = summary(&kind) else { return };
                keep(fields, |name| kept.contains(&name) || demanded.contains(&name));
            }
            View::Text => keep(fields, |name| name == "text" || demanded.contains(&name)),
            View::Data => {
                fields.remove("text");
            }
            View::Elements(names) => {
                let wanted = |name: &str| names.iter().any(|each| names_element(&kind, each, name));
                keep(fields, |name| wanted(name) || demanded.contains(&name));
            }
            View::Full | View::Count => {}
        }
        if fields.len() < before {
            tag(fields);
        }
    }
}

fn keep(fields: &mut Map<String, Value>, wanted: impl Fn(&str) -> bool) {
    // What is said about a primitive stands beside it under the name with an underscore.
    fields
        .retain(|name, _| ALWAYS.contains(&name.as_str()) || wanted(name.strip_prefix('_').unwrap_or(name)));
}

/// Whether a name in `_elements` (`value`, `Observation.value`, `component.code`) asks for a top-level element.
fn names_element(kind: &str, asked: &str, name: &str) -> bool {
    let asked = asked.strip_prefix(kind).and_then(|rest| rest.strip_prefix('.')).unwrap_or(asked);
    let top = asked.split('.').next().unwrap_or(asked);
    // A choice is asked for without its type: value, effective, deceased.
    let is_choice = || {
        matches!(top, "value" | "effective" | "deceased")
            && name.strip_prefix(top).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    top == name || is_choice()
}

/// Says that the resource is not whole. It no longer claims a profile, since what that demands may be cut away.
fn tag(fields: &mut Map<String, Value>) {
    let meta = fields.entry("meta").or_insert_with(|| json!({}));
    let Some(meta) = meta.as_object_mut() else { return };
    meta.remove("profile");
    let tags = meta.entry("tag").or_insert_with(|| json!([]));
    let subsetted =
        json!({ "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED" });
    tags.as_array_mut().into_iter().for_each(|tags| tags.push(subsetted.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(params: &[(&str, &str)]) -> Result<View, Vec<OutcomeIssue>> {
        let params: Vec<_> = params.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        View::of(&params)
    }

    fn observation() -> Value {
        json!({
            "resourceType": "Observation", "id": "a", "meta": {"versionId": "1", "profile": ["p"]},
            "text": {"status": "generated", "div": "<div/>"}, "status": "final", "category": [{"text": "x"}],
            "code": {"text": "c"}, "valueQuantity": {"value": 1}, "note": [{"text": "n"}],
        })
    }

    fn names(value: &Value) -> Vec<&str> {
        let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_view_keeps_what_it_says_and_says_that_it_is_cut() {
        let check = |view: View, expected: &[&str]| {
            let mut resource = observation();
            view.cut(&mut resource);
            assert_eq!(names(&resource), expected, "{view:?}");
            assert_eq!(resource["meta"]["tag"][0]["code"], "SUBSETTED", "{view:?}");
            assert!(resource["meta"].get("profile").is_none());
        };
        check(View::Summary, &["code", "id", "meta", "resourceType", "status", "valueQuantity"]);
        check(View::Text, &["code", "id", "meta", "resourceType", "status", "text"]);
        check(
            View::Data,
            &["category", "code", "id", "meta", "note", "resourceType", "status", "valueQuantity"],
        );
        let elements = |names: &[&str]| View::Elements(names.iter().map(|name| (*name).into()).collect());
        check(elements(&["note"]), &["code", "id", "meta", "note", "resourceType", "status"]);
        check(
            elements(&["Observation.value", "note.text"]),
            &["code", "id", "meta", "note", "resourceType", "status", "valueQuantity"],
        );
        let mut whole = observation();
        View::Full.cut(&mut whole);
        assert_eq!(whole, observation());
        let mut bundle = json!({"resourceType": "Bundle", "entry": [
            {"resource": observation(), "search": {"mode": "match"}},
            {"resource": {"resourceType": "OperationOutcome", "issue": [], "text": {}}, "search": {"mode": "outcome"}},
        ]});
        View::Summary.cut(&mut bundle);
        assert!(bundle["entry"][0]["resource"].get("note").is_none());
        assert!(bundle["entry"][1]["resource"].get("text").is_some());
    }

    #[test]
    fn views_are_read_or_refused() {
        assert_eq!(view(&[("code", "x")]), Ok(View::Full));
        assert_eq!(view(&[("_summary", "false")]), Ok(View::Full));
        assert_eq!(view(&[("_summary", "count")]), Ok(View::Count));
        assert_eq!(view(&[("_elements", "a, b")]), Ok(View::Elements(vec!["a".into(), "b".into()])));
        for bad in [
            &[("_summary", "yes")][..],
            &[("_summary", "true"), ("_summary", "true")],
            &[("_summary", "true"), ("_elements", "a")],
            &[("_elements", "a,,b")],
            &[("_elements", "a[0]")],
        ] {
            assert!(view(bad).is_err(), "{bad:?}");
        }
    }
}

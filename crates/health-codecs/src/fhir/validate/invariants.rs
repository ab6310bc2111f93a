//! The invariants of the data types and resources that matter here, each by its key in the specification.

use serde_json::{Map, Value};

use super::{Place, Report};
use crate::fhir::element::cut;
use crate::fhir::outcome::IssueCode;

type Fields = Map<String, Value>;

const VALUE: &str = "value";

fn has(fields: &Fields, name: &str) -> bool {
    fields.contains_key(name)
}

fn has_none(fields: &Fields, names: &[&str]) -> bool {
    !names.iter().any(|name| has(fields, name))
}

/// Whether a `name[x]` is given.
fn has_choice(fields: &Fields, name: &str) -> bool {
    fields.keys().any(|key| {
        let bare = key.strip_prefix('_').unwrap_or(key);
        bare.strip_prefix(name).is_some_and(|suffix| suffix.starts_with(|c: char| c.is_ascii_uppercase()))
    })
}

fn broken(report: &mut Report<'_>, key: &str, what: &str) {
    report.note(IssueCode::Invariant, format!("{what} ({key})"));
}

/// A rule that looks at the elements of one object only.
struct Rule {
    /// The data type, resource or part that it is about.
    of: &'static str,
    /// Its key in the specification.
    key: &'static str,
    /// What it demands.
    sentence: &'static str,
    /// Whether an object breaks it.
    is_broken: fn(&Fields) -> bool,
}

const fn rule(
    of: &'static str,
    key: &'static str,
    sentence: &'static str,
    is_broken: fn(&Fields) -> bool,
) -> Rule {
    Rule { of, key, sentence, is_broken }
}

static RULES: &[Rule] = &[
    rule("Extension", "ext-1", "an extension has either a value or extensions of its own", |fields| {
        has(fields, "extension") == has_choice(fields, VALUE)
    }),
    rule("Quantity", "qty-3", "a coded unit needs the system of its code", lacks_system),
    rule("SimpleQuantity", "qty-3", "a coded unit needs the system of its code", lacks_system),
    rule("Ratio", "rat-1", "a ratio has both a numerator and a denominator", |fields| {
        let parts = (has(fields, "numerator"), has(fields, "denominator"));
        parts.0 != parts.1 || (!parts.0 && !has(fields, "extension"))
    }),
    rule("Attachment", "att-1", "attached data needs a contentType", |fields| {
        has(fields, "data") && !has(fields, "contentType")
    }),
    rule("ContactPoint", "cpt-2", "a contact value needs its system", |fields| {
        has(fields, "value") && !has(fields, "system")
    }),
    rule("Observation", "obs-6", "dataAbsentReason is given only where there is no value", valued_and_absent),
    rule(
        "Observation.component",
        "obs-6",
        "dataAbsentReason is given only where there is no value",
        valued_and_absent,
    ),
    rule("Observation.referenceRange", "obs-3", "a reference range has a low, a high or a text", |fields| {
        has_none(fields, &["low", "high", "text"])
    }),
    rule("Patient.contact", "pat-1", "a contact has a name, telecom, address or organization", |fields| {
        has_none(fields, &["name", "telecom", "address", "organization"])
    }),
    rule("Consent", "ppc-1", "a consent names the policy it is under: policy or policyRule", |fields| {
        has_none(fields, &["policy", "policyRule"])
    }),
    rule("AuditEvent.entity", "sev-1", "an entity has a name or a query, not both", |fields| {
        has(fields, "name") && has(fields, "query")
    }),
    rule("Timing.repeat", "tim-2", "a period needs its unit", |fields| {
        has(fields, "period") && !has(fields, "periodUnit")
    }),
    rule("Timing.repeat", "tim-1", "a duration needs its unit", |fields| {
        has(fields, "duration") && !has(fields, "durationUnit")
    }),
];

fn lacks_system(fields: &Fields) -> bool {
    has(fields, "code") && !has(fields, "system")
}

fn valued_and_absent(fields: &Fields) -> bool {
    has_choice(fields, VALUE) && has(fields, "dataAbsentReason")
}

/// Rules of a data type or a part of a resource.
pub(super) fn complex(report: &mut Report<'_>, name: &str, fields: &Fields) {
    for rule in RULES.iter().filter(|rule| rule.of == name) {
        if (rule.is_broken)(fields) {
            broken(report, rule.key, rule.sentence);
        }
    }
    match name {
        "Period" => period(report, fields),
        "Range" => range(report, fields),
        "SampledData" => sampled_data(report, fields),
        "Observation" => observation(report, fields),
        "Bundle" => bundle(report, fields),
        _ => {}
    }
}

fn period(report: &mut Report<'_>, fields: &Fields) {
    let at = |name: &str| fields.get(name).and_then(Value::as_str).and_then(crate::fhir::period::span);
    if let (Some(start), Some(end)) = (at("start"), at("end")) {
        // A partial end covers its whole span: 2026-11 ends with the month.
        if end.end.is_some_and(|end| start.start >= end) {
            broken(report, "per-1", "the start lies behind the end");
        }
    }
}

fn range(report: &mut Report<'_>, fields: &Fields) {
    let bound =
        |name: &str| fields.get(name).and_then(|quantity| quantity.get("value")).and_then(Value::as_f64);
    let (low, high) = (bound("low"), bound("high"));
    if low.zip(high).is_some_and(|(low, high)| low > high) {
        broken(report, "rng-2", "low lies above high");
    }
}

fn sampled_data(report: &mut Report<'_>, fields: &Fields) {
    let Some(data) = fields.get("data").and_then(Value::as_str) else { return };
    let mut count = 0_usize;
    for sample in data.split(' ') {
        if !matches!(sample, "E" | "U" | "L") && !is_decimal(sample) {
            let what = format!(
                "samples are decimal numbers, E, U or L, parted by single spaces; sample {count} is \"{}\"",
                cut(sample)
            );
            report.note_at("data", IssueCode::Value, what);
            return;
        }
        count += 1;
    }
    let dimensions = fields.get("dimensions").and_then(Value::as_u64).unwrap_or(1).max(1);
    if !(count as u64).is_multiple_of(dimensions) {
        let what = format!("{count} samples do not divide into {dimensions} dimensions");
        report.note_at("data", IssueCode::Value, what);
    }
    let period = fields.get("period").and_then(Value::as_f64);
    if period.is_some_and(|period| period <= 0.0) {
        report.note_at("period", IssueCode::Value, "the time between samples is more than 0 ms");
    }
}

/// `-1`, `2.5`, and also `.5`, which the specification's pattern for sampled data allows.
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or(("", unsigned));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    !fraction.is_empty() && digits(whole) && digits(fraction)
}

fn observation(report: &mut Report<'_>, fields: &Fields) {
    if !has_choice(fields, VALUE) {
        return;
    }
    let own = fields.get("code").map(codings).unwrap_or_default();
    let components = fields.get("component").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for component in components {
        if codings(&component["code"]).iter().any(|coding| own.contains(coding)) {
            broken(
                report,
                "obs-7",
                "a component repeats the code of the Observation, which has a value itself",
            );
        }
    }
}

/// System and code of every coding that has a code.
fn codings(concept: &Value) -> Vec<(&str, &str)> {
    let codings = concept.get("coding").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    codings
        .iter()
        .filter_map(|coding| Some((coding["system"].as_str().unwrap_or(""), coding["code"].as_str()?)))
        .collect()
}

fn bundle(report: &mut Report<'_>, fields: &Fields) {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or("");
    let is_request = matches!(kind, "transaction" | "batch");
    let is_response = matches!(kind, "transaction-response" | "batch-response");
    if has(fields, "total") && !matches!(kind, "searchset" | "history") {
        broken(report, "bdl-1", "only a searchset or a history has a total");
    }
    let entries = fields.get("entry").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut addresses = std::collections::HashSet::new();
    for entry in entries.iter().filter_map(Value::as_object) {
        if has(entry, "search") && kind != "searchset" {
            broken(report, "bdl-2", "only entries of a searchset have search");
        }
        if has(entry, "request") != (is_request || kind == "history") {
            broken(
                report,
                "bdl-3",
                "every entry of a transaction, batch or history has a request, no other has one",
            );
        }
        if has(entry, "response") != (is_response || kind == "history") {
            broken(report, "bdl-4", "every entry of a response or history has a response, no other has one");
        }
        if !["resource", "request", "response"].iter().any(|name| has(entry, name)) {
            broken(report, "bdl-5", "an entry has a resource, a request or a response");
        }
        let address = entry.get("fullUrl").and_then(Value::as_str);
        if address.is_some_and(|address| address.contains("/_history/")) {
            broken(report, "bdl-8", "a fullUrl names no version");
        }
        let version = entry.get("resource").and_then(|resource| resource["meta"]["versionId"].as_str());
        if address.is_some_and(|address| !addresses.insert((address, version))) && kind != "history" {
            broken(report, "bdl-7", "two entries have the same fullUrl");
        }
        let method = entry.get("request").and_then(|request| request["method"].as_str());
        if is_request && matches!(method, Some("POST" | "PUT")) && !has(entry, "resource") {
            report.note(IssueCode::Required, "an entry that is to be written has a resource");
        }
    }
}

/// Rules of a whole resource, by where it stands.
pub(super) fn resource(report: &mut Report<'_>, fields: &Fields, place: Place) {
    let contained = fields.get("contained").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if place == Place::Contained {
        if !contained.is_empty() {
            broken(report, "dom-2", "a contained resource contains no resources");
        }
        let meta = fields.get("meta");
        if meta.is_some_and(|meta| meta.get("versionId").is_some() || meta.get("lastUpdated").is_some()) {
            broken(report, "dom-4", "a contained resource has no versionId or lastUpdated");
        }
        if meta.is_some_and(|meta| meta.get("security").is_some()) {
            broken(report, "dom-5", "a contained resource has no security label");
        }
        return;
    }
    if fields.get("resourceType").is_some_and(|kind| kind == "Bundle") {
        return;
    }
    let mut targets = Vec::new();
    fields.values().for_each(|value| local_references(value, &mut targets));
    let ids: Vec<&str> = contained.iter().filter_map(|each| each["id"].as_str()).collect();
    if ids.len() < contained.len() {
        broken(report, "dom-3", "every contained resource has an id");
    }
    for each in contained {
        let id = each["id"].as_str().unwrap_or("");
        let mut own = Vec::new();
        local_references(each, &mut own);
        if !id.is_empty() && !targets.contains(&id) && !own.contains(&"") {
            broken(report, "dom-3", &format!("nothing refers to the contained resource \"{}\"", cut(id)));
        }
    }
    for target in targets.iter().filter(|target| !target.is_empty() && !ids.contains(*target)) {
        broken(report, "ref-1", &format!("\"#{}\" names no contained resource", cut(target)));
    }
}

/// Collects what `#…` references point at; `""` for the resource itself.
fn local_references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            let target = fields.get("reference").and_then(Value::as_str);
            found.extend(target.and_then(|target| target.strip_prefix('#')));
            fields.values().for_each(|each| local_references(each, found));
        }
        Value::Array(items) => items.iter().for_each(|each| local_references(each, found)),
        _ => {}
    }
}

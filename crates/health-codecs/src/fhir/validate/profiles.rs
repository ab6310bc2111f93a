//! The vital-signs profiles of FHIR R4 (`hl7.org/fhir/R4/observation-vitalsigns.html`): codes, fixed units, rules.

use serde_json::Value;

use super::Report;
use crate::fhir::element::{items, text};
use crate::fhir::outcome::IssueCode;
use crate::fhir::{period, system};

/// One profile.
struct Profile {
    /// Last part of its address.
    name: &'static str,
    /// LOINC code that must be among the codings; empty where the profile fixes none.
    loinc: &'static str,
    /// UCUM codes that the value may have; empty where the profile fixes none.
    units: &'static [&'static str],
    /// LOINC codes and units of the components that must be there.
    components: &'static [(&'static str, &'static str)],
    /// Whether the Observation itself has no value.
    is_panel: bool,
}

const fn scalar(name: &'static str, loinc: &'static str, units: &'static [&'static str]) -> Profile {
    Profile { name, loinc, units, components: &[], is_panel: false }
}

static PROFILES: &[Profile] = &[
    scalar("vitalsigns", "", &[]),
    scalar("heartrate", "8867-4", &["/min"]),
    scalar("resprate", "9279-1", &["/min"]),
    scalar("oxygensat", "2708-6", &["%"]),
    scalar("bodytemp", "8310-5", &["Cel", "[degF]"]),
    scalar("bodyheight", "8302-2", &["cm", "[in_i]"]),
    scalar("headcircum", "9843-4", &["cm", "[in_i]"]),
    scalar("bodyweight", "29463-7", &["kg", "g", "[lb_av]"]),
    scalar("bmi", "39156-5", &["kg/m2"]),
    Profile {
        name: "bp",
        loinc: "85354-9",
        units: &[],
        components: &[("8480-6", "mm[Hg]"), ("8462-4", "mm[Hg]")],
        is_panel: true,
    },
    Profile { name: "vitalspanel", loinc: "85353-1", units: &[], components: &[], is_panel: true },
];

/// The profile that an Observation of this LOINC code follows.
pub(in crate::fhir) fn profile_for(loinc: Option<&str>) -> &'static str {
    let known = PROFILES.iter().find(|profile| !profile.loinc.is_empty() && Some(profile.loinc) == loinc);
    known.map_or("vitalsigns", |profile| profile.name)
}

/// Checks an Observation against every vital-signs profile that it claims in `meta.profile`.
pub(super) fn check(report: &mut Report<'_>, observation: &Value) {
    let Some(meta) = observation.get("meta") else { return };
    for claimed in items(meta, "profile").iter().filter_map(Value::as_str) {
        let address = claimed.split('|').next().unwrap_or(claimed);
        let name = address.strip_prefix(system::PROFILE_BASE);
        if let Some(profile) = PROFILES.iter().find(|profile| Some(profile.name) == name) {
            check_profile(report, observation, profile);
        }
    }
}

fn missing(report: &mut Report<'_>, profile: &Profile, element: &str, what: &str) {
    let diagnostics = format!("the {} profile requires {what}", profile.name);
    report.note_at(element, IssueCode::Required, diagnostics);
}

fn check_profile(report: &mut Report<'_>, observation: &Value, profile: &Profile) {
    let is_vital = |category: &Value| {
        items(category, "coding")
            .iter()
            .any(|coding| coding["system"] == system::OBSERVATION_CATEGORY && coding["code"] == "vital-signs")
    };
    if !items(observation, "category").iter().any(is_vital) {
        missing(report, profile, "category", "the category vital-signs of the observation-category system");
    }
    match observation.get("subject") {
        None => missing(report, profile, "subject", "a subject"),
        Some(subject) => {
            let target = text(subject, "reference").unwrap_or("");
            if ["Group/", "Device/", "Location/"].iter().any(|kind| target.starts_with(kind)) {
                missing(report, profile, "subject", "a Patient as its subject");
            }
        }
    }
    check_time(report, observation, profile);
    if !profile.loinc.is_empty() && !has_loinc(&observation["code"], profile.loinc) {
        missing(report, profile, "code", &format!("the LOINC code {}", profile.loinc));
    }
    check_value(report, observation, profile);
    check_components(report, observation, profile);
}

fn check_time(report: &mut Report<'_>, observation: &Value, profile: &Profile) {
    let at = text(observation, "effectiveDateTime");
    if at.is_none() && observation.get("effectivePeriod").is_none() {
        missing(report, profile, "effective[x]", "effectiveDateTime or effectivePeriod");
    }
    if at.is_some_and(|at| period::is_date_time(at) && !period::names_a_day(at)) {
        let what = "a time that names at least the day (vs-1)";
        report.note_at("effectiveDateTime", IssueCode::Invariant, what);
    }
}

fn has_loinc(concept: &Value, code: &str) -> bool {
    items(concept, "coding").iter().any(|coding| coding["system"] == system::LOINC && coding["code"] == code)
}

fn value_name(element: &Value) -> Option<&str> {
    element.as_object()?.keys().map(String::as_str).find(|name| name.starts_with("value"))
}

fn check_value(report: &mut Report<'_>, observation: &Value, profile: &Profile) {
    let name = value_name(observation);
    if profile.is_panel {
        if profile.name == "bp" && name.is_some() {
            report.note_at(
                "value[x]",
                IssueCode::Structure,
                "the bp profile has values in its components only",
            );
        }
        return;
    }
    let has_parts = observation.get("component").is_some() || observation.get("hasMember").is_some();
    if name.is_none() && !has_parts && observation.get("dataAbsentReason").is_none() {
        report.note(IssueCode::Invariant, "without parts there is a value or a dataAbsentReason (vs-2)");
    }
    if profile.units.is_empty() {
        return;
    }
    match name {
        None => {}
        Some("valueQuantity") => {
            let quantity = &observation["valueQuantity"];
            check_quantity(report, "valueQuantity", quantity, profile, profile.units);
        }
        Some(other) => {
            let what = format!("the {} profile allows valueQuantity only", profile.name);
            report.note_at(other, IssueCode::Structure, what);
        }
    }
}

fn check_quantity(report: &mut Report<'_>, place: &str, quantity: &Value, profile: &Profile, units: &[&str]) {
    for element in ["value", "unit", "system", "code"] {
        if quantity.get(element).is_none() {
            missing(report, profile, &format!("{place}.{element}"), &format!("{element} of the quantity"));
        }
    }
    if quantity.get("system").is_some_and(|found| found != system::UCUM) {
        let what = format!("the {} profile fixes the system {}", profile.name, system::UCUM);
        report.note_at(&format!("{place}.system"), IssueCode::Value, what);
    }
    if let Some(code) = text(quantity, "code").filter(|code| !units.contains(code)) {
        let shown = crate::fhir::element::cut(code);
        let what =
            format!("the {} profile fixes the unit {}, found {shown}", profile.name, units.join(" or "));
        report.note_at(&format!("{place}.code"), IssueCode::Value, what);
    }
}

fn check_components(report: &mut Report<'_>, observation: &Value, profile: &Profile) {
    let components = items(observation, "component");
    for (index, component) in components.iter().enumerate() {
        if value_name(component).is_none() && component.get("dataAbsentReason").is_none() {
            let place = format!("component[{index}]");
            report.note_at(&place, IssueCode::Invariant, "has a value or a dataAbsentReason (vs-3)");
        }
    }
    for (code, unit) in profile.components {
        let mut coded = components.iter().enumerate().filter(|(_, part)| has_loinc(&part["code"], code));
        let Some((index, component)) = coded.next() else {
            missing(report, profile, "component", &format!("a component with the LOINC code {code}"));
            continue;
        };
        if let Some((again, _)) = coded.next() {
            let what =
                format!("the {} profile allows one component with the LOINC code {code}", profile.name);
            report.note_at(&format!("component[{again}]"), IssueCode::Structure, what);
        }
        let place = format!("component[{index}].valueQuantity");
        match value_name(component) {
            None => {}
            Some("valueQuantity") => {
                check_quantity(report, &place, &component["valueQuantity"], profile, &[*unit]);
            }
            Some(_) => {
                let what = format!("the {} profile allows valueQuantity only", profile.name);
                report.note_at(&place, IssueCode::Structure, what);
            }
        }
    }
}

//! Foreign Observations: what a program says was measured, read strictly and handed on as decoded values.
//!
//! An Observation is taken whole or not at all: whatever we do not understand in it that could change its meaning
//! (a modifier extension, a comparator, an unknown component) refuses it, and says so.

mod correction;
mod frame;
mod sampled;

use clinical_model::decoded::{DecodedEvent, DecodedScalar, DecodedValue};
use clinical_model::{Absent, Decoded, DeviceTime, Findings, Measure, MeasureKind, Timestamp};
use serde_json::Value;

use super::element::{cut, extension, items, text};
use super::outcome::{IssueCode, OutcomeIssue};
use super::{system, validate};

pub use correction::{ForeignCorrection, parse_correction};
pub use frame::{ForeignEntry, ForeignFrame, decode_frame, entry_spans, read_frame};

/// Longest free text of an event that is kept, in characters: the bound that [`DecodedEvent`] states.
const EVENT_TEXT_LIMIT_CHARS: usize = 200;

/// An Observation that a program sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignObservation {
    /// Its id in the system it came from.
    pub id: Option<String>,
    /// Its business identifiers, as `system|value`.
    pub identifiers: Vec<String>,
    /// Its status: registered, preliminary, final, amended, corrected or unknown.
    pub status: String,
    /// Whom it names as its subject: a reference such as `Patient/…`.
    pub subject: Option<String>,
    /// Which device it names.
    pub device: Option<String>,
    /// What it says was measured; at least one.
    pub decoded: Vec<Decoded>,
}

/// Checks that the resource is of that type and valid.
pub(super) fn expect(resource: &Value, kind: &str) -> Vec<OutcomeIssue> {
    match resource["resourceType"].as_str() {
        Some(found) if found == kind => validate::resource(resource),
        Some(found) => {
            let what = format!("expected a resource of type {kind}, found \"{}\"", cut(found));
            vec![OutcomeIssue::error(IssueCode::Structure, what, "resourceType")]
        }
        None => {
            let what = format!("expected a resource of type {kind}; resourceType is missing");
            vec![OutcomeIssue::error(IssueCode::Structure, what, "resourceType")]
        }
    }
}

/// Reads an Observation.
///
/// The measure is found by MDC coding first, then by LOINC, then by our own name. The time must have a zone. The
/// unit must be UCUM with its system. Every value is marked [`Findings::FROM_PROGRAM`].
///
/// # Errors
/// All issues that were found, each with its place.
pub fn parse(resource: &Value) -> Result<ForeignObservation, Vec<OutcomeIssue>> {
    let issues = expect(resource, "Observation");
    if !issues.is_empty() {
        return Err(issues);
    }
    let mut reader = Reader { issues: Vec::new(), decoded: Vec::new(), is_correction: false };
    reader.observation(resource);
    let Reader { mut issues, decoded, .. } = reader;
    if issues.is_empty() && decoded.is_empty() {
        let what = "nothing in it can be charted: it has no value and no components with a value or dataAbsentReason";
        issues.push(OutcomeIssue::error(IssueCode::Required, what, "Observation"));
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    let target = |name: &str| text(&resource[name], "reference").map(str::to_owned);
    Ok(ForeignObservation {
        id: text(resource, "id").map(str::to_owned),
        identifiers: items(resource, "identifier").iter().map(identifier).collect(),
        status: text(resource, "status").unwrap_or("").to_owned(),
        subject: target("subject"),
        device: target("device"),
        decoded,
    })
}

fn identifier(each: &Value) -> String {
    format!("{}|{}", text(each, "system").unwrap_or(""), text(each, "value").unwrap_or(""))
}

/// What the parts of one Observation share.
#[derive(Clone, Copy)]
struct Common {
    time: DeviceTime,
    sequence: u32,
    findings: Findings,
}

struct Reader {
    issues: Vec<OutcomeIssue>,
    decoded: Vec<Decoded>,
    /// What is read puts something charted right: it may say that it was entered in error.
    is_correction: bool,
}

impl Reader {
    fn refuse(&mut self, code: IssueCode, what: impl Into<String>, place: impl Into<String>) {
        self.issues.push(OutcomeIssue::error(code, what, place));
    }

    fn observation(&mut self, resource: &Value) {
        if resource.get("modifierExtension").is_some() || resource.get("implicitRules").is_some() {
            let what = "it carries a modifier that is not understood here, so that its meaning is not known";
            self.refuse(IssueCode::Extension, what, "Observation.modifierExtension");
        }
        let findings = self.status(resource);
        let measure = self.measure(&resource["code"], None, "Observation.code");
        let Some(time) = self.time(resource) else { return };
        let sequence = extension(resource, system::EXT_SEQUENCE)
            .and_then(|found| found["valueDecimal"].as_u64())
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(0);
        let Some(measure) = measure else { return };
        let common = Common { time, sequence, findings };
        let components = items(resource, "component");
        let has_own = value_name(resource).is_some() || resource.get("dataAbsentReason").is_some();
        let has_parts = !components.is_empty() || resource.get("hasMember").is_some();
        // Panels and Observations with parts may go without a value of their own; an event may have none at all.
        if has_own && !(measure.kind == MeasureKind::Panel && value_name(resource).is_none()) {
            self.value(resource, measure, common, "Observation");
        } else if !has_parts && measure.kind == MeasureKind::Event {
            self.event(resource, measure, common, "Observation");
        }
        let panel = (measure.kind == MeasureKind::Panel).then_some(measure);
        for (index, component) in components.iter().enumerate() {
            let place = format!("Observation.component[{index}]");
            if component.get("modifierExtension").is_some() {
                let what = "it carries a modifier that is not understood here";
                self.refuse(IssueCode::Extension, what, format!("{place}.modifierExtension"));
            }
            if let Some(part) = self.measure(&component["code"], panel, &format!("{place}.code")) {
                self.value(component, part, common, &place);
            }
        }
    }

    fn status(&mut self, resource: &Value) -> Findings {
        let status = text(resource, "status").unwrap_or("");
        match status {
            "preliminary" | "registered" => Findings::FROM_PROGRAM | Findings::PRELIMINARY,
            "unknown" => Findings::FROM_PROGRAM | Findings::QUESTIONABLE,
            "cancelled" | "entered-in-error" if !self.is_correction => {
                let what = format!("an Observation that is {status} is not a measurement; it is not taken");
                self.refuse(IssueCode::NotSupported, what, "Observation.status");
                Findings::FROM_PROGRAM
            }
            _ => Findings::FROM_PROGRAM,
        }
    }

    fn time(&mut self, resource: &Value) -> Option<DeviceTime> {
        let given = text(resource, "effectiveDateTime")
            .map(|at| (at, "effectiveDateTime"))
            .or_else(|| text(resource, "effectiveInstant").map(|at| (at, "effectiveInstant")))
            .or_else(|| text(&resource["effectivePeriod"], "start").map(|at| (at, "effectivePeriod.start")));
        let Some((at, name)) = given else {
            let what = "the time of the measurement is needed, as effectiveDateTime or effectiveInstant";
            self.refuse(IssueCode::Required, what, "Observation.effective[x]");
            return None;
        };
        self.instant(at, &format!("Observation.{name}"))
    }

    fn instant(&mut self, at: &str, place: &str) -> Option<DeviceTime> {
        match at.parse::<Timestamp>() {
            Ok(at) => Some(DeviceTime::Utc(at)),
            Err(_) => {
                let what = format!(
                    "the time is needed to the second with a zone, between 1900 and 2200, found \"{}\"",
                    cut(at)
                );
                self.refuse(IssueCode::Value, what, place);
                None
            }
        }
    }

    fn measure(&mut self, concept: &Value, panel: Option<Measure>, place: &str) -> Option<Measure> {
        let found = find_measure(concept, panel);
        if found.is_none() {
            let codes: Vec<String> = items(concept, "coding")
                .iter()
                .map(|coding| {
                    format!(
                        "{}|{}",
                        cut(text(coding, "system").unwrap_or("")),
                        cut(text(coding, "code").unwrap_or(""))
                    )
                })
                .collect();
            let what = match codes.is_empty() {
                true => "a coding is needed: LOINC or IEEE 11073 (MDC)".to_owned(),
                false => format!("no measure is known under {}", codes.join(", ")),
            };
            self.refuse(IssueCode::NotSupported, what, place);
        }
        if let Some(found) = found
            && let Some(other) = contradicting_code(concept, found)
        {
            let what = format!(
                "its codes contradict each other: {} is not {}, and one value cannot be both",
                cut(other),
                found.name
            );
            self.refuse(IssueCode::Value, what, place);
            return None;
        }
        found
    }

    /// The value of an Observation or of a component.
    fn value(&mut self, element: &Value, measure: Measure, common: Common, place: &str) {
        let name = value_name(element);
        match (measure.kind, name) {
            (_, Some("valueSampledData")) => self.sampled(element, measure, common, place),
            (MeasureKind::Event, _) => self.event(element, measure, common, place),
            (MeasureKind::Waveform, _) => {
                let what = format!("{} is a curve: expected valueSampledData", measure.name);
                self.refuse(IssueCode::Value, what, place);
            }
            (MeasureKind::Panel, _) => {
                let what = format!("{} is a panel: its values stand in components", measure.name);
                self.refuse(IssueCode::Value, what, place);
            }
            (MeasureKind::Scalar | MeasureKind::Component(_), _) => {
                self.scalar(element, measure, common, place);
            }
        }
    }

    fn scalar(&mut self, element: &Value, measure: Measure, common: Common, place: &str) {
        let number = match value_name(element) {
            Some("valueQuantity") => {
                self.quantity(&element["valueQuantity"], &format!("{place}.valueQuantity"))
            }
            // A count or a score has no unit but its own.
            Some("valueInteger") if measure.unit.starts_with('{') || measure.unit == "1" => {
                element["valueInteger"].to_string().parse().ok().map(|value| (value, measure.unit.to_owned()))
            }
            Some(other) => {
                let what = format!(
                    "{} is a number with a unit: expected valueQuantity, found {other}",
                    measure.name
                );
                self.refuse(IssueCode::Value, what, format!("{place}.{other}"));
                None
            }
            None => {
                let absent = absent(&element["dataAbsentReason"]);
                self.push_scalar(measure, DecodedValue::Absent(absent), measure.unit.to_owned(), common);
                return;
            }
        };
        if let Some((value, unit)) = number {
            self.push_scalar(measure, DecodedValue::Number(value), unit, common);
        }
    }

    fn push_scalar(&mut self, measure: Measure, value: DecodedValue, unit: String, common: Common) {
        self.decoded.push(Decoded::Scalar(DecodedScalar {
            measure,
            value,
            unit,
            time: common.time,
            sequence: common.sequence,
            findings: common.findings,
        }));
    }

    /// Digits and UCUM unit of a quantity.
    fn quantity(&mut self, quantity: &Value, place: &str) -> Option<(clinical_model::Decimal, String)> {
        if let Some(comparator) = text(quantity, "comparator") {
            let what = format!("a value with the comparator {comparator} is not a measurement of this size");
            self.refuse(IssueCode::NotSupported, what, format!("{place}.comparator"));
            return None;
        }
        let Some(number) = quantity.get("value").and_then(Value::as_number) else {
            self.refuse(IssueCode::Required, "the quantity has no value", format!("{place}.value"));
            return None;
        };
        let unit = text(quantity, "code").filter(|_| quantity["system"] == system::UCUM);
        let Some(unit) = unit else {
            let shown = text(quantity, "unit").or_else(|| text(quantity, "code")).unwrap_or("");
            let what = format!(
                "a UCUM unit is needed: system {} and its code; found the unit \"{}\"",
                system::UCUM,
                cut(shown)
            );
            self.refuse(IssueCode::Required, what, format!("{place}.code"));
            return None;
        };
        match number.to_string().parse() {
            Ok(value) => Some((value, unit.to_owned())),
            Err(error) => {
                let error: clinical_model::decimal::DecimalError = error;
                self.refuse(IssueCode::Value, error.to_string(), format!("{place}.value"));
                None
            }
        }
    }

    fn event(&mut self, element: &Value, measure: Measure, common: Common, place: &str) {
        let (amount, said) = match value_name(element) {
            Some("valueQuantity") => {
                let place = format!("{place}.valueQuantity");
                let Some(amount) = self.quantity(&element["valueQuantity"], &place) else { return };
                let said =
                    extension(element, system::EXT_EVENT_TEXT).and_then(|said| text(said, "valueString"));
                (Some(amount), said)
            }
            Some("valueString") => (None, text(element, "valueString")),
            Some("valueCodeableConcept") => (None, concept_text(&element["valueCodeableConcept"])),
            Some("valueBoolean") if element["valueBoolean"] == true => (None, None),
            None if element.get("dataAbsentReason").is_none() => (None, None),
            _ => {
                let what =
                    format!("{} is an event: expected valueQuantity, valueString or none", measure.name);
                self.refuse(IssueCode::Value, what, place);
                return;
            }
        };
        self.decoded.push(Decoded::Event(DecodedEvent {
            measure,
            time: common.time,
            sequence: common.sequence,
            amount,
            text: said.map(|said| said.chars().take(EVENT_TEXT_LIMIT_CHARS).collect()),
        }));
    }

    fn sampled(&mut self, element: &Value, measure: Measure, common: Common, place: &str) {
        // The arterial curve and the arterial panel share their MDC term.
        let measure = match measure == clinical_model::measure::ARTERIAL_PRESSURE {
            true => clinical_model::measure::ARTERIAL_WAVEFORM,
            false => measure,
        };
        if measure.kind != MeasureKind::Waveform {
            let what = format!("{} is not a curve: SampledData does not fit", measure.name);
            self.refuse(IssueCode::Value, what, format!("{place}.valueSampledData"));
            return;
        }
        let time = match extension(element, system::EXT_SEGMENT_START).and_then(|at| text(at, "valueInstant"))
        {
            Some(at) => match self.instant(at, &format!("{place}.extension")) {
                Some(time) => time,
                None => return,
            },
            None => common.time,
        };
        match sampled::read(&element["valueSampledData"], measure, time, common.findings) {
            Ok(waveform) => self.decoded.push(Decoded::Waveform(waveform)),
            Err((name, code, what)) => self.refuse(code, what, format!("{place}.valueSampledData.{name}")),
        }
    }
}

/// The name of the `value[x]` that is given.
fn value_name(element: &Value) -> Option<&str> {
    element.as_object()?.keys().map(String::as_str).find(|name| name.starts_with("value"))
}

fn concept_text(concept: &Value) -> Option<&str> {
    let coding = || {
        items(concept, "coding")
            .iter()
            .find_map(|coding| text(coding, "display").or_else(|| text(coding, "code")))
    };
    text(concept, "text").or_else(coding)
}

/// By MDC number or reference id, then by LOINC (inside its panel first), then by our own name.
fn find_measure(concept: &Value, panel: Option<Measure>) -> Option<Measure> {
    let codings = || items(concept, "coding").iter();
    let of = |systems: &'static [&'static str]| {
        codings()
            .filter(move |coding| systems.iter().any(|system| coding["system"] == *system))
            .filter_map(|coding| text(coding, "code"))
    };
    let mdc = |code: &str| match code.parse() {
        Ok(number) => Measure::by_mdc(number),
        Err(_) => Measure::all().find(|each| !each.mdc_refid.is_empty() && each.mdc_refid == code),
    };
    let loinc = |code: &str| {
        let inside =
            panel.and_then(|panel| panel.components().into_iter().find(|each| each.loinc == Some(code)));
        inside.or_else(|| Measure::by_loinc(code))
    };
    of(&[system::MDC, system::MDC_OID])
        .find_map(mdc)
        .or_else(|| of(&[system::LOINC]).find_map(loinc))
        .or_else(|| of(&[system::MEASURE]).find_map(Measure::by_name))
}

/// A code of the concept that is known, and means something else than the measure that was found. Codings are meant to
/// say the same; where they do not, nobody knows what was measured.
fn contradicting_code(concept: &Value, found: Measure) -> Option<&str> {
    items(concept, "coding").iter().find_map(|coding| {
        let code = text(coding, "code")?;
        let system = text(coding, "system")?;
        let other = match system {
            system::LOINC => {
                let ours = found.loinc == Some(code) || found.also_loinc.contains(&code);
                Measure::by_loinc(code).filter(|_| !ours)
            }
            system::MDC | system::MDC_OID => {
                code.parse().ok().filter(|number| found.mdc != Some(*number)).and_then(Measure::by_mdc)
            }
            _ => None,
        };
        other.filter(|other| *other != found).map(|_| code)
    })
}

/// What a dataAbsentReason says; what we have no word for is "not available".
fn absent(concept: &Value) -> Absent {
    let code = items(concept, "coding").iter().find_map(|coding| text(coding, "code"));
    match code {
        Some("not-a-number") => Absent::NotANumber,
        Some("positive-infinity") => Absent::PositiveInfinity,
        Some("negative-infinity") => Absent::NegativeInfinity,
        Some("error") => Absent::Error,
        _ => Absent::Unavailable,
    }
}

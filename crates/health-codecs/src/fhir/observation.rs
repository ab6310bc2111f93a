//! Readings and events as FHIR R4 Observations, conformant to the vital-signs profiles where one fits.

use clinical_model::measure::Category;
use clinical_model::{
    Absent, Committed, Event, Findings, Measure, Reading, SeriesKey, Subject, Timestamp, Value,
};
use serde_json::{Map, Value as Json, json};

use super::element::{self, concept, instant_extension, quantity, reference, shown, subject_reference};
use super::system;
use super::validate::profile_for;

pub use super::foreign::{ForeignObservation, parse};

/// What an Observation of readings is made of.
#[derive(Clone, Debug)]
pub struct ObservationInput<'a> {
    /// The address under `Observation/`.
    pub id: String,
    /// One reading; or, with `panel`, the components of one panel at one instant. At least one.
    pub readings: &'a [Committed<Reading>],
    /// The panel that the readings are components of.
    pub panel: Option<Measure>,
    /// What people call the device.
    pub device_display: Option<&'a str>,
}

/// What an Observation of an event is made of.
#[derive(Clone, Debug)]
pub struct EventInput<'a> {
    /// The address under `Observation/`.
    pub id: String,
    /// The event.
    pub event: &'a Committed<Event>,
    /// What people call the device.
    pub device_display: Option<&'a str>,
}

/// What all kinds of Observations have in common.
pub(super) struct Head<'a> {
    pub(super) id: &'a str,
    pub(super) series: SeriesKey,
    /// What the Observation is coded as: the panel, or the measure of the series.
    pub(super) measure: Measure,
    pub(super) received_at: Timestamp,
    pub(super) committed_at: Timestamp,
    pub(super) sequence: u32,
    pub(super) findings: Findings,
    pub(super) device_display: Option<&'a str>,
}

/// Renders one reading, or the components of one panel. Without any reading there is nothing to render: `null`.
pub fn render(input: &ObservationInput<'_>) -> Json {
    let Some(first) = input.readings.first() else { return Json::Null };
    let head = Head {
        id: &input.id,
        series: first.series(),
        measure: input.panel.unwrap_or(first.series().measure),
        received_at: input
            .readings
            .iter()
            .map(|each| each.received_at())
            .max()
            .unwrap_or(first.received_at()),
        committed_at: input
            .readings
            .iter()
            .map(Committed::committed_at)
            .max()
            .unwrap_or(first.committed_at()),
        sequence: first.sequence(),
        findings: input.readings.iter().fold(Findings::empty(), |all, each| all | each.findings()),
        device_display: input.device_display,
    };
    let mut fields = head.render();
    fields.insert("effectiveDateTime".into(), json!(first.measured_at().to_rfc3339()));
    match input.panel {
        None => put_value(&mut fields, first.series().measure, first.value()),
        Some(panel) => {
            fields.insert("component".into(), Json::Array(components(panel, input.readings)));
        }
    }
    let notes: Vec<Json> = match input.panel {
        None => notes(None, first.findings()),
        Some(_) => input
            .readings
            .iter()
            .flat_map(|each| notes(Some(each.series().measure), each.findings()))
            .collect(),
    };
    put_list(&mut fields, "note", notes);
    Json::Object(fields)
}

/// Renders an event: its amount as a Quantity, its text as a string; both, as a Quantity with the text as a note for
/// people and as extension [`system::EXT_EVENT_TEXT`] for programs.
pub fn render_event(input: &EventInput<'_>) -> Json {
    let event = input.event.get();
    let head = Head {
        id: &input.id,
        series: event.series,
        measure: event.series.measure,
        received_at: event.received_at,
        committed_at: input.event.committed_at(),
        sequence: event.sequence,
        findings: event.findings,
        device_display: input.device_display,
    };
    let mut fields = head.render();
    fields.insert("effectiveDateTime".into(), json!(event.at.to_rfc3339()));
    let mut notes = notes(None, event.findings);
    let said = event.text.as_deref().filter(|text| !text.trim().is_empty());
    match (&event.amount, said) {
        (Some((value, unit)), said) => {
            fields.insert("valueQuantity".into(), amount(*value, unit));
            if let Some(text) = said {
                notes.push(json!({ "text": text }));
                let extension = json!({ "url": system::EXT_EVENT_TEXT, "valueString": text });
                fields["extension"].as_array_mut().into_iter().for_each(|all| all.push(extension.clone()));
            }
        }
        (None, Some(text)) => {
            fields.insert("valueString".into(), json!(text));
        }
        (None, None) => {}
    }
    put_list(&mut fields, "note", notes);
    Json::Object(fields)
}

/// An amount whose unit may be a device's own word.
fn amount(value: clinical_model::Decimal, unit: &str) -> Json {
    if clinical_model::unit::is_valid(unit) {
        return quantity(value, unit, "");
    }
    let mut plain = json!({ "value": element::number(value) });
    if !unit.trim().is_empty() {
        plain["unit"] = json!(unit);
    }
    plain
}

impl Head<'_> {
    /// Everything but time, value and notes.
    pub(super) fn render(&self) -> Map<String, Json> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Json| fields.insert(name.into(), value);
        put("resourceType", json!("Observation"));
        put("id", json!(self.id));
        let mut meta = json!({ "versionId": "1", "lastUpdated": self.committed_at.to_rfc3339() });
        if self.claims_vital_signs() {
            let name = profile_for(self.measure.loinc);
            meta["profile"] = json!([format!("{}{name}", system::PROFILE_BASE)]);
        }
        put("meta", meta);
        let mut extensions = vec![
            instant_extension(system::EXT_RECEIVED_AT, self.received_at),
            instant_extension(system::EXT_COMMITTED_AT, self.committed_at),
        ];
        if self.sequence != 0 {
            // unsignedInt ends at 2^31 - 1; a decimal holds every sequence number.
            extensions.push(json!({ "url": system::EXT_SEQUENCE, "valueDecimal": self.sequence }));
        }
        extensions.extend(finding_extensions(self.findings));
        put("extension", Json::Array(extensions));
        put(
            "status",
            json!(if self.findings.contains(Findings::PRELIMINARY) { "preliminary" } else { "final" }),
        );
        put("category", json!([category(self.measure.category)]));
        put("code", code(self.measure));
        put("subject", reference(&subject_reference(self.series.subject), None));
        put("issued", json!(self.committed_at.to_rfc3339()));
        put("device", reference(&format!("Device/{}", self.series.device), self.device_display));
        fields
    }

    /// The profiles are about patients and about scalar or panel values.
    fn claims_vital_signs(&self) -> bool {
        self.measure.category == Category::VitalSigns && matches!(self.series.subject, Subject::Patient(_))
    }
}

/// Puts a list, unless it is empty: FHIR knows no empty arrays.
pub(super) fn put_list(fields: &mut Map<String, Json>, name: &str, items: Vec<Json>) {
    if !items.is_empty() {
        fields.insert(name.into(), Json::Array(items));
    }
}

/// Every code of a measure, the chart's first: LOINC, MDC, our own name.
pub(super) fn code(measure: Measure) -> Json {
    let loinc =
        measure.loinc.iter().chain(measure.also_loinc).map(|code| element::coding(system::LOINC, code));
    let mdc = measure.mdc.map(|number| shown(system::MDC, &number.to_string(), measure.mdc_refid));
    let own = shown(system::MEASURE, measure.name, measure.display);
    let codings: Vec<Json> = loinc.chain(mdc).chain([own]).collect();
    json!({ "coding": codings, "text": measure.display })
}

/// What numbers about several measures are coded as: the code that was asked for, with the name of what carries it.
pub fn code_of(asked: &super::search::Token, measures: &[Measure]) -> Json {
    let display = measures.first().map_or("", |measure| measure.display);
    let system = asked.system.clone().filter(|system| !system.is_empty()).or_else(|| {
        let own = |measure: &Measure| asked.code.as_deref() == Some(measure.name);
        let is_own = measures.iter().any(own);
        let is_loinc = |measure: &Measure| {
            measure.loinc.iter().chain(measure.also_loinc).any(|code| asked.code.as_deref() == Some(*code))
                || measure.panel().is_some_and(|panel| panel.loinc == asked.code.as_deref())
        };
        let known = if is_own {
            system::MEASURE
        } else if measures.iter().any(is_loinc) {
            system::LOINC
        } else {
            system::MDC
        };
        (!measures.is_empty()).then(|| known.to_owned())
    });
    let text = if display.is_empty() { asked.code.as_deref().unwrap_or("unknown") } else { display };
    match (system, asked.code.as_deref()) {
        (Some(system), Some(code)) => json!({ "coding": [element::coding(&system, code)], "text": text }),
        _ => json!({ "text": text }),
    }
}

/// The code of a category in the observation-category system.
pub(super) fn category_code(category: Category) -> &'static str {
    match category {
        Category::VitalSigns => "vital-signs",
        Category::Laboratory => "laboratory",
        Category::Activity => "activity",
        Category::Procedure => "procedure",
        Category::Survey => "survey",
    }
}

fn category(category: Category) -> Json {
    let display = match category {
        Category::VitalSigns => "Vital Signs",
        Category::Laboratory => "Laboratory",
        Category::Activity => "Activity",
        Category::Procedure => "Procedure",
        Category::Survey => "Survey",
    };
    concept(system::OBSERVATION_CATEGORY, category_code(category), display)
}

fn put_value(fields: &mut Map<String, Json>, measure: Measure, value: Value) {
    match value {
        Value::Number(number) => {
            fields.insert("valueQuantity".into(), quantity(number, measure.unit, measure.unit_display));
        }
        Value::Absent(absent) => {
            let (code, display) = absent_code(absent);
            fields.insert("dataAbsentReason".into(), concept(system::DATA_ABSENT_REASON, code, display));
        }
    }
}

fn absent_code(absent: Absent) -> (&'static str, &'static str) {
    match absent {
        Absent::NotANumber => ("not-a-number", "Not a Number (NaN)"),
        Absent::PositiveInfinity => ("positive-infinity", "Positive Infinity (PINF)"),
        Absent::NegativeInfinity => ("negative-infinity", "Negative Infinity (NINF)"),
        Absent::Error => ("error", "Error"),
        Absent::Unavailable => ("temp-unknown", "Temporarily Unknown"),
    }
}

fn components(panel: Measure, readings: &[Committed<Reading>]) -> Vec<Json> {
    let mut rendered: Vec<Json> = readings.iter().map(|each| component(each.get())).collect();
    // The blood-pressure profile demands both pressures: one that did not come is said to be unknown.
    let demanded =
        panel.components().into_iter().filter(|each| matches!(each.loinc, Some("8480-6" | "8462-4")));
    for measure in demanded {
        if !readings.iter().any(|each| each.series().measure == measure) {
            let reason = concept(system::DATA_ABSENT_REASON, "unknown", "Unknown");
            rendered.push(json!({ "code": code(measure), "dataAbsentReason": reason }));
        }
    }
    rendered
}

fn component(reading: &Reading) -> Json {
    let mut fields = Map::new();
    let measure = reading.series().measure;
    fields.insert("code".into(), code(measure));
    put_value(&mut fields, measure, reading.value());
    put_list(&mut fields, "extension", finding_extensions(reading.findings()));
    Json::Object(fields)
}

/// One extension a finding, for programs.
pub(super) fn finding_extensions(findings: Findings) -> Vec<Json> {
    let extension = |(name, _): &(&str, &str)| json!({ "url": system::EXT_FINDING, "valueCode": name });
    findings.described().iter().map(extension).collect()
}

/// One note a finding, for people.
pub(super) fn notes(component: Option<Measure>, findings: Findings) -> Vec<Json> {
    let note = |(_, sentence): &(&str, &str)| match component {
        Some(measure) => json!({ "text": format!("{}: {sentence}", measure.display) }),
        None => json!({ "text": sentence }),
    };
    findings.described().iter().map(note).collect()
}

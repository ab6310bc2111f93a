//! Statistics of many observations as one FHIR Observation: the answer of `Observation/$stats`.

use clinical_model::{Decimal, Interval, Subject};
use serde_json::{Map, Value, json};

use super::element::{concept, quantity, reference, subject_reference};
use super::observation::put_list;
use super::system;

/// One number, or the lack of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StatisticValue {
    /// Code of the statistic.
    pub code: &'static str,
    /// The number; `None` where too few values came to say it.
    pub value: Option<Decimal>,
    /// In which unit.
    pub unit: StatisticUnit,
}

/// In which unit a statistic stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticUnit {
    /// In that of the values.
    OfValues,
    /// In its square, for which UCUM has no spelling that fits every unit.
    Squared,
    /// It is a plain number.
    One,
}

/// What a statistics Observation is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct StatisticsInput {
    /// What it is about, as a CodeableConcept: see [`super::observation::code_of`].
    pub code: Value,
    /// About whom.
    pub subject: Subject,
    /// When measured.
    pub period: Interval,
    /// UCUM unit of the values.
    pub unit: &'static str,
    /// What a person reads for it.
    pub unit_display: &'static str,
    /// The numbers, in the order in which they were asked for.
    pub values: Vec<StatisticValue>,
}

/// Renders one statistics Observation. It has no id: it is computed, not kept.
pub fn render(input: &StatisticsInput) -> Value {
    let mut fields = Map::new();
    fields.insert("resourceType".into(), json!("Observation"));
    fields.insert("status".into(), json!("final"));
    fields.insert("code".into(), input.code.clone());
    fields.insert("subject".into(), reference(&subject_reference(input.subject), None));
    fields.insert("effectivePeriod".into(), period(&input.period));
    put_list(&mut fields, "component", input.values.iter().map(|value| component(input, value)).collect());
    Value::Object(fields)
}

/// A Period; without an end where the interval has none.
pub(super) fn period(span: &Interval) -> Value {
    let mut period = json!({ "start": span.start.to_rfc3339() });
    if let Some(end) = span.end {
        period["end"] = json!(end.to_rfc3339());
    }
    period
}

fn component(input: &StatisticsInput, statistic: &StatisticValue) -> Value {
    let mut component = json!({ "code": concept(system::OBSERVATION_STATISTICS, statistic.code, "") });
    match (statistic.value, statistic.unit) {
        (Some(value), StatisticUnit::OfValues) => {
            component["valueQuantity"] = quantity(value, input.unit, input.unit_display);
        }
        (Some(value), StatisticUnit::One) => component["valueQuantity"] = quantity(value, "1", ""),
        (Some(value), StatisticUnit::Squared) => {
            let unit = if input.unit_display.is_empty() { input.unit } else { input.unit_display };
            component["valueQuantity"] =
                json!({ "value": super::element::number(value), "unit": format!("({unit})²") });
        }
        (None, _) => {
            component["dataAbsentReason"] = concept(system::DATA_ABSENT_REASON, "unknown", "Unknown");
        }
    }
    component
}

/// The Parameters resource of an answer: named resources, each under its name.
pub fn parameters(named: Vec<(&'static str, Value)>) -> Value {
    let parameters: Vec<Value> =
        named.into_iter().map(|(name, resource)| json!({ "name": name, "resource": resource })).collect();
    let mut fields = Map::new();
    fields.insert("resourceType".into(), json!("Parameters"));
    put_list(&mut fields, "parameter", parameters);
    Value::Object(fields)
}

//! Decoded things in the JSON of the vector files.

use clinical_model::decoded::{DecodedEntry, DecodedScalar};
use clinical_model::reading::Absent;
use clinical_model::{Decoded, DecodedValue, DeviceTime, Findings};
use serde_json::{Map, Value, json};

pub fn decoded(decoded: &Decoded) -> Value {
    let mut object = Map::new();
    match decoded {
        Decoded::Scalar(one) => scalar(one, &mut object),
        Decoded::Waveform(one) => {
            object.insert("waveform".into(), json!(one.measure.name));
            object.insert("rate".into(), json!([one.rate_numerator, one.rate_denominator]));
            object.insert("unit".into(), json!(one.unit));
            object.insert("gain".into(), json!(one.gain.to_string()));
            object.insert("offset".into(), json!(one.offset.to_string()));
            object.insert("samples".into(), json!(one.samples));
            object.insert("flags".into(), flags(one.findings));
            time(one.time, &mut object);
        }
        Decoded::Event(one) => {
            object.insert("event".into(), json!(one.measure.name));
            object.insert("sequence".into(), json!(one.sequence));
            if let Some((amount, unit)) = &one.amount {
                object.insert("amount".into(), json!([amount.to_string(), unit]));
            }
            if let Some(text) = &one.text {
                object.insert("text".into(), json!(text));
            }
            time(one.time, &mut object);
        }
    }
    Value::Object(object)
}

fn scalar(one: &DecodedScalar, object: &mut Map<String, Value>) {
    object.insert("measure".into(), json!(one.measure.name));
    match one.value {
        DecodedValue::Number(number) => object.insert("value".into(), json!(number.to_string())),
        DecodedValue::Absent(reason) => object.insert("absent".into(), json!(absent(reason))),
    };
    object.insert("unit".into(), json!(one.unit));
    object.insert("sequence".into(), json!(one.sequence));
    object.insert("flags".into(), flags(one.findings));
    time(one.time, object);
}

fn absent(reason: Absent) -> &'static str {
    match reason {
        Absent::NotANumber => "not-a-number",
        Absent::PositiveInfinity => "positive-infinity",
        Absent::NegativeInfinity => "negative-infinity",
        Absent::Error => "error",
        Absent::Unavailable => "unavailable",
    }
}

fn flags(findings: Findings) -> Value {
    findings.described().into_iter().map(|(name, _)| name).collect()
}

fn time(time: DeviceTime, object: &mut Map<String, Value>) {
    match time {
        DeviceTime::Utc(at) => object.insert("time".into(), json!(at.to_rfc3339())),
        DeviceTime::Local(at) => {
            object.insert("local_time".into(), json!(at.to_rfc3339().trim_end_matches('Z')))
        }
        DeviceTime::Unknown => None,
    };
}

/// What an entry came to, without its span.
pub fn result(entry: &DecodedEntry) -> Value {
    match &entry.result {
        Ok(list) => json!({ "decoded": list.iter().map(decoded).collect::<Vec<_>>() }),
        Err(fault) => json!({ "fault": fault.code, "offset": fault.offset }),
    }
}

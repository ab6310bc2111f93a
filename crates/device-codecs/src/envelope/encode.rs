//! Writing envelopes: what a device of ours would send.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::decoded::{DecodedEvent, DecodedScalar, DecodedWaveform};
use clinical_model::{DecodedValue, DeviceTime, Findings, Measure};

use super::DEVICE_FLAGS;
use super::entry::ABSENT_NAMES;

/// Why scalars cannot be written as one panel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodePanelError {
    /// There is nothing to write.
    #[error("a panel needs at least one value")]
    Empty,
    /// A scalar that is no component of the panel.
    #[error("{measure} is no component of {panel}")]
    NotAComponent {
        /// Name of the scalar.
        measure: &'static str,
        /// Name of the panel.
        panel: &'static str,
    },
    /// Components that differ in unit, time, sequence, flags or reason for absence cannot share one entry.
    #[error(
        "{measure} does not share unit, time, sequence, flags and reason for absence with the rest of {panel}"
    )]
    NotTogether {
        /// Name of the scalar.
        measure: &'static str,
        /// Name of the panel.
        panel: &'static str,
    },
}

/// An object under construction.
struct Object(String);

impl Object {
    fn new(name: &str, measure: Measure) -> Self {
        let mut object = Object(String::from("{"));
        object.text(name, measure.name);
        object
    }

    /// A field with JSON as its value.
    fn json(&mut self, name: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(json);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.json(name, &quoted(text));
    }

    fn time(&mut self, time: DeviceTime) {
        match time {
            DeviceTime::Utc(at) => self.text("time", &at.to_rfc3339()),
            DeviceTime::Local(at) => self.text("local_time", at.to_rfc3339().trim_end_matches('Z')),
            DeviceTime::Unknown => {}
        }
    }

    fn readings<Entry: AsRef<str>>(&mut self, entries: &[Entry]) {
        let entries: Vec<&str> = entries.iter().map(AsRef::as_ref).collect();
        self.json("readings", &format!("[{}]", entries.join(",")));
    }

    fn sequence(&mut self, sequence: u32) {
        if sequence != 0 {
            self.json("sequence", &sequence.to_string());
        }
    }

    /// Only what a device may report: the other findings are ours.
    fn flags(&mut self, findings: Findings) {
        let names = (findings & DEVICE_FLAGS).described();
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|(name, _)| quoted(name)).collect();
            self.json("flags", &format!("[{}]", names.join(",")));
        }
    }

    fn absent(&mut self, value: DecodedValue) {
        let DecodedValue::Absent(reason) = value else { return };
        if let Some((name, _)) = ABSENT_NAMES.iter().find(|(_, known)| *known == reason) {
            self.text("absent", name);
        }
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn number(value: DecodedValue) -> String {
    match value {
        DecodedValue::Number(number) => number.to_string(),
        DecodedValue::Absent(_) => "null".to_owned(),
    }
}

/// One scalar as an entry.
pub fn encode_scalar(scalar: &DecodedScalar) -> String {
    let mut object = Object::new("measure", scalar.measure);
    object.json("value", &number(scalar.value));
    object.absent(scalar.value);
    object.text("unit", &scalar.unit);
    object.time(scalar.time);
    object.sequence(scalar.sequence);
    object.flags(scalar.findings);
    object.finish()
}

/// Scalars that belong together as one entry.
///
/// # Errors
/// Where the scalars are not components of one panel, or differ in what a panel says once for all of them.
pub fn encode_panel(panel: Measure, scalars: &[DecodedScalar]) -> Result<String, EncodePanelError> {
    let first = scalars.first().ok_or(EncodePanelError::Empty)?;
    let is_absent = |value: &DecodedValue| matches!(value, DecodedValue::Absent(_));
    let reason = scalars.iter().map(|scalar| scalar.value).find(is_absent);
    let mut values = Object(String::from("{"));
    for scalar in scalars {
        let measure = scalar.measure.name;
        if scalar.measure.panel() != Some(panel) {
            return Err(EncodePanelError::NotAComponent { measure, panel: panel.name });
        }
        let together = (&scalar.unit, scalar.time, scalar.sequence, scalar.findings)
            == (&first.unit, first.time, first.sequence, first.findings);
        if !together || (is_absent(&scalar.value) && Some(scalar.value) != reason) {
            return Err(EncodePanelError::NotTogether { measure, panel: panel.name });
        }
        values.json(measure, &number(scalar.value));
    }
    let mut object = Object::new("panel", panel);
    object.json("values", &values.finish());
    if let Some(reason) = reason {
        object.absent(reason);
    }
    object.text("unit", &first.unit);
    object.time(first.time);
    object.sequence(first.sequence);
    object.flags(first.findings);
    Ok(object.finish())
}

/// One block of a curve as an entry, its samples in base64.
pub fn encode_waveform(waveform: &DecodedWaveform) -> String {
    let mut object = Object::new("waveform", waveform.measure);
    object.time(waveform.time);
    let (top, bottom) = (waveform.rate_numerator, waveform.rate_denominator);
    if bottom == 1 {
        object.json("rate", &top.to_string());
    } else {
        object.json("rate", &format!("{{\"numerator\":{top},\"denominator\":{bottom}}}"));
    }
    object.text("unit", &waveform.unit);
    object.json("gain", &waveform.gain.to_string());
    object.json("offset", &waveform.offset.to_string());
    object.flags(waveform.findings);
    let bytes: Vec<u8> = waveform.samples.iter().flat_map(|count| count.to_le_bytes()).collect();
    object.text("samples_base64", &STANDARD.encode(bytes));
    object.finish()
}

/// One event as an entry.
pub fn encode_event(event: &DecodedEvent) -> String {
    let mut object = Object::new("event", event.measure);
    object.time(event.time);
    if let Some((amount, unit)) = &event.amount {
        object.json("amount", &amount.to_string());
        object.text("unit", unit);
    }
    if let Some(text) = &event.text {
        object.text("text", text);
    }
    object.sequence(event.sequence);
    object.finish()
}

/// A frame of several entries with the device's own count of its messages, by which gaps are found.
pub fn encode_numbered_batch<Entry: AsRef<str>>(entries: &[Entry], message_number: u32) -> String {
    let mut object = Object(String::from("{"));
    object.json("message_number", &message_number.to_string());
    object.readings(entries);
    object.finish()
}

/// A frame of several entries, each as the functions above write it.
pub fn encode_batch<Entry: AsRef<str>>(entries: &[Entry], message_id: Option<&str>) -> String {
    let mut object = Object(String::from("{"));
    if let Some(id) = message_id {
        object.text("message_id", id);
    }
    object.readings(entries);
    object.finish()
}

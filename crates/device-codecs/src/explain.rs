//! Which bytes of a frame mean what, for a person who has to find out why a device is not understood.

use clinical_model::{Decoded, DecodedWaveform, DeviceTime, Findings, FrameKind};
use serde::Serialize;

use crate::gatt::medfloat::show;
use crate::{envelope, gatt};

/// Longest run of bytes that a row shows, in bytes: one line of a terminal.
const HEX_LIMIT_BYTES: usize = 24;

/// One run of bytes and its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedField {
    /// First byte, counted from the start of the frame.
    pub offset: usize,
    /// Number of bytes.
    pub length: usize,
    /// Name of the field; `fault` where reading stopped.
    pub name: String,
    /// The bytes in hexadecimal, cut after the first 24.
    pub raw_hex: String,
    /// What they say.
    pub meaning: String,
}

impl ExplainedField {
    /// A row about `bytes`, which start at `offset`.
    pub(crate) fn new(
        offset: usize,
        bytes: &[u8],
        name: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Self {
        let mut raw_hex: String =
            bytes.iter().take(HEX_LIMIT_BYTES).map(|byte| format!("{byte:02x}")).collect();
        if bytes.len() > HEX_LIMIT_BYTES {
            raw_hex.push('…');
        }
        ExplainedField { offset, length: bytes.len(), name: name.into(), raw_hex, meaning: meaning.into() }
    }
}

/// Explains a frame: each field of a GATT characteristic, or each entry of an envelope. Where reading stops, the
/// last row says why.
pub fn explain(kind: FrameKind, bytes: &[u8]) -> Vec<ExplainedField> {
    match kind {
        FrameKind::Gatt(number) => gatt::explain(number, bytes),
        FrameKind::Envelope => explain_envelope(bytes),
        FrameKind::Fhir => {
            vec![ExplainedField::new(0, bytes, "fault", crate::fault::not_a_device_frame().to_string())]
        }
    }
}

fn explain_envelope(bytes: &[u8]) -> Vec<ExplainedField> {
    let frame = envelope::decode(bytes);
    let rows = frame.entries.into_iter().enumerate().map(|(index, entry)| {
        let raw = bytes.get(entry.span.clone()).unwrap_or_default();
        let (name, meaning) = match entry.result {
            Ok(decoded) => {
                (format!("entry {index}"), decoded.iter().map(describe).collect::<Vec<_>>().join("; "))
            }
            Err(fault) => ("fault".to_owned(), format!("entry {index}: {fault} ({})", fault.code)),
        };
        ExplainedField::new(entry.span.start, raw, name, meaning)
    });
    rows.collect()
}

/// One decoded thing in a line.
pub fn describe(decoded: &Decoded) -> String {
    match decoded {
        Decoded::Scalar(scalar) => {
            let value = show(scalar.value);
            let findings = describe_findings(scalar.findings);
            let time = describe_time(scalar.time);
            format!(
                "{} {value} {}, {time}, sequence {}{findings}",
                scalar.measure.name, scalar.unit, scalar.sequence
            )
        }
        Decoded::Waveform(waveform) => describe_waveform(waveform),
        Decoded::Event(event) => {
            let amount = event.amount.as_ref().map(|(n, unit)| format!(" {n} {unit}")).unwrap_or_default();
            let text = event.text.as_ref().map(|text| format!(", \"{text}\"")).unwrap_or_default();
            format!(
                "{}{amount}, {}, sequence {}{text}",
                event.measure.name,
                describe_time(event.time),
                event.sequence
            )
        }
    }
}

fn describe_waveform(waveform: &DecodedWaveform) -> String {
    format!(
        "{} {} samples at {}/{} a second, count · {} + {} {}, {}{}",
        waveform.measure.name,
        waveform.samples.len(),
        waveform.rate_numerator,
        waveform.rate_denominator,
        waveform.gain,
        waveform.offset,
        waveform.unit,
        describe_time(waveform.time),
        describe_findings(waveform.findings),
    )
}

fn describe_time(time: DeviceTime) -> String {
    match time {
        DeviceTime::Utc(at) => at.to_string(),
        DeviceTime::Local(at) => {
            format!("{} on the device's own clock", at.to_string().trim_end_matches('Z'))
        }
        DeviceTime::Unknown => "no time".to_owned(),
    }
}

fn describe_findings(findings: Findings) -> String {
    findings.described().iter().map(|(name, _)| format!(", {name}")).collect()
}

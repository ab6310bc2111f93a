//! What the tests share: vectors from files, and facts as the store would give them back.

use std::path::PathBuf;

use clinical_model::{
    Committed, Decimal, DeviceId, Findings, Measure, PatientId, Reading, SeriesKey, Subject, Timestamp,
    Value, Waveform,
};
use health_codecs::fhir::OutcomeIssue;

/// The patient of all tests.
pub const PATIENT: PatientId = PatientId::from_bytes([0x11; 16]);
/// The device of all tests.
pub const DEVICE: DeviceId = DeviceId::from_bytes([0x22; 16]);

/// The folder of the FHIR vectors.
pub fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/fhir")
}

/// One case by its file name without `.json`.
pub fn case(name: &str) -> serde_json::Value {
    let path = vectors().join("cases").join(format!("{name}.json"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    health_codecs::fhir::json::parse(&bytes).expect(name)
}

/// An instant.
pub fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

/// A number.
pub fn number(text: &str) -> Value {
    Value::Number(decimal(text))
}

/// Digits.
pub fn decimal(text: &str) -> Decimal {
    text.parse().expect(text)
}

/// The series of a measure of the patient.
pub fn series(measure: Measure) -> SeriesKey {
    SeriesKey { subject: Subject::Patient(PATIENT), measure, device: DEVICE }
}

/// A committed reading at 10:15:30.25 with sequence 0.
pub fn reading(measure: Measure, value: Value, findings: Findings) -> Committed<Reading> {
    reading_at(series(measure), at("2026-11-22T10:15:30.250Z"), 0, value, findings)
}

/// A committed reading.
pub fn reading_at(
    series: SeriesKey,
    measured_at: Timestamp,
    sequence: u32,
    value: Value,
    findings: Findings,
) -> Committed<Reading> {
    let received_at = at("2026-11-22T10:15:31.002Z");
    let reading = Reading::restored(series, measured_at, received_at, sequence, value, findings);
    Committed::restored(reading, at("2026-11-22T10:15:31.010Z"), 7)
}

/// A committed waveform block of 250 samples a second.
pub fn block(measure: Measure, start: &str, samples: Vec<i16>) -> Committed<Waveform> {
    let waveform = Waveform {
        series: series(measure),
        start: at(start),
        received_at: at("2026-11-22T10:15:31.002Z"),
        rate_numerator: 250,
        rate_denominator: 1,
        gain: decimal("0.0050"),
        offset: decimal("0"),
        samples,
        findings: Findings::empty(),
    };
    Committed::restored(waveform, at("2026-11-22T10:15:31.010Z"), 7)
}

/// Issues as readable lines.
pub fn lines(issues: &[OutcomeIssue]) -> Vec<String> {
    issues
        .iter()
        .map(|issue| format!("{} {:?} {}", issue.code.code(), issue.expression, issue.diagnostics))
        .collect()
}

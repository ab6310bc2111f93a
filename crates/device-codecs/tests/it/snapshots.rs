//! What a person reads when a frame is explained.

use clinical_model::FrameKind;
use device_codecs::{ExplainedField, explain};

fn table(rows: &[ExplainedField]) -> String {
    let line = |row: &ExplainedField| {
        format!("{:>3} {:>2}  {:<22} {:<16} {}", row.offset, row.length, row.name, row.raw_hex, row.meaning)
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_blood_pressure_is_explained() {
    let bytes = [
        0x1E, 0x8A, 0x00, 0x58, 0x00, 0x78, 0x00, 0xEA, 0x07, 0x0B, 0x16, 0x06, 0x14, 0x00, 0x3C, 0x00, 0x01,
        0x27, 0x00,
    ];
    insta::assert_snapshot!(table(&explain(FrameKind::Gatt(0x2A35), &bytes)));
}

#[test]
fn a_broken_frame_is_explained_up_to_the_fault() {
    insta::assert_snapshot!(table(&explain(FrameKind::Gatt(0x2A5F), &[0x9C, 0x61, 0x00, 0x48, 0x00, 0x00])));
}

#[test]
fn an_envelope_is_explained_by_entry() {
    let text = r#"[{"measure":"heart_rate","value":72.50,"time":"2026-11-22T08:30:00Z","flags":["low-signal"]},
        {"waveform":"ecg_ii","rate":62.5,"gain":0.005,"samples":[1,2]},
        {"event":"dose","amount":4,"unit":"[iU]","text":"evening"},{"measure":"heartrate"}]"#;
    insta::assert_snapshot!(table(&explain(FrameKind::Envelope, text.as_bytes())));
}

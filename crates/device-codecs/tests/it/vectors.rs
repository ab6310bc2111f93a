//! Every golden vector of `vectors/gatt` and `vectors/envelope`, and every truncation of the valid ones.

use std::fs;
use std::path::PathBuf;

use clinical_model::FrameKind;
use device_codecs::{decode, explain};
use serde_json::{Value, json};

use crate::json::result;

/// The files of a folder of vectors, with their names.
fn load(folder: &str) -> Vec<(String, Value)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(folder);
    let files = fs::read_dir(&path).unwrap();
    let mut vectors: Vec<(String, Value)> = files
        .map(|file| {
            let file = file.unwrap().path();
            let text = fs::read_to_string(&file).unwrap();
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            (name.clone(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
        })
        .collect();
    vectors.sort_by(|a, b| a.0.cmp(&b.0));
    vectors
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of digits: {text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn gatt_frame(name: &str, vector: &Value) -> (FrameKind, Vec<u8>) {
    let number = vector["characteristic"].as_str().unwrap();
    assert!(name.starts_with(number), "{name}: the file is named after its characteristic");
    (format!("gatt/{number}").parse().unwrap(), bytes_of_hex(vector["hex"].as_str().unwrap()))
}

#[test]
fn every_gatt_vector_is_read_as_expected() {
    let vectors = load("gatt");
    assert!(vectors.len() >= 60, "only {} vectors", vectors.len());
    for (name, vector) in vectors {
        let (kind, bytes) = gatt_frame(&name, &vector);
        let frame = decode(kind, &bytes);
        assert_eq!(frame.entries.len(), 1, "{name}");
        assert_eq!(frame.entries[0].span, 0..bytes.len(), "{name}");
        assert_eq!(result(&frame.entries[0]), vector["expect"], "{name}");
        assert!(vector["provenance"].is_string() && vector["note"].is_string(), "{name}");
    }
}

#[test]
fn no_truncation_of_a_valid_gatt_vector_is_taken() {
    for (name, vector) in load("gatt") {
        let (kind, bytes) = gatt_frame(&name, &vector);
        if vector["expect"].get("fault").is_some() {
            continue;
        }
        for length in 0..bytes.len() {
            let frame = decode(kind, &bytes[..length]);
            // A heart-rate notification may end after any R-R interval.
            let whole_intervals = name.starts_with("2a37") && frame.entries[0].result.is_ok();
            if whole_intervals {
                assert!(
                    bytes[0] & 0x10 != 0 && (bytes.len() - length).is_multiple_of(2),
                    "{name} at {length}"
                );
                continue;
            }
            let fault = frame.entries[0].result.as_ref().unwrap_err();
            assert_eq!((fault.code, fault.offset <= length), ("truncated", true), "{name} at {length}");
        }
    }
}

#[test]
fn explaining_a_vector_covers_every_byte_once() {
    for (name, vector) in load("gatt") {
        let (kind, bytes) = gatt_frame(&name, &vector);
        let rows = explain(kind, &bytes);
        let mut at = 0;
        for row in rows.iter().filter(|row| row.name != "reading") {
            assert_eq!(row.offset, at, "{name}: {row:?}");
            let shown: String = bytes[at..at + row.length].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(row.raw_hex, shown, "{name}");
            at += row.length;
        }
        assert_eq!(at, bytes.len(), "{name}");
        let faulty = rows.last().unwrap().name == "fault";
        assert_eq!(faulty, vector["expect"].get("fault").is_some(), "{name}");
    }
}

fn envelope_frame(vector: &Value) -> Vec<u8> {
    match vector.get("frame_hex") {
        Some(hex) => bytes_of_hex(hex.as_str().unwrap()),
        None => vector["frame"].as_str().unwrap().as_bytes().to_vec(),
    }
}

#[test]
fn every_envelope_vector_is_read_as_expected() {
    let vectors = load("envelope");
    assert!(vectors.len() >= 60, "only {} vectors", vectors.len());
    for (name, vector) in vectors {
        let bytes = envelope_frame(&vector);
        let frame = decode(FrameKind::Envelope, &bytes);
        let entries: Vec<Value> = frame
            .entries
            .iter()
            .map(|entry| {
                let mut value = result(entry);
                value["span"] = json!([entry.span.start, entry.span.end]);
                value
            })
            .collect();
        assert_eq!(Value::from(entries), vector["expect"], "{name}");
        assert!(vector["provenance"].is_string() && vector["note"].is_string(), "{name}");
        assert_eq!(explain(FrameKind::Envelope, &bytes).len(), frame.entries.len(), "{name}");
    }
}

#[test]
fn no_truncation_of_an_envelope_vector_is_taken() {
    for (name, vector) in load("envelope") {
        let bytes = envelope_frame(&vector);
        let whole = bytes.trim_ascii_end().len();
        for length in 0..whole {
            let frame = decode(FrameKind::Envelope, &bytes[..length]);
            assert_eq!(frame.entries.len(), 1, "{name} at {length}");
            let fault = frame.entries[0].result.as_ref().err();
            // Only where the text is a whole envelope with something behind it, a part of it can be one.
            let taken = fault.is_none();
            assert!(!taken || name == "fault-trailing", "{name} at {length} was taken");
        }
    }
}

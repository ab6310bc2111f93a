//! `vectors/fhir/mutations.json`: one fault each, made from HL7's own definitions, and variants that are sound.

use health_codecs::fhir::validate;
use serde_json::Value;

use crate::support::{lines, vectors};

/// The file of each base, as `clients/mutations/generate.py` names them.
fn base(name: &str) -> Value {
    let file = match name {
        "heart-rate" => "cases/00-valid-hr",
        "ecg" => "cases/01-valid-sampleddata",
        "transaction" => "cases/20-valid-transaction",
        "audit-event" => "cases/22-valid-auditevent",
        "device-metric" => "cases/27-valid-devicemetric",
        other => &format!("bases/{other}"),
    };
    read(&format!("{file}.json"))
}

fn read(name: &str) -> Value {
    let text =
        std::fs::read_to_string(vectors().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn changed(row: &Value) -> Value {
    let mut resource = base(row["base"].as_str().expect("base"));
    let removes = row.get("remove").is_some();
    let pointer = row[if removes { "remove" } else { "set" }].as_str().expect("a pointer");
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let parent = resource.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} leads nowhere"));
    // A number with digits of its own is written as text in the file.
    let content = match row["to"]["$number"].as_str() {
        Some(digits) => serde_json::from_str(digits).expect("a number"),
        None => row["to"].clone(),
    };
    match (parent, removes) {
        (Value::Object(fields), true) => drop(fields.remove(last)),
        (Value::Object(fields), false) => drop(fields.insert(last.to_owned(), content)),
        (Value::Array(items), true) => drop(items.remove(last.parse().expect("an index"))),
        (Value::Array(items), false) => items[last.parse::<usize>().expect("an index")] = content,
        _ => panic!("{pointer} leads into a primitive"),
    }
    resource
}

#[test]
fn every_mutation_of_the_definitions_is_judged_as_they_say() {
    let rows = read("mutations.json");
    let rows = rows.as_array().expect("a list");
    let faults = rows.iter().filter(|row| row.get("place").is_some()).count();
    assert!(faults >= 200 && rows.len() - faults >= 200, "{faults} faults, {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let issues = validate::resource(&changed(row));
        let is_right = match row["place"].as_str() {
            Some(place) => issues.iter().any(|issue| issue.expression.iter().any(|found| found == place)),
            None => issues.is_empty(),
        };
        if !is_right {
            wrong.push(format!("{row}: found {:?}", lines(&issues)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn the_bases_are_sound() {
    for name in [
        "heart-rate",
        "ecg",
        "transaction",
        "audit-event",
        "device-metric",
        "blood-pressure",
        "patient",
        "device",
    ] {
        let issues = validate::resource(&base(name));
        assert!(issues.is_empty(), "{name}: {:?}", lines(&issues));
    }
}

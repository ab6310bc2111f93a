//! A device as a FHIR R4 Device, out and in, with our extensions for its clock and its usual silence.

use clinical_model::{ClockRule, Device, DeviceId, Subject};
use serde_json::{Value, json};

use super::element::{extension, items, reference, text};
use super::outcome::{IssueCode, OutcomeIssue};
use super::system;

/// Renders a device that is assigned to nobody, or whose assignment does not matter.
pub fn render(device: &Device) -> Value {
    render_assigned(device, None)
}

/// Renders a device with whom it is assigned to now, as `Device.patient` or `Device.location`.
pub fn render_assigned(device: &Device, assigned: Option<Subject>) -> Value {
    let mut rendered = json!({
        "resourceType": "Device",
        "id": device.id.to_string(),
        "status": if device.retired { "inactive" } else { "active" },
        "extension": extensions(device),
    });
    let mut put = |name: &str, content: &str| {
        if !content.trim().is_empty() {
            rendered[name] = json!(content);
        }
    };
    put("manufacturer", &device.manufacturer);
    put("modelNumber", &device.model);
    put("serialNumber", &device.serial);
    if !device.name.trim().is_empty() {
        rendered["deviceName"] = json!([{ "name": device.name, "type": "user-friendly-name" }]);
    }
    if !device.kind.trim().is_empty() {
        rendered["type"] = json!({ "text": device.kind });
    }
    put_assigned(&mut rendered, assigned);
    rendered
}

/// Puts into a Device to whom or where it is assigned.
pub fn put_assigned(resource: &mut Value, assigned: Option<Subject>) {
    match assigned {
        Some(Subject::Patient(id)) => resource["patient"] = reference(&format!("Patient/{id}"), None),
        Some(Subject::Place(id)) => resource["location"] = reference(&format!("Location/{id}"), None),
        Some(Subject::Device(_)) | None => {}
    }
}

/// To whom or where a Device says that it is assigned.
///
/// # Errors
/// A reference that is none of this site.
pub fn assigned_in(resource: &Value) -> Result<Option<Subject>, OutcomeIssue> {
    let named = |name: &str, kind: &str| {
        let reference = text(&resource[name], "reference")?;
        Some(reference.strip_prefix(kind).map(str::to_owned).ok_or_else(|| {
            let what = format!("expected {kind} with the id of a record of this site");
            OutcomeIssue::error(IssueCode::Value, what, format!("Device.{name}"))
        }))
    };
    let bad = |name: &str| {
        let what = "the reference names no record of this site";
        OutcomeIssue::error(IssueCode::NotFound, what, format!("Device.{name}"))
    };
    if let Some(id) = named("patient", "Patient/").transpose()? {
        return id.parse().map(|id| Some(Subject::Patient(id))).map_err(|_| bad("patient"));
    }
    match named("location", "Location/").transpose()? {
        Some(id) => id.parse().map(|id| Some(Subject::Place(id))).map_err(|_| bad("location")),
        None => Ok(None),
    }
}

/// A Device as it was kept, with what we know of it now: what it says besides stays.
pub fn renewed(kept: Value, device: &Device) -> Value {
    let (mut resource, ours) = (kept, render(device));
    let (Some(fields), Some(own)) = (resource.as_object_mut(), ours.as_object()) else { return ours };
    for name in ["manufacturer", "modelNumber", "serialNumber"] {
        fields.remove(name);
    }
    let is_ours = |each: &Value| {
        [system::EXT_CLOCK, system::EXT_UTC_OFFSET, system::EXT_EXPECTED_INTERVAL]
            .iter()
            .any(|url| each["url"] == *url)
    };
    let mut extensions: Vec<Value> =
        fields.get("extension").and_then(Value::as_array).cloned().unwrap_or_default();
    extensions.retain(|each| !is_ours(each));
    let mut names: Vec<Value> =
        fields.get("deviceName").and_then(Value::as_array).cloned().unwrap_or_default();
    names.retain(|each| each["type"] != "user-friendly-name");
    for (name, value) in own {
        match (name.as_str(), value.as_array()) {
            ("extension", Some(each)) => extensions.extend(each.iter().cloned()),
            ("deviceName", Some(each)) => names.splice(0..0, each.iter().cloned()).for_each(drop),
            ("type", _) if fields.contains_key("type") => fields["type"]["text"] = value["text"].clone(),
            _ => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    super::observation::put_list(fields, "extension", extensions);
    super::observation::put_list(fields, "deviceName", names);
    resource
}

/// A whole number of units.
fn whole(value: i64, unit: &str) -> Value {
    json!({ "value": value, "unit": unit, "system": system::UCUM, "code": unit })
}

fn extensions(device: &Device) -> Vec<Value> {
    let rule = |word: &str| json!({ "url": "rule", "valueCode": word });
    let clock = match device.clock {
        ClockRule::Trust => vec![rule("trust")],
        ClockRule::UseReceived => vec![rule("use-received")],
        ClockRule::Shift { seconds } => {
            vec![rule("shift"), json!({ "url": "shift", "valueQuantity": whole(seconds, "s") })]
        }
    };
    let offset = whole(i64::from(device.utc_offset_min), "min");
    let mut extensions = vec![
        json!({ "url": system::EXT_CLOCK, "extension": clock }),
        json!({ "url": system::EXT_UTC_OFFSET, "valueQuantity": offset }),
    ];
    if let Some(seconds) = device.expected_interval_s {
        let interval = whole(i64::from(seconds), "s");
        extensions.push(json!({ "url": system::EXT_EXPECTED_INTERVAL, "valueQuantity": interval }));
    }
    extensions
}

/// Reads a Device. It needs our id (the caller of a create draws one and puts it in first).
/// Without our extensions the clock is trusted, runs in UTC, and no interval is expected.
///
/// # Errors
/// What is invalid or missing, with where.
pub fn parse(resource: &Value) -> Result<Device, Vec<OutcomeIssue>> {
    let mut issues = super::foreign::expect(resource, "Device");
    if !issues.is_empty() {
        return Err(issues);
    }
    let id: Option<DeviceId> = text(resource, "id").and_then(|id| id.parse().ok());
    if id.is_none() {
        let what = "a device of this site has a UUID as its id";
        issues.push(OutcomeIssue::error(IssueCode::Required, what, "Device.id"));
    }
    let mut take = |result: Result<Option<i64>, OutcomeIssue>| {
        result.unwrap_or_else(|issue| {
            issues.push(issue);
            None
        })
    };
    let offset = take(amount(resource, system::EXT_UTC_OFFSET, "min", -14 * 60, 14 * 60)).unwrap_or(0);
    let interval = take(amount(resource, system::EXT_EXPECTED_INTERVAL, "s", 0, i64::from(u32::MAX)));
    let clock = clock(resource).unwrap_or_else(|issue| {
        issues.push(issue);
        ClockRule::Trust
    });
    let plain = |name: &str| text(resource, name).unwrap_or("").to_owned();
    match id {
        Some(id) if issues.is_empty() => Ok(Device {
            id,
            name: device_name(resource),
            kind: kind(resource),
            manufacturer: plain("manufacturer"),
            model: plain("modelNumber"),
            serial: plain("serialNumber"),
            clock,
            utc_offset_min: i16::try_from(offset).unwrap_or(0),
            expected_interval_s: interval.and_then(|seconds| u32::try_from(seconds).ok()),
            retired: matches!(text(resource, "status"), Some("inactive" | "entered-in-error")),
        }),
        _ => Err(issues),
    }
}

/// The name that people use, else the first.
fn device_name(resource: &Value) -> String {
    let names = items(resource, "deviceName");
    let friendly = names.iter().find(|name| name["type"] == "user-friendly-name").or_else(|| names.first());
    friendly.and_then(|name| text(name, "name")).unwrap_or("").to_owned()
}

/// The text of the type, else the display of its first coding.
fn kind(resource: &Value) -> String {
    let concept = &resource["type"];
    let display = || items(concept, "coding").iter().find_map(|coding| text(coding, "display"));
    text(concept, "text").or_else(display).unwrap_or("").to_owned()
}

fn bad_extension(url: &str, what: &str) -> OutcomeIssue {
    OutcomeIssue::error(IssueCode::Extension, format!("{url}: {what}"), "Device.extension")
}

/// A whole number in an extension with a quantity of that unit.
fn amount(
    element: &Value,
    url: &str,
    unit: &str,
    least: i64,
    most: i64,
) -> Result<Option<i64>, OutcomeIssue> {
    let Some(found) = extension(element, url) else { return Ok(None) };
    let quantity = &found["valueQuantity"];
    let value = quantity["value"].as_i64().filter(|value| (least..=most).contains(value));
    match value {
        Some(value) if quantity["code"] == unit => Ok(Some(value)),
        _ => Err(bad_extension(url, &format!("expected a whole number from {least} to {most} in {unit}"))),
    }
}

fn clock(resource: &Value) -> Result<ClockRule, OutcomeIssue> {
    let Some(found) = extension(resource, system::EXT_CLOCK) else { return Ok(ClockRule::Trust) };
    let rule = extension(found, "rule").and_then(|rule| rule["valueCode"].as_str());
    match rule {
        Some("trust") => Ok(ClockRule::Trust),
        Some("use-received") => Ok(ClockRule::UseReceived),
        Some("shift") => {
            let shift = amount(found, "shift", "s", i64::MIN, i64::MAX)?;
            let missing = || bad_extension(system::EXT_CLOCK, "the rule shift needs the extension shift");
            shift.map(|seconds| ClockRule::Shift { seconds }).ok_or_else(missing)
        }
        _ => Err(bad_extension(system::EXT_CLOCK, "the rule is trust, use-received or shift")),
    }
}

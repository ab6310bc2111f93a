//! Histories: every version of a resource, the newest first, and what an Observation says after a correction.

use clinical_model::{Findings, Timestamp};
use serde_json::{Value, json};

use super::bundle::head;
use super::element::{items, text};
use super::observation::put_list;
use super::with_version;

/// One version of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// Absolute address of the resource, without a version.
    pub full_url: String,
    /// POST, PUT or DELETE: how this version came about.
    pub method: &'static str,
    /// What was asked, relative: `Observation`, `Patient/…`.
    pub url: String,
    /// HTTP status with its phrase.
    pub status: &'static str,
    /// Its number.
    pub version: u64,
    /// When it came about.
    pub last_modified: Timestamp,
    /// The resource; none where it was deleted.
    pub resource: Option<Value>,
}

/// What a history is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryInput {
    /// The request as it was understood, as an absolute address.
    pub self_link: String,
    /// Where the next page is.
    pub next_link: Option<String>,
    /// How many versions there are.
    pub total: u64,
    /// When it was asked.
    pub at: Timestamp,
    /// The entries.
    pub entries: Vec<HistoryEntry>,
}

/// A Bundle of versions.
pub fn history(input: HistoryInput) -> Value {
    let mut fields = head("history", input.at);
    fields.insert("total".into(), json!(input.total));
    let mut links = vec![json!({ "relation": "self", "url": input.self_link })];
    links.extend(input.next_link.map(|url| json!({ "relation": "next", "url": url })));
    fields.insert("link".into(), Value::Array(links));
    put_list(&mut fields, "entry", input.entries.into_iter().map(entry).collect());
    Value::Object(fields)
}

fn entry(entry: HistoryEntry) -> Value {
    let mut rendered = json!({
        "fullUrl": entry.full_url,
        "request": { "method": entry.method, "url": entry.url },
        "response": {
            "status": entry.status,
            "etag": format!("W/\"{}\"", entry.version),
            "lastModified": entry.last_modified.to_rfc3339(),
        },
    });
    if let Some(resource) = entry.resource {
        rendered["resource"] = resource;
    }
    rendered
}

/// What a correction says of an Observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrected<'a> {
    /// Version of the Observation.
    pub version: u64,
    /// When it was corrected.
    pub at: Timestamp,
    /// `final`, `amended`, `corrected` or `entered-in-error`.
    pub status: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
}

/// An Observation that was rendered with its corrected values, with the version and the status that it has since then.
pub fn as_corrected(resource: Value, corrected: &Corrected<'_>) -> Value {
    let mut resource = with_version(resource, corrected.version, corrected.at);
    resource["status"] = json!(corrected.status);
    // The time when this version was made available, as the standard wants it.
    resource["issued"] = json!(corrected.at.to_rfc3339());
    if let Some(reason) = corrected.reason.filter(|reason| !reason.trim().is_empty()) {
        let note = json!({ "text": reason, "time": corrected.at.to_rfc3339() });
        match resource["note"].as_array_mut() {
            Some(notes) => notes.push(note),
            None => resource["note"] = json!([note]),
        }
    }
    resource
}

/// The reason that a corrected Observation gives: its last note that is not one of those that we write ourselves.
pub(super) fn reason(resource: &Value) -> Option<&str> {
    let ours = Findings::all().described();
    let is_ours = |said: &str| {
        let sentence = said.rsplit_once(": ").map_or(said, |(_, sentence)| sentence);
        ours.iter().any(|(_, text)| *text == sentence)
    };
    items(resource, "note").iter().rev().filter_map(|note| text(note, "text")).find(|said| !is_ours(said))
}

//! A frame of kind FHIR: one Observation, or a transaction or batch of them, read entry by entry.

use std::ops::Range;

use clinical_model::decoded::{DecodeFault, DecodedEntry, DecodedFrame};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::outcome::OutcomeIssue;
use super::super::{bundle, json};
use super::ForeignObservation;

/// One resource of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignEntry {
    /// Which bytes of the frame it is.
    pub span: Range<usize>,
    /// What it says, or why it cannot be read.
    pub result: Result<ForeignObservation, DecodeFault>,
}

/// All resources of a frame, in its order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ForeignFrame {
    /// The entries.
    pub entries: Vec<ForeignEntry>,
}

/// Reads a frame with what each Observation says about its subject and device.
pub fn read_frame(bytes: &[u8]) -> ForeignFrame {
    let whole = 0..bytes.len();
    let single = |result| ForeignFrame { entries: vec![ForeignEntry { span: whole.clone(), result }] };
    let value = match json::parse(bytes) {
        Ok(value) => value,
        Err(issue) => return single(Err(fault_with("bad-json", &[issue], 0))),
    };
    if value["resourceType"] != "Bundle" {
        return single(super::parse(&value).map_err(|issues| fault(&issues, 0)));
    }
    let read = bundle::check_frame(value).and_then(|apart| Ok((apart, entry_spans(bytes)?)));
    match read {
        Err(issues) => single(Err(fault(&issues, 0))),
        Ok(((frame, resources), spans)) => {
            let contents = super::items(&frame, "entry").iter().zip(resources);
            let entries = spans.into_iter().zip(contents);
            let read = |(span, (entry, resource)): (_, (&Value, Option<Value>))| {
                read_entry(span, entry, resource.as_ref())
            };
            ForeignFrame { entries: entries.map(read).collect() }
        }
    }
}

/// Decodes a frame of kind FHIR.
pub fn decode_frame(bytes: &[u8]) -> DecodedFrame {
    let entries = read_frame(bytes).entries.into_iter().map(|entry| DecodedEntry {
        span: entry.span,
        result: entry.result.map(|observation| observation.decoded),
    });
    DecodedFrame::of(entries.collect())
}

fn read_entry(span: Range<usize>, entry: &Value, resource: Option<&Value>) -> ForeignEntry {
    let method = entry["request"]["method"].as_str().unwrap_or("");
    let result = match (method, resource) {
        ("POST" | "PUT", Some(resource)) => {
            super::parse(resource).map_err(|issues| fault(&issues, span.start))
        }
        _ => Err(DecodeFault {
            code: "not-supported",
            what: "only entries that write an Observation (POST or PUT) are readings".into(),
            offset: span.start,
        }),
    };
    ForeignEntry { span, result }
}

/// How many issues a fault names: it is one sentence.
const ISSUES_NAMED: usize = 3;

fn fault(issues: &[OutcomeIssue], offset: usize) -> DecodeFault {
    let code = issues.first().map_or("invalid", |issue| issue.code.code());
    fault_with(code, issues, offset)
}

fn fault_with(code: &'static str, issues: &[OutcomeIssue], offset: usize) -> DecodeFault {
    let mut named: Vec<String> = issues.iter().take(ISSUES_NAMED).map(OutcomeIssue::to_string).collect();
    if issues.len() > ISSUES_NAMED {
        named.push(format!("and {} more", issues.len() - ISSUES_NAMED));
    }
    DecodeFault { code, what: named.join("; "), offset }
}

#[derive(Deserialize)]
struct RawBundle<'a> {
    #[serde(borrow, default)]
    entry: Vec<RawEntry<'a>>,
}

#[derive(Deserialize)]
struct RawEntry<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
}

/// Which bytes of a Bundle the resource of each entry is; an entry without one gets an empty span at the start.
///
/// # Errors
/// Where the entries cannot be told apart.
pub fn entry_spans(bytes: &[u8]) -> Result<Vec<Range<usize>>, Vec<OutcomeIssue>> {
    let raw: RawBundle<'_> = serde_json::from_slice(bytes).map_err(|error| {
        let what = format!("the entries of the Bundle cannot be told apart: {error}");
        vec![OutcomeIssue::error(super::IssueCode::Structure, what, "Bundle.entry")]
    })?;
    let base = bytes.as_ptr() as usize;
    let span = |text: &str| {
        let start = text.as_ptr() as usize - base;
        start..start + text.len()
    };
    Ok(raw.entry.iter().map(|entry| entry.resource.map_or(0..0, |resource| span(resource.get()))).collect())
}

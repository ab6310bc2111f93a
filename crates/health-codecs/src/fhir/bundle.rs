//! Bundles: search results and responses out, transactions and batches in.

use clinical_model::Timestamp;
use serde_json::{Map, Value, json};

use super::element::{items, text};
use super::observation::put_list;
use super::outcome::{IssueCode, OutcomeIssue};

/// Entries that one transaction or batch may carry: more are sent in several.
pub const ENTRY_LIMIT: usize = 1_000;

/// Why an entry is in a search result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchMode {
    /// It matches.
    Match,
    /// It was asked for besides.
    Include,
    /// It says something about the search.
    Outcome,
}

/// One entry of a search result.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchEntry {
    /// Absolute address of the resource.
    pub full_url: String,
    /// The resource.
    pub resource: Value,
    /// Why it is there.
    pub mode: SearchMode,
}

/// What a search result is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchsetInput {
    /// The search as it was understood, as an absolute address.
    pub self_link: String,
    /// Where the next page is.
    pub next_link: Option<String>,
    /// How many match in all, where that is known.
    pub total: Option<u64>,
    /// When the search ran.
    pub at: Timestamp,
    /// The entries.
    pub entries: Vec<SearchEntry>,
}

/// A Bundle of search results.
pub fn searchset(input: &SearchsetInput) -> Value {
    let mut links = vec![json!({ "relation": "self", "url": input.self_link })];
    links.extend(input.next_link.iter().map(|url| json!({ "relation": "next", "url": url })));
    let entries = input.entries.iter().map(|entry| {
        let mode = match entry.mode {
            SearchMode::Match => "match",
            SearchMode::Include => "include",
            SearchMode::Outcome => "outcome",
        };
        json!({ "fullUrl": entry.full_url, "resource": entry.resource, "search": { "mode": mode } })
    });
    let mut fields = head("searchset", input.at);
    fields.insert("link".into(), Value::Array(links));
    if let Some(total) = input.total {
        fields.insert("total".into(), json!(total));
    }
    put_list(&mut fields, "entry", entries.collect());
    Value::Object(fields)
}

pub(super) fn head(kind: &str, at: Timestamp) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("resourceType".into(), json!("Bundle"));
    fields.insert("type".into(), json!(kind));
    fields.insert("timestamp".into(), json!(at.to_rfc3339()));
    fields
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseEntry {
    /// HTTP status with its phrase: `201 Created`.
    pub status: String,
    /// Where the resource is now: `Observation/…/_history/1`.
    pub location: Option<String>,
    /// Its version, as the ETag header says it: `W/"1"`.
    pub etag: Option<String>,
    /// When it was last changed.
    pub last_modified: Option<Timestamp>,
    /// What was wrong or worth telling: an OperationOutcome.
    pub outcome: Option<Value>,
    /// The resource itself, where it was asked for.
    pub resource: Option<Value>,
}

/// The response to a transaction, in the order of its entries.
pub fn transaction_response(at: Timestamp, entries: &[ResponseEntry]) -> Value {
    response("transaction-response", at, entries)
}

/// The response to a batch, in the order of its entries.
pub fn batch_response(at: Timestamp, entries: &[ResponseEntry]) -> Value {
    response("batch-response", at, entries)
}

fn response(kind: &str, at: Timestamp, entries: &[ResponseEntry]) -> Value {
    let mut fields = head(kind, at);
    put_list(&mut fields, "entry", entries.iter().map(response_entry).collect());
    Value::Object(fields)
}

fn response_entry(entry: &ResponseEntry) -> Value {
    let mut response = json!({ "status": entry.status });
    if let Some(location) = &entry.location {
        response["location"] = json!(location);
    }
    if let Some(etag) = &entry.etag {
        response["etag"] = json!(etag);
    }
    if let Some(at) = entry.last_modified {
        response["lastModified"] = json!(at.to_rfc3339());
    }
    if let Some(outcome) = &entry.outcome {
        response["outcome"] = outcome.clone();
    }
    match &entry.resource {
        Some(resource) => json!({ "resource": resource, "response": response }),
        None => json!({ "response": response }),
    }
}

/// New Observations as one transaction: how several measurements of one device become one frame.
pub fn creates(observations: &[&Value]) -> Value {
    let entry = |observation: &&Value| json!({ "resource": observation, "request": { "method": "POST", "url": "Observation" } });
    let entries: Vec<Value> = observations.iter().map(entry).collect();
    json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries })
}

/// How many resources an answer holds: the entries of a Bundle, or the resource itself.
pub fn resources_in(answer: &Value) -> usize {
    answer["entry"].as_array().map_or(1, Vec::len)
}

/// Whether a request Bundle is taken as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// All or nothing.
    Transaction,
    /// Each entry by itself.
    Batch,
}

/// One entry of a transaction or batch.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestEntry {
    /// The address that other entries use for it.
    pub full_url: Option<String>,
    /// GET, HEAD, POST, PUT, DELETE or PATCH.
    pub method: String,
    /// Relative address: `Observation`, `Patient/…`.
    pub url: String,
    /// Condition for a create.
    pub if_none_exist: Option<String>,
    /// Condition for an update.
    pub if_match: Option<String>,
    /// Condition for a read.
    pub if_none_match: Option<String>,
    /// The resource, not yet checked.
    pub resource: Option<Value>,
}

/// Reads a transaction or batch Bundle. Its frame is checked; each resource is checked by whoever takes it, since in a
/// batch every entry stands or falls by itself.
///
/// # Errors
/// What is wrong with it.
pub fn parse_request(mut bundle: Value) -> Result<(RequestKind, Vec<RequestEntry>), Vec<OutcomeIssue>> {
    let resources = take_resources(&mut bundle);
    let kind = check_emptied(&bundle)?;
    let entries = items(&bundle, "entry").iter().zip(resources);
    Ok((kind, entries.map(|(entry, resource)| request_entry(entry, resource)).collect()))
}

/// Checks type, size and structure of a transaction or batch, but not the resources in it, which are handed back apart.
pub(super) fn check_frame(mut bundle: Value) -> Result<(Value, Vec<Option<Value>>), Vec<OutcomeIssue>> {
    let resources = take_resources(&mut bundle);
    check_emptied(&bundle).map(|_| (bundle, resources))
}

fn check_emptied(bundle: &Value) -> Result<RequestKind, Vec<OutcomeIssue>> {
    let one = |code, what: String, place: &str| vec![OutcomeIssue::error(code, what, place)];
    let kind = match bundle["type"].as_str() {
        Some("transaction") => RequestKind::Transaction,
        Some("batch") => RequestKind::Batch,
        _ => {
            let what = "expected a Bundle of type transaction or batch".to_owned();
            return Err(one(IssueCode::Value, what, "Bundle.type"));
        }
    };
    let count = items(bundle, "entry").len();
    if count > ENTRY_LIMIT {
        let what = format!("{count} entries; {ENTRY_LIMIT} are taken at once");
        return Err(one(IssueCode::TooLong, what, "Bundle.entry"));
    }
    let issues = super::foreign::expect(bundle, "Bundle");
    if issues.is_empty() { Ok(kind) } else { Err(issues) }
}

/// Takes the resources out of a Bundle, and leaves the least one in the place of each, so that only the frame is checked.
fn take_resources(bundle: &mut Value) -> Vec<Option<Value>> {
    let entries = bundle.get_mut("entry").and_then(Value::as_array_mut).into_iter().flatten();
    let take = |entry: &mut Value| {
        let resource = entry.get_mut("resource").filter(|resource| resource.is_object())?;
        Some(std::mem::replace(resource, json!({ "resourceType": "Patient", "active": true })))
    };
    entries.map(take).collect()
}

fn request_entry(entry: &Value, resource: Option<Value>) -> RequestEntry {
    let request = &entry["request"];
    let plain = |name: &str| text(request, name).map(str::to_owned);
    RequestEntry {
        full_url: text(entry, "fullUrl").map(str::to_owned),
        method: plain("method").unwrap_or_default(),
        url: plain("url").unwrap_or_default(),
        if_none_exist: plain("ifNoneExist"),
        if_match: plain("ifMatch"),
        if_none_match: plain("ifNoneMatch"),
        resource,
    }
}

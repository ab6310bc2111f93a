//! Bundles of requests. Every entry of a batch is a request of its own; a transaction is one act.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use futures_util::future::join_all;
use health_codecs::fhir::bundle::{RequestEntry, RequestKind, ResponseEntry, parse_request, resources_in};
use health_codecs::fhir::foreign::entry_spans;
use health_codecs::fhir::outcome::is_outcome;
use health_codecs::fhir::view::View;
use health_codecs::fhir::{IssueCode, batch_response, json, operation_outcome};

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::create::Wanted;
use super::{Handler, Interaction, Waiting, blocking, interactions, transaction};
use crate::state::Web;

/// Entries of a batch that are on their way to the disk at one time: a full commit, and no flood of waiting tasks.
const BATCH_STEP: usize = 64;
/// Resources that the reads of one Bundle may show together, but for the last page: some 20 MB. All answers of a Bundle
/// are held until the last of them is there.
pub(crate) const READ_LIMIT_RESOURCES: usize = 5_000;

/// The table of interactions, made once and never changed: a Bundle of thousands of entries looks into it for each.
static TABLE: LazyLock<Vec<Interaction>> = LazyLock::new(interactions);

/// What the reads of one Bundle have shown so far.
#[derive(Default)]
pub(crate) struct Shown(usize);

impl Shown {
    /// Whether there is room for another read.
    ///
    /// # Errors
    /// 413 where there is none.
    pub(crate) fn has_room(&self, entry: &RequestEntry) -> Result<(), Refusal> {
        if self.0 < READ_LIMIT_RESOURCES || !matches!(entry.method.as_str(), "GET" | "HEAD") {
            return Ok(());
        }
        let what = format!(
            "the reads of one Bundle show {READ_LIMIT_RESOURCES} resources; send the rest in another"
        );
        Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, IssueCode::TooCostly, what))
    }

    /// Counts an answer.
    pub(crate) fn note(&mut self, answer: &Result<Answer, Refusal>) {
        self.0 += answer.as_ref().ok().and_then(|answer| answer.body.as_ref()).map_or(0, resources_in);
    }
}

/// `POST /fhir`
pub(crate) fn process(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(run(web, call))
}

async fn run(web: Arc<Web>, call: Arc<Call>) -> Result<Answer, Refusal> {
    let reading = Arc::clone(&call);
    let (kind, entries) = blocking(&web, move |_| {
        let value = json::parse(&reading.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
        parse_request(value).map_err(Refusal::invalid)
    })
    .await?;
    match kind {
        RequestKind::Transaction => transaction::run(web, call, entries).await,
        RequestKind::Batch => batch(web, call, entries).await,
    }
}

/// Where in a Bundle an entry stands.
pub(crate) fn place_of(index: usize) -> String {
    format!("Bundle.entry[{index}]")
}

/// The order in which the standard wants entries to be done: DELETE, POST, PUT, GET.
pub(crate) fn rank(method: &str) -> u8 {
    match method {
        "DELETE" => 0,
        "POST" => 1,
        "PUT" | "PATCH" => 2,
        _ => 3,
    }
}

async fn batch(web: Arc<Web>, call: Arc<Call>, entries: Vec<RequestEntry>) -> Result<Answer, Refusal> {
    let spans = entry_spans(&call.body).map_err(Refusal::invalid)?;
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|index| rank(&entries[*index].method));
    let mut responses: Vec<Option<ResponseEntry>> = Vec::new();
    responses.resize_with(entries.len(), || None);
    let mut waiting = order.into_iter().peekable();
    let mut shown = Shown::default();
    while let Some(first) = waiting.peek() {
        // Creates share commits; what changes or reads goes one after the other.
        let method = entries[*first].method.as_str();
        let most = if method == "POST" { BATCH_STEP } else { 1 };
        let mut step = Vec::with_capacity(most);
        while step.len() < most
            && let Some(index) = waiting.next_if(|index| entries[*index].method == method)
        {
            step.push(index);
        }
        let room = step.first().map_or(Ok(()), |index| shown.has_room(&entries[*index]));
        let answers = step.iter().map(|index| {
            let bytes = spans.get(*index).map_or_else(Bytes::new, |span| call.body.slice(span.clone()));
            dispatch(&web, &call, &entries[*index], *index, bytes)
        });
        let answers = match room {
            Ok(()) => join_all(answers).await,
            // Reads are steps of one.
            Err(refusal) => vec![Err(refusal)],
        };
        for (index, answer) in step.iter().zip(answers) {
            shown.note(&answer);
            responses[*index] = Some(response(&call, &entries[*index].method, answer));
        }
    }
    let responses: Vec<ResponseEntry> = responses.into_iter().flatten().collect();
    Ok(Answer::ok(batch_response(web.site.clock().now(), &responses)))
}

/// The interaction that an entry asks for, with the ids in its address and its query.
pub(crate) struct Route {
    pub interaction: Interaction,
    pub ids: (String, String),
    pub query: String,
}

/// Finds the interaction of an entry.
///
/// # Errors
/// 400 for what is not served in a Bundle.
pub(crate) fn route(call: &Call, entry: &RequestEntry, index: usize) -> Result<Route, Refusal> {
    let relative = entry.url.strip_prefix(call.base.as_str()).unwrap_or(&entry.url);
    let (path, query) = relative.split_once('?').unwrap_or((relative, ""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let mut best: Option<Route> = None;
    for interaction in TABLE.iter() {
        if interaction.method.as_str() != entry.method || interaction.code == "transaction" {
            continue;
        }
        let template = interaction.path.trim_start_matches("/fhir").trim_start_matches('/');
        let names: Vec<&str> = template.split('/').collect();
        let fits = names.len() == parts.len()
            && names.iter().zip(&parts).all(|(name, part)| name.starts_with('{') || name == part);
        // A literal name goes before one that stands for anything.
        let is_better = best.as_ref().is_none_or(|best| {
            interaction.path.matches('{').count() < best.interaction.path.matches('{').count()
        });
        if fits && is_better {
            let named = |wanted: &str| {
                let found = names.iter().zip(&parts).find(|(name, _)| **name == wanted);
                found.map(|(_, part)| (*part).to_owned()).unwrap_or_default()
            };
            let ids = (named("{id}"), named("{vid}"));
            best = Some(Route { interaction: interaction.clone(), ids, query: query.to_owned() });
        }
    }
    best.ok_or_else(|| {
        let what = format!(
            "{} {} is not supported; see /fhir/metadata for what is",
            shown(&entry.method),
            shown(&entry.url)
        );
        let place = format!("{}.request", place_of(index));
        Refusal::at(StatusCode::BAD_REQUEST, IssueCode::NotSupported, what, place)
    })
}

/// The call that an entry is.
pub(crate) fn call_of(
    call: &Call,
    entry: &RequestEntry,
    route: &Route,
    body: Bytes,
) -> Result<Call, Refusal> {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: Option<&str>| {
        let value = value.and_then(|value| HeaderValue::from_str(value).ok());
        headers.extend(value.map(|value| (name, value)));
    };
    put(HeaderName::from_static("prefer"), call.header("prefer").or(Some("return=minimal")));
    put(header::IF_MATCH, entry.if_match.as_deref());
    put(header::IF_NONE_MATCH, entry.if_none_match.as_deref());
    put(HeaderName::from_static("if-none-exist"), entry.if_none_exist.as_deref());
    call.entry(&route.interaction, route.ids.clone(), &route.query, headers, body)
}

/// Does what an entry asks for, as a request of its own.
pub(crate) async fn dispatch(
    web: &Arc<Web>,
    call: &Arc<Call>,
    entry: &RequestEntry,
    index: usize,
    bytes: Bytes,
) -> Result<Answer, Refusal> {
    let route = route(call, entry, index)?;
    if matches!(route.interaction.method, Method::POST | Method::PUT) && entry.resource.is_none() {
        let what = "there is no resource to write";
        let place = format!("{}.resource", place_of(index));
        return Err(Refusal::at(StatusCode::BAD_REQUEST, IssueCode::Required, what, place));
    }
    super::permitted(web, call, &route.interaction).await?;
    let inner = call_of(call, entry, &route, bytes)?;
    let headers = (route.interaction.code == "read").then(|| inner.headers.clone());
    let view = View::of(&inner.params).map_err(Refusal::bad_request)?;
    let mut answer = match route.interaction.handler {
        Handler::Read(read) => blocking(web, move |web| read(web, &inner)).await?,
        Handler::Write(write) => write(Arc::clone(web), Arc::new(inner)).await?,
    };
    if headers.is_some_and(|headers| answer.is_known(&headers)) {
        return Ok(Answer { body: None, ..answer.status(StatusCode::NOT_MODIFIED) });
    }
    if let Some(body) = &mut answer.body {
        view.cut(body);
    }
    Ok(answer)
}

/// What became of an entry.
pub(crate) fn response(call: &Call, method: &str, answer: Result<Answer, Refusal>) -> ResponseEntry {
    let status_of = |status: StatusCode| {
        let phrase = status.canonical_reason().unwrap_or("");
        format!("{} {phrase}", status.as_str()).trim_end().to_owned()
    };
    match answer {
        Err(refusal) => ResponseEntry {
            status: status_of(refusal.status),
            location: None,
            etag: None,
            last_modified: None,
            outcome: Some(operation_outcome(&refusal.issues)),
            resource: None,
        },
        Ok(answer) => {
            let location = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            let base = format!("{}/", call.base);
            let is_outcome = answer.body.as_ref().is_some_and(is_outcome);
            let is_read = matches!(method, "GET" | "HEAD");
            let wants_it = is_read || Wanted::of(call) == Some(Wanted::Representation);
            let (outcome, resource) = match answer.body {
                Some(body) if is_outcome && !is_read => (Some(body), None),
                Some(body) if wants_it => (None, Some(body)),
                _ => (None, None),
            };
            ResponseEntry {
                status: status_of(answer.status),
                location: location
                    .map(|location| location.strip_prefix(base.as_str()).unwrap_or(location).to_owned()),
                etag: answer.versioned.map(|(version, _)| format!("W/\"{version}\"")),
                last_modified: answer.versioned.map(|(_, at)| at),
                outcome,
                resource,
            }
        }
    }
}

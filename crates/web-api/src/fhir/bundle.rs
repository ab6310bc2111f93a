//! Transactions and batches of Observations.
//!
//! A transaction is one frame: all of it is on stable storage, or nothing. Every entry of a batch is a frame of its
//! own and has its own outcome; they share commits all the same.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use clinical_model::DeviceId;
use futures_util::future::join_all;
use health_codecs::fhir::bundle::{RequestEntry, RequestKind, ResponseEntry, parse_request};
use health_codecs::fhir::{
    IssueCode, OutcomeIssue, batch_response, json, operation_outcome, read_frame, transaction_response,
};
use pipeline::{EntryOutcome, Receipt};

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::create::{
    Checked, Made, Wanted, check, frame_of, intake, no_conditional_create, quarantined_issue, read_back,
    refuse_other_subject, submit,
};
use super::{Waiting, blocking};
use crate::state::Web;

/// Entries of a batch that are on their way to the disk at one time: a full commit, and no flood of waiting tasks.
const BATCH_STEP: usize = 256;

/// `POST /fhir`
pub(crate) fn process(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(run(web, call))
}

async fn run(web: Arc<Web>, call: Arc<Call>) -> Result<Answer, Refusal> {
    let reading = Arc::clone(&call);
    let (kind, entries) = blocking(&web, move |_| {
        let value = json::parse(&reading.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
        parse_request(&value).map_err(Refusal::invalid)
    })
    .await?;
    match kind {
        RequestKind::Transaction => transaction(web, call, entries).await,
        RequestKind::Batch => batch(web, call, entries).await,
    }
}

/// Checks what one entry asks for, without its assignment.
fn check_entry(web: &Web, call: &Call, entry: &RequestEntry, place: &str) -> Result<Checked, Refusal> {
    let is_create = entry.method == "POST" && entry.url.trim_matches('/') == "Observation";
    if !is_create {
        let what = format!(
            "{} {} is not supported: only POST Observation is",
            shown(&entry.method),
            shown(&entry.url)
        );
        return Err(Refusal::at(
            StatusCode::BAD_REQUEST,
            IssueCode::NotSupported,
            what,
            format!("{place}.request"),
        ));
    }
    if entry.if_none_exist.is_some() {
        return Err(no_conditional_create("ifNoneExist"));
    }
    let Some(resource) = &entry.resource else {
        let what = "there is no resource to create";
        return Err(Refusal::at(
            StatusCode::BAD_REQUEST,
            IssueCode::Required,
            what,
            format!("{place}.resource"),
        ));
    };
    check(web, call.access()?, resource, &format!("{place}.resource"))
}

fn place_of(index: usize) -> String {
    format!("Bundle.entry[{index}]")
}

async fn transaction(web: Arc<Web>, call: Arc<Call>, entries: Vec<RequestEntry>) -> Result<Answer, Refusal> {
    if entries.is_empty() {
        return Ok(Answer::ok(transaction_response(web.site.clock().now(), &[])));
    }
    let checking = Arc::clone(&call);
    let frame = blocking(&web, move |web| {
        let device = check_transaction(web, &checking, &entries)?;
        Ok(frame_of(web, device, &checking.body))
    })
    .await?;
    let device = frame.device;
    let receipt = submit(&web, frame).await?;
    let reading = Arc::clone(&call);
    let at = receipt.committed_at;
    let made =
        blocking(&web, move |web| read_back(web, &reading, device, &receipt, &receipt.entries)).await?;
    let responses: Vec<ResponseEntry> = made.into_iter().map(|made| response(&call, made)).collect();
    Ok(Answer::ok(transaction_response(at, &responses)))
}

/// The one device of a transaction, when everything in it would be charted; else what would not be, and why.
fn check_transaction(web: &Web, call: &Call, entries: &[RequestEntry]) -> Result<DeviceId, Refusal> {
    let mut checked: Vec<Checked> = Vec::with_capacity(entries.len());
    let mut issues = Vec::new();
    let mut status = None;
    let mut refuse = |index: usize, refusal: Refusal| {
        status.get_or_insert(refusal.status);
        issues.extend(refusal.issues.into_iter().map(|issue| at_entry(index, issue)));
    };
    for (index, entry) in entries.iter().enumerate() {
        match check_entry(web, call, entry, &place_of(index)) {
            Ok(one) => checked.push(one),
            Err(refusal) => refuse(index, refusal),
        }
    }
    let device = checked.first().map(|one| one.device);
    for (index, one) in checked.iter().enumerate().filter(|(_, one)| Some(one.device) != device) {
        let what = format!(
            "a transaction carries the observations of one device, and {} is another; send one transaction a device, or a batch",
            one.device
        );
        refuse(index, Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::NotSupported, what));
    }
    if let Some(device) = device.filter(|_| checked.len() == entries.len()) {
        let outcomes = intake(web)?.preview(frame_of(web, device, &call.body))?;
        for (index, (outcome, one)) in outcomes.iter().zip(&checked).enumerate() {
            if let Err(refusal) = refuse_other_subject(web, call, one, outcome) {
                refuse(index, refusal);
            } else if let EntryOutcome::Quarantined { reason, what, .. } = outcome {
                let what = format!(
                    "it could not be charted ({}): {what}; nothing of the transaction was kept",
                    reason.word()
                );
                refuse(index, Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::BusinessRule, what));
            }
        }
    }
    match (status, device) {
        (None, Some(device)) => Ok(device),
        (status, _) => {
            Err(Refusal { status: status.unwrap_or(StatusCode::BAD_REQUEST), issues, retry_after_s: None })
        }
    }
}

/// The issue, with the entry it belongs to.
fn at_entry(index: usize, mut issue: OutcomeIssue) -> OutcomeIssue {
    let place = place_of(index);
    match issue.expression.first_mut() {
        Some(expression) if expression.starts_with("Bundle.") => {}
        Some(expression) => {
            let inside = expression.strip_prefix("Observation").unwrap_or(expression);
            *expression = format!("{place}.resource{inside}");
        }
        None => issue.expression.push(place),
    }
    issue
}

/// One entry of a batch: the frame it became, or why not.
type Step = Result<(DeviceId, Receipt), Refusal>;

async fn batch(web: Arc<Web>, call: Arc<Call>, entries: Vec<RequestEntry>) -> Result<Answer, Refusal> {
    let checking = Arc::clone(&call);
    let frames = blocking(&web, move |web| {
        let spans = read_frame(&checking.body).entries;
        let mut frames = Vec::with_capacity(entries.len());
        for (index, (entry, read)) in entries.iter().zip(spans).enumerate() {
            let bytes = checking.body.slice(read.span);
            frames.push(check_batched(web, &checking, entry, index, &bytes));
        }
        Ok(frames)
    })
    .await?;
    let mut steps: Vec<Step> = Vec::with_capacity(frames.len());
    let mut frames = frames.into_iter().peekable();
    while frames.peek().is_some() {
        let submissions = frames.by_ref().take(BATCH_STEP).map(|frame| async {
            let frame = frame?;
            let device = frame.device;
            Ok((device, submit(&web, frame).await?))
        });
        steps.extend(join_all(submissions).await);
    }
    let at = web.site.clock().now();
    let reading = Arc::clone(&call);
    let responses = blocking(&web, move |web| {
        Ok(steps.into_iter().map(|step| batched(web, &reading, step)).collect::<Vec<_>>())
    })
    .await?;
    Ok(Answer::ok(batch_response(at, &responses)))
}

fn check_batched(
    web: &Web,
    call: &Call,
    entry: &RequestEntry,
    index: usize,
    bytes: &Bytes,
) -> Result<clinical_model::Frame, Refusal> {
    let checked = check_entry(web, call, entry, &place_of(index))?;
    let frame = frame_of(web, checked.device, bytes);
    let outcomes = intake(web)?.preview(frame.clone())?;
    outcomes.iter().try_for_each(|outcome| refuse_other_subject(web, call, &checked, outcome))?;
    Ok(frame)
}

fn batched(web: &Web, call: &Call, step: Step) -> ResponseEntry {
    let made = step.and_then(|(device, receipt)| {
        let mut made = read_back(web, call, device, &receipt, &receipt.entries)?;
        made.pop().ok_or_else(Refusal::internal)
    });
    match made {
        Ok(made) => response(call, made),
        Err(refusal) => ResponseEntry { issues: refusal.issues, ..empty_response(refusal.status) },
    }
}

fn empty_response(status: StatusCode) -> ResponseEntry {
    let phrase = status.canonical_reason().unwrap_or("");
    ResponseEntry {
        status: format!("{} {phrase}", status.as_str()).trim_end().to_owned(),
        location: None,
        etag: None,
        last_modified: None,
        issues: Vec::new(),
        resource: None,
    }
}

fn response(call: &Call, made: Made) -> ResponseEntry {
    match made {
        Made::Quarantined { id, reason, what } => ResponseEntry {
            issues: vec![quarantined_issue(id, reason, &what)],
            ..empty_response(StatusCode::ACCEPTED)
        },
        Made::Committed { rendered, is_new, committed_at } => {
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            let resource = match Wanted::of(call) {
                Some(Wanted::Representation) => Some(rendered.resource),
                Some(Wanted::Outcome) => Some(operation_outcome(&[])),
                Some(Wanted::Minimal) | None => None,
            };
            ResponseEntry {
                location: Some(format!("Observation/{}/_history/1", rendered.id)),
                etag: Some("W/\"1\"".to_owned()),
                last_modified: Some(committed_at),
                resource,
                ..empty_response(status)
            }
        }
    }
}

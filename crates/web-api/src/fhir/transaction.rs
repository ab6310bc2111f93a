//! Transactions: all of it or nothing.
//!
//! Everything is planned and checked before anything is kept: which resource each entry is or will be, what refers to
//! what, whether each measurement would be charted. Then it is decided in one transaction (see [`pipeline::together`]).
//! Measurements of one device alone need no such decision: they are one frame, and one commit.

mod plan;

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use clinical_model::{DeviceId, Timestamp};
use health_codecs::fhir::bundle::{RequestEntry, ResponseEntry};
use health_codecs::fhir::foreign::{ForeignEntry, ForeignFrame, entry_spans};
use health_codecs::fhir::{IssueCode, OutcomeIssue, transaction_response};
use pipeline::desk::DeskError;
use pipeline::intake::Prepared;
use pipeline::{EntryOutcome, Receipt};
use serde_json::Value;

use super::answer::{Answer, Refusal};
use super::bundle::{Shown, dispatch, place_of, response};
use super::call::Call;
use super::conditions::lost_race;
use super::create::{
    self, Checked, Made, Wanted, check, frame_of, intake, read_back, refuse_other_subject, submit_prepared,
};
use super::{blocking, registering, update};
use crate::state::Web;
use plan::{Outcome, Plan};

/// Times that a transaction is planned again when somebody else was faster.
const TRIES_LIMIT: usize = 6;

/// `POST /fhir` with a Bundle of type transaction.
pub(crate) async fn run(
    web: Arc<Web>,
    call: Arc<Call>,
    entries: Vec<RequestEntry>,
) -> Result<Answer, Refusal> {
    if entries.is_empty() {
        return Ok(Answer::ok(transaction_response(web.site.clock().now(), &[])));
    }
    let entries = Arc::new(entries);
    if is_plain(&entries) {
        let checking = (Arc::clone(&call), Arc::clone(&entries));
        let prepared = blocking(&web, move |web| check_plain(web, &checking.0, &checking.1)).await?;
        if let Some(prepared) = prepared {
            return one_frame(web, call, prepared).await;
        }
    }
    for attempt in 1..=TRIES_LIMIT {
        let planning = (Arc::clone(&call), Arc::clone(&entries));
        let decided = blocking(&web, move |web| {
            let plan = Plan::of(web, &planning.0, &planning.1)?;
            let Plan { together, outcomes } = plan;
            match web.site.decide(together) {
                Ok(decided) => Ok(Some((decided, outcomes))),
                Err(DeskError::Conflict { .. }) if attempt < TRIES_LIMIT => Ok(None),
                Err(error) => Err(registering::refusal(&planning.0, error)),
            }
        })
        .await?;
        let Some((decided, outcomes)) = decided else { continue };
        let at = decided.at;
        let receipts = web.site.finish(decided).await?;
        let responses = responses(&web, &call, &entries, outcomes, (at, receipts)).await?;
        return Ok(Answer::ok(transaction_response(web.site.clock().now(), &responses)));
    }
    Err(lost_race())
}

/// Whether all entries are new Observations that refer to nothing in the Bundle: the common case, and the fast one.
fn is_plain(entries: &[RequestEntry]) -> bool {
    entries.iter().all(|entry| {
        entry.method == "POST"
            && entry.url.trim_matches('/') == "Observation"
            && entry.if_none_exist.is_none()
            && entry.resource.as_ref().is_some_and(|resource| {
                resource.get("identifier").is_none()
                    && ["subject", "device"].iter().all(|name| {
                        let reference = resource[*name]["reference"].as_str().unwrap_or("");
                        !reference.starts_with("urn:") && !reference.contains('?')
                    })
            })
    })
}

/// Collects what is wrong with a transaction: all of it is told at once.
#[derive(Default)]
struct Refusals {
    status: Option<StatusCode>,
    issues: Vec<OutcomeIssue>,
}

impl Refusals {
    fn add(&mut self, index: usize, refusal: Refusal) {
        self.status.get_or_insert(refusal.status);
        self.issues.extend(refusal.issues.into_iter().map(|issue| at_entry(index, issue)));
    }

    fn take<T>(&mut self, index: usize, result: Result<T, Refusal>) -> Option<T> {
        result.map_err(|refusal| self.add(index, refusal)).ok()
    }

    fn done(self) -> Result<(), Refusal> {
        match self.status {
            None => Ok(()),
            Some(status) => Err(Refusal { status, issues: self.issues, retry_after_s: None }),
        }
    }
}

/// The issue, with the entry it belongs to.
fn at_entry(index: usize, mut issue: OutcomeIssue) -> OutcomeIssue {
    let place = place_of(index);
    match issue.expression.first_mut() {
        Some(expression) if expression.starts_with("Bundle.") => {}
        Some(expression) => {
            let inside =
                expression.split_once('.').map(|(_, inside)| format!(".{inside}")).unwrap_or_default();
            *expression = format!("{place}.resource{inside}");
        }
        None => issue.expression.push(place),
    }
    issue
}

fn would_not_be_charted(outcome: &EntryOutcome) -> Option<Refusal> {
    let EntryOutcome::Quarantined { reason, what, .. } = outcome else { return None };
    let what =
        format!("it could not be charted ({}): {what}; nothing of the transaction was kept", reason.word());
    Some(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, IssueCode::BusinessRule, what))
}

/// Plain Observations of one device as a frame, when all of them will be charted; `None` where there are several devices.
fn check_plain(web: &Web, call: &Call, entries: &[RequestEntry]) -> Result<Option<Prepared>, Refusal> {
    let mut refusals = Refusals::default();
    let access = call.access()?;
    let mut checked: Vec<Checked> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let place = format!("{}.resource", place_of(index));
        let resource = entry.resource.as_ref().unwrap_or(&Value::Null);
        checked.extend(refusals.take(index, check(web, access, resource, &place)));
    }
    refusals.done()?;
    let mut refusals = Refusals::default();
    let Some(device) = checked.first().map(|one| one.device) else { return Ok(None) };
    if checked.iter().any(|one| one.device != device) {
        return Ok(None);
    }
    let spans = entry_spans(&call.body).map_err(Refusal::invalid)?;
    let foreign = |(span, one): (_, &Checked)| ForeignEntry { span, result: Ok(one.observation.clone()) };
    let entries = spans.into_iter().zip(&checked).map(foreign).collect();
    let prepared = intake(web)?.prepare(frame_of(web, device, &call.body), ForeignFrame { entries })?;
    for (index, (outcome, one)) in prepared.outcomes().iter().zip(&checked).enumerate() {
        if refusals.take(index, refuse_other_subject(web, call, one, outcome)).is_some()
            && let Some(refusal) = would_not_be_charted(outcome)
        {
            refusals.add(index, refusal);
        }
    }
    refusals.done().map(|()| Some(prepared))
}

async fn one_frame(web: Arc<Web>, call: Arc<Call>, prepared: Prepared) -> Result<Answer, Refusal> {
    let device = prepared.frame().device;
    let receipt = submit_prepared(&web, &call, prepared).await?;
    let reading = Arc::clone(&call);
    let at = receipt.committed_at;
    let made = blocking(&web, move |web| {
        let wants_resource = Wanted::of(&reading) == Some(Wanted::Representation);
        read_back(web, &reading, (device, wants_resource), &receipt, &receipt.entries)
    })
    .await?;
    let answers = made.into_iter().map(|made| response(&call, "POST", Ok(create::answer(&call, made))));
    let responses: Vec<ResponseEntry> = answers.collect();
    Ok(Answer::ok(transaction_response(at, &responses)))
}

/// What became of every entry, in their order.
async fn responses(
    web: &Arc<Web>,
    call: &Arc<Call>,
    entries: &Arc<Vec<RequestEntry>>,
    outcomes: Vec<Outcome>,
    (at, receipts): (Timestamp, Vec<Receipt>),
) -> Result<Vec<ResponseEntry>, Refusal> {
    let mut responses = Vec::with_capacity(outcomes.len());
    let receipts = Arc::new(receipts);
    let mut shown = Shown::default();
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let entry = &entries[index];
        let answer = match outcome {
            Outcome::Read => match shown.has_room(entry) {
                Ok(()) => dispatch(web, call, entry, index, Bytes::new()).await,
                Err(refusal) => Err(refusal),
            },
            Outcome::Gone => {
                Ok(Answer { body: None, ..Answer::ok(Value::Null).status(StatusCode::NO_CONTENT) })
            }
            Outcome::Record(planned) => {
                let at = planned.unchanged_since.unwrap_or(at);
                Ok(registering::answer(call, *planned, at))
            }
            Outcome::Corrected(position) => {
                let reading = Arc::clone(call);
                blocking(web, move |web| update::shown_again(web, &reading, &position)).await
            }
            Outcome::There(position) => {
                let reading = Arc::clone(call);
                let made = blocking(web, move |web| create::existing(web, &reading, &position)).await?;
                made.ok_or_else(Refusal::internal).map(|made| create::answer(call, made))
            }
            Outcome::Measured { frame, entry } => {
                let (reading, receipts) = (Arc::clone(call), Arc::clone(&receipts));
                blocking(web, move |web| measured(web, &reading, &receipts, (frame, entry))).await
            }
        };
        shown.note(&answer);
        responses.push(response(call, &entry.method, answer));
    }
    Ok(responses)
}

fn measured(
    web: &Web,
    call: &Call,
    receipts: &[Receipt],
    (frame, entry): (usize, usize),
) -> Result<Answer, Refusal> {
    let receipt = receipts.get(frame).ok_or_else(Refusal::internal)?;
    let outcome = receipt.entries.get(entry).ok_or_else(Refusal::internal)?;
    let device = match outcome {
        EntryOutcome::Committed { facts } => facts.first().map(|fact| fact.series.device),
        EntryOutcome::Quarantined { .. } => None,
    };
    let device = device.unwrap_or(DeviceId::from_bytes([0; 16]));
    let wants_resource = Wanted::of(call) == Some(Wanted::Representation);
    let made: Option<Made> =
        read_back(web, call, (device, wants_resource), receipt, std::slice::from_ref(outcome))?.pop();
    made.ok_or_else(Refusal::internal).map(|made| create::answer(call, made))
}

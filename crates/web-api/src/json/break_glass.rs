//! Breaking the glass: asking for it, ending it, and the list that somebody else has to close.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::{GlassId, PatientId, Private, RecordId as _, Timestamp, UserId};
use pipeline::audited::Agent;
use pipeline::break_glass::{self, BreakGlass, Finding, GlassError, Listed, Reason, Request};
use serde::{Deserialize, Serialize};
use store::AuditAction;

use super::{Answer, Asked, Body, hex, id_of};
use crate::access::{Access, Permission, Permit, may};
use crate::problem::{Code, Problem};
use crate::state::Web;

/// Entries of one page of the list.
const PAGE: usize = 50;

#[derive(Serialize)]
struct Person {
    id: UserId,
    display: String,
}

/// The patient as the list names them.
#[derive(Serialize)]
struct Named {
    family: Option<String>,
    given: Option<String>,
    record_number: String,
}

#[derive(Serialize)]
struct ReviewView {
    finding: Finding,
    note: String,
    at: Timestamp,
    by: Person,
}

/// One broken glass.
#[derive(Serialize)]
pub(crate) struct Glass {
    id: GlassId,
    version: u64,
    patient_id: PatientId,
    patient: Option<Named>,
    by: Person,
    reason: Reason,
    text: String,
    opened_at: Timestamp,
    until: Timestamp,
    ended_at: Option<Timestamp>,
    stands: bool,
    remaining_s: i64,
    review_due_at: Timestamp,
    is_overdue: bool,
    review: Option<ReviewView>,
}

/// Whether whoever looks may see the name beside the record number: whoever broke the glass does, a reviewer need not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Name,
    Number,
}

fn view(web: &Web, glass: &BreakGlass, version: u64, shown: Shown) -> Glass {
    let now = web.site.clock().now();
    let person = |id: UserId| Person {
        id,
        display: web
            .people
            .by_id(id)
            .map_or_else(|| "somebody who is no longer here".to_owned(), |user| user.display),
    };
    let stands = web.site.glass_stands(glass);
    let name = |text: &Private<String>| (shown == Shown::Name).then(|| text.expose().clone());
    Glass {
        id: glass.id,
        version,
        patient_id: glass.patient,
        patient: web.site.registry().patient(glass.patient).map(|patient| Named {
            family: name(&patient.family),
            given: name(&patient.given),
            record_number: patient.record_number.expose().clone(),
        }),
        by: person(glass.by),
        reason: glass.reason,
        text: glass.text.expose().clone(),
        opened_at: glass.opened_at,
        until: glass.until,
        ended_at: glass.ended_at,
        stands,
        remaining_s: if stands { glass.until.micros_since(now) / 1_000_000 } else { 0 },
        review_due_at: glass.review_due_at(),
        is_overdue: glass.is_overdue_at(now),
        review: glass.review.as_ref().map(|review| ReviewView {
            finding: review.finding,
            note: review.note.expose().clone(),
            at: review.at,
            by: person(review.by),
        }),
    }
}

impl From<GlassError> for Problem {
    fn from(error: GlassError) -> Self {
        let what = error.to_string();
        match error {
            GlassError::NoPatient => Problem::new(Code::NotFound, what),
            GlassError::TooManyTries => Problem::new(Code::TooManyAttempts, what).retry_after(600),
            GlassError::Text { .. } => Problem::bad_request(what),
            GlassError::NotNeeded => Problem::new(Code::Exists, what),
            GlassError::Own => Problem::new(Code::Forbidden, what),
            GlassError::StillStands | GlassError::Over => Problem::new(Code::AlreadyAnswered, what),
            GlassError::Desk(error) => error.into(),
        }
    }
}

#[derive(Serialize)]
struct Coded {
    code: &'static str,
    display: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Reasons {
    reasons: Vec<Coded>,
    hours: u64,
    shortest_text_chars: usize,
    longest_text_chars: usize,
}

pub(crate) async fn reasons(_: State<Arc<Web>>, _access: Permit<may::BreakGlass>) -> Answer<Reasons> {
    let coded = |reason: &Reason| Coded { code: reason.code(), display: reason.display() };
    Ok(Json(Reasons {
        reasons: Reason::ALL.iter().map(coded).collect(),
        hours: break_glass::STANDS_FOR.as_secs() / 3_600,
        shortest_text_chars: *break_glass::TEXT_CHARS.start(),
        longest_text_chars: *break_glass::TEXT_CHARS.end(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asking {
    record_number: Private<String>,
    birth_date: Option<Private<String>>,
    reason: Reason,
    text: Private<String>,
}

fn asker(access: &Access) -> Result<Agent<UserId>, Problem> {
    access.by_person().ok_or_else(|| Problem::new(Code::Forbidden, "only a person breaks the glass"))
}

pub(crate) async fn open(
    State(web): State<Arc<Web>>,
    access: Permit<may::BreakGlass>,
    Body(asking): Body<Asking>,
) -> Answer<Glass> {
    let by = asker(&access)?;
    let Asking { record_number, birth_date, reason, text } = asking;
    let request = Request { record_number, birth_date, reason, text };
    let decided = access.decision(Permission::BreakGlass).policies;
    let asked = access.act(AuditAction::BreakGlass, break_glass::OBJECT).policies(decided);
    web.blocking(move |web| {
        let sees = |patient| access.sight(web).allowed(patient).is_all();
        let (glass, version) = web.site.break_glass(by.who, &request, &asked, sees)?;
        Ok(Json(view(web, &glass, version, Shown::Name)))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct Glasses {
    glasses: Vec<Glass>,
}

pub(crate) async fn mine(State(web): State<Arc<Web>>, access: Permit<may::SignedIn>) -> Answer<Glasses> {
    web.blocking(move |web| {
        let standing = access.user().map(|user| web.site.standing_glasses(user)).unwrap_or_default();
        let shown = |glass: &Arc<BreakGlass>| {
            let version = web.site.glass(glass.id).map(|(_, version)| version)?;
            Ok::<_, GlassError>(view(web, glass, version, Shown::Name))
        };
        let glasses = standing.iter().map(shown).collect::<Result<_, _>>()?;
        Ok(Json(Glasses { glasses }))
    })
    .await?
}

pub(crate) async fn end(
    State(web): State<Arc<Web>>,
    access: Permit<may::SignedIn>,
    Path(id): Path<String>,
) -> Answer<Glass> {
    let by = asker(&access)?;
    let id: GlassId = id_of(&id, "broken glass")?;
    web.blocking(move |web| {
        let (glass, version) = web.site.end_glass(by, id)?;
        Ok(Json(view(web, &glass, version, Shown::Name)))
    })
    .await?
}

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    state: Option<String>,
    before: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Waiting {
    glasses: Vec<Glass>,
    open: usize,
    overdue: usize,
    next: Option<String>,
}

pub(crate) async fn list(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReviewBreakGlass>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Waiting> {
    let (which, overdue_only) = match query.state.as_deref() {
        None | Some("open") => (Listed::Open, false),
        Some("overdue") => (Listed::Open, true),
        Some("closed") => (Listed::Closed, false),
        Some(_) => return Err(Problem::bad_request("\"state\" must be \"open\", \"overdue\" or \"closed\"")),
    };
    let after = match query.before.as_deref() {
        Some(text) => Some(
            position(text).ok_or_else(|| Problem::bad_request("\"before\" is no position of this list"))?,
        ),
        None => None,
    };
    web.blocking(move |web| {
        let act = access.act(AuditAction::Search, "Break-glass");
        access.read(web, act, |_| Ok(()))?;
        let page = web.site.list_glasses(which, after, PAGE).map_err(pipeline::desk::DeskError::Store)?;
        let last = page.last().filter(|_| page.len() == PAGE);
        let next = last.map(|(glass, _, index)| format!("{}.{}", hex(index), hex(&glass.id.to_bytes())));
        let now = web.site.clock().now();
        let glasses = page
            .iter()
            .filter(|(glass, ..)| !overdue_only || glass.is_overdue_at(now))
            .map(|(glass, version, _)| view(web, glass, *version, Shown::Number))
            .collect();
        let (open, overdue) = web.site.glasses_waiting();
        Ok(Json(Waiting { glasses, open, overdue, next }))
    })
    .await?
}

/// A position in the list, as [`list`] gave it.
fn position(text: &str) -> Option<(Vec<u8>, [u8; 16])> {
    let (index, id) = text.split_once('.')?;
    let bytes = |text: &str| {
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
        digits
            .map(|pair| {
                pair.filter(|pair| pair.len() == 2).and_then(|pair| u8::from_str_radix(pair, 16).ok())
            })
            .collect::<Option<Vec<u8>>>()
    };
    let index = bytes(index).filter(|index| index.len() <= 32)?;
    Some((index, bytes(id)?.try_into().ok()?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reviewing {
    version: u64,
    finding: Finding,
    note: Private<String>,
}

pub(crate) async fn review(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReviewBreakGlass>,
    Path(id): Path<String>,
    Body(reviewing): Body<Reviewing>,
) -> Answer<Glass> {
    let by = asker(&access)?;
    let id: GlassId = id_of(&id, "broken glass")?;
    web.blocking(move |web| {
        let Reviewing { version, finding, note } = reviewing;
        let (glass, version) = web.site.review_glass(by, id, version, finding, &note)?;
        Ok(Json(view(web, &glass, version, Shown::Number)))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_given_and_nothing_else() {
        let text = format!("{}.{}", hex(&[0, 1, 255]), hex(&[7; 16]));
        assert_eq!(position(&text), Some((vec![0, 1, 255], [7; 16])));
        for bad in [
            "",
            ".",
            "00",
            "00.00",
            "0.07070707070707070707070707070707",
            "zz.07070707070707070707070707070707",
            "é.é",
        ] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}

//! The audit log: acts of people and programs, and what each committed group carried.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clinical_model::{DeviceId, Patient, PatientId, Timestamp, UserId};
use pipeline::audited::{Act, Agent, ReadError};
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction, AuditOutcome, AuditQuery, AuditRow, Log};

use super::views::{self, Named};
use super::{Answer, Asked, hex};
use crate::access::{Permit, Sight, may};
use crate::people::User;
use crate::problem::Problem;
use crate::state::Web;

/// Rows of one page.
const PAGE_LIMIT: usize = 500;

#[derive(Serialize)]
pub(super) struct ActorView {
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) label: String,
}

#[derive(Serialize)]
struct Labelled {
    id: String,
    label: String,
}

#[derive(Serialize)]
pub(crate) struct RowView {
    sequence: u64,
    at: Timestamp,
    actor: ActorView,
    action: &'static str,
    outcome: &'static str,
    patient: Option<Labelled>,
    device: Option<Named>,
    object: String,
    detail: String,
    purpose: Option<String>,
    break_glass: Option<String>,
    policies: Vec<String>,
    role: Option<String>,
    address: Option<String>,
    provable: bool,
}

pub(super) fn actor_view(web: &Web, sight: &Sight<'_>, actor: &Actor) -> ActorView {
    match actor {
        Actor::User(id) => {
            let user = web.people.by_id(*id);
            let label =
                user.map_or_else(|| "somebody who left".to_owned(), |user| display_of(web, sight, &user));
            ActorView { kind: "user", id: id.to_string(), label }
        }
        Actor::Device(id) => {
            ActorView { kind: "device", id: id.to_string(), label: views::named_device(web, *id).name }
        }
        Actor::Program(name) => ActorView { kind: "program", id: name.clone(), label: name.clone() },
        Actor::System => ActorView { kind: "system", id: String::new(), label: "Auscult".to_owned() },
        Actor::Unproven(name) => ActorView { kind: "unproven", id: name.clone(), label: name.clone() },
    }
}

pub(super) fn action_word(action: AuditAction) -> &'static str {
    match action {
        AuditAction::Create => "create",
        AuditAction::Read => "read",
        AuditAction::Update => "update",
        AuditAction::Delete => "delete",
        AuditAction::Search => "search",
        AuditAction::Stream => "stream",
        AuditAction::SignIn => "sign-in",
        AuditAction::SignOut => "sign-out",
        AuditAction::Assign => "assign",
        AuditAction::Answer => "answer",
        AuditAction::Quarantine => "quarantine",
        AuditAction::Administer => "administer",
        AuditAction::BreakGlass => "break-glass",
        AuditAction::Consent => "consent",
        AuditAction::Export => "export",
        AuditAction::Erase => "erase",
        AuditAction::Keys => "keys",
        AuditAction::Policy => "policy",
    }
}

pub(super) fn outcome_word(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Success => "success",
        AuditOutcome::Refused => "refused",
        AuditOutcome::Failed => "failed",
    }
}

/// A patient for a list that people without a chart read, too: the name for those who may see the patient, for others the
/// record number.
fn patient_label(web: &Web, sight: &Sight<'_>, id: PatientId) -> String {
    match web.site.registry().patient(id) {
        None => "erased".to_owned(),
        Some(patient) if sight.patient(&patient) => {
            format!("{}, {}", patient.family.expose().to_uppercase(), patient.given.expose())
        }
        Some(patient) => format!("record {}", patient.record_number.expose()),
    }
}

/// What somebody is called where rows are read: patients as in [`patient_label`].
pub(crate) fn display_of(web: &Web, sight: &Sight<'_>, user: &User) -> String {
    match user.patient.filter(|patient| !sight.patient_id(*patient)) {
        Some(patient) => format!("patient, {}", patient_label(web, sight, patient)),
        None => user.display.clone(),
    }
}

pub(super) fn row_view(web: &Web, sight: &Sight<'_>, row: &AuditRow, covered: u64) -> RowView {
    let record = &row.record;
    let patient =
        record.patient.map(|id| Labelled { id: id.to_string(), label: patient_label(web, sight, id) });
    RowView {
        sequence: row.sequence,
        at: record.at,
        actor: actor_view(web, sight, &record.actor),
        action: action_word(record.action),
        outcome: outcome_word(record.outcome),
        patient,
        device: record.device.map(|id| views::named_device(web, id)),
        object: record.object.clone(),
        detail: record.detail.clone(),
        purpose: record.purpose.clone(),
        break_glass: record.break_glass.map(uuid_text),
        policies: record.policies.clone(),
        role: record.role.clone(),
        address: record.address.clone(),
        provable: row.sequence <= covered,
    }
}

fn uuid_text(id: [u8; 16]) -> String {
    let digits = hex(&id);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

/// How many rows of a log a signed checkpoint covers.
pub(super) fn covered(web: &Web, log: Log) -> Result<u64, ReadError> {
    let last = web.site.store().log().checkpoints(log, None, 1)?;
    Ok(last.first().map_or(0, |checkpoint| checkpoint.size))
}

#[derive(Serialize)]
pub(crate) struct Rows {
    rows: Vec<RowView>,
    more: bool,
    next_before: Option<u64>,
}

/// What is asked of the log; an export takes the same.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RowsQuery {
    patient: Option<String>,
    actor: Option<String>,
    device: Option<String>,
    action: Option<String>,
    outcome: Option<String>,
    break_glass: Option<bool>,
    from: Option<String>,
    to: Option<String>,
    system: Option<bool>,
    before: Option<u64>,
    limit: Option<usize>,
}

impl RowsQuery {
    /// The question to the store, with a limit of at most `limit`.
    pub(super) fn page(&self, web: &Web, limit: usize) -> Result<AuditQuery, Problem> {
        let patient = given(&self.patient).map(|text| patient_of(web, text)).transpose()?;
        let device = given(&self.device).map(|text| device_of(web, text)).transpose()?;
        let actions = match given(&self.action) {
            Some(words) => words.split(',').map(action_of_word).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let outcome = match given(&self.outcome) {
            Some(word) => Some(outcome_of_word(word)?),
            None => None,
        };
        Ok(AuditQuery {
            patient,
            actor: given(&self.actor).map(|text| actor_of(web, text)),
            device,
            actions,
            outcome,
            break_glass: self.break_glass.unwrap_or(false),
            without_heartbeats: !self.system.unwrap_or(false),
            from: instant(&self.from, "from")?,
            to: instant(&self.to, "to")?,
            before: self.before,
            limit: self.limit.unwrap_or(100).clamp(1, limit),
        })
    }

    /// The act of asking.
    pub(super) fn act(&self, web: &Web, by: &Agent, action: AuditAction, page: &AuditQuery) -> Act {
        let mut detail = match &page.actor {
            Some(Actor::User(id)) => format!("actor={id} "),
            Some(Actor::Device(id)) => format!("actor={id} "),
            // Whatever was typed.
            Some(_) => format!("actor={} ", web.blinded(self.actor.as_deref().unwrap_or_default())),
            None => String::new(),
        };
        let mut note = |name: &str, value: &Option<String>| {
            if let Some(value) = given(value) {
                detail.push_str(&format!("{name}={value} "));
            }
        };
        note("action", &self.action);
        note("outcome", &self.outcome);
        note("from", &self.from);
        note("to", &self.to);
        let mut act = by.act(action, "audit log").detail(detail.trim_end());
        if let Some(patient) = page.patient {
            act = act.patient(patient);
        }
        if let Some(device) = page.device {
            act = act.device(device);
        }
        act
    }
}

/// What a field says, where it says anything.
fn given(field: &Option<String>) -> Option<&str> {
    field.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// The patient of an id or of a whole record number.
fn patient_of(web: &Web, text: &str) -> Result<PatientId, Problem> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let is_it = |patient: &Patient| patient.record_number.expose().eq_ignore_ascii_case(text);
    let found = web.site.registry().patients().into_iter().find(|patient| is_it(patient));
    found.map(|patient| patient.id).ok_or_else(|| {
        Problem::bad_request("\"patient\" is an id or a whole record number, and no patient has this one")
    })
}

/// The device of an id, a serial number or a name.
fn device_of(web: &Web, text: &str) -> Result<DeviceId, Problem> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let named = |one: &str| one.to_lowercase() == text.to_lowercase();
    let mut found = web.site.registry().devices();
    found.retain(|device| named(&device.serial) || named(&device.name));
    match &found[..] {
        [one] => Ok(one.id),
        [] => Err(Problem::bad_request(
            "\"device\" is an id, a name or a serial number, and no device has this one",
        )),
        _ => Err(Problem::bad_request("several devices have this name or serial number; give the id of one")),
    }
}

fn instant(text: &Option<String>, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = given(text) else { return Ok(None) };
    let at = text.parse::<Timestamp>();
    at.map(Some)
        .map_err(|_| Problem::bad_request(format!("{name} is no instant such as 2026-11-22T07:30:00Z")))
}

fn action_of_word(word: &str) -> Result<AuditAction, Problem> {
    AuditAction::ALL
        .into_iter()
        .find(|action| action_word(*action) == word)
        .ok_or_else(|| Problem::bad_request("an action is not known; see the words that rows have"))
}

fn outcome_of_word(word: &str) -> Result<AuditOutcome, Problem> {
    AuditOutcome::ALL
        .into_iter()
        .find(|outcome| outcome_word(*outcome) == word)
        .ok_or_else(|| Problem::bad_request("outcome is success, refused or failed"))
}

/// Whom a text means: a person or device by id, a person by the name they sign in with, else a program.
fn actor_of(web: &Web, text: &str) -> Actor {
    if let Ok(user) = text.parse::<UserId>()
        && web.people.by_id(user).is_some()
    {
        return Actor::User(user);
    }
    if let Ok(device) = text.parse::<DeviceId>()
        && web.site.registry().device(device).is_some()
    {
        return Actor::Device(device);
    }
    match (web.people.by_name(text), text.parse::<UserId>()) {
        (Some(user), _) => Actor::User(user.id),
        // Somebody who left.
        (None, Ok(user)) => Actor::User(user),
        (None, Err(_)) => Actor::Program(text.to_owned()),
    }
}

pub(crate) async fn rows(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadAudit>,
    Asked(query): Asked<RowsQuery>,
) -> Answer<Rows> {
    web.blocking(move |web| {
        let page = query.page(web, PAGE_LIMIT)?;
        let act = query.act(web, &access.by(), AuditAction::Search, &page);
        let rows = access.read(web, act, |chart| chart.audit_rows(&page))?;
        let covered = covered(web, Log::Acts)?;
        let more = rows.len() == page.limit;
        let next_before = rows.last().filter(|_| more).map(|row| row.sequence);
        let sight = access.sight(web);
        Ok(Json(Rows {
            rows: rows.iter().map(|row| row_view(web, &sight, row, covered)).collect(),
            more,
            next_before,
        }))
    })
    .await?
}

#[derive(Deserialize)]
pub(crate) struct MineQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

/// Who looked at one's own record: the rows of the patient that a person is, without addresses.
pub(crate) async fn mine(
    State(web): State<Arc<Web>>,
    access: Permit<may::SignedIn>,
    Asked(query): Asked<MineQuery>,
) -> Answer<Rows> {
    web.blocking(move |web| {
        let patient = access.person().and_then(|user| user.patient);
        let patient = patient.ok_or_else(|| Problem::not_found("record of your own"))?;
        let limit = query.limit.unwrap_or(100).clamp(1, PAGE_LIMIT);
        let page =
            AuditQuery { patient: Some(patient), before: query.before, limit, ..AuditQuery::default() };
        let act = access.act(AuditAction::Search, "own audit log").patient(patient).purpose("PATRQT");
        let rows = web.site.read(act, |chart| chart.audit_rows(&page))?;
        let covered = covered(web, Log::Acts)?;
        let more = rows.len() == limit;
        let next_before = rows.last().filter(|_| more).map(|row| row.sequence);
        let sight = access.sight(web);
        let shown = |row: &AuditRow| RowView {
            address: None,
            policies: Vec::new(),
            ..row_view(web, &sight, row, covered)
        };
        Ok(Json(Rows { rows: rows.iter().map(shown).collect(), more, next_before }))
    })
    .await?
}

#[derive(Serialize)]
struct SourceView {
    device: Named,
    frames: u32,
    facts: u32,
    quarantined: u32,
    sha256: String,
}

#[derive(Serialize)]
struct GroupView {
    group: u64,
    committed_at: Timestamp,
    provable: bool,
    sources: Vec<SourceView>,
}

#[derive(Serialize)]
pub(crate) struct Groups {
    groups: Vec<GroupView>,
}

#[derive(Deserialize)]
pub(crate) struct GroupsQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn groups(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadAudit>,
    Asked(query): Asked<GroupsQuery>,
) -> Answer<Groups> {
    let act = access.act(AuditAction::Search, "committed groups");
    let limit = query.limit.unwrap_or(100).min(PAGE_LIMIT);
    web.blocking(move |web| {
        let groups = access.read(web, act, |chart| chart.group_summaries(query.before, limit))?;
        let covered = covered(web, Log::Groups)?;
        let view = |group: &store::GroupSummary| GroupView {
            group: group.group,
            committed_at: group.committed_at,
            provable: group.group <= covered,
            sources: group
                .sources
                .iter()
                .map(|(device, frames, facts, quarantined, digest)| SourceView {
                    device: views::named_device(web, *device),
                    frames: *frames,
                    facts: *facts,
                    quarantined: *quarantined,
                    sha256: hex(digest),
                })
                .collect(),
        };
        Ok(Json(Groups { groups: groups.iter().map(view).collect() }))
    })
    .await?
}

//! The audit log as AuditEvents, for those who look after it.

use clinical_model::{PatientId, Subject, Timestamp, UserId};
use health_codecs::fhir::audit_event::{
    AuditAction as Action, AuditAgent, AuditCoding, AuditEntity, AuditInput, AuditOutcome as Outcome, render,
};
use health_codecs::fhir::search::{AuditSearch, ResourceType, Total, bounds, parse_audit_search};
use health_codecs::fhir::{IssueCode, OutcomeIssue};
use pipeline::audited::ReadError;
use pipeline::chart::Chart;
use serde_json::Value;
use store::{Actor, AuditAction, AuditOutcome, AuditQuery, AuditRow, GroupSummary};

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::include::{self, Node};
use super::results::{self, Results};
use super::{links, page, refused};
use crate::state::Web;

const KIND: &str = "AuditEvent";
/// Begins the id of the record of a committed group; its number follows.
const GROUP_PREFIX: &str = "group-";
/// Most rows that one page looks at where filters pass few of them.
const SCAN_LIMIT_ROWS: usize = 10_000;
/// Most rows that are counted.
const TOTAL_LIMIT_ROWS: usize = 200_000;
/// Rows that are counted at once.
const TOTAL_PAGE: u16 = 10_000;
/// Rows fetched at once.
const FETCH_ROWS: usize = 500;

/// `GET /fhir/AuditEvent/{id}`
pub(crate) fn read(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let act = call.act(AuditAction::Read, KIND)?.detail(format!("AuditEvent/{}", shown(&call.id)));
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    let rendered = if let Some(sequence) = number(&call.id) {
        let row = web.site.read(act.clone(), |chart| row_of(chart, sequence))?;
        row.map(|row| rendered_row(web, &row))
    } else if let Some(group) = call.id.strip_prefix(GROUP_PREFIX).and_then(number) {
        let before = group.checked_add(1);
        let summary = web.site.read(act.clone(), |chart| chart.group_summaries(before, 1))?;
        summary.first().filter(|summary| summary.group == group).map(rendered_group)
    } else {
        None
    };
    match rendered {
        Some(rendered) => Ok(Answer::ok(rendered)),
        None => {
            refused(web, act)?;
            Err(Refusal::not_found(KIND))
        }
    }
}

fn row_of(chart: &Chart<'_>, sequence: u64) -> Result<Option<AuditRow>, ReadError> {
    let query = AuditQuery { before: sequence.checked_add(1), limit: 1, ..AuditQuery::default() };
    Ok(chart.audit_rows(&query)?.into_iter().find(|row| row.sequence == sequence))
}

/// `GET /fhir/AuditEvent?…`
pub(crate) fn search(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let query = links::query_of(ResourceType::AuditEvent, call, &call.params)?;
    let mut search =
        parse_audit_search(&results::without_zero_count(&query.filters)).map_err(Refusal::bad_request)?;
    if let Some(allowed) = links::allowed_by_chains(web, call, &query, &["patient"])? {
        let allowed: Vec<PatientId> = allowed.into_iter().filter_map(Subject::patient).collect();
        search.patients = Some(match search.patients {
            None => allowed,
            Some(named) => named.into_iter().filter(|id| allowed.contains(id)).collect(),
        });
    }
    let store = web.site.store();
    let before = match &search.cursor {
        Some(cursor) => Some(page::number_from(&page::place_of(store, KIND, &call.params, cursor)?)?),
        None => None,
    };
    let act = call.act(AuditAction::Search, KIND)?.detail(call.query_text());
    let patients = search.patients.clone().unwrap_or_default();
    let act = match patients[..] {
        [one] => act.patient(one),
        _ => act,
    };
    let is_counted = results::is_count(&query, &call.params);
    let (rows, next, total) = web.site.read(act, |chart| {
        let total = match (is_counted, query.total) {
            (false, Total::None) => None,
            _ => Some(count(chart, &search)?),
        };
        let (rows, next) = if is_counted { (Vec::new(), None) } else { matching(chart, &search, before)? };
        Ok((rows, next, total))
    })?;
    let total = match total {
        Some(None) => {
            let what =
                format!("more than {TOTAL_LIMIT_ROWS} rows would have to be counted; narrow the search");
            let issue = OutcomeIssue::error(IssueCode::TooCostly, what, "http._total");
            return Err(Refusal::bad_request(vec![issue]));
        }
        total => total.flatten(),
    };
    let matches = rows.iter().map(|row| (row.sequence.to_string(), rendered_row(web, row))).collect();
    let nodes = rows.iter().map(|row| Node::Audit(row.sequence, row.record.patient)).collect();
    let next_link = next.map(|next| {
        let cursor = page::cursor(store, KIND, &call.params, &next.to_be_bytes());
        page::next_link(&call.base, KIND, &call.params, cursor)
    });
    let kind = ResourceType::AuditEvent;
    let included = include::all(web, call, &query, kind, nodes, Vec::new())?;
    Ok(results::bundle(web, call, &query, Results { path: KIND, kind, matches, included, total, next_link }))
}

/// How many rows fit in all; `None` where there are too many to count.
fn count(chart: &Chart<'_>, search: &AuditSearch) -> Result<Option<u64>, ReadError> {
    let (mut total, mut before) = (0, None);
    let all = AuditSearch { count: Some(TOTAL_PAGE), ..search.clone() };
    for _ in 0..TOTAL_LIMIT_ROWS / usize::from(TOTAL_PAGE) {
        let (rows, next) = matching(chart, &all, before)?;
        total += rows.len() as u64;
        before = next;
        if before.is_none() {
            return Ok(Some(total));
        }
    }
    Ok(None)
}

/// Rows that fit, newest first, and below which sequence the next page goes on.
fn matching(
    chart: &Chart<'_>,
    search: &AuditSearch,
    mut before: Option<u64>,
) -> Result<(Vec<AuditRow>, Option<u64>), ReadError> {
    let count = usize::from(search.count.unwrap_or(page::COUNT_DEFAULT));
    let Some(bounds) = bounds(&search.date) else { return Ok((Vec::new(), None)) };
    let patient = match search.patients.as_deref() {
        Some([one]) => Some(*one),
        _ => None,
    };
    let mut rows = Vec::new();
    let mut scanned = 0;
    loop {
        let query = AuditQuery {
            patient,
            actor: None,
            from: (bounds.start > Timestamp::MIN).then_some(bounds.start),
            to: bounds.end,
            before,
            limit: FETCH_ROWS,
        };
        let fetched = chart.audit_rows(&query)?;
        let is_last = fetched.len() < FETCH_ROWS;
        for row in fetched {
            if rows.len() == count || scanned == SCAN_LIMIT_ROWS {
                return Ok((rows, before));
            }
            before = Some(row.sequence);
            scanned += 1;
            if fits(search, &row) {
                rows.push(row);
            }
        }
        if is_last {
            return Ok((rows, None));
        }
    }
}

fn fits(search: &AuditSearch, row: &AuditRow) -> bool {
    let record = &row.record;
    search.ids.as_ref().is_none_or(|ids| ids.contains(&row.sequence.to_string()))
        && search
            .patients
            .as_ref()
            .is_none_or(|patients| record.patient.is_some_and(|patient| patients.contains(&patient)))
        && search
            .agents
            .as_ref()
            .is_none_or(|agents| agents.iter().any(|agent| is_agent(agent, &record.actor)))
        && search.date.iter().all(|filter| filter.matches(record.at))
        && search.actions.as_ref().is_none_or(|actions| actions.contains(&action_of(record.action)))
}

/// Whether a reference or a bare id names the one who acted.
fn is_agent(named: &str, actor: &Actor) -> bool {
    let (kind, id) = named.rsplit_once('/').map_or((None, named), |(kind, id)| (Some(kind), id));
    match actor {
        Actor::User(user) => kind.is_none_or(|kind| kind == "Practitioner") && id == user.to_string(),
        Actor::Device(device) => kind.is_none_or(|kind| kind == "Device") && id == device.to_string(),
        Actor::Program(name) => kind.is_none() && id == name,
        Actor::System | Actor::Unproven(_) => false,
    }
}

fn action_of(action: AuditAction) -> Action {
    match action {
        AuditAction::Create => Action::Create,
        AuditAction::Read | AuditAction::Stream => Action::Read,
        AuditAction::Update | AuditAction::Assign | AuditAction::Answer | AuditAction::Quarantine => {
            Action::Update
        }
        AuditAction::Delete => Action::Delete,
        AuditAction::Search | AuditAction::SignIn | AuditAction::SignOut | AuditAction::Administer => {
            Action::Execute
        }
    }
}

fn kinds_of(action: AuditAction) -> (AuditCoding, AuditCoding) {
    let rest = |code| (AuditCoding::rest(), AuditCoding::interaction(code));
    let own = |code, display| {
        (AuditCoding::own("act", "Act of a person or program"), AuditCoding::own(code, display))
    };
    let user = || AuditCoding::dicom("110114", "User Authentication");
    match action {
        AuditAction::Create => rest("create"),
        AuditAction::Read => rest("read"),
        AuditAction::Update => rest("update"),
        AuditAction::Delete => rest("delete"),
        AuditAction::Search => rest("search"),
        AuditAction::Stream => own("stream", "A live stream was opened"),
        AuditAction::SignIn => (user(), AuditCoding::dicom("110122", "Login")),
        AuditAction::SignOut => (user(), AuditCoding::dicom("110123", "Logout")),
        AuditAction::Assign => own("assign", "An assignment was made or ended"),
        AuditAction::Answer => own("answer", "An alert was acknowledged or resolved"),
        AuditAction::Quarantine => own("quarantine", "A quarantined item was run again or set aside"),
        AuditAction::Administer => own("administer", "Administration of the system"),
    }
}

fn agent_of(web: &Web, actor: &Actor) -> AuditAgent {
    let agent = |reference: Option<String>, display: Option<String>, alt_id: Option<String>| AuditAgent {
        reference,
        display,
        alt_id,
        kind: None,
        role: None,
        requestor: true,
        network_address: None,
    };
    match actor {
        Actor::User(user) => {
            let id: UserId = *user;
            let person = web.people.by_id(id);
            let display = person.as_ref().map(|person| person.display.clone());
            agent(Some(format!("Practitioner/{id}")), display, person.map(|person| person.name))
        }
        Actor::Device(device) => {
            let name = web.site.registry().device(*device).map(|device| device.name.clone());
            agent(Some(format!("Device/{device}")), name, None)
        }
        Actor::Program(name) => agent(None, Some(name.clone()), Some(name.clone())),
        Actor::System => agent(None, Some("Auscult".to_owned()), None),
        Actor::Unproven(name) => agent(None, Some(format!("not proven: {}", shown(name))), None),
    }
}

fn rendered_row(web: &Web, row: &AuditRow) -> Value {
    let record = &row.record;
    let (event_type, subtype) = kinds_of(record.action);
    let mut entities: Vec<AuditEntity> = Vec::new();
    entities.extend(record.patient.map(AuditEntity::patient));
    entities.extend(record.device.map(|device| AuditEntity::resource(format!("Device/{device}"))));
    match record.action {
        AuditAction::Search if !record.detail.is_empty() => {
            entities.push(AuditEntity::query(record.detail.as_bytes()))
        }
        _ => entities.push(AuditEntity {
            name: Some(record.object.clone()),
            description: Some(record.detail.clone()).filter(|detail| !detail.is_empty()),
            ..AuditEntity::default()
        }),
    }
    if let Some(alert) = record.alert {
        let details = vec![("alert".to_owned(), alert.to_string())];
        entities.push(AuditEntity { name: Some("Alert".to_owned()), details, ..AuditEntity::default() });
    }
    let (outcome, said) = match record.outcome {
        AuditOutcome::Success => (Outcome::Success, None),
        AuditOutcome::Refused => (Outcome::MinorFailure, Some("refused".to_owned())),
        AuditOutcome::Failed => (Outcome::SeriousFailure, Some("failed".to_owned())),
    };
    render(&AuditInput {
        id: row.sequence.to_string(),
        recorded: record.at,
        event_type,
        subtypes: vec![subtype],
        action: action_of(record.action),
        outcome,
        outcome_description: said,
        purposes: Vec::new(),
        agents: vec![agent_of(web, &record.actor)],
        entities,
    })
}

fn rendered_group(summary: &GroupSummary) -> Value {
    let agents = summary.sources.iter().map(|(device, ..)| AuditAgent {
        reference: Some(format!("Device/{device}")),
        display: None,
        alt_id: None,
        kind: Some(AuditCoding::dicom("110153", "Source Role ID")),
        role: None,
        requestor: true,
        network_address: None,
    });
    let entities = summary.sources.iter().map(|(device, frames, facts, quarantined, hash)| {
        let mut entity = AuditEntity::group(summary.group, u64::from(*facts), &crate::json::hex(hash));
        entity.details.extend([
            ("device".to_owned(), device.to_string()),
            ("frames".to_owned(), frames.to_string()),
            ("quarantined".to_owned(), quarantined.to_string()),
        ]);
        entity
    });
    render(&AuditInput {
        id: format!("{GROUP_PREFIX}{}", summary.group),
        recorded: summary.committed_at,
        event_type: AuditCoding::rest(),
        subtypes: vec![AuditCoding::interaction("create")],
        action: Action::Create,
        outcome: Outcome::Success,
        outcome_description: None,
        purposes: Vec::new(),
        agents: agents.collect(),
        entities: entities.collect(),
    })
}

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
use store::{Actor, AuditAction, AuditOutcome, AuditQuery, AuditRecord, AuditRow, GroupSummary};

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::include::{self, Node};
use super::results::{self, Results};
use super::{links, page, refused};
use crate::access::Sight;
use crate::json::audit::display_of;
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
        let sight = call.sight_of(web, "Patient")?;
        row.map(|row| rendered_row(web, &sight, &row))
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
    let act = call.act(AuditAction::Search, KIND)?.detail(call.query_text(web));
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
    let sight = call.sight_of(web, "Patient")?;
    let matches = rows.iter().map(|row| (row.sequence.to_string(), rendered_row(web, &sight, row))).collect();
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
            from: (bounds.start > Timestamp::MIN).then_some(bounds.start),
            to: bounds.end,
            before,
            limit: FETCH_ROWS,
            ..AuditQuery::default()
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
        && search.outcomes.as_ref().is_none_or(|outcomes| outcomes.contains(&outcome_of(record.outcome)))
        && is_of_kind(&search.types, &kinds_of(record.action).0)
        && is_of_kind(&search.subtypes, &kinds_of(record.action).1)
        && search.entities.as_ref().is_none_or(|entities| {
            let is_patient =
                |named: &String| record.patient.is_some_and(|id| *named == format!("Patient/{id}"));
            let is_device = |named: &String| record.device.is_some_and(|id| *named == format!("Device/{id}"));
            entities.iter().any(|named| is_patient(named) || is_device(named))
        })
}

/// Whether a kind has one of the codes that are asked for.
fn is_of_kind(asked: &Option<Vec<String>>, kind: &AuditCoding) -> bool {
    asked.as_ref().is_none_or(|codes| codes.contains(&kind.code))
}

fn outcome_of(outcome: AuditOutcome) -> Outcome {
    match outcome {
        AuditOutcome::Success => Outcome::Success,
        AuditOutcome::Refused => Outcome::MinorFailure,
        AuditOutcome::Failed => Outcome::SeriousFailure,
    }
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
        AuditAction::Update
        | AuditAction::Assign
        | AuditAction::Answer
        | AuditAction::Quarantine
        | AuditAction::Consent
        | AuditAction::Keys
        | AuditAction::Policy => Action::Update,
        AuditAction::Delete | AuditAction::Erase => Action::Delete,
        AuditAction::Search
        | AuditAction::SignIn
        | AuditAction::SignOut
        | AuditAction::Administer
        | AuditAction::BreakGlass
        | AuditAction::Export => Action::Execute,
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
        AuditAction::BreakGlass => (
            AuditCoding::dicom("110113", "Security Alert"),
            AuditCoding::dicom("110127", "Emergency Override Started"),
        ),
        AuditAction::Consent => own("consent", "A consent was given, changed or withdrawn"),
        AuditAction::Export => {
            (AuditCoding::dicom("110106", "Export"), AuditCoding::own("export", "Data left in bulk"))
        }
        AuditAction::Erase => own("erase", "Something was erased for good"),
        AuditAction::Keys => (
            AuditCoding::dicom("110113", "Security Alert"),
            AuditCoding::own("keys", "Keys were made, turned over or destroyed"),
        ),
        AuditAction::Policy => own("policy", "Policies or roles were changed"),
    }
}

/// Who acted: as a person who got the information (BALP: user), or as the program or device at the other end.
fn agent_of((web, sight): (&Web, &Sight<'_>), record: &AuditRecord, is_client: bool) -> AuditAgent {
    let actor = &record.actor;
    let plain = |reference: Option<String>, display: Option<String>| AuditAgent {
        reference,
        display,
        alt_id: None,
        kind: None,
        role: record.role.clone(),
        requestor: true,
        network_address: None,
    };
    let agent = match actor {
        Actor::User(user) => {
            let id: UserId = *user;
            let person = web.people.by_id(id);
            plain(Some(format!("Practitioner/{id}")), person.map(|person| display_of(web, sight, &person)))
        }
        Actor::Device(device) => {
            let name = web.site.registry().device(*device).map(|device| device.name.clone());
            plain(Some(format!("Device/{device}")), name)
        }
        Actor::Program(name) => plain(None, Some(name.clone())),
        Actor::System => plain(None, Some("Auscult".to_owned())),
        Actor::Unproven(name) => plain(None, Some(format!("not proven: {}", shown(name)))),
    };
    match actor {
        Actor::User(_) => AuditAgent { kind: Some(AuditCoding::recipient()), ..agent },
        _ if is_client => AuditAgent { role: None, network_address: record.address.clone(), ..agent },
        _ => agent,
    }
}

/// The two ends of a RESTful interaction (BALP: client and server). In a read the data flow to the client.
fn ends_of(seen: (&Web, &Sight<'_>), record: &AuditRecord) -> Vec<AuditAgent> {
    let (source, destination) =
        (AuditCoding::dicom("110153", "Source Role ID"), AuditCoding::dicom("110152", "Destination Role ID"));
    let (of_client, of_server) = match record.action {
        AuditAction::Read => (destination, source),
        _ => (source, destination),
    };
    let server = AuditAgent {
        reference: None,
        display: Some("Auscult".to_owned()),
        alt_id: None,
        kind: Some(of_server),
        role: None,
        requestor: false,
        network_address: Some("auscult".to_owned()),
    };
    match record.actor {
        Actor::User(_) => {
            let client = AuditAgent {
                display: Some("the program of this person".to_owned()),
                kind: Some(of_client),
                network_address: record.address.clone(),
                ..server.clone()
            };
            vec![agent_of(seen, record, false), client, server]
        }
        _ => vec![AuditAgent { kind: Some(of_client), ..agent_of(seen, record, true) }, server],
    }
}

/// What it was about, in the slices of BALP: patient, data or query; and what else is known of it.
fn entities_of(record: &AuditRecord) -> Vec<AuditEntity> {
    let mut entities: Vec<AuditEntity> = Vec::new();
    entities.extend(record.patient.map(AuditEntity::patient));
    match record.action {
        AuditAction::Search => {
            let query = if record.detail.is_empty() { &record.object } else { &record.detail };
            entities.push(AuditEntity::query(query.as_bytes()));
        }
        _ => {
            // The first word of a detail may be the address of what was read or written.
            let word = record.detail.split_whitespace().next().unwrap_or_default();
            let is_address = word.split_once('/').is_some_and(|(kind, id)| {
                kind.starts_with(|c: char| c.is_ascii_uppercase())
                    && kind.chars().all(|c| c.is_ascii_alphabetic())
                    && !id.is_empty()
                    && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
            });
            let data = AuditEntity::resource(if is_address { word.to_owned() } else { String::new() });
            entities.push(AuditEntity {
                display: (!is_address).then(|| record.object.clone()),
                description: Some(record.detail.clone()).filter(|detail| !detail.is_empty()),
                ..data
            });
        }
    }
    let other = |name: &str, details: Vec<(String, String)>| AuditEntity {
        kind: Some(AuditCoding::other()),
        name: Some(name.to_owned()),
        details,
        ..AuditEntity::default()
    };
    if let Some(device) = record.device {
        entities
            .push(AuditEntity { reference: Some(format!("Device/{device}")), ..other("Device", Vec::new()) });
    }
    if let Some(alert) = record.alert {
        entities.push(other("Alert", vec![("alert".to_owned(), alert.to_string())]));
    }
    if let Some(id) = record.break_glass {
        entities.push(other("Broken glass", vec![("break-glass".to_owned(), crate::json::hex(&id))]));
    }
    if !record.policies.is_empty() {
        let details = record.policies.iter().map(|policy| ("policy".to_owned(), policy.clone())).collect();
        entities.push(other("Policies", details));
    }
    entities
}

/// The BALP profile that a row fulfils: successful RESTful interactions whose other end is known.
fn profile_of(record: &AuditRecord) -> Option<&'static str> {
    let is_whole = record.outcome == AuditOutcome::Success && record.address.is_some();
    let name = match (record.action, record.patient.is_some()) {
        _ if !is_whole => return None,
        (AuditAction::Create, true) => "PatientCreate",
        (AuditAction::Create, false) => "Create",
        (AuditAction::Read, true) => "PatientRead",
        (AuditAction::Read, false) => "Read",
        (AuditAction::Update, true) => "PatientUpdate",
        (AuditAction::Update, false) => "Update",
        (AuditAction::Delete, true) => "PatientDelete",
        (AuditAction::Delete, false) => "Delete",
        (AuditAction::Search, true) => "PatientQuery",
        (AuditAction::Search, false) => "Query",
        _ => return None,
    };
    Some(name)
}

pub(crate) fn rendered_row(web: &Web, sight: &Sight<'_>, row: &AuditRow) -> Value {
    let record = &row.record;
    let (event_type, subtype) = kinds_of(record.action);
    let said = match record.outcome {
        AuditOutcome::Success => None,
        AuditOutcome::Refused => Some("refused".to_owned()),
        AuditOutcome::Failed => Some("failed".to_owned()),
    };
    let is_rest = event_type == AuditCoding::rest();
    render(&AuditInput {
        id: row.sequence.to_string(),
        profile: profile_of(record),
        recorded: record.at,
        event_type,
        subtypes: vec![subtype],
        action: action_of(record.action),
        outcome: outcome_of(record.outcome),
        outcome_description: said,
        purposes: record.purpose.iter().map(|purpose| AuditCoding::purpose(purpose)).collect(),
        agents: if is_rest {
            ends_of((web, sight), record)
        } else {
            vec![agent_of((web, sight), record, true)]
        },
        entities: entities_of(record),
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
        profile: None,
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

//! Consents: written by those who may for the patient, read by those who may see the patient, and enforced from the
//! next request on.

use std::sync::Arc;

use ::access::consent::check;
use axum::http::{HeaderMap, StatusCode, header};
use clinical_model::{Consent, ConsentId, PatientId, Provision, Purpose, RecordId as _};
use health_codecs::fhir::search::{ResourceType, bounds, parse_consent_search};
use health_codecs::fhir::{self, IssueCode, OutcomeIssue, json, with_version};
use pipeline::audited::ReadError;
use pipeline::consents::Kept;
use pipeline::desk::DeskError;
use serde_json::Value;
use store::{AuditAction, Expected, Kind};

use super::answer::{Answer, Refusal};
use super::call::{Call, shown};
use super::conditions::{Expecting, if_match, lost_race, not_current};
use super::include::Included;
use super::records::id_page;
use super::results::{self, Results};
use super::{Waiting, blocking, links, refused, registering};
use crate::access::{Access, Permission, is_kept_out};
use crate::json::consents as form;
use crate::state::Web;

const KIND: &str = "Consent";

/// The header by which a program says why it asks.
const PURPOSE_HEADER: &str = "x-purpose-of-use";

/// Whoever asks, for the purpose that they name. What stands for a person's own request or an emergency at the bedside no
/// program can claim; people have the purpose of their role.
pub(crate) fn for_purpose(access: Access, headers: &HeaderMap) -> Result<Access, Refusal> {
    let Some(given) = headers.get(PURPOSE_HEADER) else { return Ok(access) };
    let claimable =
        [Purpose::Treatment, Purpose::Payment, Purpose::Operations, Purpose::Research, Purpose::PublicHealth];
    let named = given.to_str().ok().and_then(|code| Purpose::by_code(code.trim()));
    match named.filter(|purpose| access.person().is_none() && claimable.contains(purpose)) {
        Some(purpose) => Ok(access.with_purpose(purpose)),
        None => {
            let codes: Vec<&str> = claimable.iter().map(|purpose| purpose.code()).collect();
            let what =
                format!("{PURPOSE_HEADER} is taken from programs only, and one of {}", codes.join(", "));
            let issue = OutcomeIssue::error(IssueCode::Value, what, "http.header");
            Err(Refusal::bad_request(vec![issue]))
        }
    }
}

/// The consent in the path, where whoever asks may do that with it.
pub(crate) fn kept_of(web: &Web, call: &Call, permission: Permission) -> Option<Kept> {
    let kept = web.site.consents().get(call.id.parse().ok()?)?;
    call.sight(web).is_ok_and(|sight| sight.may(permission, kept.consent.patient)).then_some(kept)
}

fn known(web: &Web, call: &Call, permission: Permission, action: AuditAction) -> Result<Kept, Refusal> {
    match kept_of(web, call, permission) {
        Some(kept) => Ok(kept),
        None => {
            refused(web, call.act(action, KIND)?.detail(format!("{KIND}/{}", shown(&call.id))))?;
            Err(Refusal::not_found(KIND))
        }
    }
}

/// The resource as it is kept, with its version.
pub(crate) fn resource_of(web: &Web, id: ConsentId) -> Result<Option<Value>, ReadError> {
    let Some(document) = web.site.store().document(Kind::Consent, id.to_bytes())? else { return Ok(None) };
    let resource = json::parse(&document.body).map_err(|issue| {
        let how = issue.to_string();
        ReadError::Store(store::StoreError::Damaged { what: "document of a consent".to_owned(), how })
    })?;
    Ok(Some(with_version(resource, document.version, document.updated_at)))
}

/// `GET /fhir/Consent/{id}`
pub(crate) fn read(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let kept = known(web, call, Permission::ReadConsents, AuditAction::Read)?;
    let act = call.act(AuditAction::Read, KIND)?.detail(format!("{KIND}/{}", kept.consent.id));
    let found = call.chart(web, act.patient(kept.consent.patient), |_| resource_of(web, kept.consent.id))?;
    let resource = found.ok_or_else(|| Refusal::not_found(KIND))?;
    Ok(Answer::ok(resource).version(kept.version, kept.written_at))
}

/// `GET /fhir/Consent?…`
pub(crate) fn search(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let query = links::query_of(ResourceType::Consent, call, &call.params)?;
    let search =
        parse_consent_search(&results::without_zero_count(&query.filters)).map_err(Refusal::bad_request)?;
    let sight = call.sight(web)?;
    let dated = bounds(&search.date);
    let of_patients = links::allowed_by_chains(web, call, &query, &["patient"])?;
    let mut all = web.site.consents().all();
    all.retain(|kept| {
        let consent = &kept.consent;
        let is_dated = || {
            search.date.is_empty()
                || dated.is_some()
                    && consent.dated_at.is_some_and(|at| search.date.iter().all(|date| date.matches(at)))
        };
        search.ids.as_ref().is_none_or(|ids| ids.contains(&consent.id))
            && search.patients.as_ref().is_none_or(|patients| patients.contains(&consent.patient))
            && search.statuses.as_ref().is_none_or(|statuses| statuses.contains(&consent.status))
            && of_patients
                .as_ref()
                .is_none_or(|allowed| allowed.contains(&clinical_model::Subject::Patient(consent.patient)))
            && is_dated()
            && sight.may(Permission::ReadConsents, consent.patient)
    });
    let wanted = (results::count_of(search.count), search.cursor.as_deref());
    let page = id_page(web, call, KIND, all, |kept| kept.consent.id.to_bytes(), wanted)?;
    let mut patients: Vec<PatientId> = page.items.iter().map(|kept| kept.consent.patient).collect();
    patients.sort();
    patients.dedup();
    let acts = call.acts(AuditAction::Search, KIND, &call.query_text(web), &patients)?;
    let matches = call.chart_each(web, acts, |_| {
        let ids = page.items.iter().map(|kept| kept.consent.id);
        let shown = ids.map(|id| Ok(resource_of(web, id)?.map(|resource| (id.to_string(), resource))));
        shown.filter_map(Result::transpose).collect::<Result<Vec<_>, ReadError>>()
    })?;
    let total = Some(page.total);
    let (kind, included) = (ResourceType::Consent, Included::default());
    let found = Results { path: KIND, kind, matches, included, total, next_link: page.next };
    Ok(results::bundle(web, call, &query, found))
}

/// `POST /fhir/Consent`
pub(crate) fn create(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(async move { blocking(&web, move |web| created(web, &call)).await })
}

fn created(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    if call.header("if-none-exist").is_some() {
        let what = "a consent is not created conditionally: search for it first";
        return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, IssueCode::NotSupported, what));
    }
    let body = json::parse(&call.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
    let id = ConsentId::from_bytes(pipeline::new_id(web.site.clock().now()));
    let (consent, resource) = taken(web, call, &body, id)?;
    not_shutting_out(web, call, &consent)?;
    let version = put(web, call, consent, &resource, AuditAction::Create, Expected::Absent)?;
    let answer = answered(web, id, resource, version)?.status(StatusCode::CREATED);
    let place = format!("{}/{KIND}/{id}/_history/{version}", call.base);
    Ok(answer.header(header::LOCATION, &place))
}

/// `PUT /fhir/Consent/{id}`
pub(crate) fn update(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(async move { blocking(&web, move |web| updated(web, &call)).await })
}

fn updated(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let before = known(web, call, Permission::ManageConsents, AuditAction::Update)?;
    if is_kept_out(call.access()?, &before.consent) {
        let act = call.act(AuditAction::Update, KIND)?.patient(before.consent.patient);
        refused(web, act.detail(format!("{KIND}/{} keeps them out", before.consent.id)))?;
        return Err(Refusal::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, form::KEPT_OUT));
    }
    let body = json::parse(&call.body).map_err(|issue| Refusal::invalid(vec![issue]))?;
    super::update::same_id(&body, &call.id)?;
    if let Some(Expecting::Version(expected)) = if_match(call)?
        && expected != before.version
    {
        return Err(not_current(expected, before.version));
    }
    let id = before.consent.id;
    let (consent, resource) = taken(web, call, &body, id)?;
    if consent.patient != before.consent.patient {
        let what = "a consent stays that of its patient; write a new one for another";
        let issue = OutcomeIssue::error(IssueCode::BusinessRule, what, "Consent.patient");
        return Err(Refusal::invalid(vec![issue]));
    }
    not_shutting_out(web, call, &consent)?;
    let access = call.access()?;
    if access.person().is_some()
        && !form::is_themselves(access, consent.patient)
        && form::is_of_patient(&before)
    {
        let what = "what the patient said is changed by the patient, or in the web app with a reason";
        return Err(Refusal::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, what));
    }
    let expected = Expected::Version(before.version);
    let version = put(web, call, consent, &resource, AuditAction::Update, expected)?;
    answered(web, id, resource, version)
}

fn answered(web: &Web, id: ConsentId, resource: Value, version: u64) -> Result<Answer, Refusal> {
    let kept = web.site.consents().get(id).ok_or_else(Refusal::internal)?;
    Ok(Answer::ok(with_version(resource, version, kept.written_at)).version(version, kept.written_at))
}

/// What was sent, where it can be enforced and is about a patient of whoever sends it.
fn taken(web: &Web, call: &Call, body: &Value, id: ConsentId) -> Result<(Consent, Value), Refusal> {
    let resource = registering::with_id(body, &id.to_string());
    let consent = fhir::consent::parse(&resource).map_err(Refusal::invalid)?;
    if !call.sight(web)?.may(Permission::ManageConsents, consent.patient) {
        refused(web, call.act(AuditAction::Create, KIND)?.patient(consent.patient))?;
        // Somebody else's patient is answered like nobody's.
        let what = "there is no such patient, or it is not one of yours";
        let issue = OutcomeIssue::error(IssueCode::NotFound, what, "Consent.patient");
        return Err(Refusal::invalid(vec![issue]));
    }
    check(&consent).map_err(|error| {
        let issue = OutcomeIssue::error(IssueCode::TooCostly, error.to_string(), "Consent.provision");
        Refusal::invalid(vec![issue])
    })?;
    if consent.provision.as_ref().is_some_and(|provision| names_nobody(web, provision)) {
        let what = "a rule names somebody whom nobody knows here; it could not be enforced";
        let issue = OutcomeIssue::error(IssueCode::NotFound, what, "Consent.provision.actor");
        return Err(Refusal::invalid(vec![issue]));
    }
    Ok((consent, resource))
}

/// Refuses a rule of staff that shuts out who treats the patient: here nobody can prove themself again, nor say why.
fn not_shutting_out(web: &Web, call: &Call, consent: &Consent) -> Result<(), Refusal> {
    let access = call.access()?;
    let is_theirs = access.person().is_none() || form::is_themselves(access, consent.patient);
    if is_theirs || !form::shuts_out(web, consent) {
        return Ok(());
    }
    let what = "a rule that keeps those who treat the patient from seeing something is written by the patient, or in the \
                web app with a reason";
    Err(Refusal::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, what))
}

fn names_nobody(web: &Web, provision: &Provision) -> bool {
    provision.actors.iter().any(|actor| !form::is_known(web, actor))
        || provision.except.iter().any(|one| names_nobody(web, one))
}

fn put(
    web: &Web,
    call: &Call,
    consent: Consent,
    resource: &Value,
    action: AuditAction,
    expected: Expected,
) -> Result<u64, Refusal> {
    let detail = format!("{} {}: {}", consent.id, consent.status, form::says(web, &consent));
    let act = call.act(action, KIND)?.detail(detail);
    web.site.put_consent(act, consent, resource, expected).map_err(|error| match error {
        DeskError::Conflict { .. } => lost_race(),
        DeskError::NotFound { .. } => Refusal::not_found("patient"),
        DeskError::Taken { what } => {
            Refusal::invalid(vec![OutcomeIssue::error(IssueCode::BusinessRule, what, KIND)])
        }
        DeskError::Store(error) => error.into(),
        other => {
            tracing::error!(error = &other as &dyn std::error::Error, "a consent could not be kept");
            Refusal::internal()
        }
    })
}

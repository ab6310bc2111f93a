//! Consents as the web app shows and writes them: one rule in plain words, with its exceptions.

mod form;
mod keeping_out;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ::access::consent::check;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use clinical_model::place::PlaceKind;
use clinical_model::{
    Consent, ConsentAction, ConsentActor, ConsentId, ConsentStatus, DataClass, Measure, Patient, PatientId,
    PlaceId, Provision, Purpose, RecordId as _, Ruling, Timestamp, UserId,
};
use pipeline::audited::{Act, ReadError};
use pipeline::chart::Chart;
use pipeline::consents::{Kept, is_effective};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Actor, AuditAction, AuditQuery, Expected, Kind};

use self::form::{Rule, fits, named, provision, rule_of};
use super::views::{self, PatientLine};
use super::{Answer, Asked, Body, id_of};
use crate::access::{Access, Permission, Permit, is_kept_out, may};
use crate::people::{Role, User};
use crate::problem::{Code, Problem};
use crate::session::Current;
use crate::state::Web;

pub(crate) use form::{is_known, says};
pub(crate) use keeping_out::{KEPT_OUT, is_of_patient, is_themselves, shuts_out};

/// Rows of the audit log that are looked at for whom a patient knows.
const LOOKS_LIMIT: usize = 500;

/// A consent with what it says.
#[derive(Serialize)]
pub(crate) struct ConsentView {
    id: ConsentId,
    version: u64,
    patient_id: PatientId,
    status: ConsentStatus,
    /// Whether it says something now.
    is_effective: bool,
    written_at: Timestamp,
    written_by: Option<String>,
    /// What everything is that the rule does not touch; from a FHIR consent with `policyRule`.
    base: Option<Ruling>,
    rule: Option<Rule>,
    says: String,
    /// Whether the form can show all of it.
    is_simple: bool,
}

#[derive(Serialize)]
pub(crate) struct Consents {
    consents: Vec<ConsentView>,
    defaults: BTreeMap<Purpose, Ruling>,
}

#[derive(Serialize)]
struct Coded {
    code: &'static str,
    display: &'static str,
}

#[derive(Serialize)]
struct Class {
    code: DataClass,
    display: &'static str,
    measures: Vec<Measure>,
}

#[derive(Serialize)]
struct Person {
    id: UserId,
    display: String,
    role: Role,
}

#[derive(Serialize)]
struct Ward {
    id: PlaceId,
    name: String,
}

/// What a rule can name.
#[derive(Serialize)]
pub(crate) struct Choices {
    classes: Vec<Class>,
    purposes: Vec<Coded>,
    actions: Vec<Coded>,
    roles: Vec<Coded>,
    wards: Vec<Ward>,
    people: Vec<Person>,
    programs: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct ChoicesQuery {
    patient: Option<PatientId>,
    name: Option<String>,
}

pub(crate) async fn choices(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadConsents>,
    Asked(query): Asked<ChoicesQuery>,
) -> Answer<Choices> {
    web.blocking(move |web| {
        let act = access.act(AuditAction::Search, "consent choices");
        let named = query.name.as_deref().map(folded).filter(|name| !name.is_empty());
        let act = match &named {
            Some(name) => act.detail(format!("name={}", web.blinded(name))),
            None => act,
        };
        let is_staff = access.person().is_some_and(|user| user.role.is_staff());
        let known = access.read(web, act, |chart| match is_staff {
            true => Ok(None),
            false => known_to(web, &access, chart, query.patient).map(Some),
        })?;
        let is_offered = |user: &User| {
            let is_named = |name: &String| *name == folded(&user.display) || *name == folded(&user.name);
            known.as_ref().is_none_or(|known| known.contains(&user.id))
                || named.as_ref().is_some_and(is_named)
        };
        Ok(Json(choices_of(web, is_offered)))
    })
    .await?
}

/// A name as names are compared.
fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Whom a patient, or who cares for one, knows already: who looked at the record lately, and who stands in its rules. Not
/// all who work here: a list of names is none of a patient's business, and that of caregivers says who is ill.
fn known_to(
    web: &Web,
    access: &Access,
    chart: &Chart<'_>,
    patient: Option<PatientId>,
) -> Result<HashSet<UserId>, ReadError> {
    let own = access.person().and_then(|user| user.patient);
    let patient = own.or(patient.filter(|id| access.sight(web).may(Permission::ReadConsents, *id)));
    let Some(patient) = patient else { return Ok(HashSet::new()) };
    let query = AuditQuery { patient: Some(patient), limit: LOOKS_LIMIT, ..AuditQuery::default() };
    let looked = chart.audit_rows(&query)?.into_iter().filter_map(|row| match row.record.actor {
        Actor::User(user) => Some(user),
        _ => None,
    });
    let mut known: HashSet<UserId> = looked.collect();
    for kept in web.site.consents().of(patient) {
        kept.consent.provision.iter().for_each(|rule| persons_in(rule, &mut known));
    }
    Ok(known)
}

fn persons_in(rule: &Provision, found: &mut HashSet<UserId>) {
    found.extend(rule.actors.iter().filter_map(|actor| match actor {
        ConsentActor::Person(user) | ConsentActor::Caregiver(user) => Some(*user),
        _ => None,
    }));
    rule.except.iter().for_each(|one| persons_in(one, found));
}

fn choices_of(web: &Web, is_offered: impl Fn(&User) -> bool) -> Choices {
    let coded = |code, display| Coded { code, display };
    let class = |class: &DataClass| Class {
        code: *class,
        display: class.display(),
        measures: class.measures().collect(),
    };
    let people = web.people.list().into_iter().map(|kept| kept.record.user());
    let nameable = people.filter(|user| !user.disabled && user.role != Role::Patient && is_offered(user));
    let wards = web.site.registry().places().into_iter().filter(|place| place.kind == PlaceKind::Ward);
    Choices {
        classes: DataClass::ALL.iter().map(class).collect(),
        purposes: Purpose::ALL.iter().map(|one| coded(one.code(), one.display())).collect(),
        actions: ConsentAction::ALL.iter().map(|one| coded(one.code(), one.display())).collect(),
        roles: Role::ALL
            .iter()
            .filter(|role| **role != Role::Patient)
            .map(|role| coded(role.word(), named(*role)))
            .collect(),
        wards: wards.map(|place| Ward { id: place.id, name: place.name.clone() }).collect(),
        people: nameable.map(|user| Person { id: user.id, display: user.display, role: user.role }).collect(),
        programs: web.oauth.clients.list().iter().map(|client| client.record.name.clone()).collect(),
    }
}

/// The patient of a path, where what they allow may be read or written by whoever asks.
async fn of_patient(
    web: &Arc<Web>,
    access: &Access,
    permission: Permission,
    id: &str,
) -> Result<Arc<Patient>, Problem> {
    let patient = super::patients::theirs(web, access, id).await?;
    match access.sight(web).may(permission, patient.id) {
        true => Ok(patient),
        false => Err(Problem::not_found("patient")),
    }
}

pub(crate) async fn list(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadConsents>,
    Path(id): Path<String>,
) -> Answer<Consents> {
    let patient = of_patient(&web, &access, Permission::ReadConsents, &id).await?.id;
    web.blocking(move |web| {
        let act = access.act(AuditAction::Read, "Consent").patient(patient);
        access.read(web, act, |_| Ok(()))?;
        let consents = web.site.consents().of(patient).iter().map(|kept| view(web, kept)).collect();
        Ok(Json(Consents { consents, defaults: web.site.consents().defaults().all().collect() }))
    })
    .await?
}

pub(crate) async fn add(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageConsents>,
    Extension(current): Extension<Current>,
    Path(id): Path<String>,
    Body(rule): Body<Rule>,
) -> Answer<ConsentView> {
    let patient = of_patient(&web, &access, Permission::ManageConsents, &id).await?.id;
    web.blocking(move |web| {
        let now = web.site.clock().now().truncated_to_millis();
        let consent = Consent {
            id: ConsentId::from_bytes(pipeline::new_id(now)),
            patient,
            status: ConsentStatus::Active,
            dated_at: Some(now),
            base: None,
            provision: Some(provision(web, &rule, true)?),
        };
        let why = keeping_out::written(web, (&access, &current), (None, &consent), rule.reason.as_deref())?;
        put(web, &access, consent, (None, why), Expected::Absent)
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changed {
    version: u64,
    rule: Rule,
}

/// The consent of a path in the version that is to be changed, where it is of a patient whose consents may be written by
/// whoever asks. Others are not there. By that version it is judged, and no other is changed.
fn theirs(web: &Web, access: &Access, id: &str, version: u64) -> Result<Kept, Problem> {
    let id: ConsentId = id_of(id, "consent")?;
    let kept = web.site.consents().get(id);
    let may = |kept: &Kept| access.sight(web).may(Permission::ManageConsents, kept.consent.patient);
    let kept = kept.filter(may).ok_or_else(|| Problem::not_found("consent"))?;
    if kept.version != version {
        let what = format!("the consent is at version {} now; look at it again", kept.version);
        return Err(Problem::new(Code::ChangedBySomebodyElse, what));
    }
    Ok(kept)
}

pub(crate) async fn change(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageConsents>,
    Extension(current): Extension<Current>,
    Path(id): Path<String>,
    Body(changed): Body<Changed>,
) -> Answer<ConsentView> {
    web.blocking(move |web| {
        let before = theirs(web, &access, &id, changed.version)?;
        if is_kept_out(&access, &before.consent) {
            return Err(keeping_out::refused(web, &access, &before, KEPT_OUT)?);
        }
        is_open(&before)?;
        let provision = Some(provision(web, &changed.rule, true)?);
        let dated_at = Some(web.site.clock().now().truncated_to_millis());
        let consent = Consent { provision, dated_at, base: None, ..(*before.consent).clone() };
        let why = keeping_out::written(
            web,
            (&access, &current),
            (Some(&before), &consent),
            changed.rule.reason.as_deref(),
        )?;
        // What the patient said stays theirs, whoever writes it down anew.
        let performer = before.performer.as_deref().filter(|_| is_of_patient(&before));
        let resource = performer.map(|who| health_codecs::fhir::consent::render(&consent, Some(who)));
        put(web, &access, consent, (resource, why), Expected::Version(before.version))
    })
    .await?
}

fn is_open(kept: &Kept) -> Result<(), Problem> {
    match kept.consent.status {
        ConsentStatus::Inactive | ConsentStatus::Rejected | ConsentStatus::EnteredInError => {
            Err(Problem::new(Code::AlreadyAnswered, "the consent is over; write a new one"))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Withdrawn {
    version: u64,
    reason: Option<String>,
}

pub(crate) async fn withdraw(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageConsents>,
    Extension(current): Extension<Current>,
    Path(id): Path<String>,
    Body(withdrawn): Body<Withdrawn>,
) -> Answer<ConsentView> {
    web.blocking(move |web| {
        let before = theirs(web, &access, &id, withdrawn.version)?;
        let why = keeping_out::withdrawn(web, (&access, &current), &before, withdrawn.reason.as_deref())?;
        is_open(&before)?;
        // All that it said besides stays as it was sent.
        let kept = web.site.store().document(Kind::Consent, before.consent.id.to_bytes());
        let kept =
            kept.map_err(pipeline::desk::DeskError::Store)?.ok_or_else(|| Problem::not_found("consent"))?;
        let mut resource: Value = serde_json::from_slice(&kept.body).map_err(|_| Problem::internal())?;
        resource["status"] = ConsentStatus::Inactive.code().into();
        let consent = Consent { status: ConsentStatus::Inactive, ..(*before.consent).clone() };
        put(web, &access, consent, (Some(resource), why), Expected::Version(before.version))
    })
    .await?
}

fn put(
    web: &Web,
    access: &Access,
    consent: Consent,
    (resource, why): (Option<Value>, Option<String>),
    expected: Expected,
) -> Answer<ConsentView> {
    check(&consent).map_err(|error| Problem::bad_request(error.to_string()))?;
    let performer = access.person().map(|user| match user.patient {
        Some(patient) => format!("Patient/{patient}"),
        None => format!("Practitioner/{}", user.id),
    });
    let resource =
        resource.unwrap_or_else(|| health_codecs::fhir::consent::render(&consent, performer.as_deref()));
    let id = consent.id;
    let mut detail = format!("{id} {}: {}", consent.status, says(web, &consent));
    if let Some(why) = why {
        detail.push_str(&format!(" Because: {why}"));
    }
    let act = access.act(AuditAction::Consent, "Consent").detail(detail);
    web.site.put_consent(act, consent, &resource, expected)?;
    let kept = web.site.consents().get(id).ok_or_else(Problem::internal)?;
    Ok(Json(view(web, &kept)))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defaults {
    defaults: BTreeMap<Purpose, Ruling>,
}

pub(crate) async fn defaults(
    State(web): State<Arc<Web>>,
    _access: Permit<may::ReadConsents>,
) -> Answer<Defaults> {
    Ok(Json(Defaults { defaults: web.site.consents().defaults().all().collect() }))
}

pub(crate) async fn set_defaults(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageDefaults>,
    Body(set): Body<Defaults>,
) -> Answer<Defaults> {
    // Whoever treats a patient must be able to: a patient may deny it, a switch for all may not.
    for purpose in [Purpose::Treatment, Purpose::Emergency, Purpose::BreakGlass, Purpose::PatientRequest] {
        if set.defaults.get(&purpose) == Some(&Ruling::Deny) {
            let detail = format!("{purpose} cannot be denied for all patients at once");
            return Err(Problem::bad_request(detail));
        }
    }
    web.blocking(move |web| {
        let words: Vec<String> =
            set.defaults.iter().map(|(purpose, ruling)| format!("{purpose} {ruling}")).collect();
        let act = access.act(AuditAction::Consent, "Consent defaults").detail(words.join(", "));
        let defaults = web.site.set_consent_defaults(act, &set.defaults)?;
        Ok(Json(Defaults { defaults: defaults.all().collect() }))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct People {
    patients: Vec<PatientLine>,
}

/// The patients who named whoever asks as their caregiver, and a patient themself.
pub(crate) async fn my_people(State(web): State<Arc<Web>>, access: Permit<may::ReadChart>) -> Answer<People> {
    web.blocking(move |web| {
        let user = access.person();
        let named = user.map(|user| web.site.consents().named(user.id)).unwrap_or_default();
        let own = user.and_then(|user| user.patient);
        let sight = access.sight(web);
        let registry = web.site.registry();
        let mut patients: Vec<_> =
            own.into_iter().chain(named).filter_map(|id| registry.patient(id)).collect();
        patients.retain(|patient| sight.patient(patient));
        patients.sort_by(|a, b| (&a.family, &a.given, a.id).cmp(&(&b.family, &b.given, b.id)));
        patients.dedup_by_key(|patient| patient.id);
        let acts: Vec<Act> = match patients.is_empty() {
            true => vec![access.act(AuditAction::Search, "Patient")],
            false => patients
                .iter()
                .map(|one| access.act(AuditAction::Search, "Patient").patient(one.id))
                .collect(),
        };
        access.read_each(web, acts, |_| Ok(()))?;
        Ok(Json(People { patients: patients.iter().map(|one| views::patient_line(web, one)).collect() }))
    })
    .await?
}

fn view(web: &Web, kept: &Kept) -> ConsentView {
    let consent = &*kept.consent;
    let now = web.site.clock().now();
    let performer = kept.performer.as_deref().map(|target| match target.split_once('/') {
        Some(("Patient", _)) => "The patient".to_owned(),
        Some(("Practitioner", id)) => {
            let user = id.parse().ok().and_then(|id| web.people.by_id(id));
            user.map_or_else(|| "Somebody of the staff".to_owned(), |user| user.display)
        }
        _ => "Another system".to_owned(),
    });
    ConsentView {
        id: consent.id,
        version: kept.version,
        patient_id: consent.patient,
        status: consent.status,
        is_effective: is_effective(consent, now),
        written_at: kept.written_at,
        written_by: performer,
        base: consent.base,
        rule: consent.provision.as_ref().map(|provision| rule_of(web, provision)),
        says: says(web, consent),
        is_simple: consent.base.is_none()
            && consent.provision.as_ref().is_some_and(|rule| rule.depth() <= 2 && fits(rule)),
    }
}

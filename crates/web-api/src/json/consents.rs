//! Consents as the web app shows and writes them: one rule in plain words, with its exceptions.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::access::consent::check;
use axum::Json;
use axum::extract::{Path, State};
use clinical_model::place::PlaceKind;
use clinical_model::{
    Consent, ConsentAction, ConsentActor, ConsentId, ConsentStatus, DataClass, Measure, Patient, PatientId,
    PlaceId, Provision, Purpose, RecordId as _, Ruling, Timestamp, UserId,
};
use pipeline::audited::Act;
use pipeline::consents::{Kept, is_effective};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{AuditAction, Expected, Kind};

use super::views::{self, PatientLine};
use super::{Answer, Body, id_of};
use crate::access::{Access, Permission, Permit, may};
use crate::people::Role;
use crate::problem::{Code, Problem};
use crate::state::Web;

/// Names that one rule lists of a kind: people, classes, measures. More is no rule that anybody reads.
const LISTED_LIMIT: usize = 50;
/// Exceptions of one rule in the form.
const EXCEPTIONS_LIMIT: usize = 20;
/// Longest name of a care team or program, in characters.
const NAME_LIMIT_CHARS: usize = 100;

/// To whom a rule applies.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Who {
    kind: String,
    id: String,
    #[serde(default)]
    display: Option<String>,
}

/// One rule, as the form has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    decision: Ruling,
    #[serde(default)]
    who: Vec<Who>,
    #[serde(default)]
    actions: Vec<ConsentAction>,
    #[serde(default)]
    purposes: Vec<Purpose>,
    #[serde(default)]
    classes: Vec<DataClass>,
    #[serde(default)]
    measures: Vec<Measure>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(default)]
    except: Vec<Rule>,
}

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

pub(crate) async fn choices(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadConsents>,
) -> Answer<Choices> {
    web.blocking(move |web| {
        let act = access.act(AuditAction::Search, "consent choices");
        access.read(web, act, |_| Ok(()))?;
        Ok(Json(choices_of(web)))
    })
    .await?
}

fn choices_of(web: &Web) -> Choices {
    let coded = |code, display| Coded { code, display };
    let class = |class: &DataClass| Class {
        code: *class,
        display: class.display(),
        measures: class.measures().collect(),
    };
    let people = web.people.list().into_iter().map(|kept| kept.record.user());
    let nameable = people.filter(|user| !user.disabled && user.role != Role::Patient);
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

/// A role as a sentence names those who have it.
const fn named(role: Role) -> &'static str {
    match role {
        Role::Administrator => "Administrators",
        Role::Physician => "Physicians",
        Role::Nurse => "Nurses",
        Role::BiomedicalEngineer => "Biomedical engineers",
        Role::Auditor => "Auditors",
        Role::Patient => "Patients",
        Role::Caregiver => "Caregivers",
        Role::Integrator => "Integrators",
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
        put(web, &access, consent, None, Expected::Absent)
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changed {
    version: u64,
    rule: Rule,
}

/// The consent of a path, where it is of a patient whose consents may be written by whoever asks. Others are not there.
fn theirs(web: &Web, access: &Access, id: &str) -> Result<Kept, Problem> {
    let id: ConsentId = id_of(id, "consent")?;
    let kept = web.site.consents().get(id);
    let may = |kept: &Kept| access.sight(web).may(Permission::ManageConsents, kept.consent.patient);
    kept.filter(may).ok_or_else(|| Problem::not_found("consent"))
}

pub(crate) async fn change(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageConsents>,
    Path(id): Path<String>,
    Body(changed): Body<Changed>,
) -> Answer<ConsentView> {
    web.blocking(move |web| {
        let before = theirs(web, &access, &id)?;
        is_open(&before)?;
        let provision = Some(provision(web, &changed.rule, true)?);
        let dated_at = Some(web.site.clock().now().truncated_to_millis());
        let consent = Consent { provision, dated_at, base: None, ..(*before.consent).clone() };
        put(web, &access, consent, None, Expected::Version(changed.version))
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
}

pub(crate) async fn withdraw(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManageConsents>,
    Path(id): Path<String>,
    Body(withdrawn): Body<Withdrawn>,
) -> Answer<ConsentView> {
    web.blocking(move |web| {
        let before = theirs(web, &access, &id)?;
        is_open(&before)?;
        // All that it said besides stays as it was sent.
        let kept = web.site.store().document(Kind::Consent, before.consent.id.to_bytes());
        let kept =
            kept.map_err(pipeline::desk::DeskError::Store)?.ok_or_else(|| Problem::not_found("consent"))?;
        let mut resource: Value = serde_json::from_slice(&kept.body).map_err(|_| Problem::internal())?;
        resource["status"] = ConsentStatus::Inactive.code().into();
        let consent = Consent { status: ConsentStatus::Inactive, ..(*before.consent).clone() };
        put(web, &access, consent, Some(resource), Expected::Version(withdrawn.version))
    })
    .await?
}

fn put(
    web: &Web,
    access: &Access,
    consent: Consent,
    resource: Option<Value>,
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
    let detail = format!("{id} {}: {}", consent.status, says(web, &consent));
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

// --- From the form ---------------------------------------------------------------------------------------------

fn provision(web: &Web, rule: &Rule, is_outermost: bool) -> Result<Provision, Problem> {
    let too_many = [rule.who.len(), rule.classes.len(), rule.measures.len(), rule.purposes.len()]
        .into_iter()
        .any(|count| count > LISTED_LIMIT);
    if too_many {
        return Err(Problem::bad_request(format!("a rule lists at most {LISTED_LIMIT} of a kind")));
    }
    if !rule.classes.is_empty() && !rule.measures.is_empty() {
        return Err(Problem::bad_request("a rule names classes or measures, not both"));
    }
    if rule.from.zip(rule.until).is_some_and(|(from, until)| until <= from) {
        return Err(Problem::bad_request("the rule ends before it begins"));
    }
    if !is_outermost && !rule.except.is_empty() {
        return Err(Problem::bad_request("an exception has no exceptions in this form; write it as FHIR"));
    }
    if rule.except.len() > EXCEPTIONS_LIMIT {
        return Err(Problem::bad_request(format!("a rule has at most {EXCEPTIONS_LIMIT} exceptions")));
    }
    Ok(Provision {
        ruling: rule.decision,
        from: rule.from,
        until: rule.until,
        actors: rule.who.iter().map(|who| actor(web, who)).collect::<Result<_, _>>()?,
        actions: rule.actions.clone(),
        purposes: rule.purposes.clone(),
        classes: rule.classes.clone(),
        measures: rule.measures.clone(),
        except: rule.except.iter().map(|one| provision(web, one, false)).collect::<Result<_, _>>()?,
    })
}

/// Somebody whom nobody knows can neither be let in nor kept out: a slip of the pen would go unnoticed.
fn actor(web: &Web, who: &Who) -> Result<ConsentActor, Problem> {
    let actor = match who.kind.as_str() {
        "person" => who.id.parse().ok().map(ConsentActor::Person),
        "caregiver" => who.id.parse().ok().map(ConsentActor::Caregiver),
        "ward" => who.id.parse().ok().map(ConsentActor::Ward),
        "role" => Some(ConsentActor::Role(who.id.clone())),
        "care-team" => Some(ConsentActor::CareTeam(who.id.clone())),
        "program" => Some(ConsentActor::Program(who.id.clone())),
        _ => None,
    };
    actor.filter(|actor| is_known(web, actor)).ok_or_else(|| {
        Problem::bad_request("the rule names somebody whom nobody knows here: person, caregiver, role, ward, care-team or program")
    })
}

/// Whether somebody whom a rule names is there now.
pub(crate) fn is_known(web: &Web, actor: &ConsentActor) -> bool {
    let is_name = |name: &str| (1..=NAME_LIMIT_CHARS).contains(&name.trim().chars().count());
    match actor {
        ConsentActor::Person(user) => {
            web.people.by_id(*user).is_some_and(|user| user.role != Role::Caregiver)
        }
        ConsentActor::Caregiver(user) => {
            web.people.by_id(*user).is_some_and(|user| user.role == Role::Caregiver)
        }
        ConsentActor::Ward(ward) => {
            web.site.registry().place(*ward).is_some_and(|place| place.kind == PlaceKind::Ward)
        }
        ConsentActor::Role(role) => Role::by_word(role).is_some(),
        ConsentActor::Patient(patient) => web.site.registry().patient(*patient).is_some(),
        ConsentActor::CareTeam(name) | ConsentActor::Program(name) => is_name(name),
    }
}

// --- To the form -----------------------------------------------------------------------------------------------

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

/// Whether the form can show what a rule says of its data.
fn fits(rule: &Provision) -> bool {
    (rule.classes.is_empty() || rule.measures.is_empty()) && rule.except.iter().all(fits)
}

fn rule_of(web: &Web, provision: &Provision) -> Rule {
    Rule {
        decision: provision.ruling,
        who: provision.actors.iter().map(|actor| who_of(web, actor)).collect(),
        actions: provision.actions.clone(),
        purposes: provision.purposes.clone(),
        classes: provision.classes.clone(),
        measures: provision.measures.clone(),
        from: provision.from,
        until: provision.until,
        except: provision.except.iter().map(|one| rule_of(web, one)).collect(),
    }
}

fn who_of(web: &Web, actor: &ConsentActor) -> Who {
    let (kind, id) = match actor {
        ConsentActor::Person(id) => ("person", id.to_string()),
        ConsentActor::Caregiver(id) => ("caregiver", id.to_string()),
        ConsentActor::Ward(id) => ("ward", id.to_string()),
        ConsentActor::Patient(id) => ("patient", id.to_string()),
        ConsentActor::Role(name) => ("role", name.clone()),
        ConsentActor::CareTeam(name) => ("care-team", name.clone()),
        ConsentActor::Program(name) => ("program", name.clone()),
    };
    Who { kind: kind.to_owned(), id, display: Some(name_of(web, actor)) }
}

fn name_of(web: &Web, actor: &ConsentActor) -> String {
    match actor {
        ConsentActor::Person(id) | ConsentActor::Caregiver(id) => web
            .people
            .by_id(*id)
            .map_or_else(|| "somebody who is no longer here".to_owned(), |user| user.display),
        ConsentActor::Ward(id) => match web.site.registry().place(*id) {
            Some(place) => format!("the team of {}", place.name),
            None => "a ward that is no longer here".to_owned(),
        },
        ConsentActor::Role(word) => {
            Role::by_word(word).map_or_else(|| word.clone(), |role| named(role).to_owned())
        }
        ConsentActor::CareTeam(name) => format!("the care team {name}"),
        ConsentActor::Program(name) => format!("the program {name}"),
        ConsentActor::Patient(_) => "another patient".to_owned(),
    }
}

/// What a consent says, in a sentence.
pub(crate) fn says(web: &Web, consent: &Consent) -> String {
    let rest = match (consent.base, &consent.provision) {
        (Some(Ruling::Deny), _) => Some("Nobody may see anything else."),
        (Some(Ruling::Permit), None) => Some("Everybody may see everything."),
        _ => None,
    };
    let rule = consent.provision.as_ref().map(|provision| {
        let mut sentence = sentence(web, provision);
        for one in &provision.except {
            sentence.push_str("; except: ");
            sentence.push_str(&self::sentence(web, one));
        }
        format!("{sentence}.")
    });
    let parts: Vec<String> = rule.into_iter().chain(rest.map(str::to_owned)).collect();
    parts.join(" ")
}

fn sentence(web: &Web, rule: &Provision) -> String {
    let who = match rule.actors.is_empty() {
        true => "Everybody".to_owned(),
        false => listed(rule.actors.iter().map(|actor| name_of(web, actor))),
    };
    let may = match rule.ruling {
        Ruling::Permit => "may",
        Ruling::Deny => "may not",
    };
    let does = match rule.actions[..] {
        [ConsentAction::Disclose] => "pass on",
        _ => "see",
    };
    let what = match (rule.classes.is_empty(), rule.measures.is_empty()) {
        (true, true) if rule.ruling == Ruling::Deny => "anything".to_owned(),
        (true, true) => "everything".to_owned(),
        (_, false) => listed(rule.measures.iter().map(|one| one.display.to_lowercase())),
        (false, true) => listed(rule.classes.iter().map(|one| one.display().to_lowercase())),
    };
    let mut said = format!("{who} {may} {does} {what}");
    if !rule.purposes.is_empty() {
        let purposes = listed(rule.purposes.iter().map(|one| one.display().to_lowercase()));
        said.push_str(&format!(" for {purposes}"));
    }
    let day = |at: Timestamp| at.to_rfc3339().chars().take(10).collect::<String>();
    if let Some(from) = rule.from {
        said.push_str(&format!(" from {}", day(from)));
    }
    if let Some(until) = rule.until {
        said.push_str(&format!(" until {}", day(until.plus_micros(-1))));
    }
    said
}

/// `a`, `a and b`, `a, b and c`.
fn listed(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

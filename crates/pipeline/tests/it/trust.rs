//! Consents and broken glasses on a running site: what they allow, how long, who closes them, and what survives.

use std::collections::BTreeMap;
use std::sync::Arc;

use access::consent::{Asker, Wards};
use clinical_model::measure::{GLUCOSE, HEART_RATE};
use clinical_model::{
    Consent, ConsentAction, ConsentActor, ConsentId, ConsentStatus, DataClass, GlassId, PatientId, PlaceId,
    Private, Provision, Purpose, Ruling, UserId,
};
use pipeline::Site;
use pipeline::audited::Act;
use pipeline::break_glass::{Finding, GlassError, Listed, Reason, Request};
use pipeline::desk::DeskError;
use pipeline::live::{Happening, Since};
use store::{Actor, AuditAction, AuditOutcome, AuditQuery, Expected};

use crate::cluster::Cluster;
use crate::site::{NURSE, PATIENT, SetClock, WARD, eventually, furnish, heart_rate, open};

const PHYSICIAN: UserId = UserId::from_bytes([0x21; 16]);
const AUDITOR: UserId = UserId::from_bytes([0x22; 16]);
const CAREGIVER: UserId = UserId::from_bytes([0x23; 16]);
const OTHER_WARD: &[PlaceId] = &[PlaceId::from_bytes([0x24; 16])];
const CONSENT: ConsentId = ConsentId::from_bytes([0x25; 16]);

fn elsewhere() -> Asker<'static> {
    Asker { user: Some(PHYSICIAN), role: Some("physician"), wards: Wards::These(OTHER_WARD), ..Asker::NOBODY }
}

fn caring() -> Asker<'static> {
    Asker { user: Some(NURSE), role: Some("nurse"), wards: Wards::These(&[WARD]), ..Asker::NOBODY }
}

fn sees(site: &Site, asker: &Asker<'_>) -> access::consent::Allowed {
    site.consented(PATIENT, asker, Purpose::Treatment, ConsentAction::Access)
}

fn consent(provision: Provision) -> Consent {
    Consent {
        id: CONSENT,
        patient: PATIENT,
        status: ConsentStatus::Active,
        dated_at: None,
        base: None,
        provision: Some(provision),
    }
}

fn put(site: &Site, consent: Consent, expected: Expected) -> Result<u64, DeskError> {
    let resource = health_codecs::fhir::consent::render(&consent, None);
    site.put_consent(Act::new(Actor::System, AuditAction::Update, "Consent"), consent, &resource, expected)
}

fn request(number: &str, born: Option<&str>) -> Request {
    Request {
        record_number: Private::new(number.to_owned()),
        birth_date: born.map(|date| Private::new(date.to_owned())),
        reason: Reason::Emergency,
        text: Private::new("found unconscious in the corridor".to_owned()),
    }
}

fn asked(by: UserId) -> Act {
    Act::new(Actor::User(by), AuditAction::BreakGlass, "Break-glass")
}

fn found() -> Request {
    request("MRN-1", Some("1950-03-21"))
}

fn start(directory: &std::path::Path) -> (Arc<Site>, Arc<SetClock>) {
    let clock = SetClock::new();
    let site = open(directory, Arc::clone(&clock));
    furnish(&site);
    (site, clock)
}

fn broken(site: &Site) -> GlassId {
    site.break_glass(PHYSICIAN, &found(), &asked(PHYSICIAN), |_| false).unwrap().0.id
}

fn note() -> Private<String> {
    Private::new("looked at the record of the corridor".to_owned())
}

#[test]
fn a_consent_holds_from_the_next_question_on_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    assert!(sees(&site, &elsewhere()).is_all());
    let version = site.consents().version();
    let denied = Provision { classes: vec![DataClass::Glucose], ..Provision::of(Ruling::Deny) };
    assert_eq!(put(&site, consent(denied), Expected::Absent).unwrap(), 1);
    assert!(site.consents().version() > version);
    let seen = sees(&site, &elsewhere());
    assert!(!seen.measure(GLUCOSE) && seen.measure(HEART_RATE) && seen.record());
    site.stop();
    drop(site);
    let site = open(directory.path(), clock);
    assert!(!sees(&site, &elsewhere()).measure(GLUCOSE), "after a restart");
    let withdrawn = Consent { status: ConsentStatus::Inactive, ..consent(Provision::of(Ruling::Deny)) };
    assert!(matches!(put(&site, withdrawn.clone(), Expected::Version(7)), Err(DeskError::Conflict { .. })));
    assert_eq!(put(&site, withdrawn, Expected::Version(1)).unwrap(), 2);
    assert!(sees(&site, &elsewhere()).is_all(), "withdrawn");
    site.stop();
}

#[test]
fn who_cares_for_a_patient_always_knows_that_they_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let (site, _) = start(directory.path());
    put(&site, consent(Provision::of(Ruling::Deny)), Expected::Absent).unwrap();
    let seen = sees(&site, &caring());
    assert!(seen.record() && !seen.measure(HEART_RATE), "the alarms of the ward go on");
    assert!(site.cares_for(PATIENT, &caring()) && !site.cares_for(PATIENT, &elsewhere()));
    assert!(sees(&site, &elsewhere()).is_none());
    let auditor = Asker { role: Some("auditor"), wards: Wards::All, ..caring() };
    assert!(sees(&site, &auditor).is_none());
    let themselves = Asker { patient: Some(PATIENT), role: Some("patient"), ..Asker::NOBODY };
    assert!(sees(&site, &themselves).is_all());
    let another = Asker { patient: Some(PatientId::from_bytes([9; 16])), ..themselves };
    assert!(sees(&site, &another).is_none());
    site.stop();
}

#[test]
fn a_caregiver_is_found_by_the_consent_that_names_them() {
    let directory = tempfile::tempdir().unwrap();
    let (site, _) = start(directory.path());
    let named = Provision {
        actors: vec![ConsentActor::Caregiver(CAREGIVER)],
        classes: vec![DataClass::Record, DataClass::Glucose],
        ..Provision::of(Ruling::Permit)
    };
    put(&site, consent(named.clone()), Expected::Absent).unwrap();
    assert_eq!(site.consents().named(CAREGIVER), vec![PATIENT]);
    let caregiver = Asker { user: Some(CAREGIVER), role: Some("caregiver"), ..Asker::NOBODY };
    let seen = site.consented(PATIENT, &caregiver, Purpose::FamilyRequest, ConsentAction::Access);
    assert!(seen.record() && seen.measure(GLUCOSE) && !seen.measure(HEART_RATE));
    let stranger = Asker { user: Some(NURSE), ..caregiver };
    assert!(site.consented(PATIENT, &stranger, Purpose::FamilyRequest, ConsentAction::Access).is_none());
    put(&site, Consent { status: ConsentStatus::Inactive, ..consent(named) }, Expected::Version(1)).unwrap();
    assert_eq!(site.consents().named(CAREGIVER), Vec::new());
    assert!(site.consented(PATIENT, &caregiver, Purpose::FamilyRequest, ConsentAction::Access).is_none());
    site.stop();
}

#[test]
fn a_consent_stays_that_of_its_patient_and_needs_one() {
    let directory = tempfile::tempdir().unwrap();
    let (site, _) = start(directory.path());
    put(&site, consent(Provision::of(Ruling::Deny)), Expected::Absent).unwrap();
    let unknown = PatientId::from_bytes([0x66; 16]);
    let moved = Consent { patient: unknown, ..consent(Provision::of(Ruling::Permit)) };
    assert!(matches!(put(&site, moved, Expected::Version(1)), Err(DeskError::NotFound { .. })));
    let many = Provision { except: vec![Provision::of(Ruling::Deny); 10_000], ..Provision::of(Ruling::Deny) };
    let refused = put(&site, consent(many), Expected::Version(1)).unwrap_err().to_string();
    assert!(refused.contains("10001 provisions"), "{refused}");
    site.stop();
}

#[test]
fn defaults_are_the_sites_and_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    let research = |site: &Site| {
        site.consented(PATIENT, &elsewhere(), Purpose::Research, ConsentAction::Disclose).is_all()
    };
    assert!(!research(&site));
    let act = Act::new(Actor::System, AuditAction::Update, "Consent defaults");
    let set = BTreeMap::from([(Purpose::Research, Ruling::Permit)]);
    site.set_consent_defaults(act, &set).unwrap();
    assert!(research(&site));
    site.stop();
    drop(site);
    let site = open(directory.path(), clock);
    assert!(research(&site), "after a restart");
    site.stop();
}

#[test]
fn a_broken_glass_shows_one_patient_for_four_hours() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    put(&site, consent(Provision::of(Ruling::Deny)), Expected::Absent).unwrap();
    let glass = broken(&site);
    assert!(sees(&site, &elsewhere()).is_all());
    assert!(!sees(&site, &caring()).measure(HEART_RATE), "only for who broke it");
    let another = PatientId::from_bytes([9; 16]);
    assert!(site.broken_glass(PHYSICIAN, another).is_none(), "only for that patient");
    clock.advance(4 * 3_600 - 1);
    assert!(sees(&site, &elsewhere()).is_all());
    clock.advance(1);
    assert!(sees(&site, &elsewhere()).is_none() && site.standing_glasses(PHYSICIAN).is_empty());
    assert!(matches!(site.end_glass(PHYSICIAN, glass), Err(GlassError::Over)));
    site.stop();
}

#[test]
fn a_glass_that_was_broken_stands_after_a_restart_and_not_for_longer() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    broken(&site);
    site.stop();
    drop(site);
    clock.advance(3_600);
    let site = open(directory.path(), Arc::clone(&clock));
    assert!(site.broken_glass(PHYSICIAN, PATIENT).is_some());
    clock.advance(3 * 3_600);
    assert!(site.broken_glass(PHYSICIAN, PATIENT).is_none());
    site.stop();
}

#[test]
fn a_clock_that_steps_back_lets_no_glass_stand_for_longer() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    broken(&site);
    clock.advance(-60);
    assert!(site.broken_glass(PHYSICIAN, PATIENT).is_some(), "a small step is endured");
    clock.advance(-3_600);
    assert!(site.broken_glass(PHYSICIAN, PATIENT).is_none(), "a large one ends it");
    clock.advance(-365 * 86_400);
    assert!(site.broken_glass(PHYSICIAN, PATIENT).is_none());
    site.stop();
}

#[test]
fn nobody_is_found_by_browsing_and_tries_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    let tries = [
        request("MRN-1", None),
        request("MRN-1", Some("1950-03-22")),
        request("MRN-", Some("1950-03-21")),
        request("", Some("1950-03-21")),
        request("MRN-2", Some("1950-03-21")),
    ];
    for one in tries.iter().chain(&tries) {
        assert!(
            matches!(
                site.break_glass(PHYSICIAN, one, &asked(PHYSICIAN), |_| false),
                Err(GlassError::NoPatient)
            ),
            "{one:?}"
        );
    }
    assert!(matches!(
        site.break_glass(PHYSICIAN, &found(), &asked(PHYSICIAN), |_| false),
        Err(GlassError::TooManyTries)
    ));
    let other = UserId::from_bytes([0x31; 16]);
    assert!(site.break_glass(other, &found(), &asked(other), |_| false).is_ok(), "each for themselves");
    clock.advance(3_601);
    assert!(site.break_glass(PHYSICIAN, &found(), &asked(PHYSICIAN), |_| false).is_ok(), "an hour later");
    let act = Act::new(Actor::System, AuditAction::Read, "audit");
    let query = AuditQuery { actor: Some(Actor::User(PHYSICIAN)), limit: 50, ..AuditQuery::default() };
    let rows = site.read(act, |chart| chart.audit_rows(&query)).unwrap();
    let refused: Vec<_> = rows.iter().filter(|row| row.record.outcome == AuditOutcome::Refused).collect();
    assert_eq!(refused.len(), 11);
    assert!(refused.iter().all(|row| !row.record.detail.contains("MRN")));
    site.stop();
}

#[test]
fn a_reason_is_demanded_and_nothing_is_broken_without_need() {
    let directory = tempfile::tempdir().unwrap();
    let (site, _) = start(directory.path());
    for text in ["", "because", "         \n\t        ", &"x".repeat(1_001)] {
        let request = Request { text: Private::new(text.to_owned()), ..found() };
        let refused = site.break_glass(PHYSICIAN, &request, &asked(PHYSICIAN), |_| false);
        assert!(matches!(refused, Err(GlassError::Text { .. })), "{text:?}");
    }
    assert!(matches!(
        site.break_glass(PHYSICIAN, &found(), &asked(PHYSICIAN), |_| true),
        Err(GlassError::NotNeeded)
    ));
    broken(&site);
    assert!(
        matches!(
            site.break_glass(PHYSICIAN, &found(), &asked(PHYSICIAN), |_| false),
            Err(GlassError::NotNeeded)
        ),
        "twice"
    );
    site.stop();
}

#[test]
fn somebody_else_closes_it_with_a_finding() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    let id = broken(&site);
    assert_eq!(site.glasses_waiting(), (1, 0));
    let review =
        |by: UserId, version: u64| site.review_glass(by, id, version, Finding::NotJustified, &note());
    assert!(matches!(review(AUDITOR, 1), Err(GlassError::StillStands)));
    assert!(matches!(site.end_glass(NURSE, id), Err(GlassError::Desk(DeskError::NotFound { .. }))));
    let (ended, version) = site.end_glass(PHYSICIAN, id).unwrap();
    assert!(ended.ended_at.is_some() && site.broken_glass(PHYSICIAN, PATIENT).is_none());
    assert!(matches!(review(PHYSICIAN, version), Err(GlassError::Own)));
    assert!(matches!(review(AUDITOR, 1), Err(GlassError::Desk(DeskError::Conflict { .. }))));
    let no_note = Private::new("ok".to_owned());
    let short = site.review_glass(AUDITOR, id, version, Finding::Justified, &no_note);
    assert!(matches!(short, Err(GlassError::Text { .. })));
    let (closed, _) = review(AUDITOR, version).unwrap();
    assert_eq!(
        closed.review.as_ref().map(|review| (review.by, review.finding)),
        Some((AUDITOR, Finding::NotJustified))
    );
    assert!(matches!(review(NURSE, version + 1), Err(GlassError::Over)));
    assert_eq!(site.glasses_waiting(), (0, 0));
    assert!(site.list_glasses(Listed::Open, None, 10).unwrap().is_empty());
    assert_eq!(site.list_glasses(Listed::Closed, None, 10).unwrap().len(), 1);
    clock.advance(1);
    site.stop();
}

#[test]
fn what_nobody_reviews_in_three_days_is_said_once_more() {
    let directory = tempfile::tempdir().unwrap();
    let (site, clock) = start(directory.path());
    broken(&site);
    clock.advance(72 * 3_600 - 1);
    assert_eq!(site.glasses_waiting(), (1, 0));
    clock.advance(1);
    assert_eq!(site.glasses_waiting(), (1, 1));
    site.stop();
    drop(site);
    for _ in 0..2 {
        let site = open(directory.path(), Arc::clone(&clock));
        let (glass, version, _) = site.list_glasses(Listed::Open, None, 10).unwrap().pop().unwrap();
        assert_eq!((glass.escalated_at.is_some(), version), (true, 2), "once, whoever starts again");
        site.stop();
    }
}

fn states(site: &Site) -> Vec<&'static str> {
    let Since::Events(events) = site.live().since(0) else { return Vec::new() };
    let state = |happening: &Happening| match happening {
        Happening::BreakGlass { state, .. } => Some(state.code()),
        _ => None,
    };
    events.iter().filter_map(|event| state(&event.happening)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_allows_all_of_them_do() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    heart_rate(&one.site, 70).await;
    eventually("known", || two.site.registry().patient(PATIENT).is_some()).await;
    put(&one.site, consent(Provision::of(Ruling::Deny)), Expected::Absent).unwrap();
    eventually("denied on both", || sees(&two.site, &elsewhere()).is_none()).await;
    let id = two.site.break_glass(PHYSICIAN, &found(), &asked(PHYSICIAN), |_| false).unwrap().0.id;
    eventually("broken on both", || sees(&one.site, &elsewhere()).is_all()).await;
    one.site.end_glass(PHYSICIAN, id).unwrap();
    eventually("ended on both", || sees(&two.site, &elsewhere()).is_none()).await;
    two.site.review_glass(AUDITOR, id, 2, Finding::Justified, &note()).unwrap();
    eventually("closed on both", || one.site.glasses_waiting() == (0, 0)).await;
    for node in [&one, &two] {
        eventually("told", || states(&node.site).ends_with(&["reviewed"])).await;
    }
    let act = Act::new(Actor::System, AuditAction::Update, "Consent defaults");
    one.site.set_consent_defaults(act, &BTreeMap::from([(Purpose::Research, Ruling::Permit)])).unwrap();
    eventually("the defaults follow", || {
        two.site.consents().defaults().of(Purpose::Research) == Ruling::Permit
    })
    .await;
    one.site.stop();
    two.site.stop();
}

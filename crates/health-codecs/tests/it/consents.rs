//! Consents: read as they are meant, refused by the name of what cannot be enforced, and the same after a round trip.

use clinical_model::measure::{GLUCOSE, HEART_RATE, PULSE_RATE_CUFF};
use clinical_model::{
    Consent, ConsentAction, ConsentActor, ConsentId, ConsentStatus, DataClass, PatientId, PlaceId, Provision,
    Purpose, Ruling, Timestamp, UserId,
};
use health_codecs::fhir::{consent, validate};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::lines;

const SAMPLE: &str = r#"{
  "resourceType": "Consent",
  "id": "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11",
  "status": "active",
  "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
  "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
  "patient": {"reference": "Patient/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b12"},
  "dateTime": "2026-11-22T10:00:00Z",
  "policyRule": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "OPTIN"}]},
  "provision": {
    "type": "deny",
    "period": {"start": "2026-11-22", "end": "2026-12-24"},
    "actor": [{
      "role": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]},
      "reference": {"reference": "Practitioner/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b13"}
    }],
    "action": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentaction", "code": "access"}]}],
    "purpose": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "TREAT"}],
    "class": [{"system": "urn:auscult:data-class", "code": "vital-signs"}],
    "code": [{"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}],
    "provision": [{"type": "permit", "purpose": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "ETREAT"}]}]
  }
}"#;

fn sample() -> Value {
    serde_json::from_str(SAMPLE).expect("JSON")
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut resource = sample();
    change(&mut resource);
    let issues = consent::parse(&resource).expect_err("it must be refused");
    lines(&issues).join("\n")
}

#[test]
fn a_consent_is_read_as_it_is_meant() {
    let read = consent::parse(&sample()).map_err(|issues| lines(&issues)).expect("sound");
    assert_eq!((read.status, read.base), (ConsentStatus::Active, Some(Ruling::Permit)));
    let rule = read.provision.expect("a provision");
    assert_eq!(rule.ruling, Ruling::Deny);
    assert_eq!(rule.from.map(|at| at.to_string()), Some("2026-11-22T00:00:00Z".into()));
    assert_eq!(
        rule.until.map(|at| at.to_string()),
        Some("2026-12-25T00:00:00Z".into()),
        "the last day is inside"
    );
    assert_eq!(rule.actions, [ConsentAction::Access]);
    assert_eq!(rule.purposes, [Purpose::Treatment]);
    assert_eq!(rule.classes, [DataClass::VitalSigns]);
    assert!(rule.measures.contains(&HEART_RATE) && rule.measures.contains(&PULSE_RATE_CUFF));
    assert!(matches!(rule.actors[..], [ConsentActor::Person(_)]));
    assert_eq!(rule.except[0].ruling, Ruling::Permit);
}

#[test]
fn what_cannot_be_enforced_is_refused_by_its_name() {
    let label =
        json!([{ "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V" }]);
    assert!(
        refused(|it| it["provision"]["securityLabel"] = label).contains("Consent.provision.securityLabel")
    );
    let period = json!({ "start": "2020-01-01" });
    let nested = refused(|it| it["provision"]["provision"][0]["dataPeriod"] = period);
    assert!(nested.contains("Consent.provision.provision[0].dataPeriod"), "{nested}");
    let data = json!([{ "meaning": "instance", "reference": { "reference": "Observation/1" } }]);
    assert!(refused(|it| it["provision"]["data"] = data).contains("Consent.provision.data"));
    let action = "http://terminology.hl7.org/CodeSystem/consentaction";
    let collect = json!([{ "coding": [{ "system": action, "code": "collect" }] }]);
    assert!(refused(|it| it["provision"]["action"] = collect).contains("assignment is ended"));
    let purpose = json!([{ "system": "urn:elsewhere", "code": "TREAT" }]);
    assert!(refused(|it| it["provision"]["purpose"] = purpose).contains("Consent.provision.purpose[0]"));
    let code = json!([{ "coding": [{ "system": "http://loinc.org", "code": "718-7" }] }]);
    assert!(refused(|it| it["provision"]["code"] = code).contains("Consent.provision.code[0]"));
    let author = json!("AUT");
    let role = refused(|it| it["provision"]["actor"][0]["role"]["coding"][0]["code"] = author);
    assert!(role.contains("only recipients"), "{role}");
    assert!(refused(|it| it["scope"]["coding"][0]["code"] = json!("adr")).contains("Consent.scope"));
}

#[test]
fn a_consent_cannot_hide_who_saw_what() {
    let audit = json!([{ "system": "http://hl7.org/fhir/resource-types", "code": "AuditEvent" }]);
    assert!(refused(|it| it["provision"]["class"] = audit).contains("audit log"));
}

#[test]
fn a_rule_that_says_neither_permit_nor_deny_is_refused() {
    let remove = |pointer: &'static str| {
        move |it: &mut Value| drop(it.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove("type"))
    };
    assert!(refused(remove("/provision")).contains("Consent.provision.type"));
    assert!(refused(remove("/provision/provision/0")).contains("Consent.provision.provision[0].type"));
}

#[test]
fn an_unknown_element_or_a_modifier_refuses_the_whole() {
    assert!(refused(|it| it["provision"]["unless"] = json!("monday")).contains("unless"));
    let modifier = json!([{ "url": "urn:x", "valueBoolean": true }]);
    assert!(refused(|it| it["modifierExtension"] = modifier).contains("modifier"));
}

#[test]
fn a_consent_without_a_policy_breaks_its_invariant() {
    assert!(refused(|it| drop(it.as_object_mut().unwrap().remove("policyRule"))).contains("ppc-1"));
}

fn any_actor() -> impl Strategy<Value = ConsentActor> {
    let id = any::<[u8; 16]>();
    let name = "[a-z][a-z-]{0,20}";
    prop_oneof![
        id.prop_map(|id| ConsentActor::Person(UserId::from_bytes(id))),
        id.prop_map(|id| ConsentActor::Caregiver(UserId::from_bytes(id))),
        id.prop_map(|id| ConsentActor::Ward(PlaceId::from_bytes(id))),
        id.prop_map(|id| ConsentActor::Patient(PatientId::from_bytes(id))),
        name.prop_map(ConsentActor::Role),
        name.prop_map(ConsentActor::CareTeam),
        name.prop_map(ConsentActor::Program),
    ]
}

fn any_provision() -> impl Strategy<Value = Provision> {
    let leaf = (
        prop::sample::select(Ruling::ALL.to_vec()),
        (prop::option::of(0_i64..1 << 31), prop::option::of((1_i64 << 31)..1 << 32)),
        prop::collection::vec(any_actor(), 0..3),
        prop::sample::subsequence(ConsentAction::ALL.to_vec(), 0..2),
        prop::sample::subsequence(Purpose::ALL.to_vec(), 0..4),
        prop::sample::subsequence(DataClass::ALL.to_vec(), 0..4),
        prop::sample::subsequence(vec![HEART_RATE, GLUCOSE], 0..2),
    )
        .prop_map(|(ruling, (from, until), actors, actions, purposes, classes, measures)| Provision {
            from: from.map(Timestamp::from_seconds),
            until: until.map(Timestamp::from_seconds),
            actors,
            actions,
            purposes,
            classes,
            measures,
            ..Provision::of(ruling)
        });
    leaf.prop_recursive(3, 10, 3, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..3))
            .prop_map(|(outer, except)| Provision { except, ..outer })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_sound_and_read_back_the_same(
        provision in any_provision(),
        id in any::<[u8; 16]>(),
        base in prop::option::of(prop::sample::select(Ruling::ALL.to_vec())),
    ) {
        let given = Consent {
            id: ConsentId::from_bytes(id),
            patient: PatientId::from_bytes(id),
            status: ConsentStatus::Active,
            dated_at: Some(Timestamp::from_seconds(1_000)),
            base,
            provision: Some(provision),
        };
        let written = consent::render(&given, Some("Practitioner/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b13"));
        prop_assert_eq!(lines(&validate::resource(&written)), Vec::<String>::new());
        let read = consent::parse(&written).map_err(|issues| lines(&issues));
        prop_assert_eq!(read, Ok(given));
    }
}

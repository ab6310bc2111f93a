//! What the built-in policies decide, and what a mistake in a policy does.

use std::sync::Arc;

use access::rules::{BadPolicies, Source};
use access::{Asker, Circumstances, ConsentOutcome, Engine, Permission, Person, Principal, Resource, Role};
use clinical_model::{DeviceId, PatientId, PlaceId, UserId};

const WARD: PlaceId = PlaceId::from_bytes([1; 16]);
const OTHER_WARD: PlaceId = PlaceId::from_bytes([2; 16]);
const PATIENT: PatientId = PatientId::from_bytes([3; 16]);
const STRANGER: PatientId = PatientId::from_bytes([4; 16]);

fn person(role: Role) -> Person {
    let wards = matches!(role, Role::Nurse | Role::Physician).then(|| vec![WARD]);
    let patient = (role == Role::Patient).then_some(PATIENT);
    let cares_for = if role == Role::Caregiver { vec![PATIENT] } else { Vec::new() };
    Person { id: UserId::from_bytes([9; 16]), role, wards, care_teams: Vec::new(), patient, cares_for }
}

fn built_in() -> Arc<Engine> {
    Arc::new(Engine::built_in().unwrap())
}

fn asker(role: Role) -> Asker {
    Asker::new(built_in(), Principal::Person(person(role)))
}

fn here(id: PatientId) -> Resource {
    Resource::Patient { id, ward: Some(WARD) }
}

fn sees(asker: &Asker, resource: Resource, asked: Circumstances) -> bool {
    asker.decide(Permission::ReadChart, resource, asked).allowed
}

#[test]
fn clinicians_see_their_wards_and_nothing_else() {
    for role in [Role::Nurse, Role::Physician] {
        let asker = asker(role);
        assert!(sees(&asker, here(PATIENT), Circumstances::default()));
        let elsewhere = Resource::Patient { id: PATIENT, ward: Some(OTHER_WARD) };
        assert!(!sees(&asker, elsewhere, Circumstances::default()));
        assert!(!sees(&asker, Resource::Patient { id: PATIENT, ward: None }, Circumstances::default()));
        assert!(sees(&asker, Resource::Ward(WARD), Circumstances::default()));
        assert!(!sees(&asker, Resource::Ward(OTHER_WARD), Circumstances::default()));
    }
    let administrator = asker(Role::Administrator);
    assert!(sees(&administrator, Resource::Patient { id: PATIENT, ward: None }, Circumstances::default()));
}

#[test]
fn patients_see_themselves_even_where_all_wards_were_written_beside_their_name() {
    let patient = asker(Role::Patient);
    assert!(sees(&patient, here(PATIENT), Circumstances::default()));
    assert!(!sees(&patient, here(STRANGER), Circumstances::default()));
    assert!(!sees(&patient, Resource::Ward(WARD), Circumstances::default()));
    let mut careless = person(Role::Patient);
    careless.wards = Some(vec![WARD]);
    let careless = Asker::new(built_in(), Principal::Person(careless));
    assert!(!sees(&careless, here(STRANGER), Circumstances::default()));
    let caregiver = asker(Role::Caregiver);
    assert!(sees(&caregiver, here(PATIENT), Circumstances::default()));
    assert!(!sees(&caregiver, here(STRANGER), Circumstances::default()));
    let mut of_nobody = person(Role::Patient);
    of_nobody.patient = None;
    assert!(!sees(
        &Asker::new(built_in(), Principal::Person(of_nobody)),
        here(PATIENT),
        Circumstances::default()
    ));
}

#[test]
fn consent_and_scope_forbid_and_a_broken_glass_lifts_consent_and_ward_but_no_scope_and_no_role() {
    let nurse = asker(Role::Nurse);
    let denied = Circumstances { consent: ConsentOutcome::Deny, ..Circumstances::default() };
    assert!(!sees(&nurse, here(PATIENT), denied.clone()));
    let decision = nurse.decide(Permission::ReadChart, here(PATIENT), denied.clone());
    assert_eq!(decision.policies, ["core.consent"]);
    assert_eq!(decision.why(), "forbidden by core.consent");
    let broken = Circumstances { break_glass: true, ..denied };
    let elsewhere = Resource::Patient { id: PATIENT, ward: Some(OTHER_WARD) };
    assert!(sees(&nurse, elsewhere.clone(), broken.clone()));
    assert!(!sees(&nurse, elsewhere, Circumstances { within_scope: false, ..broken.clone() }));
    for role in [Role::Auditor, Role::Integrator, Role::BiomedicalEngineer] {
        assert!(!asker(role).may(Permission::ReadChart), "{role:?}");
    }
    for principal in
        [Principal::Device(DeviceId::from_bytes([5; 16])), Principal::Gateway { name: "g".into() }]
    {
        let device = Asker::new(built_in(), principal);
        assert!(device.may(Permission::SendMeasurements));
        assert!(!device.may(Permission::ReadChart));
        assert!(!sees(&device, here(PATIENT), broken.clone()));
    }
}

#[test]
fn a_policy_that_cannot_be_evaluated_denies_although_the_engine_would_leave_it_out() {
    // Overflows where it is evaluated: strict validation cannot foresee it.
    let text = r#"@id("site.overflow") forbid (principal, action == Action::"read-chart", resource)
        when { context.mfaAgeS + 9223372036854775807 > 5 };"#;
    let text = text.replace("context.mfaAgeS", "(if context has mfaAgeS then context.mfaAgeS else 0)");
    let engine = Arc::new(Engine::with(&[Source::new("own.cedar", text)]).unwrap());
    let nurse = Asker::new(engine, Principal::Person(person(Role::Nurse)));
    assert!(nurse.may(Permission::ReadDevices));
    let asked = Circumstances { mfa_age_s: Some(60), ..Circumstances::default() };
    let decision = nurse.decide(Permission::ReadChart, here(PATIENT), asked);
    assert!(!decision.allowed && decision.errors.len() == 1, "{decision:?}");
    assert!(decision.why().starts_with("denied: "), "{}", decision.why());
}

#[test]
fn a_forbid_of_the_site_wins_and_may_name_one_patient() {
    let text = r#"@id("site.vip") forbid (principal in Role::"nurse", action == Action::"read-chart",
        resource == Patient::"04040404-0404-0404-0404-040404040404");"#;
    let engine = Arc::new(Engine::with(&[Source::new("own.cedar", text)]).unwrap());
    let nurse = Asker::new(engine, Principal::Person(person(Role::Nurse)));
    assert!(sees(&nurse, here(PATIENT), Circumstances::default()));
    assert!(!sees(&nurse, here(STRANGER), Circumstances::default()));
    assert!(sees(&nurse, here(PATIENT), Circumstances::default()));
}

#[test]
fn a_name_where_an_id_should_stand_is_a_mistake_with_its_place() {
    let wrong =
        [r#"Ward::"ward 1""#, r#"Patient::"MRN-1""#, r#"Ward::"0191F3C2-7F3E-7C1E-9D53-0D6A3F0B2C11""#];
    for literal in wrong {
        let text = format!(
            "@id(\"site.closed\")\nforbid (principal, action == Action::\"read-chart\", resource)\n\
             when {{ resource in {literal} }};\n"
        );
        let BadPolicies(mistakes) = Engine::with(&[Source::new("own.cedar", text)]).unwrap_err();
        let [mistake] = &mistakes[..] else { panic!("{mistakes:?}") };
        let shown = mistake.to_string();
        assert!(shown.starts_with(&format!("own.cedar:3:20: {literal} is no id")), "{shown}");
    }
    let text =
        "@id(\"x\") forbid (principal in Role::\"nurze\", action == Action::\"read-chart\", resource);";
    let shown = Engine::with(&[Source::new("own.cedar", text)]).unwrap_err().to_string();
    assert!(shown.starts_with("own.cedar:1:31: Role::\"nurze\" is no role"), "{shown}");
    assert!(shown.contains("nurse") && shown.contains("gateway"), "{shown}");
    let right = r#"@id("x") forbid (principal, action == Action::"read-chart", resource in
        Ward::"0191f3c2-7f3e-7c1e-9d53-0d6a3f0b2c11");"#;
    Engine::with(&[Source::new("own.cedar", right)]).unwrap();
}

#[test]
fn one_mistake_is_named_once_and_always_in_the_same_order() {
    let text = r#"@id("one") forbid (principal, action == Action::"read-chart", resource)
        when { principal.shoeSize > 5 };
        @id("two") forbid (principal, action == Action::"read-chart", resource) when { context.weather == "rain" };"#;
    let said = || Engine::with(&[Source::new("own.cedar", text)]).unwrap_err().to_string();
    let first = said();
    assert_eq!(first.lines().count(), 2, "{first}");
    assert!(first.lines().next().unwrap().starts_with("own.cedar:"), "{first}");
    for _ in 0..10 {
        assert_eq!(said(), first);
    }
}

#[test]
fn a_case_with_a_wrong_word_is_told_the_right_ones() {
    let said = |role: &str, action: &str, more: &str| {
        let text = format!(
            "[[case]]\nname = \"x\"\nwho = {{role = \"{role}\"}}\naction = \"{action}\"\nallow = true\n{more}"
        );
        let cases: access::cases::Cases = toml::from_str(&text).unwrap();
        cases.cases[0].decide(&built_in()).unwrap_err().to_string()
    };
    let action = said("nurse", "red-chart", "");
    assert!(action.starts_with("there is no action \"red-chart\"; there are: "), "{action}");
    assert!(action.contains(" read-chart,"), "{action}");
    let role = said("nurses", "read-chart", "");
    assert!(
        role.starts_with("there is no role \"nurses\"; there are: ") && role.contains("physician"),
        "{role}"
    );
    let class = said("nurse", "read-chart", "data_class = \"waves\"\n");
    assert!(class.contains("there are: ") && class.contains("device"), "{class}");
}

#[test]
fn many_patients_of_one_ward_cost_one_evaluation() {
    let engine = built_in();
    let nurse = Asker::new(Arc::clone(&engine), Principal::Person(person(Role::Nurse)));
    for number in 0..1_000_u16 {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        assert!(sees(&nurse, here(PatientId::from_bytes(id)), Circumstances::default()));
    }
    assert_eq!(engine.evaluated(), 1);
}

#[test]
fn mistakes_are_named_with_file_line_and_column() {
    let mistakes = |name: &str, text: &str| {
        let error = Engine::with(&[Source::new(name, text)]).unwrap_err();
        error.0.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let cases = [
        (
            "own.cedar",
            "permit (principal, action, resource)\nwhen { principal.colour == 3 };",
            "own.cedar:1:1: the policy has no @id",
        ),
        (
            "own.cedar",
            "// mine\n@id(\"x\")\npermit (principal is User, action, resource)\nwhen { principal.colour == 3 };",
            "own.cedar:4:8: ",
        ),
        ("own.cedar", "@id(\"x\")\npermit (principal, action == Action::\"fly\", resource);", "own.cedar:2:"),
        ("own.cedar", "@id(\"x\") permit (principal, action, resource) whenever;", "own.cedar:1:"),
        (
            "own.cedar",
            "@id(\"core.scope\") permit (principal, action, resource);",
            "own.cedar:1:1: there are two policies",
        ),
        ("core.cedar", "", "core.cedar:1:1: the rules of the house cannot be replaced"),
        (
            "own.cedar",
            "@id(\"t\") permit (principal == ?principal, action, resource);",
            "own.cedar:1:1: templates",
        ),
    ];
    for (name, text, wanted) in cases {
        let found = mistakes(name, text);
        assert!(found.iter().any(|found| found.starts_with(wanted)), "{text}: {found:?}");
    }
}

#[test]
fn a_site_replaces_the_roles_and_keeps_the_core() {
    let text = r#"@id("all") permit (principal, action, resource);"#;
    let engine = Arc::new(Engine::with(&[Source::new("roles.cedar", text)]).unwrap());
    let patient = Asker::new(engine, Principal::Person(person(Role::Patient)));
    assert!(patient.may(Permission::ManageKeys), "the site said so");
    assert!(
        !sees(&patient, here(STRANGER), Circumstances::default()),
        "and still nobody sees another patient"
    );
}

#[test]
fn the_shipped_cases_are_decided_as_written() {
    let cases: access::cases::Cases = toml::from_str(access::rules::CASES).unwrap();
    let engine = built_in();
    assert!(cases.cases.len() >= 30);
    for case in &cases.cases {
        let decision = case.decide(&engine).unwrap();
        assert_eq!(decision.allowed, case.allow, "{}: {}", case.name, decision.why());
    }
}

/// `docs/reference/roles.md` is what the policies decide; `cargo run -p server -- policy table` writes the table anew.
#[test]
fn the_table_in_the_book_is_what_the_policies_decide() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/roles.md"));
    let page = page.unwrap();
    let (_, table) = page.split_once("<!-- table -->\n").unwrap();
    assert_eq!(table, access::table::markdown(&built_in()));
}

#[test]
fn the_schema_names_every_action_and_no_other() {
    let schema = access::rules::SCHEMA;
    let named: Vec<&str> = schema
        .lines()
        .filter_map(|line| line.strip_prefix("action \"")?.split_once('"').map(|(name, _)| name))
        .filter(|name| *name != "of-a-patient")
        .collect();
    let known = Permission::ALL.iter().filter(|one| **one != Permission::Open).map(|one| one.word());
    assert_eq!(named, known.collect::<Vec<_>>());
}

//! The laws of consent: denial wins beside, exceptions win within, order does not matter.

use clinical_model::measure::{BLOOD_PRESSURE, DIASTOLIC, ECG_II, GLUCOSE, HEART_RATE, SYSTOLIC};
use clinical_model::{Consent, ConsentActor, ConsentId, ConsentStatus, Provision};
use proptest::prelude::*;

use super::*;

const PATIENT: PatientId = PatientId::from_bytes([1; 16]);
const NURSE: UserId = UserId::from_bytes([2; 16]);
const OTHER: UserId = UserId::from_bytes([3; 16]);
const WARD: PlaceId = PlaceId::from_bytes([4; 16]);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn consent(id: u8, provision: Provision) -> Consent {
    Consent {
        id: ConsentId::from_bytes([id; 16]),
        patient: PATIENT,
        status: ConsentStatus::Active,
        dated_at: None,
        base: None,
        provision: Some(provision),
    }
}

fn treating() -> Use {
    Use { purpose: Purpose::Treatment, action: ConsentAction::Access, at: at(1_000) }
}

fn nurse() -> Asker<'static> {
    Asker { user: Some(NURSE), role: Some("nurse"), wards: Wards::These(&[WARD]), ..Asker::NOBODY }
}

fn allowed(consents: &[Consent], asker: &Asker<'_>, using: Use) -> Allowed {
    let ruled = Table::compile(consents).unwrap().rule(asker, using);
    Allowed::of(ruled, Defaults::default().of(using.purpose))
}

fn permit() -> Provision {
    Provision::of(Ruling::Permit)
}

fn deny() -> Provision {
    Provision::of(Ruling::Deny)
}

#[test]
fn without_a_consent_the_site_decides_by_purpose() {
    assert!(allowed(&[], &nurse(), treating()).is_all());
    assert!(allowed(&[], &nurse(), Use { purpose: Purpose::Research, ..treating() }).is_none());
    let opened = Defaults::with([(Purpose::Research, Ruling::Permit)]);
    assert_eq!(opened.of(Purpose::Research), Ruling::Permit);
    assert_eq!(opened.of(Purpose::FamilyRequest), Ruling::Deny);
}

#[test]
fn a_class_is_denied_and_nothing_else() {
    let denied = [consent(1, Provision { classes: vec![DataClass::Glucose], ..deny() })];
    let seen = allowed(&denied, &nurse(), treating());
    assert!(!seen.measure(GLUCOSE) && !seen.class(DataClass::Glucose));
    assert!(seen.measure(HEART_RATE) && seen.measure(ECG_II) && seen.record() && !seen.is_all());
}

#[test]
fn a_panel_is_shown_whole_or_not_at_all() {
    for measure in [SYSTOLIC, BLOOD_PRESSURE] {
        let denied = [consent(1, Provision { measures: vec![measure], ..deny() })];
        let seen = allowed(&denied, &nurse(), treating());
        assert!(!seen.measure(SYSTOLIC) && !seen.measure(DIASTOLIC) && !seen.measure(BLOOD_PRESSURE));
        assert!(seen.measure(HEART_RATE));
    }
    let research = Use { purpose: Purpose::Research, ..treating() };
    let one = [consent(1, Provision { measures: vec![SYSTOLIC], ..permit() })];
    let seen = allowed(&one, &nurse(), research);
    assert!(!seen.measure(SYSTOLIC) && !seen.measure(DIASTOLIC) && !seen.measure(BLOOD_PRESSURE));
    let whole = [consent(1, Provision { measures: vec![BLOOD_PRESSURE], ..permit() })];
    let seen = allowed(&whole, &nurse(), research);
    assert!(seen.measure(SYSTOLIC) && seen.measure(BLOOD_PRESSURE) && !seen.measure(HEART_RATE));
}

#[test]
fn an_exception_says_the_last_word_within_its_rule() {
    let but_the_nurse = Provision { actors: vec![ConsentActor::Person(NURSE)], ..permit() };
    let denied = [consent(1, Provision { except: vec![but_the_nurse], ..deny() })];
    assert!(allowed(&denied, &nurse(), treating()).is_all());
    let other = Asker { user: Some(OTHER), ..nurse() };
    assert!(allowed(&denied, &other, treating()).is_none());
}

#[test]
fn an_exception_does_not_reach_beyond_its_rule() {
    let everything = permit();
    let glucose = Provision { classes: vec![DataClass::Glucose], except: vec![everything], ..deny() };
    let all_denied = consent(2, deny());
    assert!(allowed(&[consent(1, glucose.clone())], &nurse(), treating()).is_all());
    assert!(allowed(&[consent(1, glucose), all_denied], &nurse(), treating()).is_none());
}

#[test]
fn contradicting_exceptions_deny() {
    let yes = Provision { actors: vec![ConsentActor::Role("nurse".into())], ..permit() };
    let no = Provision { actors: vec![ConsentActor::Ward(WARD)], ..deny() };
    let both = [consent(1, Provision { except: vec![yes, no], ..permit() })];
    assert!(allowed(&both, &nurse(), treating()).is_none());
}

#[test]
fn a_rule_holds_from_its_beginning_until_its_end() {
    let limited = [consent(1, Provision { from: Some(at(10)), until: Some(at(20)), ..deny() })];
    let seen_at = |seconds| allowed(&limited, &nurse(), Use { at: at(seconds), ..treating() }).is_all();
    assert!(seen_at(9) && !seen_at(10) && !seen_at(19) && seen_at(20));
}

#[test]
fn a_rule_that_ends_before_it_begins_is_refused() {
    let odd = consent(1, Provision { from: Some(at(20)), until: Some(at(20)), ..deny() });
    assert_eq!(Table::compile([&odd]), Err(CompileError::Period));
}

#[test]
fn purposes_and_programs_are_told_apart() {
    let research = Provision {
        purposes: vec![Purpose::Research],
        actors: vec![ConsentActor::Program("study".into())],
        classes: vec![DataClass::VitalSigns],
        ..permit()
    };
    let consents = [consent(1, research)];
    let study = Asker { program: Some("study"), wards: Wards::All, ..Asker::NOBODY };
    let using = Use { purpose: Purpose::Research, action: ConsentAction::Disclose, at: at(0) };
    let seen = allowed(&consents, &study, using);
    assert!(seen.measure(HEART_RATE) && !seen.measure(GLUCOSE) && !seen.record());
    assert!(allowed(&consents, &Asker { program: Some("other"), ..study }, using).is_none());
}

#[test]
fn what_may_not_be_seen_does_not_leave_and_what_may_not_leave_can_be_seen() {
    let leaving = Use { action: ConsentAction::Disclose, ..treating() };
    let unseen = [consent(1, Provision { actions: vec![ConsentAction::Access], ..deny() })];
    assert!(allowed(&unseen, &nurse(), treating()).is_none());
    assert!(allowed(&unseen, &nurse(), leaving).is_none());
    let kept = [consent(1, Provision { actions: vec![ConsentAction::Disclose], ..deny() })];
    assert!(allowed(&kept, &nurse(), treating()).is_all());
    assert!(allowed(&kept, &nurse(), leaving).is_none());
}

#[test]
fn an_opt_out_is_what_its_provision_does_not_lift() {
    let own_ward = Provision { actors: vec![ConsentActor::Ward(WARD)], ..permit() };
    let out = [Consent { base: Some(Ruling::Deny), ..consent(1, own_ward) }];
    assert!(allowed(&out, &nurse(), treating()).is_all());
    let elsewhere = Asker { wards: Wards::These(&[]), ..nurse() };
    assert!(allowed(&out, &elsewhere, treating()).is_none());
    let into = [Consent { base: Some(Ruling::Permit), provision: None, ..consent(1, deny()) }];
    assert!(allowed(&into, &elsewhere, Use { purpose: Purpose::Research, ..treating() }).is_all());
}

#[test]
fn a_program_belongs_to_no_ward() {
    let own_ward = [consent(1, Provision { actors: vec![ConsentActor::Ward(WARD)], ..permit() })];
    let program = Asker { program: Some("study"), wards: Wards::All, ..Asker::NOBODY };
    assert!(allowed(&own_ward, &program, Use { purpose: Purpose::Research, ..treating() }).is_none());
}

#[test]
fn only_active_consents_speak() {
    for status in ConsentStatus::ALL.iter().filter(|status| **status != ConsentStatus::Active) {
        let silent = [Consent { status: *status, ..consent(1, deny()) }];
        assert!(allowed(&silent, &nurse(), treating()).is_all(), "{status}");
    }
}

#[test]
fn ten_thousand_provisions_are_refused_by_their_number() {
    let many = Provision { except: vec![deny(); 10_000], ..permit() };
    assert_eq!(Table::compile([&consent(1, many)]), Err(CompileError::Provisions { count: 10_001 }));
    let deep = (0..LEVELS_LIMIT).fold(deny(), |inner, _| Provision { except: vec![inner], ..permit() });
    assert_eq!(Table::compile([&consent(1, deep)]), Err(CompileError::Levels { levels: LEVELS_LIMIT + 1 }));
    let consents: Vec<Consent> = (0..=table::CONSENTS_LIMIT).map(|_| consent(1, deny())).collect();
    let count = consents.len();
    assert_eq!(Table::compile(&consents), Err(CompileError::Consents { count }));
}

#[test]
fn caregivers_are_found_however_deep() {
    let inner = Provision { actors: vec![ConsentActor::Caregiver(OTHER)], ..permit() };
    let table = Table::compile([&consent(1, Provision { except: vec![inner], ..deny() })]).unwrap();
    assert_eq!(table.caregivers(), vec![OTHER]);
}

fn any_actor() -> impl Strategy<Value = ConsentActor> {
    prop_oneof![
        Just(ConsentActor::Person(NURSE)),
        Just(ConsentActor::Person(OTHER)),
        Just(ConsentActor::Role("nurse".into())),
        Just(ConsentActor::Ward(WARD)),
        Just(ConsentActor::Program("study".into())),
    ]
}

fn any_provision() -> impl Strategy<Value = Provision> {
    let leaf = (
        prop_oneof![Just(Ruling::Permit), Just(Ruling::Deny)],
        prop::collection::vec(any_actor(), 0..3),
        prop::sample::subsequence(Purpose::ALL.to_vec(), 0..4),
        prop::sample::subsequence(DataClass::ALL.to_vec(), 0..4),
        prop::option::of(0i64..2_000),
        prop::option::of(2_000i64..4_000),
    )
        .prop_map(|(ruling, actors, purposes, classes, from, until)| Provision {
            actors,
            purposes,
            classes,
            from: from.map(at),
            until: until.map(at),
            ..Provision::of(ruling)
        });
    leaf.prop_recursive(3, 12, 3, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..3))
            .prop_map(|(outer, except)| Provision { except, ..outer })
            .prop_filter("bounded", |provision| provision.depth() <= LEVELS_LIMIT)
    })
}

fn any_consents() -> impl Strategy<Value = Vec<Consent>> {
    prop::collection::vec((any_provision(), prop::option::of(Just(Ruling::Deny))), 0..5).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered.map(|(id, (provision, base))| Consent { base, ..consent(id as u8, provision) }).collect()
    })
}

fn any_use() -> impl Strategy<Value = Use> {
    let purpose = prop::sample::select(Purpose::ALL.to_vec());
    let action = prop::sample::select(ConsentAction::ALL.to_vec());
    (purpose, action, 0i64..5_000).prop_map(|(purpose, action, now)| Use { purpose, action, at: at(now) })
}

/// What a plain reading of the rules says about one item; written apart from the table.
fn plainly(provision: &Provision, asker: &Asker<'_>, using: Use, class: DataClass) -> Option<Ruling> {
    let named = |actor: &ConsentActor| match actor {
        ConsentActor::Person(user) => asker.user == Some(*user),
        ConsentActor::Role(role) => asker.role == Some(role),
        ConsentActor::Ward(ward) => asker.wards.contains(*ward),
        ConsentActor::Program(name) => asker.program == Some(name),
        _ => false,
    };
    let concerns = (provision.actors.is_empty() || provision.actors.iter().any(named))
        && (provision.purposes.is_empty() || provision.purposes.contains(&using.purpose))
        && (provision.classes.is_empty() || provision.classes.contains(&class))
        && provision.holds_at(using.at);
    if !concerns {
        return None;
    }
    let inner: Vec<Ruling> =
        provision.except.iter().filter_map(|one| plainly(one, asker, using, class)).collect();
    Some(worst(&inner).unwrap_or(provision.ruling))
}

fn worst(all: &[Ruling]) -> Option<Ruling> {
    match all.contains(&Ruling::Deny) {
        true => Some(Ruling::Deny),
        false => all.first().copied(),
    }
}

proptest! {
    #[test]
    fn the_table_says_what_the_rules_say(consents in any_consents(), using in any_use()) {
        let asker = nurse();
        let table = Table::compile(&consents).unwrap();
        let ruled = table.rule(&asker, using);
        for class in DataClass::ALL {
            let each = consents.iter().filter_map(|consent| {
                let said = plainly(consent.provision.as_ref().unwrap(), &asker, using, *class);
                said.or(consent.base)
            });
            let expected = worst(&each.collect::<Vec<_>>());
            let items = Items::of_class(*class);
            prop_assert_eq!(ruled.denied.meets(items), expected == Some(Ruling::Deny));
            prop_assert_eq!(ruled.permitted.meets(items), expected == Some(Ruling::Permit));
        }
        prop_assert!(!ruled.permitted.meets(ruled.denied));
    }

    #[test]
    fn the_order_does_not_matter(consents in any_consents(), using in any_use()) {
        let mut turned = consents.clone();
        turned.reverse();
        for consent in &mut turned {
            if let Some(provision) = &mut consent.provision {
                provision.except.reverse();
                provision.actors.reverse();
                provision.classes.reverse();
            }
        }
        let (one, other) = (Table::compile(&consents).unwrap(), Table::compile(&turned).unwrap());
        prop_assert_eq!(one.rule(&nurse(), using), other.rule(&nurse(), using));
    }

    #[test]
    fn saying_it_twice_says_no_more(consents in any_consents(), using in any_use()) {
        let twice: Vec<Consent> = consents.iter().chain(&consents).cloned().collect();
        let (one, other) = (Table::compile(&consents).unwrap(), Table::compile(&twice).unwrap());
        prop_assert_eq!(one.rule(&nurse(), using), other.rule(&nurse(), using));
    }

    #[test]
    fn one_more_denial_never_shows_more(consents in any_consents(), more in any_provision(), using in any_use()) {
        let more = consent(99, Provision { ruling: Ruling::Deny, except: Vec::new(), ..more });
        let before = Table::compile(&consents).unwrap().rule(&nurse(), using);
        let with: Vec<Consent> = consents.into_iter().chain([more]).collect();
        let after = Table::compile(&with).unwrap().rule(&nurse(), using);
        prop_assert!(after.permitted.without(before.permitted).is_none());
        prop_assert!(before.denied.without(after.denied).is_none());
    }

    #[test]
    fn outside_of_all_periods_nothing_is_said(provision in any_provision(), purpose in prop::sample::select(Purpose::ALL.to_vec())) {
        let limited = consent(1, Provision { from: Some(at(10_000)), until: Some(at(20_000)), ..provision });
        let table = Table::compile([&limited]).unwrap();
        for now in [0, 9_999, 20_000] {
            let using = Use { purpose, action: ConsentAction::Access, at: at(now) };
            prop_assert_eq!(table.rule(&nurse(), using), Ruled::NOTHING);
        }
    }
}

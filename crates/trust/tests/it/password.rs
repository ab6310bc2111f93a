//! Passwords: hashes made here and elsewhere, and hashes that must not be obeyed.

use trust::password::{
    MAX_PASSWORD_BYTES, PasswordCost, PasswordError, WeakPassword, check_strength, hash, needs_rehash,
    verify, verify_nobody,
};

/// The least argon2 can do, for tests only.
const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 2, lanes: 1 };

/// Made apart from this code, for "Grüne Wiese 12" with the cost [`CHEAP`].
const ELSEWHERE: &str =
    "$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$lkefmjJKeqRS/hchgOx/k82v4q+FgEJJ+E23NalJQ4A";

#[test]
fn the_right_password_verifies_and_a_wrong_one_does_not() {
    let stored = hash("correct horse battery", CHEAP).unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{stored}");
    assert!(verify("correct horse battery", &stored).unwrap());
    assert!(!verify("correct horse batterz", &stored).unwrap());
    assert!(!verify("", &stored).unwrap());
    assert_ne!(stored, hash("correct horse battery", CHEAP).unwrap(), "the salt is random");
}

#[test]
fn a_hash_of_another_implementation_verifies() {
    assert!(verify("Grüne Wiese 12", ELSEWHERE).unwrap());
    assert!(!verify("Grune Wiese 12", ELSEWHERE).unwrap());
}

#[test]
fn the_default_cost_is_above_the_minimum_and_works() {
    let (default, minimum) = (PasswordCost::default(), PasswordCost::OWASP_MINIMUM);
    assert!(default.memory_kib > minimum.memory_kib && default.passes > minimum.passes);
    let stored = hash("correct horse battery", minimum).unwrap();
    assert!(verify("correct horse battery", &stored).unwrap());
    assert!(needs_rehash(&stored, default).unwrap());
    assert!(!needs_rehash(&stored, minimum).unwrap());
    assert!(!needs_rehash(&stored, CHEAP).unwrap());
}

#[test]
fn stored_texts_that_cannot_be_used_are_refused() {
    let forged = [
        String::new(),
        "plain text".to_owned(),
        ELSEWHERE.replace("argon2id", "argon2i"),
        ELSEWHERE.replace("m=64", "m=4294967295"),
        ELSEWHERE.replace("t=2", "t=4000000"),
        ELSEWHERE.replace("p=1", "p=5000"),
        ELSEWHERE.rsplit_once('$').unwrap().0.to_owned(),
    ];
    for phc in forged {
        let error = verify("Grüne Wiese 12", &phc).unwrap_err();
        assert!(matches!(error, PasswordError::Stored { .. }), "{phc}: {error}");
    }
}

#[test]
fn overlong_passwords_and_impossible_costs_are_refused() {
    let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
    let bytes = long.len();
    assert!(matches!(hash(&long, CHEAP), Err(PasswordError::TooLong { bytes: named }) if named == bytes));
    assert!(matches!(verify(&long, ELSEWHERE), Err(PasswordError::TooLong { .. })));
    for cost in [
        PasswordCost { memory_kib: 1, ..CHEAP },
        PasswordCost { memory_kib: u32::MAX, ..CHEAP },
        PasswordCost { passes: 0, ..CHEAP },
        PasswordCost { lanes: 0, ..CHEAP },
    ] {
        assert!(matches!(hash("x", cost), Err(PasswordError::Cost { cost: named }) if named == cost));
    }
    assert!(verify_nobody("whatever they typed", CHEAP).is_ok());
}

#[test]
fn new_passwords_are_long_and_not_the_user_name() {
    assert_eq!(check_strength("twelve chars", "nurse"), Ok(()));
    assert_eq!(check_strength("elevenchars", "nurse"), Err(WeakPassword::TooShort { chars: 11 }));
    assert_eq!(check_strength("äöüßéèñçåøæó", "nurse"), Ok(()), "characters count, not bytes");
    for guessed in ["passwordpassword", "P@ssw0rd!2026", "qwertyuiop12", "nurse-nurse-7", "äöüäöüäöüäöü"]
    {
        assert_eq!(check_strength(guessed, "nurse"), Err(WeakPassword::Guessable), "{guessed}");
    }
    assert_eq!(check_strength(" Head.Nurse.Ward2", "head.nurse.ward2"), Err(WeakPassword::EqualsUserName));
    assert_eq!(check_strength("aaaaaaaaaaaaaaaa", "nurse"), Err(WeakPassword::OneCharacter));
    let bytes = MAX_PASSWORD_BYTES + 1;
    assert_eq!(check_strength(&"ab".repeat(bytes)[..bytes], "nurse"), Err(WeakPassword::TooLong { bytes }));
}

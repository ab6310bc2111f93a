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

/// The same letter comes as one character from one keyboard and as two from another (Unicode normalisation forms).
#[test]
fn a_letter_with_an_accent_is_the_same_from_every_keyboard() {
    let (composed, decomposed) = ("Gr\u{fc}ne Wiese 12", "Gru\u{308}ne Wiese 12");
    for (set, typed) in [(composed, decomposed), (decomposed, composed)] {
        assert!(verify(typed, &hash(set, CHEAP).unwrap()).unwrap(), "{set:?} typed as {typed:?}");
    }
    assert!(verify(decomposed, ELSEWHERE).unwrap());
    assert!(!verify("Gru\u{301}ne Wiese 12", ELSEWHERE).unwrap(), "another accent");
    assert!(verify("\u{ff27}r\u{fc}ne Wiese 12", ELSEWHERE).unwrap(), "a letter of full width");
    assert_eq!(
        check_strength("\u{fdfa}", "nurse"),
        Err(WeakPassword::TooShort { chars: 1 }),
        "a phrase in one sign"
    );
    let twelve_marks = "e\u{301}t\u{301}a\u{301}n\u{301}o\u{301}i\u{301}";
    assert!(matches!(check_strength(twelve_marks, "nurse"), Err(WeakPassword::TooShort { .. })));
    let wide = "\u{ff50}\u{ff41}\u{ff53}\u{ff53}\u{ff57}\u{ff4f}\u{ff52}\u{ff44}passwordpassword";
    assert_eq!(check_strength(wide, "nurse"), Err(WeakPassword::Guessable));
}

/// Earlier releases hashed what was typed; such a hash goes on to work, for whoever types it as then.
#[test]
fn a_hash_of_a_password_that_was_not_normalised_still_verifies() {
    use argon2::PasswordHasher as _;
    let typed = "Gru\u{308}ne Wiese 12";
    let params = argon2::Params::new(64, 2, 1, None).unwrap();
    let hasher = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let old = hasher.hash_password_with_salt(typed.as_bytes(), b"0123456789abcdef").unwrap().to_string();
    assert!(verify(typed, &old).unwrap());
    assert!(!verify("Gru\u{308}ne Wiese 13", &old).unwrap());
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

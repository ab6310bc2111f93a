//! Wrapped keys and the key-encryption key as operators hand it over.

use trust::keyring::{KekParseError, UnwrapError, WRAPPED_LEN};
use trust::{Aad, Kek, Key, KeyId, derive, envelope};

use crate::counting_key;

const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const HEX: &str = "000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Whether two keys are the same, seen from outside: what one seals the other opens.
fn same(left: &Key, right: &Key) -> bool {
    let aad = Aad { table: "t", row: b"r", column: "c" };
    envelope::open(right, aad, &envelope::seal(left, KeyId::generate(), aad, b"probe")).is_ok()
}

#[test]
fn every_accepted_spelling_gives_the_same_key() {
    let expected = Kek::from_bytes(&counting_key()).fingerprint();
    let raw = counting_key();
    let with = |end: &[u8]| [raw.as_slice(), end].concat();
    let spellings: [Vec<u8>; 8] = [
        raw.to_vec(),
        with(b"\n"),
        with(b"\r\n"),
        HEX.into(),
        format!("{HEX}\n").into(),
        BASE64.into(),
        format!("  {BASE64}\r\n").into(),
        Kek::from_bytes(&raw).to_text().expose().into(),
    ];
    for spelling in &spellings {
        assert_eq!(Kek::parse(spelling).unwrap().fingerprint(), expected, "{spelling:?}");
    }
}

#[test]
fn raw_bytes_that_look_like_white_space_at_the_ends_are_kept() {
    let mut raw = counting_key();
    raw[0] = b' ';
    raw[31] = b'\n';
    assert_eq!(Kek::parse(raw).unwrap().fingerprint(), Kek::from_bytes(&raw).fingerprint());
}

#[test]
fn anything_else_is_refused_with_its_reason() {
    let cases: [(Vec<u8>, KekParseError); 10] = [
        (Vec::new(), KekParseError::Empty),
        (b" \n".to_vec(), KekParseError::Empty),
        (b"short".to_vec(), KekParseError::WrongLength { len: 5 }),
        (vec![1; 33], KekParseError::WrongLength { len: 33 }),
        (vec![b'a'; 1000], KekParseError::TooLong { len: 1000 }),
        (HEX.replace("1f", "1g").into(), KekParseError::NotHexadecimal { position: 64 }),
        (BASE64.replace("AAEC", "A*EC").into(), KekParseError::NotBase64),
        (vec![b'A'; 44], KekParseError::NotBase64),
        (b"correct horse battery staple 42!".to_vec(), KekParseError::TypedPhrase),
        ("00".repeat(32).into(), KekParseError::Trivial),
    ];
    for (input, expected) in cases {
        assert_eq!(Kek::parse(&input).unwrap_err(), expected);
    }
}

#[test]
fn a_wrapped_key_comes_back() {
    let (kek, key, key_id) = (Kek::generate(), Key::generate(), KeyId::generate());
    let wrapped = kek.wrap("patient", key_id, &key);
    assert_eq!(wrapped.len(), WRAPPED_LEN);
    let read_again = Kek::parse(kek.to_text().expose()).unwrap();
    assert!(same(&key, &read_again.unwrap("patient", key_id, &wrapped).unwrap()));
}

#[test]
fn a_wrong_key_encryption_key_is_named_by_both_fingerprints() {
    let (right, wrong, key_id) = (Kek::generate(), Kek::generate(), KeyId::generate());
    let wrapped = right.wrap("patient", key_id, &Key::generate());
    let expected =
        UnwrapError::WrongKek { key_id, needed: right.fingerprint_text(), given: wrong.fingerprint_text() };
    assert_eq!(wrong.unwrap("patient", key_id, &wrapped).unwrap_err(), expected);
}

#[test]
fn a_wrapped_key_works_under_its_own_domain_and_name_only() {
    let (kek, key_id) = (Kek::generate(), KeyId::generate());
    let wrapped = kek.wrap("patient", key_id, &Key::generate());
    for (domain, id) in [("system", key_id), ("", key_id), ("patient", KeyId::generate())] {
        let error = kek.unwrap(domain, id, &wrapped).unwrap_err();
        assert!(matches!(error, UnwrapError::AuthenticationFailed { .. }), "{error}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_wrapped_key_is_noticed() {
    let (kek, key_id) = (Kek::generate(), KeyId::generate());
    let wrapped = kek.wrap("patient", key_id, &Key::generate());
    for bit in 0..wrapped.len() * 8 {
        let mut changed = wrapped.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(kek.unwrap("patient", key_id, &changed).is_err(), "bit {bit}");
    }
    for len in 0..wrapped.len() {
        let error = kek.unwrap("patient", key_id, &wrapped[..len]).unwrap_err();
        assert_eq!(error, UnwrapError::WrongLength { key_id, len });
    }
}

#[test]
fn derived_keys_are_repeatable_and_apart() {
    let key = Key::generate();
    assert!(same(&derive(&key, "a"), &derive(&key, "a")));
    assert!(!same(&derive(&key, "a"), &derive(&key, "b")));
    assert!(!same(&derive(&key, "a"), &key));
    assert!(!same(&derive(&key, "a"), &derive(&Key::generate(), "a")));
}

#[test]
fn debug_shows_no_secret() {
    let kek = Kek::from_bytes(&counting_key());
    assert_eq!(format!("{:?}", Key::generate()), "Key(redacted)");
    assert_eq!(format!("{kek:?}"), "Kek(fingerprint a1091181dc127a35)");
    assert_eq!(format!("{:?}", kek.to_text()), "SecretText(redacted)");
    assert_eq!(format!("{:?}", trust::BlindIndexKey::new(&Key::generate())), "BlindIndexKey(redacted)");
    assert_eq!(format!("{:?}", trust::IdentityKey::new(&Key::generate())), "IdentityKey(redacted)");
}

//! Known answers: published vectors for the primitives, and values computed apart from this code
//! (with another implementation of the same primitives) for the formats of this room.

use aws_lc_rs::{hkdf, hmac};
use trust::blind::BlindIndexKey;
use trust::{Aad, IdentityKey, Kek, Key, KeyId, PackedIdentity, audit, derive, envelope};

use crate::{counting_key, unhex};

const KEY_ID: KeyId =
    KeyId([0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f]);

const SEALED: &str = concat!(
    "01404142434445464748494a4b4c4d4e4fa0a1a2a3a4a5a6a7a8a9aaab",
    "d12a521875eb2dd20b0b7a1667ebb8723bd379988db3f484f4f1",
);

const WRAPPED: &str = concat!(
    "01a1091181dc127a35a0a1a2a3a4a5a6a7a8a9aaab",
    "53c2b52ae430f113484700dbcc4b73216a1a5c704ec455afe72aec553357043372483ba3e2b47bf26f24da6d16d2c80f",
);

#[test]
fn hmac_sha256_rfc_4231_test_case_2() {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"Jefe"), b"what do ya want for nothing?");
    let expected = unhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(tag.as_ref(), expected);
}

#[test]
fn hkdf_sha256_rfc_5869_test_case_1() {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &unhex("000102030405060708090a0b0c"));
    let info = unhex("f0f1f2f3f4f5f6f7f8f9");
    let mut out = [0_u8; 42];
    let prk = salt.extract(&[0x0b; 22]);
    prk.expand(&[&info], Len(out.len())).unwrap().fill(&mut out).unwrap();
    let expected =
        concat!("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf", "34007208d5b887185865",);
    assert_eq!(out.as_slice(), unhex(expected));
}

#[test]
fn a_stored_envelope_of_format_1_opens() {
    let key = Key::from_bytes(&counting_key());
    let aad = Aad { table: "journal", row: &[0, 0, 0, 7], column: "payload" };
    let sealed = unhex(SEALED);
    assert_eq!(envelope::key_id_of(&sealed), Ok(KEY_ID));
    assert_eq!(envelope::open(&key, aad, &sealed).unwrap(), b"72.50 /min");
}

#[test]
fn a_stored_wrapped_key_of_format_1_opens() {
    let kek = Kek::from_bytes(&counting_key());
    assert_eq!(kek.fingerprint_text(), "a1091181dc127a35");
    assert_eq!(kek.fingerprint().as_slice(), unhex("a1091181dc127a35"));
    let key = kek.unwrap("patient", KEY_ID, &unhex(WRAPPED)).unwrap();
    // The wrapped key is 32, 33, …, 63: what it seals must open with exactly that key.
    let aad = Aad { table: "t", row: b"r", column: "c" };
    let plain: [u8; 32] = std::array::from_fn(|index| u8::try_from(index + 32).unwrap());
    let sealed = envelope::seal(&key, KEY_ID, aad, b"value");
    assert_eq!(envelope::open(&Key::from_bytes(&plain), aad, &sealed).unwrap(), b"value");
}

#[test]
fn derivation_and_blind_index_keep_their_values() {
    let key = Key::from_bytes(&counting_key());
    let derived = unhex("a3539ff3e61187b7d25960d061b874d72f00e24005b809d0bab83231dd0bc86a");
    let derived = Key::from_bytes(derived.as_slice().try_into().unwrap());
    let index = |key: &Key| BlindIndexKey::new(key).index("name", "muster");
    assert_eq!(index(&key).as_slice(), unhex("37703d82a97a531fb13ec91d332c2ed6"));
    assert_eq!(index(&derive(&key, "blind-index")), index(&derived));
    assert_ne!(index(&derive(&key, "blind-index/2")), index(&derived));
}

#[test]
fn the_blind_index_separates_fields_values_and_their_border() {
    let key = BlindIndexKey::new(&Key::from_bytes(&counting_key()));
    let base = key.index("name", "muster");
    assert_ne!(base, key.index("name", "mustes"));
    assert_ne!(base, key.index("mrn", "muster"));
    assert_ne!(base, key.index("namem", "uster"));
    assert_ne!(base, BlindIndexKey::new(&Key::from_bytes(&[7; 32])).index("name", "muster"));
}

/// FIPS 197, appendix C.3: the plain block begins with 00, so it is a valid identity.
#[test]
fn the_identity_cipher_is_aes_256_fips_197() {
    let key = IdentityKey::new(&Key::from_bytes(&counting_key()));
    let identity = key.open("8ea2b7ca516745bfeafc49904b496089").unwrap();
    let expected = PackedIdentity {
        kind: 0x11,
        series: 0x2233_4455,
        measured_us: 0x66_7788_99aa_bbcc + trust::identity::EPOCH_2000_US,
        sequence: 0xdd_eeff,
    };
    assert_eq!(identity, expected);
    assert_eq!(key.seal(&expected).unwrap(), "8ea2b7ca516745bfeafc49904b496089");
}

#[test]
fn stored_identities_keep_their_address() {
    let key = IdentityKey::new(&Key::from_bytes(&counting_key()));
    let reading = PackedIdentity { kind: 1, series: 7, measured_us: 1_795_338_000_123_456, sequence: 42 };
    assert_eq!(key.seal(&reading).unwrap(), "0d014964ebf59f3c99547717867cff95");
    let extreme = PackedIdentity {
        kind: 255,
        series: u32::MAX,
        measured_us: trust::identity::MIN_MEASURED_US,
        sequence: trust::identity::MAX_SEQUENCE,
    };
    assert_eq!(key.seal(&extreme).unwrap(), "cda186ed110c272fa1727328bd3b7900");
}

#[test]
fn a_leaf_keeps_its_value_and_changes_with_every_part() {
    let blinding = [0x5a; 32];
    let leaf = audit::leaf(b"seq=7", &blinding, b"who: nobody");
    assert_eq!(leaf.as_slice(), unhex("6c67c256d5e4d0d2a97973a182494f638969e3ee622f7f3d686321b5ce8944d0"));
    assert_ne!(leaf, audit::leaf(b"seq=8", &blinding, b"who: nobody"));
    assert_ne!(leaf, audit::leaf(b"seq=7", &blinding, b"who: somebody"));
    assert_ne!(leaf, audit::leaf(b"seq=7", &[0x5b; 32], b"who: nobody"));
    assert_ne!(audit::new_blinding(), audit::new_blinding());
}

#[test]
fn a_stored_token_hash_matches_its_token() {
    let token = trust::TokenSecret::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap();
    let expected = "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd";
    assert_eq!(token.hash().to_string(), expected);
}

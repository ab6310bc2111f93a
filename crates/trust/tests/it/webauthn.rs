//! Passkeys: what is taken, and that every way in which a registration or a use can be wrong is refused by name.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value;
use trust::webauthn::software::SoftwarePasskey;
use trust::webauthn::{
    ClientDataError, CredentialKey, Kept, KeyError, PART_LIMIT_BYTES, Registered, RelyingParty, Used,
    WebauthnError, authenticate, register,
};

const ORIGIN: &str = "https://auscult.example.org";
const CHALLENGE: [u8; 32] = [7; 32];

fn party() -> RelyingParty {
    RelyingParty::at(&[ORIGIN.to_owned()]).unwrap()
}

fn passkey() -> SoftwarePasskey {
    SoftwarePasskey::new("auscult.example.org", ORIGIN)
}

fn registered(passkey: &SoftwarePasskey) -> Result<Registered, WebauthnError> {
    let (client_data, object) = passkey.register(&CHALLENGE);
    register(&party(), &CHALLENGE, &client_data, &object)
}

fn used(passkey: &mut SoftwarePasskey, kept: &Registered) -> Result<Used, WebauthnError> {
    let given = passkey.sign(&CHALLENGE);
    authenticate(
        &party(),
        &CHALLENGE,
        kept_of(kept),
        &given.client_data,
        &given.authenticator_data,
        &given.signature,
    )
}

fn kept_of(registered: &Registered) -> Kept<'_> {
    Kept {
        key: &registered.key,
        sign_count: registered.sign_count,
        is_backup_eligible: registered.is_backup_eligible,
    }
}

#[test]
fn a_passkey_registers_and_signs_in_with_either_curve() {
    for mut passkey in [passkey(), SoftwarePasskey::new_ed25519("auscult.example.org", ORIGIN)] {
        let kept = registered(&passkey).unwrap();
        assert_eq!(kept.id, passkey.id());
        assert_eq!(CredentialKey::from_bytes(&kept.key.to_bytes()), Ok(kept.key.clone()));
        assert_eq!(used(&mut passkey, &kept), Ok(Used { sign_count: 1, is_backed_up: false }));
    }
}

#[test]
fn the_first_thing_that_is_wrong_is_named() {
    let kept = registered(&passkey()).unwrap();
    type Spoil = fn(&mut SoftwarePasskey);
    let cases: [(Spoil, WebauthnError); 6] = [
        (
            |passkey| passkey.origin = "https://auscult.example.org.evil.example".into(),
            WebauthnError::ClientData(ClientDataError::Origin {
                origin: "https://auscult.example.org.evil.example".into(),
            }),
        ),
        (
            |passkey| passkey.origin = "http://auscult.example.org".into(),
            WebauthnError::ClientData(ClientDataError::Origin {
                origin: "http://auscult.example.org".into(),
            }),
        ),
        (|passkey| passkey.party_id = "evil.example".into(), WebauthnError::OtherDomain),
        (|passkey| passkey.flags = 0x04, WebauthnError::NotPresent),
        (|passkey| passkey.flags = 0x01, WebauthnError::NotVerified),
        (|passkey| passkey.flags = 0x15, WebauthnError::Backup),
    ];
    for (spoil, expected) in cases {
        let mut passkey = passkey();
        spoil(&mut passkey);
        assert_eq!(registered(&passkey).unwrap_err(), expected, "at registration");
        let refused = used(&mut passkey, &kept).unwrap_err();
        // A contradiction with what was registered shows in the same way.
        assert_eq!(refused, expected, "at use");
    }
}

#[test]
fn a_use_is_bound_to_its_challenge_its_ceremony_and_its_key() {
    let mut passkey = passkey();
    let kept = registered(&passkey).unwrap();
    let given = passkey.sign(&[8; 32]);
    let check = |challenge: &[u8], kept: Kept<'_>, client: &[u8], data: &[u8], signature: &[u8]| {
        authenticate(&party(), challenge, kept, client, data, signature)
    };
    let (client, data, signature) = (&given.client_data, &given.authenticator_data, &given.signature);
    assert!(check(&[8; 32], kept_of(&kept), client, data, signature).is_ok());
    let replayed = check(&CHALLENGE, kept_of(&kept), client, data, signature);
    assert_eq!(replayed, Err(WebauthnError::ClientData(ClientDataError::Challenge)));
    let others = registered(&self::passkey()).unwrap();
    assert_eq!(check(&[8; 32], kept_of(&others), client, data, signature), Err(WebauthnError::Signature));
    let (created, _) = passkey.register(&[8; 32]);
    let other_ceremony = check(&[8; 32], kept_of(&kept), &created, data, signature);
    assert_eq!(other_ceremony, Err(WebauthnError::ClientData(ClientDataError::Kind)));
    for at in 0..signature.len() {
        let mut wrong = signature.clone();
        wrong[at] ^= 1;
        assert!(check(&[8; 32], kept_of(&kept), client, data, &wrong).is_err(), "byte {at}");
    }
    let counted = [&data[..33], &99_u32.to_be_bytes()].concat();
    assert_eq!(check(&[8; 32], kept_of(&kept), client, &counted, signature), Err(WebauthnError::Signature));
    assert_eq!(check(&[8; 32], kept_of(&kept), client, data, b""), Err(WebauthnError::Signature));
}

#[test]
fn a_count_that_does_not_go_up_is_a_copy() {
    let mut passkey = passkey();
    let mut kept = registered(&passkey).unwrap();
    passkey.sign_count = 9;
    kept.sign_count = used(&mut passkey, &kept).unwrap().sign_count;
    assert_eq!(kept.sign_count, 10);
    for before in [9, 8, 0] {
        passkey.sign_count = before;
        let given = before + 1;
        assert_eq!(used(&mut passkey, &kept), Err(WebauthnError::Counter { given, kept: 10 }));
    }
    // Passkeys that do not count always say 0; one that did before and says 0 now is another.
    (passkey.sign_count, passkey.does_count) = (0, false);
    assert_eq!(used(&mut passkey, &kept), Err(WebauthnError::Counter { given: 0, kept: 10 }));
    kept.sign_count = 0;
    for _ in 0..2 {
        assert_eq!(used(&mut passkey, &kept).unwrap().sign_count, 0);
    }
}

#[test]
fn backup_must_be_what_it_was_at_registration() {
    let mut passkey = passkey();
    passkey.flags = 0x0d;
    let kept = registered(&passkey).unwrap();
    assert!(kept.is_backup_eligible && !kept.is_backed_up);
    passkey.flags = 0x1d;
    assert_eq!(used(&mut passkey, &kept).unwrap(), Used { sign_count: 1, is_backed_up: true });
    passkey.flags = 0x05;
    assert_eq!(used(&mut passkey, &kept), Err(WebauthnError::Backup));
}

#[test]
fn client_data_are_json_of_the_page_itself() {
    let (_, object) = passkey().register(&CHALLENGE);
    let challenge = URL_SAFE_NO_PAD.encode(CHALLENGE);
    let client = |more: &str| {
        format!(r#"{{"type":"webauthn.create","challenge":"{challenge}","origin":"{ORIGIN}"{more}}}"#)
    };
    let check = |client: &str| register(&party(), &CHALLENGE, client.as_bytes(), &object).map(drop);
    assert_eq!(check(&client("")), Ok(()));
    assert_eq!(check(&client(r#","crossOrigin":false,"other_keys_can_be_added_here":"x""#)), Ok(()));
    let framed = Err(WebauthnError::ClientData(ClientDataError::Framed));
    assert_eq!(check(&client(r#","crossOrigin":true"#)), framed);
    assert_eq!(check(&client(r#","crossOrigin":"no""#)), framed);
    assert_eq!(check(&client(r#","topOrigin":"https://evil.example""#)), framed);
    for wrong in ["", "[]", "null", "{", "\u{feff}{}"] {
        assert_eq!(check(wrong), Err(WebauthnError::ClientData(ClientDataError::Json)), "{wrong}");
    }
    assert_eq!(check("{}"), Err(WebauthnError::ClientData(ClientDataError::Kind)));
    let long = client(&format!(r#","x":"{}""#, "x".repeat(PART_LIMIT_BYTES)));
    assert!(matches!(check(&long), Err(WebauthnError::TooLong { .. })));
}

#[test]
fn whatever_breaks_off_is_refused_at_every_byte() {
    let mut passkey = passkey();
    let (client, object) = passkey.register(&CHALLENGE);
    for len in 0..object.len() {
        assert!(register(&party(), &CHALLENGE, &client, &object[..len]).is_err(), "{len} bytes");
    }
    let more = [object.as_slice(), &[0]].concat();
    assert!(register(&party(), &CHALLENGE, &client, &more).is_err(), "one byte more");
    let kept = registered(&passkey).unwrap();
    let given = passkey.sign(&CHALLENGE);
    for len in 0..given.authenticator_data.len() {
        let data = &given.authenticator_data[..len];
        let checked =
            authenticate(&party(), &CHALLENGE, kept_of(&kept), &given.client_data, data, &given.signature);
        assert!(checked.is_err(), "{len} bytes");
    }
}

/// An attestation object over a COSE key of our own making.
fn object_with(key: Vec<(i64, Value)>, credential: &[u8]) -> Vec<u8> {
    let entries = key.into_iter().map(|(number, value)| (Value::Integer(number.into()), value)).collect();
    let (_, plain) = passkey().register(&CHALLENGE);
    let Value::Map(mut parts) = ciborium::from_reader::<Value, _>(plain.as_slice()).unwrap() else {
        panic!()
    };
    let data = parts[2].1.as_bytes().unwrap()[..37].to_vec();
    let mut data = [data.as_slice(), &[0; 16], &(credential.len() as u16).to_be_bytes(), credential].concat();
    ciborium::into_writer(&Value::Map(entries), &mut data).unwrap();
    parts[2].1 = Value::Bytes(data);
    let mut object = Vec::new();
    ciborium::into_writer(&Value::Map(parts), &mut object).unwrap();
    object
}

fn with_key(key: Vec<(i64, Value)>) -> Result<Registered, WebauthnError> {
    let (client, _) = passkey().register(&CHALLENGE);
    register(&party(), &CHALLENGE, &client, &object_with(key, b"id"))
}

#[test]
fn a_key_is_of_the_shape_of_its_algorithm() {
    let number = |number: i64| Value::Integer(number.into());
    let half = || Value::Bytes(vec![1; 32]);
    let ec = |kind, algorithm, curve| {
        vec![(1, number(kind)), (3, number(algorithm)), (-1, number(curve)), (-2, half()), (-3, half())]
    };
    assert!(with_key(ec(2, -7, 1)).is_ok());
    let shape = Err(WebauthnError::Key(KeyError::Shape));
    assert_eq!(with_key(ec(2, -7, 2)).map(drop), shape, "P-384 under ES256");
    assert_eq!(with_key(ec(1, -7, 6)).map(drop), shape, "an Edwards key under ES256");
    assert_eq!(with_key(ec(2, -8, 1)).map(drop), shape, "a P-256 key under EdDSA");
    assert_eq!(with_key(ec(2, -257, 1)).map(drop), shape, "a P-256 key under RS256");
    for algorithm in [-35, -36, -37, -65535, 0, 5] {
        let other = Err(WebauthnError::Key(KeyError::Algorithm { algorithm }));
        assert_eq!(with_key(ec(2, algorithm, 1)).map(drop), other);
    }
    let short = vec![
        (1, number(3)),
        (3, number(-257)),
        (-1, Value::Bytes(vec![1; 128])),
        (-2, Value::Bytes(vec![1, 0, 1])),
    ];
    assert_eq!(with_key(short).map(drop), shape, "RSA of 1024 bits");
    let mut twice = ec(2, -7, 1);
    twice.push((-2, half()));
    assert!(matches!(with_key(twice), Err(WebauthnError::Malformed { .. })), "a key stands twice");
    let (client, _) = passkey().register(&CHALLENGE);
    for id in [vec![], vec![1; 1_024]] {
        let object = object_with(ec(2, -7, 1), &id);
        assert!(register(&party(), &CHALLENGE, &client, &object).is_err(), "an id of {} bytes", id.len());
    }
}

#[test]
fn an_rsa_passkey_signs_in() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let number = |number: i64| Value::Integer(number.into());
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let key = vec![
        (1, number(3)),
        (3, number(-257)),
        (-1, bytes(public.modulus().big_endian_without_leading_zero())),
        (-2, bytes(public.exponent().big_endian_without_leading_zero())),
    ];
    let kept = with_key(key).unwrap();
    assert_eq!(CredentialKey::from_bytes(&kept.key.to_bytes()), Ok(kept.key.clone()));
    assert!(!public.as_der().unwrap().as_ref().is_empty());
    let given = passkey().sign(&CHALLENGE);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &given.client_data);
    let message = [given.authenticator_data.as_slice(), digest.as_ref()].concat();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature).unwrap();
    let check = |signature: &[u8]| {
        authenticate(
            &party(),
            &CHALLENGE,
            kept_of(&kept),
            &given.client_data,
            &given.authenticator_data,
            signature,
        )
    };
    assert!(check(&signature).is_ok());
    assert_eq!(
        check(&given.signature),
        Err(WebauthnError::Signature),
        "an elliptic signature under an RSA key"
    );
}

#[test]
fn a_real_security_key_is_read() {
    // What a security key answered to a page on localhost, as published in the tests of py_webauthn (BSD-3-Clause).
    let object = "o2NmbXRkbm9uZWdhdHRTdG10oGhhdXRoRGF0YVjESZYN5YgOjGh0NBcPZHZgW4_krrmihjLHmVzzuoMdl2NFAAAAFwAAAAAAAAAA\
                  AAAAAAAAAAAAQPctcQPE5oNRRJk_nO_371mf7qE7qIodzr0eOf6ACvnMB1oQG165dqutoi1U44shGezu5_gkTjmOPeJO0N8a7P-l\
                  AQIDJiABIVggSFbUJF-42Ug3pdM8rDRFu_N5oiVEysPDB6n66r_7dZAiWCDUVnB39FlGypL-qAoIO9xWHtJygo2jfDmHl-_eKFRL\
                  DA";
    let client = "eyJ0eXBlIjoid2ViYXV0aG4uY3JlYXRlIiwiY2hhbGxlbmdlIjoiVHdON240V1R5R0tMYzRaWS1xR3NGcUtuSE00bmdscXN5VjBJ\
                  Q0psTjJUTzlYaVJ5RnRya2FEd1V2c3FsLWdrTEpYUDZmbkYxTWxyWjUzTW00UjdDdnciLCJvcmlnaW4iOiJodHRwOi8vbG9jYWxob3\
                  N0OjUwMDAiLCJjcm9zc09yaWdpbiI6ZmFsc2V9";
    let challenge = "TwN7n4WTyGKLc4ZY-qGsFqKnHM4nglqsyV0ICJlN2TO9XiRyFtrkaDwUvsql-gkLJXP6fnF1MlrZ53Mm4R7Cvw";
    let read = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (object, client, challenge) = (read(object), read(client), read(challenge));
    let kept = register(&RelyingParty::localhost(), &challenge, &client, &object).unwrap();
    assert_eq!((kept.id.len(), kept.sign_count, kept.aaguid), (64, 23, [0; 16]));
    assert!(matches!(kept.key, CredentialKey::Es256(_)));
    assert!(register(&party(), &challenge, &client, &object).is_err(), "of another site");
}

#[test]
fn a_site_says_where_it_stands() {
    let at =
        |origins: &[&str]| RelyingParty::at(&origins.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
    assert_eq!(at(&["https://a.example", "https://ward.a.example:8443"]).unwrap().id(), "a.example");
    assert_eq!(at(&["http://localhost:8080"]).unwrap().id(), "localhost");
    for wrong in [
        &[][..],
        &["http://a.example"],
        &["https://a.example/"],
        &["https://a.example/path"],
        &["https://192.0.2.1"],
        &["https://A.example"],
        &["https://user@a.example"],
        &["https://a.example:port"],
        &["https://a.example", "https://b.example"],
        &["https://a.example", "https://evila.example"],
        &["a.example"],
    ] {
        assert!(at(wrong).is_err(), "{wrong:?}");
    }
    let localhost = RelyingParty::localhost();
    let check = |origin: &str| {
        let passkey = SoftwarePasskey::new("localhost", origin);
        let (client, object) = passkey.register(&CHALLENGE);
        register(&localhost, &CHALLENGE, &client, &object).is_ok()
    };
    for good in ["http://localhost", "http://localhost:8080", "https://localhost:8443"] {
        assert!(check(good), "{good}");
    }
    for wrong in
        ["http://localhost.evil.example", "http://localhost:8080.evil.example", "http://127.0.0.1:8080", ""]
    {
        assert!(!check(wrong), "{wrong}");
    }
}

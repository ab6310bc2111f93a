//! Tokens from outside: a published vector, each way in which a token has been forged before, and our own.

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use trust::jwt::{Algorithm, Expected, JwtError, KeyError, KeySet, SigningKey, unproven_issuer, verify};

const NOW_S: i64 = 1_800_000_000;

/// A program with a key on a curve.
struct Program {
    pair: EcdsaKeyPair,
    curve: &'static str,
    algorithm: &'static str,
}

impl Program {
    fn new(rules: &'static EcdsaSigningAlgorithm, curve: &'static str, algorithm: &'static str) -> Self {
        let document = EcdsaKeyPair::generate(rules).unwrap();
        Program { pair: document, curve, algorithm }
    }

    fn p256() -> Self {
        Program::new(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", "ES256")
    }

    fn p384() -> Self {
        Program::new(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", "ES384")
    }

    fn jwk(&self) -> Value {
        let point = &self.pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": self.curve, "kid": "one", "x": text(x), "y": text(y)})
    }

    fn keys(&self) -> KeySet {
        KeySet::from_jwks(&json!({"keys": [self.jwk()]})).unwrap()
    }

    fn header(&self) -> Value {
        json!({"alg": self.algorithm, "typ": "JWT", "kid": "one"})
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// With the usual header and claims, both changed.
    fn token(&self, header: impl FnOnce(&mut Value), claims: impl FnOnce(&mut Value)) -> String {
        let (mut head, mut body) = (self.header(), good());
        header(&mut head);
        claims(&mut body);
        self.sign(&head.to_string(), &body.to_string())
    }
}

fn good() -> Value {
    json!({"iss": "app", "sub": "app", "aud": "https://here/token", "exp": NOW_S + 120, "iat": NOW_S, "jti": "1"})
}

fn judged_by(token: &str, keys: &KeySet) -> Result<(), JwtError> {
    let audiences = ["https://here/token".to_owned(), "https://here".to_owned()];
    let expected = Expected {
        algorithms: &[Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256, Algorithm::Rs384],
        types: &["JWT"],
        issuer: "app",
        audiences: &audiences,
        now_s: NOW_S,
        leeway: Duration::from_secs(10),
        life: Some(Duration::from_secs(300)),
    };
    verify(token, keys, &expected).map(|claims| assert_eq!(claims.text("sub"), Some("app")))
}

fn judged(program: &Program, token: &str) -> Result<(), JwtError> {
    judged_by(token, &program.keys())
}

#[test]
fn the_signature_of_rfc_7515_a_3_is_right() {
    let keys = KeySet::from_jwks(&json!({"keys": [{
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }]}))
    .unwrap();
    let token = concat!(
        "eyJhbGciOiJFUzI1NiJ9.",
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );
    // The signature is looked at before the claims: this one is by somebody else, a changed one by nobody.
    assert_eq!(judged_by(token, &keys), Err(JwtError::Issuer));
    assert_eq!(unproven_issuer(token).unwrap(), "joe");
    let changed = token.replace("DtEhU3lj", "DtEhU3lk");
    assert_eq!(judged_by(&changed, &keys), Err(JwtError::Signature));
}

#[test]
fn good_tokens_of_every_key_are_believed() {
    for program in [Program::p256(), Program::p384()] {
        assert_eq!(judged(&program, &program.token(|_| {}, |_| {})), Ok(()));
        let without_kid = program.token(|header| drop(header.as_object_mut().unwrap().remove("kid")), |_| {});
        assert_eq!(judged(&program, &without_kid), Ok(()));
    }
    let own = SigningKey::generate().unwrap();
    let keys = KeySet::from_jwks(&json!({"keys": [own.to_jwk()]})).unwrap();
    assert_eq!(judged_by(own.sign(&good()).unwrap().expose(), &keys), Ok(()));
    let again = SigningKey::from_secret(own.to_secret().unwrap().expose()).unwrap();
    assert_eq!(again.kid(), own.kid());
    assert_eq!(judged_by(again.sign(&good()).unwrap().expose(), &keys), Ok(()));
    assert_eq!(format!("{own:?}"), format!("SigningKey({})", own.kid()));
}

#[test]
fn no_signature_and_a_public_key_as_secret_are_refused() {
    let program = Program::p256();
    for name in ["none", "None", "NONE", "HS256", "HS384", "es256", ""] {
        let token = program.token(|header| header["alg"] = json!(name), |_| {});
        assert_eq!(judged(&program, &token), Err(JwtError::Algorithm), "{name}");
        let bare = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(judged(&program, &bare), Err(JwtError::Algorithm), "{name}");
    }
    for secret in [program.jwk().to_string().into_bytes(), program.pair.public_key().as_ref().to_vec()] {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": "one"}).to_string();
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(good().to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
        assert_eq!(judged(&program, &token), Err(JwtError::Algorithm));
    }
}

#[test]
fn a_key_is_used_with_its_own_algorithm_only() {
    let program = Program::p256();
    for name in ["ES384", "RS256", "RS384"] {
        let token = program.token(|header| header["alg"] = json!(name), |_| {});
        assert_eq!(judged(&program, &token), Err(JwtError::UnknownKey), "{name}");
    }
    let mut jwk = program.jwk();
    jwk["alg"] = json!("ES384");
    let what = "its algorithm is of another kind of key";
    assert_eq!(KeySet::from_jwks(&json!({"keys": [jwk]})), Err(KeyError::Unusable { position: 1, what }));
}

#[test]
fn a_key_name_is_a_name_and_nothing_else() {
    let program = Program::p256();
    let names = [
        "../../dev/null",
        "one' OR '1'='1",
        "https://evil.example/key",
        "one\0",
        "ONE",
        "",
        "one%00",
        "{{7*7}}",
    ];
    for name in names {
        let token = program.token(|header| header["kid"] = json!(name), |_| {});
        assert_eq!(judged(&program, &token), Err(JwtError::UnknownKey), "{name}");
    }
    for kid in [json!(1), json!(["one"]), json!({"one": 1}), json!(null), json!("k".repeat(10_000))] {
        let token = program.token(|header| header["kid"] = kid, |_| {});
        assert_eq!(judged(&program, &token), Err(JwtError::UnknownKey));
    }
}

#[test]
fn keys_that_a_token_brings_along_are_not_looked_at() {
    let (known, other) = (Program::p256(), Program::p256());
    for (name, value) in [
        ("jwk", other.jwk()),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        let forged = other.token(|header| header[name] = value.clone(), |_| {});
        assert_eq!(judged(&known, &forged), Err(JwtError::Signature), "{name}");
        let honest = known.token(|header| header[name] = value, |_| {});
        assert_eq!(judged(&known, &honest), Ok(()), "{name}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let program = Program::p256();
    for (name, value) in [("crit", json!(["exp"])), ("b64", json!(false)), ("zip", json!("DEF"))] {
        let token = program.token(|header| header[name] = value, |_| {});
        assert_eq!(judged(&program, &token), Err(JwtError::Critical), "{name}");
    }
    let nested = program.token(|header| header["cty"] = json!("JWT"), |_| {});
    assert_eq!(judged(&program, &nested), Err(JwtError::Type));
    for kind in ["at+jwt", "logout+jwt", "dpop+jwt"] {
        let token = program.token(|header| header["typ"] = json!(kind), |_| {});
        assert_eq!(judged(&program, &token), Err(JwtError::Type), "{kind}");
    }
}

#[test]
fn time_audience_and_issuer_are_checked() {
    let program = Program::p256();
    type Change = fn(&mut Value);
    let cases: [(Change, JwtError); 14] = [
        (|claims| claims["exp"] = json!(NOW_S - 11), JwtError::Expired),
        (|claims| claims["exp"] = json!(NOW_S + 311), JwtError::LongLived),
        (|claims| claims["exp"] = json!(1e300), JwtError::Claim { claim: "exp" }),
        (|claims| claims["exp"] = json!(-1), JwtError::Claim { claim: "exp" }),
        (|claims| claims["exp"] = json!("1800000100"), JwtError::Claim { claim: "exp" }),
        (|claims| drop(claims.as_object_mut().unwrap().remove("exp")), JwtError::Claim { claim: "exp" }),
        (|claims| claims["nbf"] = json!(NOW_S + 11), JwtError::Early),
        (|claims| claims["iat"] = json!(NOW_S + 11), JwtError::Early),
        (|claims| claims["nbf"] = json!("soon"), JwtError::Claim { claim: "nbf" }),
        (|claims| claims["aud"] = json!("https://there/token"), JwtError::Audience),
        (|claims| claims["aud"] = json!(["https://there", "https://here/token/"]), JwtError::Audience),
        (|claims| claims["aud"] = json!({"https://here": 1}), JwtError::Audience),
        (|claims| claims["iss"] = json!("other"), JwtError::Issuer),
        (|claims| claims["iss"] = json!(["app"]), JwtError::Claim { claim: "iss" }),
    ];
    for (change, error) in cases {
        assert_eq!(judged(&program, &program.token(|_| {}, change)), Err(error));
    }
    let both = program.token(|_| {}, |claims| claims["aud"] = json!(["https://there", "https://here"]));
    assert_eq!(judged(&program, &both), Ok(()));
    let fraction = program.token(|_| {}, |claims| claims["exp"] = json!(NOW_S as f64 + 60.5));
    assert_eq!(judged(&program, &fraction), Ok(()));
}

#[test]
fn malformed_doubled_and_oversized_tokens_are_refused() {
    let program = Program::p256();
    let token = program.token(|_| {}, |_| {});
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = program.header().to_string();
    for bad in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        signed,
        &format!("{token}.x"),
        &format!("{signed}.{signature}="),
        "é.é.é",
    ] {
        assert!(matches!(judged(&program, bad), Err(JwtError::Malformed { .. })), "{bad}");
    }
    for at in 0..token.len() {
        assert!(judged(&program, &token[..at]).is_err(), "cut at {at}");
    }
    let claims = good().to_string();
    let doubled = [
        (header.replace('}', r#","alg":"ES256"}"#), claims.clone()),
        (header.clone(), claims.replacen('{', r#"{"sub":"somebody else","#, 1)),
    ];
    for (header, claims) in doubled {
        assert_eq!(judged(&program, &program.sign(&header, &claims)), Err(JwtError::Duplicate));
    }
    for claims in ["[]", "null", "1", "\"x\"", "", "{", &"[".repeat(5_000)] {
        let token = program.sign(&header, claims);
        assert!(matches!(judged(&program, &token), Err(JwtError::Malformed { .. })), "{claims:.20}");
    }
    let long = program.token(|_| {}, |claims| claims["x"] = json!("x".repeat(20_000)));
    assert_eq!(judged(&program, &long), Err(JwtError::TooLong { length: long.len() }));
}

#[test]
fn signatures_of_nought_and_of_another_form_are_refused() {
    let program = Program::p256();
    let token = program.token(|_| {}, |_| {});
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
    // CVE-2022-21449 took r = s = 0; a DER signature is another encoding of the same numbers.
    let der = [&[0x30, 0x44, 2, 0x20][..], &good[..32], &[2, 0x20], &good[32..]].concat();
    for bad in [vec![], vec![0; 64], vec![0xff; 64], good[..63].to_vec(), [&good[..], &[0]].concat(), der] {
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bad));
        assert_eq!(judged(&program, &token), Err(JwtError::Signature));
    }
}

#[test]
fn private_weak_and_doubled_keys_are_not_registered() {
    let program = Program::p256();
    let with = |name: &str, value: Value| {
        let mut jwk = program.jwk();
        jwk[name] = value;
        KeySet::from_jwks(&json!({"keys": [jwk]}))
    };
    assert_eq!(with("d", json!("AAAA")), Err(KeyError::Private { position: 1 }));
    let symmetric = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]});
    assert_eq!(KeySet::from_jwks(&symmetric), Err(KeyError::Private { position: 1 }));
    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("alg", json!("HS256")),
        ("x", json!("AA")),
        ("kty", json!("DSA")),
    ] {
        assert!(matches!(with(name, value), Err(KeyError::Unusable { position: 1, .. })), "{name}");
    }
    let n = URL_SAFE_NO_PAD.encode([0xff; 128]);
    let weak = json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]});
    assert!(matches!(KeySet::from_jwks(&weak), Err(KeyError::Unusable { .. })));
    let two = json!({"keys": [program.jwk(), program.jwk()]});
    assert_eq!(KeySet::from_jwks(&two), Err(KeyError::TwoOfOneName));
    assert_eq!(KeySet::from_jwks(&json!({"keys": []})), Err(KeyError::Count { found: 0 }));
    assert!(matches!(KeySet::from_jwks(&json!([])), Err(KeyError::Malformed { .. })));
    assert_eq!(program.keys().to_jwks()["keys"][0]["crv"], "P-256");
    assert_eq!(KeySet::from_jwks(&program.keys().to_jwks()).unwrap(), program.keys());
    // Somebody else's set may have keys that we do not use beside those that we do.
    let mixed = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}, program.jwk()]});
    assert_eq!(KeySet::from_published(&mixed).unwrap().len(), 1);
}

#[test]
fn a_pem_public_key_is_read_and_a_private_one_refused() {
    for rules in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let pair = rcgen::KeyPair::generate_for(rules).unwrap();
        assert_eq!(KeySet::from_pem(&pair.public_key_pem()).unwrap().len(), 1);
        assert_eq!(KeySet::from_pem(&pair.serialize_pem()), Err(KeyError::Private { position: 1 }));
    }
    assert!(matches!(KeySet::from_pem("nothing"), Err(KeyError::Malformed { .. })));
}

//! A passkey held in memory: how programs that test a site register and sign in without a browser.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value;

use crate::random::random_bytes;

/// Flags that an ordinary passkey sets: present and verified.
pub const PRESENT_AND_VERIFIED: u8 = 0x05;

/// A passkey in memory.
pub struct SoftwarePasskey {
    id: Vec<u8>,
    pair: Pair,
    /// The domain it is bound to.
    pub party_id: String,
    /// The page's address that it says.
    pub origin: String,
    /// The flags it sets.
    pub flags: u8,
    /// Uses so far; it says one more at each.
    pub sign_count: u32,
    /// Whether it counts at all: many passkeys always say 0.
    pub does_count: bool,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// What a passkey answers when it is used.
pub struct Assertion {
    /// The client data.
    pub client_data: Vec<u8>,
    /// The authenticator data.
    pub authenticator_data: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

impl SoftwarePasskey {
    /// A new passkey (P-256) for a domain, used at an origin.
    ///
    /// # Panics
    /// When the library cannot make a key.
    pub fn new(party_id: &str, origin: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("no key could be made");
        Self::over(Pair::P256(pair), party_id, origin)
    }

    /// A new passkey with an Ed25519 key.
    ///
    /// # Panics
    /// When the library cannot make a key.
    pub fn new_ed25519(party_id: &str, origin: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("no key could be made");
        Self::over(Pair::Ed25519(pair), party_id, origin)
    }

    fn over(pair: Pair, party_id: &str, origin: &str) -> Self {
        Self {
            id: random_bytes::<32>().to_vec(),
            pair,
            party_id: party_id.to_owned(),
            origin: origin.to_owned(),
            flags: PRESENT_AND_VERIFIED,
            sign_count: 0,
            does_count: true,
        }
    }

    /// The credential's id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    fn client_data(&self, kind: &str, challenge: &[u8]) -> Vec<u8> {
        let challenge = URL_SAFE_NO_PAD.encode(challenge);
        let json = serde_json::json!({
            "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false,
        });
        json.to_string().into_bytes()
    }

    fn head(&self, more_flags: u8) -> Vec<u8> {
        let party = digest::digest(&digest::SHA256, self.party_id.as_bytes());
        [party.as_ref(), &[self.flags | more_flags], &self.sign_count.to_be_bytes()].concat()
    }

    fn cose_key(&self) -> Vec<u8> {
        let integer = |number: i64| Value::Integer(number.into());
        let entries = match &self.pair {
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                vec![
                    (integer(1), integer(2)),
                    (integer(3), integer(-7)),
                    (integer(-1), integer(1)),
                    (integer(-2), Value::Bytes(point[1..33].to_vec())),
                    (integer(-3), Value::Bytes(point[33..65].to_vec())),
                ]
            }
            Pair::Ed25519(pair) => vec![
                (integer(1), integer(1)),
                (integer(3), integer(-8)),
                (integer(-1), integer(6)),
                (integer(-2), Value::Bytes(pair.public_key().as_ref().to_vec())),
            ],
        };
        cbor(&Value::Map(entries))
    }

    /// Answers a registration: client data and attestation object.
    pub fn register(&self, challenge: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut data = self.head(0x40);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap_or_default().to_be_bytes());
        data.extend(&self.id);
        data.extend(self.cose_key());
        let text = |text: &str| Value::Text(text.to_owned());
        let object = Value::Map(vec![
            (text("fmt"), text("none")),
            (text("attStmt"), Value::Map(Vec::new())),
            (text("authData"), Value::Bytes(data)),
        ]);
        (self.client_data("webauthn.create", challenge), cbor(&object))
    }

    /// Answers a challenge.
    ///
    /// # Panics
    /// When the library cannot sign.
    pub fn sign(&mut self, challenge: &[u8]) -> Assertion {
        self.sign_count += u32::from(self.does_count);
        let client_data = self.client_data("webauthn.get", challenge);
        let authenticator_data = self.head(0);
        let digest = digest::digest(&digest::SHA256, &client_data);
        let message = [authenticator_data.as_slice(), digest.as_ref()].concat();
        let signature = match &self.pair {
            Pair::P256(pair) => {
                pair.sign(&SystemRandom::new(), &message).expect("the key cannot sign").as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(&message).as_ref().to_vec(),
        };
        Assertion { client_data, authenticator_data, signature }
    }
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = ciborium::into_writer(value, &mut bytes);
    bytes
}

//! A passkey in memory, and what a browser makes of its answers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::{RecordId as _, UserId};
use serde_json::{Value, json};
use trust::webauthn::software::SoftwarePasskey;
use trust::webauthn::{self, Registered, RelyingParty};

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A new passkey of this machine's site.
pub fn new() -> SoftwarePasskey {
    SoftwarePasskey::new("localhost", "http://localhost:8080")
}

/// A passkey that is registered already.
pub fn made() -> (SoftwarePasskey, Registered) {
    let passkey = new();
    let (client_data, object) = passkey.register(&[0; 32]);
    let registered = webauthn::register(&RelyingParty::localhost(), &[0; 32], &client_data, &object).unwrap();
    (passkey, registered)
}

fn challenge(begun: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(begun["options"]["challenge"].as_str().unwrap()).unwrap()
}

/// The answer to a challenge for using a passkey.
pub fn answer(passkey: &mut SoftwarePasskey, user: UserId, begun: &Value) -> Value {
    let given = passkey.sign(&challenge(begun));
    json!({
        "ceremony": begun["ceremony"],
        "credential": {
            "id": text(passkey.id()),
            "rawId": text(passkey.id()),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": text(&given.client_data),
                "authenticatorData": text(&given.authenticator_data),
                "signature": text(&given.signature),
                "userHandle": text(&user.to_bytes()),
            },
        },
    })
}

/// The answer to a challenge for making one.
pub fn make(passkey: &SoftwarePasskey, begun: &Value) -> Value {
    let (client_data, object) = passkey.register(&challenge(begun));
    json!({
        "ceremony": begun["ceremony"],
        "name": "My phone",
        "credential": {
            "id": text(passkey.id()),
            "rawId": text(passkey.id()),
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": text(&client_data),
                "attestationObject": text(&object),
                "transports": ["internal"],
            },
        },
    })
}

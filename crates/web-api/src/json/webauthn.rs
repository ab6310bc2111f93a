//! Passkeys as browsers write them in JSON (WebAuthn level 3, sections 5.1.8 to 5.1.10): options out, answers in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::{RecordId as _, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use trust::webauthn::{ALGORITHMS, RelyingParty};

use crate::ceremony::CEREMONY_LIFE;
use crate::people::{GivenAssertion, Passkey, User};

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn bytes(text: &str) -> Result<Vec<u8>, ()> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| ())
}

fn timeout_ms() -> u64 {
    u64::try_from(CEREMONY_LIFE.as_millis()).unwrap_or(u64::MAX)
}

fn listed(passkeys: &[Passkey]) -> Vec<Value> {
    passkeys.iter().map(|one| json!({"type": "public-key", "id": text(&one.id)})).collect()
}

/// What a browser needs to use a passkey; `passkeys`: one of these, none: whichever it has for this site.
pub(crate) fn request_options(party: &RelyingParty, challenge: &[u8], passkeys: &[Passkey]) -> Value {
    json!({
        "challenge": text(challenge),
        "rpId": party.id(),
        "timeout": timeout_ms(),
        "userVerification": "required",
        "allowCredentials": listed(passkeys),
    })
}

/// What a browser needs to make a passkey for a person, who has `passkeys` already.
pub(crate) fn creation_options(
    party: &RelyingParty,
    site: &str,
    user: &User,
    passkeys: &[Passkey],
    challenge: &[u8],
) -> Value {
    let algorithms: Vec<Value> =
        ALGORITHMS.iter().map(|number| json!({"type": "public-key", "alg": number})).collect();
    json!({
        "challenge": text(challenge),
        "rp": {"id": party.id(), "name": site},
        "user": {"id": text(&user.id.to_bytes()), "name": user.name, "displayName": user.display},
        "pubKeyCredParams": algorithms,
        "timeout": timeout_ms(),
        "attestation": "none",
        "authenticatorSelection":
            {"residentKey": "required", "requireResidentKey": true, "userVerification": "required"},
        "excludeCredentials": listed(passkeys),
    })
}

/// A passkey that was used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthenticationResponse {
    raw_id: String,
    response: AssertionResponse,
}

#[derive(Deserialize)]
struct AssertionResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    #[serde(rename = "authenticatorData")]
    authenticator_data: String,
    signature: String,
    #[serde(rename = "userHandle", default)]
    user_handle: Option<String>,
}

impl AuthenticationResponse {
    /// Its bytes; an error for what is no base64url, or a user handle that is none of ours.
    pub(crate) fn decoded(&self) -> Result<GivenAssertion, ()> {
        let handle = self.response.user_handle.as_deref().filter(|handle| !handle.is_empty());
        let user = handle.map(|handle| <[u8; 16]>::try_from(bytes(handle)?).map_err(|_| ())).transpose()?;
        Ok(GivenAssertion {
            credential: bytes(&self.raw_id)?,
            user: user.map(UserId::from_bytes),
            client_data: bytes(&self.response.client_data)?,
            authenticator_data: bytes(&self.response.authenticator_data)?,
            signature: bytes(&self.response.signature)?,
        })
    }
}

/// A passkey that was made.
#[derive(Deserialize)]
pub(crate) struct RegistrationResponse {
    response: AttestationResponse,
}

#[derive(Deserialize)]
struct AttestationResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    #[serde(rename = "attestationObject")]
    attestation_object: String,
}

impl RegistrationResponse {
    /// Client data and attestation object; an error for what is no base64url.
    pub(crate) fn decoded(&self) -> Result<(Vec<u8>, Vec<u8>), ()> {
        Ok((bytes(&self.response.client_data)?, bytes(&self.response.attestation_object)?))
    }
}

//! A passkey in memory, with which a program signs in to a site that it furnished itself.

use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::{RecordId as _, UserId};
use serde_json::{Value, json};
use store::Actor;
use trust::webauthn::software::SoftwarePasskey;
use trust::webauthn::{self, RelyingParty};
use web_api::people::User;
use web_api::{Ways, Web};

/// The origin that it says: a site without a public address takes any port of this name.
const ORIGIN: &str = "http://localhost";

/// A passkey of a person.
pub struct Passkey {
    user: UserId,
    key: Mutex<SoftwarePasskey>,
}

impl Passkey {
    /// A new one, made known to the site. Blocks.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn of(web: &Web, user: &User) -> anyhow::Result<Self> {
        let party = RelyingParty::localhost();
        let key = SoftwarePasskey::new(party.id(), ORIGIN);
        let challenge = trust::random_bytes::<{ webauthn::CHALLENGE_LEN }>();
        let (client_data, object) = key.register(&challenge);
        let registered = webauthn::register(&party, &challenge, &client_data, &object)?;
        let ways = Ways { passkey: Some(registered), ..Ways::default() };
        web.equip(Actor::System, user.id, ways).context("a passkey cannot be kept")?;
        Ok(Passkey { user: user.id, key: Mutex::new(key) })
    }

    /// The answer to what the site asks.
    ///
    /// # Errors
    /// When it asks nothing.
    pub fn answer(&self, begun: &Value) -> anyhow::Result<Value> {
        let challenge = begun["options"]["challenge"].as_str().context("there is no challenge")?;
        let challenge = URL_SAFE_NO_PAD.decode(challenge).context("the challenge is no base64url")?;
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let given = key.sign(&challenge);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Ok(json!({
            "ceremony": begun["ceremony"],
            "credential": {
                "id": text(key.id()),
                "rawId": text(key.id()),
                "type": "public-key",
                "response": {
                    "clientDataJSON": text(&given.client_data),
                    "authenticatorData": text(&given.authenticator_data),
                    "signature": text(&given.signature),
                    "userHandle": text(&self.user.to_bytes()),
                },
            },
        }))
    }
}

//! What the browser says of a ceremony: its kind, its challenge and the page it ran on (WebAuthn, section 5.8.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::RelyingParty;
use crate::random::equal;

/// Which ceremony.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ceremony {
    /// A registration.
    Create,
    /// A use.
    Get,
}

impl Ceremony {
    const fn word(self) -> &'static str {
        match self {
            Ceremony::Create => "webauthn.create",
            Ceremony::Get => "webauthn.get",
        }
    }
}

/// Why the client data are not those of the ceremony.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientDataError {
    /// They are no JSON object.
    #[error("they are no JSON object in UTF-8")]
    Json,
    /// They are of another ceremony.
    #[error("they are of another kind of ceremony")]
    Kind,
    /// The challenge is another.
    #[error("they answer another challenge")]
    Challenge,
    /// The page stands elsewhere.
    #[error("the page stands at {origin:?}, which is not one of this site's addresses")]
    Origin {
        /// Where it stands.
        origin: String,
    },
    /// The page was in a frame of another site.
    #[error("the page was framed by another site")]
    Framed,
}

/// Longest origin that an error repeats, in characters.
const ORIGIN_SHOWN_CHARS: usize = 100;

pub(super) fn check(
    party: &RelyingParty,
    ceremony: Ceremony,
    challenge: &[u8],
    bytes: &[u8],
) -> Result<(), ClientDataError> {
    let json: Value = serde_json::from_slice(bytes).map_err(|_| ClientDataError::Json)?;
    let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default();
    if !json.is_object() {
        return Err(ClientDataError::Json);
    }
    if text("type") != ceremony.word() {
        return Err(ClientDataError::Kind);
    }
    let given = URL_SAFE_NO_PAD.decode(text("challenge")).unwrap_or_default();
    if !equal(&given, challenge) {
        return Err(ClientDataError::Challenge);
    }
    if !party.takes(text("origin")) {
        let origin = text("origin").chars().take(ORIGIN_SHOWN_CHARS).collect();
        return Err(ClientDataError::Origin { origin });
    }
    let is_framed = !matches!(json.get("crossOrigin"), None | Some(Value::Bool(false)));
    if is_framed || json.get("topOrigin").is_some_and(|origin| !origin.is_null()) {
        return Err(ClientDataError::Framed);
    }
    Ok(())
}

//! Our signing keys for id_tokens and for proving ourselves to identity providers: kept sealed, renewed, published.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clinical_model::Timestamp;
use pipeline::records::{json_from, json_write};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Expected, KeyDomain, Kind, Store, StoreError, TransactError, Transaction};
use trust::SecretText;
use trust::jwt::{SigningKey, SigningKeyError};

use crate::state::Web;

/// The setting that holds the keys.
const SETTING: [u8; 16] = *b"oauth-sign-keys1";
/// A key signs for so long; then there is a new one.
const SIGNS_FOR: Duration = Duration::from_secs(90 * 86_400);
/// A key that signs no more is published for so long: longer than what it signed is good for.
const PUBLISHED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// What was read is good for so long, where other nodes may write.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// Times that the keys are read again because another node made one at the same time.
const MAKE_LIMIT_TRIES: usize = 4;

/// A key as it is kept, in a sealed document.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    created_at: Timestamp,
    secret: String,
}

/// A key as it is held.
struct Held {
    created_at: Timestamp,
    key: SigningKey,
}

/// The keys that this node holds, newest last, and when they were read.
#[derive(Default)]
pub(super) struct Keys(Mutex<Option<(Timestamp, Arc<Vec<Held>>)>>);

/// Why our key could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OurKeyError {
    /// The store failed.
    #[error("the signing keys could not be read")]
    Store(#[from] StoreError),
    /// They could not be kept.
    #[error("a new signing key could not be kept")]
    Keep(#[from] TransactError),
    /// The key itself.
    #[error("the signing key cannot be used")]
    Key(#[from] SigningKeyError),
}

impl Web {
    fn signing_keys(&self, now: Timestamp) -> Result<Arc<Vec<Held>>, OurKeyError> {
        let mut here = self.oauth.keys.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, keys)) = here.as_ref()
            && now.duration_since(*read_at) < FRESH_FOR
            && keys.last().is_some_and(|newest| now.duration_since(newest.created_at) < SIGNS_FOR)
        {
            return Ok(Arc::clone(keys));
        }
        // Held meanwhile, so that one node makes one key.
        let keys = Arc::new(read_or_make(self.site.store(), now)?);
        *here = Some((now, Arc::clone(&keys)));
        Ok(keys)
    }

    /// The public halves, as a JSON Web Key set. Blocks.
    pub(super) fn published_keys(&self, now: Timestamp) -> Result<Value, OurKeyError> {
        let keys = self.signing_keys(now)?;
        Ok(json!({"keys": keys.iter().map(|held| held.key.to_jwk()).collect::<Vec<_>>()}))
    }
}

/// Signs claims with our newest key. Blocks.
pub(crate) fn sign_with_ours(web: &Web, now: Timestamp, claims: &Value) -> Result<SecretText, OurKeyError> {
    let keys = web.signing_keys(now)?;
    let newest = keys.last().ok_or(OurKeyError::Key(SigningKeyError::Unreadable))?;
    Ok(newest.key.sign(claims)?)
}

fn read_or_make(store: &dyn Store, now: Timestamp) -> Result<Vec<Held>, OurKeyError> {
    let mut tries = 1;
    loop {
        let document = store.document(Kind::Setting, SETTING)?;
        let mut kept: Vec<Kept> =
            document.as_ref().and_then(|document| json_from(&document.body).ok()).unwrap_or_default();
        let is_due = kept.last().is_none_or(|newest| now.duration_since(newest.created_at) >= SIGNS_FOR);
        if is_due {
            let secret = SigningKey::generate()?.to_secret()?;
            kept.retain(|old| now.duration_since(old.created_at) < SIGNS_FOR + PUBLISHED_FOR);
            kept.push(Kept { created_at: now, secret: secret.expose().to_owned() });
            let expected = document.map_or(Expected::Absent, |document| Expected::Version(document.version));
            let write = json_write(Kind::Setting, SETTING, expected, KeyDomain::System, &kept, Vec::new());
            let transaction = Transaction { at: now, writes: vec![write], ..Transaction::default() };
            match store.transact(&transaction) {
                Ok(()) => {}
                Err(TransactError::Conflict { .. }) if tries < MAKE_LIMIT_TRIES => {
                    tries += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let held = kept
            .into_iter()
            .map(|one| Ok(Held { created_at: one.created_at, key: SigningKey::from_secret(&one.secret)? }));
        return held.collect();
    }
}

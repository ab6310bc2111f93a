//! Challenges of passkeys and of sign-ins at a provider: made without keeping anything, so that asking for many costs
//! nothing; good for one purpose, for some minutes, and once.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::Timestamp;
use pipeline::records::{json_write, sortable};
use store::{
    DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store, StoreError,
    Transaction,
};
use trust::digest::sha256;
use trust::webauthn::CHALLENGE_LEN;

/// How long a challenge of a passkey may be answered.
pub(crate) const CEREMONY_LIFE: Duration = Duration::from_secs(300);
/// Time for signing in at an identity provider.
pub(crate) const PROVIDER_LIFE: Duration = Duration::from_secs(600);
/// Marks of used challenges that are over and removed with each new one: more than one, so that they cannot pile up.
const SWEEP_LIMIT: usize = 16;
/// The index of used challenges by their end.
const BY_END: &str = "used-until";
/// Length of the instant and the random part of a ceremony's token, in bytes.
const BODY_LEN: usize = 32;
/// Length of a ceremony's token, in bytes: the body, and the seal of the store's blind index key.
const TOKEN_LEN: usize = BODY_LEN + 16;

/// What a challenge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose<'a> {
    /// Signing in; by whom is not known yet.
    SignIn,
    /// Proving oneself again in a session.
    StepUp(&'a trust::TokenHash),
    /// Adding a passkey in a session.
    Register(&'a trust::TokenHash),
    /// Signing in at an identity provider, and going on from there: what belongs together.
    Provider(&'a str),
}

impl Purpose<'_> {
    fn text(self, body: &[u8]) -> String {
        let body = URL_SAFE_NO_PAD.encode(body);
        match self {
            Purpose::SignIn => format!("sign-in {body}"),
            Purpose::StepUp(session) => format!("step-up {session} {body}"),
            Purpose::Register(session) => format!("register {session} {body}"),
            Purpose::Provider(way) => format!("provider {body} {way}"),
        }
    }

    const fn life(self) -> Duration {
        match self {
            Purpose::Provider(_) => PROVIDER_LIFE,
            _ => CEREMONY_LIFE,
        }
    }
}

/// A challenge that goes out.
pub(crate) struct Asked {
    /// What the browser sends back with the answer.
    pub token: String,
    /// The challenge.
    pub challenge: [u8; CHALLENGE_LEN],
}

/// A challenge that came back in time and for its purpose.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The challenge.
    pub challenge: [u8; CHALLENGE_LEN],
    /// What must be written with whatever the answer permits: it fails the second time.
    pub used: DocumentWrite,
}

/// A new challenge.
pub(crate) fn ask(store: &dyn Store, purpose: Purpose<'_>, now: Timestamp) -> Asked {
    let mut token = Vec::with_capacity(TOKEN_LEN);
    token.extend(sortable(now.plus(purpose.life())));
    token.extend(trust::random_bytes::<{ BODY_LEN - 8 }>());
    token.extend(store.blind("ceremony", &purpose.text(&token)));
    Asked { challenge: sha256(&[b"ceremony", &token]), token: URL_SAFE_NO_PAD.encode(token) }
}

/// Reads a challenge's token again; `None` for one that is over, of another purpose or not ours.
pub(crate) fn answered(
    store: &dyn Store,
    purpose: Purpose<'_>,
    token: &str,
    now: Timestamp,
) -> Option<Answered> {
    let token = URL_SAFE_NO_PAD.decode(token).ok().filter(|token| token.len() == TOKEN_LEN)?;
    let (body, seal) = token.split_at(BODY_LEN);
    if !trust::equal(seal, &store.blind("ceremony", &purpose.text(body))) || body[..8] <= sortable(now)[..] {
        return None;
    }
    let challenge = sha256(&[b"ceremony", &token]);
    let mut id = [0; 16];
    id.copy_from_slice(&sha256(&[b"used ceremony", &token])[..16]);
    let index = vec![IndexEntry { name: BY_END, value: body[..8].to_vec(), unique: false }];
    let used = json_write(Kind::Session, id, Expected::Absent, KeyDomain::System, &true, index);
    Some(Answered { challenge, used })
}

/// Removes marks of challenges that are over. Blocks.
pub(crate) fn sweep(store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
    let query = DocumentQuery {
        kind: Kind::Session,
        index: BY_END,
        prefix: Vec::new(),
        after: None,
        order: Order::Ascending,
        limit: SWEEP_LIMIT,
    };
    let end = sortable(now);
    let over = store.documents(&query)?.into_iter().filter(|one| one.index_value[..] < end[..]);
    let writes: Vec<DocumentWrite> = over.map(|one| DocumentWrite::removal(Kind::Session, one.id)).collect();
    if !writes.is_empty()
        && let Err(error) = store.transact(&Transaction { at: now, writes, ..Transaction::default() })
    {
        // The next one sweeps them.
        tracing::debug!(error = &error as &dyn std::error::Error, "used challenges were not swept");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::sqlite::{Options, SqliteStore};

    use super::*;

    fn store() -> (tempfile::TempDir, Arc<dyn Store>) {
        let directory = tempfile::tempdir().unwrap();
        let kek = trust::Kek::from_bytes(&[7; 32]);
        let store = SqliteStore::open(directory.path(), kek, Options::default()).unwrap();
        (directory, Arc::new(store))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    #[test]
    fn a_challenge_is_good_for_its_purpose_its_session_and_its_time() {
        let (_directory, store) = store();
        let (one, two) = (trust::TokenHash([1; 32]), trust::TokenHash([2; 32]));
        let asked = ask(store.as_ref(), Purpose::StepUp(&one), at(0));
        let read = |purpose, token: &str, second| answered(store.as_ref(), purpose, token, at(second));
        let good = read(Purpose::StepUp(&one), &asked.token, 299).unwrap();
        assert_eq!(good.challenge, asked.challenge);
        assert!(read(Purpose::StepUp(&one), &asked.token, 300).is_none(), "over");
        for purpose in [Purpose::StepUp(&two), Purpose::SignIn, Purpose::Register(&one)] {
            assert!(read(purpose, &asked.token, 1).is_none(), "{purpose:?}");
        }
        let mut longer = URL_SAFE_NO_PAD.decode(&asked.token).unwrap();
        longer[7] ^= 0x40;
        assert!(read(Purpose::StepUp(&one), &URL_SAFE_NO_PAD.encode(longer), 1).is_none(), "another end");
        assert!(read(Purpose::StepUp(&one), "", 1).is_none());
    }

    #[test]
    fn a_challenge_is_used_once_and_its_mark_is_swept() {
        let (_directory, store) = store();
        let use_it = |asked: &Asked, second| {
            let used = answered(store.as_ref(), Purpose::SignIn, &asked.token, at(second)).unwrap().used;
            store.transact(&Transaction { at: at(second), writes: vec![used], ..Transaction::default() })
        };
        let asked = ask(store.as_ref(), Purpose::SignIn, at(0));
        use_it(&asked, 1).unwrap();
        assert!(use_it(&asked, 2).is_err(), "replayed");
        let id = answered(store.as_ref(), Purpose::SignIn, &asked.token, at(2)).unwrap().used.id;
        sweep(store.as_ref(), at(200)).unwrap();
        assert!(store.document(Kind::Session, id).unwrap().is_some(), "not yet over");
        sweep(store.as_ref(), at(301)).unwrap();
        assert!(store.document(Kind::Session, id).unwrap().is_none());
    }
}

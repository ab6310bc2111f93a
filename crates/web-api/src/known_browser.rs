//! Browsers that a person has signed in with before: a sealed cookie, so that strangers who guess a name elsewhere slow
//! nobody down who sits at their own browser. It lets nobody in.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinical_model::Timestamp;
use pipeline::records::sortable;
use store::Store;

use crate::session::cookie_named;

/// How long a browser is known without another sign-in.
const KNOWN_FOR: Duration = Duration::from_secs(90 * 24 * 3_600);
/// People that one browser knows: a tablet of a ward has many.
const PEOPLE_LIMIT: usize = 12;
/// Length of an entry: the browser's id, the end, the seal.
const ENTRY_LEN: usize = 16 + 8 + 16;

const COOKIE: &str = "auscult_known";
const SECURE_COOKIE: &str = "__Host-auscult_known";

/// A browser that a person has signed in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BrowserId(pub [u8; 16]);

impl fmt::Display for BrowserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

fn seal(store: &dyn Store, name: &str, body: &[u8]) -> [u8; 16] {
    let name = crate::people::folded(name);
    store.blind("known-browser", &format!("{} {name}", URL_SAFE_NO_PAD.encode(body)))
}

fn entries(headers: &HeaderMap) -> Vec<String> {
    let text = cookie_named(headers, SECURE_COOKIE).or_else(|| cookie_named(headers, COOKIE));
    let text = text.unwrap_or_default();
    text.split('.').filter(|one| !one.is_empty()).take(PEOPLE_LIMIT).map(str::to_owned).collect()
}

/// The browser's id, where the person of this name has signed in with it.
pub(crate) fn known(store: &dyn Store, headers: &HeaderMap, name: &str, now: Timestamp) -> Option<BrowserId> {
    entries(headers).iter().find_map(|one| {
        let bytes = URL_SAFE_NO_PAD.decode(one).ok().filter(|bytes| bytes.len() == ENTRY_LEN)?;
        let (body, given) = bytes.split_at(24);
        let is_good = trust::equal(given, &seal(store, name, body)) && body[16..] > sortable(now)[..];
        is_good.then(|| BrowserId(body[..16].try_into().unwrap_or_default()))
    })
}

/// The cookie after the person of this name signed in.
pub(crate) fn cookie(
    store: &dyn Store,
    headers: &HeaderMap,
    name: &str,
    now: Timestamp,
    is_secure: bool,
) -> Option<HeaderValue> {
    let id = known(store, headers, name, now).map_or_else(trust::random_bytes, |id| id.0);
    let mut entry = [&id[..], &sortable(now.plus(KNOWN_FOR))].concat();
    entry.extend(seal(store, name, &entry));
    let mut all = vec![URL_SAFE_NO_PAD.encode(entry)];
    let id_text =
        |one: &String| URL_SAFE_NO_PAD.decode(one).ok().and_then(|bytes| bytes.get(..16).map(<[u8]>::to_vec));
    all.extend(entries(headers).into_iter().filter(|one| id_text(one).is_some_and(|other| other != id)));
    all.truncate(PEOPLE_LIMIT);
    let (name, secure) = if is_secure { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let age_s = KNOWN_FOR.as_secs();
    let line =
        format!("{name}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age_s}{secure}", all.join("."));
    HeaderValue::from_str(&line).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use store::sqlite::{Options, SqliteStore};

    use super::*;

    #[test]
    fn a_browser_is_known_to_whoever_signed_in_with_it_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path(), trust::Kek::from_bytes(&[7; 32]), Options::default())
            .unwrap();
        let at = Timestamp::from_seconds;
        let mut headers = HeaderMap::new();
        let sign_in = |headers: &mut HeaderMap, name: &str, second| {
            let set = cookie(&store, headers, name, at(second), true).unwrap();
            let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
            assert!(set.to_str().unwrap().ends_with("; Secure"));
            headers.insert(header::COOKIE, pair.parse().unwrap());
        };
        assert_eq!(known(&store, &headers, "nurse", at(0)), None);
        sign_in(&mut headers, "nurse", 0);
        let id = known(&store, &headers, " NURSE", at(1)).unwrap();
        assert_eq!(known(&store, &headers, "physician", at(1)), None);
        sign_in(&mut headers, "physician", 10);
        assert_eq!(known(&store, &headers, "nurse", at(11)), Some(id), "both are known");
        sign_in(&mut headers, "nurse", 20);
        assert_eq!(entries(&headers).len(), 2);
        let end_s = KNOWN_FOR.as_secs() as i64 + 20;
        assert!(known(&store, &headers, "nurse", at(end_s - 1)).is_some());
        assert_eq!(known(&store, &headers, "nurse", at(end_s)), None);
        for number in 0..40 {
            sign_in(&mut headers, &format!("nurse {number}"), 30);
        }
        assert_eq!(entries(&headers).len(), PEOPLE_LIMIT);
        let forged = headers[header::COOKIE]
            .to_str()
            .unwrap()
            .replace("__Host-auscult_known=", "__Host-auscult_known=AAAA");
        headers.insert(header::COOKIE, forged.parse().unwrap());
        assert_eq!(known(&store, &headers, "nurse 39", at(31)), None);
    }
}

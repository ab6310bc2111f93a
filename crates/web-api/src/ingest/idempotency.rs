//! Idempotency keys: a repeat of a request gets the first answer again, another request under its key is refused.
//!
//! A key is claimed before anything is committed, so that of two different requests under one key only one is taken.
//! Two equal requests at one time both go on, which the identity of readings makes harmless; the first answer stands.

use std::time::Duration;

use axum::http::HeaderMap;
use clinical_model::{DeviceId, FrameKind, Timestamp};
use pipeline::Peer;
use pipeline::records::{REQUESTS_BY_DEVICE, json_from, json_write, sortable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{
    Document, DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, StoreError,
    TransactError, Transaction,
};

use super::device_bytes;
use crate::problem::{Code, Problem};
use crate::state::Web;

/// The header.
const HEADER: &str = "idempotency-key";
/// Longest key, in characters.
pub(super) const KEY_LIMIT_CHARS: usize = 128;
/// An answer is kept for so long: a device that was off for a day still gets it.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Keys that are over and removed with each new one: more than one, so that they cannot pile up.
const SWEEP_LIMIT_KEYS: usize = 16;
/// Times that a claim is tried again when somebody else was faster: each time there is something new to read.
const CLAIM_LIMIT_TRIES: usize = 5;
/// The index of keys by the end of their time.
const BY_EXPIRY: &str = "expires";

/// A key, bound to its sender, and what was sent under it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    id: [u8; 16],
    device: DeviceId,
    fingerprint: String,
}

impl Key {
    /// The key of a request, if it has one.
    ///
    /// # Errors
    /// 400 for a key that is empty, too long or not visible ASCII.
    pub(super) fn of(
        headers: &HeaderMap,
        peer: &Peer,
        device: DeviceId,
        kind: FrameKind,
        body: &[u8],
    ) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let key = value.as_bytes();
        let sound =
            (1..=KEY_LIMIT_CHARS).contains(&key.len()) && key.iter().all(|byte| byte.is_ascii_graphic());
        if !sound || headers.get_all(HEADER).iter().count() > 1 {
            let what = format!(
                "Idempotency-Key is given once, with 1 to {KEY_LIMIT_CHARS} visible ASCII characters"
            );
            return Err(Problem::bad_request(what));
        }
        let sender = match peer {
            Peer::Device(device) => format!("device {device}"),
            Peer::Program(name) => format!("program {name}"),
        };
        let digest = trust::digest::sha256(&[b"idempotency", sender.as_bytes(), &device_bytes(device), key]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        let content = trust::digest::sha256(&[kind.to_string().as_bytes(), body]);
        Ok(Some(Key { id, device, fingerprint: crate::json::hex(&content) }))
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    fingerprint: String,
    expires_at: Timestamp,
    answer: Option<Value>,
}

/// What a claim came to.
pub(super) enum Claim {
    /// The request was answered before.
    Answered(Value),
    /// It is ours to do; the version of the claim.
    Proceed {
        /// Version of the record.
        version: u64,
    },
}

/// Claims a key before its request is done.
///
/// # Errors
/// 422 where the key was used for another request; 503 where the claim cannot be kept.
pub(super) fn claim(web: &Web, key: &Key) -> Result<Claim, Problem> {
    let now = web.site.clock().now();
    for _ in 0..CLAIM_LIMIT_TRIES {
        let expected = match read(web, key)? {
            None => Expected::Absent,
            Some((document, record)) if record.expires_at <= now => Expected::Version(document.version),
            Some((_, record)) if record.fingerprint != key.fingerprint => {
                let what = "this Idempotency-Key was used for another request; use a new one for each";
                return Err(Problem::new(Code::KeyUsed, what));
            }
            Some((_, Record { answer: Some(answer), .. })) => return Ok(Claim::Answered(answer)),
            // Under way elsewhere, or broken off: to do it again is harmless.
            Some((document, _)) => return Ok(Claim::Proceed { version: document.version }),
        };
        match write(web, key, expected, None, now) {
            Ok(()) => {
                sweep(web, now);
                let version = match expected {
                    Expected::Version(before) => before + 1,
                    _ => 1,
                };
                return Ok(Claim::Proceed { version });
            }
            Err(TransactError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(Code::Unavailable, "this Idempotency-Key is contended; send again").retry_after(1))
}

/// Keeps the answer; where another was faster, theirs stands. True where it is not the answer given.
///
/// # Errors
/// 503 where the answer cannot be kept. What was sent is committed all the same, and a repeat finds it.
pub(super) fn complete(web: &Web, key: &Key, version: u64, answer: Value) -> Result<(Value, bool), Problem> {
    let now = web.site.clock().now();
    match write(web, key, Expected::Version(version), Some(&answer), now) {
        Ok(()) => Ok((answer, false)),
        Err(TransactError::Conflict { .. }) => match read(web, key)? {
            Some((_, Record { answer: Some(first), fingerprint, .. })) if fingerprint == key.fingerprint => {
                Ok((first, true))
            }
            _ => Ok((answer, false)),
        },
        Err(error) => Err(error.into()),
    }
}

fn read(web: &Web, key: &Key) -> Result<Option<(Document, Record)>, Problem> {
    let document = web.site.store().document(Kind::IdempotentRequest, key.id).map_err(failed)?;
    let Some(document) = document else { return Ok(None) };
    let record = json_from(&document.body).map_err(|error| {
        failed(StoreError::Damaged {
            what: "record of an idempotency key".to_owned(),
            how: error.to_string(),
        })
    })?;
    Ok(Some((document, record)))
}

fn failed(error: StoreError) -> Problem {
    pipeline::audited::ReadError::Store(error).into()
}

fn write(
    web: &Web,
    key: &Key,
    expected: Expected,
    answer: Option<&Value>,
    now: Timestamp,
) -> Result<(), TransactError> {
    let expires_at = now.plus(KEPT_FOR);
    let record = Record { fingerprint: key.fingerprint.clone(), expires_at, answer: answer.cloned() };
    let entry = |name, value| IndexEntry { name, value, unique: false };
    let index = vec![
        entry(BY_EXPIRY, sortable(expires_at).to_vec()),
        // By which the erasure of a patient finds what the patient's devices were answered.
        entry(REQUESTS_BY_DEVICE, device_bytes(key.device).to_vec()),
    ];
    let write = json_write(Kind::IdempotentRequest, key.id, expected, KeyDomain::System, &record, index);
    web.site.store().transact(&Transaction { at: now, writes: vec![write], ..Transaction::default() })
}

/// Removes a few keys whose time is over. A failure only leaves them for the next one.
fn sweep(web: &Web, now: Timestamp) {
    let store = web.site.store();
    let query = DocumentQuery {
        kind: Kind::IdempotentRequest,
        index: BY_EXPIRY,
        prefix: Vec::new(),
        after: None,
        order: Order::Ascending,
        limit: SWEEP_LIMIT_KEYS,
    };
    let Ok(oldest) = store.documents(&query) else { return };
    let end = sortable(now);
    let over = oldest.into_iter().filter(|document| document.index_value.as_slice() <= end.as_slice());
    let writes: Vec<DocumentWrite> = over
        .map(|document| DocumentWrite {
            kind: Kind::IdempotentRequest,
            id: document.id,
            expected: Expected::Version(document.version),
            domain: KeyDomain::System,
            body: None,
            index: Vec::new(),
        })
        .collect();
    if !writes.is_empty()
        && let Err(error) = store.transact(&Transaction { at: now, writes, ..Transaction::default() })
    {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "old idempotency keys stay for the next sweep"
        );
    }
}

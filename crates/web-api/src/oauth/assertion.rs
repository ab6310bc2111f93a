//! How a program proves itself: nothing but its name (a public app, held by PKCE), or an assertion signed with its key,
//! `private_key_jwt` (RFC 7523 §2.2; SMART App Launch 2.2, "Client Authentication: Asymmetric"). Each assertion is good once.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use clinical_model::Timestamp;
use pipeline::records::{json_write, sortable};
use store::{
    Actor, AuditAction, DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order,
    TransactError, Transaction,
};
use trust::jwt::{self, Algorithm};

use super::answer::{Parameters, Word, Wrong};
use super::clients::Client;
use super::origin_of;
use crate::json::session::Asking;
use crate::state::Web;

/// Signature algorithms of assertions: those that SMART requires, and the usual ones beside them.
pub(super) const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Es384, Algorithm::Rs384, Algorithm::Es256, Algorithm::Rs256];
/// What an assertion must be called.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// An assertion may last so long (SMART: five minutes).
const LIFE: Duration = Duration::from_secs(300);
/// How much the clock of a program may differ.
const LEEWAY: Duration = Duration::from_secs(10);
/// Longest `jti`, in bytes.
const JTI_LIMIT_BYTES: usize = 256;
/// Spent assertions beyond their time that are removed with each new one.
const SWEEP_LIMIT: usize = 16;
/// The index of spent assertions by their end.
const BY_END: &str = "end";

fn invalid(what: impl Into<String>) -> Wrong {
    Wrong::new(Word::InvalidClient, what)
}

/// The program that asks, proven as its registration demands. Blocks.
///
/// # Errors
/// [`Wrong`], `invalid_client`: which of the reasons it was stands in the audit log only where it would help a guesser.
pub(super) fn client_of(web: &Web, from: &Asking, asked: &Parameters) -> Result<Arc<Client>, Wrong> {
    let headers = &from.headers;
    if headers.contains_key(header::AUTHORIZATION) || asked.get("client_secret").is_some() {
        return Err(invalid(
            "secrets are not taken here: public apps send client_id, others private_key_jwt",
        ));
    }
    let claimed = match asked.get("client_assertion") {
        None => {
            asked.get("client_id").ok_or_else(|| invalid("no client_id and no client_assertion"))?.to_owned()
        }
        Some(assertion) => {
            if asked.get("client_assertion_type") != Some(ASSERTION_TYPE) {
                return Err(invalid(format!("client_assertion_type must be {ASSERTION_TYPE}")));
            }
            jwt::unproven_issuer(assertion).map_err(|error| invalid(error.to_string()))?
        }
    };
    let proven = proven(web, headers, asked, &claimed);
    if let Err(wrong) = &proven {
        let claimed: String = claimed.chars().take(64).collect();
        let by = from.caller.by(Actor::Unproven(claimed));
        let act = by.act(AuditAction::SignIn, "program").detail(wrong.what.clone());
        if let Err(error) = web.stranger_refused(&from.caller, act) {
            tracing::error!(error = &error as &dyn std::error::Error, "a refusal could not be recorded");
        }
    }
    proven
}

fn proven(web: &Web, headers: &HeaderMap, asked: &Parameters, claimed: &str) -> Result<Arc<Client>, Wrong> {
    // An unknown program, a disabled one and a wrong key are answered alike.
    let unknown = || invalid("the program is unknown, disabled, or did not prove itself");
    if asked.get("client_id").is_some_and(|named| named != claimed) {
        return Err(invalid("client_id and the assertion name two programs"));
    }
    let client = web.oauth.clients.by_text(claimed).ok_or_else(unknown)?;
    let assertion = match (asked.get("client_assertion"), client.is_confidential()) {
        (None, false) => return Ok(client),
        (Some(assertion), true) => assertion,
        _ => return Err(unknown()),
    };
    let now = web.site.clock().now();
    let origin = origin_of(&web.options, headers);
    let audiences = [format!("{origin}/oauth2/token"), origin.clone()];
    let expected = jwt::Expected {
        algorithms: &ALGORITHMS,
        types: &["JWT", "client-authentication+jwt"],
        issuer: claimed,
        audiences: &audiences,
        now_s: now.as_seconds(),
        leeway: LEEWAY,
        life: Some(LIFE),
    };
    let claims = jwt::verify(assertion, &client.keys, &expected).map_err(|error| match error {
        jwt::JwtError::UnknownKey | jwt::JwtError::Signature => unknown(),
        other => invalid(other.to_string()),
    })?;
    if claims.text("sub") != Some(claimed) {
        return Err(invalid("the claim \"sub\" must be the client_id"));
    }
    let jti = claims.text("jti").filter(|jti| !jti.is_empty() && jti.len() <= JTI_LIMIT_BYTES);
    let jti = jti.ok_or_else(|| invalid("the claim \"jti\" is missing, or too long"))?;
    // Until nothing with this jti could pass any more, on whatever clock.
    let end = Timestamp::from_seconds(claims.seconds("exp").unwrap_or(0)).plus(LEEWAY * 2);
    spend(web, claimed, jti, now, end)?;
    Ok(client)
}

/// Takes the one use of an assertion, on whichever node it comes.
fn spend(web: &Web, client: &str, jti: &str, now: Timestamp, end: Timestamp) -> Result<(), Wrong> {
    let digest = trust::digest::sha256(&[b"assertion", client.as_bytes(), jti.as_bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    let store = web.site.store();
    let query = DocumentQuery {
        kind: Kind::SpentAssertion,
        index: BY_END,
        prefix: Vec::new(),
        after: None,
        order: Order::Ascending,
        limit: SWEEP_LIMIT,
    };
    let passed = sortable(now);
    let over =
        store.documents(&query)?.into_iter().filter(|one| one.index_value[..] < passed[..] && one.id != id);
    let index = vec![IndexEntry { name: BY_END, value: sortable(end).to_vec(), unique: false }];
    let mut writes =
        vec![json_write(Kind::SpentAssertion, id, Expected::Absent, KeyDomain::System, &end, index)];
    writes.extend(over.map(|one| DocumentWrite::removal(Kind::SpentAssertion, one.id)));
    match store.transact(&Transaction { at: now, writes, ..Transaction::default() }) {
        Ok(()) => Ok(()),
        Err(TransactError::Conflict { .. }) => Err(invalid("the assertion was used already (jti)")),
        Err(error) => Err(error.into()),
    }
}

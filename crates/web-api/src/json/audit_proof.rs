//! Proofs of the audit log: of one row, the state of the log and its witnesses, checkpoints and tiles.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::Timestamp;
use pipeline::audited::ReadError;
use pipeline::checkpoints::{WitnessHealth, WitnessState};
use serde::Serialize;
use store::{AuditAction, KeptCheckpoint, Log, LogEntry};
use trust::log::checkpoint::Checkpoint;
use trust::log::note::{KeyKind, VerifierKey};
use trust::log::receipt::Receipt;

use super::{Answer, id_of};
use crate::access::{Permit, may};
use crate::problem::{Code, Problem};
use crate::state::Web;

#[derive(Serialize)]
struct Content {
    header: String,
    blinding: String,
    payload: String,
}

/// Everything that proves one row, to be checked by whoever reads it.
#[derive(Serialize)]
pub(crate) struct Proof {
    log: &'static str,
    origin: String,
    sequence: u64,
    index: u64,
    size: u64,
    leaf_input: Option<String>,
    leaf: String,
    path: Vec<String>,
    root: String,
    checkpoint: String,
    log_keys: Vec<String>,
    witness_keys: Vec<String>,
    content: Option<Content>,
    tlog_proof: String,
}

fn log_keys(web: &Web) -> Result<Vec<VerifierKey>, ReadError> {
    let signers = web.site.store().log().log_signers(web.site.clock().now())?;
    Ok(signers.iter().map(|signer| signer.verifier().clone()).collect())
}

fn texts(keys: &[VerifierKey]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

/// What SHA-256 hashes of a leaf after its first byte: the header and the commitment to the payload.
fn leaf_input(entry: &LogEntry) -> Option<String> {
    let (blinding, payload) = entry.content.as_ref()?;
    Some(STANDARD.encode(trust::audit::leaf_input(&entry.header, blinding, payload)))
}

pub(crate) async fn proof(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadAudit>,
    Path(sequence): Path<String>,
) -> Answer<Proof> {
    let sequence: u64 = id_of(&sequence, "row of the audit log")?;
    web.blocking(move |web| {
        let log = web.site.store().log();
        let act = access.act(AuditAction::Read, "audit proof").detail(format!("row {sequence}"));
        let found = access.read(web, act, |_| Ok(log.log_entry(sequence)?))?;
        let (entry, _) = found.ok_or_else(|| Problem::not_found("row of the audit log"))?;
        let last = log.checkpoints(Log::Acts, None, 1).map_err(ReadError::Store)?.into_iter().next();
        let last = last.filter(|last| last.size >= sequence).ok_or_else(|| {
            let what = "no signed checkpoint covers this row yet; one does within seconds";
            Problem::new(Code::NotYetProvable, what)
        })?;
        let (head, _) = Checkpoint::parse(&last.note).map_err(|_| Problem::internal())?;
        let index = sequence - 1;
        let path = log.log_inclusion(Log::Acts, index, head.size).map_err(ReadError::Store)?;
        let keys = log_keys(web)?;
        let receipt = Receipt { index, path: path.clone(), extra: Vec::new(), checkpoint: last.note.clone() };
        // Shown is only what we could believe ourselves.
        if receipt.verify(&entry.leaf, &keys).is_err() {
            tracing::error!(row = sequence, "the proof of an audit row does not hold; run `auscult verify`");
            return Err(Problem::new(
                Code::NotYetProvable,
                "the proof of this row does not hold; verify the log",
            ));
        }
        let witness_keys = web.site.log_watch().witnesses().into_iter().map(|witness| witness.key).collect();
        Ok(Json(Proof {
            log: Log::Acts.name(),
            origin: head.origin,
            sequence,
            index,
            size: head.size,
            leaf_input: leaf_input(&entry),
            leaf: STANDARD.encode(entry.leaf),
            path: path.iter().map(|hash| STANDARD.encode(hash)).collect(),
            root: STANDARD.encode(head.root),
            checkpoint: last.note,
            log_keys: texts(&keys),
            witness_keys,
            content: entry.content.map(|(blinding, payload)| Content {
                header: STANDARD.encode(&entry.header),
                blinding: STANDARD.encode(blinding),
                payload: String::from_utf8_lossy(&payload).into_owned(),
            }),
            tlog_proof: receipt.to_text(),
        }))
    })
    .await?
}

#[derive(Serialize)]
struct CheckpointView {
    size: u64,
    at: Timestamp,
    note: String,
    cosigned_by: Vec<String>,
}

#[derive(Serialize)]
struct LogView {
    log: &'static str,
    origin: String,
    epoch: u64,
    rows: u64,
    size: u64,
    checkpoint: Option<CheckpointView>,
}

#[derive(Serialize)]
struct KeyView {
    vkey: String,
    id: String,
    active: bool,
}

#[derive(Serialize)]
struct WitnessView {
    name: String,
    url: String,
    state: &'static str,
    last_at: Option<Timestamp>,
    last_size: Option<u64>,
    what: String,
}

/// How the logs and their witnesses stand.
#[derive(Serialize)]
pub(crate) struct LogsView {
    logs: Vec<LogView>,
    keys: Vec<KeyView>,
    witnesses: Vec<WitnessView>,
    alarms: Vec<String>,
}

fn checkpoint_view(kept: KeptCheckpoint, witnesses: &[VerifierKey]) -> CheckpointView {
    let signed = Checkpoint::verified(&kept.note, witnesses).map(|(_, signed)| signed).unwrap_or_default();
    let cosigned_by = signed
        .into_iter()
        .filter(|signed| signed.by.kind() == KeyKind::Witness)
        .map(|signed| signed.by.name().to_owned())
        .collect();
    CheckpointView { size: kept.size, at: kept.at, note: kept.note, cosigned_by }
}

fn witness_view(state: WitnessState) -> WitnessView {
    let word = match state.health {
        WitnessHealth::New => "new",
        WitnessHealth::Fresh => "fresh",
        WitnessHealth::Stale => "stale",
        WitnessHealth::Refused => "refused",
        WitnessHealth::Unreachable => "unreachable",
    };
    let WitnessState { name, url, last_at, last_size, what, .. } = state;
    WitnessView { name, url, state: word, last_at, last_size, what }
}

pub(crate) async fn state(State(web): State<Arc<Web>>, access: Permit<may::ReadAudit>) -> Answer<LogsView> {
    web.blocking(move |web| {
        let act = access.act(AuditAction::Read, "state of the log");
        access.read(web, act, |_| Ok(()))?;
        let witnesses = web.site.log_watch().witnesses();
        let known: Vec<VerifierKey> =
            witnesses.iter().filter_map(|witness| witness.key.parse().ok()).collect();
        let mut logs = Vec::new();
        for log in Log::ALL {
            let state = web.site.store().log().log_state(log).map_err(ReadError::Store)?;
            logs.push(LogView {
                log: log.name(),
                origin: state.origin_line(),
                epoch: state.epoch,
                rows: state.rows,
                size: state.size,
                checkpoint: state.checkpoint.map(|kept| checkpoint_view(kept, &known)),
            });
        }
        let keys = log_keys(web)?;
        let newest = keys.len().saturating_sub(1);
        let keys = keys.iter().enumerate().map(|(at, key)| KeyView {
            vkey: key.to_string(),
            id: key.id_text(),
            active: at == newest,
        });
        let mut alarms = web.site.log_watch().alarms();
        let unseen = pipeline::restored::unseen(web.site.store()).map_err(ReadError::Store)?;
        alarms.extend(unseen.map(|restored| {
            format!("A backup was restored at {}: {}", restored.restored_at, restored.unknown())
        }));
        Ok(Json(LogsView {
            logs,
            keys: keys.collect(),
            witnesses: witnesses.into_iter().map(witness_view).collect(),
            alarms,
        }))
    })
    .await?
}

/// `GET /audit/checkpoint`: for monitors; says how many acts there were, and nothing of them.
pub(crate) async fn checkpoint(State(web): State<Arc<Web>>) -> Result<Response, Problem> {
    newest(&web, Log::Acts).await
}

/// `GET /audit/groups/checkpoint`
pub(crate) async fn groups_checkpoint(State(web): State<Arc<Web>>) -> Result<Response, Problem> {
    newest(&web, Log::Groups).await
}

async fn newest(web: &Arc<Web>, log: Log) -> Result<Response, Problem> {
    let kept = web.blocking(move |web| web.site.store().log().checkpoints(log, None, 1)).await?;
    let kept = kept.map_err(ReadError::Store)?.into_iter().next();
    let kept = kept.ok_or_else(|| Problem::not_found("checkpoint yet"))?;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok((
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        kept.note,
    )
        .into_response())
}

/// `GET /audit/tile/{level}/{number}`
pub(crate) async fn tile(
    State(web): State<Arc<Web>>,
    _: Permit<may::ReadAudit>,
    Path((level, number)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (level, number): (u8, u64) = (id_of(&level, "tile")?, id_of(&number, "tile")?);
    let read = web.blocking(move |web| web.site.store().log().log_tile(Log::Acts, level, number)).await?;
    let hashes = read.map_err(ReadError::Store)?;
    if hashes.is_empty() {
        return Err(Problem::not_found("tile"));
    }
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind)], hashes.concat()).into_response())
}

//! Keys: which key-encryption key is in force, where it lives, and turns of it and of patients' keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::{PatientId, Timestamp};
use pipeline::rekeying::TurnError;
use serde::{Deserialize, Serialize};
use store::{KekTurn, Rekey, StoreError};
use trust::SourceError;

use super::{Answer, Body, id_of};
use crate::access::{Permission, Permit, may};
use crate::problem::{Code, Problem};
use crate::state::Web;

/// Longest reason of an act, in characters.
pub(super) const REASON_LIMIT_CHARS: usize = 1_000;

/// Where the key-encryption key lives, as the settings say.
#[derive(Clone, Debug, Default)]
pub struct KeyHome {
    /// `file`, `credential`, `command`, `pkcs11`; empty where a key was given by hand.
    pub provider: String,
    /// Which one; never the key.
    pub place: String,
    /// Whether key and data share a volume, so that one theft takes both.
    pub same_volume: bool,
    /// Days after an erasure within which the epoch must have turned.
    pub turn_within_days: u32,
}

/// Why an act is done.
#[derive(Deserialize)]
pub(crate) struct Because {
    reason: String,
}

impl Because {
    pub(super) fn checked(&self) -> Result<&str, Problem> {
        let reason = self.reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON_LIMIT_CHARS {
            return Err(Problem::bad_request(format!(
                "reason must have 1 to {REASON_LIMIT_CHARS} characters"
            )));
        }
        Ok(reason)
    }
}

#[derive(Serialize)]
struct EpochView {
    fingerprint: String,
    since: Option<Timestamp>,
}

#[derive(Serialize)]
struct TurnView {
    to: String,
    state: &'static str,
    done: u64,
    all: u64,
    nodes_waiting: u64,
}

impl From<KekTurn> for TurnView {
    fn from(turn: KekTurn) -> Self {
        let state = match (turn.nodes_waiting, turn.done == turn.all) {
            (1.., _) => "waiting-for-nodes",
            (0, false) => "wrapping",
            (0, true) => "destroying",
        };
        let KekTurn { to, nodes_waiting, done, all } = turn;
        TurnView { to, state, done, all, nodes_waiting }
    }
}

#[derive(Serialize)]
struct DueView {
    since: Timestamp,
    by: Timestamp,
    erasures: usize,
}

#[derive(Serialize)]
struct CountsView {
    patients: u64,
    system: u64,
    journal: u64,
}

#[derive(Serialize)]
pub(crate) struct PatientTurnView {
    patient: String,
    label: String,
    begun_at: Timestamp,
    done: u64,
    all: u64,
}

#[derive(Serialize)]
pub(crate) struct KeysView {
    provider: String,
    place: String,
    same_volume: bool,
    epoch: EpochView,
    turn: Option<TurnView>,
    turn_due: Option<DueView>,
    data_keys: CountsView,
    patient_turns: Vec<PatientTurnView>,
}

/// A patient's name for people who may see it; "erased" where there is none.
pub(super) fn label_of(web: &Web, patient: PatientId) -> String {
    web.site.registry().patient(patient).map_or_else(
        || "erased".to_owned(),
        |known| format!("{}, {}", known.family.expose().to_uppercase(), known.given.expose()),
    )
}

fn turn_view(web: &Web, rekey: &Rekey) -> Option<PatientTurnView> {
    let patient = rekey.patient?;
    let (begun_at, done, all) = (rekey.begun_at, rekey.done, rekey.all);
    Some(PatientTurnView { patient: patient.to_string(), label: label_of(web, patient), begun_at, done, all })
}

fn view(web: &Web) -> Result<KeysView, Problem> {
    let status = web.site.store().care().key_status().map_err(failed)?;
    let waiting: Vec<_> = web
        .site
        .erasures()
        .map_err(super::erasure::refused)?
        .into_iter()
        .filter(|erasure| erasure.epoch_destroyed_at.is_none())
        .collect();
    let since = waiting.iter().map(|erasure| erasure.begun_at).min();
    let by = waiting.iter().map(|erasure| erasure.turn_due_by).min();
    let turn_due = since.zip(by).map(|(since, by)| DueView { since, by, erasures: waiting.len() });
    let home = &web.options.key_home;
    Ok(KeysView {
        provider: home.provider.clone(),
        place: home.place.clone(),
        same_volume: home.same_volume,
        epoch: EpochView { fingerprint: status.epoch, since: status.epoch_since },
        turn: status.turn.map(TurnView::from),
        turn_due,
        data_keys: CountsView {
            patients: status.patient_keys,
            system: status.system_keys,
            journal: status.journal_keys,
        },
        patient_turns: status.rekeys.iter().filter_map(|rekey| turn_view(web, rekey)).collect(),
    })
}

/// What a failure of the store says to a person who may manage keys.
fn failed(error: StoreError) -> Problem {
    match error {
        StoreError::KeySource { source: SourceError::ByHand { advice }, .. } => {
            Problem::new(Code::ByHand, advice)
        }
        StoreError::KeySource { source, .. } => Problem::new(Code::Unavailable, source.to_string()),
        error => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the keys could not be read or turned over"
            );
            Problem::internal()
        }
    }
}

fn refused(error: TurnError) -> Problem {
    match error {
        TurnError::NotFound => Problem::not_found("patient"),
        TurnError::Audit(error) => error.into(),
        TurnError::Store(error) => failed(error),
    }
}

/// `GET /api/v1/keys`
pub(crate) async fn show(State(web): State<Arc<Web>>, _permit: Permit<may::ManageKeys>) -> Answer<KeysView> {
    web.blocking(|web| view(web).map(Json)).await?
}

#[derive(Serialize)]
pub(crate) struct Turned {
    turn: TurnView,
}

/// `POST /api/v1/keys/turn`
pub(crate) async fn turn(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageKeys>,
    Body(because): Body<Because>,
) -> Answer<Turned> {
    because.checked()?;
    let turned =
        web.blocking(move |web| web.site.turn_kek(permit.by(), because.checked().unwrap_or_default()));
    Ok(Json(Turned { turn: turned.await?.map_err(refused)?.into() }))
}

/// `POST /api/v1/patients/{id}/key/turn`
pub(crate) async fn turn_of_patient(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ManageKeys>,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Answer<PatientTurnView> {
    because.checked()?;
    let patient: PatientId = id_of(&id, "patient")?;
    web.blocking(move |web| {
        if !permit.sight(web).may(Permission::ManageKeys, patient) {
            return Err(Problem::not_found("patient"));
        }
        let reason = because.checked()?;
        let rekey = web.site.turn_patient_key(permit.by(), patient, reason).map_err(refused)?;
        turn_view(web, &rekey).map(Json).ok_or_else(Problem::internal)
    })
    .await?
}

//! How the server fares: what waits for the disk, and what had to give way. Numbers only, nothing about a patient.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clinical_model::Timestamp;
use pipeline::shedding::{CLASSES, Load};
use serde::Serialize;

use crate::access::{Permit, may};
use crate::state::Web;

/// A class that was refused within so long counts as giving way now: as long as somebody looks at a banner.
const SHEDDING_FOR: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct StatusView {
    ingest: IngestView,
    quarantine: QuarantineView,
    policies: PoliciesView,
}

#[derive(Serialize)]
struct PoliciesView {
    /// `ok`, or `not-taken` where a later set had a mistake in it and the one before is in force.
    state: &'static str,
    loaded_at: Timestamp,
}

#[derive(Serialize)]
struct IngestView {
    /// `ok`, `shedding` while something had to give way within the last minute, `stopping`.
    state: &'static str,
    /// What had to give way, the most urgent first.
    shedding: Vec<&'static str>,
    waiting_frames: BTreeMap<&'static str, usize>,
    waiting_bytes: usize,
    oldest_waits_ms: u64,
    refused_frames: BTreeMap<&'static str, u64>,
    last_refused_at: BTreeMap<&'static str, Timestamp>,
    refused_shares: u64,
}

#[derive(Serialize)]
struct QuarantineView {
    items: u64,
    bytes: u64,
    /// Whether nothing more is taken that would have to be quarantined.
    is_full: bool,
}

pub(crate) async fn show(State(web): State<Arc<Web>>, _: Permit<may::SignedIn>) -> Response {
    let load = web.site.intake().map(|intake| intake.load());
    let count = web.site.store().quarantine_count();
    let loaded = web.policies().loaded();
    let view = StatusView {
        ingest: ingest(load, web.site.clock().now()),
        quarantine: QuarantineView {
            items: count.items,
            bytes: count.bytes,
            is_full: count.items >= pipeline::intake::QUARANTINE_LIMIT_ITEMS
                || count.bytes >= pipeline::intake::QUARANTINE_LIMIT_BYTES,
        },
        policies: PoliciesView {
            state: if loaded.error.is_some() { "not-taken" } else { "ok" },
            loaded_at: loaded.at,
        },
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response()
}

fn ingest(load: Option<Load>, now: Timestamp) -> IngestView {
    let is_stopping = load.is_none();
    let load = load.unwrap_or_default();
    let shedding: Vec<_> = load.shedding(now, SHEDDING_FOR).map(pipeline::shedding::Class::name).collect();
    let named = |index: usize| CLASSES[index].name();
    IngestView {
        state: match shedding.is_empty() {
            _ if is_stopping => "stopping",
            true => "ok",
            false => "shedding",
        },
        shedding,
        waiting_frames: load
            .waiting_frames
            .iter()
            .enumerate()
            .map(|(at, count)| (named(at), *count))
            .collect(),
        waiting_bytes: load.waiting_bytes,
        oldest_waits_ms: u64::try_from(load.oldest_waits.as_millis()).unwrap_or(u64::MAX),
        refused_frames: load
            .refused_frames
            .iter()
            .enumerate()
            .map(|(at, count)| (named(at), *count))
            .collect(),
        last_refused_at: load
            .refused_at
            .iter()
            .enumerate()
            .filter_map(|(at, when)| Some((named(at), (*when)?)))
            .collect(),
        refused_shares: load.refused_shares,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_to_give_way_is_shown_for_a_minute() {
        let refused = Timestamp::from_seconds(1_000);
        let load = Load {
            waiting_frames: [1, 20, 300],
            waiting_bytes: 4_096,
            oldest_waits: Duration::from_millis(2_500),
            disk_is_behind: true,
            refused_frames: [0, 0, 7],
            refused_at: [None, None, Some(refused)],
            refused_shares: 2,
        };
        let shown =
            |now_s| serde_json::to_value(ingest(Some(load.clone()), Timestamp::from_seconds(now_s))).unwrap();
        assert_eq!(
            shown(1_059),
            serde_json::json!({
                "state": "shedding",
                "shedding": ["backfill"],
                "waiting_frames": { "alarm": 1, "live": 20, "backfill": 300 },
                "waiting_bytes": 4_096,
                "oldest_waits_ms": 2_500,
                "refused_frames": { "alarm": 0, "live": 0, "backfill": 7 },
                "last_refused_at": { "backfill": refused },
                "refused_shares": 2,
            })
        );
        let later = shown(1_061);
        assert_eq!((&later["state"], &later["shedding"]), (&"ok".into(), &serde_json::json!([])));
        assert_eq!(later["refused_frames"]["backfill"], 7, "the count stays");
    }

    #[test]
    fn a_stopping_server_says_so() {
        assert_eq!(ingest(None, Timestamp::from_seconds(0)).state, "stopping");
    }
}

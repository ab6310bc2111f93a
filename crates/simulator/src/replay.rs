//! Replay of one recording on disk through a device's connection, in real time or faster.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clinical_model::{DeviceId, FrameKind, Timestamp};
use tokio::time::{Instant, sleep_until};

use crate::client::{Acked, Closed, Pending, Publisher, Qos};
use crate::strip::{Strip, StripError};
use crate::wfdb::{Record, RecordError};

/// Slowest and fastest replay.
pub const SPEED_RANGE: (f64, f64) = (0.1, 1_000.0);

/// Answers that are collected at once; twice as many may be open, so that sending rarely waits.
const COLLECT: usize = 16;

/// What became of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Envelopes sent, one a recorded second.
    pub sent: u64,
    /// Envelopes that the server acknowledged.
    pub acked: u64,
    /// Envelopes that the server refused.
    pub refused: u64,
}

/// Why a replay did not begin or did not end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The record cannot be read.
    #[error("the record cannot be read")]
    Record(#[from] RecordError),
    /// The record has nothing to show.
    #[error("the record cannot be replayed")]
    Strip(#[from] StripError),
    /// The connection ended.
    #[error("the connection ended after {} of {} seconds", progress.sent, seconds)]
    Closed {
        /// What was done until then.
        progress: Replayed,
        /// Length of the record.
        seconds: u64,
        /// The end.
        #[source]
        source: Closed,
    },
}

/// Replays a WFDB record once: every second of it as one envelope with all its curves and the heart rate.
///
/// The first sample is stamped `from`; `speed` (cut to [`SPEED_RANGE`]) only changes how fast envelopes are
/// sent, never what they say. `tell` hears of every envelope that was sent.
///
/// # Errors
/// [`ReplayError`].
pub async fn replay(
    path: &Path,
    publisher: &Publisher,
    device: DeviceId,
    from: Timestamp,
    speed: f64,
    mut tell: impl FnMut(Replayed),
) -> Result<Replayed, ReplayError> {
    let record = Record::open(path)?;
    let strip = Strip::all_leads(&record.header.record, &record)?;
    let speed = if speed.is_finite() { speed.clamp(SPEED_RANGE.0, SPEED_RANGE.1) } else { 1.0 };
    let seconds = strip.duration_s() as u64;
    let topic = format!("auscult/v1/{device}/{}", FrameKind::Envelope);
    let began = Instant::now();
    let mut progress = Replayed::default();
    let mut waiting: Vec<Pending> = Vec::new();
    let closed = |progress| move |source| ReplayError::Closed { progress, seconds, source };
    for second in 0..seconds {
        sleep_until(began + Duration::from_secs_f64(second as f64 / speed)).await;
        let number = u32::try_from(second).unwrap_or(u32::MAX);
        let at = from.plus(Duration::from_secs(second));
        let frame = crate::play::second_frame(&strip, second, at, number);
        let payload: Arc<[u8]> = frame.into_bytes().into();
        let pending = publisher.publish(topic.clone(), payload, Qos::AtLeastOnce).await;
        waiting.push(pending.map_err(closed(progress))?);
        progress.sent += 1;
        tell(progress);
        if waiting.len() >= 2 * COLLECT {
            for pending in waiting.drain(..COLLECT) {
                let acked = pending.await.map_err(closed(progress))?;
                settle(&mut progress, acked);
            }
        }
    }
    for pending in waiting {
        let acked = pending.await.map_err(closed(progress))?;
        settle(&mut progress, acked);
    }
    tell(progress);
    Ok(progress)
}

fn settle(progress: &mut Replayed, acked: Acked) {
    if acked.is_refused() {
        progress.refused += 1;
    } else {
        progress.acked += 1;
    }
}

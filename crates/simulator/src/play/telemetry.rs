//! A telemetry transmitter: each second one envelope with a block of each curve and the heart rate.

use std::sync::Arc;
use std::time::Duration;

use clinical_model::{FrameKind, Timestamp};
use device_codecs::envelope::{encode_batch, encode_scalar, encode_waveform};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep, sleep_until};

use super::uplink::Uplink;
use super::{Stage, now};
use crate::hospital::{PlannedDevice, Role, STORY_LENGTH, Scene};
use crate::strip::Strip;

/// Further behind than this, in seconds, the missed blocks are given up: a transmitter stores nothing.
const GIVE_UP_S: u64 = 10;

pub(super) async fn perform(stage: &Stage, planned: &PlannedDevice, tls: Arc<ClientConfig>) {
    let Role::Telemetry { record, start_s, scenes, silence } = &planned.role else { return };
    let Some(strip) = stage.strips.get(record) else { return };
    let (began, began_at) = (Instant::now(), now());
    loop {
        let uplink = Uplink::open(stage, planned, &tls).await;
        let work = broadcast(stage, &uplink, strip, u64::from(*start_s), scenes, began, began_at);
        match silence {
            None => work.await,
            Some(silence) => {
                let until = Duration::from_secs(u64::from(silence.after_s));
                // Either end leads to a broken link, which is what a silence is.
                let _ = tokio::time::timeout(until, work).await;
                drop(uplink);
                sleep(Duration::from_secs(u64::from(silence.for_s))).await;
            }
        }
    }
}

/// Sends block after block, until the link is closed for good.
async fn broadcast(
    stage: &Stage,
    uplink: &Uplink,
    strip: &Strip,
    start_s: u64,
    scenes: &[Scene],
    began: Instant,
    began_at: Timestamp,
) {
    let mut second = began.elapsed().as_secs();
    loop {
        // A block is sent when its last sample has been taken.
        sleep_until(began + Duration::from_secs(second + 1)).await;
        let at = began_at.plus(Duration::from_secs(second));
        let (shown, at_second) = shown(stage, strip, start_s, scenes, second);
        let frame = frame(shown, at_second, at);
        if !uplink.send(&stage.progress, FrameKind::Envelope, frame.into_bytes()).await {
            return;
        }
        second += 1;
        let elapsed = began.elapsed().as_secs();
        if elapsed > second + GIVE_UP_S {
            second = elapsed;
        }
    }
}

/// Which strip is on, and at which of its seconds.
fn shown<'a>(
    stage: &'a Stage,
    strip: &'a Strip,
    start_s: u64,
    scenes: &[Scene],
    second: u64,
) -> (&'a Strip, u64) {
    let in_story = second % STORY_LENGTH.as_secs();
    let scene =
        scenes.iter().find(|scene| (u64::from(scene.from_s)..u64::from(scene.until_s)).contains(&in_story));
    match scene.and_then(|scene| Some((stage.strips.get(&scene.record)?, in_story - u64::from(scene.from_s))))
    {
        Some(on) => on,
        None => (strip, start_s + second),
    }
}

/// The envelope of one second.
pub(crate) fn frame(strip: &Strip, second: u64, at: Timestamp) -> String {
    let mut entries: Vec<String> = strip.blocks(second, at).iter().map(encode_waveform).collect();
    entries.push(encode_scalar(&strip.heart_rate(second, at.plus(Duration::from_secs(1)))));
    encode_batch(&entries, None)
}

//! A telemetry transmitter: each second one envelope with a block of each curve and the heart rate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clinical_model::{FrameKind, Timestamp};
use device_codecs::envelope::{encode_numbered_batch, encode_scalar, encode_waveform};
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
        let (shown, at_second) = shown(&stage.strips, strip, start_s, scenes, second);
        let number = u32::try_from(second).unwrap_or(u32::MAX);
        let frame = frame(shown, at_second, at, number);
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
    strips: &'a HashMap<String, Strip>,
    strip: &'a Strip,
    start_s: u64,
    scenes: &[Scene],
    second: u64,
) -> (&'a Strip, u64) {
    let in_story = second % STORY_LENGTH.as_secs();
    let scene =
        scenes.iter().find(|scene| (u64::from(scene.from_s)..u64::from(scene.until_s)).contains(&in_story));
    match scene.and_then(|scene| {
        Some((strips.get(&scene.record)?, in_story - u64::from(scene.from_s) + u64::from(scene.start_s)))
    }) {
        Some(on) => on,
        None => (strip, start_s + second),
    }
}

/// The envelope of one second. Its number counts the transmitter's seconds: what it could not send leaves a gap.
pub(crate) fn frame(strip: &Strip, second: u64, at: Timestamp, number: u32) -> String {
    let mut entries: Vec<String> = strip.blocks(second, at).iter().map(encode_waveform).collect();
    entries.push(encode_scalar(&strip.heart_rate(second, at.plus(Duration::from_secs(1)))));
    encode_numbered_batch(&entries, number)
}

#[cfg(test)]
mod tests {
    use clinical_model::Decoded;
    use device_codecs::decode;

    use super::*;
    use crate::recordings;

    fn strip(name: &str) -> Strip {
        Strip::two_leads(name, &recordings::record(name).unwrap()).unwrap()
    }

    #[test]
    fn scenes_take_the_place_of_the_usual_strip_and_come_again() {
        let (usual, flutter) = (strip("mitdb/101"), strip("mitdb/207"));
        let strips = HashMap::from([("mitdb/207".to_owned(), flutter.clone())]);
        let scene = Scene {
            from_s: 120,
            until_s: 180,
            record: "mitdb/207".to_owned(),
            start_s: 60,
            shows: "ventricular flutter".to_owned(),
        };
        let check = |second: u64, expected: &Strip, at_second: u64| {
            let (on, at) = shown(&strips, &usual, 5, std::slice::from_ref(&scene), second);
            assert!(on == expected && at == at_second, "second {second}: {at}");
        };
        check(119, &usual, 124);
        check(120, &flutter, 60);
        check(179, &flutter, 119);
        check(180, &usual, 185);
        check(STORY_LENGTH.as_secs() + 121, &flutter, 61);
    }

    #[test]
    fn one_second_is_two_blocks_and_a_heart_rate() {
        let at = Timestamp::from_seconds(1_790_000_000);
        let frame = frame(&strip("mitdb/208"), 17, at, 17);
        let entries = decode(FrameKind::Envelope, frame.as_bytes()).entries;
        let decoded: Vec<Decoded> = entries.into_iter().flat_map(|entry| entry.result.unwrap()).collect();
        let blocks = decoded
            .iter()
            .filter(|one| matches!(one, Decoded::Waveform(block) if block.samples.len() == 360));
        assert_eq!((decoded.len(), blocks.count()), (3, 2));
    }
}

//! Bytes on disk a reading, everything included, beside one row a reading.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clinical_model::measure::{HEART_RATE, OXYGEN_SATURATION, RESPIRATORY_RATE};
use clinical_model::{Delivery, Frame, FrameKind, Measure, Timestamp};
use pipeline::Site;

use super::Settings;
use super::fill::{Filled, clock_now, mixed, scalar};
use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::peers;
use super::stage::Stage;
use crate::serve;

/// Beds, each with a monitor.
const BEDS: usize = 50;
/// What each monitor measures every second.
const MEASURES: [(Measure, (i32, i32)); 3] =
    [(HEART_RATE, (55, 110)), (OXYGEN_SATURATION, (88, 100)), (RESPIRATORY_RATE, (10, 24))];
/// Seconds of one message.
const MESSAGE_S: u64 = 60;
/// Minutes that are kept; fewer with `--quick`.
const MINUTES: u64 = 120;
const QUICK_MINUTES: u64 = 15;
/// Readings come this much later than the full second, at most, in milliseconds.
const JITTER_MS: u64 = 40;
/// Bytes a reading that are wanted.
const BYTES_WANTED: f64 = 5.0;

/// Measures.
///
/// # Errors
/// When a frame is refused.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    let minutes = if settings.quick { QUICK_MINUTES } else { MINUTES };
    let readings = BEDS as u64 * MEASURES.len() as u64 * minutes * MESSAGE_S;
    serve::block_on(async {
        let mut stage = Stage::set(settings, BEDS).await?;
        let before = used_bytes(&stage.data_dir())?;
        let from =
            Timestamp::from_seconds(clock_now().as_seconds()).minus(Duration::from_secs(60 * minutes + 60));
        let mut rows_file = tempfile::NamedTempFile::new_in(&settings.dir)?;
        let site = stage.open_site()?;
        for minute in 0..minutes {
            send_minute(&stage, &site, from, minute, &mut rows_file).await?;
            let folding = std::sync::Arc::clone(&site);
            // As often as a server that runs in real time: each minute of theirs is folded.
            tokio::task::spawn_blocking(move || fold_seen(&folding)).await??;
        }
        tokio::task::spawn_blocking(move || {
            site.stop();
            drop(site);
        })
        .await?;
        rows_file.flush()?;
        let grown = used_bytes(&stage.data_dir())?.saturating_sub(before);
        let ours = grown as f64 / readings as f64;
        let peer = match peers::row_a_reading(&settings.dir, rows_file.path()) {
            Ok(said) => match said["bytes_per_reading"].as_f64() {
                Some(bytes) => Peer::Measured("row a reading (SQLite)", Spread::one(bytes)),
                None => Peer::Missing("row a reading", "the driver said no number".to_owned()),
            },
            Err(error) => Peer::Missing("row a reading", format!("{error:#}")),
        };
        let row = Row::new("bytes on disk a reading", "bytes", Better::Lower, Spread::one(ours));
        Ok(Section {
            title: "Bytes on disk a reading",
            settings: vec![
                format!(
                    "{readings} readings: {BEDS} monitors, {} measures each second, {JITTER_MS} ms of jitter, one JSON message \
                     a minute, folded each minute. Pages in use of the data file: blocks, the raw frames as they came, \
                     audit records of groups, indexes, seals.",
                    MEASURES.len()
                ),
                "Beside it: the same readings as rows of an unencrypted SQLite table with an index by patient, code and \
                 time; without raw frames."
                    .to_owned(),
            ],
            rows: vec![row.beside(peer).goal(Goal::AtMost(BYTES_WANTED))],
        })
    })
}

async fn send_minute(
    stage: &Stage,
    site: &Site,
    from: Timestamp,
    minute: u64,
    rows: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let intake = site.intake().context("the site runs")?;
    let mut waiting = Vec::with_capacity(BEDS);
    for (bed, (device, patient)) in stage.devices.iter().zip(&stage.patients).enumerate() {
        let mut entries = Vec::new();
        for second in minute * MESSAGE_S..(minute + 1) * MESSAGE_S {
            for (number, (measure, between)) in MEASURES.iter().enumerate() {
                let made =
                    Filled { patient: *patient, device: *device, measure: *measure, between: *between };
                let salt = (second << 32) + ((bed as u64) << 8) + number as u64;
                let jitter_ms = mixed(salt) >> 32;
                let at = from.plus(Duration::from_millis(second * 1_000 + jitter_ms % JITTER_MS));
                let value = made.value(second + bed as u64 * 10_007);
                entries.push(entry(*measure, at, value));
                let series = (bed as u32) << 8 | number as u32;
                rows.write_all(&series.to_le_bytes())?;
                rows.write_all(&at.as_micros().to_le_bytes())?;
                rows.write_all(&f64::from(value).to_le_bytes())?;
            }
        }
        let frame = Frame {
            device: *device,
            kind: FrameKind::Envelope,
            received_at: from.plus(Duration::from_secs((minute + 1) * MESSAGE_S)),
            delivery: Delivery::AtLeastOnce,
            bytes: device_codecs::envelope::encode_batch(&entries, None).into_bytes(),
        };
        waiting.push(intake.submit(frame).await?);
    }
    for pending in waiting {
        let receipt = pending.await?;
        let kept =
            receipt.entries.iter().all(|entry| matches!(entry, pipeline::EntryOutcome::Committed { .. }));
        anyhow::ensure!(kept, "a made-up reading was quarantined: {:?}", receipt.entries.first());
    }
    Ok(())
}

fn entry(measure: Measure, at: Timestamp, value: i32) -> String {
    device_codecs::envelope::encode_scalar(&scalar(measure, at, value))
}

/// Folds everything that was committed, whatever the alarms have looked at so far.
fn fold_seen(site: &Site) -> anyhow::Result<()> {
    let store = site.store();
    let seen = (pipeline::after::ALARMS_CURSOR, store.last_group());
    store.transact(&store::Transaction { at: clock_now(), cursor: Some(seen), ..Default::default() })?;
    site.fold_now()?;
    Ok(())
}

/// Bytes of the pages in use of a closed data file: its length without its free pages
/// (<https://sqlite.org/fileformat2.html>, §1.3: page size at 16, pages at 28, free pages at 36).
pub fn used_bytes(data_dir: &Path) -> anyhow::Result<u64> {
    let path = data_dir.join("data.db");
    let mut header = [0; 100];
    let mut file =
        std::fs::File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    file.read_exact(&mut header).with_context(|| format!("{} is no data file", path.display()))?;
    let number = |at: usize| {
        u64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    let page = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        page => page,
    };
    Ok((number(28) - number(36)) * page)
}

//! Recorded curves: writing, bytes a sample, and reading ten seconds of them, beside AtriumDB.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clinical_model::measure::ECG_II;
use clinical_model::validation::validate;
use clinical_model::{
    Decimal, Decoded, DecodedWaveform, DeviceTime, Findings, Frame, FrameKind, SeriesKey, Subject, Timestamp,
};
use serde_json::Value;
use simulator::recordings;
use store::sqlite::SqliteStore;
use store::{FrameRecord, Order, RangeQuery, Store};

use super::fill::{Moment, clock_now, fold};
use super::kept::used_bytes;
use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::stage::Stage;
use super::{Settings, peers};
use crate::serve;

/// Samples a second of the recordings.
const RATE_HZ: u32 = 360;
/// Seconds of each recording that are taken: they are cut to this length.
const RECORDING_S: usize = 180;
/// Devices, each with recordings of its own, one after the other.
const PIECES: usize = 12;
const RECORDINGS: usize = 4;
const SECONDS: usize = RECORDING_S * RECORDINGS;
/// Seconds of one message of a device.
const MESSAGE_S: usize = 5;
/// Seconds that are folded at a time.
const FOLD_EVERY_S: usize = 30;
/// Length of a window that is read.
const WINDOW_S: u64 = 10;
/// Windows that are read in a run.
const WINDOWS: u64 = 200;
/// Wanted.
const TIMES_WANTED: f64 = 10.0;
const BYTES_WANTED: f64 = 0.6;

/// Measures.
///
/// # Errors
/// When the recordings cannot be read or the store refuses.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    let pieces = pieces()?;
    let samples: usize = pieces.iter().map(Vec::len).sum();
    let (mut writes, mut reads, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        let mut stage = serve::block_on(Stage::set(settings, PIECES))?;
        let before = used_bytes(&stage.data_dir())?;
        let store = stage.open_store()?;
        let from = Timestamp::from_seconds(clock_now().as_seconds() - 2 * SECONDS as i64);
        let began = Instant::now();
        write(&store, &stage, &pieces, from)?;
        writes.push(samples as f64 / began.elapsed().as_secs_f64());
        reads.push(read(&store, &stage, from)?);
        drop(store);
        let grown = used_bytes(&stage.data_dir())?.saturating_sub(before);
        kept.push(grown as f64 / samples as f64);
    }
    let mut file = tempfile::NamedTempFile::new_in(&settings.dir)?;
    for sample in pieces.iter().flatten() {
        file.write_all(&sample.to_le_bytes())?;
    }
    file.flush()?;
    let arguments = [RATE_HZ.to_string(), PIECES.to_string(), settings.runs.to_string()];
    let theirs = peers::atriumdb(&settings.dir, file.path(), &arguments);
    let row = |what: &str, unit, better, ours: Vec<f64>, field: &str| {
        let ours = Spread::of(ours).unwrap_or(Spread::one(f64::NAN));
        Row::new(what, unit, better, ours).beside(peer(&theirs, field))
    };
    Ok(Section {
        title: "Waveforms",
        settings: vec![
            format!(
                "{samples} samples of {PIECES} electrocardiograms at {RATE_HZ} Hz (MIT-BIH, real). Auscult: the store's own \
                 commits, {MESSAGE_S} s of each device at a time, fsynced and encrypted, folded each {FOLD_EVERY_S} s; writing \
                 and folding are both timed. Bytes: pages in use, without the raw frames of the wire."
            ),
            "AtriumDB 2.6.0 through its own Python interface: all of a device written as one segment, not encrypted; bytes of \
             its block files only."
                .to_owned(),
        ],
        rows: vec![
            row("write", "samples/s", Better::Higher, writes, "samples_per_s").goal(Goal::Times(TIMES_WANTED)),
            row("read 10 s, p50", "ms", Better::Lower, reads, "window_p50_ms").goal(Goal::Times(TIMES_WANTED)),
            row("bytes on disk a sample", "bytes", Better::Lower, kept, "bytes_per_sample")
                .goal(Goal::AtMost(BYTES_WANTED)),
        ],
    })
}

fn peer(said: &anyhow::Result<Value>, field: &str) -> Peer {
    match said {
        Err(error) => Peer::Missing("AtriumDB", format!("{error:#}")),
        Ok(said) => {
            let figures = said[field].as_array().into_iter().flatten().filter_map(Value::as_f64);
            Spread::of(figures).map_or(Peer::None, |spread| Peer::Measured("AtriumDB", spread))
        }
    }
}

/// The first signals of recordings, several a device.
fn pieces() -> anyhow::Result<Vec<Vec<i16>>> {
    let mut recorded = Vec::new();
    for name in recordings::record_names().iter().filter(|name| name.starts_with("mitdb/")) {
        let record = recordings::record(name)?;
        let signal = record.signals.first().with_context(|| format!("{name} has no signal"))?;
        let length = RECORDING_S * RATE_HZ as usize;
        let samples = signal.samples.get(..length);
        recorded.push(samples.with_context(|| format!("{name} is shorter than {RECORDING_S} s"))?.to_vec());
    }
    anyhow::ensure!(recorded.len() >= PIECES, "there are only {} recordings", recorded.len());
    let of_device = |device: usize| {
        // Steps that share no factor with each other, so that no two devices play the same in the same order.
        (0..RECORDINGS).flat_map(|number| recorded[(device + number * 3) % recorded.len()].clone()).collect()
    };
    Ok((0..PIECES).map(of_device).collect())
}

fn write(store: &SqliteStore, stage: &Stage, pieces: &[Vec<i16>], from: Timestamp) -> anyhow::Result<()> {
    for second in (0..SECONDS).step_by(MESSAGE_S) {
        let mut records = Vec::with_capacity(PIECES);
        for (number, piece) in pieces.iter().enumerate() {
            let (rate, at) = (RATE_HZ as usize, from.plus(Duration::from_secs(second as u64)));
            let end = (second + MESSAGE_S) * rate;
            let decoded = Decoded::Waveform(DecodedWaveform {
                measure: ECG_II,
                time: DeviceTime::Utc(at),
                rate_numerator: RATE_HZ,
                rate_denominator: 1,
                unit: ECG_II.unit.to_owned(),
                gain: Decimal::new(5, -3).context("a gain")?,
                offset: Decimal::from_integer(0),
                samples: piece[second * rate..end.min(piece.len())].to_vec(),
                findings: Findings::empty(),
            });
            let received_at = at.plus(Duration::from_secs(MESSAGE_S as u64));
            let subject = Subject::Patient(stage.patients[number]);
            let moment = Moment::new(stage.devices[number], subject, received_at);
            let frame = Frame {
                device: stage.devices[number],
                kind: FrameKind::Envelope,
                received_at,
                delivery: clinical_model::Delivery::AtLeastOnce,
                bytes: Vec::new(),
            };
            let facts = vec![validate(decoded, &moment)?];
            records.push(FrameRecord { frame, facts, quarantined: Vec::new(), released: Vec::new() });
        }
        store.append(&records, clock_now())?;
        if (second + MESSAGE_S).is_multiple_of(FOLD_EVERY_S) {
            fold(store)?;
        }
    }
    fold(store)
}

/// Half of the windows were read faster, in milliseconds.
fn read(store: &SqliteStore, stage: &Stage, from: Timestamp) -> anyhow::Result<f64> {
    let mut times_ms = Vec::new();
    for window in 0..WINDOWS {
        let number = (window as usize * 7) % PIECES;
        let series = SeriesKey {
            subject: Subject::Patient(stage.patients[number]),
            measure: ECG_II,
            device: stage.devices[number],
        };
        let start = from.plus(Duration::from_secs((window * 37) % (SECONDS as u64 - WINDOW_S)));
        let to = start.plus(Duration::from_secs(WINDOW_S));
        let range = RangeQuery { from: start, to, order: Order::Ascending, limit: 100 };
        let began = Instant::now();
        let found = store.waveforms(&series, &range)?;
        times_ms.push(began.elapsed().as_secs_f64() * 1e3);
        let covered = found.first().is_some_and(|first| first.start <= start)
            && found.last().is_some_and(|last| to <= last.end());
        anyhow::ensure!(covered, "a window was not found whole");
    }
    times_ms.sort_by(f64::total_cmp);
    Ok(times_ms[times_ms.len() / 2])
}

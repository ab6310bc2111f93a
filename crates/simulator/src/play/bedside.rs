//! A bedside monitor: the vital signs of a recorded stay, faster than they were taken, and nothing that was not taken.

use std::sync::Arc;
use std::time::Duration;

use clinical_model::decoded::DecodedScalar;
use clinical_model::measure::{BATTERY_LEVEL, HEART_RATE, Measure, OXYGEN_SATURATION};
use clinical_model::{Decimal, DecodedValue, DeviceTime, Findings, FrameKind, Timestamp};
use device_codecs::envelope::{encode_batch, encode_panel, encode_scalar};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until};

use super::uplink::Uplink;
use super::{PlayError, Stage, now};
use crate::hospital::{HISTORY, PlannedDevice};
use crate::recordings;
use crate::stay::{Stay, StayRow};

/// From and until when, counted from the beginning of the stay's play; `until` no longer belongs to it.
type Window = (Duration, Duration);

/// How often the monitor reports.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Most entries of one envelope: some twenty kilobytes, which every server takes.
const ENTRIES_A_FRAME: usize = 200;
/// How often a value of the oxygen saturation is due; the recording has one a minute.
const SATURATION_EVERY: Duration = Duration::from_secs(10);
/// How often the battery is reported.
const BATTERY_EVERY: Duration = Duration::from_secs(60);

/// Oxygen saturations of the one-minute numerics in their order, without the minutes that have none.
pub(super) fn saturation_values() -> Result<Vec<f64>, PlayError> {
    let record = recordings::record("icu/3975656n")?;
    let signal = record.signals.iter().find(|signal| signal.header.description == "SpO2");
    Ok(signal.map_or_else(Vec::new, |signal| {
        (0..signal.samples.len()).filter_map(|at| signal.physical(at)).filter(|value| *value > 0.0).collect()
    }))
}

pub(super) async fn perform(
    stage: &Stage,
    planned: &PlannedDevice,
    tls: Arc<ClientConfig>,
    stay: &Stay,
    saturation_from_row: u32,
) {
    // The play of the stay began a while ago: what the monitor stored since then is sent first, at once.
    let zero_at = now().minus(HISTORY);
    let began = Instant::now();
    let uplink = Uplink::open(stage, planned, &tls).await;
    let mut window = (Duration::ZERO, HISTORY + began.elapsed());
    loop {
        let mut entries = entries(&due(stay, stage.speed, window), zero_at);
        entries.extend(saturation(&stage.saturation, saturation_from_row, window, zero_at));
        entries.extend(battery(window, zero_at));
        for entries in entries.chunks(ENTRIES_A_FRAME) {
            let frame = encode_batch(entries, None).into_bytes();
            if !uplink.send(&stage.progress, FrameKind::Envelope, frame).await {
                return;
            }
        }
        window = (window.1, window.1 + REPORT_EVERY);
        sleep_until(began + (window.1 - HISTORY)).await;
    }
}

/// The rows whose moment lies in the window `[from, until)` of the play, each with its moment.
///
/// Two parameters are left out: the heart rate, which the transmitter of the bed counts from the curve that is on
/// the screen, and the saturation, which in the stays comes from blood samples and not from an oximeter.
fn due(stay: &Stay, speed: f64, window: Window) -> Vec<(Duration, StayRow)> {
    let first = stay.rows.first().map_or(0, |row| row.minute);
    // After the last row the stay begins again, an hour later.
    let round = Duration::from_secs_f64(f64::from(stay.last_minute() - first + 60) * 60.0 / speed);
    let rounds = (window.0.as_nanos() / round.as_nanos().max(1)) as u32;
    let moment = |row: &StayRow, round_number: u32| {
        round * round_number + Duration::from_secs_f64(f64::from(row.minute - first) * 60.0 / speed)
    };
    // A window may reach over the end of a round, and the first one over several.
    let last = (window.1.as_nanos() / round.as_nanos().max(1)) as u32;
    (rounds..=last)
        .flat_map(|number| stay.rows.iter().map(move |row| (moment(row, number), *row)))
        .filter(|(at, row)| *at >= window.0 && *at < window.1 && is_played(row.measure))
        .collect()
}

fn is_played(measure: Measure) -> bool {
    measure != HEART_RATE && measure != OXYGEN_SATURATION
}

/// Panels where components share a moment, scalars for the rest.
fn entries(rows: &[(Duration, StayRow)], zero_at: Timestamp) -> Vec<String> {
    let mut entries = Vec::new();
    let mut panels: Vec<(Duration, Measure, Vec<DecodedScalar>)> = Vec::new();
    for (after, row) in rows {
        let scalar = scalar(row.measure, row.value, zero_at.plus(*after));
        match row.measure.panel() {
            None => entries.push(encode_scalar(&scalar)),
            Some(panel) => match panels.iter_mut().find(|(at, of, _)| at == after && *of == panel) {
                Some((_, _, parts)) => parts.push(scalar),
                None => panels.push((*after, panel, vec![scalar])),
            },
        }
    }
    entries.extend(panels.into_iter().filter_map(|(_, panel, mut parts)| {
        // A component that was written down twice for one minute is sent once, the later one.
        parts.reverse();
        parts.sort_by_key(|part| part.measure);
        parts.dedup_by_key(|part| part.measure);
        encode_panel(panel, &parts).ok()
    }));
    entries
}

fn saturation(values: &[f64], from_row: u32, window: Window, zero_at: Timestamp) -> Vec<String> {
    let value = |number: u32| values.get((from_row as usize + number as usize) % values.len().max(1));
    multiples(window, SATURATION_EVERY)
        .filter_map(|number| {
            let percent = Decimal::from_f64(*value(number)?, 1)?;
            let at = zero_at.plus(SATURATION_EVERY * number);
            Some(encode_scalar(&scalar(OXYGEN_SATURATION, percent, at)))
        })
        .collect()
}

fn battery(window: Window, zero_at: Timestamp) -> Vec<String> {
    multiples(window, BATTERY_EVERY)
        .map(|number| {
            // A percent in ten minutes, from 98 to 40, and charged again.
            let percent = Decimal::from_integer(98 - (number / 10 % 59) as i32);
            encode_scalar(&scalar(BATTERY_LEVEL, percent, zero_at.plus(BATTERY_EVERY * number)))
        })
        .collect()
}

/// The multiples of `every` that lie in the window.
fn multiples(window: Window, every: Duration) -> std::ops::Range<u32> {
    let first_from = |at: Duration| at.as_nanos().div_ceil(every.as_nanos()) as u32;
    first_from(window.0)..first_from(window.1)
}

fn scalar(measure: Measure, value: Decimal, at: Timestamp) -> DecodedScalar {
    DecodedScalar {
        measure,
        value: DecodedValue::Number(value),
        unit: measure.unit.to_owned(),
        time: DeviceTime::Utc(at.truncated_to_millis()),
        sequence: 0,
        findings: Findings::empty(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use clinical_model::measure::{BODY_TEMPERATURE, RESPIRATORY_RATE};
    use device_codecs::decode;

    use super::*;

    fn windows(until_s: u64) -> impl Iterator<Item = (Duration, Duration)> {
        (0..until_s / 5).map(|n| (REPORT_EVERY * n as u32, REPORT_EVERY * (n as u32 + 1)))
    }

    #[test]
    fn every_row_is_sent_once_a_round_and_nothing_else() {
        for name in recordings::stay_names() {
            let stay = recordings::stay(&name).unwrap();
            let first = stay.rows[0].minute;
            let round_s = u64::from(stay.last_minute() - first + 60);
            let mut sent: HashMap<(u32, u16), usize> = HashMap::new();
            for window in windows(round_s) {
                for (_, row) in due(&stay, 60.0, window) {
                    *sent.entry((row.minute, row.measure.number)).or_default() += 1;
                }
            }
            let mut expected: HashMap<(u32, u16), usize> = HashMap::new();
            for row in stay.rows.iter().filter(|row| is_played(row.measure)) {
                *expected.entry((row.minute, row.measure.number)).or_default() += 1;
            }
            // The last window may reach into the next round.
            for (key, count) in expected {
                assert!(sent.get(&key).is_some_and(|sent| *sent >= count), "{name} {key:?}");
            }
        }
    }

    #[test]
    fn frames_of_a_whole_stay_are_readable() {
        let zero_at = Timestamp::from_seconds(1_790_000_000);
        let stay = recordings::stay(&recordings::stay_names()[0]).unwrap();
        let mut readings = 0;
        for window in windows(1_200) {
            let entries = entries(&due(&stay, 60.0, window), zero_at);
            if entries.is_empty() {
                continue;
            }
            let frame = encode_batch(&entries, None);
            for entry in decode(FrameKind::Envelope, frame.as_bytes()).entries {
                readings += entry.result.unwrap_or_else(|fault| panic!("{fault}: {frame}")).len();
            }
        }
        assert!(readings > 50, "{readings}");
    }

    #[test]
    fn the_stored_part_holds_a_value_of_every_kind() {
        let first = (Duration::ZERO, HISTORY);
        for name in recordings::stay_names() {
            let stay = recordings::stay(&name).unwrap();
            let rows = due(&stay, super::super::DEFAULT_SPEED, first);
            for measure in [RESPIRATORY_RATE, BODY_TEMPERATURE] {
                assert!(rows.iter().any(|(_, row)| row.measure == measure), "{name} {measure:?}");
            }
        }
        let values = saturation_values().unwrap();
        assert_eq!(saturation(&values, 0, first, Timestamp::default()).len(), 72);
        assert_eq!(battery(first, Timestamp::default()).len(), 12);
    }

    #[test]
    fn saturation_and_battery_come_at_their_times() {
        let values = saturation_values().unwrap();
        assert_eq!(values.len(), 1_573);
        assert!(values.iter().all(|value| *value > 50.0 && *value <= 100.0));
        let at = Timestamp::from_seconds(0);
        assert_eq!(windows(60).flat_map(|window| saturation(&values, 1_570, window, at)).count(), 6);
        assert_eq!(windows(180).flat_map(|window| battery(window, at)).count(), 3);
    }
}

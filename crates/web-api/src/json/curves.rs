//! Values in time: trends, readings, waveforms, and everything behind one value.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::{Measure, MeasureKind, Subject, Timestamp};
use pipeline::audited::ReadError;
use pipeline::chart::{Chart, Trend};
use serde::{Deserialize, Serialize};
use store::{AuditAction, Order, RangeQuery, SeriesFilter};

use super::patients::theirs;
use super::views::{self, DeviceState, PatientLine, Vital};
use super::{Answer, Asked, hex};
use crate::access::{Permit, may};
use crate::problem::Problem;
use crate::state::Web;

/// Measures of one trend request.
const TREND_LIMIT_MEASURES: usize = 20;
/// Longest span of a trend.
const TREND_LIMIT_SPAN: Duration = Duration::from_secs(400 * 86_400);
/// Longest span of waveform samples in one answer.
const WAVEFORM_LIMIT_SPAN: Duration = Duration::from_secs(600);
/// Readings of one answer.
const READINGS_LIMIT: usize = 1_000;

fn measure_of(name: &str) -> Result<Measure, Problem> {
    Measure::by_name(name).ok_or_else(|| Problem::bad_request(format!("no measure is named \"{name}\"")))
}

fn span(from: Timestamp, to: Timestamp, longest: Duration) -> Result<(), Problem> {
    if to <= from {
        return Err(Problem::bad_request("\"to\" must be after \"from\""));
    }
    if to.duration_since(from) > longest {
        let detail = format!("the span from \"from\" to \"to\" must be at most {} s", longest.as_secs());
        return Err(Problem::bad_request(detail));
    }
    Ok(())
}

#[derive(Deserialize)]
pub(crate) struct TrendQuery {
    measures: String,
    from: Timestamp,
    to: Timestamp,
    buckets: usize,
}

#[derive(Serialize)]
pub(crate) struct TrendSeries {
    measure: &'static str,
    device_id: String,
    unit_display: &'static str,
    t: Vec<i64>,
    min: Vec<f64>,
    mean: Vec<f64>,
    max: Vec<f64>,
    count: Vec<u32>,
    observation_id: Vec<Option<String>>,
}

#[derive(Serialize)]
pub(crate) struct TrendAnswer {
    from: Timestamp,
    to: Timestamp,
    bucket_ms: f64,
    series: Vec<TrendSeries>,
}

pub(crate) async fn trend(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Path(id): Path<String>,
    Asked(query): Asked<TrendQuery>,
) -> Answer<TrendAnswer> {
    span(query.from, query.to, TREND_LIMIT_SPAN)?;
    if !(10..=2_000).contains(&query.buckets) {
        return Err(Problem::bad_request("\"buckets\" must be 10 to 2000"));
    }
    let names: Vec<&str> = query.measures.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names.len() > TREND_LIMIT_MEASURES {
        return Err(Problem::bad_request(format!(
            "\"measures\" must name 1 to {TREND_LIMIT_MEASURES} measures"
        )));
    }
    let measures = names.into_iter().map(measure_of).collect::<Result<Vec<_>, _>>()?;
    let patient = theirs(&web, &access, &id).await?;
    let act = access
        .act(AuditAction::Read, "trend")
        .patient(patient.id)
        .detail(format!("{} from {} to {}", query.measures, query.from, query.to));
    web.blocking(move |web| {
        let series = access.read(web, act, |chart| {
            let mut series = Vec::new();
            for measure in measures {
                for trend in chart.trend(patient.id, measure, query.from, query.to, query.buckets)? {
                    series.push(trend_series(chart, &trend, &query)?);
                }
            }
            Ok(series)
        })?;
        let bucket_ms = query.to.micros_since(query.from) as f64 / 1_000.0 / query.buckets as f64;
        Ok(Json(TrendAnswer { from: query.from, to: query.to, bucket_ms, series }))
    })
    .await?
}

fn trend_series(chart: &Chart<'_>, trend: &Trend, query: &TrendQuery) -> Result<TrendSeries, ReadError> {
    let from_ms = query.from.as_millis() as f64;
    let width_ms = query.to.micros_since(query.from) as f64 / 1_000.0 / query.buckets as f64;
    let mut series = TrendSeries {
        measure: trend.series.measure.name,
        device_id: trend.series.device.to_string(),
        unit_display: trend.series.measure.unit_display,
        t: Vec::new(),
        min: Vec::new(),
        mean: Vec::new(),
        max: Vec::new(),
        count: Vec::new(),
        observation_id: Vec::new(),
    };
    for (bucket, single) in trend.buckets.iter().zip(&trend.single) {
        // One reading is shown at its own time; a bucket of several at its middle.
        let middle = (from_ms + (bucket.index as f64 + 0.5) * width_ms) as i64;
        series.t.push(single.map_or(middle, |(at, _)| at.as_millis()));
        series.min.push(bucket.min);
        series.mean.push(bucket.mean);
        series.max.push(bucket.max);
        series.count.push(bucket.count);
        let identifier = match single {
            Some((at, sequence)) => Some(chart.identifier(&trend.series, *at, *sequence)?),
            None => None,
        };
        series.observation_id.push(identifier);
    }
    Ok(series)
}

#[derive(Deserialize)]
pub(crate) struct ReadingsQuery {
    measure: String,
    from: Timestamp,
    to: Timestamp,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(crate) struct Readings {
    readings: Vec<Vital>,
}

pub(crate) async fn readings(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Path(id): Path<String>,
    Asked(query): Asked<ReadingsQuery>,
) -> Answer<Readings> {
    span(query.from, query.to, TREND_LIMIT_SPAN)?;
    let measure = measure_of(&query.measure)?;
    let limit = query.limit.unwrap_or(100).min(READINGS_LIMIT);
    let patient = theirs(&web, &access, &id).await?;
    let act = access
        .act(AuditAction::Read, "readings")
        .patient(patient.id)
        .detail(format!("{} from {} to {}", measure.name, query.from, query.to));
    web.blocking(move |web| {
        let range = RangeQuery { from: query.from, to: query.to, order: Order::Descending, limit };
        let readings = access.read(web, act, |chart| {
            // A panel has no series of its own: those of its components are looked for.
            let mut measures = measure.components();
            measures.push(measure);
            let filter = SeriesFilter { subject: Some(Subject::Patient(patient.id)), device: None, measures };
            let mut series = chart.series(&filter)?;
            series.iter_mut().for_each(|one| one.measure = measure);
            series.sort();
            series.dedup();
            let mut observed = Vec::new();
            for one in &series {
                observed.extend(chart.observations(one, &range)?);
            }
            observed.sort_by_key(|one| std::cmp::Reverse(one.measured_at()));
            observed.truncate(limit);
            let shown: Result<Vec<_>, _> =
                observed.iter().filter_map(|one| views::vital(chart, one).transpose()).collect();
            Ok(shown?)
        })?;
        Ok(Json(Readings { readings }))
    })
    .await?
}

#[derive(Deserialize)]
pub(crate) struct WaveformQuery {
    measure: String,
    from: Timestamp,
    to: Timestamp,
}

#[derive(Serialize)]
pub(crate) struct Segment {
    start_ms: f64,
    rate: f64,
    device_id: String,
    gain: f64,
    offset: f64,
    samples_base64: String,
}

#[derive(Serialize)]
pub(crate) struct WaveformAnswer {
    measure: &'static str,
    rate: Option<f64>,
    unit_display: &'static str,
    segments: Vec<Segment>,
}

pub(crate) async fn waveform(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Path(id): Path<String>,
    Asked(query): Asked<WaveformQuery>,
) -> Answer<WaveformAnswer> {
    span(query.from, query.to, WAVEFORM_LIMIT_SPAN)?;
    let measure = measure_of(&query.measure)?;
    if measure.kind != MeasureKind::Waveform {
        return Err(Problem::bad_request(format!("{} is no waveform", measure.name)));
    }
    let patient = theirs(&web, &access, &id).await?;
    let act = access
        .act(AuditAction::Read, "waveform")
        .patient(patient.id)
        .detail(format!("{} from {} to {}", measure.name, query.from, query.to));
    web.blocking(move |web| {
        let blocks =
            access.read(web, act, |chart| chart.waveforms(patient.id, measure, query.from, query.to))?;
        let rate =
            blocks.first().map(|block| f64::from(block.rate_numerator) / f64::from(block.rate_denominator));
        let segments = blocks.iter().filter_map(|block| segment(block, query.from, query.to)).collect();
        Ok(Json(WaveformAnswer { measure: measure.name, rate, unit_display: measure.unit_display, segments }))
    })
    .await?
}

/// The part of a block that lies in `[from, to)`.
fn segment(block: &clinical_model::Waveform, from: Timestamp, to: Timestamp) -> Option<Segment> {
    let part = block.within(from, to)?;
    let bytes: Vec<u8> = part.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Some(Segment {
        start_ms: part.start.as_micros() as f64 / 1_000.0,
        rate: f64::from(part.rate_numerator) / f64::from(part.rate_denominator),
        device_id: part.series.device.to_string(),
        gain: part.gain.to_f64(),
        offset: part.offset.to_f64(),
        samples_base64: STANDARD.encode(bytes),
    })
}

/// One field of a frame with its meaning.
#[derive(Serialize)]
pub(crate) struct Explained {
    offset: usize,
    length: usize,
    name: String,
    raw_hex: String,
    meaning: String,
}

/// The fields of a frame, as `auscult decode` shows them.
pub(crate) fn explained(kind: clinical_model::FrameKind, bytes: &[u8]) -> Vec<Explained> {
    let fields = pipeline::intake::explain(kind, bytes).into_iter();
    fields
        .map(|field| Explained {
            offset: field.offset,
            length: field.length,
            name: field.name,
            raw_hex: field.raw_hex,
            meaning: field.meaning,
        })
        .collect()
}

#[derive(Serialize)]
pub(crate) struct FrameView {
    kind: String,
    received_at: Timestamp,
    committed_at: Timestamp,
    hex: String,
    explained: Vec<Explained>,
}

#[derive(Serialize)]
pub(crate) struct AssignmentSpan {
    id: String,
    start: Timestamp,
    end: Option<Timestamp>,
}

#[derive(Serialize)]
pub(crate) struct ProvenanceView {
    vital: Vital,
    device: Option<DeviceState>,
    patient: Option<PatientLine>,
    measured_at: Timestamp,
    received_at: Timestamp,
    committed_at: Timestamp,
    assignment: Option<AssignmentSpan>,
    frames: Vec<FrameView>,
}

pub(crate) async fn provenance(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Path(id): Path<String>,
) -> Answer<ProvenanceView> {
    web.blocking(move |web| {
        let not_found = || Problem::not_found("observation");
        let store = web.site.store();
        let address = store.open_identifier(&id).map_err(ReadError::Store)?;
        let (series, at, _) = address.ok_or_else(not_found)?;
        let registry = web.site.registry();
        let sight = access.sight(web);
        let act = access.act(AuditAction::Read, "provenance").device(series.device).detail(id.clone());
        let act = match series.subject {
            Subject::Patient(patient) if sight.series(&series) => act.patient(patient),
            Subject::Patient(patient) => {
                let act = access.refused_look(web, act.patient(patient));
                web.site.record(act, store::AuditOutcome::Refused)?;
                return Err(not_found());
            }
            Subject::Device(_) | Subject::Place(_) if sight.series(&series) => act,
            Subject::Device(_) | Subject::Place(_) => return Err(not_found()),
        };
        let found = access.read(web, act, |chart| {
            let Some(found) = chart.provenance(&id)? else { return Ok(None) };
            Ok(views::vital(chart, &found.observed)?.map(|vital| (vital, found.frames)))
        })?;
        let (vital, frames) = found.ok_or_else(not_found)?;
        let is_whole = series.subject.patient().is_none_or(|patient| sight.allowed(patient).is_all());
        let patient = series.subject.patient().and_then(|id| registry.patient(id));
        let assignment = registry.assignment_at(series.device, at);
        let frame = |kept: store::KeptFrame| FrameView {
            kind: kept.frame.kind.to_string(),
            received_at: kept.frame.received_at,
            committed_at: kept.committed_at,
            hex: hex(&kept.frame.bytes),
            explained: explained(kept.frame.kind, &kept.frame.bytes),
        };
        Ok(Json(ProvenanceView {
            measured_at: vital.measured_at,
            received_at: vital.received_at,
            committed_at: vital.committed_at,
            vital,
            device: registry
                .device(series.device)
                .filter(|_| patient.as_ref().is_none_or(|patient| sight.devices_of(patient)))
                .map(|device| views::device_state(web, &device)),
            patient: patient.map(|patient| views::patient_line(web, &patient)),
            assignment: assignment.map(|one| AssignmentSpan {
                id: one.id.to_string(),
                start: one.interval.start,
                end: one.interval.end,
            }),
            // The bytes of a frame are whole: they hold what is beside the value, too.
            frames: if is_whole { frames.into_iter().map(frame).collect() } else { Vec::new() },
        }))
    })
    .await?
}

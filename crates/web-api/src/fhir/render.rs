//! What was found in the chart as FHIR Observations with their addresses.

use clinical_model::{DeviceId, Findings, SeriesKey, Timestamp};
use health_codecs::fhir::observation::{EventInput, ObservationInput, render, render_event};
use health_codecs::fhir::sampled::{self, SampledInput};
use pipeline::audited::ReadError;
use pipeline::chart::Chart;
use pipeline::search::{Found, Position};
use serde_json::Value;

/// An Observation and its id.
pub(crate) struct Rendered {
    pub id: String,
    pub resource: Value,
}

/// The Observation at a position.
pub(crate) fn observation(
    chart: &Chart<'_>,
    position: &Position,
    found: &Found,
) -> Result<Rendered, ReadError> {
    let id = identifier(chart, position)?;
    let device = device_display(chart, position.series.device);
    let device_display = device.as_deref();
    let resource = match found {
        Found::Readings(observed) => render(&ObservationInput {
            id: id.clone(),
            readings: &observed.readings,
            panel: (!observed.measure.is_scalar()).then_some(observed.measure),
            device_display,
        }),
        Found::Event(event) => render_event(&EventInput { id: id.clone(), event, device_display }),
        Found::Curve(blocks) => sampled::render(&SampledInput { id: id.clone(), blocks, device_display }),
    };
    Ok(Rendered { id, resource })
}

/// The address under `Observation/`.
pub(crate) fn identifier(chart: &Chart<'_>, position: &Position) -> Result<String, ReadError> {
    chart.identifier(&position.series, position.at, position.sequence).map_err(ReadError::Store)
}

fn device_display(chart: &Chart<'_>, device: DeviceId) -> Option<String> {
    chart.registry().device(device).map(|device| device.name.clone())
}

/// When it was committed; the last of its parts.
pub(crate) fn committed_at(found: &Found) -> Timestamp {
    let last = match found {
        Found::Readings(observed) => observed.readings.iter().map(|reading| reading.committed_at()).max(),
        Found::Event(event) => Some(event.committed_at()),
        Found::Curve(blocks) => blocks.iter().map(|block| block.committed_at()).max(),
    };
    last.unwrap_or(Timestamp::MIN)
}

/// The group that committed it, the last of its parts; 0 where it has been folded.
pub(crate) fn group_of(found: &Found) -> u64 {
    let last = match found {
        Found::Readings(observed) => observed.readings.iter().map(|reading| reading.group()).max(),
        Found::Event(event) => Some(event.group()),
        Found::Curve(blocks) => blocks.iter().map(|block| block.group()).max(),
    };
    last.unwrap_or(0)
}

/// Whether any part is an early estimate.
pub(crate) fn is_preliminary(found: &Found) -> bool {
    let is_early = |findings: Findings| findings.contains(Findings::PRELIMINARY);
    match found {
        Found::Readings(observed) => observed.readings.iter().any(|reading| is_early(reading.findings())),
        Found::Event(event) => is_early(event.findings),
        Found::Curve(blocks) => blocks.iter().any(|block| is_early(block.findings)),
    }
}

/// The series by which a stored series is addressed: components by their panel.
pub(crate) fn address_of(series: SeriesKey) -> SeriesKey {
    SeriesKey { measure: series.measure.panel().unwrap_or(series.measure), ..series }
}

//! What was found in the chart as FHIR Observations with their addresses.

use clinical_model::{DeviceId, Findings, SeriesKey, Timestamp};
use health_codecs::fhir::history::{Corrected, as_corrected};
use health_codecs::fhir::observation::{EventInput, ObservationInput, render, render_event};
use health_codecs::fhir::sampled::{self, SampledInput};
use pipeline::audited::ReadError;
use pipeline::chart::Chart;
use pipeline::corrections::{CorrectedStatus, Correction};
use pipeline::search::{Found, Position};
use serde_json::Value;

/// An Observation with its id and its version.
pub(crate) struct Rendered {
    pub id: String,
    pub resource: Value,
    /// 1 is what was measured; each correction is one more.
    pub version: u64,
    /// When this version came about.
    pub updated_at: Timestamp,
    /// Whether it was deleted: its history is there, it is not.
    pub is_withdrawn: bool,
}

/// The Observation at a position, as it stands now.
pub(crate) fn observation(
    chart: &Chart<'_>,
    position: &Position,
    found: &Found,
) -> Result<Rendered, ReadError> {
    let correction = match findings_of(found).intersects(Findings::CORRECTED | Findings::ENTERED_IN_ERROR) {
        true => chart.correction(position)?,
        false => None,
    };
    version(chart, position, found, correction.as_ref())
}

/// As [`observation`], for answers that name it and do not show it: without the resource.
pub(crate) fn address(chart: &Chart<'_>, position: &Position, found: &Found) -> Result<Rendered, ReadError> {
    if findings_of(found).intersects(Findings::CORRECTED | Findings::ENTERED_IN_ERROR) {
        return observation(chart, position, found);
    }
    let id = identifier(chart, position)?;
    let updated_at = committed_at(found);
    Ok(Rendered { id, resource: Value::Null, version: 1, updated_at, is_withdrawn: false })
}

/// One version of the Observation at a position: `found` is what it says, with the correction already laid over it.
pub(crate) fn version(
    chart: &Chart<'_>,
    position: &Position,
    found: &Found,
    correction: Option<&Correction>,
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
    Ok(match correction {
        None => Rendered { id, resource, version: 1, updated_at: committed_at(found), is_withdrawn: false },
        Some(correction) => Rendered {
            id,
            resource: as_corrected(
                resource,
                &Corrected {
                    version: correction.version,
                    at: correction.corrected_at,
                    status: status_code(correction.status),
                    reason: correction.reason.as_deref(),
                },
            ),
            version: correction.version,
            updated_at: correction.corrected_at,
            is_withdrawn: correction.withdrawn,
        },
    })
}

/// The code of a status in FHIR.
pub(crate) fn status_code(status: CorrectedStatus) -> &'static str {
    match status {
        CorrectedStatus::Final => "final",
        CorrectedStatus::Amended => "amended",
        CorrectedStatus::Corrected => "corrected",
        CorrectedStatus::EnteredInError => "entered-in-error",
    }
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
    findings_of(found).contains(Findings::PRELIMINARY)
}

/// What is remarked about any part.
pub(crate) fn findings_of(found: &Found) -> Findings {
    let all = |each: &mut dyn Iterator<Item = Findings>| each.fold(Findings::empty(), |all, one| all | one);
    match found {
        Found::Readings(observed) => all(&mut observed.readings.iter().map(|reading| reading.findings())),
        Found::Event(event) => event.findings,
        Found::Curve(blocks) => all(&mut blocks.iter().map(|block| block.findings)),
    }
}

/// The series by which a stored series is addressed: components by their panel.
pub(crate) fn address_of(series: SeriesKey) -> SeriesKey {
    SeriesKey { measure: series.measure.panel().unwrap_or(series.measure), ..series }
}

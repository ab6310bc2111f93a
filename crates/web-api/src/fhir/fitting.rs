//! Whether what was found in the chart fits a search: what cannot be told from the series alone.

use clinical_model::Findings;
use health_codecs::fhir::search::{ObservationSearch, ObservationStatus, ValueFilter};
use pipeline::chart::Chart;
use pipeline::corrections::CorrectedStatus;
use pipeline::search::{Found, Position};

use super::render;

/// Whether time, time of the commit and status fit.
pub(crate) fn fits(
    chart: &Chart<'_>,
    search: &ObservationSearch,
    position: &Position,
    found: &Found,
) -> bool {
    let measured_at = match found {
        Found::Readings(observed) => observed.measured_at(),
        Found::Event(event) => Some(event.at),
        Found::Curve(_) => None,
    };
    if !measured_at.is_none_or(|at| search.date.iter().all(|filter| filter.matches(at))) {
        return false;
    }
    if !value_fits(search, found) {
        return false;
    }
    if search.last_updated.is_empty() && search.statuses.is_none() {
        return true;
    }
    let is_changed = found.findings().intersects(Findings::CORRECTED | Findings::ENTERED_IN_ERROR);
    // A correction that cannot be read is met again, and told, when the result is rendered.
    let correction = if is_changed { chart.correction(position).ok().flatten() } else { None };
    let updated_at = correction.as_ref().map_or(render::committed_at(found), |each| each.corrected_at);
    search.last_updated.iter().all(|filter| filter.matches(updated_at))
        && search.statuses.as_ref().is_none_or(|statuses| {
            statuses.contains(&match correction.map(|each| each.status) {
                Some(CorrectedStatus::Amended) => ObservationStatus::Amended,
                Some(CorrectedStatus::Corrected) => ObservationStatus::Corrected,
                Some(CorrectedStatus::EnteredInError) => ObservationStatus::EnteredInError,
                None if render::is_preliminary(found) => ObservationStatus::Preliminary,
                Some(CorrectedStatus::Final) | None => ObservationStatus::Final,
            })
        })
}

/// Whether the value fits: of a reading by itself, or the amount of an event.
fn value_fits(search: &ObservationSearch, found: &Found) -> bool {
    search.values.iter().all(|filter| match found {
        Found::Readings(observed) if observed.measure.is_scalar() => observed
            .readings
            .first()
            .and_then(|reading| reading.value().number())
            .is_some_and(|number| filter.matches(observed.measure, number)),
        Found::Event(event) => event.amount.as_ref().is_some_and(|(number, unit)| {
            // An event has no unit of its own: only the same unit can be compared.
            let of_any = ValueFilter { unit: None, ..filter.clone() };
            filter.unit.as_ref().is_none_or(|wanted| wanted == unit)
                && of_any.matches(event.series.measure, *number)
        }),
        Found::Readings(_) | Found::Curve(_) => false,
    })
}

//! `$lastn`: the last observations of each code. Codes that share a LOINC code are one group, as the standard has it.

use std::collections::BTreeMap;

use clinical_model::{Measure, MeasureKind, PatientId, SeriesKey, Subject, Timestamp};
use health_codecs::fhir::search::{LastnSearch, ObservationSearch, ResourceType, bounds, parse_lastn};
use pipeline::audited::ReadError;
use pipeline::chart::{Chart, Observed};
use pipeline::corrections::is_void;
use pipeline::search::{Found, Position, SearchQuery};
use store::{AuditAction, Order, SeriesFilter};

use super::answer::{Answer, Refusal};
use super::call::Call;
use super::include::{self, Node};
use super::results::{self, Results};
use super::{fitting, links, observations, render};
use crate::state::Web;

/// `GET /fhir/Observation/$lastn?…`
pub(crate) fn lastn(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let (max, others): (Vec<_>, Vec<_>) = call.params.iter().cloned().partition(|(name, _)| name == "max");
    let mut query = links::query_of(ResourceType::Observation, call, &others)?;
    let given: Vec<_> = query.filters.iter().cloned().chain(max).collect();
    let mut request = parse_lastn(&given).map_err(Refusal::bad_request)?;
    observations::note_refused(web, call, &request.subjects)?;
    request.search = observations::narrowed(web, call, &query, request.search)?;
    let subjects = request.search.subjects.clone().unwrap_or_default();
    let visible: Vec<Subject> = subjects.into_iter().filter(|subject| call.may_see(web, *subject)).collect();
    let patients: Vec<PatientId> = visible.iter().filter_map(|subject| subject.patient()).collect();
    let detail = format!("$lastn {}", call.query_text(web));
    let acts = call.acts(AuditAction::Search, "Observation", &detail, &patients)?;
    let (nodes, matches) = call.chart_each(web, acts, |chart| {
        let (mut nodes, mut matches) = (Vec::new(), Vec::new());
        for subject in &visible {
            for (position, found) in last_of(chart, *subject, &request)? {
                let rendered = render::observation(chart, &position, &found)?;
                nodes.push(Node::Observation(position));
                matches.push((rendered.id, rendered.resource));
            }
        }
        Ok((nodes, matches))
    })?;
    query.hints.append(&mut request.search.hints);
    let kind = ResourceType::Observation;
    let total = Some(matches.len() as u64);
    let included = include::all(web, call, &query, kind, nodes, patients)?;
    let results = Results { path: "Observation/$lastn", kind, matches, included, total, next_link: None };
    Ok(results::bundle(web, call, &query, results))
}

/// The first measure of the table that shares a LOINC code: what stands for the group.
fn group_of(measure: Measure) -> Measure {
    let codes = |measure: Measure| measure.loinc.into_iter().chain(measure.also_loinc.iter().copied());
    let shares = |other: &Measure| codes(*other).any(|code| codes(measure).any(|own| own == code));
    Measure::all().filter(|other| other.panel().is_none()).find(shares).unwrap_or(measure)
}

/// The last observations of each group of codes of a subject, groups in the order of the table, newest first.
fn last_of(
    chart: &Chart<'_>,
    subject: Subject,
    request: &LastnSearch,
) -> Result<Vec<(Position, Found)>, ReadError> {
    let search = &request.search;
    let wanted = |series: &SeriesKey| {
        search.measures.as_ref().is_none_or(|measures| measures.contains(&series.measure))
            && search.devices.as_ref().is_none_or(|devices| devices.contains(&series.device))
    };
    let mut found: BTreeMap<Measure, Vec<(Position, Found)>> = BTreeMap::new();
    let mut by_group: BTreeMap<Measure, Vec<SeriesKey>> = BTreeMap::new();
    let filter = SeriesFilter { subject: Some(subject), ..SeriesFilter::default() };
    for series in chart.series(&filter)? {
        let address = render::address_of(series);
        if wanted(&address) {
            by_group.entry(group_of(address.measure)).or_default().push(series);
        }
    }
    if request.max == 1 && is_unconditional(search) {
        // The table of latest values has the answer for everything but events, whatever the length of the record.
        by_group.retain(|group, _| group.kind == MeasureKind::Event);
        for observed in chart.latest(subject)? {
            let Some(position) = position_of(&observed).filter(|position| wanted(&position.series)) else {
                continue;
            };
            let last = found.entry(group_of(observed.measure)).or_default();
            if last.first().is_none_or(|(kept, _)| *kept < position) {
                *last = vec![(position, Found::Readings(observed))];
            }
        }
    }
    let Some(span) = bounds(&search.date) else { return Ok(Vec::new()) };
    let fits = |position: &Position, found: &Found| {
        !is_void(found.findings()) && fitting::fits(chart, search, position, found)
    };
    for (group, series) in by_group {
        let query = SearchQuery {
            from: span.start,
            to: span.end.unwrap_or(Timestamp::MAX),
            order: Order::Descending,
            after: None,
            limit: usize::from(request.max),
        };
        found.insert(group, newest(chart, &series, query, &fits)?);
    }
    Ok(found.into_values().flatten().collect())
}

/// The newest that fit, however many do not in between.
fn newest(
    chart: &Chart<'_>,
    series: &[SeriesKey],
    mut query: SearchQuery,
    fits: &dyn Fn(&Position, &Found) -> bool,
) -> Result<Vec<(Position, Found)>, ReadError> {
    let limit = query.limit;
    let mut found = Vec::new();
    loop {
        let page = chart.search(series, &query, fits)?;
        found.extend(page.found);
        query.after = page.next;
        query.limit = limit.saturating_sub(found.len());
        if query.limit == 0 || query.after.is_none() {
            return Ok(found);
        }
    }
}

/// Whether nothing is asked of the observations themselves.
fn is_unconditional(search: &ObservationSearch) -> bool {
    search.date.is_empty()
        && search.last_updated.is_empty()
        && search.statuses.is_none()
        && search.values.is_empty()
}

fn position_of(observed: &Observed) -> Option<Position> {
    let sequence = observed.readings.first()?.sequence();
    Some(Position { at: observed.measured_at()?, series: observed.series()?, sequence })
}

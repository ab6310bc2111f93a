//! Observations: read, searched, and the latest of each code.

use std::collections::BTreeMap;

use clinical_model::{Interval, Measure, MeasureKind, PatientId, SeriesKey, Subject, Timestamp};
use health_codecs::fhir::bundle::{SearchEntry, SearchMode, SearchsetInput};
use health_codecs::fhir::search::{
    LastnSearch, ObservationSearch, ObservationStatus, Sort, bounds, parse_lastn, parse_observation_search,
};
use health_codecs::fhir::{IssueCode, OutcomeIssue, operation_outcome, searchset};
use pipeline::audited::ReadError;
use pipeline::chart::{Chart, Observed};
use pipeline::search::{CURVE_LIMIT, Found, Position, SERIES_LIMIT, SearchQuery, address_of_curve};
use store::{AuditAction, Order, SeriesFilter};

use super::answer::{Answer, Refusal};
use super::call::{self, Call};
use super::render::{self, Rendered};
use super::{AUDITED_PATIENTS_LIMIT, page, refused};
use crate::state::Web;

const KIND: &str = "Observation";

/// `GET /fhir/Observation/{id}`
pub(crate) fn read(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let act = call.act(AuditAction::Read, KIND)?.detail(format!("Observation/{}", call::shown(&call.id)));
    let position = position_of(web, &call.id)?;
    let act = match position {
        Some(position) => position.series.subject.patient().into_iter().fold(act, |act, id| act.patient(id)),
        None => act,
    };
    let Some(position) = position.filter(|position| call.may_see(web, position.series.subject)) else {
        refused(web, act)?;
        return Err(Refusal::not_found(KIND));
    };
    let found = web.site.read(act, |chart| {
        let Some(found) = chart.found(&position)? else { return Ok(None) };
        Ok(Some((render::observation(chart, &position, &found)?, render::committed_at(&found))))
    })?;
    let (rendered, committed_at) = found.ok_or_else(|| Refusal::not_found(KIND))?;
    Ok(Answer::ok(rendered.resource).version(1, committed_at))
}

/// What an id stands for. That it is one of ours does not say that anything is there, nor that it may be seen.
fn position_of(web: &Web, id: &str) -> Result<Option<Position>, Refusal> {
    let opened = web.site.store().open_identifier(id)?;
    Ok(opened.map(|(series, at, sequence)| Position { at, series, sequence }))
}

/// `GET /fhir/Observation?…`
pub(crate) fn search(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let search = parse_observation_search(&call.params).map_err(Refusal::bad_request)?;
    let plan = Plan::of(web, call, &search)?;
    note_refused(web, call, search.subjects.as_deref().unwrap_or_default())?;
    let acts = call.acts(AuditAction::Search, KIND, &call.query_text(), &plan.patients())?;
    let page = web.site.read_each(acts, |chart| plan.run(chart, &search))?;
    let next_link = page.next.map(|next| {
        let cursor = page::cursor(web.site.store(), KIND, &call.params, &page::position_bytes(&next));
        page::next_link(&call.base, KIND, &call.params, cursor)
    });
    Ok(answer(web, call, KIND, page.rendered, &search.hints, next_link))
}

fn answer(
    web: &Web,
    call: &Call,
    path: &str,
    rendered: Vec<Rendered>,
    hints: &[OutcomeIssue],
    next_link: Option<String>,
) -> Answer {
    let entry = |rendered: Rendered| SearchEntry {
        full_url: format!("{}/{KIND}/{}", call.base, rendered.id),
        resource: rendered.resource,
        mode: SearchMode::Match,
    };
    let at = web.site.clock().now();
    let mut entries: Vec<SearchEntry> = rendered.into_iter().map(entry).collect();
    if !hints.is_empty() {
        entries.push(SearchEntry {
            full_url: format!("urn:uuid:{}", trust::uuid_v7(u64::try_from(at.as_millis()).unwrap_or(0))),
            resource: operation_outcome(hints),
            mode: SearchMode::Outcome,
        });
    }
    Answer::ok(searchset(&SearchsetInput {
        self_link: page::link(&call.base, path, &call.params),
        next_link,
        total: None,
        at,
        entries,
    }))
}

/// Records that somebody asked for patients who are not theirs, or not there. Their results are left out.
fn note_refused(web: &Web, call: &Call, named: &[Subject]) -> Result<(), Refusal> {
    let hidden =
        named.iter().filter(|subject| !call.may_see(web, **subject)).filter_map(|subject| subject.patient());
    for patient in hidden.take(AUDITED_PATIENTS_LIMIT) {
        let act = call.act(AuditAction::Search, KIND)?.detail(call.query_text());
        let known = web.site.registry().patient(patient);
        refused(web, known.iter().fold(act, |act, patient| act.patient(patient.id)))?;
    }
    Ok(())
}

/// What a search comes to: which positions or series are read, all of them visible to whoever asks.
struct Plan {
    /// Asked for by id.
    positions: Option<Vec<Position>>,
    series: Vec<SeriesKey>,
    /// Intervals of curves, which are asked for by code only.
    curves: Vec<Position>,
    /// `None` where no instant can fit.
    bounds: Option<Interval>,
    after: Option<Position>,
    order: Order,
    count: usize,
}

struct Page {
    rendered: Vec<Rendered>,
    next: Option<Position>,
}

impl Plan {
    fn of(web: &Web, call: &Call, search: &ObservationSearch) -> Result<Self, Refusal> {
        let after = match &search.cursor {
            Some(cursor) => {
                Some(page::position_from(&page::place_of(web.site.store(), KIND, &call.params, cursor)?)?)
            }
            None => None,
        };
        let mut plan = Plan {
            positions: None,
            series: Vec::new(),
            curves: Vec::new(),
            bounds: bounds(&search.date),
            after,
            order: match search.sort {
                Sort::OldestFirst => Order::Ascending,
                Sort::NewestFirst => Order::Descending,
            },
            count: usize::from(search.count.unwrap_or(page::COUNT_DEFAULT)),
        };
        if let Some(ids) = &search.ids {
            let mut positions = Vec::new();
            for id in ids {
                positions.extend(position_of(web, id)?.filter(|position| {
                    call.may_see(web, position.series.subject) && address_fits(search, &position.series)
                }));
            }
            plan.positions = Some(positions);
            return Ok(plan);
        }
        let all = visible_series(web, call, search)?;
        let by_code = call.params.iter().any(|(name, _)| matches!(name.as_str(), "code" | "combo-code"));
        let (curves, series): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|series| series.measure.kind == MeasureKind::Waveform);
        plan.series = series;
        let asks_for_curves = search.measures.iter().flatten().any(|each| each.kind == MeasureKind::Waveform);
        if by_code && asks_for_curves {
            plan.curves = curve_addresses(&curves, plan.bounds)?;
        }
        Ok(plan)
    }

    /// Everybody whose data is looked at.
    fn patients(&self) -> Vec<PatientId> {
        let positions = self.positions.iter().flatten().chain(&self.curves).map(|position| position.series);
        let mut patients: Vec<PatientId> = positions
            .chain(self.series.iter().copied())
            .filter_map(|series| series.subject.patient())
            .collect();
        patients.sort();
        patients.dedup();
        patients
    }

    fn run(&self, chart: &Chart<'_>, search: &ObservationSearch) -> Result<Page, ReadError> {
        let Some(bounds) = self.bounds else { return Ok(Page { rendered: Vec::new(), next: None }) };
        let mut found = match &self.positions {
            Some(positions) => (by_ids(chart, positions, search)?, None),
            None => {
                let query = SearchQuery {
                    from: bounds.start,
                    to: bounds.end.unwrap_or(Timestamp::MAX),
                    order: self.order,
                    after: self.after,
                    limit: self.count,
                };
                let page = chart.search(&self.series, &query, &|found| fits(search, found))?;
                (page.found, page.next)
            }
        };
        let next = self.with_curves(chart, &mut found.0, found.1)?;
        let rendered = found
            .0
            .iter()
            .map(|(position, found)| render::observation(chart, position, found))
            .collect::<Result<_, _>>()?;
        Ok(Page { rendered, next })
    }

    /// Puts intervals of curves where they belong among the results of a page; where the next page goes on.
    fn with_curves(
        &self,
        chart: &Chart<'_>,
        found: &mut Vec<(Position, Found)>,
        next: Option<Position>,
    ) -> Result<Option<Position>, ReadError> {
        let is_before = |a: &Position, b: &Position| match self.order {
            Order::Ascending => a < b,
            Order::Descending => a > b,
        };
        for position in &self.curves {
            let is_here = self.after.is_none_or(|after| is_before(&after, position))
                && next.is_none_or(|next| is_before(position, &next));
            if is_here && let Some(curve) = chart.found(position)? {
                let place = found.partition_point(|(each, _)| is_before(each, position));
                found.insert(place, (*position, curve));
            }
        }
        if found.len() <= self.count {
            return Ok(next);
        }
        found.truncate(self.count);
        Ok(found.last().map(|(position, _)| *position))
    }
}

fn by_ids(
    chart: &Chart<'_>,
    positions: &[Position],
    search: &ObservationSearch,
) -> Result<Vec<(Position, Found)>, ReadError> {
    let mut results = Vec::new();
    for position in positions {
        let found = chart.found(position)?;
        results.extend(found.filter(|found| fits(search, found)).map(|found| (*position, found)));
    }
    Ok(results)
}

/// Whether subject, device and code fit; the rest is asked of what is found.
fn address_fits(search: &ObservationSearch, series: &SeriesKey) -> bool {
    search.subjects.as_ref().is_none_or(|subjects| subjects.contains(&series.subject))
        && search.devices.as_ref().is_none_or(|devices| devices.contains(&series.device))
        && search.measures.as_ref().is_none_or(|measures| measures.contains(&series.measure))
}

fn fits(search: &ObservationSearch, found: &Found) -> bool {
    let measured_at = match found {
        Found::Readings(observed) => observed.measured_at(),
        Found::Event(event) => Some(event.at),
        Found::Curve(_) => None,
    };
    let committed_at = render::committed_at(found);
    measured_at.is_none_or(|at| search.date.iter().all(|filter| filter.matches(at)))
        && search.last_updated.iter().all(|filter| filter.matches(committed_at))
        && search.statuses.as_ref().is_none_or(|statuses| {
            statuses.contains(match render::is_preliminary(found) {
                true => &ObservationStatus::Preliminary,
                false => &ObservationStatus::Final,
            })
        })
}

/// The stored series that a search asks for and that whoever asks may see. Says nothing of what is in them.
fn visible_series(web: &Web, call: &Call, search: &ObservationSearch) -> Result<Vec<SeriesKey>, Refusal> {
    let measures: Option<Vec<Measure>> = search.series_measures().map(|all| all.into_iter().collect());
    if measures.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let subjects: Vec<Option<Subject>> = match &search.subjects {
        Some(subjects) => subjects.iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let devices: Vec<_> = match &search.devices {
        Some(devices) => devices.iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let mut all = Vec::new();
    for subject in &subjects {
        for device in &devices {
            let measures = measures.clone().unwrap_or_default();
            let filter = SeriesFilter { subject: *subject, device: *device, measures };
            all.extend(web.site.store().series(&filter)?);
        }
    }
    let mut may_see: BTreeMap<Subject, bool> = BTreeMap::new();
    all.retain(|series| *may_see.entry(series.subject).or_insert_with(|| call.may_see(web, series.subject)));
    if all.len() > SERIES_LIMIT {
        let what = format!(
            "{} series would have to be read; narrow the search by patient, device or code",
            all.len()
        );
        return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, "")]));
    }
    Ok(all)
}

/// One address a curve, for the interval that was asked for.
fn curve_addresses(curves: &[SeriesKey], bounds: Option<Interval>) -> Result<Vec<Position>, Refusal> {
    let Some(bounds) = bounds else { return Ok(Vec::new()) };
    let end = bounds
        .end
        .filter(|end| bounds.start > Timestamp::MIN && end.duration_since(bounds.start) <= CURVE_LIMIT);
    let Some(end) = end else {
        let what = format!(
            "a curve is read by interval: date=ge…&date=lt… with at most {} minutes between them",
            CURVE_LIMIT.as_secs() / 60
        );
        return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, "http.date")]));
    };
    Ok(curves.iter().map(|series| address_of_curve(*series, bounds.start, end)).collect())
}

/// `GET /fhir/Observation/$lastn?…`
pub(crate) fn lastn(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let search = parse_lastn(&call.params).map_err(Refusal::bad_request)?;
    let visible: Vec<Subject> =
        search.subjects.iter().copied().filter(|subject| call.may_see(web, *subject)).collect();
    let patients: Vec<PatientId> = visible.iter().filter_map(|subject| subject.patient()).collect();
    note_refused(web, call, &search.subjects)?;
    let acts = call.acts(AuditAction::Search, KIND, &format!("$lastn {}", call.query_text()), &patients)?;
    let rendered = web.site.read_each(acts, |chart| {
        let mut rendered = Vec::new();
        for subject in &visible {
            for (position, found) in last_of(chart, *subject, &search)? {
                rendered.push(render::observation(chart, &position, &found)?);
            }
        }
        Ok(rendered)
    })?;
    Ok(answer(web, call, "Observation/$lastn", rendered, &search.hints, None))
}

/// The last observations of each code of a subject, codes in the order of the table, newest first.
fn last_of(
    chart: &Chart<'_>,
    subject: Subject,
    search: &LastnSearch,
) -> Result<Vec<(Position, Found)>, ReadError> {
    let wanted =
        |measure: Measure| search.measures.as_ref().is_none_or(|measures| measures.contains(&measure));
    let mut found: BTreeMap<Measure, Vec<(Position, Found)>> = BTreeMap::new();
    let mut by_code: BTreeMap<Measure, Vec<SeriesKey>> = BTreeMap::new();
    let filter = SeriesFilter { subject: Some(subject), ..SeriesFilter::default() };
    for series in chart.series(&filter)? {
        let code = render::address_of(series).measure;
        if wanted(code) {
            by_code.entry(code).or_default().push(series);
        }
    }
    if search.max == 1 {
        // The table of latest values has the answer for everything but events, whatever the length of the record.
        by_code.retain(|code, _| code.kind == MeasureKind::Event);
        for observed in chart.latest(subject)?.into_iter().filter(|observed| wanted(observed.measure)) {
            let Some(position) = position_of_observed(&observed) else { continue };
            let code = observed.measure;
            let last = found.entry(code).or_default();
            if last.first().is_none_or(|(kept, _)| *kept < position) {
                *last = vec![(position, Found::Readings(observed))];
            }
        }
    }
    let everything = |_: &Found| true;
    for (code, series) in by_code {
        let query = SearchQuery {
            from: Timestamp::MIN,
            to: Timestamp::MAX,
            order: Order::Descending,
            after: None,
            limit: usize::from(search.max),
        };
        found.insert(code, chart.search(&series, &query, &everything)?.found);
    }
    Ok(found.into_values().flatten().collect())
}

fn position_of_observed(observed: &Observed) -> Option<Position> {
    let sequence = observed.readings.first()?.sequence();
    Some(Position { at: observed.measured_at()?, series: observed.series()?, sequence })
}

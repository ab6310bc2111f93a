//! Observations: read and searched.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use clinical_model::{Interval, Measure, MeasureKind, PatientId, SeriesKey, Subject, Timestamp};
use health_codecs::fhir::search::{
    ObservationSearch, Prefix, Query, ResourceType, Sort, Total, bounds, parse_observation_search,
};
use health_codecs::fhir::{IssueCode, OutcomeIssue};
use pipeline::audited::ReadError;
use pipeline::chart::Chart;
use pipeline::identifiers;
use pipeline::search::{CURVE_LIMIT, Found, Position, SERIES_LIMIT, SearchQuery, address_of_curve};
use serde_json::Value;
use store::{AuditAction, Order, SeriesFilter};

use super::answer::{Answer, Refusal};
use super::call::{self, Call};
use super::conditions::Condition;
use super::fitting::fits;
use super::include::{self, Node};
use super::results::{self, Results};
use super::{AUDITED_PATIENTS_LIMIT, links, page, refused, render};
use crate::state::Web;

const KIND: &str = "Observation";
/// Most readings that are looked at to count the results of a search: about half a second of work.
const TOTAL_LIMIT_READINGS: usize = 5_000_000;
/// Results that are counted at once where filters have to look at each.
const TOTAL_PAGE: usize = 10_000;

/// `GET /fhir/Observation/{id}`
pub(crate) fn read(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let act = call.act(AuditAction::Read, KIND)?.detail(format!("Observation/{}", call::shown(&call.id)));
    let position = position_of(web, &call.id)?;
    let act = match position {
        Some(position) => position.series.subject.patient().into_iter().fold(act, |act, id| act.patient(id)),
        None => act,
    };
    let Some(position) = position.filter(|position| call.may_see_series(web, &position.series)) else {
        refused(web, call.access()?.refused_look(web, act))?;
        return Err(Refusal::not_found(KIND));
    };
    let found = call.chart(web, act, |chart| {
        let Some(found) = chart.found(&position)? else { return Ok(None) };
        Ok(Some(render::observation(chart, &position, &found)?))
    })?;
    let rendered = found.ok_or_else(|| Refusal::not_found(KIND))?;
    if rendered.is_withdrawn {
        let what = "this Observation was deleted; its history is kept";
        return Err(Refusal::new(StatusCode::GONE, IssueCode::Deleted, what));
    }
    Ok(Answer::ok(rendered.resource).version(rendered.version, rendered.updated_at))
}

/// What an id stands for. That it is one of ours does not say that anything is there, nor that it may be seen.
pub(crate) fn position_of(web: &Web, id: &str) -> Result<Option<Position>, Refusal> {
    let opened = web.site.store().open_identifier(id)?;
    Ok(opened.map(|(series, at, sequence)| Position { at, series, sequence }))
}

/// `GET /fhir/Observation?…`
pub(crate) fn search(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    search_as(web, call, KIND, &call.params)
}

/// `GET /fhir/Patient/{id}/Observation?…`: the same in the compartment of a patient.
pub(crate) fn search_of_patient(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let mut params = call.params.clone();
    params.push(("patient".to_owned(), call.id.clone()));
    search_as(web, call, &format!("Patient/{}/{KIND}", call.id), &params)
}

fn search_as(web: &Web, call: &Call, path: &str, params: &[(String, String)]) -> Result<Answer, Refusal> {
    let mut query = links::query_of(ResourceType::Observation, call, params)?;
    let search = conditions(web, call, &query)?;
    let plan = Plan::of(web, call, path, &search, &query)?;
    note_refused(web, call, search.subjects.as_deref().unwrap_or_default())?;
    let patients = plan.patients();
    let acts = call.acts(AuditAction::Search, KIND, &call.query_text(web), &patients)?;
    let is_counted = results::is_count(&query, &call.params);
    let (page, total) = call.chart_each(web, acts, |chart| {
        let total = match (is_counted, query.total) {
            (false, Total::None) => None,
            _ => Some(plan.total(chart, &search)?),
        };
        let page = if is_counted { Page::default() } else { plan.run(chart, &search)? };
        Ok((page, total))
    })?;
    let total = match total {
        None => None,
        Some(Some(total)) => Some(total),
        Some(None) if query.total == Total::Estimate && !is_counted => {
            let what = format!("the total is not known: more than {TOTAL_LIMIT_READINGS} readings");
            query.hints.push(OutcomeIssue::information(what));
            None
        }
        Some(None) => return Err(too_costly("to count these observations", "http._total")),
    };
    let next_link = page.next.map(|next| {
        let cursor = page::cursor(web.site.store(), path, &call.params, &page::position_bytes(&next));
        page::next_link(&call.base, path, &call.params, cursor)
    });
    query.hints.extend(search.hints.iter().cloned());
    let nodes = page.positions.into_iter().map(Node::Observation).collect();
    let included = include::all(web, call, &query, ResourceType::Observation, nodes, patients)?;
    let matches = page.rendered;
    let results = Results { path, kind: ResourceType::Observation, matches, included, total, next_link };
    Ok(results::bundle(web, call, &query, results))
}

/// The filters of a search with what its chains allow.
pub(crate) fn conditions(web: &Web, call: &Call, query: &Query) -> Result<ObservationSearch, Refusal> {
    let filters = results::without_zero_count(&query.filters);
    let search = parse_observation_search(&filters).map_err(Refusal::bad_request)?;
    narrowed(web, call, query, search)
}

/// A search with what its chains allow.
pub(crate) fn narrowed(
    web: &Web,
    call: &Call,
    query: &Query,
    mut search: ObservationSearch,
) -> Result<ObservationSearch, Refusal> {
    if let Some(allowed) = links::allowed_by_chains(web, call, query, &["patient", "subject"])? {
        search.subjects = Some(match search.subjects {
            None => allowed.into_iter().collect(),
            Some(named) => named.into_iter().filter(|subject| allowed.contains(subject)).collect(),
        });
    }
    if let Some(allowed) = links::allowed_by_chains(web, call, query, &["device"])? {
        let allowed = allowed.into_iter().filter_map(|subject| match subject {
            Subject::Device(device) => Some(device),
            _ => None,
        });
        search.devices = Some(match search.devices {
            None => allowed.collect(),
            Some(named) => allowed.filter(|device| named.contains(device)).collect(),
        });
    }
    Ok(search)
}

/// The subjects of, or the devices behind, Observations that fit and that whoever asks may see.
pub(crate) fn referred(
    web: &Web,
    call: &Call,
    reference: &str,
    query: &Query,
) -> Result<BTreeSet<Subject>, Refusal> {
    let search = conditions(web, call, query)?;
    let target = |series: &SeriesKey| match reference {
        "device" => Some(Subject::Device(series.device)),
        "patient" => series.subject.patient().map(Subject::Patient),
        _ => Some(series.subject),
    };
    let is_of_series_alone = search.ids.is_none()
        && search.date.is_empty()
        && search.last_updated.is_empty()
        && search.statuses.is_none()
        && search.values.is_empty()
        && search.identifiers.is_none();
    if is_of_series_alone {
        // A series is there because something was measured.
        return Ok(visible_series(web, call, &search)?.iter().filter_map(target).collect());
    }
    let plan = Plan::of(web, call, KIND, &search, query)?;
    let acts = call.acts(AuditAction::Search, KIND, &call.query_text(web), &plan.patients())?;
    let limit = web.options.costs.has_observations;
    let looked_at = Cell::new(0);
    let found = call.chart_each(web, acts, |chart| {
        if plan.positions.is_some() {
            let found = plan.run(chart, &search)?;
            return Ok(Some(
                found.positions.iter().filter_map(|position| target(&position.series)).collect(),
            ));
        }
        let mut groups: BTreeMap<Subject, Vec<SeriesKey>> = BTreeMap::new();
        for series in &plan.series {
            if let Some(target) = target(series) {
                groups.entry(target).or_default().push(*series);
            }
        }
        let mut found = BTreeSet::new();
        for (target, series) in groups {
            let one = Plan { series, curves: Vec::new(), count: 1, ..plan.clone() };
            if one.has_any(chart, &search, &looked_at, limit)? {
                found.insert(target);
            }
            if looked_at.get() > limit {
                return Ok(None);
            }
        }
        Ok(Some(found))
    })?;
    found.ok_or_else(|| {
        let what = format!(
            "more than {limit} observations would have to be looked at for this _has; narrow it by code, or ask for \
             Observation?… by date"
        );
        Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, "http._has")])
    })
}

fn too_costly(what: &str, place: &str) -> Refusal {
    let what = format!(
        "more than {TOTAL_LIMIT_READINGS} readings would have to be looked at {what}; narrow the search by patient, code \
         or date"
    );
    Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, place)])
}

/// Records that somebody asked for patients who are not theirs, or not there. Their results are left out.
pub(crate) fn note_refused(web: &Web, call: &Call, named: &[Subject]) -> Result<(), Refusal> {
    let hidden =
        named.iter().filter(|subject| !call.may_see(web, **subject)).filter_map(|subject| subject.patient());
    for patient in hidden.take(AUDITED_PATIENTS_LIMIT) {
        let act = call.act(AuditAction::Search, KIND)?.detail(call.query_text(web));
        let known = web.site.registry().patient(patient);
        let act = known.iter().fold(act, |act, patient| act.patient(patient.id));
        refused(web, call.access()?.refused_look(web, act))?;
    }
    Ok(())
}

/// What a search comes to: which positions or series are read, all of them visible to whoever asks.
#[derive(Clone)]
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

#[derive(Default)]
struct Page {
    positions: Vec<Position>,
    rendered: Vec<(String, Value)>,
    next: Option<Position>,
}

impl Plan {
    fn of(
        web: &Web,
        call: &Call,
        path: &str,
        search: &ObservationSearch,
        query: &Query,
    ) -> Result<Self, Refusal> {
        let after = match &search.cursor {
            Some(cursor) => {
                Some(page::position_from(&page::place_of(web.site.store(), path, &call.params, cursor)?)?)
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
        if let Some(named) = named_positions(web, search)? {
            let sight = call.sight_of(web, KIND)?;
            let fits = |position: &Position| {
                sight.series(&position.series) && address_fits(search, &position.series)
            };
            plan.positions = Some(named.into_iter().filter(fits).collect());
            return Ok(plan);
        }
        let all = visible_series(web, call, search)?;
        // A whole system (`http://loinc.org|`) asks for what is measured, not for curves.
        let names_a_code = |value: &str| value.split(',').any(|part| !part.ends_with('|'));
        let by_code = query
            .filters
            .iter()
            .any(|(name, value)| matches!(name.as_str(), "code" | "combo-code") && names_a_code(value));
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
        let Some(range) = self.range(self.count) else { return Ok(Page::default()) };
        let mut found = match &self.positions {
            Some(positions) => (by_ids(chart, positions, search)?, None),
            None => {
                let page = chart.search(&self.series, &range, &|at, found| fits(chart, search, at, found))?;
                (page.found, page.next)
            }
        };
        let next = self.with_curves(chart, &mut found.0, found.1)?;
        let mut page = Page { next, ..Page::default() };
        for (position, found) in &found.0 {
            let rendered = render::observation(chart, position, found)?;
            if !rendered.is_withdrawn {
                page.positions.push(*position);
                page.rendered.push((rendered.id, rendered.resource));
            }
        }
        Ok(page)
    }

    /// The range that is read, in pages of that size; `None` where no instant can fit.
    fn range(&self, limit: usize) -> Option<SearchQuery> {
        let bounds = self.bounds?;
        let to = bounds.end.unwrap_or(Timestamp::MAX);
        Some(SearchQuery { from: bounds.start, to, order: self.order, after: self.after, limit })
    }

    /// Whether anything fits, and how many were looked at; past the limit the answer is worth nothing.
    fn has_any(
        &self,
        chart: &Chart<'_>,
        search: &ObservationSearch,
        looked_at: &Cell<usize>,
        limit: usize,
    ) -> Result<bool, ReadError> {
        let Some(mut range) = self.range(1) else { return Ok(false) };
        let fits = |at: &Position, found: &Found| {
            looked_at.set(looked_at.get() + 1);
            fits(chart, search, at, found)
        };
        loop {
            let page = chart.search(&self.series, &range, &fits)?;
            if !page.found.is_empty() || page.next.is_none() || looked_at.get() > limit {
                return Ok(!page.found.is_empty());
            }
            range.after = page.next;
        }
    }

    /// How many fit in all; `None` where that would take too long to count.
    fn total(&self, chart: &Chart<'_>, search: &ObservationSearch) -> Result<Option<u64>, ReadError> {
        let first = Plan { after: None, ..self.clone() };
        if let Some(positions) = &first.positions {
            return Ok(Some(by_ids(chart, positions, search)?.len() as u64));
        }
        let Some(mut range) = first.range(TOTAL_PAGE) else { return Ok(Some(0)) };
        let mut curves = 0;
        for position in &first.curves {
            curves += u64::from(chart.found(position)?.is_some());
        }
        let is_span = search.date.iter().all(|filter| filter.prefix != Prefix::Ne);
        if is_span && search.last_updated.is_empty() && search.statuses.is_none() && search.values.is_empty()
        {
            let counted = chart.count(&first.series, (range.from, range.to), TOTAL_LIMIT_READINGS)?;
            return Ok(counted.map(|count| count + curves));
        }
        let (mut count, mut pages) = (0, 0);
        loop {
            let page = chart.search(&first.series, &range, &|at, found| fits(chart, search, at, found))?;
            count += page.found.len() as u64;
            pages += 1;
            range.after = page.next;
            if range.after.is_none() {
                return Ok(Some(count + curves));
            }
            if pages * TOTAL_PAGE > TOTAL_LIMIT_READINGS {
                return Ok(None);
            }
        }
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

/// The positions that ids and identifiers stand for; `None` where neither is given.
fn named_positions(web: &Web, search: &ObservationSearch) -> Result<Option<Vec<Position>>, Refusal> {
    let mut named: Option<Vec<Position>> = None;
    if let Some(ids) = &search.ids {
        let mut positions = Vec::new();
        for id in ids {
            positions.extend(position_of(web, id)?);
        }
        named = Some(positions);
    }
    if let Some(tokens) = &search.identifiers {
        let mut positions = Vec::new();
        for token in tokens {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            let condition = Condition { system: part(&token.system), value: part(&token.code) };
            let found = identifiers::find(web.site.store(), condition.key(web, KIND))?;
            let targets = found.map(|(claimed, _)| claimed.targets).unwrap_or_default();
            positions.extend(targets.iter().filter_map(|target| target.position()));
        }
        named = Some(match named {
            None => positions,
            Some(ids) => ids.into_iter().filter(|position| positions.contains(position)).collect(),
        });
    }
    Ok(named)
}

fn by_ids(
    chart: &Chart<'_>,
    positions: &[Position],
    search: &ObservationSearch,
) -> Result<Vec<(Position, Found)>, ReadError> {
    let mut results = Vec::new();
    for position in positions {
        let found = chart.found(position)?;
        results.extend(
            found.filter(|found| fits(chart, search, position, found)).map(|found| (*position, found)),
        );
    }
    Ok(results)
}

/// Whether subject, device and code fit; the rest is asked of what is found.
fn address_fits(search: &ObservationSearch, series: &SeriesKey) -> bool {
    search.subjects.as_ref().is_none_or(|subjects| subjects.contains(&series.subject))
        && search.devices.as_ref().is_none_or(|devices| devices.contains(&series.device))
        && search.measures.as_ref().is_none_or(|measures| measures.contains(&series.measure))
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
    let sight = call.sight_of(web, KIND)?;
    all.retain(|series| sight.series(series));
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

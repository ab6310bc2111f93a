//! `$everything`: a patient's whole record, page by page: the patient, their places and devices, every observation, and
//! curves minute by minute.

use std::collections::BTreeSet;

use clinical_model::{DeviceId, Interval, MeasureKind, Patient, PatientId, SeriesKey, Subject, Timestamp};
use health_codecs::fhir::bundle::{SearchEntry, SearchMode, SearchsetInput};
use health_codecs::fhir::search::{EverythingRequest, ResourceType, parse_everything};
use health_codecs::fhir::searchset;
use pipeline::audited::ReadError;
use pipeline::chart::Chart;
use pipeline::search::{Found, MINUTE_MICROS, Position, SearchQuery};
use serde_json::Value;
use store::{AuditAction, Order, SeriesFilter};

use super::answer::{Answer, Refusal};
use super::call::{self, Call};
use super::render::{self, Rendered};
use super::{links, page, records, refused};
use crate::access::Access;
use crate::download::Broken;
use crate::state::Web;

/// What was changed in there, by the time of the version that is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Changed {
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub before: Option<Timestamp>,
}

impl Changed {
    /// Whether all of time is in it.
    fn is_ever(&self) -> bool {
        self.since.is_none() && self.before.is_none()
    }

    /// Whether something that came about at one time and was last changed at another belongs in it.
    pub(crate) fn holds_version(&self, created_at: Timestamp, updated_at: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= updated_at)
            && self.before.is_none_or(|before| created_at < before)
    }

    /// As [`Changed::holds_version`], of what has one version.
    pub(crate) fn holds(&self, at: Timestamp) -> bool {
        self.holds_version(at, at)
    }
}

/// Where in a record a page goes on. The numbers stand in cursors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// At this one of the records.
    Records(u16),
    /// After this observation, or at the first.
    Observations(Option<Position>),
    /// After this minute of a curve, or at the first.
    Curves(Option<Position>),
}

impl Place {
    fn bytes(self) -> Vec<u8> {
        let (kind, position) = match self {
            Place::Records(index) => return vec![0, index.to_be_bytes()[0], index.to_be_bytes()[1]],
            Place::Observations(position) => (1, position),
            Place::Curves(position) => (2, position),
        };
        let mut bytes = vec![kind];
        bytes.extend(position.iter().flat_map(page::position_bytes));
        bytes
    }

    fn from(bytes: &[u8]) -> Result<Self, Refusal> {
        let position = |rest: &[u8]| match rest {
            [] => Ok(None),
            rest => page::position_from(rest).map(Some),
        };
        match bytes {
            [0, high, low] => Ok(Place::Records(u16::from_be_bytes([*high, *low]))),
            [1, rest @ ..] => Ok(Place::Observations(position(rest)?)),
            [2, rest @ ..] => Ok(Place::Curves(position(rest)?)),
            _ => Err(page::not_ours()),
        }
    }
}

/// `GET /fhir/Patient/{id}/$everything`
pub(crate) fn everything(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let request = parse_everything(&call.params).map_err(Refusal::bad_request)?;
    let known = call.id.parse().ok().and_then(|id: PatientId| web.site.registry().patient(id));
    let act = call.act(AuditAction::Read, "everything")?.detail(format!(
        "Patient/{}/$everything {}",
        call::named(&call.id),
        call.query_text(web)
    ));
    let act = known.iter().fold(act, |act, patient| act.patient(patient.id));
    let Some(patient) = known.filter(|patient| call.may_see(web, Subject::Patient(patient.id))) else {
        refused(web, call.access()?.refused_look(web, act))?;
        return Err(Refusal::not_found("Patient"));
    };
    let path = format!("Patient/{}/$everything", patient.id);
    let place = match &request.cursor {
        Some(cursor) => Place::from(&page::place_of(web.site.store(), &path, &call.params, cursor)?)?,
        None => Place::Records(0),
    };
    let whole = Record::of(web, &patient, &request, &|subject, _| links::may_show(web, call, subject))?;
    let count = usize::from(request.count.unwrap_or(page::COUNT_DEFAULT));
    let (shown, next) = call.chart(web, act, |chart| whole.page((web, call), chart, place, count))?;
    let entries = shown.into_iter().map(|(kind, id, resource)| SearchEntry {
        full_url: format!("{}/{}/{id}", call.base, kind.name()),
        resource,
        mode: SearchMode::Match,
    });
    let next_link = next.map(|next| {
        let cursor = page::cursor(web.site.store(), &path, &call.params, &next.bytes());
        page::next_link(&call.base, &path, &call.params, cursor)
    });
    Ok(Answer::ok(searchset(&SearchsetInput {
        self_link: page::link(&call.base, &path, &call.params),
        next_link,
        total: None,
        at: web.site.clock().now(),
        entries: entries.collect(),
    })))
}

/// Resources of an export that are read at once.
const EXPORT_AT_ONCE: usize = 500;

/// A patient's whole record for an export that is recorded already, page by page; nothing is held between two of them.
pub(crate) struct Everything {
    call: Call,
    whole: Record,
    next: Option<Place>,
}

impl Everything {
    /// From its beginning.
    pub(crate) fn begin(web: &Web, access: &Access, patient: &Patient) -> Result<Self, Refusal> {
        let call = Call::inside(access.clone(), "Patient", patient.id.to_string());
        let request = parse_everything(&call.params).map_err(Refusal::bad_request)?;
        let sight = call.sight_of(web, "Observation")?;
        // Where they lay and what was at their bed is part of their record, also for those who may see no ward or fleet.
        let of_record = |subject: Subject, series: &[SeriesKey]| match subject {
            Subject::Patient(_) | Subject::Place(_) => true,
            Subject::Device(device) => {
                sight.devices_of(patient)
                    || series.iter().any(|one| one.device == device && sight.series(one))
            }
        };
        let whole = Record::of(web, patient, &request, &of_record)?;
        drop(sight);
        Ok(Everything { call, whole, next: Some(Place::Records(0)) })
    }

    /// The next page of what may be seen now; `None` behind the last.
    pub(crate) fn page(&mut self, web: &Web) -> Result<Option<Vec<Value>>, Broken> {
        let Some(at) = self.next.take() else { return Ok(None) };
        let sight = self.call.sight_of(web, "Observation").map_err(|_| Broken::Unseen)?;
        let seen = |series: &SeriesKey| sight.series(series);
        let page =
            |chart: &Chart<'_>| self.whole.page((web, &self.call), &chart.seen_by(&seen), at, EXPORT_AT_ONCE);
        let (shown, next) = web.site.live_chart(page)?;
        self.next = next;
        Ok(Some(shown.into_iter().map(|(_, _, resource)| resource).collect()))
    }
}

/// A patient's record as far as it was asked for.
struct Record {
    records: Vec<Subject>,
    observed: Observed,
}

/// A page: type, id, resource; and where the next one goes on.
type Page = (Vec<(ResourceType, String, Value)>, Option<Place>);

impl Record {
    fn of(
        web: &Web,
        patient: &Patient,
        request: &EverythingRequest,
        shows: &dyn Fn(Subject, &[SeriesKey]) -> bool,
    ) -> Result<Self, Refusal> {
        let wants = |kind: ResourceType| request.types.contains(&kind);
        let filter = SeriesFilter { subject: Some(Subject::Patient(patient.id)), ..SeriesFilter::default() };
        let series = web.site.store().series(&filter)?;
        let mut records = Vec::new();
        if wants(ResourceType::Patient) {
            records.push(Subject::Patient(patient.id));
        }
        let registry = web.site.registry();
        if wants(ResourceType::Location) {
            records.extend(patient.place.map(Subject::Place));
            records.extend(registry.ward_of(patient).map(Subject::Place));
        }
        if wants(ResourceType::Device) {
            let now = web.site.clock().now();
            let assigned = registry.devices_of(Subject::Patient(patient.id), now);
            let mut devices: BTreeSet<DeviceId> = assigned.iter().map(|device| device.id).collect();
            devices.extend(series.iter().map(|series| series.device));
            records.extend(devices.into_iter().map(Subject::Device));
        }
        let mut once = BTreeSet::new();
        records.retain(|subject| shows(*subject, &series) && once.insert(*subject));
        let series = if wants(ResourceType::Observation) { series } else { Vec::new() };
        let changed = Changed { since: request.since, before: None };
        Ok(Record { records, observed: Observed::new(series, request.measured, changed) })
    }

    fn page(
        &self,
        (web, call): (&Web, &Call),
        chart: &Chart<'_>,
        place: Place,
        count: usize,
    ) -> Result<Page, ReadError> {
        let mut shown = Vec::new();
        let mut place = place;
        if let Place::Records(from) = place {
            for (index, subject) in self.records.iter().enumerate().skip(usize::from(from)) {
                if shown.len() >= count {
                    return Ok((shown, Some(Place::Records(u16::try_from(index).unwrap_or(u16::MAX)))));
                }
                let Some((id, resource)) = records::shown_record(web, call, *subject)? else {
                    continue;
                };
                if self.observed.changed.holds(records::updated_at(&web.site, *subject)?) {
                    shown.push((kind_of(*subject), id, resource));
                }
            }
            place = Place::Observations(None);
        }
        let left = count.saturating_sub(shown.len());
        if left == 0 {
            return Ok((shown, Some(place)));
        }
        let (rendered, next) = self.observed.page(chart, place, left)?;
        shown.extend(rendered.into_iter().map(|one| (ResourceType::Observation, one.id, one.resource)));
        Ok((shown, next))
    }
}

fn kind_of(subject: Subject) -> ResourceType {
    match subject {
        Subject::Patient(_) => ResourceType::Patient,
        Subject::Device(_) => ResourceType::Device,
        Subject::Place(_) => ResourceType::Location,
    }
}

/// Observations with their places in the chart; and where to go on.
type FoundPage = (Vec<(Position, Found)>, Option<Place>);

/// The observations of some series, and their curves minute by minute.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    series: Vec<SeriesKey>,
    curves: Vec<SeriesKey>,
    measured: Interval,
    changed: Changed,
}

impl Observed {
    /// Those of given series, all of which whoever asks may see.
    pub(crate) fn new(series: Vec<SeriesKey>, measured: Interval, changed: Changed) -> Self {
        let is_curve = |series: &SeriesKey| series.measure.kind == MeasureKind::Waveform;
        let (mut curves, series): (Vec<_>, Vec<_>) = series.into_iter().partition(is_curve);
        curves.sort();
        Observed { series, curves, measured, changed }
    }

    /// Some of them from a place on, oldest first; where to go on.
    pub(crate) fn page(
        &self,
        chart: &Chart<'_>,
        place: Place,
        count: usize,
    ) -> Result<(Vec<Rendered>, Option<Place>), ReadError> {
        let mut rendered = Vec::new();
        let after = match place {
            Place::Records(_) => None,
            Place::Observations(after) => after,
            Place::Curves(after) => return self.curves(chart, after, count),
        };
        let (page, next) = self.found(chart, after, count)?;
        for (position, found) in &page {
            rendered.push(render::observation(chart, position, found)?);
        }
        Ok((rendered, next))
    }

    fn found(
        &self,
        chart: &Chart<'_>,
        after: Option<Position>,
        count: usize,
    ) -> Result<FoundPage, ReadError> {
        let query = SearchQuery {
            from: self.measured.start,
            to: self.measured.end.unwrap_or(Timestamp::MAX),
            order: Order::Ascending,
            after,
            limit: count,
        };
        let fits = |position: &Position, found: &Found| self.holds(chart, position, found);
        let page = chart.search(&self.series, &query, &fits)?;
        let next = match page.next {
            Some(next) => Some(Place::Observations(Some(next))),
            None => (!self.curves.is_empty()).then_some(Place::Curves(None)),
        };
        Ok((page.found, next))
    }

    /// As [`Observed::page`], but counts what it would give.
    pub(crate) fn count_page(
        &self,
        chart: &Chart<'_>,
        place: Place,
        count: usize,
    ) -> Result<(u64, Option<Place>), ReadError> {
        let after = match place {
            Place::Records(_) => None,
            Place::Observations(after) => after,
            Place::Curves(after) => {
                let (rendered, next) = self.curves(chart, after, count)?;
                return Ok((rendered.len() as u64, next));
            }
        };
        let (page, next) = self.found(chart, after, count)?;
        Ok((page.len() as u64, next))
    }

    fn holds(&self, chart: &Chart<'_>, position: &Position, found: &Found) -> bool {
        if self.changed.is_ever() {
            return true;
        }
        let committed_at = render::committed_at(found);
        // A correction that cannot be read is met again, and told, when the result is rendered.
        let correction = chart.correction(position).ok().flatten();
        // What was corrected after the end of that time was there before, in another version.
        self.changed.holds_version(committed_at, correction.map_or(committed_at, |each| each.corrected_at))
    }

    fn curves(
        &self,
        chart: &Chart<'_>,
        after: Option<Position>,
        count: usize,
    ) -> Result<(Vec<Rendered>, Option<Place>), ReadError> {
        let mut rendered = Vec::new();
        let mut last = None;
        let begin = after.map_or(0, |after| self.curves.partition_point(|series| *series < after.series));
        for series in &self.curves[begin..] {
            let mut from = match after.filter(|after| after.series == *series) {
                Some(after) => after.at.plus_micros(MINUTE_MICROS),
                None => self.measured.start,
            };
            let to = self.measured.end.unwrap_or(Timestamp::MAX);
            while let Some(position) = chart.next_minute(series, from, to)? {
                if rendered.len() >= count {
                    return Ok((rendered, last.map(|last| Place::Curves(Some(last)))));
                }
                from = position.at.plus_micros(MINUTE_MICROS);
                last = Some(position);
                let Some(found) = chart.found(&position)? else { continue };
                if self.changed.holds(render::committed_at(&found)) {
                    rendered.push(render::observation(chart, &position, &found)?);
                }
            }
        }
        Ok((rendered, None))
    }
}

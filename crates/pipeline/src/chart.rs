//! Reading the chart: latest values, readings, trends, waveforms, provenance, alerts. Reached only through the audit
//! wrapper ([`Site::read`](crate::Site::read)).

use std::sync::PoisonError;

use clinical_analytics::trend::{Bucket, Buckets};
use clinical_model::{
    Alert, AlertId, Committed, Decimal, Event, Findings, Measure, MeasureKind, PatientId, QuarantineId,
    QuarantineItem, Reading, SeriesKey, Subject, Timestamp, Waveform,
};
use store::{
    AuditQuery, AuditRow, DocumentQuery, GroupSummary, KeptFrame, Kind, Order, Point, RangeQuery,
    SeriesFilter, Store, StoreError,
};

use crate::audited::ReadError;
use crate::corrections::{Corrections, is_void};
use crate::records;
use crate::registry::Registry;
use crate::search::{Found, SearchQuery};
use crate::site::Site;

/// Points that are handed over at once where corrections have to be laid over them.
const POINTS_AT_ONCE: usize = 4_096;
/// Most waveform blocks of one answer.
pub const WAVEFORM_LIMIT_BLOCKS: usize = 2_000;

/// One observation: a reading, or the components of a panel at one instant.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The measure or the panel.
    pub measure: Measure,
    /// One reading, or the components in the order of the table.
    pub readings: Vec<Committed<Reading>>,
}

impl Observed {
    /// The series by which it is addressed: that of the reading, or that of the panel.
    pub fn series(&self) -> Option<SeriesKey> {
        let series = self.readings.first()?.series();
        Some(SeriesKey { measure: self.measure, ..series })
    }

    /// What is remarked about any part of it.
    pub fn findings(&self) -> Findings {
        self.readings.iter().fold(Findings::empty(), |all, reading| all | reading.findings())
    }

    /// When it was measured.
    pub fn measured_at(&self) -> Option<Timestamp> {
        self.readings.first().map(|reading| reading.measured_at())
    }
}

/// One trend: the buckets of one series that have values.
#[derive(Clone, Debug)]
pub struct Trend {
    /// The series.
    pub series: SeriesKey,
    /// The buckets, oldest first; empty ones are left out.
    pub buckets: Vec<Bucket>,
    /// For each bucket with exactly one reading, when that was measured, and its sequence.
    pub single: Vec<Option<(Timestamp, u32)>>,
    /// Most decimal places that a reading had.
    pub decimals: u8,
}

/// Everything behind one value.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The observation.
    pub observed: Observed,
    /// The frames it came in: the exact bytes.
    pub frames: Vec<KeptFrame>,
}

/// The chart, open for one audited act.
///
/// What is measured in it is seen through [`Chart::seen_by`]: every reading, curve and event passes there, so that no way of
/// asking shows what another way hides.
#[derive(Clone, Copy)]
pub struct Chart<'a> {
    site: &'a Site,
    seen: Option<&'a dyn Fn(&SeriesKey) -> bool>,
}

impl<'a> Chart<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        Chart { site, seen: None }
    }

    /// The same chart for somebody who sees only some series: the others are not there.
    #[must_use]
    pub fn seen_by<'b>(&'b self, seen: &'b dyn Fn(&SeriesKey) -> bool) -> Chart<'b> {
        Chart { site: self.site, seen: Some(seen) }
    }

    fn sees(&self, series: &SeriesKey) -> bool {
        self.seen.is_none_or(|seen| seen(series))
    }

    pub(crate) fn kept_series(&self, filter: &SeriesFilter) -> Result<Vec<SeriesKey>, StoreError> {
        let mut series = self.store().series(filter)?;
        series.retain(|series| self.sees(series));
        Ok(series)
    }

    pub(crate) fn kept_latest(&self, subject: Subject) -> Result<Vec<Committed<Reading>>, StoreError> {
        let mut latest = self.store().latest(subject)?;
        latest.retain(|reading| self.sees(&reading.series()));
        Ok(latest)
    }

    pub(crate) fn kept_readings(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Reading>>, StoreError> {
        if !self.sees(series) {
            return Ok(Vec::new());
        }
        self.store().readings(series, range)
    }

    pub(crate) fn kept_events(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Event>>, StoreError> {
        if !self.sees(series) {
            return Ok(Vec::new());
        }
        self.store().events(series, range)
    }

    pub(crate) fn kept_waveforms(
        &self,
        series: &SeriesKey,
        range: &RangeQuery,
    ) -> Result<Vec<Committed<Waveform>>, StoreError> {
        if !self.sees(series) {
            return Ok(Vec::new());
        }
        self.store().waveforms(series, range)
    }

    pub(crate) fn kept_points(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        each: &mut dyn FnMut(&[Point]) -> bool,
    ) -> Result<(), StoreError> {
        if !self.sees(series) {
            return Ok(());
        }
        self.store().scan(series, from, to, each)
    }

    pub(crate) fn store(&self) -> &dyn Store {
        self.site.store()
    }

    pub(crate) fn corrections(&self) -> &Corrections {
        self.site.corrections()
    }

    /// Devices, places, patients and assignments.
    pub fn registry(&self) -> &Registry {
        self.site.registry()
    }

    /// The sealed identifier of an observation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn identifier(&self, series: &SeriesKey, at: Timestamp, sequence: u32) -> Result<String, StoreError> {
        self.store().identifier(series, at, sequence)
    }

    /// The latest observation of every measure of a subject: one a measure and device, panels put together; without
    /// what was entered in error.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn latest(&self, subject: Subject) -> Result<Vec<Observed>, ReadError> {
        let mut observed = together(self.current(subject)?);
        // A component that the newest panel lacks is missing, and not what it was in an earlier one.
        let instant =
            |one: &Observed| one.readings.first().map(|first| (first.measured_at(), first.sequence()));
        let mut newest = std::collections::HashMap::new();
        for one in &observed {
            let kept = newest.entry(one.series()).or_insert(instant(one));
            *kept = (*kept).max(instant(one));
        }
        observed.retain(|one| newest.get(&one.series()) == Some(&instant(one)));
        Ok(observed)
    }

    /// The series of a subject, panels beside their components.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn series(&self, filter: &SeriesFilter) -> Result<Vec<SeriesKey>, ReadError> {
        Ok(self.kept_series(filter)?)
    }

    /// Observations of one measure (or panel) of one subject in a range of measured time.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn observations(&self, series: &SeriesKey, range: &RangeQuery) -> Result<Vec<Observed>, ReadError> {
        let of = |measure: Measure| {
            let series = SeriesKey { measure, ..*series };
            let readings = self.kept_readings(&series, range)?;
            self.standing(&series, range.order, readings)
        };
        let shown = |reading: &Committed<Reading>| !reading.findings().contains(Findings::WITHDRAWN);
        if series.measure.kind != MeasureKind::Panel {
            let one = |reading| Observed { measure: series.measure, readings: vec![reading] };
            return Ok(of(series.measure)?.into_iter().filter(shown).map(one).collect());
        }
        let mut readings = Vec::new();
        for component in series.measure.components() {
            readings.extend(of(component)?.into_iter().filter(shown));
        }
        readings.sort_by_key(|reading| (reading.measured_at(), reading.sequence()));
        let mut observed = together(readings);
        if range.order == Order::Descending {
            observed.reverse();
        }
        observed.truncate(range.limit);
        Ok(observed)
    }

    /// Minimum, mean and maximum a bucket for every series of a measure of a patient.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn trend(
        &self,
        patient: PatientId,
        measure: Measure,
        from: Timestamp,
        to: Timestamp,
        buckets: usize,
    ) -> Result<Vec<Trend>, ReadError> {
        let filter =
            SeriesFilter { subject: Some(Subject::Patient(patient)), measures: vec![measure], device: None };
        let series = self.kept_series(&filter)?;
        series.iter().map(|one| self.trend_of(one, from, to, buckets)).collect()
    }

    /// Minimum, mean and maximum a bucket of one scalar series; buckets without a value are left out.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn trend_of(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        buckets: usize,
    ) -> Result<Trend, ReadError> {
        let mut filling = Buckets::new(from, to, buckets);
        let mut last_of: Vec<(Timestamp, u32)> = vec![(Timestamp::MIN, 0); buckets];
        let mut decimals = 0;
        self.numbers(series, from, to, &mut |point, number| {
            decimals = decimals.max(number.decimals());
            if let Some(index) = filling.add(point.at, number.to_f64()) {
                last_of[index] = (point.at, point.sequence);
            }
            true
        })?;
        let filled = filling.filled();
        let single = filled.iter().map(|bucket| (bucket.count == 1).then(|| last_of[bucket.index])).collect();
        Ok(Trend { series: *series, buckets: filled, single, decimals })
    }

    /// Every number of a scalar series in a range, as the chart believes it now: one an identity, without what was
    /// entered in error. In no promised order; stops when `each` returns false.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn numbers(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        each: &mut dyn FnMut(&Point, Decimal) -> bool,
    ) -> Result<(), ReadError> {
        self.points(series, from, to, &mut |points| {
            let mut numbers = points.iter().filter_map(|point| Some((point, point.value.number()?)));
            numbers.all(|(point, number)| each(point, number))
        })
    }

    /// As [`Chart::numbers`], with the points that have no number, many at once.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn points(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        each: &mut dyn FnMut(&[Point]) -> bool,
    ) -> Result<(), ReadError> {
        if !self.corrections().touch(series) {
            return Ok(self.kept_points(series, from, to, each)?);
        }
        let mut query = SearchQuery { from, to, order: Order::Ascending, after: None, limit: POINTS_AT_ONCE };
        loop {
            let page = self.search(&[*series], &query, &|_, found| !is_void(found.findings()))?;
            let points: Vec<Point> = page
                .found
                .iter()
                .filter_map(|(_, found)| match found {
                    Found::Readings(observed) => observed.readings.first().map(Point::of),
                    _ => None,
                })
                .collect();
            query.after = page.next;
            if !points.is_empty() && !each(&points) || query.after.is_none() {
                return Ok(());
            }
        }
    }

    /// Waveform blocks of every series of a measure of a patient that touch a range.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn waveforms(
        &self,
        patient: PatientId,
        measure: Measure,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Committed<Waveform>>, ReadError> {
        let filter =
            SeriesFilter { subject: Some(Subject::Patient(patient)), measures: vec![measure], device: None };
        let mut blocks = Vec::new();
        for series in self.kept_series(&filter)? {
            blocks.extend(self.curve(&series, from, to)?);
        }
        blocks.sort_by_key(|block| block.start);
        Ok(blocks)
    }

    /// Events of one series in a range of time.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn events(&self, series: &SeriesKey, range: &RangeQuery) -> Result<Vec<Committed<Event>>, ReadError> {
        let events = self.kept_events(series, range)?;
        let mut standing = self.standing_events(series, range.order, events)?;
        standing.retain(|event| !event.findings.contains(Findings::WITHDRAWN));
        Ok(standing)
    }

    /// The observation behind an identifier; `None` for anything that is not in the chart.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn observation(&self, identifier: &str) -> Result<Option<Observed>, ReadError> {
        let Some((series, at, sequence)) = self.store().open_identifier(identifier)? else { return Ok(None) };
        let range = RangeQuery { from: at, to: at.plus_micros(1), order: Order::Ascending, limit: 1_000 };
        let mut found = self.observations(&series, &range)?;
        found.retain(|one| one.readings.first().is_some_and(|reading| reading.sequence() == sequence));
        Ok(found.pop())
    }

    /// An observation with the bytes that it came in.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn provenance(&self, identifier: &str) -> Result<Option<Provenance>, ReadError> {
        let Some(observed) = self.observation(identifier)? else { return Ok(None) };
        let mut frames: Vec<KeptFrame> = Vec::new();
        for reading in &observed.readings {
            for kept in self.store().frames(reading.series().device, reading.received_at())? {
                if !frames.contains(&kept) {
                    frames.push(kept);
                }
            }
        }
        Ok(Some(Provenance { observed, frames }))
    }

    /// Alerts that are not over, newest first.
    pub fn open_alerts(&self) -> Vec<Alert> {
        let alarms = self.site.alarms().lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<Alert> = alarms.open().cloned().collect();
        open.sort_by(|a, b| b.raised_at.cmp(&a.raised_at).then(b.id.cmp(&a.id)));
        open
    }

    /// One alert, open or over.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn alert(&self, id: AlertId) -> Result<Option<Alert>, ReadError> {
        use clinical_model::RecordId;
        let document = self.store().document(Kind::Alert, id.to_bytes())?;
        document.map(|document| alert_from(&document.body)).transpose()
    }

    /// Alerts of one patient, or of all, open and over, newest first; strictly after `before`, where the last page ended.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn alerts(
        &self,
        patient: Option<PatientId>,
        before: Option<(Timestamp, AlertId)>,
        limit: usize,
    ) -> Result<Vec<Alert>, ReadError> {
        use clinical_model::RecordId;
        let query = |index, prefix: Vec<u8>| DocumentQuery {
            kind: Kind::Alert,
            index,
            after: before.map(|(at, id)| ([&prefix[..], &records::sortable(at)].concat(), id.to_bytes())),
            prefix,
            order: Order::Descending,
            limit,
        };
        let queries = match patient {
            Some(patient) => vec![query(records::ALERTS_BY_PATIENT, patient.to_bytes().to_vec())],
            None => vec![query(records::ALERTS_BY_STATE, vec![0]), query(records::ALERTS_BY_STATE, vec![1])],
        };
        let mut alerts = Vec::new();
        for query in queries {
            for document in self.store().documents(&query)? {
                alerts.push(alert_from(&document.body)?);
            }
        }
        alerts.sort_by(|a, b| b.raised_at.cmp(&a.raised_at).then(b.id.cmp(&a.id)));
        alerts.truncate(limit);
        Ok(alerts)
    }

    /// Quarantined items, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn quarantine(
        &self,
        waiting_only: bool,
        before: Option<(Timestamp, QuarantineId)>,
        limit: usize,
    ) -> Result<Vec<QuarantineItem>, ReadError> {
        Ok(self.store().quarantine(waiting_only, before, limit)?)
    }

    /// One quarantined item.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn quarantined(&self, id: QuarantineId) -> Result<Option<QuarantineItem>, ReadError> {
        Ok(self.store().quarantined(id)?)
    }

    /// The audit log, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn audit_rows(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, ReadError> {
        Ok(self.store().audit_rows(query)?)
    }

    /// The audit records of committed groups, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn group_summaries(&self, before: Option<u64>, limit: usize) -> Result<Vec<GroupSummary>, ReadError> {
        Ok(self.store().group_summaries(before, limit)?)
    }
}

fn alert_from(body: &[u8]) -> Result<Alert, ReadError> {
    records::json_from(body).map_err(|error| {
        ReadError::Store(StoreError::Damaged {
            what: "document of an alert".to_owned(),
            how: error.to_string(),
        })
    })
}

/// Puts components of one panel at one instant together; everything else stays by itself. Keeps the order in which
/// the first of each group comes.
pub fn together(readings: Vec<Committed<Reading>>) -> Vec<Observed> {
    let mut observed: Vec<Observed> = Vec::new();
    let mut places: std::collections::HashMap<(SeriesKey, Timestamp, u32), usize> =
        std::collections::HashMap::new();
    for reading in readings {
        let series = reading.series();
        let Some(panel) = series.measure.panel() else {
            observed.push(Observed { measure: series.measure, readings: vec![reading] });
            continue;
        };
        let key = (SeriesKey { measure: panel, ..series }, reading.measured_at(), reading.sequence());
        match places.get(&key) {
            Some(at) => {
                let components = &mut observed[*at].readings;
                // Of several values under one identity the first stands.
                if components.iter().all(|kept| kept.series() != series) {
                    components.push(reading);
                }
                components.sort_by_key(|component| component.series().measure);
            }
            None => {
                places.insert(key, observed.len());
                observed.push(Observed { measure: panel, readings: vec![reading] });
            }
        }
    }
    observed
}

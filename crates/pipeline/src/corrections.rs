//! Corrections: what was measured is never overwritten; what a person or a program puts right is kept beside it and laid
//! over it whenever it is read.
//!
//! One rule holds for everything that shows a value: of several different values under one identity the first committed
//! stands and says that there is another, and the latest correction of an identity is laid over what stands. Series
//! without corrections pay nothing for it: which ones have any is held in memory.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use clinical_model::alert::Side;
use clinical_model::validation::restated;
use clinical_model::{
    Absent, AlertId, AlertKind, Committed, Decimal, DeviceId, Event, Findings, Measure, MeasureKind, Reading,
    RecordId as _, SeriesKey, Subject, Timestamp, Value,
};
use serde::{Deserialize, Serialize};
use store::{
    Actor, AuditAction, AuditOutcome, Document, DocumentQuery, DocumentWrite, Expected, IndexEntry,
    KeyDomain, Kind, Order, RangeQuery, Store, StoreError, TransactError, Transaction,
};

use crate::alarms::Alarms;
use crate::audited::{Act, ReadError};
use crate::chart::{Chart, Observed};
use crate::desk::DeskError;
use crate::live::Happening;
use crate::records::{self, sortable};
use crate::search::{Found, Position};
use crate::site::Site;

/// Documents that corrections are.
const KIND: Kind = Kind::Correction;
/// The index of corrections by series, time and sequence.
const BY_PLACE: &str = "series-time";
/// Corrections read at once.
const PAGE: usize = 500;
/// Series with corrections that are known at once: more than a large site ever corrects. Beyond it every series is asked.
const SERIES_LIMIT: usize = 200_000;
/// Readings read at once in search of the newest that was not entered in error.
const CURRENT_PAGE: usize = 64;
/// Longest reason, in characters.
pub const REASON_LIMIT_CHARS: usize = 1_000;

/// What a corrected Observation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CorrectedStatus {
    /// What was preliminary is now final.
    Final,
    /// Something was added or changed.
    Amended,
    /// An error was put right.
    Corrected,
    /// It should never have been charted.
    EnteredInError,
}

/// A value as a correction keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeptValue {
    Number(Decimal),
    Absent(u8),
}

impl KeptValue {
    fn of(value: Value) -> Self {
        match value {
            Value::Number(number) => KeptValue::Number(number),
            Value::Absent(absent) => KeptValue::Absent(absent as u8),
        }
    }

    fn value(self) -> Value {
        match self {
            KeptValue::Number(number) => Value::Number(number),
            KeptValue::Absent(number) => {
                Value::Absent(Absent::from_number(number).unwrap_or(Absent::Unavailable))
            }
        }
    }
}

/// What a correction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCorrection {
    /// What it is from now on.
    pub status: CorrectedStatus,
    /// Taken out of the chart: the answer to a FHIR delete.
    pub withdrawn: bool,
    /// The values from now on, in the units of their series; a measure that is not named keeps its value.
    pub values: Vec<(Measure, Value)>,
    /// Why, in the words of whoever did it; at most [`REASON_LIMIT_CHARS`].
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    subject: Subject,
    measure: Measure,
    device: DeviceId,
    at: Timestamp,
    sequence: u32,
    status: CorrectedStatus,
    withdrawn: bool,
    values: Vec<(Measure, KeptValue)>,
    reason: Option<String>,
}

/// One version of an observation that a correction made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Of which observation.
    pub position: Position,
    /// The version of the observation: 2 is the first correction.
    pub version: u64,
    /// When it was made.
    pub corrected_at: Timestamp,
    /// What it is since then.
    pub status: CorrectedStatus,
    /// Taken out of the chart.
    pub withdrawn: bool,
    /// The values since then, in the units of their series.
    pub values: Vec<(Measure, Value)>,
    /// Why.
    pub reason: Option<String>,
}

impl Correction {
    fn of(document: &Document) -> Result<Self, StoreError> {
        let record: Record = records::json_from(&document.body).map_err(|error| StoreError::Damaged {
            what: "document of a correction".to_owned(),
            how: error.to_string(),
        })?;
        let series = SeriesKey { subject: record.subject, measure: record.measure, device: record.device };
        Ok(Correction {
            position: Position { at: record.at, series, sequence: record.sequence },
            version: document.version + 1,
            corrected_at: document.updated_at,
            status: record.status,
            withdrawn: record.withdrawn,
            values: record.values.iter().map(|(measure, value)| (*measure, value.value())).collect(),
            reason: record.reason,
        })
    }

    /// What is remarked about everything that it is laid over.
    fn findings(&self) -> Findings {
        let mut findings = match self.status {
            CorrectedStatus::EnteredInError => Findings::ENTERED_IN_ERROR,
            _ => Findings::CORRECTED,
        };
        findings.set(Findings::WITHDRAWN, self.withdrawn);
        findings
    }

    fn over_reading(&self, reading: &Reading) -> Option<Reading> {
        let measure = reading.series().measure;
        let own = self.values.iter().find(|(named, _)| *named == measure).map(|(_, value)| *value);
        // What was possible when it was corrected and is no longer, after the table of measures changed, keeps the
        // measured value; that it was corrected is still said.
        restated(reading, own.unwrap_or(reading.value()), self.findings())
            .or_else(|_| restated(reading, reading.value(), self.findings()))
            .ok()
    }

    fn over_event(&self, event: &Event) -> Option<Event> {
        let mut event = event.clone();
        event.findings.remove(Findings::PRELIMINARY);
        event.findings |= self.findings();
        Some(event)
    }
}

/// Why a correction was not made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CorrectError {
    /// Somebody else was faster.
    #[error("version {expected} is no longer the current one; look at it again")]
    Changed {
        /// The version that was to be corrected.
        expected: u64,
    },
    /// The store failed.
    #[error("the correction could not be kept")]
    Keep(#[source] TransactError),
}

/// The series by which a stored series is addressed: components by their panel.
pub fn address_of(series: SeriesKey) -> SeriesKey {
    SeriesKey { measure: series.measure.panel().unwrap_or(series.measure), ..series }
}

/// The bytes of a series in keys and indexes: ids and numbers only, nothing that names a person.
fn series_bytes(address: &SeriesKey) -> Vec<u8> {
    let mut bytes = vec![address.subject.kind_number()];
    bytes.extend(address.subject.id_bytes());
    bytes.extend(address.measure.number.to_be_bytes());
    bytes.extend(address.device.to_bytes());
    bytes
}

/// Bytes of a series in the index.
const SERIES_BYTES: usize = 1 + 16 + 2 + 16;

fn series_from(bytes: &[u8]) -> Option<SeriesKey> {
    let (kind, rest) = bytes.split_first()?;
    let (subject, rest) = rest.split_first_chunk::<16>()?;
    let (measure, rest) = rest.split_first_chunk::<2>()?;
    let (device, _) = rest.split_first_chunk::<16>()?;
    Some(SeriesKey {
        subject: Subject::from_parts(*kind, *subject)?,
        measure: Measure::by_number(u16::from_be_bytes(*measure))?,
        device: DeviceId::from_bytes(*device),
    })
}

fn place_bytes(position: &Position) -> Vec<u8> {
    let mut bytes = series_bytes(&position.series);
    bytes.extend(sortable(position.at));
    bytes.extend(position.sequence.to_be_bytes());
    bytes
}

/// The id of the document: a digest of the identity, so that there is one document an observation.
fn id_of(position: &Position) -> [u8; 16] {
    let digest = trust::digest::sha256(&[b"correction", &place_bytes(position)]);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// Which series have corrections.
#[derive(Default)]
pub struct Corrections {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    series: HashSet<SeriesKey>,
    /// More than [`SERIES_LIMIT`]: every series is asked.
    is_full: bool,
}

impl Corrections {
    /// The series that have corrections now; one look-up each.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let corrections = Corrections::default();
        corrections.reload(store)?;
        Ok(corrections)
    }

    /// As [`Corrections::load`], after somebody else may have written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let query = DocumentQuery {
                kind: KIND,
                index: BY_PLACE,
                prefix: Vec::new(),
                after: after.take(),
                order: Order::Ascending,
                limit: 1,
            };
            let Some(first) = store.documents(&query)?.pop() else { return Ok(()) };
            let Some(series) = series_from(&first.index_value) else { return Ok(()) };
            self.note(series);
            // On to the next series: behind everything that begins with this one.
            let mut end = first.index_value;
            end.truncate(SERIES_BYTES);
            end.extend([u8::MAX; 13]);
            after = Some((end, [u8::MAX; 16]));
        }
    }

    /// Takes up a correction that another process wrote.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn refresh(&self, store: &dyn Store, id: [u8; 16]) -> Result<Option<Correction>, StoreError> {
        let Some(document) = store.document(KIND, id)? else { return Ok(None) };
        let correction = Correction::of(&document)?;
        self.note(correction.position.series);
        Ok(Some(correction))
    }

    /// Remembers that a series has corrections.
    pub(crate) fn note(&self, address: SeriesKey) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.series.len() < SERIES_LIMIT {
            known.series.insert(address);
        } else if !known.series.contains(&address) {
            known.is_full = true;
        }
    }

    /// Whether a series (or its panel) may have corrections.
    pub fn touch(&self, series: &SeriesKey) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.is_full || (!known.series.is_empty() && known.series.contains(&address_of(*series)))
    }

    /// The corrections of a series in `[from, to]`, oldest measurement first.
    fn between(
        &self,
        store: &dyn Store,
        series: &SeriesKey,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<Correction>, StoreError> {
        if !self.touch(series) {
            return Ok(Vec::new());
        }
        let prefix = series_bytes(&address_of(*series));
        let bound = |at: Timestamp| [prefix.as_slice(), &sortable(at)].concat();
        // The bound is shorter than every value of that instant, and so stands before all of them.
        let (mut after, end) = ((bound(from), [0; 16]), bound(to.plus_micros(1)));
        let mut found = Vec::new();
        loop {
            let query = DocumentQuery {
                kind: KIND,
                index: BY_PLACE,
                prefix: prefix.clone(),
                after: Some(after),
                order: Order::Ascending,
                limit: PAGE,
            };
            let page = store.documents(&query)?;
            let is_last = page.len() < PAGE;
            for document in &page {
                if document.index_value >= end {
                    return Ok(found);
                }
                found.push(Correction::of(document)?);
            }
            match page.last() {
                Some(last) if !is_last => after = (last.index_value.clone(), last.id),
                _ => return Ok(found),
            }
        }
    }
}

/// What the merge asks of readings and events alike.
trait Identified: Sized + Clone {
    fn identity(&self) -> (Timestamp, u32);
    fn findings(&self) -> Findings;
    fn conflicting(&self) -> Option<Self>;
    fn corrected(&self, correction: &Correction) -> Option<Self>;
}

impl Identified for Reading {
    fn identity(&self) -> (Timestamp, u32) {
        (self.measured_at(), self.sequence())
    }

    fn findings(&self) -> Findings {
        Reading::findings(self)
    }

    fn conflicting(&self) -> Option<Self> {
        restated(self, self.value(), Findings::CONFLICT).ok()
    }

    fn corrected(&self, correction: &Correction) -> Option<Self> {
        correction.over_reading(self)
    }
}

impl Identified for Event {
    fn identity(&self) -> (Timestamp, u32) {
        (self.at, self.sequence)
    }

    fn findings(&self) -> Findings {
        self.findings
    }

    fn conflicting(&self) -> Option<Self> {
        Some(Event { findings: self.findings | Findings::CONFLICT, ..self.clone() })
    }

    fn corrected(&self, correction: &Correction) -> Option<Self> {
        correction.over_event(self)
    }
}

/// The first committed of each identity, marked where another differs. The rows come as the store gives them: by
/// identity, versions of one identity in the order of their commits, or all of it the other way round.
fn first_of_each<T: Identified>(rows: Vec<Committed<T>>, order: Order) -> Vec<Committed<T>> {
    let same = |pair: &[Committed<T>]| pair[0].get().identity() == pair[1].get().identity();
    if !rows.windows(2).any(same) {
        return rows;
    }
    let mut standing: Vec<Committed<T>> = Vec::with_capacity(rows.len());
    for row in rows {
        match standing.last_mut() {
            Some(last) if last.get().identity() == row.get().identity() => {
                let first = match order {
                    Order::Ascending => last.clone(),
                    Order::Descending => row,
                };
                *last = first.part(Identified::conflicting).unwrap_or(first);
            }
            _ => standing.push(row),
        }
    }
    standing
}

/// Lays corrections over rows that are sorted by identity in either direction.
fn lay_over<T: Identified>(rows: &mut [Committed<T>], corrections: &[Correction], order: Order) {
    for correction in corrections {
        let wanted = (correction.position.at, correction.position.sequence);
        let found = rows.binary_search_by(|row| match order {
            Order::Ascending => row.get().identity().cmp(&wanted),
            Order::Descending => wanted.cmp(&row.get().identity()),
        });
        if let Ok(at) = found
            && let Some(corrected) = rows[at].part(|row| row.corrected(correction))
        {
            rows[at] = corrected;
        }
    }
}

impl Chart<'_> {
    /// What stands of the readings of one series that the store gave in that order: one an identity, the first committed,
    /// with the latest correction laid over it. What was entered in error is still among them, and says so.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn standing(
        &self,
        series: &SeriesKey,
        order: Order,
        readings: Vec<Committed<Reading>>,
    ) -> Result<Vec<Committed<Reading>>, ReadError> {
        let again = |at: Timestamp| {
            let range = RangeQuery { from: at, to: at.plus_micros(1), order, limit: usize::from(u16::MAX) };
            self.kept_readings(series, &range)
        };
        self.standing_of(series, order, readings, again)
    }

    /// As [`Chart::standing`], for events.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn standing_events(
        &self,
        series: &SeriesKey,
        order: Order,
        events: Vec<Committed<Event>>,
    ) -> Result<Vec<Committed<Event>>, ReadError> {
        let again = |at: Timestamp| {
            let range = RangeQuery { from: at, to: at.plus_micros(1), order, limit: usize::from(u16::MAX) };
            self.kept_events(series, &range)
        };
        self.standing_of(series, order, events, again)
    }

    fn standing_of<T: Identified>(
        &self,
        series: &SeriesKey,
        order: Order,
        mut rows: Vec<Committed<T>>,
        again: impl Fn(Timestamp) -> Result<Vec<Committed<T>>, StoreError>,
    ) -> Result<Vec<Committed<T>>, ReadError> {
        // Newest first, a limit may have cut off the first committed of the last identity, which is the one that stands.
        if order == Order::Descending
            && let Some(last) = rows.last().filter(|last| last.get().findings().contains(Findings::CONFLICT))
        {
            let at = last.get().identity().0;
            let whole = again(at)?;
            rows.retain(|row| row.get().identity().0 != at);
            rows.extend(whole);
        }
        let mut standing = first_of_each(rows, order);
        let (Some(first), Some(last)) = (standing.first(), standing.last()) else { return Ok(standing) };
        let (one, other) = (first.get().identity().0, last.get().identity().0);
        let span = (one.min(other), one.max(other));
        let corrections = self.corrections().between(self.store(), series, span)?;
        lay_over(&mut standing, &corrections, order);
        Ok(standing)
    }

    /// The latest reading of every scalar series of a subject that was not entered in error.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn current(&self, subject: Subject) -> Result<Vec<Committed<Reading>>, ReadError> {
        let latest = self.kept_latest(subject)?;
        if !latest.iter().any(|reading| self.corrections().touch(&reading.series())) {
            return Ok(latest);
        }
        let mut current = Vec::with_capacity(latest.len());
        for reading in latest {
            let (series, at) = (reading.series(), reading.measured_at());
            let corrected = self.standing(&series, Order::Ascending, vec![reading])?;
            let stands = corrected.into_iter().find(|reading| !is_void(reading.findings()));
            match stands {
                Some(reading) => current.push(reading),
                None => current.extend(self.newest_before(&series, at)?),
            }
        }
        Ok(current)
    }

    /// The newest reading up to an instant that was not entered in error.
    fn newest_before(
        &self,
        series: &SeriesKey,
        at: Timestamp,
    ) -> Result<Option<Committed<Reading>>, ReadError> {
        let mut to = at.plus_micros(1);
        let mut limit = CURRENT_PAGE;
        loop {
            let range = RangeQuery { from: Timestamp::MIN, to, order: Order::Descending, limit };
            let readings = self.kept_readings(series, &range)?;
            let oldest = readings.last().map(|reading| reading.measured_at());
            let count = readings.len();
            let standing = self.standing(series, Order::Descending, readings)?;
            if let Some(found) = standing.into_iter().find(|reading| !is_void(reading.findings())) {
                return Ok(Some(found));
            }
            match oldest {
                Some(oldest) if count >= limit && oldest < to => {
                    // All at one instant: a larger page reaches beyond it.
                    limit = if oldest.plus_micros(1) == to { limit * 2 } else { limit };
                    to = oldest.plus_micros(1);
                }
                _ => return Ok(None),
            }
        }
    }

    /// What was measured under an address, without any correction: version 1. `None` for what is not in the chart, and
    /// for curves, which have no corrections.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn as_measured(&self, position: &Position) -> Result<Option<Found>, ReadError> {
        let Position { at, series, sequence } = *position;
        let order = Order::Ascending;
        let range = RangeQuery { from: at, to: at.plus_micros(1), order, limit: usize::from(u16::MAX) };
        let kind = series.measure.kind;
        if kind == MeasureKind::Event {
            let events = first_of_each(self.kept_events(&series, &range)?, order);
            return Ok(events.into_iter().find(|event| event.sequence == sequence).map(Found::Event));
        }
        let measures = match kind {
            MeasureKind::Panel => series.measure.components(),
            _ => vec![series.measure],
        };
        let mut readings = Vec::new();
        for measure in measures.into_iter().filter(|measure| measure.is_scalar()) {
            let own = self.kept_readings(&SeriesKey { measure, ..series }, &range)?;
            readings.extend(first_of_each(own, order).into_iter().find(|own| own.sequence() == sequence));
        }
        let measure = series.measure;
        Ok((!readings.is_empty()).then_some(Found::Readings(Observed { measure, readings })))
    }

    /// The latest correction of an observation.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn correction(&self, position: &Position) -> Result<Option<Correction>, ReadError> {
        if !self.corrections().touch(&position.series) {
            return Ok(None);
        }
        let document = self.store().document(KIND, id_of(position))?;
        Ok(document.as_ref().map(Correction::of).transpose()?)
    }

    /// All corrections of an observation, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn corrections_of(&self, position: &Position) -> Result<Vec<Correction>, ReadError> {
        if !self.corrections().touch(&position.series) {
            return Ok(Vec::new());
        }
        let versions = self.store().document_versions(KIND, id_of(position))?;
        Ok(versions.iter().map(Correction::of).collect::<Result<_, _>>()?)
    }
}

/// Whether it is shown as a value no longer.
pub fn is_void(findings: Findings) -> bool {
    findings.intersects(Findings::ENTERED_IN_ERROR | Findings::WITHDRAWN)
}

impl Correction {
    /// What was measured, as this version says it.
    pub fn over(&self, measured: &Found) -> Found {
        let over_reading = |measured: &Committed<Reading>| {
            measured.part(|reading| self.over_reading(reading)).unwrap_or(*measured)
        };
        match measured {
            Found::Readings(Observed { measure, readings }) => {
                let readings = readings.iter().map(over_reading).collect();
                Found::Readings(Observed { measure: *measure, readings })
            }
            Found::Event(measured) => Found::Event(
                measured.part(|event| self.over_event(event)).unwrap_or_else(|| measured.clone()),
            ),
            Found::Curve(blocks) => Found::Curve(blocks.clone()),
        }
    }
}

/// The write that keeps a correction of an observation as its next version; it conflicts where `version`, the one that is
/// corrected, is no longer the current one (1 is what was measured).
pub(crate) fn write_of(position: &Position, version: u64, correction: &NewCorrection) -> DocumentWrite {
    let series = position.series;
    let kept = |(measure, value): &(Measure, Value)| (*measure, KeptValue::of(*value));
    let record = Record {
        subject: series.subject,
        measure: series.measure,
        device: series.device,
        at: position.at,
        sequence: position.sequence,
        status: correction.status,
        withdrawn: correction.withdrawn,
        values: correction.values.iter().map(kept).collect(),
        reason: correction.reason.as_ref().map(|text| text.chars().take(REASON_LIMIT_CHARS).collect()),
    };
    let index = IndexEntry { name: BY_PLACE, value: place_bytes(position), unique: false };
    // The first correction is the first document.
    let expected = match version {
        0 | 1 => Expected::Absent,
        later => Expected::Version(later - 1),
    };
    let domain = series.subject.patient().map_or(KeyDomain::System, KeyDomain::Patient);
    records::json_write(KIND, id_of(position), expected, domain, &record, vec![index])
}

/// The open alerts whose condition is a value which no longer says so. What was watched by it is watched anew.
pub(crate) fn alerts_put_right(
    alarms: &mut Alarms,
    position: &Position,
    status: CorrectedStatus,
    values: &[(Measure, Value)],
) -> Vec<AlertId> {
    let is_void = status == CorrectedStatus::EnteredInError;
    let mut ended = Vec::new();
    for alert in alarms.open().filter(|alert| alert.condition_active) {
        let AlertKind::Threshold { measure, side, limit, measured_at, .. } = &alert.what else {
            continue;
        };
        let series = SeriesKey { subject: alert.subject, measure: *measure, device: alert.device };
        if *measured_at != position.at || address_of(series) != position.series {
            continue;
        }
        let value = values.iter().find(|(own, _)| own == measure);
        let is_outside = value.and_then(|(_, value)| value.number()).is_some_and(|value| match side {
            Side::Below => value.to_f64() < *limit,
            Side::Above => value.to_f64() > *limit,
        });
        if is_void || !is_outside {
            ended.push((alert.id, series));
        }
    }
    ended.iter().for_each(|(_, series)| alarms.watch_anew(series));
    ended.into_iter().map(|(id, _)| id).collect()
}

impl Site {
    /// Keeps a correction of an observation as its next version, with the act's audit row in the same transaction.
    /// `version` is the version that is corrected: 1 is what was measured. Returns the new version.
    ///
    /// # Errors
    /// [`CorrectError::Changed`] where that is not the current version.
    pub fn correct(
        &self,
        act: Act,
        position: &Position,
        version: u64,
        correction: &NewCorrection,
    ) -> Result<u64, CorrectError> {
        // Known before it is written: a reader that comes in between asks once too often, never once too seldom.
        self.corrections().note(position.series);
        let at = self.clock().now();
        let audit = vec![self.record_of(act, at, AuditOutcome::Success)];
        let writes = vec![write_of(position, version, correction)];
        let transaction = Transaction { at, writes, audit, ..Transaction::default() };
        self.store().transact(&transaction).map_err(|error| match error {
            TransactError::Conflict { .. } => CorrectError::Changed { expected: version },
            other => CorrectError::Keep(other),
        })?;
        self.follow(position, correction);
        Ok(version.max(1) + 1)
    }

    /// What hangs on a value follows its correction: alerts, and screens, which fetch the patient again.
    pub(crate) fn follow(&self, position: &Position, correction: &NewCorrection) {
        let alerts = {
            let mut alarms = self.alarms().lock().unwrap_or_else(PoisonError::into_inner);
            alerts_put_right(&mut alarms, position, correction.status, &correction.values)
        };
        for id in alerts {
            let ended = self.change_alert(
                (&Actor::System.into(), AuditAction::Update),
                id,
                "the value was put right",
                |alert, at| {
                    alert.condition_ended(at);
                    Ok(())
                },
            );
            // Over already: another node, or a person, was faster.
            let ended = ended.map(drop).or_else(|error| match error {
                DeskError::Alert(_) => Ok(()),
                error => Err(error),
            });
            if let Err(error) = ended {
                // The correction stands; the alert is still there for a person to close.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an alert did not follow a correction"
                );
            }
        }
        self.live().happened(Happening::Assignment { subject: position.series.subject });
    }

    /// Whether anything is charted under an address, without saying what.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_charted(&self, position: &Position) -> Result<bool, ReadError> {
        let chart = self.chart();
        Ok(match chart.as_measured(position)? {
            Some(_) => true,
            None => chart.found(position)?.is_some(),
        })
    }
}

//! The recent tail: what is committed and not folded yet, in memory; rebuilt from the journal when the store opens.

use std::collections::HashMap;
use std::sync::Arc;

use clinical_model::{Committed, DeviceId, Event, Fact, Timestamp, Waveform};

use super::row::Row;
use crate::RangeQuery;

/// From here on a log line says that folding lags behind: about 64 bytes each, so 640 MB.
const READINGS_REMARKED: u64 = 10_000_000;

/// What is committed and not folded yet.
#[derive(Default)]
pub(super) struct Tail {
    /// By series; sorted by identity, commits of one identity in order, equal values once.
    readings: HashMap<u32, Vec<Row>>,
    waveforms: HashMap<u32, Vec<Arc<Committed<Waveform>>>>,
    events: HashMap<u32, Vec<Arc<Committed<Event>>>>,
    /// Where a device's raw frames stand in the journal: (received ms, group).
    frames: HashMap<DeviceId, Vec<(i64, u64)>>,
    count: u64,
    /// All groups up to this one are here, or were folded.
    seen: u64,
    /// When that one was committed, where it was seen itself: what tells it from another of the same number.
    seen_at: Option<i64>,
    /// All groups up to this one were folded.
    forgotten: u64,
    /// It was remarked that folding lags behind.
    remarked: bool,
}

impl Tail {
    /// The last group up to which all are here, or were folded.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// The last group, with the instant of its commit in microseconds, where it was seen itself.
    pub(super) fn last_seen(&self) -> Option<(u64, i64)> {
        self.seen_at.map(|at| (self.seen, at))
    }

    /// The last group that was forgotten.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes a group as the next one; false where others before it are missing, or it is here already.
    pub(super) fn advance(&mut self, group: u64, committed_at: Timestamp) -> bool {
        let is_next = self.seen + 1 == group;
        if is_next {
            self.saw(group, committed_at);
        }
        is_next
    }

    /// Says that all groups up to this one are here, and when it was committed.
    pub(super) fn saw(&mut self, group: u64, committed_at: Timestamp) {
        self.seen = group;
        self.seen_at = Some(committed_at.as_micros());
    }

    /// Says that all groups up to this one are here, or were folded.
    pub(super) fn reached(&mut self, group: u64) {
        if group > self.seen {
            self.seen = group;
            self.seen_at = None;
        }
    }

    /// Says once that folding lags behind.
    pub(super) fn remark(&mut self) {
        let is_large = self.count >= READINGS_REMARKED;
        if is_large && !self.remarked {
            tracing::warn!(
                readings = self.count,
                "folding lags behind: the unfolded tail in memory is large"
            );
        }
        self.remarked = is_large;
    }

    /// Adds a committed fact. Groups arrive in order.
    pub(super) fn add(&mut self, series: u32, fact: &Fact, at: Timestamp, group: u64) {
        match fact {
            Fact::Reading(reading) => self.add_row(series, Row::new(reading, at, group)),
            Fact::Waveform(waveform) => {
                let mut waveform = waveform.clone();
                waveform.received_at = waveform.received_at.truncated_to_millis();
                let committed = Arc::new(Committed::restored(waveform, at, group));
                self.waveforms.entry(series).or_default().push(committed);
            }
            Fact::Event(event) => {
                let mut event = event.clone();
                event.received_at = event.received_at.truncated_to_millis();
                self.events.entry(series).or_default().push(Arc::new(Committed::restored(event, at, group)));
            }
        }
    }

    fn add_row(&mut self, series: u32, row: Row) {
        let rows = self.readings.entry(series).or_default();
        let end = rows.partition_point(|kept| kept.key() <= row.key());
        let run = rows[..end].iter().rev().take_while(|kept| kept.key() == row.key());
        if run.clone().all(|kept| kept.value != row.value) {
            rows.insert(end, row);
            self.count += 1;
        }
    }

    /// Notes where a raw frame stands.
    pub(super) fn add_frame(&mut self, device: DeviceId, received_ms: i64, group: u64) {
        self.frames.entry(device).or_default().push((received_ms, group));
    }

    /// Forgets what stands here of some series: their patient was erased.
    pub(super) fn forget_series(&mut self, series: &[u32]) {
        for number in series {
            self.count -= self.readings.remove(number).map_or(0, |rows| rows.len() as u64);
            self.waveforms.remove(number);
            self.events.remove(number);
        }
    }

    /// Forgets what has been folded.
    pub(super) fn forget_up_to(&mut self, group: u64) {
        self.forgotten = self.forgotten.max(group);
        self.reached(group);
        let mut left = 0;
        self.readings.retain(|_, rows| {
            rows.retain(|row| row.group > group);
            left += rows.len() as u64;
            !rows.is_empty()
        });
        self.count = left;
        self.waveforms.retain(|_, waveforms| {
            waveforms.retain(|waveform| waveform.group() > group);
            !waveforms.is_empty()
        });
        self.events.retain(|_, events| {
            events.retain(|event| event.group() > group);
            !events.is_empty()
        });
        self.frames.retain(|_, places| {
            places.retain(|(_, at)| *at > group);
            !places.is_empty()
        });
    }

    /// Readings of a series in a range, by identity.
    pub(super) fn rows(&self, series: u32, range: &RangeQuery) -> Vec<Row> {
        let Some(rows) = self.readings.get(&series) else { return Vec::new() };
        let from = rows.partition_point(|row| row.measured_us < range.from.as_micros());
        let to = rows.partition_point(|row| row.measured_us < range.to.as_micros());
        rows.get(from..to).map(<[Row]>::to_vec).unwrap_or_default()
    }

    /// Curves of a series that touch a range, in the order of their commits.
    pub(super) fn waveforms(&self, series: u32, range: &RangeQuery) -> Vec<Arc<Committed<Waveform>>> {
        let touches =
            |waveform: &&Arc<Committed<Waveform>>| waveform.start < range.to && waveform.end() > range.from;
        self.waveforms.get(&series).into_iter().flatten().filter(touches).cloned().collect()
    }

    /// Events of a series in a range, in the order of their commits.
    pub(super) fn events(&self, series: u32, range: &RangeQuery) -> Vec<Arc<Committed<Event>>> {
        let inside = |event: &&Arc<Committed<Event>>| range.from <= event.at && event.at < range.to;
        self.events.get(&series).into_iter().flatten().filter(inside).cloned().collect()
    }

    /// Groups that hold frames of a device received at an instant.
    pub(super) fn groups_with_frame(&self, device: DeviceId, received_ms: i64) -> Vec<u64> {
        let places = self.frames.get(&device).into_iter().flatten();
        let mut groups: Vec<u64> =
            places.filter(|(at, _)| *at == received_ms).map(|(_, group)| *group).collect();
        groups.dedup();
        groups
    }
}

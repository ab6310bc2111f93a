//! Search in the chart: readings and events of many series merged into one order, page by page, and curves by interval.
//!
//! A page continues strictly after a position (instant, series, sequence), never after a count, so that what arrives
//! in between moves nothing: no result is missed and none comes twice.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use clinical_model::{
    Committed, Event, Findings, Measure, MeasureKind, Reading, SeriesKey, Timestamp, Waveform,
};
use store::{Order, RangeQuery};

use crate::audited::ReadError;
use crate::chart::{Chart, Observed, WAVEFORM_LIMIT_BLOCKS};

/// Most series that one search merges: a ward of thirty beds has about a thousand; more are narrowed by patient,
/// device or code.
pub const SERIES_LIMIT: usize = 5_000;
/// Most observations that one page looks at where filters pass few of them: half a second of work.
pub const SCAN_LIMIT_OBSERVATIONS: usize = 100_000;
/// Longest interval of a curve in one answer: ten minutes at 500 Hz are 1.5 MB of text.
pub const CURVE_LIMIT: Duration = Duration::from_secs(600);

/// A minute: the piece in which whole curves are read.
pub const MINUTE_MICROS: i64 = 60_000_000;

/// Fewest readings that are fetched of a series at once: opening a block costs more than these.
const FETCH_LEAST: usize = 64;
/// Most readings that are fetched of a series at once: about a block.
const FETCH_MOST: usize = 4_096;

/// Where a result stands in the order of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When it was measured.
    pub at: Timestamp,
    /// Its series; that of the panel for components.
    pub series: SeriesKey,
    /// Its sequence.
    pub sequence: u32,
}

/// One result.
#[derive(Clone, Debug)]
pub enum Found {
    /// A reading, or the components of a panel at one instant.
    Readings(Observed),
    /// An event.
    Event(Committed<Event>),
    /// The blocks of a curve that touch an interval, oldest first.
    Curve(Vec<Committed<Waveform>>),
}

impl Found {
    /// What is remarked about any part of it.
    pub fn findings(&self) -> Findings {
        match self {
            Found::Readings(observed) => observed.findings(),
            Found::Event(event) => event.findings,
            Found::Curve(blocks) => blocks.iter().fold(Findings::empty(), |all, block| all | block.findings),
        }
    }
}

/// What to search for in given series.
#[derive(Clone, Copy, Debug)]
pub struct SearchQuery {
    /// First instant inside.
    pub from: Timestamp,
    /// First instant no longer inside.
    pub to: Timestamp,
    /// Direction.
    pub order: Order,
    /// Strictly after this, in the direction of the search.
    pub after: Option<Position>,
    /// Results of a page.
    pub limit: usize,
}

/// One page of results.
#[derive(Clone, Debug, Default)]
pub struct FoundPage {
    /// The results with their positions, in order.
    pub found: Vec<(Position, Found)>,
    /// Where the next page goes on; `None` when there is none.
    pub next: Option<Position>,
}

/// A reading or an event, as the merge sees them.
enum Item {
    Reading(Committed<Reading>),
    Event(Committed<Event>),
}

impl Item {
    fn key(&self) -> (Timestamp, u32) {
        match self {
            Item::Reading(reading) => (reading.measured_at(), reading.sequence()),
            Item::Event(event) => (event.at, event.sequence),
        }
    }
}

/// One stored series, read page by page.
struct Part {
    series: SeriesKey,
    from: Timestamp,
    to: Timestamp,
    order: Order,
    fetch: usize,
    items: VecDeque<Item>,
    exhausted: bool,
}

/// How far a fetch came.
enum Reach {
    /// To the end of the range.
    End,
    /// Up to this instant, which may be cut and is fetched again.
    Before(Timestamp),
    /// Nowhere: all of it is one instant that may be cut.
    Nowhere,
}

/// Cuts off the last instant of a fetch that came to its limit.
fn cut_last<T>(rows: &mut Vec<T>, limit: usize, at: impl Fn(&T) -> Timestamp) -> Reach {
    let Some(last) = rows.last().map(&at).filter(|_| rows.len() >= limit) else { return Reach::End };
    let whole = rows.iter().rposition(|row| at(row) != last).map_or(0, |index| index + 1);
    rows.truncate(whole);
    if whole == 0 { Reach::Nowhere } else { Reach::Before(last) }
}

impl Part {
    fn first(&mut self, chart: &Chart<'_>) -> Result<Option<(Timestamp, u32)>, ReadError> {
        while self.items.is_empty() && !self.exhausted {
            self.fill(chart)?;
        }
        Ok(self.items.front().map(Item::key))
    }

    /// Fetches on from where the last fetch ended.
    fn fill(&mut self, chart: &Chart<'_>) -> Result<(), ReadError> {
        let range = RangeQuery { from: self.from, to: self.to, order: self.order, limit: self.fetch };
        let reach = if self.series.measure.kind == MeasureKind::Event {
            let mut events = chart.kept_events(&self.series, &range)?;
            let reach = cut_last(&mut events, self.fetch, |event| event.at);
            let events = chart.standing_events(&self.series, self.order, events)?;
            self.items = events.into_iter().map(Item::Event).collect();
            reach
        } else {
            let mut readings = chart.kept_readings(&self.series, &range)?;
            let reach = cut_last(&mut readings, self.fetch, |reading| reading.measured_at());
            let readings = chart.standing(&self.series, self.order, readings)?;
            self.items = readings.into_iter().map(Item::Reading).collect();
            reach
        };
        match (reach, self.order) {
            (Reach::End, _) => self.exhausted = true,
            (Reach::Nowhere, _) => {
                // All at one instant: a larger fetch reaches beyond it.
                self.fetch *= 2;
                return Ok(());
            }
            (Reach::Before(last), Order::Ascending) => self.from = last,
            (Reach::Before(last), Order::Descending) => self.to = last.plus_micros(1),
        }
        self.fetch = (self.fetch * 2).min(FETCH_MOST.max(self.fetch));
        Ok(())
    }

    /// Takes what stands at a key.
    fn take(&mut self, key: (Timestamp, u32)) -> Option<Item> {
        self.items.pop_front_if(|item| item.key() == key)
    }
}

/// Everything under one address: a scalar or event series, or the components of a panel.
struct Stream {
    series: SeriesKey,
    parts: Vec<Part>,
}

impl Stream {
    fn new(series: SeriesKey, components: &[Measure], query: &SearchQuery, fetch: usize) -> Self {
        let part = |measure: Measure| Part {
            series: SeriesKey { measure, ..series },
            from: query.from,
            to: query.to,
            order: query.order,
            fetch,
            items: VecDeque::new(),
            exhausted: false,
        };
        Stream { series, parts: components.iter().copied().map(part).collect() }
    }

    /// What is stored under an address: the components of a panel, or the series itself.
    fn measures_of(measure: Measure) -> Vec<Measure> {
        match measure.kind {
            MeasureKind::Panel => measure.components(),
            _ => vec![measure],
        }
    }

    fn first(&mut self, chart: &Chart<'_>) -> Result<Option<Position>, ReadError> {
        let mut first: Option<(Timestamp, u32)> = None;
        for part in &mut self.parts {
            let Some(key) = part.first(chart)? else { continue };
            let earlier = first.is_none_or(|first| match part.order {
                Order::Ascending => key < first,
                Order::Descending => key > first,
            });
            if earlier {
                first = Some(key);
            }
        }
        Ok(first.map(|(at, sequence)| Position { at, series: self.series, sequence }))
    }

    fn take(&mut self, position: Position) -> Option<Found> {
        let mut readings = Vec::new();
        for part in &mut self.parts {
            match part.take((position.at, position.sequence)) {
                Some(Item::Reading(reading)) => readings.push(reading),
                Some(Item::Event(event)) => return Some(Found::Event(event)),
                None => {}
            }
        }
        let measure = self.series.measure;
        (!readings.is_empty()).then_some(Found::Readings(Observed { measure, readings }))
    }
}

/// The streams of stored series: components come together under their panel; curves have none.
fn streams(series: &[SeriesKey], query: &SearchQuery) -> Vec<Stream> {
    let mut grouped: BTreeMap<SeriesKey, Vec<Measure>> = BTreeMap::new();
    for key in series {
        if key.measure.is_scalar() || key.measure.kind == MeasureKind::Event {
            let address = SeriesKey { measure: key.measure.panel().unwrap_or(key.measure), ..*key };
            grouped.entry(address).or_default().push(key.measure);
        }
    }
    let least = FETCH_LEAST.min(query.limit.saturating_add(1));
    let share = query.limit.saturating_mul(2) / grouped.len().max(1);
    let fetch = share.clamp(least, FETCH_MOST.max(least));
    grouped
        .into_iter()
        .map(|(address, mut components)| {
            components.sort();
            components.dedup();
            Stream::new(address, &components, query, fetch.max(1))
        })
        .collect()
}

impl Chart<'_> {
    /// How many observations given series hold in a range: each identity once, a panel once, withdrawn ones not.
    /// `None` where more than `limit` readings would have to be looked at.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn count(
        &self,
        series: &[SeriesKey],
        (from, to): (Timestamp, Timestamp),
        limit: usize,
    ) -> Result<Option<u64>, ReadError> {
        let query = SearchQuery { from, to, order: Order::Ascending, after: None, limit };
        let mut count = 0_u64;
        let mut looked_at = 0;
        for stream in streams(series, &query) {
            if self.corrections().touch(&stream.series) || stream.series.measure.kind == MeasureKind::Event {
                let parts: Vec<SeriesKey> = stream.parts.iter().map(|part| part.series).collect();
                let mut query = query;
                loop {
                    // Counted as they pass, kept nowhere: a page ends where it has looked at its share.
                    let stands = Cell::new(0_usize);
                    let page = self.search(&parts, &query, &|_, _| {
                        stands.set(stands.get() + 1);
                        false
                    })?;
                    count += stands.get() as u64;
                    looked_at += page.next.map_or(stands.get(), |_| SCAN_LIMIT_OBSERVATIONS);
                    query.after = page.next;
                    if page.next.is_none() {
                        break;
                    }
                    if looked_at > limit {
                        return Ok(None);
                    }
                }
                continue;
            }
            let is_panel = stream.parts.len() > 1;
            let mut identities: Vec<(Timestamp, u32)> = Vec::new();
            for part in &stream.parts {
                self.kept_points(&part.series, from, to, &mut |points| {
                    looked_at += points.len();
                    match is_panel {
                        true => identities.extend(points.iter().map(|point| (point.at, point.sequence))),
                        false => count += points.len() as u64,
                    }
                    looked_at <= limit
                })?;
            }
            identities.sort_unstable();
            identities.dedup();
            count += identities.len() as u64;
            if looked_at > limit {
                return Ok(None);
            }
        }
        Ok((looked_at <= limit).then_some(count))
    }

    /// One page of what given series hold in a range, merged by (time, series, sequence). `fits` decides what is a
    /// result; what was withdrawn never is. A page may be shorter than asked for, and even empty, and still have a next one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn search(
        &self,
        series: &[SeriesKey],
        query: &SearchQuery,
        fits: &dyn Fn(&Position, &Found) -> bool,
    ) -> Result<FoundPage, ReadError> {
        let mut query = *query;
        if let Some(after) = query.after {
            match query.order {
                Order::Ascending => query.from = query.from.max(after.at),
                Order::Descending => query.to = query.to.min(after.at.plus_micros(1)),
            }
        }
        let mut streams = streams(series, &query);
        let mut firsts: BTreeMap<Position, usize> = BTreeMap::new();
        for (index, stream) in streams.iter_mut().enumerate() {
            firsts.extend(stream.first(self)?.map(|position| (position, index)));
        }
        let mut page = FoundPage::default();
        let mut scanned = 0;
        let mut last = None;
        loop {
            let next = match query.order {
                Order::Ascending => firsts.pop_first(),
                Order::Descending => firsts.pop_last(),
            };
            let Some((position, index)) = next else { return Ok(page) };
            let passed = query.after.is_some_and(|after| match query.order {
                Order::Ascending => position <= after,
                Order::Descending => position >= after,
            });
            if !passed && (page.found.len() >= query.limit || scanned >= SCAN_LIMIT_OBSERVATIONS) {
                page.next = last;
                return Ok(page);
            }
            let Some(stream) = streams.get_mut(index) else { return Ok(page) };
            let found = stream.take(position);
            firsts.extend(stream.first(self)?.map(|position| (position, index)));
            if passed {
                continue;
            }
            scanned += 1;
            last = Some(position);
            let stands =
                |found: &Found| !found.findings().contains(Findings::WITHDRAWN) && fits(&position, found);
            if let Some(found) = found.filter(stands) {
                page.found.push((position, found));
            }
        }
    }

    /// What an address holds: see [`address_of_curve`] for curves. `None` for what is not in the chart.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn found(&self, address: &Position) -> Result<Option<Found>, ReadError> {
        let Position { at, series, sequence } = *address;
        if series.measure.kind == MeasureKind::Waveform {
            let to = at.plus_micros((i64::from(sequence) * 1_000).max(1));
            let mut blocks = self.curve(&series, at, to)?;
            if sequence > 0 {
                blocks = blocks.iter().filter_map(|block| block.part(|whole| whole.within(at, to))).collect();
            }
            return Ok((!blocks.is_empty()).then_some(Found::Curve(blocks)));
        }
        let query = SearchQuery {
            from: at,
            to: at.plus_micros(1),
            order: Order::Ascending,
            after: None,
            limit: FETCH_LEAST,
        };
        let mut stream = Stream::new(series, &Stream::measures_of(series.measure), &query, FETCH_LEAST);
        while let Some(position) = stream.first(self)? {
            let found = stream.take(position);
            if position.sequence == sequence {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first minute of the clock, not before that of `from`, in which a curve has a sample before `to`: how a whole
    /// curve is read piece by piece. Minutes in which nothing was sampled are passed over.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_minute(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Position>, ReadError> {
        let minute_of =
            |at: Timestamp| Timestamp::from_micros(at.as_micros().div_euclid(MINUTE_MICROS) * MINUTE_MICROS);
        let from = minute_of(from);
        let range = RangeQuery { from, to, order: Order::Ascending, limit: 1 };
        let Some(block) = self.kept_waveforms(series, &range)?.into_iter().next() else { return Ok(None) };
        let at = minute_of(block.start.max(from));
        let sequence = u32::try_from(MINUTE_MICROS / 1_000).unwrap_or(u32::MAX);
        Ok((at < to).then_some(Position { at, series: *series, sequence }))
    }

    /// The blocks of one curve that touch `[from, to)`, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn curve(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Committed<Waveform>>, ReadError> {
        let range = RangeQuery { from, to, order: Order::Ascending, limit: WAVEFORM_LIMIT_BLOCKS };
        let mut blocks = self.kept_waveforms(series, &range)?;
        blocks.sort_by_key(|block| block.start);
        Ok(blocks)
    }
}

/// The address of an interval of a curve: it begins at `from`, and the sequence is its length in milliseconds; 0 is
/// the block that holds that instant. Blocks have no sequence of their own, so the two never meet.
pub fn address_of_curve(series: SeriesKey, from: Timestamp, to: Timestamp) -> Position {
    let length_ms = to.duration_since(from).min(CURVE_LIMIT).as_micros().div_ceil(1_000);
    Position { at: from, series, sequence: u32::try_from(length_ms).unwrap_or(0) }
}

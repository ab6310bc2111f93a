//! The independent judge: what the devices wrote down against what the chart holds.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use clinical_model::{DeviceId, Fact, Timestamp, Value};
use simulator::load::{LedgerLine, rate_of};
use store::{Order, RangeQuery, SeriesFilter, Store};

use super::site::Site;
use crate::devices;

/// Most readings that are read back of one series.
const READ_LIMIT: usize = 10_000_000;
/// Journal rows read at once.
const GROUPS_AT_ONCE: usize = 512;
/// Items of the quarantine that are read; the load fills it only where a clock is wrong.
const QUARANTINE_LIMIT: usize = 100_000;

/// What came of everything that was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Readings acknowledged.
    pub acked: usize,
    /// Of them, in quarantine instead of the chart, whole and visible.
    pub quarantined: usize,
    /// Acknowledged, and nowhere.
    pub lost: usize,
    /// In the chart more than once.
    pub twice: usize,
    /// In the chart with another value or time than was sent.
    pub changed: usize,
    /// In the chart, and nobody sent it.
    pub invented: usize,
    /// Committed before an earlier one of the same device.
    pub disordered: usize,
    /// Rows that do not open.
    pub damaged: usize,
}

impl Verdict {
    /// Sentences about what must not be.
    pub fn faults(&self) -> Vec<String> {
        let counts = [
            (self.lost, "lost"),
            (self.twice, "charted twice"),
            (self.changed, "changed"),
            (self.invented, "invented"),
            (self.disordered, "out of order"),
            (self.damaged, "damaged"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// One reading as it is charted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charted {
    pub measured_at: Timestamp,
    pub value: String,
    pub committed_at: Timestamp,
}

/// Every reading by device and sequence, which the load gives out once.
pub type Chart = HashMap<(DeviceId, u32), Vec<Charted>>;

/// Reads the chart of a store that no server holds.
pub fn chart(store: &dyn Store) -> Result<Chart, store::StoreError> {
    let range =
        RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Ascending, limit: READ_LIMIT };
    let mut chart = Chart::new();
    for series in store.series(&SeriesFilter::default())? {
        for reading in store.readings(&series, &range)? {
            let Value::Number(number) = reading.value() else { panic!("a heart rate is a number") };
            chart.entry((series.device, reading.sequence())).or_default().push(Charted {
                measured_at: reading.measured_at(),
                value: number.to_string(),
                committed_at: reading.committed_at(),
            });
        }
    }
    Ok(chart)
}

/// Judges a data directory of a site by what was acknowledged, or by a part of it.
pub fn judge(site: &Site, data: &Path, acked: &[LedgerLine]) -> Result<Verdict, String> {
    let store = devices::try_open(&site.place, data)?;
    let failed = |error: store::StoreError| format!("the chart cannot be read: {error}");
    let chart = chart(&store).map_err(failed)?;
    let mut verdict = compare(&chart, acked, &quarantined(&store).map_err(failed)?);
    verdict.disordered = disordered(&store).map_err(failed)?;
    if site.clock_is_straight {
        verdict.disordered += disordered_by_time(&chart);
    }
    verdict.damaged = store.verify(&mut |_, _| {}).map_err(failed)?.findings.len();
    Ok(verdict)
}

/// What was acknowledged against the chart and the quarantine.
pub fn compare(chart: &Chart, acked: &[LedgerLine], quarantined: &HashSet<(DeviceId, u32)>) -> Verdict {
    let mut verdict = Verdict { acked: acked.len(), ..Verdict::default() };
    let unique: HashSet<_> = acked.iter().map(|line| (line.device, line.sequence)).collect();
    assert_eq!(unique.len(), acked.len(), "the load used one identity twice");
    for line in acked {
        let identity = (line.device, line.sequence);
        match chart.get(&identity).and_then(|kept| kept.first()) {
            Some(kept) if kept.measured_at == line.measured_at && kept.value == line.value.to_string() => {}
            Some(_) => verdict.changed += 1,
            None if quarantined.contains(&identity) => verdict.quarantined += 1,
            None => verdict.lost += 1,
        }
    }
    for ((_, sequence), kept) in chart {
        verdict.twice += kept.len() - 1;
        verdict.invented += kept.iter().filter(|kept| kept.value != rate_of(*sequence).to_string()).count();
    }
    verdict
}

/// What waits in quarantine, by the load's own identity.
pub fn quarantined(store: &dyn Store) -> Result<HashSet<(DeviceId, u32)>, store::StoreError> {
    let items = store.quarantine(false, None, QUARANTINE_LIMIT)?;
    let sequence = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        let digits = text.split("\"sequence\":").nth(1)?;
        digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    Ok(items.iter().filter_map(|item| Some((item.device, sequence(&item.bytes)?))).collect())
}

/// How many readings were committed after a later one of their device: by the journal, which keeps the order.
pub fn disordered(store: &dyn Store) -> Result<usize, store::StoreError> {
    let mut newest: HashMap<DeviceId, u32> = HashMap::new();
    let mut seen: HashSet<(DeviceId, u32)> = HashSet::new();
    let (mut after, mut disordered) = (0, 0);
    loop {
        let groups = store.groups_after(after, GROUPS_AT_ONCE)?;
        let Some(last) = groups.last() else { return Ok(disordered) };
        after = last.group;
        for record in groups.iter().flat_map(|group| &group.frames) {
            for fact in &record.facts {
                let Fact::Reading(reading) = fact else { continue };
                let (device, sequence) = (record.frame.device, reading.sequence());
                if !seen.insert((device, sequence)) {
                    continue;
                }
                let newest = newest.entry(device).or_insert(sequence);
                disordered += usize::from(sequence < *newest);
                *newest = (*newest).max(sequence);
            }
        }
    }
}

/// The same by the times of commit, for what is folded already.
pub fn disordered_by_time(chart: &Chart) -> usize {
    let mut ordered: Vec<(DeviceId, u32, Timestamp)> = chart
        .iter()
        .filter_map(|((device, sequence), kept)| Some((*device, *sequence, kept.first()?.committed_at)))
        .collect();
    ordered.sort_unstable();
    let pairs = ordered.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    pairs.filter(|pair| pair[1].2 < pair[0].2).count()
}

#[test]
fn what_must_not_be_is_told_apart() {
    let device = DeviceId::from_bytes([1; 16]);
    let at = |micros| Timestamp::from_micros(micros);
    let line = |sequence| LedgerLine {
        device,
        measured_at: at(i64::from(sequence)),
        sequence,
        value: rate_of(sequence),
        acked_at: at(0),
    };
    let kept = |sequence: u32| Charted {
        measured_at: at(i64::from(sequence)),
        value: rate_of(sequence).to_string(),
        committed_at: at(0),
    };
    let acked = [line(0), line(1), line(2), line(3), line(4)];
    let mut chart = Chart::new();
    for sequence in [0, 2, 3, 9] {
        chart.insert((device, sequence), vec![kept(sequence)]);
    }
    chart.get_mut(&(device, 0)).unwrap().push(kept(0));
    chart.get_mut(&(device, 2)).unwrap()[0].value = "7".to_owned();
    chart.get_mut(&(device, 3)).unwrap()[0].measured_at = at(77);
    let verdict = compare(&chart, &acked, &HashSet::from([(device, 4)]));
    let expected = Verdict {
        acked: 5,
        quarantined: 1,
        lost: 1,
        twice: 1,
        changed: 2,
        invented: 1,
        ..Verdict::default()
    };
    assert_eq!(verdict, expected);
    chart.get_mut(&(device, 9)).unwrap()[0].committed_at = at(-1);
    assert_eq!(disordered_by_time(&chart), 1);
}

//! Waveform blocks of one series as an Observation with SampledData components.
//!
//! SampledData has one start and one sampling grid, so the blocks are joined into *segments*, one component each:
//! - blocks of the same rate, gain and offset join when the next one starts less than [`GAP_FILLED`] after the end of
//!   the one before; the samples between are written as `E`;
//! - every sample lies within half a sampling period of its place in the grid that starts with its segment, counted
//!   from the start of the segment, so that errors do not add up;
//! - a longer gap, a change of rate, gain or offset, or an overlap begins a new segment; nothing is left out.
//!
//! A component carries the exact time of its first sample as extension [`system::EXT_SEGMENT_START`].

use std::time::Duration;

use clinical_model::reading::MISSING_SAMPLE;
use clinical_model::{Committed, Decimal, Findings, Timestamp, Waveform};
use serde_json::{Map, Value, json};

use super::element::{instant_extension, number, quantity};
use super::observation::{Head, code, notes, put_list};
use super::system;

/// Gaps shorter than this are written as missing samples; longer ones begin a new component.
pub const GAP_FILLED: Duration = Duration::from_secs(10);

/// Decimal places of a period in ms that has no finite decimal form: a picosecond's thousandth never matters.
const PERIOD_DECIMALS: u32 = 12;

/// What an Observation of a waveform is made of.
#[derive(Clone, Debug)]
pub struct SampledInput<'a> {
    /// The address under `Observation/`.
    pub id: String,
    /// Blocks of one series, in any order. At least one.
    pub blocks: &'a [Committed<Waveform>],
    /// What people call the device.
    pub device_display: Option<&'a str>,
}

/// Samples on one grid.
struct Segment<'a> {
    first: &'a Waveform,
    samples: Vec<i16>,
}

/// Renders blocks of one series. Without any block there is nothing to render: `null`.
pub fn render(input: &SampledInput<'_>) -> Value {
    let mut blocks: Vec<&Committed<Waveform>> = input.blocks.iter().collect();
    blocks.sort_by_key(|block| block.start);
    let Some(first) = blocks.first() else { return Value::Null };
    let findings = blocks.iter().fold(Findings::empty(), |all, block| all | block.findings);
    let head = Head {
        id: &input.id,
        series: first.series,
        measure: first.series.measure,
        received_at: blocks.iter().map(|block| block.received_at).max().unwrap_or(first.received_at),
        committed_at: blocks.iter().map(|block| block.committed_at()).max().unwrap_or(first.committed_at()),
        sequence: 0,
        findings,
        device_display: input.device_display,
    };
    let mut fields = head.render();
    let end = blocks.iter().map(|block| block.end()).max().unwrap_or_else(|| first.end());
    fields.insert(
        "effectivePeriod".into(),
        json!({ "start": first.start.to_rfc3339(), "end": end.to_rfc3339() }),
    );
    let segments = join(&blocks);
    fields.insert("component".into(), segments.iter().map(component).collect());
    put_list(&mut fields, "note", notes(None, findings));
    Value::Object(fields)
}

fn join<'a>(blocks: &[&'a Committed<Waveform>]) -> Vec<Segment<'a>> {
    let mut segments: Vec<Segment<'a>> = Vec::new();
    for block in blocks {
        let block = block.get();
        match segments.last_mut().and_then(|segment| segment.place_of(block).map(|place| (segment, place))) {
            Some((segment, place)) => {
                segment.samples.resize(place, MISSING_SAMPLE);
                segment.samples.extend_from_slice(&block.samples);
            }
            None => segments.push(Segment { first: block, samples: block.samples.clone() }),
        }
    }
    segments
}

impl Segment<'_> {
    /// The index that the first sample of the block would have; `None` where it begins a new segment.
    fn place_of(&self, block: &Waveform) -> Option<usize> {
        let first = self.first;
        let same_grid = (block.rate_numerator, block.rate_denominator, block.gain, block.offset)
            == (first.rate_numerator, first.rate_denominator, first.gain, first.offset);
        if !same_grid {
            return None;
        }
        let place = nearest_index(first, block.start)?;
        let gap = block.start.micros_since(self.end());
        (place >= self.samples.len()
            && u128::try_from(gap.max(0)).is_ok_and(|gap| gap < GAP_FILLED.as_micros()))
        .then_some(place)
    }

    /// The instant after the last sample.
    fn end(&self) -> Timestamp {
        self.first.start.plus_micros(self.first.offset_micros(self.samples.len()))
    }
}

/// Which sample of the grid of `first` lies nearest to `at`.
fn nearest_index(first: &Waveform, at: Timestamp) -> Option<usize> {
    let apart = i128::from(at.micros_since(first.start));
    let per_index = i128::from(first.rate_denominator) * 1_000_000;
    let doubled = (2 * apart * i128::from(first.rate_numerator) + per_index).div_euclid(2 * per_index);
    usize::try_from(doubled).ok()
}

fn component(segment: &Segment<'_>) -> Value {
    let first = segment.first;
    let measure = first.series.measure;
    let mut sampled = Map::new();
    sampled.insert("origin".into(), quantity(first.offset, measure.unit, measure.unit_display));
    sampled.insert("factor".into(), number(first.gain));
    sampled.insert("dimensions".into(), json!(1));
    sampled.insert("data".into(), Value::String(data(&segment.samples)));
    let (period, is_exact) = period_ms(first.rate_numerator, first.rate_denominator);
    sampled.insert("period".into(), period);
    if !is_exact {
        let rate = json!({
            "url": system::EXT_SAMPLING_RATE,
            "valueRatio": {
                "numerator": { "value": first.rate_numerator },
                "denominator": { "value": first.rate_denominator, "unit": "s", "system": system::UCUM, "code": "s" },
            },
        });
        sampled.insert("extension".into(), json!([rate]));
    }
    json!({
        "extension": [instant_extension(system::EXT_SEGMENT_START, first.start)],
        "code": code(measure),
        "valueSampledData": sampled,
    })
}

fn data(samples: &[i16]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(samples.len() * 4);
    for (index, sample) in samples.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        if *sample == MISSING_SAMPLE {
            text.push('E');
        } else {
            let _ = write!(text, "{sample}");
        }
    }
    text
}

/// Milliseconds between samples with the fewest digits, and whether they are exact.
fn period_ms(rate_numerator: u32, rate_denominator: u32) -> (Value, bool) {
    let (numerator, denominator) = (u128::from(rate_numerator.max(1)), u128::from(rate_denominator));
    for places in 0..=PERIOD_DECIMALS {
        let scaled = 1_000 * denominator * 10_u128.pow(places);
        let exact = scaled.is_multiple_of(numerator).then(|| decimal(scaled / numerator, places)).flatten();
        if let Some(exact) = exact {
            return (number(exact), true);
        }
    }
    // Rounded to as many places as 18 digits can hold.
    let rounded = (0..=PERIOD_DECIMALS).rev().find_map(|places| {
        let scaled = 1_000 * denominator * 10_u128.pow(places);
        decimal((scaled + numerator / 2) / numerator, places)
    });
    (number(rounded.unwrap_or(Decimal::from_integer(1))), false)
}

fn decimal(mantissa: u128, places: u32) -> Option<Decimal> {
    Decimal::new(i64::try_from(mantissa).ok()?, -i8::try_from(places).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numerator: u32, denominator: u32, text: &str, exact: bool) {
        let (value, is_exact) = period_ms(numerator, denominator);
        assert_eq!((value.to_string().as_str(), is_exact), (text, exact), "{numerator}/{denominator}");
    }

    #[test]
    fn the_period_is_exact_where_it_can_be() {
        check(250, 1, "4", true);
        check(125, 2, "16", true);
        check(256, 1, "3.90625", true);
        check(1, 60, "60000", true);
        check(360, 1, "2.777777777778", false);
        check(3, 1, "333.333333333333", false);
        check(u32::MAX, 1, "0.000000232831", false);
    }
}

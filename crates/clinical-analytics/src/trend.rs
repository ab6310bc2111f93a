//! Trends: minimum, mean, maximum and count a bucket of time. Empty buckets stay empty: nothing is invented.

use clinical_model::Timestamp;

/// One bucket that has at least one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Number of the bucket, from 0.
    pub index: usize,
    /// Smallest value.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Largest value.
    pub max: f64,
    /// How many values.
    pub count: u32,
}

/// Buckets that are being filled: `count` equal parts of `[from, to)`.
#[derive(Clone, Debug)]
pub struct Buckets {
    from_us: i64,
    span_us: i64,
    filled: Vec<Option<Bucket>>,
    /// Number and bounds (offsets from the start, in microseconds) of the bucket that was filled last.
    here: Option<(usize, i64, i64)>,
}

impl Buckets {
    /// Empty ones. With no time between `from` and `to`, or no bucket, nothing will be kept.
    pub fn new(from: Timestamp, to: Timestamp, count: usize) -> Self {
        let span_us = to.micros_since(from).max(0);
        let filled = vec![None; if span_us == 0 { 0 } else { count }];
        Buckets { from_us: from.as_micros(), span_us, filled, here: None }
    }

    /// Takes a value; gives the number of its bucket, `None` for one outside.
    pub fn add(&mut self, at: Timestamp, value: f64) -> Option<usize> {
        let offset = at.as_micros() - self.from_us;
        let index = match self.here {
            // Values come in the order of time, mostly: no division for each.
            Some((index, start, end)) if start <= offset && offset < end => index,
            _ => self.find(offset)?,
        };
        let bucket =
            self.filled[index].get_or_insert(Bucket { index, min: value, mean: 0.0, max: value, count: 0 });
        bucket.min = bucket.min.min(value);
        bucket.max = bucket.max.max(value);
        bucket.count += 1;
        // Running mean: stays exact for equal values and never overflows.
        bucket.mean += (value - bucket.mean) / f64::from(bucket.count);
        Some(index)
    }

    fn find(&mut self, offset: i64) -> Option<usize> {
        if offset < 0 || self.span_us <= offset || self.filled.is_empty() {
            return None;
        }
        let (count, span) = (self.filled.len() as i128, i128::from(self.span_us));
        let index = i128::from(offset) * count / span;
        // The first offset whose index is n: n * span / count, rounded up.
        let start = |index: i128| (index * span + count - 1) / count;
        let bounds = (index as usize, start(index) as i64, start(index + 1) as i64);
        self.here = Some(bounds);
        Some(bounds.0)
    }

    /// The buckets that have a value, oldest first.
    pub fn filled(self) -> Vec<Bucket> {
        self.filled.into_iter().flatten().collect()
    }
}

/// Sorts values into `buckets` equal parts of `[from, to)`; values outside are left out.
pub fn bucketed(
    from: Timestamp,
    to: Timestamp,
    buckets: usize,
    values: impl IntoIterator<Item = (Timestamp, f64)>,
) -> Vec<Bucket> {
    let mut filling = Buckets::new(from, to, buckets);
    for (at, value) in values {
        filling.add(at, value);
    }
    filling.filled()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    #[test]
    fn buckets_hold_their_values_and_empty_ones_are_left_out() {
        let values = [(at(0), 10.0), (at(4), 20.0), (at(95), 7.0), (at(100), 1.0), (at(-1), 1.0)];
        let buckets = bucketed(at(0), at(100), 10, values);
        assert_eq!(buckets.len(), 2);
        assert_eq!(buckets[0], Bucket { index: 0, min: 10.0, mean: 15.0, max: 20.0, count: 2 });
        assert_eq!((buckets[1].index, buckets[1].count), (9, 1));
        assert!(bucketed(at(5), at(5), 10, values).is_empty());
    }

    proptest! {
        #[test]
        fn no_value_is_lost_and_the_mean_lies_between(values in proptest::collection::vec((0i64..1_000, -50.0f64..300.0), 0..300)) {
            let buckets = bucketed(at(0), at(1_000), 37, values.iter().map(|(second, value)| (at(*second), *value)));
            prop_assert_eq!(buckets.iter().map(|b| b.count as usize).sum::<usize>(), values.len());
            for (second, value) in &values {
                let bucket = &buckets[buckets.partition_point(|bucket| (bucket.index as i64) < second * 37 / 1_000)];
                prop_assert_eq!(bucket.index as i64, second * 37 / 1_000);
                prop_assert!(bucket.min <= *value && *value <= bucket.max);
            }
            for bucket in buckets {
                prop_assert!(bucket.min <= bucket.mean + 1e-9 && bucket.mean <= bucket.max + 1e-9);
            }
        }
    }
}

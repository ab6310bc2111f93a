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

/// Sorts values into `buckets` equal parts of `[from, to)`; values outside are left out.
pub fn bucketed(
    from: Timestamp,
    to: Timestamp,
    buckets: usize,
    values: impl IntoIterator<Item = (Timestamp, f64)>,
) -> Vec<Bucket> {
    let span = to.micros_since(from);
    if span <= 0 || buckets == 0 {
        return Vec::new();
    }
    let mut filled: Vec<Option<Bucket>> = vec![None; buckets];
    for (at, value) in values {
        let offset = at.micros_since(from);
        if offset < 0 || span <= offset {
            continue;
        }
        let index = (i128::from(offset) * buckets as i128 / i128::from(span)) as usize;
        let bucket =
            filled[index].get_or_insert(Bucket { index, min: value, mean: 0.0, max: value, count: 0 });
        bucket.min = bucket.min.min(value);
        bucket.max = bucket.max.max(value);
        bucket.count += 1;
        // Running mean: stays exact for equal values and never overflows.
        bucket.mean += (value - bucket.mean) / f64::from(bucket.count);
    }
    filled.into_iter().flatten().collect()
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
            for bucket in buckets {
                prop_assert!(bucket.min <= bucket.mean + 1e-9 && bucket.mean <= bucket.max + 1e-9);
            }
        }
    }
}

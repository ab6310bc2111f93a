//! Statistics of a sample: location, spread, quantiles and shape. Numbers in, numbers out.

/// What is known of a sample. `None` where too few values came to say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Variance of the sample (divided by n - 1); from two values on.
    pub variance: Option<f64>,
    /// Skewness g1 (third central moment over the 3/2th power of the second, both divided by n); where values differ.
    pub skew: Option<f64>,
    /// Excess kurtosis g2 (fourth central moment over the square of the second, less 3); where values differ.
    pub kurtosis: Option<f64>,
}

impl Statistics {
    /// Of finite values; `None` of no value at all.
    pub fn of(values: &[f64]) -> Option<Self> {
        let first = *values.first()?;
        let count = values.len() as f64;
        let (mut min, mut max, mut sum) = (first, first, 0.0);
        for value in values {
            min = min.min(*value);
            max = max.max(*value);
            sum += value;
        }
        let mean = sum / count;
        // Two passes: the squares of what is left after the mean do not cancel each other out.
        let (mut second, mut third, mut fourth) = (0.0, 0.0, 0.0);
        for value in values {
            let off = value - mean;
            let square = off * off;
            second += square;
            third += square * off;
            fourth += square * square;
        }
        let spread = second / count;
        let differ = min < max;
        Some(Statistics {
            count: values.len() as u64,
            sum,
            min,
            max,
            mean,
            variance: (values.len() > 1).then(|| if differ { second / (count - 1.0) } else { 0.0 }),
            skew: differ.then(|| third / count / spread.powf(1.5)),
            kurtosis: differ.then(|| fourth / count / (spread * spread) - 3.0),
        })
    }
}

/// The value below which the part `share` (0 to 1) of the values lies, between neighbours by straight line (the
/// definition of most spreadsheets: Hyndman and Fan 1996, type 7). Orders the values as far as it must; `None` of
/// none.
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * last as f64;
    let index = place.floor() as usize;
    let (_, low, above) = values.select_nth_unstable_by(index, f64::total_cmp);
    let low = *low;
    let next = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Some(low + (next - low) * (place - index as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_small_sample() {
        // By hand: mean 5, squares 9+1+1+1+0+0+4+16 = 32, cubes -27-1-1-1+8+64 = 42, fourths 81+1+1+1+16+256 = 356.
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let found = Statistics::of(&values).unwrap();
        assert_eq!((found.count, found.sum, found.min, found.max, found.mean), (8, 40.0, 2.0, 9.0, 5.0));
        assert!(near(found.variance.unwrap(), 32.0 / 7.0));
        assert!(near(found.skew.unwrap(), (42.0 / 8.0) / 8.0));
        assert!(near(found.kurtosis.unwrap(), (356.0 / 8.0) / 16.0 - 3.0));
        let quarter = |share: f64| quantile(&mut values.clone(), share).unwrap();
        assert_eq!((quarter(0.0), quarter(0.5), quarter(1.0)), (2.0, 4.5, 9.0));
        assert_eq!((quarter(0.25), quarter(0.75)), (4.0, 5.5));
    }

    #[test]
    fn few_and_equal_values_say_less() {
        assert_eq!(Statistics::of(&[]), None);
        assert_eq!(quantile(&mut [], 0.5), None);
        let one = Statistics::of(&[7.5]).unwrap();
        assert_eq!((one.count, one.mean, one.variance, one.skew), (1, 7.5, None, None));
        let equal = Statistics::of(&[0.1; 1_000]).unwrap();
        assert_eq!((equal.variance, equal.skew, equal.kurtosis), (Some(0.0), None, None));
        assert_eq!(quantile(&mut [3.0], 0.8), Some(3.0));
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_sorting(mut values in proptest::collection::vec(-50.0f64..300.0, 1..200), share in 0.0f64..=1.0) {
            let found = quantile(&mut values, share).unwrap();
            values.sort_by(f64::total_cmp);
            let place = share * (values.len() - 1) as f64;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            prop_assert!(near(found, low + (high - low) * (place - place.floor())));
        }
    }
}

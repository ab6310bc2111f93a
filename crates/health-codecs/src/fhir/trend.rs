//! Trends as a FHIR Parameters resource: minimum, mean and maximum a bucket of time. A bucket in which nothing was
//! measured is not there, and no bucket says anything about the time between its readings.

use clinical_model::{Decimal, Interval, SeriesKey, Timestamp};
use serde_json::{Map, Value, json};

use super::element::{quantity, reference, subject_reference};
use super::observation::{code, put_list};
use super::statistics::period;

/// One bucket that has readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrendBucket {
    /// First instant.
    pub start: Timestamp,
    /// First instant no longer inside.
    pub end: Timestamp,
    /// Numbers in it.
    pub count: u32,
    /// Smallest.
    pub min: Decimal,
    /// Mean.
    pub mean: Decimal,
    /// Largest.
    pub max: Decimal,
}

/// The trend of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct TrendInput<'a> {
    /// The series.
    pub series: SeriesKey,
    /// What people call the device.
    pub device_display: Option<&'a str>,
    /// The whole time that was asked for.
    pub span: Interval,
    /// The buckets that have readings, oldest first.
    pub buckets: Vec<TrendBucket>,
}

/// Renders trends, a parameter `trend` for each series.
pub fn render(trends: &[TrendInput<'_>]) -> Value {
    let rendered = trends.iter().map(|trend| json!({ "name": "trend", "part": parts(trend) })).collect();
    let mut fields = Map::new();
    fields.insert("resourceType".into(), json!("Parameters"));
    put_list(&mut fields, "parameter", rendered);
    Value::Object(fields)
}

fn parts(trend: &TrendInput<'_>) -> Vec<Value> {
    let series = trend.series;
    let device = reference(&format!("Device/{}", series.device), trend.device_display);
    let mut parts = vec![
        json!({ "name": "code", "valueCodeableConcept": code(series.measure) }),
        json!({ "name": "subject", "valueReference": reference(&subject_reference(series.subject), None) }),
        json!({ "name": "device", "valueReference": device }),
        json!({ "name": "period", "valuePeriod": period(&trend.span) }),
    ];
    parts.extend(
        trend.buckets.iter().map(|bucket| json!({ "name": "bucket", "part": bucket_parts(trend, bucket) })),
    );
    parts
}

fn bucket_parts(trend: &TrendInput<'_>, bucket: &TrendBucket) -> Vec<Value> {
    let measure = trend.series.measure;
    let number = |name: &str, value: Decimal| {
        let value = quantity(value, measure.unit, measure.unit_display);
        json!({ "name": name, "valueQuantity": value })
    };
    let span = period(&Interval::between(bucket.start, bucket.end));
    vec![
        json!({ "name": "period", "valuePeriod": span }),
        json!({ "name": "count", "valueUnsignedInt": bucket.count }),
        number("min", bucket.min),
        number("mean", bucket.mean),
        number("max", bucket.max),
    ]
}

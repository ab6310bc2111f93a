//! `$stats` and `$trend`: numbers about many observations, in the units of their series, which are UCUM. What was
//! entered in error is not among them, and time without a reading stays empty.

use std::collections::{BTreeMap, BTreeSet};

use clinical_analytics::statistics::{Statistics, quantile};
use clinical_model::{Decimal, Interval, Measure, MeasureKind, PatientId, SeriesKey, Subject, Timestamp};
use health_codecs::fhir::observation::code_of;
use health_codecs::fhir::search::{
    Statistic, StatsRequest, TrendRequest, Wanted, parameters_as_pairs, parse_stats, parse_trend,
};
use health_codecs::fhir::statistics::{self, StatisticUnit, StatisticValue, StatisticsInput};
use health_codecs::fhir::trend::{self, TrendBucket, TrendInput};
use health_codecs::fhir::{IssueCode, OutcomeIssue};
use pipeline::audited::ReadError;
use pipeline::chart::{Chart, Trend};
use pipeline::corrections::is_void;
use pipeline::search::SearchQuery;
use serde_json::Value;
use store::{AuditAction, Order, SeriesFilter};

use super::answer::{Answer, Refusal};
use super::call::Call;
use super::{observations, render};
use crate::state::Web;

/// Most numbers that one `$stats` holds at once for its quantiles: 40 MB.
const NUMBERS_LIMIT: usize = 5_000_000;
/// Decimal places that a mean has beyond those of its readings.
const MEAN_DECIMALS: u8 = 2;
/// Decimal places of what is no value of the measure: skewness, kurtosis, variance.
const SHAPE_DECIMALS: u8 = 6;

/// The parameters of an operation: in the query, or in a Parameters resource.
fn given(call: &Call) -> Result<Vec<(String, String)>, Refusal> {
    let mut pairs = call.params.clone();
    if !call.body.is_empty() {
        let resource = health_codecs::fhir::json::parse(&call.body)
            .map_err(|issue| Refusal::bad_request(vec![issue]))?;
        pairs.extend(parameters_as_pairs(&resource).map_err(|issue| Refusal::bad_request(vec![issue]))?);
    }
    Ok(pairs)
}

/// The subjects that whoever asks may see; refusals are recorded.
fn visible(web: &Web, call: &Call, named: &[Subject]) -> Result<(Vec<Subject>, Vec<PatientId>), Refusal> {
    observations::note_refused(web, call, named)?;
    let visible: Vec<Subject> = named.iter().copied().filter(|subject| call.may_see(web, *subject)).collect();
    let patients = visible.iter().filter_map(|subject| subject.patient()).collect();
    Ok((visible, patients))
}

/// `GET` or `POST /fhir/Observation/$stats`
pub(crate) fn stats(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let request = parse_stats(&given(call)?).map_err(Refusal::bad_request)?;
    let (subjects, patients) = visible(web, call, &request.subjects)?;
    let Some((from, to)) = request.when.at(web.site.clock().now()) else { return Err(empty_span()) };
    let detail = format!("$stats {}", call.query_text(web));
    let acts = call.acts(AuditAction::Search, "Observation", &detail, &patients)?;
    let named = call.chart_each(web, acts, |chart| {
        let mut named: Vec<(&'static str, Value)> = Vec::new();
        let mut sources: BTreeSet<SeriesKey> = BTreeSet::new();
        for subject in &subjects {
            for wanted in &request.wanted {
                for (unit, series) in by_unit(chart, *subject, wanted)? {
                    let Some(numbers) = Numbers::of(chart, &series, (from, to))? else { return Ok(None) };
                    let period = Interval::between(from, to);
                    let input = numbers.input(&request, wanted, unit, (*subject, period));
                    named.push(("statistics", statistics::render(&input)));
                    sources.extend(series);
                }
            }
        }
        named.extend(newest(chart, &sources, (from, to), usize::from(request.sources))?);
        Ok(Some(named))
    })?;
    let Some(named) = named else {
        let what = format!("more than {NUMBERS_LIMIT} numbers; ask for a shorter time");
        return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::TooCostly, what, "")]));
    };
    Ok(Answer::ok(statistics::parameters(named)))
}

fn empty_span() -> Refusal {
    Refusal::bad_request(vec![OutcomeIssue::error(
        IssueCode::Value,
        "the time asked for is empty",
        "http.start",
    )])
}

/// The series of a subject that carry a code, by unit: numbers of different units are never mixed. A unit of the measure
/// stands in where there is no series, so that a count of 0 can be told.
fn by_unit(
    chart: &Chart<'_>,
    subject: Subject,
    wanted: &Wanted,
) -> Result<BTreeMap<Measure, Vec<SeriesKey>>, ReadError> {
    // A panel stands for its components, each with numbers of its own.
    let of_panel = |measure: &Measure| {
        measure.panel().is_some_and(|panel| {
            panel.loinc == wanted.code.code.as_deref()
                || wanted.code.code.as_deref() == Some(panel.name)
                || panel.also_loinc.iter().any(|code| wanted.code.code.as_deref() == Some(*code))
        })
    };
    let mut lead_of: BTreeMap<(&str, Option<Measure>), Measure> = BTreeMap::new();
    let mut groups: BTreeMap<Measure, Vec<SeriesKey>> = BTreeMap::new();
    for measure in &wanted.measures {
        let part = of_panel(measure).then_some(*measure);
        let lead = *lead_of.entry((measure.unit, part)).or_insert(*measure);
        groups.entry(lead).or_default();
        let filter =
            SeriesFilter { subject: Some(subject), measures: vec![*measure], ..SeriesFilter::default() };
        groups.entry(lead).or_default().extend(chart.series(&filter)?);
    }
    // Where something was measured, units in which nothing was say nothing.
    if groups.values().any(|series| !series.is_empty()) {
        groups.retain(|_, series| !series.is_empty());
    } else {
        let first = groups.pop_first();
        groups.clear();
        groups.extend(first);
    }
    Ok(groups)
}

/// The numbers of some series of one unit.
struct Numbers {
    values: Vec<f64>,
    /// Observations with or without a number.
    observations: u64,
    decimals: u8,
}

impl Numbers {
    fn of(
        chart: &Chart<'_>,
        series: &[SeriesKey],
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Option<Self>, ReadError> {
        let mut numbers = Numbers { values: Vec::new(), observations: 0, decimals: 0 };
        for one in series {
            chart.points(one, from, to, &mut |points| {
                numbers.observations += points.len() as u64;
                for number in points.iter().filter_map(|point| point.value.number()) {
                    numbers.decimals = numbers.decimals.max(number.decimals());
                    numbers.values.push(number.to_f64());
                }
                numbers.values.len() <= NUMBERS_LIMIT
            })?;
        }
        Ok((numbers.values.len() <= NUMBERS_LIMIT).then_some(numbers))
    }

    fn input(
        mut self,
        request: &StatsRequest,
        wanted: &Wanted,
        lead: Measure,
        (subject, period): (Subject, Interval),
    ) -> StatisticsInput {
        let all = Statistics::of(&self.values);
        let values = request
            .statistics
            .iter()
            .map(|(code, statistic)| {
                let (value, unit) = self.value(*statistic, all.as_ref());
                StatisticValue { code, value, unit }
            })
            .collect();
        StatisticsInput {
            code: if lead.panel().is_some() {
                code_of_component(wanted, lead)
            } else {
                code_of(&wanted.code, &[lead])
            },
            subject,
            period,
            unit: lead.unit,
            unit_display: lead.unit_display,
            values,
        }
    }

    /// A statistic, exact digits where it is one of the values.
    fn value(&mut self, statistic: Statistic, all: Option<&Statistics>) -> (Option<Decimal>, StatisticUnit) {
        let own = self.decimals;
        let fine = own.saturating_add(MEAN_DECIMALS);
        let of = rounded;
        let count = |count: u64| Decimal::new(i64::try_from(count).unwrap_or(i64::MAX), 0);
        use StatisticUnit::{OfValues, One, Squared};
        let quantile = |values: &mut Vec<f64>, percent: u8| quantile(values, f64::from(percent) / 100.0);
        match statistic {
            Statistic::Count => (count(self.values.len() as u64), One),
            Statistic::TotalCount => (count(self.observations), One),
            Statistic::Minimum => (all.and_then(|all| of(all.min, own)), OfValues),
            Statistic::Maximum => (all.and_then(|all| of(all.max, own)), OfValues),
            Statistic::Sum => (all.and_then(|all| of(all.sum, own)), OfValues),
            Statistic::Average => (all.and_then(|all| of(all.mean, fine)), OfValues),
            Statistic::Median => (quantile(&mut self.values, 50).and_then(|value| of(value, fine)), OfValues),
            Statistic::Quantile(percent) => {
                (quantile(&mut self.values, percent).and_then(|value| of(value, fine)), OfValues)
            }
            Statistic::QuartileDeviation => {
                let upper = quantile(&mut self.values, 75);
                let lower = quantile(&mut self.values, 25);
                let half = upper.zip(lower).map(|(upper, lower)| (upper - lower) / 2.0);
                (half.and_then(|value| of(value, fine)), OfValues)
            }
            Statistic::Variance => {
                (all.and_then(|all| all.variance).and_then(|value| of(value, SHAPE_DECIMALS)), Squared)
            }
            Statistic::StandardDeviation => {
                (all.and_then(|all| all.variance).and_then(|value| of(value.sqrt(), fine)), OfValues)
            }
            Statistic::Skew => {
                (all.and_then(|all| all.skew).and_then(|value| of(value, SHAPE_DECIMALS)), One)
            }
            Statistic::Kurtosis => {
                (all.and_then(|all| all.kurtosis).and_then(|value| of(value, SHAPE_DECIMALS)), One)
            }
        }
    }
}

/// A number with so many decimal places, or as many of them as fit beside its digits.
fn rounded(value: f64, decimals: u8) -> Option<Decimal> {
    (0..=decimals).rev().find_map(|decimals| Decimal::from_f64(value, decimals))
}

/// The code of a component that was asked for by itself or by its panel.
fn code_of_component(wanted: &Wanted, component: Measure) -> Value {
    let own = component.loinc.into_iter().chain(component.also_loinc.iter().copied());
    let is_own = own.chain([component.name]).any(|code| wanted.code.code.as_deref() == Some(code));
    if is_own {
        return code_of(&wanted.code, &[component]);
    }
    let code = component.loinc.unwrap_or(component.name).to_owned();
    code_of(&health_codecs::fhir::search::Token { system: None, code: Some(code) }, &[component])
}

/// The newest observations behind the numbers, each under `source`.
fn newest(
    chart: &Chart<'_>,
    series: &BTreeSet<SeriesKey>,
    (from, to): (Timestamp, Timestamp),
    limit: usize,
) -> Result<Vec<(&'static str, Value)>, ReadError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    // A panel is one observation, with all its components.
    let mut whole: BTreeSet<SeriesKey> = BTreeSet::new();
    for one in series {
        let address = render::address_of(*one);
        let measures = match address.measure.kind {
            MeasureKind::Panel => address.measure.components(),
            _ => vec![address.measure],
        };
        let filter = SeriesFilter { subject: Some(one.subject), device: Some(one.device), measures };
        whole.extend(chart.series(&filter)?);
    }
    let whole: Vec<SeriesKey> = whole.into_iter().collect();
    let query = SearchQuery { from, to, order: Order::Descending, after: None, limit };
    let page = chart.search(&whole, &query, &|_, found| !is_void(found.findings()))?;
    let rendered = page
        .found
        .iter()
        .map(|(position, found)| Ok(("source", render::observation(chart, position, found)?.resource)));
    rendered.collect()
}

/// `GET` or `POST /fhir/Observation/$trend`
pub(crate) fn trend(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    let request = parse_trend(&given(call)?).map_err(Refusal::bad_request)?;
    let (subjects, patients) = visible(web, call, &request.subjects)?;
    let Some(span) = request.when.at(web.site.clock().now()) else { return Err(empty_span()) };
    let detail = format!("$trend {}", call.query_text(web));
    let acts = call.acts(AuditAction::Search, "Observation", &detail, &patients)?;
    let trends = call.chart_each(web, acts, |chart| trends(chart, &subjects, &request, span))?;
    let named: Vec<_> = trends.iter().map(|trend| web.site.registry().device(trend.series.device)).collect();
    let inputs: Vec<TrendInput<'_>> = trends
        .iter()
        .zip(&named)
        .map(|(trend, device)| {
            let buckets = usize::from(request.buckets);
            let display = device.as_ref().map(|device| device.name.as_str());
            input(trend, display, span, buckets)
        })
        .collect();
    Ok(Answer::ok(trend::render(&inputs)))
}

fn trends(
    chart: &Chart<'_>,
    subjects: &[Subject],
    request: &TrendRequest,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Trend>, ReadError> {
    let measures: BTreeSet<Measure> =
        request.wanted.iter().flat_map(|wanted| wanted.measures.iter().copied()).collect();
    let measures: Vec<Measure> = measures.into_iter().collect();
    let mut trends = Vec::new();
    if measures.is_empty() {
        return Ok(trends);
    }
    for subject in subjects {
        let filter =
            SeriesFilter { subject: Some(*subject), measures: measures.clone(), ..SeriesFilter::default() };
        let mut series = chart.series(&filter)?;
        series.sort();
        for one in series {
            let trend = chart.trend_of(&one, from, to, usize::from(request.buckets))?;
            // Nothing measured in that time: there is no trend, not an empty one.
            if !trend.buckets.is_empty() {
                trends.push(trend);
            }
        }
    }
    Ok(trends)
}

fn input<'a>(
    trend: &Trend,
    device_display: Option<&'a str>,
    (from, to): (Timestamp, Timestamp),
    buckets: usize,
) -> TrendInput<'a> {
    let span = i128::from(to.micros_since(from));
    // The same bounds as those by which the buckets were filled, rounded up to microseconds.
    let bound = |index: usize| {
        let offset = (index as i128 * span + buckets as i128 - 1) / buckets as i128;
        from.plus_micros(i64::try_from(offset).unwrap_or(i64::MAX))
    };
    let fine = trend.decimals.saturating_add(MEAN_DECIMALS);
    let shown = trend.buckets.iter().filter_map(|bucket| {
        Some(TrendBucket {
            start: bound(bucket.index),
            end: bound(bucket.index + 1),
            count: bucket.count,
            min: rounded(bucket.min, trend.decimals)?,
            mean: rounded(bucket.mean, fine)?,
            max: rounded(bucket.max, trend.decimals)?,
        })
    });
    TrendInput {
        series: trend.series,
        device_display,
        span: Interval::between(from, to),
        buckets: shown.collect(),
    }
}

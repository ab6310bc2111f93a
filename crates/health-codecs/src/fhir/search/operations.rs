//! What the operations are asked with: `$stats`, `$trend`, `$everything`, `$export`; as a query or as a Parameters
//! resource.

use clinical_model::{Interval, Measure, MeasureKind, PatientId, Subject, Timestamp};
use serde_json::Value;

use super::super::element::{cut, items, text};
use super::super::outcome::{IssueCode, OutcomeIssue};
use super::super::period;
use super::observation::{coded, subjects};
use super::params::{Params, Token, split, token, unescape};
use super::query::ResourceType;
use super::{ALTERNATIVE_LIMIT, COUNT_LIMIT, PARAMETER_LIMIT, Parameter};

/// Most source observations that `$stats` gives with its numbers.
const STATS_SOURCES_LIMIT: u64 = COUNT_LIMIT as u64;
/// Source observations that `$stats` gives where the caller does not say.
const STATS_SOURCES_DEFAULT: u16 = 100;
/// Most buckets of one trend.
const BUCKETS_LIMIT: u64 = 2_000;
/// Buckets of a trend where the caller does not say: five minutes each of a day.
const BUCKETS_DEFAULT: u16 = 288;
/// Hours in the longest duration: a century.
const DURATION_LIMIT_H: f64 = 876_600.0;

const STATS_PARAMETERS: &[Parameter] = &[
    ("subject", "reference", "the subject: Patient/id, Device/id, Location/id or id"),
    ("patient", "reference", "the patient: Patient/id or id"),
    ("code", "token", "LOINC, MDC or our own name, of a scalar, a component, or a panel for its components"),
    ("system", "string", "the system of code, where it stands without one"),
    ("coding", "token", "system|code"),
    ("duration", "number", "hours until now"),
    ("start", "date", "first instant; part of period in a Parameters resource"),
    ("end", "date", "last instant; part of period in a Parameters resource"),
    ("statistic", "token", "codes of http://terminology.hl7.org/CodeSystem/observation-statistics"),
    ("include", "string", "true: the newest observations behind the numbers as well"),
    ("limit", "number", "how many of them, 1 to 1000; 100 without it"),
];

const TREND_PARAMETERS: &[Parameter] = &[
    ("subject", "reference", "the subject: Patient/id, Device/id, Location/id or id"),
    ("patient", "reference", "the patient: Patient/id or id"),
    ("code", "token", "LOINC, MDC or our own name, of a scalar, a component, or a panel for its components"),
    ("system", "string", "the system of code, where it stands without one"),
    ("coding", "token", "system|code"),
    ("duration", "number", "hours until now"),
    ("start", "date", "first instant"),
    ("end", "date", "last instant"),
    ("buckets", "number", "parts of the time, 1 to 2000; 288 without it"),
];

const EVERYTHING_PARAMETERS: &[Parameter] = &[
    ("start", "date", "observations measured from then on"),
    ("end", "date", "observations measured until then, that day included"),
    ("_since", "date", "only what was changed since that instant"),
    ("_type", "token", "Patient, Device, Location, Observation"),
    ("_count", "number", "results of a page, 1 to 1000"),
    ("_cursor", "string", "the next page; only from a next link"),
];

const EXPORT_PARAMETERS: &[Parameter] = &[
    ("_outputFormat", "token", "application/fhir+ndjson"),
    ("_since", "date", "only what was changed since that instant"),
    ("_type", "token", "Patient, Device, Location, Observation"),
    ("patient", "reference", "only these patients"),
];

/// Types that `$everything` and `$export` can give.
const GIVEN_TYPES: [ResourceType; 4] =
    [ResourceType::Patient, ResourceType::Device, ResourceType::Location, ResourceType::Observation];

/// A code that was asked for, with what it stands for here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The code as it was asked for.
    pub code: Token,
    /// The scalar measures and components that carry it; a panel stands for its components. May be empty.
    pub measures: Vec<Measure>,
}

/// A statistic of R4 (`http://terminology.hl7.org/CodeSystem/observation-statistics`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statistic {
    /// `average`.
    Average,
    /// `maximum`.
    Maximum,
    /// `minimum`.
    Minimum,
    /// `count`: numbers.
    Count,
    /// `total-count`: observations, with or without a number.
    TotalCount,
    /// `median`.
    Median,
    /// `std-dev`: of the sample.
    StandardDeviation,
    /// `sum`.
    Sum,
    /// `variance`: of the sample.
    Variance,
    /// A quantile in percent: `20-percent`, `80-percent`, `4-lower`, `4-upper`, `5-1` to `5-4`.
    Quantile(u8),
    /// `4-dev`: half the distance between the quartiles.
    QuartileDeviation,
    /// `skew`.
    Skew,
    /// `kurtosis`: excess.
    Kurtosis,
}

/// Every code that is served, with what it means.
const STATISTICS: &[(&str, Statistic)] = &[
    ("average", Statistic::Average),
    ("maximum", Statistic::Maximum),
    ("minimum", Statistic::Minimum),
    ("count", Statistic::Count),
    ("total-count", Statistic::TotalCount),
    ("median", Statistic::Median),
    ("std-dev", Statistic::StandardDeviation),
    ("sum", Statistic::Sum),
    ("variance", Statistic::Variance),
    ("20-percent", Statistic::Quantile(20)),
    ("80-percent", Statistic::Quantile(80)),
    ("4-lower", Statistic::Quantile(25)),
    ("4-upper", Statistic::Quantile(75)),
    ("4-dev", Statistic::QuartileDeviation),
    ("5-1", Statistic::Quantile(20)),
    ("5-2", Statistic::Quantile(40)),
    ("5-3", Statistic::Quantile(60)),
    ("5-4", Statistic::Quantile(80)),
    ("skew", Statistic::Skew),
    ("kurtosis", Statistic::Kurtosis),
];

/// A `$stats`.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsRequest {
    /// About whom: any of these; usually one. Empty matches nothing.
    pub subjects: Vec<Subject>,
    /// Of what, one answer each.
    pub wanted: Vec<Wanted>,
    /// When measured.
    pub when: When,
    /// Which numbers: the code as asked, and what it means.
    pub statistics: Vec<(&'static str, Statistic)>,
    /// How many source observations to give; 0 for none.
    pub sources: u16,
}

/// A `$trend`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrendRequest {
    /// About whom: any of these; usually one. Empty matches nothing.
    pub subjects: Vec<Subject>,
    /// Of what.
    pub wanted: Vec<Wanted>,
    /// When measured; never open.
    pub when: When,
    /// Equal parts of that time.
    pub buckets: u16,
}

/// A span of measured time as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Between two instants; without an end, until now.
    Between(Interval),
    /// So many microseconds until now.
    LastMicros(i64),
}

impl When {
    /// The span, given the present instant; `None` where it is empty.
    pub fn at(self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let (from, to) = match self {
            When::Between(Interval { start, end }) => (start, end.unwrap_or(now.plus_micros(1))),
            When::LastMicros(micros) => (now.plus_micros(-micros), now.plus_micros(1)),
        };
        (from < to).then_some((from, to))
    }
}

/// A `$everything`.
#[derive(Clone, Debug, PartialEq)]
pub struct EverythingRequest {
    /// Observations measured in there.
    pub measured: Interval,
    /// Changed since then.
    pub since: Option<Timestamp>,
    /// Of these types.
    pub types: Vec<ResourceType>,
    /// Results of a page.
    pub count: Option<u16>,
    /// Where the page starts; opaque.
    pub cursor: Option<String>,
}

/// A kick-off of `$export`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportRequest {
    /// Changed since then.
    pub since: Option<Timestamp>,
    /// Of these types.
    pub types: Vec<ResourceType>,
    /// Only these patients; `None` for all that are theirs.
    pub patients: Option<Vec<PatientId>>,
}

/// Reads the parameters of `Observation/$stats`.
///
/// # Errors
/// Every parameter that is unknown, malformed or missing.
pub fn parse_stats(given: &[(String, String)]) -> Result<StatsRequest, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, STATS_PARAMETERS);
    let subjects = required_subjects(&mut params, "$stats");
    let wanted = wanted(&mut params, "$stats");
    let when = when(&mut params).unwrap_or(When::Between(Interval::since(Timestamp::MIN)));
    let statistics = params.any_of(&["statistic"], statistic);
    // Each occurrence of `statistic` adds one, unlike the conditions of a search.
    let statistics = match params.values("statistic").len() {
        0 => {
            if params.issues.is_empty() {
                params.refuse("statistic", IssueCode::Required, "$stats needs at least one statistic");
            }
            Vec::new()
        }
        1 => statistics.unwrap_or_default(),
        _ => params
            .values("statistic")
            .into_iter()
            .flat_map(|value| split(value, ','))
            .filter_map(|value| statistic("statistic", value).ok())
            .flatten()
            .collect(),
    };
    let include = match params.once("include") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            params.refuse("include", IssueCode::Value, "include is true or false");
            false
        }
    };
    let limit = params.whole("limit", STATS_SOURCES_LIMIT).and_then(|limit| u16::try_from(limit).ok());
    let sources = if include { limit.unwrap_or(STATS_SOURCES_DEFAULT) } else { 0 };
    params.finish(StatsRequest { subjects, wanted, when, statistics, sources })
}

/// Reads the parameters of `Observation/$trend`.
///
/// # Errors
/// Every parameter that is unknown, malformed or missing.
pub fn parse_trend(given: &[(String, String)]) -> Result<TrendRequest, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, TREND_PARAMETERS);
    let subjects = required_subjects(&mut params, "$trend");
    let wanted = wanted(&mut params, "$trend");
    let when = when(&mut params).unwrap_or_else(|| {
        if params.issues.is_empty() {
            params.refuse("start", IssueCode::Required, "$trend needs start, or duration in hours");
        }
        When::LastMicros(0)
    });
    if matches!(when, When::Between(span) if span.start == Timestamp::MIN) {
        params.refuse("start", IssueCode::Required, "$trend needs start with end");
    }
    let buckets = params.whole("buckets", BUCKETS_LIMIT).and_then(|count| u16::try_from(count).ok());
    params.finish(TrendRequest { subjects, wanted, when, buckets: buckets.unwrap_or(BUCKETS_DEFAULT) })
}

/// Reads the parameters of `Patient/{id}/$everything`.
///
/// # Errors
/// Every parameter that is unknown or malformed.
pub fn parse_everything(given: &[(String, String)]) -> Result<EverythingRequest, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, EVERYTHING_PARAMETERS);
    let measured = span(&mut params).unwrap_or(Interval::since(Timestamp::MIN));
    let request = EverythingRequest {
        measured,
        since: since(&mut params),
        types: types(&mut params),
        count: params.count(),
        cursor: params.cursor(),
    };
    params.finish(request)
}

/// Reads the parameters of a kick-off of `$export`.
///
/// # Errors
/// Every parameter that is unknown or malformed.
pub fn parse_export(given: &[(String, String)]) -> Result<ExportRequest, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, EXPORT_PARAMETERS);
    if let Some(format) = params.once("_outputFormat") {
        // An unescaped + arrives as a space.
        let format = format.replace(' ', "+");
        if !["application/fhir+ndjson", "application/ndjson", "ndjson"].contains(&format.as_str()) {
            let what = format!("\"{}\" is not supported: application/fhir+ndjson is", cut(&format));
            params.refuse("_outputFormat", IssueCode::NotSupported, what);
        }
    }
    let patients = params.any_of(&["patient"], |name, value| {
        super::params::ids_of::<PatientId>(name, &unescape(value), "Patient")
    });
    let request = ExportRequest { since: since(&mut params), types: types(&mut params), patients };
    params.finish(request)
}

/// A Parameters resource as names and values, as a query would have them. A Coding becomes `system|code`, a Period
/// becomes `start` and `end`.
///
/// # Errors
/// Where it is none, or has a value of another kind.
pub fn parameters_as_pairs(resource: &Value) -> Result<Vec<(String, String)>, OutcomeIssue> {
    let refuse = |what: String, place: String| Err(OutcomeIssue::error(IssueCode::Value, what, place));
    if resource["resourceType"] != "Parameters" {
        return refuse("expected a Parameters resource".to_owned(), "Parameters".to_owned());
    }
    let parameters = items(resource, "parameter");
    if parameters.len() > PARAMETER_LIMIT {
        let what = format!("{} parameters; {PARAMETER_LIMIT} are read at most", parameters.len());
        return refuse(what, "Parameters.parameter".to_owned());
    }
    let mut pairs = Vec::with_capacity(parameters.len());
    for (index, parameter) in parameters.iter().enumerate() {
        let place = format!("Parameters.parameter[{index}]");
        let Some(name) = text(parameter, "name") else {
            return refuse("a parameter has a name".to_owned(), place);
        };
        let value = parameter
            .as_object()
            .into_iter()
            .flatten()
            .find(|(name, _)| name.starts_with("value") && name.len() > "value".len());
        let escaped = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,");
        match value {
            Some((kind, value)) if kind == "valueCoding" => {
                let part = |name: &str| text(value, name).unwrap_or("").replace('|', "\\|");
                pairs.push((name.to_owned(), format!("{}|{}", part("system"), part("code"))));
            }
            Some((kind, value)) if kind == "valuePeriod" && name == "period" => {
                for part in ["start", "end"] {
                    pairs.extend(text(value, part).map(|at| (part.to_owned(), at.to_owned())));
                }
            }
            Some((kind, value)) if kind == "valueReference" => {
                let target = text(value, "reference").unwrap_or("");
                pairs.push((name.to_owned(), escaped(target)));
            }
            Some((_, Value::String(value))) => pairs.push((name.to_owned(), escaped(value))),
            Some((_, value)) if value.is_number() || value.is_boolean() => {
                pairs.push((name.to_owned(), value.to_string()));
            }
            _ => {
                let what = format!("the parameter \"{}\" has no value that is read here", cut(name));
                return refuse(what, place);
            }
        }
    }
    Ok(pairs)
}

fn required_subjects(params: &mut Params<'_>, operation: &str) -> Vec<Subject> {
    subjects(params).unwrap_or_else(|| {
        if params.issues.is_empty() {
            params.refuse("subject", IssueCode::Required, format!("{operation} needs subject or patient"));
        }
        Vec::new()
    })
}

/// What `code` (with `system`) and `coding` ask for, each by itself.
fn wanted(params: &mut Params<'_>, operation: &str) -> Vec<Wanted> {
    let system = params.once("system").map(unescape);
    let mut all: Vec<Wanted> = Vec::new();
    for name in ["code", "coding"] {
        for value in params.values(name) {
            for part in split(value, ',') {
                match token(name, part) {
                    Ok(mut code) => {
                        if name == "code" && code.system.is_none() {
                            code.system.clone_from(&system);
                        }
                        let measures = numbers_of(&coded(&code));
                        all.push(Wanted { code, measures });
                    }
                    Err(issue) => params.issues.push(issue),
                }
            }
        }
    }
    if all.len() > ALTERNATIVE_LIMIT {
        params.refuse("code", IssueCode::TooLong, format!("{ALTERNATIVE_LIMIT} codes are read at most"));
        all.clear();
    }
    if all.is_empty() && params.issues.is_empty() {
        params.refuse("code", IssueCode::Required, format!("{operation} needs code or coding"));
    }
    all
}

/// What has numbers: scalars and components; a panel stands for its components.
fn numbers_of(measures: &[Measure]) -> Vec<Measure> {
    let mut all: Vec<Measure> = measures
        .iter()
        .flat_map(|measure| match measure.kind {
            MeasureKind::Panel => measure.components(),
            _ => vec![*measure],
        })
        .filter(|measure| measure.is_scalar())
        .collect();
    all.sort();
    all.dedup();
    all
}

fn when(params: &mut Params<'_>) -> Option<When> {
    let span = span(params);
    let Some(text) = params.once("duration") else { return span.map(When::Between) };
    let hours = text.parse::<f64>().ok().filter(|hours| *hours > 0.0 && *hours <= DURATION_LIMIT_H);
    match (hours, span) {
        (Some(hours), None) => Some(When::LastMicros((hours * 3_600_000_000.0) as i64)),
        (Some(_), Some(_)) => {
            params.refuse("duration", IssueCode::Value, "duration and a period cannot be given together");
            None
        }
        (None, _) => {
            let what = format!("\"{}\" is no number of hours above 0", cut(text));
            params.refuse("duration", IssueCode::Value, what);
            None
        }
    }
}

/// `start` and `end`; a partial end names a span and is included whole.
fn span(params: &mut Params<'_>) -> Option<Interval> {
    let start = instant(params, "start").map(|span| span.start);
    let end = instant(params, "end").and_then(|span| span.end);
    if start.is_none() && end.is_none() {
        return None;
    }
    let start = start.unwrap_or(Timestamp::MIN);
    if end.is_some_and(|end| end <= start) {
        params.refuse("end", IssueCode::Value, "end lies before start");
        return None;
    }
    Some(Interval { start, end })
}

fn instant(params: &mut Params<'_>, name: &str) -> Option<Interval> {
    // An unescaped + arrives as a space.
    let value = params.once(name)?.replace(' ', "+");
    let found = period::span(&value);
    if found.is_none() {
        let what = format!(
            "\"{}\" is no date: expected YYYY, YYYY-MM, YYYY-MM-DD or a time such as 2026-11-22T10:15:30Z",
            cut(&value)
        );
        params.refuse(name, IssueCode::Value, what);
    }
    found
}

fn since(params: &mut Params<'_>) -> Option<Timestamp> {
    instant(params, "_since").map(|span| span.start)
}

fn types(params: &mut Params<'_>) -> Vec<ResourceType> {
    let mut wanted = Vec::new();
    for value in params.values("_type") {
        for name in value.split(',') {
            match ResourceType::by_name(name.trim()).filter(|kind| GIVEN_TYPES.contains(kind)) {
                Some(kind) if !wanted.contains(&kind) => wanted.push(kind),
                Some(_) => {}
                None => {
                    let what = format!(
                        "\"{}\" is not given here; Patient, Device, Location, Observation are",
                        cut(name)
                    );
                    params.refuse("_type", IssueCode::NotSupported, what);
                }
            }
        }
    }
    if wanted.is_empty() { GIVEN_TYPES.to_vec() } else { wanted }
}

fn statistic(name: &str, value: &str) -> Result<Vec<(&'static str, Statistic)>, OutcomeIssue> {
    let code = token(name, value)?.code.unwrap_or_default();
    STATISTICS.iter().find(|(known, _)| *known == code).map(|found| vec![*found]).ok_or_else(|| {
        let known: Vec<&str> = STATISTICS.iter().map(|(known, _)| *known).collect();
        let what = format!("the statistic \"{}\" is not supported: {} are", cut(&code), known.join(", "));
        OutcomeIssue::error(IssueCode::NotSupported, what, format!("http.{name}"))
    })
}

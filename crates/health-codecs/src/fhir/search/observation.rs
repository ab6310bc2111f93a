//! Searches for Observations: readings by patient, device, code and time; and the latest of each code.

use std::collections::BTreeSet;

use clinical_model::unit::to_series_unit;
use clinical_model::{Decimal, DeviceId, Measure, MeasureKind, PatientId, PlaceId, Subject};

use super::super::element::cut;
use super::super::observation::category_code;
use super::super::outcome::{IssueCode, OutcomeIssue};
use super::super::system;
use super::date::{DateFilter, Prefix};
use super::params::{Params, Token, ids_of, own_id, reference, split, token, unescape};
use super::{COUNT_LIMIT, Parameter};

/// What can be asked of Observations.
pub const OBSERVATION_PARAMETERS: &[Parameter] = &[
    ("_id", "token", "the logical id"),
    ("_lastUpdated", "date", "when it was committed"),
    ("patient", "reference", "the patient: Patient/id or id"),
    ("subject", "reference", "the subject: Patient/id, Device/id, Location/id or id"),
    ("device", "reference", "the device: Device/id or id"),
    ("code", "token", "LOINC, MDC or our own name of the measure or panel"),
    ("combo-code", "token", "like code, and also the code of a component: finds the panel that has it"),
    ("code:not", "token", "not coded so"),
    ("component-code", "token", "the code of a component: finds the panel that has it"),
    ("identifier", "token", "system|value under which it was posted"),
    (
        "value-quantity",
        "quantity",
        "[prefix]number, or with |system|code; values in another unit are converted",
    ),
    ("category", "token", "vital-signs, laboratory, activity, procedure, survey"),
    ("date", "date", "when it was measured; times without a zone are UTC"),
    ("status", "token", "final, preliminary, amended, corrected, entered-in-error"),
    ("_sort", "string", "date or -date"),
    ("_count", "number", "results of a page, 1 to 1000"),
    ("_cursor", "string", "the next page; only from a next link"),
];

const LASTN_PARAMETERS: &[Parameter] = &[("max", "number", "how many of each code, 1 to 100; 1 without it")];

/// Most observations of each code that one `$lastn` gives.
const LASTN_LIMIT: u64 = 100;

/// The statuses that our Observations can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObservationStatus {
    /// `final`.
    Final,
    /// `preliminary`.
    Preliminary,
    /// `amended`: something was added or changed after it was charted.
    Amended,
    /// `corrected`: an error was put right after it was charted.
    Corrected,
    /// `entered-in-error`: it should never have been charted.
    EnteredInError,
}

impl ObservationStatus {
    /// All of them, with their codes.
    pub const ALL: [(&'static str, ObservationStatus); 5] = [
        ("final", ObservationStatus::Final),
        ("preliminary", ObservationStatus::Preliminary),
        ("amended", ObservationStatus::Amended),
        ("corrected", ObservationStatus::Corrected),
        ("entered-in-error", ObservationStatus::EnteredInError),
    ];
}

/// One condition on a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueFilter {
    /// How it is compared; never by the ends of a span.
    pub prefix: Prefix,
    /// With which number.
    pub number: Decimal,
    /// UCUM unit of that number; `None` is the unit of whatever is compared.
    pub unit: Option<String>,
}

impl ValueFilter {
    fn parse(value: &str) -> Option<Self> {
        let parts = split(value, '|');
        let (number, unit) = match parts[..] {
            [number] => (number, None),
            [number, "" | system::UCUM, unit] if !unit.is_empty() => (number, Some(unescape(unit))),
            _ => return None,
        };
        let (prefix, number) = match number.split_at_checked(2) {
            Some(("eq", rest)) => (Prefix::Eq, rest),
            Some(("ne", rest)) => (Prefix::Ne, rest),
            Some(("gt" | "sa", rest)) => (Prefix::Gt, rest),
            Some(("lt" | "eb", rest)) => (Prefix::Lt, rest),
            Some(("ge", rest)) => (Prefix::Ge, rest),
            Some(("le", rest)) => (Prefix::Le, rest),
            _ => (Prefix::Eq, number),
        };
        Some(ValueFilter { prefix, number: number.parse().ok()?, unit })
    }

    /// Whether a value of a measure fits, in the unit of the measure. Equality is to the digits that were given: 5.4 is
    /// anything from 5.35 to 5.45 (R4 §3.1.1.4.8).
    pub fn matches(&self, measure: Measure, value: Decimal) -> bool {
        let number = match &self.unit {
            None => self.number,
            Some(unit) => match to_series_unit(measure, self.number, unit) {
                Ok(converted) => converted.value,
                Err(_) => return false,
            },
        };
        let (number, half) = (number.to_f64(), 0.5 * 10f64.powi(-i32::from(number.decimals())));
        let value = value.to_f64();
        let is_equal = (number - half..number + half).contains(&value);
        match self.prefix {
            Prefix::Eq => is_equal,
            Prefix::Ne => !is_equal,
            Prefix::Gt | Prefix::Sa => value > number,
            Prefix::Lt | Prefix::Eb => value < number,
            Prefix::Ge => value >= number,
            Prefix::Le => value <= number,
        }
    }
}

/// The order of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Sort {
    /// Oldest first (`date`).
    OldestFirst,
    /// Newest first (`-date`), the usual order.
    #[default]
    NewestFirst,
}

/// A search for Observations. `None` is no condition; an empty list matches nothing.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ObservationSearch {
    /// Any of these ids.
    pub ids: Option<Vec<String>>,
    /// Posted under any of these.
    pub identifiers: Option<Vec<Token>>,
    /// With a value that fits all of these.
    pub values: Vec<ValueFilter>,
    /// About any of these.
    pub subjects: Option<Vec<Subject>>,
    /// By any of these devices.
    pub devices: Option<Vec<DeviceId>>,
    /// Coded as any of these: scalars, panels, waveforms, events; never components.
    pub measures: Option<BTreeSet<Measure>>,
    /// Measured when; all must fit.
    pub date: Vec<DateFilter>,
    /// Committed when; all must fit.
    pub last_updated: Vec<DateFilter>,
    /// With any of these statuses.
    pub statuses: Option<Vec<ObservationStatus>>,
    /// In which order.
    pub sort: Sort,
    /// Results of a page, 1 to 1,000.
    pub count: Option<u16>,
    /// Where the page starts; opaque.
    pub cursor: Option<String>,
    /// What is worth telling with the results, as entries of mode `outcome`.
    pub hints: Vec<OutcomeIssue>,
}

impl ObservationSearch {
    /// The measures whose series must be read: those of the search, panels replaced by their components.
    pub fn series_measures(&self) -> Option<BTreeSet<Measure>> {
        self.measures.as_ref().map(series_measures)
    }
}

fn series_measures(measures: &BTreeSet<Measure>) -> BTreeSet<Measure> {
    let expand = |measure: &Measure| match measure.kind {
        MeasureKind::Panel => measure.components(),
        _ => vec![*measure],
    };
    measures.iter().flat_map(expand).collect()
}

/// A `$lastn`.
#[derive(Clone, Debug, PartialEq)]
pub struct LastnSearch {
    /// About whom: any of these; usually one. Empty matches nothing.
    pub subjects: Vec<Subject>,
    /// What else must fit, as in a search.
    pub search: ObservationSearch,
    /// How many of each code, 1 to 100.
    pub max: u8,
}

/// Reads the parameters of a search for Observations.
///
/// # Errors
/// Every parameter that is unknown, malformed or not supported.
pub fn parse_observation_search(given: &[(String, String)]) -> Result<ObservationSearch, Vec<OutcomeIssue>> {
    let mut params = Params::new(given, OBSERVATION_PARAMETERS);
    let search = conditions(&mut params);
    params.finish(search)
}

fn conditions(params: &mut Params<'_>) -> ObservationSearch {
    let ids = params.any_of(&["_id"], own_id::<String>);
    let subjects = subjects(params);
    let devices =
        params.any_of(&["device"], |name, value| ids_of::<DeviceId>(name, &unescape(value), "Device"));
    let (measures, hints) = measures(params);
    let identifiers = params.any_of(&["identifier"], |name, value| match token(name, value)? {
        // An index of sealed identifiers knows whole ones only.
        found @ Token { system: Some(_), code: Some(_) } => Ok(vec![found]),
        _ => {
            let what = "an identifier is looked up as system|value, or as |value for one without a system";
            Err(OutcomeIssue::error(IssueCode::NotSupported, what, "http.identifier"))
        }
    });
    ObservationSearch {
        ids,
        identifiers,
        values: values(params),
        subjects,
        devices,
        measures,
        date: params.dates("date"),
        last_updated: params.dates("_lastUpdated"),
        statuses: params.any_of(&["status"], status),
        sort: sort(params),
        count: params.count(),
        cursor: params.cursor(),
        hints,
    }
}

/// Reads the parameters of `Observation/$lastn`.
///
/// # Errors
/// As [`parse_observation_search`]; and where neither patient nor subject is given.
pub fn parse_lastn(given: &[(String, String)]) -> Result<LastnSearch, Vec<OutcomeIssue>> {
    let is_max = |name: &str| name == "max";
    let (max, others): (Vec<_>, Vec<_>) = given.iter().cloned().partition(|(name, _)| is_max(name));
    let mut of_max = Params::new(&max, LASTN_PARAMETERS);
    let max = of_max.whole("max", LASTN_LIMIT).and_then(|max| u8::try_from(max).ok()).unwrap_or(1);
    let mut params = Params::new(&others, OBSERVATION_PARAMETERS);
    params.issues.append(&mut of_max.issues);
    for name in ["_sort", "_count", "_cursor", "_id"] {
        if !params.values(name).is_empty() {
            params.refuse(name, IssueCode::NotSupported, format!("{name} makes no sense with $lastn"));
        }
    }
    let search = conditions(&mut params);
    if search.subjects.is_none() && params.issues.is_empty() {
        params.refuse("patient", IssueCode::Required, "$lastn needs patient or subject");
    }
    params.finish(LastnSearch { subjects: search.subjects.clone().unwrap_or_default(), search, max })
}

pub(super) fn subjects(params: &mut Params<'_>) -> Option<Vec<Subject>> {
    let read = |name: &str, value: &str| {
        let value = unescape(value);
        let types: &[&str] =
            if name == "patient" { &["Patient"] } else { &["Patient", "Device", "Location"] };
        let (kind, id) = reference(name, &value, types)?;
        let wanted = |of: &str| types.contains(&of) && kind.is_none_or(|kind| kind == of);
        let patient = id.parse::<PatientId>().ok().filter(|_| wanted("Patient")).map(Subject::Patient);
        let device = id.parse::<DeviceId>().ok().filter(|_| wanted("Device")).map(Subject::Device);
        let place = id.parse::<PlaceId>().ok().filter(|_| wanted("Location")).map(Subject::Place);
        Ok([patient, device, place].into_iter().flatten().collect())
    };
    params.any_of(&["patient", "subject"], read)
}

/// The measures that code, combo-code and category allow, with hints where a component was asked for as a code.
fn measures(params: &mut Params<'_>) -> (Option<BTreeSet<Measure>>, Vec<OutcomeIssue>) {
    let mut hints = Vec::new();
    let by_code = params.any_of(&["code"], |name, value| {
        let found = coded(&token(name, value)?);
        hints.extend(found.iter().filter_map(|measure| hint(*measure)));
        Ok(found.into_iter().filter(|measure| measure.panel().is_none()).collect())
    });
    let by_combo = params.any_of(&["combo-code"], |name, value| {
        let found = coded(&token(name, value)?);
        Ok(found.into_iter().map(|measure| measure.panel().unwrap_or(measure)).collect())
    });
    let by_component = params.any_of(&["component-code"], |name, value| {
        Ok(coded(&token(name, value)?).into_iter().filter_map(Measure::panel).collect())
    });
    let by_absence = left_out(params).map(|left_out| {
        let all = Measure::all().filter(|measure| measure.panel().is_none());
        all.filter(|measure| !left_out.contains(measure)).collect::<Vec<_>>()
    });
    let by_category = params.any_of(&["category"], |name, value| {
        let wanted = token(name, value)?;
        let fits = |measure: &Measure| {
            wanted.system.as_deref().is_none_or(|system| system == system::OBSERVATION_CATEGORY)
                && wanted.code.as_deref().is_none_or(|code| code == category_code(measure.category))
        };
        Ok(Measure::all().filter(|measure| measure.panel().is_none()).filter(fits).collect())
    });
    let mut allowed: Option<BTreeSet<Measure>> = None;
    for found in [by_code, by_combo, by_component, by_absence, by_category].into_iter().flatten() {
        let found: BTreeSet<Measure> = found.into_iter().collect();
        allowed = Some(match allowed {
            None => found,
            Some(before) => before.intersection(&found).copied().collect(),
        });
    }
    hints.dedup();
    (allowed, hints)
}

/// What `code:not` leaves out; each occurrence adds to it. `None` where it is not given.
fn left_out(params: &mut Params<'_>) -> Option<Vec<Measure>> {
    let given = params.values("code:not");
    if given.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for part in given.into_iter().flat_map(|value| split(value, ',')) {
        match token("code:not", part) {
            Ok(code) => all.extend(coded(&code)),
            Err(issue) => params.issues.push(issue),
        }
    }
    Some(all)
}

fn hint(measure: Measure) -> Option<OutcomeIssue> {
    let panel = measure.panel()?;
    let code = |measure: Measure| measure.loinc.unwrap_or(measure.name);
    Some(OutcomeIssue::information(format!(
        "{} ({}) is a component of {} ({}): search for that code, or with combo-code",
        measure.display,
        code(measure),
        panel.display,
        code(panel)
    )))
}

/// The measures that carry the code, components too.
pub(super) fn coded(token: &Token) -> Vec<Measure> {
    let carries = |measure: &Measure| {
        let loinc =
            measure.loinc.iter().chain(measure.also_loinc).map(|code| (system::LOINC, (*code).to_owned()));
        let mdc = measure.mdc.iter().flat_map(|number| {
            [(system::MDC, number.to_string()), (system::MDC, measure.mdc_refid.to_owned())]
        });
        loinc.chain(mdc).chain([(system::MEASURE, measure.name.to_owned())]).any(|(system, code)| {
            token.system.as_deref().is_none_or(|wanted| wanted == system)
                && token.code.as_deref().is_none_or(|wanted| wanted == code)
        })
    };
    Measure::all().filter(carries).collect()
}

fn values(params: &mut Params<'_>) -> Vec<ValueFilter> {
    let mut filters = Vec::new();
    for value in params.values("value-quantity") {
        match ValueFilter::parse(value) {
            Some(filter) => filters.push(filter),
            None => {
                let what = format!(
                    "\"{}\" is no quantity: expected number, number|system|code or number||code, with eq, ne, gt, lt, \
                     ge or le before it; alternatives are not supported",
                    cut(value)
                );
                params.refuse("value-quantity", IssueCode::Value, what);
            }
        }
    }
    filters
}

fn status(name: &str, value: &str) -> Result<Vec<ObservationStatus>, OutcomeIssue> {
    let wanted = token(name, value)?.code;
    // The other statuses exist, but none of our Observations has one.
    let fits = |code: &str| wanted.as_deref().is_none_or(|wanted| wanted == code);
    Ok(ObservationStatus::ALL.into_iter().filter(|(code, _)| fits(code)).map(|(_, status)| status).collect())
}

fn sort(params: &mut Params<'_>) -> Sort {
    match params.once("_sort") {
        None | Some("-date") => Sort::NewestFirst,
        Some("date") => Sort::OldestFirst,
        Some(_) => {
            params.refuse("_sort", IssueCode::NotSupported, "only date and -date are supported");
            Sort::default()
        }
    }
}

const _: () = assert!(COUNT_LIMIT == 1_000, "the text of _count names the limit");

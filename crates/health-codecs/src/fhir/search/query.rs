//! What a search asks for besides the filters of its own type: conditions on what refers to it or to which it refers,
//! what else to put into the answer, and how much of each resource.

use super::super::element::cut;
use super::super::outcome::{IssueCode, OutcomeIssue};
use super::super::validate::is_id;
use super::super::view::View;
use super::{PARAMETER_LIMIT, Parameter, parameters_of};

/// References that one chain may follow, and levels of `_has`: more is no question about a ward.
pub const CHAIN_LIMIT: usize = 4;

/// Types of resources that can be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// A patient.
    Patient,
    /// A device.
    Device,
    /// A ward, a bed, a home, a room.
    Location,
    /// A reading, a panel, an event, an interval of a curve.
    Observation,
    /// A row of the audit log.
    AuditEvent,
    /// A consent.
    Consent,
}

impl ResourceType {
    /// All of them.
    pub const ALL: [ResourceType; 6] = [
        ResourceType::Patient,
        ResourceType::Device,
        ResourceType::Location,
        ResourceType::Observation,
        ResourceType::AuditEvent,
        ResourceType::Consent,
    ];

    /// Its name in FHIR.
    pub const fn name(self) -> &'static str {
        match self {
            ResourceType::Patient => "Patient",
            ResourceType::Device => "Device",
            ResourceType::Location => "Location",
            ResourceType::Observation => "Observation",
            ResourceType::AuditEvent => "AuditEvent",
            ResourceType::Consent => "Consent",
        }
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Self> {
        ResourceType::ALL.into_iter().find(|each| each.name() == name)
    }
}

/// A search parameter that names a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The type that has it.
    pub source: ResourceType,
    /// Its name.
    pub name: &'static str,
    /// To which types it can lead.
    pub targets: &'static [ResourceType],
    /// Whether it can be followed backwards (`_has`, `_revinclude`).
    pub is_reversible: bool,
}

/// Every reference that chains, `_has`, `_include` and `_revinclude` follow.
pub const REFERENCES: &[Reference] = {
    use ResourceType::{AuditEvent, Device, Location, Observation, Patient};
    const fn row(
        source: ResourceType,
        name: &'static str,
        targets: &'static [ResourceType],
        is_reversible: bool,
    ) -> Reference {
        Reference { source, name, targets, is_reversible }
    }
    &[
        row(Observation, "patient", &[Patient], true),
        row(Observation, "subject", &[Patient, Device, Location], true),
        row(Observation, "device", &[Device], true),
        row(Device, "patient", &[Patient], true),
        row(Device, "location", &[Location], true),
        row(Location, "partof", &[Location], true),
        // What an audit row names is followed; which rows name a patient is asked of the log itself.
        row(AuditEvent, "patient", &[Patient], false),
    ]
};

fn reference_of(source: ResourceType, name: &str) -> Option<Reference> {
    REFERENCES.iter().copied().find(|each| each.source == source && each.name == name)
}

/// `subject:Patient.family=Ito`: a condition on what a reference leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The reference.
    pub reference: Reference,
    /// The type it must lead to.
    pub target: ResourceType,
    /// The parameter of that type; may be a chain itself.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `_has:Observation:patient:code=8867-4`: a condition on what refers to this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Has {
    /// The reference, with the type that has it.
    pub reference: Reference,
    /// The parameter of that type; may be a chain or a `_has` itself.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// One value of `_include` or `_revinclude`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Include {
    /// The reference that is followed, or followed backwards.
    pub reference: Reference,
    /// Only to this type.
    pub target: Option<ResourceType>,
    /// Also from what was included.
    pub iterate: bool,
}

/// Whether the number of all results is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Total {
    /// It is not.
    #[default]
    None,
    /// Roughly.
    Estimate,
    /// Exactly.
    Accurate,
}

/// What to do with a parameter that is not supported (`Prefer: handling=…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Handling {
    /// Refuse the search.
    #[default]
    Strict,
    /// Leave the parameter out, and say so.
    Lenient,
}

/// A search taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Query {
    /// What the type's own filters are read from.
    pub filters: Vec<(String, String)>,
    /// Conditions on what it refers to; all must hold.
    pub chains: Vec<Chain>,
    /// Conditions on what refers to it; all must hold.
    pub has: Vec<Has>,
    /// What else to show: that to which the results refer.
    pub includes: Vec<Include>,
    /// What else to show: that which refers to the results.
    pub reverse_includes: Vec<Include>,
    /// How much of each resource.
    pub view: View,
    /// Whether to count.
    pub total: Total,
    /// Names that were left out, in lenient handling.
    pub ignored: Vec<String>,
    /// What is worth telling with the results.
    pub hints: Vec<OutcomeIssue>,
}

/// Takes the parameters of a search apart. The filters of the type are checked by name only.
///
/// # Errors
/// Every parameter that is unknown or malformed.
pub fn parse_query(
    source: ResourceType,
    given: &[(String, String)],
    handling: Handling,
) -> Result<Query, Vec<OutcomeIssue>> {
    let mut reader = Reader { source, handling, query: Query::default(), issues: Vec::new() };
    if given.len() > PARAMETER_LIMIT {
        let what = format!("{} parameters; {PARAMETER_LIMIT} are read at most", given.len());
        return Err(vec![OutcomeIssue::error(IssueCode::TooLong, what, "")]);
    }
    match View::of(given) {
        Ok(view) => reader.query.view = view,
        Err(mut issues) => reader.issues.append(&mut issues),
    }
    for (name, value) in given {
        reader.read(name, value);
    }
    let includes = !reader.query.includes.is_empty() || !reader.query.reverse_includes.is_empty();
    if includes && reader.query.view == View::Text {
        let what = "_include and _revinclude make no sense with _summary=text";
        reader.issues.push(OutcomeIssue::error(IssueCode::Value, what, "http._summary"));
    }
    if reader.issues.is_empty() { Ok(reader.query) } else { Err(reader.issues) }
}

struct Reader {
    source: ResourceType,
    handling: Handling,
    query: Query,
    issues: Vec<OutcomeIssue>,
}

impl Reader {
    fn refuse(&mut self, name: &str, code: IssueCode, what: impl Into<String>) {
        self.issues.push(OutcomeIssue::error(code, what, format!("http.{}", cut(name))));
    }

    /// Something that exists in FHIR, or not, but not here.
    fn unsupported(&mut self, name: &str, what: String) {
        match self.handling {
            Handling::Strict => self.refuse(name, IssueCode::NotSupported, what),
            Handling::Lenient => {
                self.query.hints.push(OutcomeIssue::information(format!("left out: {what}")));
                self.query.ignored.push(name.to_owned());
            }
        }
    }

    fn read(&mut self, name: &str, value: &str) {
        match name {
            "_summary" | "_elements" => {}
            "_total" => self.total(value),
            "_include" | "_include:iterate" | "_include:recurse" => self.include(name, value, false),
            "_revinclude" | "_revinclude:iterate" | "_revinclude:recurse" => self.include(name, value, true),
            _ if name.starts_with("_has:") => self.has(name, value),
            _ => self.filter(name, value),
        }
    }

    fn total(&mut self, value: &str) {
        self.query.total = match value {
            "none" => Total::None,
            "estimate" => Total::Estimate,
            "accurate" => Total::Accurate,
            _ => {
                let what = format!("\"{}\" is no way to count: none, estimate, accurate are", cut(value));
                return self.refuse("_total", IssueCode::Value, what);
            }
        };
    }

    /// A filter of the type itself, or a chain.
    fn filter(&mut self, name: &str, value: &str) {
        let (head, rest) = match name.split_once('.') {
            Some((head, rest)) => (head, Some(rest)),
            None => (name, None),
        };
        let (bare, modifier) = match head.split_once(':') {
            Some((bare, modifier)) => (bare, Some(modifier)),
            None => (head, None),
        };
        let is_known = SHARED.contains(&bare) || own(self.source).any(|known| known.0 == bare);
        if !is_known {
            let names: Vec<&str> = own(self.source).map(|known| known.0).collect();
            let what = format!(
                "the parameter \"{}\" is not supported here; supported are {}",
                cut(name),
                names.join(", ")
            );
            return self.unsupported(name, what);
        }
        // A modifier that the type's own table names is read with its filters.
        if own(self.source).any(|known| known.0 == name) {
            self.query.filters.push((name.to_owned(), value.to_owned()));
            return;
        }
        if rest.is_none() && modifier == Some("missing") && always_there(self.source).contains(&bare) {
            return self.missing(name, value);
        }
        let reference = reference_of(self.source, bare);
        let target = modifier.and_then(ResourceType::by_name);
        match (reference, rest, modifier, target) {
            (_, None, None, _) => self.query.filters.push((name.to_owned(), value.to_owned())),
            (Some(reference), Some(rest), _, _) if modifier.is_none() || target.is_some() => {
                self.chain(name, reference, target, rest, value);
            }
            (Some(reference), None, Some(_), Some(target)) if reference.targets.contains(&target) => {
                // `subject:Patient=1` is `subject=Patient/1`.
                let typed = |id: &str| if is_id(id) { format!("{}/{id}", target.name()) } else { id.into() };
                let values: Vec<String> = value.split(',').map(typed).collect();
                self.query.filters.push((bare.to_owned(), values.join(",")));
            }
            (_, _, Some(modifier), _) => {
                let what = format!("the modifier :{} of {bare} is not supported", cut(modifier));
                self.unsupported(bare, what);
            }
            (None, Some(_), None, _) => {
                let what = format!("{bare} is no reference, so that nothing can be chained to it");
                self.unsupported(name, what);
            }
            (Some(_), Some(_), None, _) => {}
        }
    }

    /// `:missing` of an element that is always there: nothing, or no condition.
    fn missing(&mut self, name: &str, value: &str) {
        match value {
            "true" => self.query.filters.push(("_id".to_owned(), NO_ID.to_owned())),
            "false" => {}
            _ => self.refuse(name, IssueCode::Value, ":missing is true or false"),
        }
    }

    fn chain(
        &mut self,
        name: &str,
        reference: Reference,
        target: Option<ResourceType>,
        rest: &str,
        value: &str,
    ) {
        let target = match (target, reference.targets) {
            (Some(target), targets) if targets.contains(&target) => target,
            (None, [only]) => *only,
            _ => {
                let types: Vec<&str> = reference.targets.iter().map(|each| each.name()).collect();
                let what = format!(
                    "{} leads to {}: name one, as in {}:{}.{}",
                    reference.name,
                    types.join(", "),
                    reference.name,
                    types[0],
                    cut(rest)
                );
                return self.refuse(name, IssueCode::Value, what);
            }
        };
        if self.is_too_deep(name) {
            return;
        }
        let chain = Chain { reference, target, name: rest.to_owned(), value: value.to_owned() };
        if self.inner(name, target, rest, value) {
            self.query.chains.push(chain);
        }
    }

    fn has(&mut self, name: &str, value: &str) {
        let mut parts = name.splitn(4, ':').skip(1);
        let (Some(source), Some(reference), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            let what = "_has is written _has:Type:reference:parameter=value";
            return self.refuse(name, IssueCode::Value, what);
        };
        let found = ResourceType::by_name(source).and_then(|source| reference_of(source, reference));
        let fits = |each: &Reference| each.is_reversible && each.targets.contains(&self.source);
        let Some(reference) = found.filter(fits) else {
            let what = format!(
                "no {}:{} leads to {} here; {}",
                cut(source),
                cut(reference),
                self.source.name(),
                list(reverse_of(self.source).map(|each| written(&each)))
            );
            return self.unsupported(name, what);
        };
        if !self.is_too_deep(name) && self.inner(name, reference.source, rest, value) {
            self.query.has.push(Has { reference, name: rest.to_owned(), value: value.to_owned() });
        }
    }

    fn is_too_deep(&mut self, name: &str) -> bool {
        let depth = name.matches('.').count() + name.matches("_has:").count();
        if depth > CHAIN_LIMIT {
            let what = format!("{depth} references one after the other; {CHAIN_LIMIT} are followed at most");
            self.refuse(name, IssueCode::TooCostly, what);
        }
        depth > CHAIN_LIMIT
    }

    /// Whether a condition on another type is sound by name; what is wrong with it is noted under the whole name.
    fn inner(&mut self, whole: &str, kind: ResourceType, name: &str, value: &str) -> bool {
        if name.starts_with('_') && !matches!(name, "_id" | "_lastUpdated") && !name.starts_with("_has:") {
            self.refuse(whole, IssueCode::NotSupported, format!("{} cannot be chained", cut(name)));
            return false;
        }
        match parse_query(kind, &[(name.to_owned(), value.to_owned())], Handling::Strict) {
            Ok(_) => true,
            Err(issues) => {
                for issue in issues {
                    match (self.handling, issue.code) {
                        (Handling::Lenient, IssueCode::NotSupported) => {
                            self.unsupported(whole, issue.diagnostics);
                        }
                        (_, code) => self.refuse(whole, code, issue.diagnostics),
                    }
                }
                false
            }
        }
    }

    fn include(&mut self, name: &str, value: &str, is_reverse: bool) {
        let iterate = name.contains(':');
        let name = if is_reverse { "_revinclude" } else { "_include" };
        let source = self.source;
        let starts_here = |each: &Reference| match is_reverse {
            false => iterate || each.source == source,
            true => each.is_reversible && (iterate || each.targets.contains(&source)),
        };
        let add = |query: &mut Query, include: Include| match is_reverse {
            false => query.includes.push(include),
            true => query.reverse_includes.push(include),
        };
        if value == "*" {
            for reference in REFERENCES.iter().copied().filter(starts_here) {
                add(&mut self.query, Include { reference, target: None, iterate });
            }
            return;
        }
        let parts: Vec<&str> = value.split(':').collect();
        let (kind, reference, target) = match parts[..] {
            [kind, reference] => (kind, reference, None),
            [kind, reference, target] => (kind, reference, Some(target)),
            _ => {
                let what = format!("{name} is written Type:reference or Type:reference:Target");
                return self.refuse(name, IssueCode::Value, what);
            }
        };
        let found: Vec<Reference> = match (ResourceType::by_name(kind), reference) {
            (Some(kind), "*") => REFERENCES.iter().copied().filter(|each| each.source == kind).collect(),
            (Some(kind), reference) => reference_of(kind, reference).into_iter().collect(),
            (None, _) => Vec::new(),
        };
        let wanted = target.map(ResourceType::by_name);
        let fits = |each: &Reference| {
            starts_here(each)
                && wanted.is_none_or(|wanted| wanted.is_some_and(|wanted| each.targets.contains(&wanted)))
        };
        let found: Vec<Reference> = found.into_iter().filter(fits).collect();
        if found.is_empty() {
            let known = REFERENCES.iter().filter(|each| starts_here(each)).map(written);
            let what = format!("{name}={} is not supported here; {}", cut(value), list(known));
            return self.unsupported(name, what);
        }
        for reference in found {
            add(&mut self.query, Include { reference, target: wanted.flatten(), iterate });
        }
    }
}

/// An id that nothing here has: ours are UUIDs or long sealed texts.
const NO_ID: &str = "none";

/// Parameters whose element every resource of a type has.
fn always_there(source: ResourceType) -> &'static [&'static str] {
    match source {
        ResourceType::Observation => {
            &["_id", "_lastUpdated", "subject", "device", "code", "combo-code", "category", "date", "status"]
        }
        ResourceType::Patient => &["_id", "identifier", "gender"],
        ResourceType::Device => &["_id", "status"],
        ResourceType::Location => &["_id"],
        ResourceType::AuditEvent => &["_id", "date", "action"],
        ResourceType::Consent => &["_id", "patient", "status"],
    }
}

/// Parameters of every type that shape the answer.
const SHARED: &[&str] = &["_count", "_cursor", "_format", "_pretty"];

fn own(source: ResourceType) -> impl Iterator<Item = &'static Parameter> {
    parameters_of(source.name()).iter()
}

fn written(reference: &Reference) -> String {
    format!("{}:{}", reference.source.name(), reference.name)
}

fn list(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    if all.is_empty() {
        "there is nothing of the kind".to_owned()
    } else {
        format!("there are {}", all.join(", "))
    }
}

/// The references that lead to a type and can be followed backwards.
pub fn reverse_of(target: ResourceType) -> impl Iterator<Item = Reference> {
    REFERENCES.iter().copied().filter(move |each| each.is_reversible && each.targets.contains(&target))
}

/// The references that a type has.
pub fn references_from(source: ResourceType) -> impl Iterator<Item = Reference> {
    REFERENCES.iter().copied().filter(move |each| each.source == source)
}

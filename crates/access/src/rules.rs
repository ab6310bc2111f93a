//! Reading policies: the built-in files, those of a site's own directory, and every mistake with its file, line and column.

use std::collections::HashMap;
use std::fmt;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use clinical_model::PlaceId;
use miette::Diagnostic;

use crate::Role;

/// What policies can speak about.
pub const SCHEMA: &str = include_str!("../policies/schema.cedarschema");
/// The rules that hold everywhere.
pub const CORE: &str = include_str!("../policies/core.cedar");
/// Who may what, where a site says nothing else.
pub const ROLES: &str = include_str!("../policies/roles.cedar");
/// Cases that the built-in policies must decide as written; a site may start its own from them.
pub const CASES: &str = include_str!("../policies/cases.toml");
/// The file that a site cannot replace.
pub const CORE_FILE: &str = "core.cedar";
/// The file that a site replaces by one of the same name.
pub const ROLES_FILE: &str = "roles.cedar";

/// Files of a site's directory.
pub const FILES_LIMIT: usize = 100;
/// Size of one file, in bytes.
pub const FILE_LIMIT_BYTES: usize = 256 * 1024;
/// Policies in all files together: every decision looks at each.
pub const POLICIES_LIMIT: usize = 1_000;

/// A file of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, as mistakes name it.
    pub name: String,
    /// What it says.
    pub text: String,
}

impl Source {
    /// From a name and a text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Source { name: name.into(), text: text.into() }
    }

    /// Line and column of an offset in bytes, both from 1; the column counts characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A mistake in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Which file.
    pub file: String,
    /// Which line, from 1.
    pub line: usize,
    /// Which column, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.what)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Why policies were not taken: all that is wrong with them. The set in force stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct BadPolicies(pub Vec<Mistake>);

/// One policy as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rule {
    /// Its `@id`.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// Its `@description`.
    pub description: String,
    /// The file it stands in.
    pub file: String,
    /// The line where it begins.
    pub line: usize,
    /// The policy itself.
    pub text: String,
}

/// Policies that were read and found sound.
pub(crate) struct Read {
    pub set: PolicySet,
    pub schema: Schema,
    pub rules: Vec<Rule>,
}

fn mistake_of(source: &Source, error: &dyn Diagnostic, what: String) -> Mistake {
    let label = error.labels().and_then(|mut labels| labels.next());
    let (line, column) = source.position(label.map_or(0, |label| label.offset()));
    Mistake { file: source.name.clone(), line, column, what, help: error.help().map(|help| help.to_string()) }
}

/// The whole message of an error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The schema; it is ours, and a test reads it.
fn schema() -> Result<Schema, BadPolicies> {
    let source = Source::new("schema.cedarschema", SCHEMA);
    Schema::from_cedarschema_str(SCHEMA)
        .map(|(schema, _)| schema)
        .map_err(|error| BadPolicies(vec![mistake_of(&source, &error, whole(&error))]))
}

/// What a site has: the core always, the built-in roles unless it brings a file of that name, and its own files.
pub(crate) fn with_built_in(own: &[Source]) -> Vec<Source> {
    let mut sources = vec![Source::new(CORE_FILE, CORE)];
    if !own.iter().any(|source| source.name == ROLES_FILE || source.name.ends_with("/roles.cedar")) {
        sources.push(Source::new(ROLES_FILE, ROLES));
    }
    sources.extend(own.iter().cloned());
    sources
}

/// Reads and validates all sources together, strictly.
///
/// # Errors
/// [`BadPolicies`] with every mistake.
pub(crate) fn read(sources: &[Source]) -> Result<Read, BadPolicies> {
    let schema = schema()?;
    let mut mistakes = Vec::new();
    let mut rules = Vec::new();
    let mut set = PolicySet::new();
    let mut file_of: HashMap<PolicyId, usize> = HashMap::new();
    for (at, source) in sources.iter().enumerate() {
        if at > 0 && (source.name == CORE_FILE || source.name.ends_with("/core.cedar")) {
            let what = "the rules of the house cannot be replaced; give the file another name".to_owned();
            mistakes.push(Mistake { file: source.name.clone(), line: 1, column: 1, what, help: None });
            continue;
        }
        match source.text.parse::<PolicySet>() {
            Err(errors) => {
                for error in errors.iter() {
                    mistakes.push(mistake_of(source, error, whole(error)));
                }
            }
            Ok(parsed) => take(source, at, &parsed, &mut set, &mut rules, &mut file_of, &mut mistakes),
        }
    }
    if rules.len() > POLICIES_LIMIT {
        let what = format!("there are {} policies, more than {POLICIES_LIMIT}", rules.len());
        mistakes.push(Mistake { file: "policies".to_owned(), line: 1, column: 1, what, help: None });
    }
    if mistakes.is_empty() {
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        for error in result.validation_errors() {
            let source = file_of.get(error.policy_id()).and_then(|at| sources.get(*at));
            if let Some(source) = source {
                mistakes.push(mistake_of(source, error, whole(error)));
            }
        }
    }
    mistakes.extend(wrong_ids(sources, &set));
    if !mistakes.is_empty() {
        return Err(BadPolicies(folded(mistakes)));
    }
    rules.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(Read { set, schema, rules })
}

/// Types whose ids are UUIDs, and where a person finds them.
const TYPES_OF_IDS: [(&str, &str); 5] = [
    ("Ward", "Administration, Places"),
    ("Place", "Administration, Places"),
    ("Patient", "the address of the patient's page"),
    ("Device", "the address of the device's page"),
    ("User", "Administration, People, Change"),
];

/// The id of the whole site.
pub(crate) const SITE: &str = "site";

/// Roles of what is no person, which have no word in [`Role`].
const MACHINES: [&str; 3] = ["program", "device", "gateway"];

/// What is wrong with an id of a type, and where to look.
fn wrong_id(of: &str, id: &str) -> Option<(&'static str, String)> {
    if of == "Role" {
        let is_role = Role::by_word(id).is_some() || MACHINES.contains(&id);
        let all = || Role::ALL.iter().map(|role| role.word()).chain(MACHINES).collect::<Vec<_>>().join(", ");
        return (!is_role).then(|| ("is no role", format!("there are: {}", all())));
    }
    if of == "Site" {
        return (id != SITE).then(|| ("is no site", format!("there is one: Site::\"{SITE}\"")));
    }
    let (_, place) = TYPES_OF_IDS.iter().find(|(known, _)| *known == of)?;
    // As it stands in questions: policies compare text.
    let is_id = id.parse::<PlaceId>().is_ok_and(|parsed| parsed.to_string() == id);
    (!is_id).then(|| ("is no id: it must be a UUID in lower case", format!("see {place}")))
}

/// Names of wards, places, patients, devices and people where their ids should stand, and roles that there are not: such a
/// policy would never apply, and a `forbid` forbid nothing.
fn wrong_ids(sources: &[Source], set: &PolicySet) -> Vec<Mistake> {
    let mut wrong = std::collections::BTreeSet::new();
    for literal in set.policies().flat_map(Policy::entity_literals) {
        let id: &str = literal.id().as_ref();
        if let Some((what, help)) = wrong_id(&literal.type_name().to_string(), id) {
            wrong.insert((literal.to_string(), what, help));
        }
    }
    let mistakes = wrong.iter().flat_map(|(literal, what, help)| {
        sources.iter().flat_map(move |source| {
            source.text.match_indices(literal.as_str()).map(move |(offset, _)| {
                let (line, column) = source.position(offset);
                let what = format!("{literal} {what}");
                Mistake { file: source.name.clone(), line, column, what, help: Some(help.clone()) }
            })
        })
    });
    mistakes.collect()
}

/// Each mistake once and in the order of the files: the validator names one for every kind of asker to whom it applies.
fn folded(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort_by(|a, b| (&a.file, a.line, a.column, &a.what).cmp(&(&b.file, b.line, b.column, &b.what)));
    mistakes.dedup_by(|next, first| {
        (&next.file, next.line, next.column) == (&first.file, first.line, first.column)
            && kind_of(&next.what) == kind_of(&first.what)
    });
    mistakes
}

/// What a mistake says before it names to whom it applies.
fn kind_of(what: &str) -> &str {
    what.split(" on entity type").next().unwrap_or(what)
}

/// Takes the policies of one file under their own ids.
fn take(
    source: &Source,
    at: usize,
    parsed: &PolicySet,
    set: &mut PolicySet,
    rules: &mut Vec<Rule>,
    file_of: &mut HashMap<PolicyId, usize>,
    mistakes: &mut Vec<Mistake>,
) {
    let mut complain = |line: usize, what: String| {
        mistakes.push(Mistake { file: source.name.clone(), line, column: 1, what, help: None });
    };
    if parsed.templates().next().is_some() {
        complain(1, "templates are not supported: write the policy out".to_owned());
    }
    for policy in parsed.policies() {
        let text = policy.to_cedar().unwrap_or_default();
        let line = source.text.find(text.trim()).map_or(1, |offset| source.position(offset).0);
        let Some(id) = policy.annotation("id").filter(|id| !id.is_empty()) else {
            complain(line, "the policy has no @id(\"…\"): decisions are explained by it".to_owned());
            continue;
        };
        let policy_id = PolicyId::new(id);
        if file_of.contains_key(&policy_id) {
            complain(line, format!("there are two policies with @id(\"{id}\")"));
            continue;
        }
        rules.push(Rule {
            id: id.to_owned(),
            effect: if policy.effect() == Effect::Forbid { "forbid" } else { "permit" },
            description: policy.annotation("description").unwrap_or_default().to_owned(),
            file: source.name.clone(),
            line,
            text,
        });
        file_of.insert(policy_id.clone(), at);
        if let Err(error) = set.add(policy.new_id(policy_id)) {
            complain(line, whole(&error));
        }
    }
}

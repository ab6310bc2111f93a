//! One rule in plain words: from the form to what is enforced, and back, and as a sentence.

use clinical_model::place::PlaceKind;
use clinical_model::{
    Consent, ConsentAction, ConsentActor, DataClass, Measure, Provision, Purpose, Ruling, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::people::Role;
use crate::problem::Problem;
use crate::state::Web;

/// Names that one rule lists of a kind: people, classes, measures. More is no rule that anybody reads.
const LISTED_LIMIT: usize = 50;
/// Exceptions of one rule in the form.
const EXCEPTIONS_LIMIT: usize = 20;
/// Longest name of a care team or program, in characters.
const NAME_LIMIT_CHARS: usize = 100;

/// To whom a rule applies.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Who {
    kind: String,
    id: String,
    #[serde(default)]
    display: Option<String>,
}

/// One rule, as the form has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    decision: Ruling,
    #[serde(default)]
    who: Vec<Who>,
    #[serde(default)]
    actions: Vec<ConsentAction>,
    #[serde(default)]
    purposes: Vec<Purpose>,
    #[serde(default)]
    classes: Vec<DataClass>,
    #[serde(default)]
    measures: Vec<Measure>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(default)]
    except: Vec<Rule>,
    /// Why it is written, where it is not the patient who does: for the record, not for the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// A role as a sentence names those who have it.
pub(super) const fn named(role: Role) -> &'static str {
    match role {
        Role::Administrator => "Administrators",
        Role::Physician => "Physicians",
        Role::Nurse => "Nurses",
        Role::BiomedicalEngineer => "Biomedical engineers",
        Role::Auditor => "Auditors",
        Role::Patient => "Patients",
        Role::Caregiver => "Caregivers",
        Role::Integrator => "Integrators",
    }
}

/// The rule of the form, where it can be enforced.
pub(super) fn provision(web: &Web, rule: &Rule, is_outermost: bool) -> Result<Provision, Problem> {
    let too_many = [rule.who.len(), rule.classes.len(), rule.measures.len(), rule.purposes.len()]
        .into_iter()
        .any(|count| count > LISTED_LIMIT);
    if too_many {
        return Err(Problem::bad_request(format!("a rule lists at most {LISTED_LIMIT} of a kind")));
    }
    if !rule.classes.is_empty() && !rule.measures.is_empty() {
        return Err(Problem::bad_request("a rule names classes or measures, not both"));
    }
    if rule.from.zip(rule.until).is_some_and(|(from, until)| until <= from) {
        return Err(Problem::bad_request("the rule ends before it begins"));
    }
    if !is_outermost && !rule.except.is_empty() {
        return Err(Problem::bad_request("an exception has no exceptions in this form; write it as FHIR"));
    }
    if rule.except.len() > EXCEPTIONS_LIMIT {
        return Err(Problem::bad_request(format!("a rule has at most {EXCEPTIONS_LIMIT} exceptions")));
    }
    Ok(Provision {
        ruling: rule.decision,
        from: rule.from,
        until: rule.until,
        actors: rule.who.iter().map(|who| actor(web, who)).collect::<Result<_, _>>()?,
        actions: rule.actions.clone(),
        purposes: rule.purposes.clone(),
        classes: rule.classes.clone(),
        measures: rule.measures.clone(),
        except: rule.except.iter().map(|one| provision(web, one, false)).collect::<Result<_, _>>()?,
    })
}

/// Somebody whom nobody knows can neither be let in nor kept out: a slip of the pen would go unnoticed.
fn actor(web: &Web, who: &Who) -> Result<ConsentActor, Problem> {
    let actor = match who.kind.as_str() {
        "person" => who.id.parse().ok().map(ConsentActor::Person),
        "caregiver" => who.id.parse().ok().map(ConsentActor::Caregiver),
        "ward" => who.id.parse().ok().map(ConsentActor::Ward),
        "role" => Some(ConsentActor::Role(who.id.clone())),
        "care-team" => Some(ConsentActor::CareTeam(who.id.clone())),
        "program" => Some(ConsentActor::Program(who.id.clone())),
        _ => None,
    };
    actor.filter(|actor| is_known(web, actor)).ok_or_else(|| {
        Problem::bad_request("the rule names somebody whom nobody knows here: person, caregiver, role, ward, care-team or program")
    })
}

/// Whether somebody whom a rule names is there now.
pub(crate) fn is_known(web: &Web, actor: &ConsentActor) -> bool {
    let is_name = |name: &str| (1..=NAME_LIMIT_CHARS).contains(&name.trim().chars().count());
    match actor {
        ConsentActor::Person(user) => {
            web.people.by_id(*user).is_some_and(|user| user.role != Role::Caregiver)
        }
        ConsentActor::Caregiver(user) => {
            web.people.by_id(*user).is_some_and(|user| user.role == Role::Caregiver)
        }
        ConsentActor::Ward(ward) => {
            web.site.registry().place(*ward).is_some_and(|place| place.kind == PlaceKind::Ward)
        }
        ConsentActor::Role(role) => Role::by_word(role).is_some(),
        ConsentActor::Patient(patient) => web.site.registry().patient(*patient).is_some(),
        ConsentActor::CareTeam(name) | ConsentActor::Program(name) => is_name(name),
    }
}

/// Whether the form can show what a rule says of its data.
pub(super) fn fits(rule: &Provision) -> bool {
    (rule.classes.is_empty() || rule.measures.is_empty()) && rule.except.iter().all(fits)
}

/// A rule as the form shows it.
pub(super) fn rule_of(web: &Web, provision: &Provision) -> Rule {
    Rule {
        decision: provision.ruling,
        who: provision.actors.iter().map(|actor| who_of(web, actor)).collect(),
        actions: provision.actions.clone(),
        purposes: provision.purposes.clone(),
        classes: provision.classes.clone(),
        measures: provision.measures.clone(),
        from: provision.from,
        until: provision.until,
        except: provision.except.iter().map(|one| rule_of(web, one)).collect(),
        reason: None,
    }
}

fn who_of(web: &Web, actor: &ConsentActor) -> Who {
    let (kind, id) = match actor {
        ConsentActor::Person(id) => ("person", id.to_string()),
        ConsentActor::Caregiver(id) => ("caregiver", id.to_string()),
        ConsentActor::Ward(id) => ("ward", id.to_string()),
        ConsentActor::Patient(id) => ("patient", id.to_string()),
        ConsentActor::Role(name) => ("role", name.clone()),
        ConsentActor::CareTeam(name) => ("care-team", name.clone()),
        ConsentActor::Program(name) => ("program", name.clone()),
    };
    Who { kind: kind.to_owned(), id, display: Some(name_of(web, actor)) }
}

fn name_of(web: &Web, actor: &ConsentActor) -> String {
    match actor {
        ConsentActor::Person(id) | ConsentActor::Caregiver(id) => web
            .people
            .by_id(*id)
            .map_or_else(|| "somebody who is no longer here".to_owned(), |user| user.display),
        ConsentActor::Ward(id) => match web.site.registry().place(*id) {
            Some(place) => format!("the team of {}", place.name),
            None => "a ward that is no longer here".to_owned(),
        },
        ConsentActor::Role(word) => {
            Role::by_word(word).map_or_else(|| word.clone(), |role| named(role).to_owned())
        }
        ConsentActor::CareTeam(name) => format!("the care team {name}"),
        ConsentActor::Program(name) => format!("the program {name}"),
        ConsentActor::Patient(_) => "another patient".to_owned(),
    }
}

/// What a consent says, in a sentence.
pub(crate) fn says(web: &Web, consent: &Consent) -> String {
    let rest = match (consent.base, &consent.provision) {
        (Some(Ruling::Deny), _) => Some("Nobody may see anything else."),
        (Some(Ruling::Permit), None) => Some("Everybody may see everything."),
        _ => None,
    };
    let rule = consent.provision.as_ref().map(|provision| {
        let mut sentence = sentence(web, provision);
        for one in &provision.except {
            sentence.push_str("; except: ");
            sentence.push_str(&self::sentence(web, one));
        }
        format!("{sentence}.")
    });
    let parts: Vec<String> = rule.into_iter().chain(rest.map(str::to_owned)).collect();
    parts.join(" ")
}

fn sentence(web: &Web, rule: &Provision) -> String {
    let who = match rule.actors.is_empty() {
        true => "Everybody".to_owned(),
        false => listed(rule.actors.iter().map(|actor| name_of(web, actor))),
    };
    let may = match rule.ruling {
        Ruling::Permit => "may",
        Ruling::Deny => "may not",
    };
    let does = match rule.actions[..] {
        [ConsentAction::Disclose] => "pass on",
        _ => "see",
    };
    let what = match (rule.classes.is_empty(), rule.measures.is_empty()) {
        (true, true) if rule.ruling == Ruling::Deny => "anything".to_owned(),
        (true, true) => "everything".to_owned(),
        (_, false) => listed(rule.measures.iter().map(|one| one.display.to_lowercase())),
        (false, true) => listed(rule.classes.iter().map(|one| one.display().to_lowercase())),
    };
    let mut said = format!("{who} {may} {does} {what}");
    if !rule.purposes.is_empty() {
        let purposes = listed(rule.purposes.iter().map(|one| one.display().to_lowercase()));
        said.push_str(&format!(" for {purposes}"));
    }
    let day = |at: Timestamp| at.to_rfc3339().chars().take(10).collect::<String>();
    if let Some(from) = rule.from {
        said.push_str(&format!(" from {}", day(from)));
    }
    if let Some(until) = rule.until {
        said.push_str(&format!(" until {}", day(until.plus_micros(-1))));
    }
    said
}

/// `a`, `a and b`, `a, b and c`.
fn listed(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

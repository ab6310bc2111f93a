//! A consent as a FHIR R4 Consent, in and out: what can be enforced is read, and what cannot is refused by its name.
//!
//! The provisions follow FHIR R4 §6.2: a rule with its exceptions nested in it. Whatever would narrow a rule and is not
//! understood here (a security label, single resources, the time of the data) refuses the whole: enforced without it,
//! the rule would say something else than what the patient signed.

use clinical_model::{
    Consent, ConsentAction, ConsentActor, ConsentId, ConsentStatus, DataClass, Measure, PatientId, Provision,
    Purpose, Ruling, Timestamp,
};
use serde_json::{Value, json};

use super::element::{cut, items, reference, shown, text};
use super::outcome::{IssueCode, OutcomeIssue};
use super::{period, system};

/// Roles in which an actor receives data; in any other role a rule would be about something else.
const RECIPIENT_ROLES: &[&str] = &["IRCP", "PRCP", "CST", "GRANTEE", "DELEGATEE", "CAREGIVER"];

/// Reads a Consent. It needs our id (the caller of a create draws one and puts it in first) and a patient of this site.
///
/// # Errors
/// All that is invalid or not supported, with where.
pub fn parse(resource: &Value) -> Result<Consent, Vec<OutcomeIssue>> {
    let issues = super::foreign::expect(resource, "Consent");
    if !issues.is_empty() {
        return Err(issues);
    }
    let mut reader = Reader::default();
    let consent = reader.consent(resource);
    match consent {
        Some(consent) if reader.issues.is_empty() => Ok(consent),
        _ => Err(reader.issues),
    }
}

#[derive(Default)]
struct Reader {
    issues: Vec<OutcomeIssue>,
}

impl Reader {
    fn refuse(&mut self, code: IssueCode, what: impl Into<String>, place: &str) {
        if self.issues.len() < super::validate::ISSUE_LIMIT {
            self.issues.push(OutcomeIssue::error(code, what, place));
        }
    }

    fn consent(&mut self, resource: &Value) -> Option<Consent> {
        for name in ["modifierExtension", "implicitRules"] {
            if resource.get(name).is_some() {
                let what =
                    "it carries a modifier that is not understood here, so that its meaning is not known";
                self.refuse(IssueCode::Extension, what, &format!("Consent.{name}"));
            }
        }
        self.scope(resource);
        let id: Option<ConsentId> = text(resource, "id").and_then(|id| id.parse().ok());
        if id.is_none() {
            self.refuse(IssueCode::Required, "a consent of this site has a UUID as its id", "Consent.id");
        }
        let patient: Option<PatientId> = text(&resource["patient"], "reference").and_then(patient_of);
        if patient.is_none() {
            let what = "a patient of this site is needed: Patient/ with a UUID";
            self.refuse(IssueCode::Required, what, "Consent.patient");
        }
        // Checked against the required codes already.
        let status = text(resource, "status").and_then(ConsentStatus::by_code)?;
        let dated_at = text(resource, "dateTime").and_then(period::span).map(|span| span.start);
        let base = self.base(resource);
        let provision = resource.get("provision").and_then(|root| self.root(root, base));
        if base.is_none() && provision.is_none() && status == ConsentStatus::Active {
            let what = "it says nothing that can be enforced: a provision with a type, or policyRule OPTIN or OPTOUT";
            self.refuse(IssueCode::Required, what, "Consent.provision");
        }
        Some(Consent { id: id?, patient: patient?, status, dated_at, base, provision })
    }

    fn scope(&mut self, resource: &Value) {
        let codings = items(&resource["scope"], "coding");
        let is = |code: &str| {
            codings.iter().any(|coding| coding["system"] == system::CONSENT_SCOPE && coding["code"] == code)
        };
        if !is("patient-privacy") && !is("research") {
            let what = "only consents about data are enforced here: scope patient-privacy or research";
            self.refuse(IssueCode::NotSupported, what, "Consent.scope");
        }
    }

    /// What `policyRule` says about everything that the provision does not touch.
    fn base(&mut self, resource: &Value) -> Option<Ruling> {
        let codings = items(&resource["policyRule"], "coding");
        codings.iter().filter(|coding| coding["system"] == system::ACT_CODE).find_map(|coding| {
            match text(coding, "code")? {
                "OPTIN" => Some(Ruling::Permit),
                "OPTOUT" => Some(Ruling::Deny),
                "OPTINR" | "OPTOUTE" => {
                    let what = "an opt-in with restrictions or an opt-out with exceptions is written as OPTIN or \
                                OPTOUT with a provision";
                    self.refuse(IssueCode::NotSupported, what, "Consent.policyRule");
                    None
                }
                _ => None,
            }
        })
    }

    /// The outermost rule. Without a type it is none of its own: it may frame exceptions in time, and what it says is
    /// what `policyRule` says.
    fn root(&mut self, root: &Value, base: Option<Ruling>) -> Option<Provision> {
        if root.get("type").is_some() {
            return self.provision(root, "Consent.provision");
        }
        let frames = ["period", "provision", "id"];
        let narrows =
            root.as_object().is_some_and(|all| all.keys().any(|key| !frames.contains(&key.as_str())));
        match base {
            Some(ruling) if !narrows => {
                let mut typed = root.clone();
                typed["type"] = json!(ruling.code());
                self.provision(&typed, "Consent.provision")
            }
            _ => {
                let what = "whether this permits or denies is not said: type is needed";
                self.refuse(IssueCode::Required, what, "Consent.provision.type");
                None
            }
        }
    }

    fn provision(&mut self, rule: &Value, place: &str) -> Option<Provision> {
        for (name, why) in [
            ("modifierExtension", "a modifier that is not understood here"),
            ("securityLabel", "rules by security label are not enforced here; name classes or codes"),
            ("data", "rules about single resources are not enforced here; name classes or codes"),
            (
                "dataPeriod",
                "rules about when data came to be are not enforced here; use period for when the rule holds",
            ),
        ] {
            if rule.get(name).is_some() {
                self.refuse(IssueCode::NotSupported, why, &format!("{place}.{name}"));
            }
        }
        let ruling = text(rule, "type").and_then(Ruling::by_code);
        if ruling.is_none() {
            self.refuse(IssueCode::Required, "an exception says permit or deny", &format!("{place}.type"));
        }
        let (from, until) = self.period(rule, place);
        let actors = self.each(rule, place, "actor", Reader::actor);
        let actions = self.each(rule, place, "action", Reader::action).into_iter().flatten().collect();
        let purposes = self.each(rule, place, "purpose", Reader::purpose);
        let classes = self.each(rule, place, "class", Reader::class).into_iter().flatten().collect();
        let measures = self.each(rule, place, "code", Reader::code).into_iter().flatten().collect();
        let except = self.each(rule, place, "provision", Reader::provision);
        Some(Provision { ruling: ruling?, from, until, actors, actions, purposes, classes, measures, except })
    }

    /// Reads each element of a list; what cannot be read is an issue, and then nothing of the resource is taken.
    fn each<T>(
        &mut self,
        rule: &Value,
        place: &str,
        name: &str,
        read: fn(&mut Self, &Value, &str) -> Option<T>,
    ) -> Vec<T> {
        let place = |at: usize| format!("{place}.{name}[{at}]");
        items(rule, name).iter().enumerate().filter_map(|(at, one)| read(self, one, &place(at))).collect()
    }

    fn period(&mut self, rule: &Value, place: &str) -> (Option<Timestamp>, Option<Timestamp>) {
        let given = &rule["period"];
        let mut read = |name: &str| {
            let span = text(given, name).map(period::span);
            if span == Some(None) {
                self.refuse(
                    IssueCode::Value,
                    "a time outside of what is accepted here",
                    &format!("{place}.period.{name}"),
                );
            }
            span.flatten()
        };
        let (from, until) = (read("start").map(|span| span.start), read("end").and_then(|span| span.end));
        if from.zip(until).is_some_and(|(from, until)| until <= from) {
            self.refuse(IssueCode::Value, "the period ends before it begins", &format!("{place}.period"));
        }
        (from, until)
    }

    fn actor(&mut self, actor: &Value, place: &str) -> Option<ConsentActor> {
        let role = items(&actor["role"], "coding").iter().find_map(|coding| text(coding, "code"));
        if role.is_none_or(|role| !RECIPIENT_ROLES.contains(&role)) {
            let what = format!(
                "only recipients of data are understood here: a role of {}",
                RECIPIENT_ROLES.join(", ")
            );
            self.refuse(IssueCode::NotSupported, what, &format!("{place}.role"));
            return None;
        }
        let found = actor_of(&actor["reference"]);
        if found.is_none() {
            let what = "to whom this applies is not understood: Practitioner/, RelatedPerson/, Patient/, Group/ or \
                        CareTeam/ (a ward) with a UUID of this site, or an identifier of a role, care team or program";
            self.refuse(IssueCode::NotSupported, what, &format!("{place}.reference"));
        }
        found
    }

    fn action(&mut self, action: &Value, place: &str) -> Option<Vec<ConsentAction>> {
        let codings = items(action, "coding");
        let code = codings.iter().find(|coding| coding["system"] == system::CONSENT_ACTION);
        let (code, why) = match code.and_then(|coding| text(coding, "code")) {
            Some("access" | "use") => return Some(vec![ConsentAction::Access]),
            Some("disclose") => return Some(vec![ConsentAction::Disclose]),
            Some("collect") => ("collect", ": a device stops collecting when its assignment is ended"),
            Some("correct") => ("correct", ": who puts the chart right is decided by role"),
            Some(other) => (other, ""),
            None => ("", ""),
        };
        let what = format!("the action \"{}\" is not enforced here{why}; access and disclose are", cut(code));
        self.refuse(IssueCode::NotSupported, what, place);
        None
    }

    fn purpose(&mut self, coding: &Value, place: &str) -> Option<Purpose> {
        let known = (coding["system"] == system::ACT_REASON).then(|| text(coding, "code")).flatten();
        let found = known.and_then(Purpose::by_code);
        if found.is_none() {
            let codes: Vec<&str> = Purpose::ALL.iter().map(|one| one.code()).collect();
            let what =
                format!("this purpose is not known here; {} of {} are", codes.join(", "), system::ACT_REASON);
            self.refuse(IssueCode::NotSupported, what, place);
        }
        found
    }

    fn class(&mut self, coding: &Value, place: &str) -> Option<Vec<DataClass>> {
        let code = text(coding, "code").unwrap_or("");
        let found = match text(coding, "system") {
            Some(system::DATA_CLASS) => DataClass::by_code(code).map(|class| vec![class]),
            Some(system::OBSERVATION_CATEGORY) => match code {
                "vital-signs" => Some(vec![DataClass::VitalSigns]),
                "laboratory" => Some(vec![DataClass::Glucose]),
                "activity" => Some(vec![DataClass::Activity]),
                "survey" => Some(vec![DataClass::Scores]),
                _ => None,
            },
            Some(system::RESOURCE_TYPES) => match code {
                "Patient" => Some(vec![DataClass::Record]),
                "Observation" => {
                    let measured = |class: &DataClass| *class != DataClass::Record;
                    Some(DataClass::ALL.iter().copied().filter(measured).collect())
                }
                _ => None,
            },
            _ => None,
        };
        if found.is_none() {
            let what = match code {
                "AuditEvent" | "Provenance" => {
                    "a consent cannot hide who saw or changed what: the audit log is not data to be shared"
                        .to_owned()
                }
                _ => format!(
                    "the class \"{}\" is not known here; those of {} are",
                    cut(code),
                    system::DATA_CLASS
                ),
            };
            self.refuse(IssueCode::NotSupported, what, place);
        }
        found
    }

    fn code(&mut self, concept: &Value, place: &str) -> Option<Vec<Measure>> {
        let found = items(concept, "coding").iter().find_map(|coding| {
            let code = text(coding, "code")?;
            let found = match text(coding, "system")? {
                system::LOINC => Measure::all_by_loinc(code),
                system::MDC => code.parse().ok().and_then(Measure::by_mdc).into_iter().collect(),
                system::MEASURE => Measure::by_name(code).into_iter().collect(),
                _ => Vec::new(),
            };
            (!found.is_empty()).then_some(found)
        });
        if found.is_none() {
            let what = "no measure of this site has this code; a rule about it could not be enforced";
            self.refuse(IssueCode::NotSupported, what, place);
        }
        found
    }
}

fn patient_of(target: &str) -> Option<PatientId> {
    target.strip_prefix("Patient/")?.parse().ok()
}

fn actor_of(given: &Value) -> Option<ConsentActor> {
    if let Some(target) = text(given, "reference") {
        let (kind, id) = target.split_once('/')?;
        return match kind {
            "Practitioner" => id.parse().ok().map(ConsentActor::Person),
            "RelatedPerson" => id.parse().ok().map(ConsentActor::Caregiver),
            "Patient" => id.parse().ok().map(ConsentActor::Patient),
            "Group" | "CareTeam" => id.parse().ok().map(ConsentActor::Ward),
            _ => None,
        };
    }
    let value = text(&given["identifier"], "value")?.to_owned();
    match text(&given["identifier"], "system")? {
        system::ROLE => Some(ConsentActor::Role(value)),
        system::CARE_TEAM => Some(ConsentActor::CareTeam(value)),
        system::PROGRAM => Some(ConsentActor::Program(value)),
        _ => None,
    }
}

/// Renders a consent that was written here. Who wrote it down is its performer.
pub fn render(consent: &Consent, performer: Option<&str>) -> Value {
    let mut rendered = json!({
        "resourceType": "Consent",
        "id": consent.id.to_string(),
        "status": consent.status.code(),
        "scope": { "coding": [shown(system::CONSENT_SCOPE, "patient-privacy", "Privacy Consent")] },
        "category": [{ "coding": [shown(system::ACT_CODE, "IDSCL", "information disclosure")] }],
        "patient": reference(&format!("Patient/{}", consent.patient), None),
        "policy": [{ "uri": system::CONSENT_POLICY }],
    });
    if let Some(at) = consent.dated_at {
        rendered["dateTime"] = json!(at.to_rfc3339());
    }
    if let Some(performer) = performer {
        rendered["performer"] = json!([reference(performer, None)]);
    }
    if let Some(base) = consent.base {
        let (code, display) = match base {
            Ruling::Permit => ("OPTIN", "opt-in"),
            Ruling::Deny => ("OPTOUT", "opt-out"),
        };
        rendered["policyRule"] = json!({ "coding": [shown(system::ACT_CODE, code, display)] });
    }
    if let Some(provision) = &consent.provision {
        rendered["provision"] = provision_of(provision);
    }
    rendered
}

fn provision_of(rule: &Provision) -> Value {
    let mut rendered = json!({ "type": rule.ruling.code() });
    let mut put = |name: &str, all: Vec<Value>| {
        if !all.is_empty() {
            rendered[name] = Value::Array(all);
        }
    };
    put("actor", rule.actors.iter().map(rendered_actor).collect());
    let coded = |system: &str, code: &str, display: &str| json!({ "coding": [shown(system, code, display)] });
    put("action", rule.actions.iter().map(|one| coded(system::CONSENT_ACTION, one.code(), "")).collect());
    put(
        "purpose",
        rule.purposes.iter().map(|one| shown(system::ACT_REASON, one.code(), one.display())).collect(),
    );
    put(
        "class",
        rule.classes.iter().map(|one| shown(system::DATA_CLASS, one.code(), one.display())).collect(),
    );
    put("code", rule.measures.iter().map(|one| coded(system::MEASURE, one.name, one.display)).collect());
    put("provision", rule.except.iter().map(provision_of).collect());
    let mut period = serde_json::Map::new();
    if let Some(from) = rule.from {
        period.insert("start".into(), json!(from.to_rfc3339()));
    }
    if let Some(until) = rule.until {
        // The end of a period is inside of it.
        period.insert("end".into(), json!(until.plus_micros(-1).to_rfc3339()));
    }
    if !period.is_empty() {
        rendered["period"] = Value::Object(period);
    }
    rendered
}

fn rendered_actor(actor: &ConsentActor) -> Value {
    let named = |system: &str, value: &str, kind: &str| json!({ "type": kind, "identifier": { "system": system, "value": value } });
    let target = match actor {
        ConsentActor::Person(id) => reference(&format!("Practitioner/{id}"), None),
        ConsentActor::Caregiver(id) => reference(&format!("RelatedPerson/{id}"), None),
        ConsentActor::Patient(id) => reference(&format!("Patient/{id}"), None),
        ConsentActor::Ward(id) => reference(&format!("Group/{id}"), None),
        ConsentActor::Role(name) => named(system::ROLE, name, "PractitionerRole"),
        ConsentActor::CareTeam(name) => named(system::CARE_TEAM, name, "CareTeam"),
        ConsentActor::Program(name) => named(system::PROGRAM, name, "Device"),
    };
    let role = shown(system::PARTICIPATION_TYPE, "IRCP", "information recipient");
    json!({ "role": { "coding": [role] }, "reference": target })
}

//! An entry of the audit log as a FHIR R4 AuditEvent, after the IHE Basic Audit Log Patterns.

use base64::Engine as _;
use clinical_model::{PatientId, Timestamp};
use serde_json::{Map, Value, json};

use super::element::shown;
use super::observation::put_list;
use super::system;

/// What was done to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditAction {
    /// Create.
    Create,
    /// Read.
    Read,
    /// Update.
    Update,
    /// Delete.
    Delete,
    /// Execute: a search, a sign-in, an export.
    Execute,
}

impl AuditAction {
    /// The code in FHIR: C, R, U, D, E.
    pub const fn code(self) -> &'static str {
        match self {
            AuditAction::Create => "C",
            AuditAction::Read => "R",
            AuditAction::Update => "U",
            AuditAction::Delete => "D",
            AuditAction::Execute => "E",
        }
    }

    /// The action of that code.
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Create, Self::Read, Self::Update, Self::Delete, Self::Execute]
            .into_iter()
            .find(|action| action.code() == code)
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It succeeded.
    Success,
    /// The caller was refused or asked for what cannot be.
    MinorFailure,
    /// The system failed.
    SeriousFailure,
    /// The system failed and stopped.
    MajorFailure,
}

impl AuditOutcome {
    /// The outcome of that code.
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Success, Self::MinorFailure, Self::SeriousFailure, Self::MajorFailure]
            .into_iter()
            .find(|outcome| outcome.code() == code)
    }

    /// The code in FHIR: 0, 4, 8, 12.
    pub const fn code(self) -> &'static str {
        match self {
            AuditOutcome::Success => "0",
            AuditOutcome::MinorFailure => "4",
            AuditOutcome::SeriousFailure => "8",
            AuditOutcome::MajorFailure => "12",
        }
    }
}

/// A code with its system and what a person reads; an empty display is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCoding {
    /// Address of the code system.
    pub system: String,
    /// The code.
    pub code: String,
    /// What a person reads.
    pub display: String,
}

impl AuditCoding {
    /// From its parts.
    pub fn new(system: impl Into<String>, code: impl Into<String>, display: impl Into<String>) -> Self {
        AuditCoding { system: system.into(), code: code.into(), display: display.into() }
    }

    /// The event type of every RESTful interaction.
    pub fn rest() -> Self {
        Self::new(system::AUDIT_EVENT_TYPE, "rest", "RESTful Operation")
    }

    /// A RESTful interaction as a subtype: `read`, `create`, `search-type`, `transaction`, `operation` …
    pub fn interaction(code: &str) -> Self {
        Self::new(system::RESTFUL_INTERACTION, code, code)
    }

    /// A DICOM event type: 110114 User Authentication, 110106 Export, 110113 Security Alert …
    pub fn dicom(code: &str, display: &str) -> Self {
        Self::new(system::DICOM, code, display)
    }

    /// One of our own subtypes.
    pub fn own(code: &str, display: &str) -> Self {
        Self::new(system::AUDIT_SUBTYPE, code, display)
    }

    /// A person who got the information (HL7 v3 ParticipationType).
    pub fn recipient() -> Self {
        Self::new(system::PARTICIPATION_TYPE, "IRCP", "information recipient")
    }

    /// A purpose of use (HL7 v3 ActReason).
    pub fn purpose(code: &str) -> Self {
        Self::new(system::ACT_REASON, code, "")
    }

    /// A thing that is neither a person nor a resource of ours.
    pub fn other() -> Self {
        Self::new(system::AUDIT_ENTITY_TYPE, "4", "Other")
    }

    fn render(&self) -> Value {
        shown(&self.system, &self.code, &self.display)
    }
}

/// Who took part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditAgent {
    /// `Device/…`, `Patient/…`, `Practitioner/…`; may be absent where there is a display.
    pub reference: Option<String>,
    /// What people call them.
    pub display: Option<String>,
    /// Our id of the person or program that signed in.
    pub alt_id: Option<String>,
    /// Kind of participation, e.g. DICOM 110153 Source Role ID.
    pub kind: Option<AuditCoding>,
    /// Role under which they acted: `nurse`.
    pub role: Option<String>,
    /// Whether they asked for it.
    pub requestor: bool,
    /// Address of their machine.
    pub network_address: Option<String>,
}

/// What it was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEntity {
    /// `Patient/…`, `Observation/…`.
    pub reference: Option<String>,
    /// What people call it, where it has no address.
    pub display: Option<String>,
    /// Kind of thing (audit-entity-type).
    pub kind: Option<AuditCoding>,
    /// Role of the thing (object-role).
    pub role: Option<AuditCoding>,
    /// Its name; left out where there is a query (sev-1).
    pub name: Option<String>,
    /// A sentence about it.
    pub description: Option<String>,
    /// The query as it was sent; written as base64.
    pub query: Option<Vec<u8>>,
    /// Further facts: count, hash, group number.
    pub details: Vec<(String, String)>,
}

impl AuditEntity {
    /// The patient whose data it was.
    pub fn patient(id: PatientId) -> Self {
        AuditEntity {
            reference: Some(format!("Patient/{id}")),
            kind: Some(AuditCoding::new(system::AUDIT_ENTITY_TYPE, "1", "Person")),
            role: Some(AuditCoding::new(system::OBJECT_ROLE, "1", "Patient")),
            ..AuditEntity::default()
        }
    }

    /// A resource that was read or written.
    pub fn resource(reference: impl Into<String>) -> Self {
        AuditEntity {
            reference: Some(reference.into()),
            kind: Some(AuditCoding::new(system::AUDIT_ENTITY_TYPE, "2", "System Object")),
            role: Some(AuditCoding::new(system::OBJECT_ROLE, "4", "Domain Resource")),
            ..AuditEntity::default()
        }
    }

    /// The query of a search.
    pub fn query(query: impl Into<Vec<u8>>) -> Self {
        AuditEntity {
            kind: Some(AuditCoding::new(system::AUDIT_ENTITY_TYPE, "2", "System Object")),
            role: Some(AuditCoding::new(system::OBJECT_ROLE, "24", "Query")),
            query: Some(query.into()),
            ..AuditEntity::default()
        }
    }

    /// A committed group of readings, in summary.
    pub fn group(group: u64, readings: u64, hash_hex: &str) -> Self {
        AuditEntity {
            kind: Some(AuditCoding::new(system::AUDIT_ENTITY_TYPE, "2", "System Object")),
            role: Some(AuditCoding::new(system::OBJECT_ROLE, "4", "Domain Resource")),
            description: Some("a committed group of readings".into()),
            details: vec![
                ("group".into(), group.to_string()),
                ("readings".into(), readings.to_string()),
                ("sha-256".into(), hash_hex.to_owned()),
            ],
            ..AuditEntity::default()
        }
    }
}

/// What an AuditEvent is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditInput {
    /// The address under `AuditEvent/`.
    pub id: String,
    /// Name of the Basic Audit Log Pattern that it fulfils: `PatientRead`.
    pub profile: Option<&'static str>,
    /// When it was recorded.
    pub recorded: Timestamp,
    /// Kind of event.
    pub event_type: AuditCoding,
    /// Kinds below that.
    pub subtypes: Vec<AuditCoding>,
    /// What was done to the data.
    pub action: AuditAction,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Why it did not succeed, or a remark.
    pub outcome_description: Option<String>,
    /// Purposes of use that were claimed (`http://terminology.hl7.org/CodeSystem/v3-ActReason`).
    pub purposes: Vec<AuditCoding>,
    /// Who took part. With none, FHIR still demands one: the system itself stands in.
    pub agents: Vec<AuditAgent>,
    /// What it was about.
    pub entities: Vec<AuditEntity>,
}

/// What the addresses of the IHE Basic Audit Log Patterns begin with.
const BALP: &str = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.";
/// The name of the system in AuditEvents.
const SOURCE_DISPLAY: &str = "Auscult";

/// Renders an AuditEvent.
pub fn render(input: &AuditInput) -> Value {
    let agents: Vec<Value> = if input.agents.is_empty() {
        vec![json!({ "who": { "display": SOURCE_DISPLAY }, "requestor": true })]
    } else {
        input.agents.iter().map(agent).collect()
    };
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| event.insert(name.into(), value);
    put("resourceType", json!("AuditEvent"));
    put("id", json!(input.id));
    if let Some(profile) = input.profile {
        put("meta", json!({ "profile": [format!("{BALP}{profile}")] }));
    }
    put("type", input.event_type.render());
    put("action", json!(input.action.code()));
    put("recorded", json!(input.recorded.to_rfc3339()));
    put("outcome", json!(input.outcome.code()));
    put("agent", Value::Array(agents));
    put(
        "source",
        json!({
            "observer": { "display": SOURCE_DISPLAY },
            "type": [shown(system::SECURITY_SOURCE_TYPE, "4", "Application Server")],
        }),
    );
    put_text(&mut event, "outcomeDesc", input.outcome_description.as_deref());
    put_list(&mut event, "subtype", input.subtypes.iter().map(AuditCoding::render).collect());
    let purposes = input.purposes.iter().map(|purpose| json!({ "coding": [purpose.render()] })).collect();
    put_list(&mut event, "purposeOfEvent", purposes);
    put_list(&mut event, "entity", input.entities.iter().map(entity).collect());
    Value::Object(event)
}

fn put_text(fields: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
        fields.insert(name.into(), json!(text));
    }
}

fn agent(agent: &AuditAgent) -> Value {
    let mut who = Map::new();
    put_text(&mut who, "reference", agent.reference.as_deref());
    put_text(&mut who, "display", agent.display.as_deref());
    let mut fields = Map::new();
    fields.insert("requestor".into(), json!(agent.requestor));
    if !who.is_empty() {
        fields.insert("who".into(), Value::Object(who));
    }
    put_text(&mut fields, "altId", agent.alt_id.as_deref());
    if let Some(kind) = &agent.kind {
        fields.insert("type".into(), json!({ "coding": [kind.render()] }));
    }
    if let Some(role) = agent.role.as_deref().filter(|role| !role.trim().is_empty()) {
        fields.insert("role".into(), json!([{ "text": role }]));
    }
    if let Some(address) = agent.network_address.as_deref().filter(|address| !address.trim().is_empty()) {
        // 1: the name of a machine, 2: an IP address.
        let is_dotted = address.split('.').filter(|part| part.parse::<u8>().is_ok()).count() == 4;
        let kind = if is_dotted || address.contains(':') { "2" } else { "1" };
        fields.insert("network".into(), json!({ "address": address, "type": kind }));
    }
    Value::Object(fields)
}

fn entity(entity: &AuditEntity) -> Value {
    let mut fields = Map::new();
    let mut what = Map::new();
    put_text(&mut what, "reference", entity.reference.as_deref());
    put_text(&mut what, "display", entity.display.as_deref());
    if !what.is_empty() {
        fields.insert("what".into(), Value::Object(what));
    }
    for (name, coding) in [("type", &entity.kind), ("role", &entity.role)] {
        if let Some(coding) = coding {
            fields.insert(name.into(), coding.render());
        }
    }
    match entity.query.as_deref().filter(|query| !query.is_empty()) {
        Some(query) => {
            let packed = base64::engine::general_purpose::STANDARD.encode(query);
            fields.insert("query".into(), json!(packed));
        }
        None => put_text(&mut fields, "name", entity.name.as_deref()),
    }
    put_text(&mut fields, "description", entity.description.as_deref());
    let sound =
        entity.details.iter().filter(|(kind, value)| !kind.trim().is_empty() && !value.trim().is_empty());
    let details = sound.map(|(kind, value)| json!({ "type": kind, "valueString": value })).collect();
    put_list(&mut fields, "detail", details);
    if fields.is_empty() {
        fields.insert("description".into(), json!("not further described"));
    }
    Value::Object(fields)
}

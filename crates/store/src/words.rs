//! The words of the [`crate::Store`] trait: what goes in and what comes out.

use clinical_model::{
    AlertId, Committed, DeviceId, Fact, Frame, Measure, PatientId, QuarantineId, QuarantineItem, Reading,
    Subject, Timestamp, UserId, Value,
};
use trust::log::check::Report;

/// One frame with what came of it, ready to be committed.
#[derive(Clone, Debug)]
pub struct FrameRecord {
    /// The exact bytes with sender and time.
    pub frame: Frame,
    /// What validation believed.
    pub facts: Vec<Fact>,
    /// What is quarantined; the id is derived from sender and bytes, so that a repeat is harmless.
    pub quarantined: Vec<QuarantineItem>,
    /// Items of the quarantine that this frame, run again, releases: they are marked in the same commit.
    pub released: Vec<(QuarantineId, UserId)>,
}

/// What [`crate::Store::append`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Number of the committed group.
    pub group: u64,
    /// When it was committed.
    pub committed_at: Timestamp,
}

impl Appended {
    /// Marks as committed something that was part of the group that this call committed.
    pub fn committed<T>(&self, inner: T) -> Committed<T> {
        Committed::restored(inner, self.committed_at, self.group)
    }
}

/// A committed group, read back by a consumer.
#[derive(Clone, Debug)]
pub struct StoredGroup {
    /// Its number.
    pub group: u64,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Its frames, in order (raw bytes left out: `frame.bytes` is empty).
    pub frames: Vec<FrameRecord>,
}

/// The audit record of one committed group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its number.
    pub group: u64,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// For each device in it: frames, facts, quarantined entries, and SHA-256 over its frames' bytes in order.
    pub sources: Vec<(DeviceId, u32, u32, u32, [u8; 32])>,
}

/// What [`crate::Store::fold`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Journal rows folded and removed.
    pub groups: u64,
    /// Readings in them.
    pub readings: u64,
    /// Repeats among them that were already kept.
    pub repeats: u64,
    /// Blocks written.
    pub blocks: u64,
}

/// Which series to list.
#[derive(Clone, Debug, Default)]
pub struct SeriesFilter {
    /// Of one subject.
    pub subject: Option<Subject>,
    /// Of one device.
    pub device: Option<DeviceId>,
    /// Of these measures; empty means any.
    pub measures: Vec<Measure>,
}

/// Direction of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// A range of measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// First instant inside.
    pub from: Timestamp,
    /// First instant no longer inside.
    pub to: Timestamp,
    /// Direction.
    pub order: Order,
    /// At most so many rows.
    pub limit: usize,
}

/// One reading without its series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When it was measured.
    pub at: Timestamp,
    /// Its sequence.
    pub sequence: u32,
    /// The value in the unit of the series, or why there is none.
    pub value: Value,
    /// When it was committed.
    pub committed_at: Timestamp,
}

impl Point {
    /// The point of a reading.
    pub fn of(reading: &Committed<Reading>) -> Self {
        Point {
            at: reading.measured_at(),
            sequence: reading.sequence(),
            value: reading.value(),
            committed_at: reading.committed_at(),
        }
    }
}

/// A frame as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFrame {
    /// The exact bytes with sender and time.
    pub frame: Frame,
    /// When it was committed.
    pub committed_at: Timestamp,
}

/// Whose key seals a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyDomain {
    /// The patient's own key: destroying it erases the document.
    Patient(PatientId),
    /// A key of the system.
    System,
}

/// Kinds of documents. The numbers are part of the storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A FHIR R4 Patient.
    Patient = 1,
    /// A FHIR R4 Device with our extensions.
    Device = 2,
    /// A place.
    Place = 3,
    /// An assignment.
    Assignment = 4,
    /// An alert.
    Alert = 5,
    /// Alert limits of a patient.
    AlertLimits = 6,
    /// A person or program that signs in.
    User = 7,
    /// A session.
    Session = 8,
    /// The outcome of a request with an idempotency key.
    IdempotentRequest = 9,
    /// A setting of the site.
    Setting = 10,
    /// A correction of charted observations.
    Correction = 11,
    /// The identifier under which somebody else posted a resource.
    ResourceIdentifier = 12,
    /// What a transaction of several writes is about to do.
    PendingTransaction = 13,
    /// A FHIR R4 Consent.
    Consent = 14,
    /// A glass that somebody broke, and the review of it.
    BreakGlass = 15,
    /// What is known of a device's certificates: the code it is claimed with, what was issued to it, what waits for a
    /// person.
    Enrolment = 20,
    /// For how long each class is kept.
    RetentionPolicy = 30,
    /// A hold on a patient's record: nothing of it may go.
    LegalHold = 31,
    /// An erasure, with its certificate.
    Erasure = 32,
    /// A program that people let in, or that acts by itself: its registration.
    Client = 40,
    /// What a program was let in for, with the hashes of its tokens.
    Grant = 41,
    /// A signed assertion that was used, and must not be used again.
    SpentAssertion = 42,
    /// A provider from whom people may come to sign in.
    IdentityProvider = 43,
}

/// A document with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: [u8; 16],
    /// Counted from 1.
    pub version: u64,
    /// When this version was written.
    pub updated_at: Timestamp,
    /// The content (JSON).
    pub body: Vec<u8>,
    /// The index value by which [`crate::Store::documents`] found it; empty from [`crate::Store::document`].
    pub index_value: Vec<u8>,
}

/// What must be true of the document before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    Any,
    /// It does not exist.
    Absent,
    /// It has exactly this version.
    Version(u64),
}

/// One row by which a document can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Name of the index: `ward`, `state-time`, `record-number`.
    pub name: &'static str,
    /// Sortable bytes; nothing that identifies a person (use [`crate::Store::blind`]).
    pub value: Vec<u8>,
    /// Whether another document of the kind may have the same value.
    pub unique: bool,
}

/// One document to write, or to remove.
#[derive(Clone, Debug)]
pub struct DocumentWrite {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: [u8; 16],
    /// What must be true before.
    pub expected: Expected,
    /// Whose key seals it.
    pub domain: KeyDomain,
    /// The new content; `None` removes it.
    pub body: Option<Vec<u8>>,
    /// All its index rows; they replace those it had.
    pub index: Vec<IndexEntry>,
}

impl DocumentWrite {
    /// Removes a document of the system, whatever it says.
    pub const fn removal(kind: Kind, id: [u8; 16]) -> Self {
        DocumentWrite {
            kind,
            id,
            expected: Expected::Any,
            domain: KeyDomain::System,
            body: None,
            index: Vec::new(),
        }
    }
}

/// A page of documents in the order of an index.
#[derive(Clone, Debug)]
pub struct DocumentQuery {
    /// The kind.
    pub kind: Kind,
    /// The index.
    pub index: &'static str,
    /// Only values that begin with these bytes.
    pub prefix: Vec<u8>,
    /// Strictly after (or, descending, before) this (value, id).
    pub after: Option<(Vec<u8>, [u8; 16])>,
    /// Direction.
    pub order: Order,
    /// At most so many.
    pub limit: usize,
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A person.
    User(UserId),
    /// A device, by certificate.
    Device(DeviceId),
    /// A program, by certificate or account; its name.
    Program(String),
    /// Auscult itself.
    System,
    /// Somebody who did not prove who they are; the name they claimed.
    Unproven(String),
}

/// What was done. The numbers are part of the storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AuditAction {
    /// Something was created.
    Create = 1,
    /// Something was read.
    Read = 2,
    /// Something was changed.
    Update = 3,
    /// Something was removed.
    Delete = 4,
    /// A search or a list.
    Search = 5,
    /// A live stream was opened.
    Stream = 6,
    /// A sign-in.
    SignIn = 7,
    /// A sign-out or the end of a session.
    SignOut = 8,
    /// A device was assigned, or an assignment was ended.
    Assign = 9,
    /// An alert was acknowledged or resolved.
    Answer = 10,
    /// Something was run again from quarantine, or set aside.
    Quarantine = 11,
    /// First start, backup, restore, keys.
    Administer = 12,
    /// A glass was broken: data were opened against the rule, for a reason.
    BreakGlass = 13,
    /// A consent was given, changed or withdrawn.
    Consent = 14,
    /// Data left the system in bulk.
    Export = 15,
    /// Something was erased for good.
    Erase = 16,
    /// Keys were made, turned over or destroyed.
    Keys = 17,
    /// Policies or roles were changed.
    Policy = 18,
}

impl AuditAction {
    /// All of them, by their numbers.
    pub const ALL: [AuditAction; 18] = [
        AuditAction::Create,
        AuditAction::Read,
        AuditAction::Update,
        AuditAction::Delete,
        AuditAction::Search,
        AuditAction::Stream,
        AuditAction::SignIn,
        AuditAction::SignOut,
        AuditAction::Assign,
        AuditAction::Answer,
        AuditAction::Quarantine,
        AuditAction::Administer,
        AuditAction::BreakGlass,
        AuditAction::Consent,
        AuditAction::Export,
        AuditAction::Erase,
        AuditAction::Keys,
        AuditAction::Policy,
    ];
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AuditOutcome {
    /// Done.
    Success = 0,
    /// Refused.
    Refused = 4,
    /// Failed.
    Failed = 8,
}

impl AuditOutcome {
    /// All of them, by their numbers.
    pub const ALL: [AuditOutcome; 3] = [AuditOutcome::Success, AuditOutcome::Refused, AuditOutcome::Failed];
}

/// One act to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: AuditAction,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// About which patient.
    pub patient: Option<PatientId>,
    /// About which device.
    pub device: Option<DeviceId>,
    /// About which alert.
    pub alert: Option<AlertId>,
    /// In the field's words: `Patient`, `Observation`, `ward board`, `session`.
    pub object: String,
    /// What else must be known (a query, a reason); sealed, at most 4096 bytes.
    pub detail: String,
    /// For what purpose of use (a code of HL7 v3 ActReason: `TREAT`, `ETREAT`, `HRESCH`).
    pub purpose: Option<String>,
    /// Under which broken glass.
    pub break_glass: Option<[u8; 16]>,
    /// Which policies decided.
    pub policies: Vec<String>,
    /// Under which role they acted.
    pub role: Option<String>,
    /// From which network address.
    pub address: Option<String>,
}

impl AuditRecord {
    /// A record of an act that succeeded, about nobody in particular.
    pub fn new(at: Timestamp, actor: Actor, action: AuditAction, object: impl Into<String>) -> Self {
        AuditRecord {
            at,
            actor,
            action,
            outcome: AuditOutcome::Success,
            patient: None,
            device: None,
            alert: None,
            object: object.into(),
            detail: String::new(),
            purpose: None,
            break_glass: None,
            policies: Vec::new(),
            role: None,
            address: None,
        }
    }
}

/// Object of the rows that the system writes from time to time, so that an end that was cut off shows.
pub const HEARTBEAT: &str = "Heartbeat";

/// An audit row as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place in the log, counted from 1 without gaps.
    pub sequence: u64,
    /// The act.
    pub record: AuditRecord,
    /// Its leaf in the tree of the log.
    pub leaf: [u8; 32],
}

/// A page of the audit log, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only about this patient.
    pub patient: Option<PatientId>,
    /// Only by this actor.
    pub actor: Option<Actor>,
    /// Only about this device.
    pub device: Option<DeviceId>,
    /// Only these actions; empty means any.
    pub actions: Vec<AuditAction>,
    /// Only with this outcome.
    pub outcome: Option<AuditOutcome>,
    /// Only acts under a broken glass.
    pub break_glass: bool,
    /// Leave out the system's [`HEARTBEAT`] rows.
    pub without_heartbeats: bool,
    /// Only from this instant on.
    pub from: Option<Timestamp>,
    /// Only before this instant.
    pub to: Option<Timestamp>,
    /// Only sequences below this.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// All or nothing.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// When.
    pub at: Timestamp,
    /// Documents to write.
    pub writes: Vec<DocumentWrite>,
    /// Quarantined items whose state changes: new state.
    pub quarantine: Vec<QuarantineItem>,
    /// Audit rows.
    pub audit: Vec<AuditRecord>,
    /// Progress of a consumer: (name, group).
    pub cursor: Option<(&'static str, u64)>,
    /// Only while this holder has this lease: (name, holder). Checked in the same transaction, so that a holder who
    /// was away too long changes nothing.
    pub lease: Option<(&'static str, [u8; 16])>,
}

/// How far somebody has seen what was committed; see [`crate::Store::wait_for_news`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The last committed group.
    pub group: u64,
    /// The last change of a document.
    pub change: u64,
}

impl News {
    /// Whether anything in it is later than what was seen.
    pub fn is_later_than(self, seen: News) -> bool {
        self.group > seen.group || self.change > seen.change
    }
}

/// That a document was written or removed, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentChange {
    /// Its number, counted from 1 in the order of the commits, without gaps.
    pub change: u64,
    /// Kind of the document.
    pub kind: Kind,
    /// Its id.
    pub id: [u8; 16],
    /// The version that was written; of a removed one the last that it had.
    pub version: u64,
    /// Whether it was removed.
    pub removed: bool,
}

/// How much is waiting in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineCount {
    /// Items.
    pub items: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What a backup holds, or what a restore proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// File name, bytes, SHA-256 in hex.
    pub files: Vec<(String, u64, String)>,
    /// What is counted, and how many.
    pub counts: Vec<(String, u64)>,
    /// The last committed group.
    pub last_group: u64,
    /// The last audit sequence.
    pub last_audit: u64,
}

/// One damage that verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyFinding {
    /// Which file, table and row.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

/// What verification read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Rows and blocks that were opened.
    pub opened: u64,
    /// Readings in them.
    pub readings: u64,
    /// Damage, of the logs too.
    pub findings: Vec<VerifyFinding>,
    /// What was read of each log.
    pub logs: Vec<Report>,
}

//! Audit rows: a place in the log without gaps, plain columns that name nobody, the rest sealed, and a leaf for the log.

use clinical_model::{AlertId, DeviceId, PatientId, RecordId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use trust::Aad;

use super::SqlStore;
use super::keys::{Domain, Purpose};
use crate::StoreError;
use crate::sql::{Backend, DbError, Row, Session, Value, read, values};
use crate::words::{Actor, AuditAction, AuditOutcome, AuditRecord, AuditRow, HEARTBEAT};

const DOING: &str = "writing audit rows";
/// Longest detail that is kept, in bytes: a query or a reason, not a document.
const DETAIL_LIMIT_BYTES: usize = 4_096;
/// Longest name of a program, or name that somebody claimed, in bytes.
const NAME_LIMIT_BYTES: usize = 256;
/// Most policies that are kept of one decision.
const POLICIES_LIMIT: usize = 32;
/// In the column of flags: the act was done under a broken glass.
pub(super) const FLAG_BREAK_GLASS: u8 = 1;
/// In the column of flags: a row that the system writes from time to time.
pub(super) const FLAG_HEARTBEAT: u8 = 2;
/// Stands in for what can no longer be read after a patient's key was destroyed.
const ERASED: &str = "(erased)";

const USER: u8 = 1;
const DEVICE: u8 = 2;
const PROGRAM: u8 = 3;
const SYSTEM: u8 = 4;
const UNPROVEN: u8 = 5;

/// What is sealed of an audit row. Keys are part of the storage format.
#[derive(Serialize, Deserialize)]
struct Payload {
    /// Name of a program, or name that somebody claimed.
    name: Option<String>,
    patient: Option<PatientId>,
    device: Option<DeviceId>,
    alert: Option<AlertId>,
    object: String,
    detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    break_glass: Option<BreakGlassId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    policies: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

/// An id as text in the payload.
#[derive(Clone, Copy)]
struct BreakGlassId([u8; 16]);

impl Serialize for BreakGlassId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&uuid::Uuid::from_bytes(self.0))
    }
}

impl<'de> Deserialize<'de> for BreakGlassId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = text.parse::<uuid::Uuid>().map_err(serde::de::Error::custom)?;
        Ok(BreakGlassId(id.into_bytes()))
    }
}

/// The plain columns of a row.
pub(super) struct Plain {
    pub(super) sequence: u64,
    pub(super) at: i64,
    pub(super) action: u8,
    pub(super) outcome: u8,
    pub(super) patient: Option<[u8; 16]>,
    pub(super) device: Option<[u8; 16]>,
    pub(super) actor: Vec<u8>,
    /// `None` in rows that were written before there were flags.
    pub(super) flags: Option<u8>,
    pub(super) sealed: Vec<u8>,
    pub(super) leaf: [u8; 32],
}

pub(super) const COLUMNS: &str = "sequence, at, action, outcome, patient, device, actor, flags, sealed, leaf";

impl Plain {
    /// From [`COLUMNS`].
    pub(super) fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Plain {
            sequence: row.get(0)?,
            at: row.get(1)?,
            action: row.get(2)?,
            outcome: row.get(3)?,
            patient: row.get(4)?,
            device: row.get(5)?,
            actor: row.get(6)?,
            flags: row.get(7)?,
            sealed: row.get(8)?,
            leaf: row.get(9)?,
        })
    }

    /// In the order of [`COLUMNS`].
    fn values(&self) -> Vec<Value<'_>> {
        let plain = values![self.sequence, self.at, self.action, self.outcome, self.patient, self.device];
        [&plain[..], &values![&self.actor, self.flags, &self.sealed, &self.leaf]].concat()
    }

    /// What the leaf commits to openly: every plain column. It names nobody; ids are random.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut header = self.sequence.to_be_bytes().to_vec();
        header.extend_from_slice(&self.at.to_be_bytes());
        header.push(self.action);
        header.push(self.outcome);
        if let Some(flags) = self.flags {
            header.push(flags);
            for id in [self.patient, self.device] {
                header.push(u8::from(id.is_some()));
                header.extend_from_slice(&id.unwrap_or_default());
            }
        }
        header.extend_from_slice(&self.actor);
        header
    }

    /// Whether the content was removed, and not only made unreadable.
    pub(super) fn is_blank(&self) -> bool {
        self.sealed.is_empty()
    }
}

pub(super) fn place(sequence: &[u8; 8]) -> Aad<'_> {
    Aad { table: "audit", row: sequence, column: "record" }
}

impl<B: Backend> SqlStore<B> {
    /// Appends rows to the log, inside the caller's transaction.
    pub(super) fn write_audit(
        &self,
        session: &B::Session,
        records: &[AuditRecord],
    ) -> Result<(), StoreError> {
        #[cfg(feature = "bench-off")]
        if trust::bench_off::is_off(trust::bench_off::Part::Audit) {
            return Ok(());
        }
        if records.is_empty() {
            return Ok(());
        }
        let last: u64 =
            session.one("SELECT coalesce(max(sequence), 0) FROM audit", &[]).map_err(read(DOING))?;
        let sealed = (last + 1..).zip(records).map(|(sequence, record)| self.seal_audit(sequence, record));
        let sealed = sealed.collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<_> = sealed.iter().map(Plain::values).collect();
        session
            .execute_each(
                "INSERT INTO audit(sequence, at, action, outcome, patient, device, actor, flags, sealed, leaf)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                &rows,
            )
            .map(drop)
            .map_err(self.wrote(DOING))
    }

    fn seal_audit(&self, sequence: u64, record: &AuditRecord) -> Result<Plain, StoreError> {
        let name = match &record.actor {
            Actor::Program(name) | Actor::Unproven(name) => Some(cut(name, NAME_LIMIT_BYTES)),
            Actor::User(_) | Actor::Device(_) | Actor::System => None,
        };
        let payload = Payload {
            name,
            patient: record.patient,
            device: record.device,
            alert: record.alert,
            object: cut(&record.object, NAME_LIMIT_BYTES),
            detail: cut(&record.detail, DETAIL_LIMIT_BYTES),
            purpose: record.purpose.as_deref().map(|purpose| cut(purpose, NAME_LIMIT_BYTES)),
            break_glass: record.break_glass.map(BreakGlassId),
            policies: record
                .policies
                .iter()
                .take(POLICIES_LIMIT)
                .map(|policy| cut(policy, NAME_LIMIT_BYTES))
                .collect(),
            role: record.role.as_deref().map(|role| cut(role, NAME_LIMIT_BYTES)),
            address: record.address.as_deref().map(|address| cut(address, NAME_LIMIT_BYTES)),
        };
        let is_heartbeat = record.actor == Actor::System && record.object == HEARTBEAT;
        let flags = u8::from(record.break_glass.is_some()) * FLAG_BREAK_GLASS
            + u8::from(is_heartbeat) * FLAG_HEARTBEAT;
        let json = serde_json::to_vec(&payload).map_err(|error| StoreError::Damaged {
            what: format!("audit row {sequence}"),
            how: error.to_string(),
        })?;
        let blinding = trust::audit::new_blinding();
        let mut plain = blinding.to_vec();
        plain.extend_from_slice(&json);
        // Under the patient's key where there is one; a question about somebody unknown must not make keys.
        let key = match record.patient {
            Some(patient) => self.keys.existing(Domain::Patient(patient))?,
            None => None,
        };
        let key = match key {
            Some(key) => key,
            None => self.keys.sealing(Domain::System(Purpose::Audit), record.at)?,
        };
        let mut row = Plain {
            sequence,
            at: record.at.as_micros(),
            action: record.action as u8,
            outcome: record.outcome as u8,
            patient: record.patient.map(RecordId::to_bytes),
            device: record.device.map(RecordId::to_bytes),
            actor: self.actor_bytes(&record.actor),
            flags: Some(flags),
            sealed: key.seal(place(&sequence.to_be_bytes()), &plain),
            leaf: [0; 32],
        };
        row.leaf = trust::audit::leaf(&row.header(), &blinding, &json);
        Ok(row)
    }

    /// A kind, and an id or the blind index of a name.
    pub(super) fn actor_bytes(&self, actor: &Actor) -> Vec<u8> {
        let (kind, id) = match actor {
            Actor::User(user) => (USER, user.to_bytes()),
            Actor::Device(device) => (DEVICE, device.to_bytes()),
            Actor::Program(name) => (PROGRAM, self.blind.index("audit actor", &cut(name, NAME_LIMIT_BYTES))),
            Actor::System => (SYSTEM, [0; 16]),
            Actor::Unproven(name) => {
                (UNPROVEN, self.blind.index("audit actor", &cut(name, NAME_LIMIT_BYTES)))
            }
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&id);
        bytes
    }

    /// A row, or what still stands of it once its patient was erased.
    pub(super) fn open_or_erased(&self, row: &Plain) -> Result<AuditRow, StoreError> {
        match self.open_audit(row) {
            Err(StoreError::KeyGone { .. }) => erased(row),
            other => other,
        }
    }

    /// The blinding and the committed payload of a row.
    pub(super) fn open_payload(&self, row: &Plain) -> Result<([u8; 32], Vec<u8>), StoreError> {
        let what = || format!("audit row {}", row.sequence);
        if row.is_blank() {
            return Err(StoreError::KeyGone { whose: what() });
        }
        let plain = self.keys.open_sealed(place(&row.sequence.to_be_bytes()), &row.sealed, &what)?;
        let Some((blinding, json)) = plain.split_first_chunk::<32>() else {
            return Err(StoreError::Damaged { what: what(), how: "it ends too early".to_owned() });
        };
        Ok((*blinding, json.to_vec()))
    }

    /// Opens a row and proves that its leaf and its plain columns are those that were written.
    pub(super) fn open_audit(&self, row: &Plain) -> Result<AuditRow, StoreError> {
        self.read_audit(row, &self.open_payload(row)?)
    }

    /// What an opened row says; the same proofs.
    pub(super) fn read_audit(
        &self,
        row: &Plain,
        (blinding, json): &([u8; 32], Vec<u8>),
    ) -> Result<AuditRow, StoreError> {
        let what = || format!("audit row {}", row.sequence);
        let damaged = |how: &str| StoreError::Damaged { what: what(), how: how.to_owned() };
        if trust::audit::leaf(&row.header(), blinding, json) != row.leaf {
            return Err(damaged("its leaf does not match its content"));
        }
        let payload: Payload = serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;
        if payload.patient.map(RecordId::to_bytes) != row.patient {
            return Err(damaged("the patient beside it is another"));
        }
        if row.flags.is_some() && payload.device.map(RecordId::to_bytes) != row.device {
            return Err(damaged("the device beside it is another"));
        }
        let actor = actor(&row.actor, payload.name).ok_or_else(|| damaged("its actor is not readable"))?;
        let record = AuditRecord {
            at: Timestamp::from_micros(row.at),
            actor,
            action: action(row.action).ok_or_else(|| damaged("its action is unknown to this release"))?,
            outcome: outcome(row.outcome).ok_or_else(|| damaged("its outcome is unknown to this release"))?,
            patient: payload.patient,
            device: payload.device,
            alert: payload.alert,
            object: payload.object,
            detail: payload.detail,
            purpose: payload.purpose,
            break_glass: payload.break_glass.map(|id| id.0),
            policies: payload.policies,
            role: payload.role,
            address: payload.address,
        };
        Ok(AuditRow { sequence: row.sequence, record, leaf: row.leaf })
    }
}

/// The open part of a row whose patient was erased: the log stays whole.
pub(super) fn erased(row: &Plain) -> Result<AuditRow, StoreError> {
    let damaged = || StoreError::Damaged {
        what: format!("audit row {}", row.sequence),
        how: "its plain columns are not readable".to_owned(),
    };
    let actor = actor(&row.actor, Some(ERASED.to_owned())).ok_or_else(damaged)?;
    let action = action(row.action).ok_or_else(damaged)?;
    let record = AuditRecord {
        outcome: outcome(row.outcome).ok_or_else(damaged)?,
        patient: row.patient.map(PatientId::from_bytes),
        device: row.device.map(DeviceId::from_bytes),
        ..AuditRecord::new(Timestamp::from_micros(row.at), actor, action, ERASED)
    };
    Ok(AuditRow { sequence: row.sequence, record, leaf: row.leaf })
}

fn actor(bytes: &[u8], name: Option<String>) -> Option<Actor> {
    let (kind, id) = bytes.split_first()?;
    let id: [u8; 16] = id.try_into().ok()?;
    match *kind {
        USER => Some(Actor::User(UserId::from_bytes(id))),
        DEVICE => Some(Actor::Device(DeviceId::from_bytes(id))),
        PROGRAM => name.map(Actor::Program),
        SYSTEM => Some(Actor::System),
        UNPROVEN => name.map(Actor::Unproven),
        _ => None,
    }
}

fn action(number: u8) -> Option<AuditAction> {
    AuditAction::ALL.into_iter().find(|action| *action as u8 == number)
}

fn outcome(number: u8) -> Option<AuditOutcome> {
    AuditOutcome::ALL.into_iter().find(|outcome| *outcome as u8 == number)
}

/// At most so many bytes, ending at a character.
fn cut(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_details_are_cut_between_characters() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 5), "");
    }

    #[test]
    fn the_header_says_when_what_and_about_whom() {
        let plain = |patient, device, flags| Plain {
            sequence: 7,
            at: 1_234_567,
            action: AuditAction::Read as u8,
            outcome: AuditOutcome::Success as u8,
            patient,
            device,
            actor: vec![SYSTEM],
            flags,
            sealed: Vec::new(),
            leaf: [0; 32],
        };
        let said = |plain: &Plain| crate::ActHeader::parse(&plain.header()).unwrap();
        for device in [None, Some([9; 16])] {
            let about = said(&plain(Some([5; 16]), device, Some(FLAG_BREAK_GLASS)));
            assert_eq!(about.patient, Some(PatientId::from_bytes([5; 16])));
            assert_eq!(
                (about.at, about.action),
                (Timestamp::from_micros(1_234_567), AuditAction::Read as u8)
            );
            assert_eq!(said(&plain(None, device, Some(0))).patient, None);
        }
        assert_eq!(crate::ActHeader::parse(&[0; 16]), None);
    }

    #[test]
    fn every_number_means_at_most_one_action_and_outcome() {
        for number in 0..=u8::MAX {
            assert!(action(number).is_none_or(|action| action as u8 == number));
            assert!(outcome(number).is_none_or(|outcome| outcome as u8 == number));
        }
        assert_eq!(action(18), Some(AuditAction::Policy));
        assert_eq!(outcome(8), Some(AuditOutcome::Failed));
    }
}

//! The audit wrapper: no patient's data is read outside it, and nothing is read when the record cannot be written.

use clinical_model::{DeviceId, PatientId, Purpose, RecordId as _, Timestamp, UserId};
use store::{Actor, AuditAction, AuditOutcome, AuditRecord, StoreError, TransactError};

use crate::chart::Chart;
use crate::intake::Receipt;
use crate::site::Site;

/// Longest detail of an audit record, in bytes; longer text is cut.
pub const DETAIL_LIMIT_BYTES: usize = 4_096;

/// What somebody is about to do.
#[derive(Clone, Debug)]
pub struct Act {
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: AuditAction,
    /// About which patient.
    pub patient: Option<PatientId>,
    /// About which device.
    pub device: Option<DeviceId>,
    /// In the field's words.
    pub object: &'static str,
    /// What else must be known: a query, a reason.
    pub detail: String,
    /// For what purpose of use: a code of HL7 v3 ActReason.
    pub purpose: Option<String>,
    /// Under which broken glass.
    pub break_glass: Option<[u8; 16]>,
    /// Which policies decided.
    pub policies: Vec<String>,
    /// Under which role.
    pub role: Option<String>,
    /// From which network address.
    pub address: Option<String>,
}

/// Who acts, and what the audit log says besides: under which role, why, and from where. Made of an actor alone where
/// nobody asked over a network.
#[derive(Clone, Debug)]
pub struct Agent<A = Actor> {
    /// Who.
    pub who: A,
    /// Under which role.
    pub role: Option<String>,
    /// For what purpose of use: a code of HL7 v3 ActReason.
    pub purpose: Option<String>,
    /// From which network address.
    pub address: Option<String>,
}

impl<A> Agent<A> {
    /// The same, of whom it is said otherwise who they are.
    pub fn with<B>(self, who: B) -> Agent<B> {
        Agent { who, role: self.role, purpose: self.purpose, address: self.address }
    }
}

impl Agent {
    /// An act of theirs.
    pub fn act(&self, action: AuditAction, object: &'static str) -> Act {
        Act {
            role: self.role.clone(),
            purpose: self.purpose.clone(),
            address: self.address.clone(),
            ..Act::new(self.who.clone(), action, object)
        }
    }
}

impl<A> From<A> for Agent<A> {
    fn from(who: A) -> Self {
        Agent { who, role: None, purpose: None, address: None }
    }
}

impl From<&Actor> for Agent {
    fn from(who: &Actor) -> Self {
        who.clone().into()
    }
}

impl From<UserId> for Agent {
    fn from(user: UserId) -> Self {
        Actor::User(user).into()
    }
}

impl From<Agent<UserId>> for Agent {
    fn from(by: Agent<UserId>) -> Self {
        let actor = Actor::User(by.who);
        by.with(actor)
    }
}

impl Act {
    /// An act on no patient and no device in particular.
    pub fn new(actor: Actor, action: AuditAction, object: &'static str) -> Self {
        Act {
            actor,
            action,
            patient: None,
            device: None,
            object,
            detail: String::new(),
            purpose: None,
            break_glass: None,
            policies: Vec::new(),
            role: None,
            address: None,
        }
    }

    /// About a patient.
    #[must_use]
    pub fn patient(mut self, patient: PatientId) -> Self {
        self.patient = Some(patient);
        self
    }

    /// About a device.
    #[must_use]
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// With what else must be known; cut to [`DETAIL_LIMIT_BYTES`].
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        if self.detail.len() > DETAIL_LIMIT_BYTES {
            let end =
                (0..=DETAIL_LIMIT_BYTES).rev().find(|at| self.detail.is_char_boundary(*at)).unwrap_or(0);
            self.detail.truncate(end);
        }
        self
    }

    /// For a purpose of use: a code of HL7 v3 ActReason (`TREAT`, `ETREAT`, `PATRQT`).
    #[must_use]
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.purpose = Some(purpose.into());
        self
    }

    /// Under a broken glass.
    #[must_use]
    pub fn break_glass(mut self, id: [u8; 16]) -> Self {
        self.break_glass = Some(id);
        self
    }

    /// By these policies.
    #[must_use]
    pub fn policies(mut self, policies: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.policies = policies.into_iter().map(Into::into).collect();
        self
    }

    /// Under a role.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// From a network address.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The record of the act.
    pub fn record(self, at: Timestamp, outcome: AuditOutcome) -> AuditRecord {
        AuditRecord {
            outcome,
            patient: self.patient,
            device: self.device,
            detail: self.detail,
            purpose: self.purpose,
            break_glass: self.break_glass,
            policies: self.policies,
            role: self.role,
            address: self.address,
            ..AuditRecord::new(at, self.actor, self.action, self.object)
        }
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The audit record could not be written, and so nothing was read.
    #[error("the audit record could not be written; nothing was shown")]
    Audit(#[source] TransactError),
    /// Nothing was recorded of the act.
    #[error("the act is not in the audit log; nothing was shown")]
    Unrecorded,
    /// The store failed.
    #[error("reading failed")]
    Store(#[source] StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        ReadError::Store(error)
    }
}

impl Site {
    /// Records an act and then lets `read` see the chart. The record is on stable storage before the first value is
    /// read. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// [`ReadError::Audit`] when the record could not be written: `read` was not called then.
    pub fn read<T>(
        &self,
        act: Act,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        self.record(act, AuditOutcome::Success).map_err(ReadError::Audit)?;
        read(&self.chart())
    }

    /// Lets `read` see the chart for acts that were recorded in the commit that a receipt tells of: what was charted is
    /// shown to who sent it, without a second record.
    ///
    /// # Errors
    /// [`ReadError::Unrecorded`] where nothing was recorded with that commit: `read` was not called then.
    pub fn read_back<T>(
        &self,
        receipt: &Receipt,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        if receipt.is_recorded { read(&self.chart()) } else { Err(ReadError::Unrecorded) }
    }

    /// As [`Site::read`], for an act that concerns several patients: one record each, all or none.
    ///
    /// # Errors
    /// As [`Site::read`].
    pub fn read_each<T>(
        &self,
        acts: Vec<Act>,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let at = self.clock().now();
        let records = acts.into_iter().map(|act| self.record_of(act, at, AuditOutcome::Success)).collect();
        self.audit_group.write(self.store(), at, records).map_err(ReadError::Audit)?;
        read(&self.chart())
    }

    /// The record of an act. Where whoever acts has broken the glass for the patient, it says so.
    pub(crate) fn record_of(&self, act: Act, at: Timestamp, outcome: AuditOutcome) -> AuditRecord {
        let glass = match (&act.actor, act.patient) {
            (Actor::User(user), Some(patient)) => self.broken_glass(*user, patient),
            _ => None,
        };
        let act = match glass {
            Some(glass) => act.break_glass(glass.id.to_bytes()).purpose(Purpose::BreakGlass.code()),
            None => act,
        };
        act.record(at, outcome)
    }

    /// Lets a live stream, whose opening was recorded, see the chart for what it shows.
    pub fn live_chart<T>(&self, read: impl FnOnce(&Chart<'_>) -> T) -> T {
        read(&self.chart())
    }

    /// Records an act that reads or changes nothing more: a refusal, a sign-in, a stream that was opened.
    ///
    /// # Errors
    /// [`TransactError`] when it could not be written.
    pub fn record(&self, act: Act, outcome: AuditOutcome) -> Result<(), TransactError> {
        let at = self.clock().now();
        self.audit_group.write(self.store(), at, vec![self.record_of(act, at, outcome)])
    }
}

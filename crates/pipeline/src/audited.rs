//! The audit wrapper: no patient's data is read outside it, and nothing is read when the record cannot be written.

use clinical_model::{DeviceId, PatientId, Timestamp};
use store::{Actor, AuditAction, AuditOutcome, AuditRecord, StoreError, TransactError};

use crate::chart::Chart;
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
}

impl Act {
    /// An act on no patient and no device in particular.
    pub fn new(actor: Actor, action: AuditAction, object: &'static str) -> Self {
        Act { actor, action, patient: None, device: None, object, detail: String::new() }
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

    /// The record of the act.
    pub fn record(self, at: Timestamp, outcome: AuditOutcome) -> AuditRecord {
        AuditRecord {
            at,
            actor: self.actor,
            action: self.action,
            outcome,
            patient: self.patient,
            device: self.device,
            alert: None,
            object: self.object.to_owned(),
            detail: self.detail,
        }
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The audit record could not be written, and so nothing was read.
    #[error("the audit record could not be written; nothing was shown")]
    Audit(#[source] TransactError),
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
        let records = acts.into_iter().map(|act| act.record(at, AuditOutcome::Success)).collect();
        self.audit_group.write(self.store(), at, records).map_err(ReadError::Audit)?;
        read(&self.chart())
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
        self.audit_group.write(self.store(), at, vec![act.record(at, outcome)])
    }
}

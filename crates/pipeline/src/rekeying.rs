//! The care of keys in the background: turns of the key-encryption key and of patients' keys, erasures and retention, all
//! by the one node that holds the lease, in short steps beside everything else.

use std::sync::{Arc, Weak};
use std::time::Duration;

use clinical_model::{PatientId, Timestamp};
use store::{Actor, AuditAction, AuditOutcome, KekTurn, Rekey, StoreError, TransactError};

use crate::audited::{Act, Agent};
use crate::clock::new_id;
use crate::site::{Site, StartError, Stop};

/// The lease of the one who cares.
const LEASE: &str = "care";
/// Life of that lease: so long nothing is done after a node died.
const LEASE_LIFE: Duration = Duration::from_secs(30);
/// Between two looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two pieces of work, so that commits come in between.
const BREATH: Duration = Duration::from_millis(20);
/// Data keys wrapped anew in one step.
const WRAP_LIMIT_KEYS: usize = 1_000;
/// Rows sealed anew in one step.
const SEAL_LIMIT_ROWS: usize = 64;

/// How much of a care is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pace {
    /// Nothing, as far as is known.
    Idle,
    /// Something that can only be waited for now.
    Waiting,
    /// Something to go on with.
    Working,
}

/// Why a key was not turned over.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// There is no such patient.
    #[error("there is no such patient")]
    NotFound,
    /// The act could not be recorded, and so nothing was done.
    #[error("the audit record could not be written; nothing was done")]
    Audit(#[source] TransactError),
    /// The store failed.
    #[error("the key could not be turned over")]
    Store(#[source] StoreError),
}

impl Site {
    /// Begins, or takes up, a turn of the key-encryption key; it goes on in the background.
    ///
    /// # Errors
    /// [`TurnError`].
    pub fn turn_kek(&self, by: impl Into<Agent>, reason: &str) -> Result<KekTurn, TurnError> {
        let act = by
            .into()
            .act(AuditAction::Keys, "key-encryption key")
            .detail(format!("turned over, because: {reason}"));
        self.record(act, AuditOutcome::Success).map_err(TurnError::Audit)?;
        self.store().care().begin_kek_turn().map_err(TurnError::Store)
    }

    /// Gives a patient a new key; what earlier keys sealed follows in the background.
    ///
    /// # Errors
    /// [`TurnError`].
    pub fn turn_patient_key(
        &self,
        by: impl Into<Agent>,
        patient: PatientId,
        reason: &str,
    ) -> Result<Rekey, TurnError> {
        self.registry().patient(patient).ok_or(TurnError::NotFound)?;
        let act = by
            .into()
            .act(AuditAction::Keys, "patient's key")
            .patient(patient)
            .detail(format!("turned over, because: {reason}"));
        self.record(act, AuditOutcome::Success).map_err(TurnError::Audit)?;
        self.store().care().begin_rekey(patient, self.clock().now()).map_err(TurnError::Store)
    }

    /// Does one piece of each care that is due. One that fails keeps no other from going on.
    pub(crate) fn care_once(&self, name: &str) -> Result<Pace, StoreError> {
        let now = self.clock().now();
        let (mut pace, mut failed) = (Pace::Idle, None);
        let retaining = |more| if more { Pace::Working } else { Pace::Idle };
        for of_one in [
            self.keep_turning(now),
            self.keep_rekeying(now),
            self.keep_retaining().map(retaining),
            self.keep_erasing_or_tell(name),
        ] {
            match of_one {
                Ok(of_one) => pace = pace.max(of_one),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(pace), Err)
    }

    fn keep_turning(&self, now: Timestamp) -> Result<Pace, StoreError> {
        let care = self.store().care();
        let Some(turn) = care.key_status()?.turn else { return Ok(Pace::Idle) };
        let Some(left) = care.step_kek_turn(WRAP_LIMIT_KEYS, now)? else {
            self.noted(
                Act::new(Actor::System, AuditAction::Keys, "key-encryption key")
                    .detail(format!("epoch {} is in force, the one before is destroyed", turn.to)),
            );
            return Ok(Pace::Idle);
        };
        Ok(if left.nodes_waiting == 0 { Pace::Working } else { Pace::Idle })
    }

    fn keep_rekeying(&self, now: Timestamp) -> Result<Pace, StoreError> {
        let care = self.store().care();
        let Some(rekey) = care.step_rekey(SEAL_LIMIT_ROWS, now)? else { return Ok(Pace::Idle) };
        if rekey.done < rekey.all {
            return Ok(Pace::Working);
        }
        if !care.key_status()?.rekeys.iter().any(|one| one.domain == rekey.domain) {
            let act = Act::new(Actor::System, AuditAction::Keys, "patient's key");
            let act = rekey.patient.into_iter().fold(act, Act::patient);
            self.noted(act.detail(format!("{} rows sealed anew, the keys before are destroyed", rekey.all)));
        }
        Ok(Pace::Idle)
    }

    fn keep_erasing_or_tell(&self, name: &str) -> Result<Pace, StoreError> {
        Ok(self.keep_erasing(name).unwrap_or_else(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an erasure stands still; it is tried again"
            );
            Pace::Idle
        }))
    }

    /// Records what happened by itself; it happened, whether or not that can be written.
    fn noted(&self, act: Act) {
        if let Err(error) = self.record(act, AuditOutcome::Success) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an act of the care of keys could not be recorded"
            );
        }
    }

    /// Cares until the site stops.
    pub(crate) fn keep_caring(site: &Weak<Site>, stop: &Arc<Stop>, node: [u8; 16], name: &str) {
        let mut pause = BREATH;
        let mut is_out = false;
        while !stop.wait(pause) {
            let Some(site) = site.upgrade() else { return };
            let done = match site.store().hold_lease(LEASE, node, LEASE_LIFE) {
                Ok(true) => site.care_once(name),
                Ok(false) => Ok(Pace::Idle),
                Err(error) => Err(error),
            };
            pause = match done {
                Ok(Pace::Working) if !site.disk_is_behind() => BREATH,
                Ok(_) => {
                    is_out = false;
                    LOOK_EVERY
                }
                Err(error) => {
                    if !is_out {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "the care of keys stands still; it is tried again"
                        );
                    }
                    is_out = true;
                    LOOK_EVERY
                }
            };
        }
    }

    /// Begins to care, until the site stops. `name` is the site's, for its statements.
    ///
    /// # Errors
    /// [`StartError::Thread`].
    pub fn keep_care(self: &Arc<Self>, name: &str) -> Result<(), StartError> {
        let (site, stop, name) = (Arc::downgrade(self), self.stop_signal(), name.to_owned());
        let node = new_id(self.clock().now());
        self.spawn("care", move || Site::keep_caring(&site, &stop, node, &name))
    }

    /// Cares now, at most so many pieces; whether more is left. For tests and commands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn care_now(&self, name: &str, pieces: usize) -> Result<bool, StoreError> {
        for _ in 0..pieces {
            if self.care_once(name)? == Pace::Idle {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

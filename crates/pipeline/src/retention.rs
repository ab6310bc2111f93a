//! For how long each class is kept: a policy with versions, a count of what would go, and a run that removes it in steps.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use clinical_model::{Alert, PatientId, QuarantineItem, Subject, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{
    Actor, AuditAction, AuditOutcome, DocumentQuery, DocumentWrite, Expected, KeptClass, KeyDomain, Kind,
    Order, Outdated, StoreError, TransactError, Transaction,
};

use crate::audited::{Act, Agent};
use crate::clock::new_id;
use crate::desk::{DeskError, refused};
use crate::holds;
use crate::records::{self, ALERTS_BY_STATE, sortable};
use crate::site::Site;

/// The one policy of a site.
const POLICY_ID: [u8; 16] = *b"retention policy";
/// The run that is under way, or the last one: a document of its own, so that a run changes no version of the policy.
const RUN_ID: [u8; 16] = *b"retention run  1";
/// Rows removed in one step: short enough that a commit does not wait long behind it.
const STEP_LIMIT_ROWS: usize = 128;
/// Steps at one time before others have their turn.
const STEPS_AT_ONCE: usize = 32;
/// Alerts read at once.
const PAGE_LIMIT: usize = 200;
/// Fewest days that the details of audit rows are kept: six years (45 CFR 164.316(b)(2)(i)).
pub const AUDIT_DETAILS_MIN_DAYS: u32 = 2_192;
/// Most days of a class: a hundred years.
pub const MAX_DAYS: u32 = 36_525;

/// What is kept for a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetainedClass {
    /// Waveforms.
    Waveforms,
    /// Readings, and with them the trends that are computed from them.
    Readings,
    /// Events.
    Events,
    /// The exact bytes that devices sent.
    RawFrames,
    /// Resolved alerts.
    Alerts,
    /// Quarantined items that were dealt with.
    Quarantine,
    /// What audit rows say beyond their plain columns.
    AuditDetails,
}

impl RetainedClass {
    /// All of them, in the order in which a run removes.
    pub const ALL: [RetainedClass; 7] = [
        RetainedClass::Waveforms,
        RetainedClass::Readings,
        RetainedClass::Events,
        RetainedClass::RawFrames,
        RetainedClass::Alerts,
        RetainedClass::Quarantine,
        RetainedClass::AuditDetails,
    ];

    /// The word in the JSON API.
    pub const fn word(self) -> &'static str {
        match self {
            RetainedClass::Waveforms => "waveforms",
            RetainedClass::Readings => "readings",
            RetainedClass::Events => "events",
            RetainedClass::RawFrames => "raw-frames",
            RetainedClass::Alerts => "alerts",
            RetainedClass::Quarantine => "quarantine",
            RetainedClass::AuditDetails => "audit-details",
        }
    }

    const fn kept(self) -> Option<KeptClass> {
        match self {
            RetainedClass::Waveforms => Some(KeptClass::Waveforms),
            RetainedClass::Readings => Some(KeptClass::Readings),
            RetainedClass::Events => Some(KeptClass::Events),
            RetainedClass::RawFrames => Some(KeptClass::RawFrames),
            RetainedClass::Alerts => None,
            RetainedClass::Quarantine => Some(KeptClass::Quarantine),
            RetainedClass::AuditDetails => Some(KeptClass::AuditDetails),
        }
    }
}

/// Days that each class is kept; a class that is not here is kept for ever.
pub type KeepDays = BTreeMap<RetainedClass, u32>;

/// A run that removes what is too old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: [u8; 16],
    /// When it began; what counts as old is reckoned from here.
    pub begun_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The class that is being removed; `None` at the end.
    pub class: Option<RetainedClass>,
    /// Rows removed.
    pub rows: u64,
    /// Sealed bytes that went with them.
    pub bytes: u64,
    /// Why it broke off.
    pub error: Option<String>,
}

/// The policy of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// Days that each class is kept.
    pub keep_days: KeepDays,
}

/// A policy with its version.
#[derive(Clone, Debug, Default)]
pub struct KeptPolicy {
    /// The policy.
    pub policy: RetentionPolicy,
    /// The run that is under way, or the last one.
    pub run: Option<Run>,
    /// Version of the document of the run; 0 where there is none.
    run_version: u64,
    /// Its version; 0 where nobody has set one.
    pub version: u64,
    /// When it was last written.
    pub updated_at: Option<Timestamp>,
}

/// What a class would lose.
#[derive(Clone, Copy, Debug)]
pub struct ClassCount {
    /// Which.
    pub class: RetainedClass,
    /// What is older than this.
    pub before: Timestamp,
    /// How much.
    pub outdated: Outdated,
}

fn before(at: Timestamp, days: u32) -> Timestamp {
    at.minus(Duration::from_secs(u64::from(days) * 86_400))
}

fn check(keep_days: &KeepDays) -> Result<(), DeskError> {
    for (class, days) in keep_days {
        let least = if *class == RetainedClass::AuditDetails { AUDIT_DETAILS_MIN_DAYS } else { 1 };
        if !(least..=MAX_DAYS).contains(days) {
            let what = format!("{} days of {} are not {least} to {MAX_DAYS}", days, class.word());
            return Err(DeskError::Time { what });
        }
    }
    Ok(())
}

impl Site {
    /// The policy as it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn retention(&self) -> Result<KeptPolicy, StoreError> {
        let Some((policy, kept)) = self.read_retention::<RetentionPolicy>(POLICY_ID)? else {
            return Ok(KeptPolicy::default());
        };
        let (run, run_version) = match self.read_retention::<Run>(RUN_ID)? {
            Some((run, kept)) => (Some(run), kept.version),
            None => (None, 0),
        };
        let (version, updated_at) = (kept.version, Some(kept.updated_at));
        Ok(KeptPolicy { policy, run, run_version, version, updated_at })
    }

    fn read_retention<T: DeserializeOwned>(
        &self,
        id: [u8; 16],
    ) -> Result<Option<(T, store::Document)>, StoreError> {
        let Some(kept) = self.store().document(Kind::RetentionPolicy, id)? else { return Ok(None) };
        let read = records::json_from(&kept.body).map_err(|error| StoreError::Damaged {
            what: "retention policy".to_owned(),
            how: error.to_string(),
        })?;
        Ok(Some((read, kept)))
    }

    /// Earlier versions of the policy, newest first: number and when it was written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn retention_versions(&self) -> Result<Vec<(u64, Timestamp)>, StoreError> {
        let versions = self.store().document_versions(Kind::RetentionPolicy, POLICY_ID)?;
        Ok(versions.iter().rev().map(|one| (one.version, one.updated_at)).collect())
    }

    fn keep_retention(
        &self,
        id: [u8; 16],
        body: &impl Serialize,
        version: u64,
        act: Option<Act>,
    ) -> Result<(), TransactError> {
        let at = self.clock().now();
        let expected = if version == 0 { Expected::Absent } else { Expected::Version(version) };
        let domain = KeyDomain::System;
        let write = records::json_write(Kind::RetentionPolicy, id, expected, domain, body, Vec::new());
        let audit = act.map(|act| act.record(at, AuditOutcome::Success)).into_iter().collect();
        self.store().transact(&Transaction { at, writes: vec![write], audit, ..Transaction::default() })
    }

    /// Sets the policy; nothing goes before a run.
    ///
    /// # Errors
    /// [`DeskError::Conflict`] where the version is another.
    pub fn set_retention(
        &self,
        by: impl Into<Agent>,
        version: u64,
        keep_days: KeepDays,
        reason: &str,
    ) -> Result<KeptPolicy, DeskError> {
        check(&keep_days)?;
        let days = keep_days.iter().map(|(class, days)| format!("{} {days} d", class.word()));
        let detail = format!("{}; because: {reason}", days.collect::<Vec<_>>().join(", "));
        let act = by.into().act(AuditAction::Update, "retention policy").detail(detail);
        let policy = RetentionPolicy { keep_days };
        self.keep_retention(POLICY_ID, &policy, version, Some(act))
            .map_err(|error| refused("the retention policy", error))?;
        self.retention().map_err(DeskError::Store)
    }

    /// What a run would remove now, under the policy or a proposal. Patients on hold are left out and counted apart.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn count_outdated(
        &self,
        by: impl Into<Agent>,
        keep_days: Option<KeepDays>,
    ) -> Result<Vec<ClassCount>, DeskError> {
        let keep_days = match keep_days {
            Some(proposed) => proposed,
            None => self.retention().map_err(DeskError::Store)?.policy.keep_days,
        };
        check(&keep_days)?;
        let act = by.into().act(AuditAction::Read, "retention").detail("what would go");
        self.record(act, AuditOutcome::Success).map_err(|error| refused("the audit log", error))?;
        let at = self.clock().now();
        let held = self.held(at).map_err(DeskError::Store)?;
        let count = |(class, days): (&RetainedClass, &u32)| {
            let before = before(at, *days);
            let outdated = match class.kept() {
                Some(kept) => self.store().care().count_outdated(kept, before, &held)?,
                None => self.outdated_alerts(before, &held)?,
            };
            Ok(ClassCount { class: *class, before, outdated })
        };
        keep_days.iter().map(count).collect::<Result<_, StoreError>>().map_err(DeskError::Store)
    }

    fn held(&self, at: Timestamp) -> Result<Vec<PatientId>, StoreError> {
        Ok(holds::all(self.store(), at)?.into_iter().map(|hold| hold.patient).collect())
    }

    /// A page of resolved alerts raised before an instant, oldest first.
    fn old_alerts(
        &self,
        before: Timestamp,
        after: Option<(Vec<u8>, [u8; 16])>,
    ) -> Result<Vec<store::Document>, StoreError> {
        let query = DocumentQuery {
            kind: Kind::Alert,
            index: ALERTS_BY_STATE,
            prefix: vec![1],
            after,
            order: Order::Ascending,
            limit: PAGE_LIMIT,
        };
        let mut page = self.store().documents(&query)?;
        page.retain(|one| one.index_value.get(1..).is_some_and(|at| *at < sortable(before)[..]));
        Ok(page)
    }

    fn outdated_alerts(&self, before: Timestamp, held: &[PatientId]) -> Result<Outdated, StoreError> {
        let mut outdated = Outdated::default();
        let mut patients = std::collections::HashSet::new();
        let mut after = None;
        loop {
            let page = self.old_alerts(before, after)?;
            for one in &page {
                let Ok(alert) = records::json_from::<Alert>(&one.body) else { continue };
                if self.is_held(&alert, held) {
                    outdated.held_rows += 1;
                    continue;
                }
                outdated.rows += 1;
                outdated.bytes += one.body.len() as u64;
                outdated.oldest = outdated.oldest.into_iter().chain([alert.raised_at]).min();
                outdated.newest = outdated.newest.max(Some(alert.raised_at));
                patients.extend(alert.subject.patient());
            }
            match page.last() {
                Some(last) if page.len() == PAGE_LIMIT => after = Some((last.index_value.clone(), last.id)),
                _ => break,
            }
        }
        outdated.patients = patients.len() as u64;
        Ok(outdated)
    }

    /// Begins a run; it goes on in the background.
    ///
    /// # Errors
    /// [`DeskError::Taken`] while one is under way.
    pub fn run_retention(&self, by: impl Into<Agent>, reason: &str) -> Result<Run, DeskError> {
        let _desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.retention().map_err(DeskError::Store)?;
        if kept.run.as_ref().is_some_and(|run| run.ended_at.is_none()) {
            return Err(DeskError::Taken { what: "a run is under way already".to_owned() });
        }
        let Some(first) = kept.policy.keep_days.keys().next().copied() else {
            return Err(DeskError::Time { what: "the policy keeps everything for ever".to_owned() });
        };
        let at = self.clock().now();
        let run = Run {
            id: new_id(at),
            begun_at: at,
            ended_at: None,
            class: Some(first),
            rows: 0,
            bytes: 0,
            error: None,
        };
        let act = by.into().act(AuditAction::Erase, "retention").detail(format!("run, because: {reason}"));
        self.keep_retention(RUN_ID, &run, kept.run_version, Some(act))
            .map_err(|error| refused("the run of retention", error))?;
        Ok(run)
    }

    /// Goes on with a run; whether there is more to do.
    pub(crate) fn keep_retaining(&self) -> Result<bool, StoreError> {
        let kept = self.retention()?;
        let Some(mut run) = kept.run.clone().filter(|run| run.ended_at.is_none()) else {
            return Ok(false);
        };
        let at = self.clock().now();
        let held = self.held(at)?;
        let mut act = None;
        match self.retain_some(&kept.policy, &mut run, &held) {
            Ok(()) => {}
            Err(error) => {
                run.error = Some(error.to_string());
                run.ended_at = Some(at);
            }
        }
        if run.class.is_none() && run.ended_at.is_none() {
            run.ended_at = Some(at);
        }
        if run.ended_at.is_some() {
            let detail = format!("{} stored rows, {} bytes removed", run.rows, run.bytes);
            act = Some(Act::new(Actor::System, AuditAction::Erase, "retention").detail(detail));
        }
        let more = run.ended_at.is_none();
        match self.keep_retention(RUN_ID, &run, kept.run_version, act) {
            // Another node has gone on with it meanwhile.
            Ok(()) | Err(TransactError::Conflict { .. } | TransactError::LeaseLost { .. }) => Ok(more),
            Err(TransactError::Store(error)) => Err(error),
        }
    }

    fn retain_some(
        &self,
        policy: &RetentionPolicy,
        run: &mut Run,
        held: &[PatientId],
    ) -> Result<(), StoreError> {
        for _ in 0..STEPS_AT_ONCE {
            let Some(class) = run.class else { return Ok(()) };
            let more = match policy.keep_days.get(&class) {
                None => false,
                Some(days) => {
                    let before = before(run.begun_at, *days);
                    let removed = match class.kept() {
                        Some(kept) => self.remove_rows(kept, before, held)?,
                        None => self.remove_alerts(before, held)?,
                    };
                    run.rows += removed.rows;
                    run.bytes += removed.bytes;
                    removed.more
                }
            };
            if !more {
                run.class = policy.keep_days.range(class..).nth(1).map(|(class, _)| *class);
            }
        }
        Ok(())
    }

    fn remove_rows(
        &self,
        class: KeptClass,
        before: Timestamp,
        held: &[PatientId],
    ) -> Result<store::Removed, StoreError> {
        let keep = |item: &QuarantineItem| {
            let subject = self.registry().subject_at(item.device, item.received_at);
            subject.and_then(Subject::patient).is_some_and(|patient| held.contains(&patient))
        };
        let now = self.clock().now();
        self.store().care().remove_outdated(class, before, held, &keep, STEP_LIMIT_ROWS, now)
    }

    /// Whether an alert is about a patient on hold: their own, or of a device that was theirs when it was raised.
    fn is_held(&self, alert: &Alert, held: &[PatientId]) -> bool {
        let patient = match alert.subject {
            Subject::Device(device) => {
                self.registry().subject_at(device, alert.raised_at).and_then(Subject::patient)
            }
            other => other.patient(),
        };
        patient.is_some_and(|patient| held.contains(&patient))
    }

    fn remove_alerts(&self, before: Timestamp, held: &[PatientId]) -> Result<store::Removed, StoreError> {
        let mut removed = store::Removed::default();
        let mut after = None;
        while removed.rows == 0 {
            let page = self.old_alerts(before, after)?;
            let Some(last) = page.last() else { break };
            removed.more = page.len() == PAGE_LIMIT;
            after = Some((last.index_value.clone(), last.id));
            let mut gone = Vec::new();
            for one in &page {
                let alert = records::json_from::<Alert>(&one.body);
                if alert.is_ok_and(|alert| !self.is_held(&alert, held)) {
                    removed.rows += 1;
                    removed.bytes += one.body.len() as u64;
                    gone.push((Kind::Alert, one.id));
                }
            }
            let writes = gone.iter().map(|(kind, id)| DocumentWrite::removal(*kind, *id)).collect();
            let at = self.clock().now();
            match self.store().transact(&Transaction { at, writes, ..Transaction::default() }) {
                Ok(()) => self.store().care().forget_versions(&gone)?,
                Err(TransactError::Store(error)) => return Err(error),
                Err(TransactError::Conflict { .. } | TransactError::LeaseLost { .. }) => {}
            }
            if !removed.more {
                break;
            }
        }
        Ok(removed)
    }
}

//! Breaking the glass: a clinician sees one patient for four hours against a reason, and somebody else reviews it.
//!
//! A broken glass lifts ward, care team and consent for its one patient; it lifts no role, revives no revoked device and
//! widens no scope. It ends by itself, or by whoever broke it. Every one of them waits in a list until somebody else has
//! closed it with a finding; what waits for too long is said again, once, loudly.

mod held;
mod words;

use std::sync::{Arc, Weak};
use std::time::Duration;

use clinical_model::{GlassId, PatientId, Private, Purpose, RecordId as _, Timestamp, UserId};
use store::{
    Actor, AuditAction, AuditOutcome, DocumentQuery, Expected, Kind, Order, StoreError, TransactError,
};

use self::held::{Held, glass_from, listed, write_of};
use crate::audited::{Act, Agent};
use crate::desk::{DeskError, refused};
use crate::live::Happening;
use crate::site::{Site, Stop};

pub use held::Glasses;
pub use words::{BreakGlass, Finding, GlassError, GlassState, Listed, Reason, Request, Review};

/// What the audit log calls it.
pub const OBJECT: &str = "Break-glass";
/// How long a glass stays broken.
pub const STANDS_FOR: Duration = Duration::from_secs(4 * 3_600);
/// Within this a review is due.
pub const REVIEW_WITHIN: Duration = Duration::from_secs(72 * 3_600);
/// How often it is looked whether a review is overdue.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Shortest and longest reason or note, in characters: something is said, and it can be read.
pub const TEXT_CHARS: std::ops::RangeInclusive<usize> = 10..=1_000;
/// Tries without finding a patient that a person has in an hour, on one node.
pub const MISSES_LIMIT: usize = 10;

fn kept(result: Result<(), TransactError>) -> Result<(), GlassError> {
    result.map_err(|error| GlassError::Desk(refused("the broken glass", error)))
}

fn said(what: &'static str, text: &Private<String>) -> Result<Private<String>, GlassError> {
    let text = text.expose().trim();
    match TEXT_CHARS.contains(&text.chars().count()) {
        true => Ok(Private::new(text.to_owned())),
        false => Err(GlassError::Text { what }),
    }
}

impl Site {
    /// A glass that this person broke for this patient and that still stands.
    pub fn broken_glass(&self, by: UserId, patient: PatientId) -> Option<Arc<BreakGlass>> {
        self.standing_glasses(by).into_iter().find(|glass| glass.patient == patient)
    }

    /// The glasses that a person broke and that still stand, the first to end first.
    pub fn standing_glasses(&self, by: UserId) -> Vec<Arc<BreakGlass>> {
        self.documents.glasses.standing(by, self.clock().now())
    }

    /// Whether one still stands.
    pub fn glass_stands(&self, glass: &BreakGlass) -> bool {
        self.documents.glasses.stands(glass, self.clock().now())
    }

    /// Those without a review, held in memory.
    pub fn glasses(&self) -> &Glasses {
        &self.documents.glasses
    }

    /// Breaks the glass. `asked` is their act: under which role, from which address, by which policies. `sees` says whether they see all of a patient anyway: then nothing is broken.
    ///
    /// # Errors
    /// [`GlassError`]. What was refused is recorded, without what was tried.
    pub fn break_glass(
        &self,
        by: UserId,
        request: &Request,
        asked: &Act,
        sees: impl FnOnce(PatientId) -> bool,
    ) -> Result<(Arc<BreakGlass>, u64), GlassError> {
        let at = self.clock().now();
        let text = said("reason", &request.text)?;
        if self.documents.glasses.tried_too_often(by, at) {
            self.glass_refused(asked.clone(), "too many tries")?;
            return Err(GlassError::TooManyTries);
        }
        let Some(patient) = self.named_exactly(request)? else {
            self.documents.glasses.missed(by, at);
            self.glass_refused(asked.clone(), "no patient has this record number and this birth date")?;
            return Err(GlassError::NoPatient);
        };
        if self.broken_glass(by, patient).is_some() || sees(patient) {
            return Err(GlassError::NotNeeded);
        }
        let glass = BreakGlass {
            id: GlassId::from_bytes(crate::clock::new_id(at)),
            patient,
            by,
            reason: request.reason,
            text,
            opened_at: at,
            until: at.plus(STANDS_FOR),
            ended_at: None,
            escalated_at: None,
            review: None,
        };
        let detail =
            format!("broken until {}: {} ({})", glass.until, request.reason.code(), glass.text.expose());
        let act = self.glass_act(&by.into(), AuditAction::BreakGlass, &glass, detail);
        // Under the role, from the address and by the policies with which it was asked.
        let act = Act { detail: act.detail, patient: act.patient, ..asked.clone() }
            .purpose(Purpose::BreakGlass.code());
        let write = write_of(&glass, Expected::Absent);
        kept(self.transact_with(act, at, vec![write]))?;
        Ok((self.glass_changed(glass, 1, at), 1))
    }

    /// The patient of exactly this record number and birth date.
    fn named_exactly(&self, request: &Request) -> Result<Option<PatientId>, GlassError> {
        let number = request.record_number.expose().trim();
        let query = DocumentQuery {
            kind: Kind::Patient,
            index: "record-number",
            prefix: self.store().blind("record-number", number).to_vec(),
            after: None,
            order: Order::Ascending,
            limit: 1,
        };
        let found = self.store().documents(&query)?.pop();
        let patient = found.and_then(|found| self.registry().patient(PatientId::from_bytes(found.id)));
        let is_named = |known: &Option<Private<String>>| {
            known.as_ref().map(Private::expose) == request.birth_date.as_ref().map(Private::expose)
        };
        Ok(patient.filter(|patient| is_named(&patient.birth_date)).map(|patient| patient.id))
    }

    fn glass_refused(&self, act: Act, why: &str) -> Result<(), GlassError> {
        kept(self.record(act.detail(why), AuditOutcome::Refused))
    }

    fn glass_act(&self, by: &Agent, action: AuditAction, glass: &BreakGlass, detail: String) -> Act {
        by.act(action, OBJECT).patient(glass.patient).detail(format!("{}: {detail}", glass.id))
    }

    /// Takes up what was written, and tells the screens.
    fn glass_changed(&self, glass: BreakGlass, version: u64, at: Timestamp) -> Arc<BreakGlass> {
        let glass = self.documents.glasses.put(glass.clone(), version, at).unwrap_or_else(|| Arc::new(glass));
        self.consents().moved();
        tell(self, &glass);
        glass
    }

    /// One with its version, as it is kept.
    ///
    /// # Errors
    /// [`GlassError::Desk`] with [`DeskError::NotFound`] where there is none.
    pub fn glass(&self, id: GlassId) -> Result<(BreakGlass, u64), GlassError> {
        let found = self.store().document(Kind::BreakGlass, id.to_bytes())?;
        let document = found.ok_or_else(|| {
            GlassError::Desk(DeskError::NotFound { what: "broken glass", id: id.to_string() })
        })?;
        Ok((glass_from(&document)?, document.version))
    }

    /// Ends one's own before its time.
    ///
    /// # Errors
    /// [`GlassError`]; somebody else's is not there.
    pub fn end_glass(
        &self,
        by: impl Into<Agent<UserId>>,
        id: GlassId,
    ) -> Result<(Arc<BreakGlass>, u64), GlassError> {
        let by = by.into();
        let at = self.clock().now();
        let not_there = || GlassError::Desk(DeskError::NotFound { what: "broken glass", id: id.to_string() });
        let (glass, version) = self.glass(id)?;
        if glass.by != by.who {
            return Err(not_there());
        }
        if !self.glass_stands(&glass) {
            return Err(GlassError::Over);
        }
        let glass = BreakGlass { ended_at: Some(at), ..glass };
        let act = self.glass_act(&by.into(), AuditAction::BreakGlass, &glass, "ended".to_owned());
        kept(self.transact_with(act, at, vec![write_of(&glass, Expected::Version(version))]))?;
        Ok((self.glass_changed(glass, version + 1, at), version + 1))
    }

    /// Closes one with a finding.
    ///
    /// # Errors
    /// [`GlassError::Own`] for whoever broke it, [`GlassError::StillStands`], [`GlassError::Over`] where somebody closed
    /// it already, [`DeskError::Conflict`] where it changed since `version`.
    pub fn review_glass(
        &self,
        by: impl Into<Agent<UserId>>,
        id: GlassId,
        version: u64,
        finding: Finding,
        note: &Private<String>,
    ) -> Result<(Arc<BreakGlass>, u64), GlassError> {
        let at = self.clock().now();
        let note = said("note", note)?;
        let by = by.into();
        let user = by.who;
        let (glass, _) = self.glass(id)?;
        if glass.by == user {
            let why = format!("{id}: who broke the glass cannot review it");
            let act = Agent::from(by).act(AuditAction::BreakGlass, OBJECT).patient(glass.patient);
            self.glass_refused(act, &why)?;
            return Err(GlassError::Own);
        }
        if glass.review.is_some() {
            return Err(GlassError::Over);
        }
        if self.glass_stands(&glass) {
            return Err(GlassError::StillStands);
        }
        let detail = format!("reviewed: {} ({})", finding.code(), note.expose());
        let glass = BreakGlass { review: Some(Review { finding, note, at, by: user }), ..glass };
        let act = self.glass_act(&by.into(), AuditAction::BreakGlass, &glass, detail);
        kept(self.transact_with(act, at, vec![write_of(&glass, Expected::Version(version))]))?;
        Ok((self.glass_changed(glass, version + 1, at), version + 1))
    }

    /// A page of them with their versions, the latest first; `after` is what the last page gave.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list_glasses(
        &self,
        which: Listed,
        after: Option<(Vec<u8>, [u8; 16])>,
        limit: usize,
    ) -> Result<Vec<(BreakGlass, u64, Vec<u8>)>, StoreError> {
        let page = self.store().documents(&listed(which, Order::Descending, after, limit))?;
        page.iter().map(|one| Ok((glass_from(one)?, one.version, one.index_value.clone()))).collect()
    }

    /// How many have no review, and of how many it is overdue.
    pub fn glasses_waiting(&self) -> (usize, usize) {
        let at = self.clock().now();
        let held = self.documents.glasses.read();
        (held.len(), held.values().filter(|held| held.glass.is_overdue_at(at)).count())
    }

    /// Says of each whose review is overdue that it is: once, whichever node comes first.
    pub(crate) fn escalate_glasses(&self) {
        let at = self.clock().now();
        let due: Vec<(BreakGlass, u64)> = {
            let held = self.documents.glasses.read();
            let is_due = |held: &&Held| held.glass.is_overdue_at(at) && held.glass.escalated_at.is_none();
            held.values().filter(is_due).map(|held| ((*held.glass).clone(), held.version)).collect()
        };
        for (glass, version) in due {
            let glass = BreakGlass { escalated_at: Some(at), ..glass };
            let act = self.glass_act(
                &Actor::System.into(),
                AuditAction::BreakGlass,
                &glass,
                "review overdue".to_owned(),
            );
            match self.transact_with(act, at, vec![write_of(&glass, Expected::Version(version))]) {
                Ok(()) => {
                    tracing::warn!(glass = %glass.id, "the review of a broken glass is overdue");
                    self.glass_changed(glass, version + 1, at);
                }
                // Another node said it, or somebody closed it: that follows.
                Err(TransactError::Conflict { .. }) => {}
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "that a review is overdue could not be recorded; trying again"
                ),
            }
        }
    }

    pub(crate) fn keep_watching_glasses(site: &Weak<Self>, stop: &Stop) {
        while !stop.wait(LOOK_EVERY) {
            let Some(site) = site.upgrade() else { return };
            site.escalate_glasses();
        }
    }
}

/// Tells the screens of whoever may know.
pub(crate) fn tell(site: &Site, glass: &BreakGlass) {
    site.live().happened(happening(glass));
}

/// The event of a change.
pub(crate) fn happening(glass: &BreakGlass) -> Happening {
    Happening::BreakGlass { id: glass.id, by: glass.by, patient: glass.patient, state: GlassState::of(glass) }
}

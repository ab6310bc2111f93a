//! Rules that keep those who treat a patient from seeing something: written by the patient as they like, by others with a
//! fresh second factor and a reason; and who may withdraw a rule that keeps themselves out.

use clinical_model::{
    Consent, ConsentAction, ConsentActor, ConsentStatus, PatientId, Provision, Purpose, Ruling,
};
use pipeline::consents::Kept;
use store::{AuditAction, AuditOutcome};

use crate::access::{Access, is_kept_out};
use crate::people::Role;
use crate::problem::{Code, Problem};
use crate::session::Current;
use crate::state::Web;

/// Longest reason, in characters.
const REASON_LIMIT_CHARS: usize = 500;

/// Why somebody may not change a consent.
pub(crate) const KEPT_OUT: &str = "this rule keeps something from you; the patient changes it, an administrator, or \
                                   somebody whom it does not concern";
/// Why somebody may not write one.
const KEPT_OUT_TOO: &str = "a rule of the patient keeps something from you, and so you shut out nobody else in their \
                            name; the patient does, or somebody whom it does not concern";

/// Whether a consent keeps anybody who treats patients from seeing something for that.
pub(crate) fn shuts_out(web: &Web, consent: &Consent) -> bool {
    consent.status == ConsentStatus::Active
        && (consent.base == Some(Ruling::Deny)
            || consent.provision.as_ref().is_some_and(|rule| denies_treatment(web, rule)))
}

fn denies_treatment(web: &Web, rule: &Provision) -> bool {
    let treats = |role: Role| matches!(role, Role::Nurse | Role::Physician);
    let is_meant = |actor: &ConsentActor| match actor {
        ConsentActor::Person(id) => web.people.by_id(*id).is_some_and(|user| treats(user.role)),
        ConsentActor::Role(word) => Role::by_word(word).is_some_and(treats),
        ConsentActor::Ward(_) | ConsentActor::CareTeam(_) => true,
        ConsentActor::Caregiver(_) | ConsentActor::Patient(_) | ConsentActor::Program(_) => false,
    };
    let treatment = [Purpose::Treatment, Purpose::Emergency];
    let is_denied = rule.ruling == Ruling::Deny
        && (rule.actors.is_empty() || rule.actors.iter().any(is_meant))
        && (rule.purposes.is_empty() || rule.purposes.iter().any(|purpose| treatment.contains(purpose)))
        && (rule.actions.is_empty() || rule.actions.contains(&ConsentAction::Access));
    is_denied || rule.except.iter().any(|one| denies_treatment(web, one))
}

/// Whether it is the patient who asks.
pub(crate) fn is_themselves(access: &Access, patient: PatientId) -> bool {
    access.person().is_some_and(|user| user.role == Role::Patient && user.patient == Some(patient))
}

/// Whether it counts as the word of the patient: all but what is known to be written by somebody else.
pub(crate) fn is_of_patient(kept: &Kept) -> bool {
    !kept.performer.as_ref().is_some_and(|who| who.starts_with("Practitioner/"))
}

/// Passes a rule that is written, or that takes the place of another, with the reason for the record; that of somebody else
/// than the patient has to be proven where it shuts out who treats them, and where it changes what the patient said.
pub(super) fn written(
    web: &Web,
    (access, current): (&Access, &Current),
    (before, consent): (Option<&Kept>, &Consent),
    reason: Option<&str>,
) -> Result<Option<String>, Problem> {
    let (shuts, changes) = (shuts_out(web, consent), before.is_some_and(is_of_patient));
    if is_themselves(access, consent.patient) || !(shuts || changes) {
        return Ok(None);
    }
    let of_patient = web.site.consents().of(consent.patient);
    let keeps_out = |kept: &Kept| {
        kept.consent.status == ConsentStatus::Active
            && is_of_patient(kept)
            && is_kept_out(access, &kept.consent)
    };
    if let Some(kept) = of_patient.iter().find(|kept| shuts && keeps_out(kept)) {
        return Err(refused(web, access, kept, KEPT_OUT_TOO)?);
    }
    proven(web, current, reason).map(Some)
}

/// Passes a withdrawal, with the reason for the record where one is needed: of what the patient said, by anybody else whom
/// it does not keep out, and of what others wrote, by whom it keeps out. Who wrote a rule withdraws it plainly.
pub(super) fn withdrawn(
    web: &Web,
    (access, current): (&Access, &Current),
    kept: &Kept,
    reason: Option<&str>,
) -> Result<Option<String>, Problem> {
    let own = access.user().map(|user| format!("Practitioner/{user}"));
    if is_themselves(access, kept.consent.patient) || (own.is_some() && own == kept.performer) {
        return Ok(None);
    }
    match (is_of_patient(kept), is_kept_out(access, &kept.consent)) {
        (true, true) => Err(refused(web, access, kept, KEPT_OUT)?),
        (true, false) | (false, true) => proven(web, current, reason).map(Some),
        (false, false) => Ok(None),
    }
}

/// A refusal, recorded.
pub(super) fn refused(web: &Web, access: &Access, kept: &Kept, why: &str) -> Result<Problem, Problem> {
    let act = access.act(AuditAction::Consent, "Consent").patient(kept.consent.patient);
    web.site.record(act.detail(format!("{} keeps them out", kept.consent.id)), AuditOutcome::Refused)?;
    Ok(Problem::new(Code::Forbidden, why))
}

/// The reason, of somebody whose second factor was used just now.
fn proven(web: &Web, current: &Current, reason: Option<&str>) -> Result<String, Problem> {
    let now = web.site.clock().now();
    if !current.is_fresh(now) {
        // Another node may have seen the second factor a moment ago.
        let looked = web.sessions.look(&current.hash, now, false)?;
        looked.as_ref().unwrap_or(current).require_fresh(now)?;
    }
    let reason = reason.map(str::trim).unwrap_or_default();
    if reason.is_empty() || reason.chars().count() > REASON_LIMIT_CHARS {
        let what = format!(
            "a rule about who treats the patient needs a \"reason\" of 1 to {REASON_LIMIT_CHARS} characters where it is not \
             the patient who writes or withdraws it; the patient reads it"
        );
        return Err(Problem::new(Code::ReasonNeeded, what));
    }
    Ok(reason.to_owned())
}

//! What patients allow, as [`super::Sight`] asks it.

use ::access::consent::{Allowed, Asker, Wards, keeps_out};
use clinical_model::{Consent, ConsentAction, PatientId, Purpose, UserId};

use super::{Access, Who};
use crate::people::{Role, User};
use crate::state::Web;

/// Who asks, as consents can name them.
fn asker_of(access: &Access) -> Asker<'_> {
    let program = access.program();
    let Some(user) = access.person() else { return Asker { program, ..Asker::NOBODY } };
    Asker {
        user: Some(user.id),
        role: Some(user.role.word()),
        wards: wards_of(user),
        care_teams: &user.care_teams,
        program,
        patient: user.patient.filter(|_| user.role == Role::Patient),
    }
}

/// No list of wards means all of them for those who work here, and none for anybody else.
fn wards_of(user: &User) -> Wards<'_> {
    match &user.wards {
        Some(wards) => Wards::These(wards),
        None if user.role.is_staff() => Wards::All,
        None => Wards::These(&[]),
    }
}

/// What is done with what they are shown: what a program gets has left the house.
const fn action_of(access: &Access) -> ConsentAction {
    if access.discloses { ConsentAction::Disclose } else { ConsentAction::Access }
}

/// What the consents of a patient leave to whoever asks.
pub(super) fn allowed(web: &Web, access: &Access, patient: PatientId) -> Allowed {
    web.site.consented(patient, &asker_of(access), access.purpose(), action_of(access))
}

/// Whether a consent keeps something from whoever asks, so that they may neither change nor withdraw it: that is for the
/// patient, for an administrator, or for somebody whom it does not concern.
pub(crate) fn is_kept_out(access: &Access, consent: &Consent) -> bool {
    let asker = asker_of(access);
    let is_theirs = asker.patient == Some(consent.patient);
    let administers = asker.role == Some(Role::Administrator.word());
    !is_theirs && !administers && keeps_out(consent, &asker, access.purpose())
}

/// Whether this person broke the glass for this patient, and the time runs. It is lifted for the person at the screen,
/// not for the programs that they let in.
pub(super) fn glass_is_broken(web: &Web, access: &Access, patient: PatientId) -> bool {
    matches!(access.who(), Who::Person(user) if web.site.broken_glass(user.id, patient).is_some())
}

/// The patients who named this caregiver, and of whom they may see anything now.
pub(super) fn cares_for(web: &Web, user: UserId) -> Vec<PatientId> {
    let asker = Asker { user: Some(user), role: Some(Role::Caregiver.word()), ..Asker::NOBODY };
    let mut patients = web.site.consents().named(user);
    patients.retain(|patient| {
        !web.site.consented(*patient, &asker, Purpose::FamilyRequest, ConsentAction::Access).is_none()
    });
    patients
}

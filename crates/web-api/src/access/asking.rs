//! What a request brings along by itself: its usual purpose, and the scopes of a certificate.

use std::sync::Arc;

use ::access::scopes::{Ceiling, Scopes};
use clinical_model::Purpose;
use pipeline::Peer;

use super::Who;
use crate::people::{Role, User};
use crate::state::Web;

/// Why somebody asks who does not say it.
pub(crate) fn purpose_of(who: &Who) -> Purpose {
    let of_person = |user: &User| match user.role {
        Role::Physician | Role::Nurse => Purpose::Treatment,
        Role::Patient => Purpose::PatientRequest,
        Role::Caregiver => Purpose::FamilyRequest,
        Role::Administrator | Role::BiomedicalEngineer | Role::Auditor | Role::Integrator => {
            Purpose::Operations
        }
    };
    match who {
        Who::Person(user) => of_person(user),
        Who::App(app) => app.user.as_ref().map_or(Purpose::Treatment, of_person),
        Who::Peer(_) => Purpose::Treatment,
    }
}

/// How far the registration of a program's certificate reaches. What cannot be read reaches nowhere.
pub(super) fn ceiling_of(web: &Web, peer: &Peer) -> Option<Arc<Ceiling>> {
    #[cfg(feature = "bench-off")]
    if super::is_off() {
        return None;
    }
    let Peer::Program(name) = peer else { return None };
    let text = web.site.admission().program_scopes(name).join(" ");
    let scopes = text.parse::<Scopes>().unwrap_or_else(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            program = name,
            "its scopes cannot be read"
        );
        Scopes::default()
    });
    Some(Arc::new(Ceiling { scopes, patient: None }))
}

//! Which role holds which permission, written down a second time by hand: the policies must say the same.

use std::sync::Arc;

use web_api::Role;
use web_api::access::Permission;

/// Whether a role holds a permission at this house.
pub fn holds(role: Role, permission: Permission) -> bool {
    use Permission as P;
    use Role::{
        Administrator, Auditor, BiomedicalEngineer, Caregiver, Integrator, Nurse, Patient, Physician,
    };
    match permission {
        P::Open | P::SignedIn | P::SendBundle => true,
        P::SeePlaces => !matches!(role, Patient | Caregiver),
        P::ReadChart => matches!(role, Administrator | Physician | Nurse | Patient | Caregiver),
        P::ActOnAlerts | P::CorrectChart | P::BreakGlass => matches!(role, Physician | Nurse),
        P::AdmitPatients => matches!(role, Administrator | Physician | Nurse),
        P::ReadDevices => matches!(role, Administrator | Physician | Nurse | BiomedicalEngineer | Integrator),
        P::ManageDevices | P::EnrolDevices => matches!(role, Administrator | BiomedicalEngineer),
        P::AssignDevices => matches!(role, Administrator | Nurse | Physician | BiomedicalEngineer),
        P::MendQuarantine => matches!(role, Administrator | Nurse | BiomedicalEngineer),
        P::ReadAudit | P::ReviewBreakGlass => matches!(role, Administrator | Auditor),
        P::ManageApps => matches!(role, Administrator | Integrator),
        P::ReadConsents => matches!(role, Administrator | Physician | Nurse | Patient | Caregiver),
        P::ManageConsents => matches!(role, Administrator | Physician | Nurse | Patient),
        P::ExportPatient => matches!(role, Administrator | Physician | Patient),
        P::ManagePeople
        | P::ManagePolicies
        | P::ManageIdentityProvider
        | P::ManageDefaults
        | P::EraseData
        | P::ManageRetention
        | P::ManageKeys => matches!(role, Administrator),
        P::SendMeasurements => false,
    }
}

#[test]
fn the_policies_give_every_role_what_is_written_down_here_and_nothing_else() {
    let engine = Arc::new(access::Engine::built_in().unwrap());
    for permission in Permission::ALL {
        let by_policy = access::engine::holders(&engine, *permission);
        let by_hand: Vec<Role> = Role::ALL.iter().copied().filter(|role| holds(*role, *permission)).collect();
        assert_eq!(by_policy, by_hand, "{permission}");
    }
}

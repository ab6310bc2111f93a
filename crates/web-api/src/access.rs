//! Access: what a role may do, and whose patients a person may see. Deny by default.

use clinical_model::{Patient, PatientId, PlaceId, UserId};
use pipeline::{Peer, Registry};
use store::Actor;

use crate::people::{Role, User};

/// What an operation needs. A role holds a fixed set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Nothing but the network: sign-in, setup, the web app itself, the capability statement.
    Open,
    /// A session of any role.
    SignedIn,
    /// See patients, their readings and alerts.
    ReadChart,
    /// Answer alerts, set limits.
    ActOnAlerts,
    /// Admit patients.
    AdmitPatients,
    /// See devices.
    ReadDevices,
    /// Register devices, change their clock rules, take them out of service.
    ManageDevices,
    /// Assign devices to patients and places.
    AssignDevices,
    /// See and mend quarantine.
    MendQuarantine,
    /// See the audit log.
    ReadAudit,
    /// See and add people, places.
    ManagePeople,
    /// Send measurements.
    SendMeasurements,
    /// Put right what is charted, or take it out.
    CorrectChart,
    /// Send a batch or a transaction; each entry needs the permission of what it does.
    SendBundle,
}

impl Role {
    /// Whether the role holds a permission.
    pub const fn holds(self, permission: Permission) -> bool {
        use Permission as P;
        match permission {
            P::Open | P::SignedIn => true,
            P::ReadChart => matches!(self, Role::Administrator | Role::Physician | Role::Nurse),
            P::ActOnAlerts => matches!(self, Role::Physician | Role::Nurse),
            P::AdmitPatients => matches!(self, Role::Administrator | Role::Physician | Role::Nurse),
            P::ReadDevices => {
                matches!(self, Role::Administrator | Role::Physician | Role::Nurse | Role::BiomedicalEngineer)
            }
            P::ManageDevices => matches!(self, Role::Administrator | Role::BiomedicalEngineer),
            P::AssignDevices => {
                matches!(self, Role::Administrator | Role::Nurse | Role::Physician | Role::BiomedicalEngineer)
            }
            P::MendQuarantine => matches!(self, Role::Administrator | Role::Nurse | Role::BiomedicalEngineer),
            P::ReadAudit => matches!(self, Role::Administrator | Role::Auditor),
            P::ManagePeople => matches!(self, Role::Administrator),
            P::SendMeasurements => false,
            P::CorrectChart => matches!(self, Role::Physician | Role::Nurse),
            P::SendBundle => true,
        }
    }
}

/// Who asks, and what they may.
#[derive(Clone, Debug)]
pub enum Access {
    /// A person with a session.
    Person(User),
    /// A device or a program with a certificate.
    Peer(Peer),
}

impl Access {
    /// Who, for the audit log.
    pub fn actor(&self) -> Actor {
        match self {
            Access::Person(user) => Actor::User(user.id),
            Access::Peer(Peer::Device(device)) => Actor::Device(*device),
            Access::Peer(Peer::Program(name)) => Actor::Program(name.clone()),
        }
    }

    /// The person, where it is one.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Access::Person(user) => Some(user.id),
            Access::Peer(_) => None,
        }
    }

    /// Whether an operation that needs `permission` may be tried at all.
    pub fn holds(&self, permission: Permission) -> bool {
        match self {
            Access::Person(user) => user.role.holds(permission),
            Access::Peer(Peer::Program(_)) => matches!(
                permission,
                Permission::Open
                    | Permission::ReadChart
                    | Permission::ReadDevices
                    | Permission::ReadAudit
                    | Permission::SendMeasurements
                    | Permission::CorrectChart
                    | Permission::AdmitPatients
                    | Permission::ManageDevices
                    | Permission::AssignDevices
                    | Permission::SendBundle
            ),
            Access::Peer(Peer::Device(_)) => {
                matches!(permission, Permission::Open | Permission::SendMeasurements | Permission::SendBundle)
            }
        }
    }

    /// Whether a ward is theirs.
    pub fn may_see_ward(&self, ward: PlaceId) -> bool {
        match self {
            Access::Person(user) => user.wards.as_ref().is_none_or(|wards| wards.contains(&ward)),
            Access::Peer(Peer::Program(_)) => true,
            Access::Peer(Peer::Device(_)) => false,
        }
    }

    /// Whether a patient is theirs: one of their wards, or all. A patient without a place is seen by those who see all.
    pub fn may_see(&self, registry: &Registry, patient: &Patient) -> bool {
        match registry.ward_of(patient) {
            Some(ward) => self.may_see_ward(ward),
            None => match self {
                Access::Person(user) => user.wards.is_none(),
                Access::Peer(Peer::Program(_)) => true,
                Access::Peer(Peer::Device(_)) => false,
            },
        }
    }

    /// As [`Access::may_see`], by id; false for a patient who is not there, so that ids cannot be tried out.
    pub fn may_see_id(&self, registry: &Registry, patient: PatientId) -> bool {
        registry.patient(patient).is_some_and(|patient| self.may_see(registry, &patient))
    }
}

//! The roles of people, in the field's words.

use serde::{Deserialize, Serialize};

/// What a person does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the site.
    Administrator,
    /// Physician.
    Physician,
    /// Nurse.
    Nurse,
    /// Looks after the devices.
    BiomedicalEngineer,
    /// Looks after the log.
    Auditor,
    /// A patient who sees what is measured of them.
    Patient,
    /// Somebody whom patients named to see what is measured of them.
    Caregiver,
    /// Connects other programs.
    Integrator,
}

impl Role {
    /// Every role.
    pub const ALL: &'static [Role] = &[
        Role::Administrator,
        Role::Physician,
        Role::Nurse,
        Role::BiomedicalEngineer,
        Role::Auditor,
        Role::Patient,
        Role::Caregiver,
        Role::Integrator,
    ];

    /// The role as policies and programs write it.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Administrator => "administrator",
            Role::Physician => "physician",
            Role::Nurse => "nurse",
            Role::BiomedicalEngineer => "biomedical-engineer",
            Role::Auditor => "auditor",
            Role::Patient => "patient",
            Role::Caregiver => "caregiver",
            Role::Integrator => "integrator",
        }
    }

    /// The role of a word.
    pub fn by_word(word: &str) -> Option<Role> {
        Role::ALL.iter().copied().find(|role| role.word() == word)
    }

    /// Whether the role works at the site: only then wards can be theirs, and no list of wards means all of them.
    /// Patients and caregivers see persons, never wards.
    pub const fn is_staff(self) -> bool {
        !matches!(self, Role::Patient | Role::Caregiver)
    }
}

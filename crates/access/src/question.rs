//! A question for the policies: who asks, about what, under which circumstances.

use clinical_model::{DeviceId, PatientId, PlaceId, UserId};

use crate::role::Role;

/// A person who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// What they do here.
    pub role: Role,
    /// The wards that are theirs; `None`: all, for those who work here.
    pub wards: Option<Vec<PlaceId>>,
    /// The care teams they belong to.
    pub care_teams: Vec<String>,
    /// Themselves, where the person is a patient.
    pub patient: Option<PatientId>,
    /// Patients who named this person as their caregiver.
    pub cares_for: Vec<PatientId>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A person.
    Person(Person),
    /// A program with a certificate or a token of its own.
    Program {
        /// Its name at this site.
        name: String,
    },
    /// A device with a certificate.
    Device(DeviceId),
    /// A gateway with a certificate.
    Gateway {
        /// Its name at this site.
        name: String,
    },
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Nothing in particular: whether it may be tried at all.
    Site,
    /// A ward.
    Ward(PlaceId),
    /// A bed, a home or a room.
    Place {
        /// Which.
        id: PlaceId,
        /// The ward it belongs to.
        ward: Option<PlaceId>,
    },
    /// A patient.
    Patient {
        /// Which.
        id: PatientId,
        /// The ward where they lie.
        ward: Option<PlaceId>,
    },
    /// A device.
    Device {
        /// Which.
        id: DeviceId,
        /// The ward where it stands or whose patient it serves.
        ward: Option<PlaceId>,
    },
}

/// What the patient's consents say about this question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConsentOutcome {
    /// They permit it.
    Permit,
    /// They deny it.
    Deny,
    /// They say nothing about it.
    #[default]
    Silent,
}

impl ConsentOutcome {
    /// As policies write it.
    pub const fn word(self) -> &'static str {
        match self {
            ConsentOutcome::Permit => "permit",
            ConsentOutcome::Deny => "deny",
            ConsentOutcome::Silent => "none",
        }
    }
}

/// Under which circumstances it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Circumstances {
    /// Purpose of use, a code of HL7's PurposeOfUse: `TREAT`, `ETREAT`, `PATRQT`, `HRESCH`, …
    pub purpose: String,
    /// Seconds since the second factor was used; `None`: no person, or never.
    pub mfa_age_s: Option<u32>,
    /// Whether the person broke the glass for this patient, and the time runs.
    pub break_glass: bool,
    /// What consent says.
    pub consent: ConsentOutcome,
    /// The class of data that is asked about; `None`: the patient at all.
    pub data_class: Option<&'static str>,
    /// Whether the scopes of a token or a registration reach this far; `true` where there are none.
    pub within_scope: bool,
}

impl Default for Circumstances {
    fn default() -> Self {
        Circumstances {
            purpose: "TREAT".to_owned(),
            mfa_age_s: None,
            break_glass: false,
            consent: ConsentOutcome::Silent,
            data_class: None,
            within_scope: true,
        }
    }
}

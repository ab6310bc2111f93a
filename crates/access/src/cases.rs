//! Cases that policies must decide as written: what an administrator tests their policies with.

use clinical_model::{DataClass, DeviceId, PatientId, PlaceId, UserId};
use serde::Deserialize;

use crate::engine::{Decision, Engine};
use crate::permission::Permission;
use crate::question::{Circumstances, ConsentOutcome, Person, Principal, Resource};
use crate::role::Role;

/// Cases of one file.
pub const CASES_LIMIT: usize = 10_000;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The cases.
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// Who asks: `role`, `program`, `device` or `gateway`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Who {
    /// A person's role.
    pub role: Option<String>,
    /// A person's id, where a policy names it.
    pub user: Option<UserId>,
    /// The wards of a person; left out: all.
    pub wards: Option<Vec<PlaceId>>,
    /// The care teams of a person.
    pub care_teams: Vec<String>,
    /// The patient that the person is.
    pub patient: Option<PatientId>,
    /// The patients who named the person.
    pub cares_for: Vec<PatientId>,
    /// The name of a program.
    pub program: Option<String>,
    /// The id of a device.
    pub device: Option<DeviceId>,
    /// The name of a gateway.
    pub gateway: Option<String>,
}

/// What is asked about: nothing (the site), or one of these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct On {
    /// A patient.
    pub patient: Option<PatientId>,
    /// A ward; beside a patient, a place or a device: where it is.
    pub ward: Option<PlaceId>,
    /// A place.
    pub place: Option<PlaceId>,
    /// A device.
    pub device: Option<DeviceId>,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, in a sentence.
    pub name: String,
    /// Who asks.
    pub who: Who,
    /// The action's name.
    pub action: String,
    /// What is asked about.
    #[serde(default)]
    pub on: On,
    /// Purpose of use; left out: `TREAT`.
    pub purpose: Option<String>,
    /// `permit`, `deny` or `none`.
    pub consent: Option<String>,
    /// The class of data.
    pub data_class: Option<String>,
    /// Whether the glass was broken.
    #[serde(default)]
    pub break_glass: bool,
    /// Seconds since the second factor was used.
    pub mfa_age_s: Option<u32>,
    /// Whether the scopes reach this far; left out: they do.
    pub within_scope: Option<bool>,
    /// What must be decided.
    pub allow: bool,
}

/// What is wrong with a case itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// No such action.
    #[error("there is no action \"{action}\"; there are: {}", all(Permission::ALL.iter().map(|one| one.word())))]
    Action {
        /// What was written.
        action: String,
    },
    /// No such role.
    #[error("there is no role \"{role}\"; there are: {}", all(Role::ALL.iter().map(|one| one.word())))]
    Role {
        /// What was written.
        role: String,
    },
    /// Nobody, or several.
    #[error("exactly one of role, program, device and gateway says who asks")]
    Who,
    /// Several resources.
    #[error("at most one of patient, place and device says what is asked about")]
    On,
    /// No such word.
    #[error("consent is permit, deny or none, and not \"{consent}\"")]
    Consent {
        /// What was written.
        consent: String,
    },
    /// No such class.
    #[error("there is no class of data \"{class}\"; there are: {}", all(DataClass::ALL.iter().map(|one| one.code())))]
    Class {
        /// What was written.
        class: String,
    },
}

fn all(words: impl Iterator<Item = &'static str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

impl Who {
    /// As the policies know them.
    ///
    /// # Errors
    /// [`CaseError`] for nobody, for several, and for an unknown role.
    pub fn principal(&self) -> Result<Principal, CaseError> {
        match (&self.role, &self.program, self.device, &self.gateway) {
            (Some(word), None, None, None) => {
                let role = Role::by_word(word).ok_or_else(|| CaseError::Role { role: word.clone() })?;
                Ok(Principal::Person(Person {
                    id: self.user.unwrap_or(UserId::from_bytes([0; 16])),
                    role,
                    wards: self.wards.clone(),
                    care_teams: self.care_teams.clone(),
                    patient: self.patient,
                    cares_for: self.cares_for.clone(),
                }))
            }
            (None, Some(name), None, None) => Ok(Principal::Program { name: name.clone() }),
            (None, None, Some(device), None) => Ok(Principal::Device(device)),
            (None, None, None, Some(name)) => Ok(Principal::Gateway { name: name.clone() }),
            _ => Err(CaseError::Who),
        }
    }
}

impl On {
    /// As the policies know it.
    ///
    /// # Errors
    /// [`CaseError::On`] for several.
    pub fn resource(&self) -> Result<Resource, CaseError> {
        let ward = self.ward;
        match (self.patient, self.place, self.device) {
            (Some(id), None, None) => Ok(Resource::Patient { id, ward }),
            (None, Some(id), None) => Ok(Resource::Place { id, ward }),
            (None, None, Some(id)) => Ok(Resource::Device { id, ward }),
            (None, None, None) => Ok(ward.map_or(Resource::Site, Resource::Ward)),
            _ => Err(CaseError::On),
        }
    }
}

impl Case {
    /// What the policies decide.
    ///
    /// # Errors
    /// [`CaseError`] where the case itself makes no sense.
    pub fn decide(&self, engine: &Engine) -> Result<Decision, CaseError> {
        let action = Permission::by_word(&self.action)
            .ok_or_else(|| CaseError::Action { action: self.action.clone() })?;
        let consent = match self.consent.as_deref() {
            None | Some("none") => ConsentOutcome::Silent,
            Some("permit") => ConsentOutcome::Permit,
            Some("deny") => ConsentOutcome::Deny,
            Some(other) => return Err(CaseError::Consent { consent: other.to_owned() }),
        };
        let data_class = match &self.data_class {
            None => None,
            Some(code) => {
                let class = DataClass::by_code(code);
                Some(class.ok_or_else(|| CaseError::Class { class: code.clone() })?.code())
            }
        };
        let asked = Circumstances {
            purpose: self.purpose.clone().unwrap_or_else(|| "TREAT".to_owned()),
            mfa_age_s: self.mfa_age_s,
            break_glass: self.break_glass,
            consent,
            data_class,
            within_scope: self.within_scope.unwrap_or(true),
        };
        Ok(engine.decide(&self.who.principal()?, action, &self.on.resource()?, &asked))
    }
}

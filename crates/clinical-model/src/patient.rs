//! A patient: who it is, by what number, and in which bed or home.

use serde::{Deserialize, Serialize};

use crate::id::{PatientId, PlaceId};
use crate::private::Private;

/// Administrative gender, as in FHIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gender {
    /// Male.
    Male,
    /// Female.
    Female,
    /// Other.
    Other,
    /// Not known.
    Unknown,
}

/// A patient of this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patient {
    /// Our id.
    pub id: PatientId,
    /// Family name.
    pub family: Private<String>,
    /// Given name or names.
    pub given: Private<String>,
    /// Date of birth as YYYY-MM-DD.
    pub birth_date: Option<Private<String>>,
    /// Administrative gender.
    pub gender: Gender,
    /// Medical record number of this site.
    pub record_number: Private<String>,
    /// The bed or home.
    pub place: Option<PlaceId>,
    /// Whether the patient is in care here now.
    pub active: bool,
}

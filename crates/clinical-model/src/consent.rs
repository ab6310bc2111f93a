//! Consent: what a patient permits and denies, to whom, for what purpose, of which data, and when.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ConsentId, PatientId, PlaceId, UserId};
use crate::measure::{Category, Measure, MeasureKind};
use crate::time::Timestamp;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$row_doc:meta])* $variant:ident = $code:literal, $display:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$row_doc])* #[serde(rename = $code)] $variant,)* }

        impl $name {
            /// Every one, in the order of the table.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The code.
            pub const fn code(self) -> &'static str {
                match self { $($name::$variant => $code),* }
            }

            /// What a person reads.
            pub const fn display(self) -> &'static str {
                match self { $($name::$variant => $display),* }
            }

            /// By its code.
            pub fn by_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.code() == code)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.code())
            }
        }
    };
}

words! {
    /// A class of data that a patient can permit or deny as a whole. Every measure has exactly one.
    DataClass {
        /// Who the patient is, and where they lie.
        Record = "record", "Who you are and where you are cared for";
        /// Vital signs.
        VitalSigns = "vital-signs", "Vital signs";
        /// Curves.
        Waveforms = "waveforms", "Curves (ECG, pulse, breathing)";
        /// Glucose and other laboratory values.
        Glucose = "glucose", "Blood glucose";
        /// Doses.
        Medication = "medication", "Doses of medicine";
        /// Activity and calls.
        Activity = "activity", "Activity";
        /// Where a tag of the patient was seen.
        Location = "location", "Where you were";
        /// Scores given by a person.
        Scores = "scores", "Scores";
        /// Battery, alarms and gaps of the devices.
        Device = "device", "How your devices work";
    }
}

impl DataClass {
    /// The class of a measure.
    pub fn of(measure: Measure) -> Self {
        use crate::measure as m;
        match measure.kind {
            MeasureKind::Waveform => return DataClass::Waveforms,
            MeasureKind::Event if measure == m::DOSE => return DataClass::Medication,
            MeasureKind::Event if measure == m::TAG_SIGHTING => return DataClass::Location,
            MeasureKind::Event if measure == m::PATIENT_CALL => return DataClass::Activity,
            MeasureKind::Event => return DataClass::Device,
            _ => {}
        }
        match measure.category {
            Category::VitalSigns => DataClass::VitalSigns,
            Category::Laboratory => DataClass::Glucose,
            Category::Activity => DataClass::Activity,
            Category::Survey => DataClass::Scores,
            // From the heart, by whatever instrument.
            Category::Procedure if measure == m::RR_INTERVAL => DataClass::VitalSigns,
            Category::Procedure => DataClass::Device,
        }
    }

    /// The measures of the class.
    pub fn measures(self) -> impl Iterator<Item = Measure> {
        Measure::all().filter(move |measure| DataClass::of(*measure) == self)
    }
}

words! {
    /// Why somebody wants to see data: codes of HL7 v3 ActReason.
    Purpose {
        /// Treatment.
        Treatment = "TREAT", "Treatment";
        /// Treatment in an emergency.
        Emergency = "ETREAT", "Emergency treatment";
        /// The glass was broken.
        BreakGlass = "BTG", "Break the glass";
        /// Payment.
        Payment = "HPAYMT", "Payment";
        /// Running the site.
        Operations = "HOPERAT", "Running the hospital";
        /// Research.
        Research = "HRESCH", "Research";
        /// Public health.
        PublicHealth = "PUBHLTH", "Public health";
        /// The patient asked for it.
        PatientRequest = "PATRQT", "At your own request";
        /// The family asked for it.
        FamilyRequest = "FAMRQT", "At the request of family or caregivers";
    }
}

words! {
    /// What is done with data.
    ConsentAction {
        /// A person looks at it.
        Access = "access", "See";
        /// It leaves the house: a program reads it, it is exported, it is sent to a subscriber.
        Disclose = "disclose", "Give to programs";
    }
}

words! {
    /// What a provision says.
    Ruling {
        /// Permitted.
        Permit = "permit", "May";
        /// Denied.
        Deny = "deny", "May not";
    }
}

words! {
    /// How far a consent is; only an active one says anything.
    ConsentStatus {
        /// Being written.
        Draft = "draft", "Draft";
        /// Shown to the patient.
        Proposed = "proposed", "Proposed";
        /// In force.
        Active = "active", "In force";
        /// Not agreed to.
        Rejected = "rejected", "Rejected";
        /// Withdrawn or over.
        Inactive = "inactive", "Withdrawn";
        /// Never meant.
        EnteredInError = "entered-in-error", "Entered in error";
    }
}

/// To whom a provision applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "kebab-case")]
pub enum ConsentActor {
    /// A person of the staff.
    Person(UserId),
    /// A person whom the patient named to look after them.
    Caregiver(UserId),
    /// Everybody of a role, by its name.
    Role(String),
    /// Everybody whose ward it is.
    Ward(PlaceId),
    /// Everybody in a care team, by its name.
    CareTeam(String),
    /// A program, by its name.
    Program(String),
    /// A patient.
    Patient(PatientId),
}

/// One rule, with its exceptions. An empty list means any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// What it says.
    pub ruling: Ruling,
    /// From when on; `None`: always.
    pub from: Option<Timestamp>,
    /// First instant at which it no longer holds; `None`: for ever.
    pub until: Option<Timestamp>,
    /// To whom.
    pub actors: Vec<ConsentActor>,
    /// Doing what.
    pub actions: Vec<ConsentAction>,
    /// For what.
    pub purposes: Vec<Purpose>,
    /// Of which classes of data.
    pub classes: Vec<DataClass>,
    /// Of which measures; with classes as well: only what is in both.
    pub measures: Vec<Measure>,
    /// Exceptions: they hold within this rule, and say the last word there.
    pub except: Vec<Provision>,
}

impl Provision {
    /// A rule for everybody, everything and always.
    pub fn of(ruling: Ruling) -> Self {
        Provision {
            ruling,
            from: None,
            until: None,
            actors: Vec::new(),
            actions: Vec::new(),
            purposes: Vec::new(),
            classes: Vec::new(),
            measures: Vec::new(),
            except: Vec::new(),
        }
    }

    /// Whether it holds at an instant.
    pub fn holds_at(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }

    /// Itself and all its exceptions.
    pub fn count(&self) -> usize {
        1 + self.except.iter().map(Provision::count).sum::<usize>()
    }

    /// How many levels there are: 1 without exceptions.
    pub fn depth(&self) -> usize {
        1 + self.except.iter().map(Provision::depth).max().unwrap_or(0)
    }
}

/// What a patient consented to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// Our id.
    pub id: ConsentId,
    /// Whose data it is about.
    pub patient: PatientId,
    /// How far it is.
    pub status: ConsentStatus,
    /// When it was given.
    pub dated_at: Option<Timestamp>,
    /// What it says about everything that its provision does not touch.
    pub base: Option<Ruling>,
    /// What it says.
    pub provision: Option<Provision>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure;

    #[test]
    fn every_measure_has_a_class_and_none_is_the_record() {
        for one in Measure::all() {
            assert_ne!(DataClass::of(one), DataClass::Record, "{one:?}");
        }
        for class in DataClass::ALL.iter().filter(|class| **class != DataClass::Record) {
            assert!(class.measures().next().is_some(), "{class}");
            assert_eq!(DataClass::by_code(class.code()), Some(*class));
        }
        assert_eq!(DataClass::of(measure::DOSE), DataClass::Medication);
        assert_eq!(DataClass::of(measure::ECG_II), DataClass::Waveforms);
        assert_eq!(DataClass::of(measure::GLUCOSE), DataClass::Glucose);
        assert_eq!(DataClass::of(measure::TAG_SIGHTING), DataClass::Location);
    }

    #[test]
    fn components_are_of_the_class_of_their_panel() {
        for one in Measure::all() {
            if let Some(panel) = one.panel() {
                assert_eq!(DataClass::of(one), DataClass::of(panel), "{one:?}");
            }
        }
    }
}

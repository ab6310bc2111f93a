//! Consent: what the consents of a patient leave to whoever asks.
//!
//! [`Table::compile`] turns the consents of one patient into a decision table once; [`Table::rule`] asks it, for all
//! data at once. Within a consent the exceptions of a rule say the last word, however deep; beside each other, within
//! a rule and among consents, a denial wins. What no consent speaks of is left to the defaults of the site.

mod items;
mod table;

pub use items::Items;
pub use table::{
    CONSENTS_LIMIT, CompileError, LEVELS_LIMIT, PROVISIONS_LIMIT, Ruled, Table, check, keeps_out,
};

use std::collections::BTreeMap;

use clinical_model::{
    ConsentAction, DataClass, Measure, PatientId, PlaceId, Purpose, Ruling, Timestamp, UserId,
};

/// The wards of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wards<'a> {
    /// All of them.
    All,
    /// These.
    These(&'a [PlaceId]),
}

impl Wards<'_> {
    /// Whether a ward is among them.
    pub fn contains(self, ward: PlaceId) -> bool {
        match self {
            Wards::All => true,
            Wards::These(wards) => wards.contains(&ward),
        }
    }
}

/// Who asks, as far as a consent can name them.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The person.
    pub user: Option<UserId>,
    /// Their role: `nurse`.
    pub role: Option<&'a str>,
    /// Their wards.
    pub wards: Wards<'a>,
    /// The care teams they are in.
    pub care_teams: &'a [String],
    /// The program through which they ask, or that asks.
    pub program: Option<&'a str>,
    /// The patient that they are.
    pub patient: Option<PatientId>,
}

impl Asker<'_> {
    /// Nobody in particular.
    pub const NOBODY: Asker<'static> = Asker {
        user: None,
        role: None,
        wards: Wards::These(&[]),
        care_teams: &[],
        program: None,
        patient: None,
    };
}

/// Why somebody asks, and what they are about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Why.
    pub purpose: Purpose,
    /// What.
    pub action: ConsentAction,
    /// When.
    pub at: Timestamp,
}

/// What a site does where no consent speaks: by purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults(BTreeMap<Purpose, Ruling>);

impl Default for Defaults {
    fn default() -> Self {
        let by_purpose = |purpose: &Purpose| {
            let ruling = match purpose {
                Purpose::Treatment
                | Purpose::Emergency
                | Purpose::BreakGlass
                | Purpose::Payment
                | Purpose::Operations
                | Purpose::PatientRequest => Ruling::Permit,
                // For these a patient has to say yes.
                Purpose::Research | Purpose::PublicHealth | Purpose::FamilyRequest => Ruling::Deny,
            };
            (*purpose, ruling)
        };
        Defaults(Purpose::ALL.iter().map(by_purpose).collect())
    }
}

impl Defaults {
    /// With what an administrator set, over what comes with the house.
    pub fn with(set: impl IntoIterator<Item = (Purpose, Ruling)>) -> Self {
        let mut defaults = Defaults::default();
        defaults.0.extend(set);
        defaults
    }

    /// What holds for a purpose.
    pub fn of(&self, purpose: Purpose) -> Ruling {
        self.0.get(&purpose).copied().unwrap_or(Ruling::Deny)
    }

    /// All of them, by purpose.
    pub fn all(&self) -> impl Iterator<Item = (Purpose, Ruling)> {
        self.0.iter().map(|(purpose, ruling)| (*purpose, *ruling))
    }
}

/// What somebody may see of one patient, as far as consent decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    items: Items,
    /// What the patient permits in so many words.
    said: Items,
}

impl Allowed {
    /// Everything, without anybody having been asked: the patient themself, a broken glass.
    pub const ALL: Allowed = Allowed { items: Items::ALL, said: Items::ALL };
    /// Nothing.
    pub const NONE: Allowed = Allowed { items: Items::NONE, said: Items::NONE };

    /// From what the consents say and what holds where they say nothing.
    pub fn of(ruled: Ruled, default: Ruling) -> Self {
        let items = match default {
            Ruling::Permit => Items::ALL.without(ruled.denied),
            Ruling::Deny => ruled.permitted,
        };
        Allowed { items, said: ruled.permitted }
    }

    /// With the record in it, whatever was said: for those who care for the patient now.
    #[must_use]
    pub fn with_record(self) -> Self {
        Allowed { items: self.items.with(Items::RECORD), ..self }
    }

    /// Whether a measure may be seen; a panel and its components, where all of them may.
    pub fn measure(&self, measure: Measure) -> bool {
        self.items.holds(Items::shown_with(measure))
    }

    /// Whether anything of a class may be seen.
    pub fn class(&self, class: DataClass) -> bool {
        self.items.meets(Items::of_class(class))
    }

    /// Whether it may be known that the patient is here at all.
    pub fn record(&self) -> bool {
        self.items.meets(Items::RECORD)
    }

    /// Whether the patient permitted a measure, or the record, in so many words.
    pub fn is_said(&self, measure: Option<Measure>) -> bool {
        self.said.holds(measure.map_or(Items::RECORD, Items::shown_with))
    }

    /// Whether the patient permitted anything at all in so many words.
    pub fn anything_said(&self) -> bool {
        !self.said.is_none()
    }

    /// Whether all of it may be seen.
    pub fn is_all(&self) -> bool {
        self.items == Items::ALL
    }

    /// Whether nothing of it may be seen.
    pub fn is_none(&self) -> bool {
        self.items.is_none()
    }
}

#[cfg(test)]
mod tests;

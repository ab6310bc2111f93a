//! A set of what can be permitted or denied: the record, and each measure by its number.

use clinical_model::{DataClass, Measure};

/// Words of 64 bits: measures are numbered below 64 times this; a test says when the table outgrows it.
const WORDS: usize = 4;

/// A set of the record and of measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Items([u64; WORDS]);

impl Items {
    /// Nothing.
    pub const NONE: Items = Items([0; WORDS]);
    /// Everything, also measures that are yet to come.
    pub const ALL: Items = Items([u64::MAX; WORDS]);
    /// The record: no measure has number 0.
    pub const RECORD: Items = Items::bit(0);

    const fn bit(number: u16) -> Items {
        let mut words = [0; WORDS];
        words[number as usize / 64 % WORDS] = 1 << (number % 64);
        Items(words)
    }

    /// One measure; of a panel itself and its components, of a component itself alone.
    pub fn of_measure(measure: Measure) -> Items {
        let own = Items::bit(measure.number);
        match measure.kind {
            clinical_model::MeasureKind::Panel => {
                measure.components().into_iter().fold(own, |all, one| all.with(Items::bit(one.number)))
            }
            _ => own,
        }
    }

    /// A measure as it is shown: a panel and its components are shown together or not at all, so that no value stands
    /// without the others that give it its meaning, and none can be worked out from them.
    pub fn shown_with(measure: Measure) -> Items {
        let panel = measure.panel().unwrap_or(measure);
        match panel.kind {
            clinical_model::MeasureKind::Panel => {
                panel.components().into_iter().fold(Items::NONE, |all, one| all.with(Items::bit(one.number)))
            }
            _ => Items::bit(panel.number),
        }
    }

    /// All that is of a class.
    pub fn of_class(class: DataClass) -> Items {
        match class {
            DataClass::Record => Items::RECORD,
            _ => class.measures().fold(Items::NONE, |all, one| all.with(Items::bit(one.number))),
        }
    }

    /// What is in either.
    #[must_use]
    pub fn with(self, other: Items) -> Items {
        Items(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// What is in the first alone.
    #[must_use]
    pub fn without(self, other: Items) -> Items {
        Items(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    /// What is in both.
    #[must_use]
    pub fn within(self, other: Items) -> Items {
        Items(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    /// Whether anything is in both.
    pub fn meets(self, other: Items) -> bool {
        !self.within(other).is_none()
    }

    /// Whether all of another is in it.
    pub fn holds(self, other: Items) -> bool {
        other.without(self).is_none()
    }

    /// Whether nothing is in it.
    pub fn is_none(self) -> bool {
        self == Items::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_a_place_of_its_own() {
        let mut all = Items::RECORD;
        for one in Measure::all() {
            assert!(usize::from(one.number) < 64 * WORDS, "{one:?} needs more words");
            assert!(!all.meets(Items::bit(one.number)), "{one:?} has the place of another");
            all = all.with(Items::bit(one.number));
        }
    }
}

//! What a measurement switches off, to see what it costs: in builds for measuring only, never in a release.

use std::sync::LazyLock;

/// The variable of the environment that says what is off: the word of a [`Part`].
pub const VARIABLE: &str = "AUSCULT_BENCH_OFF";

/// What can be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// No record of acts and of groups is written.
    Audit,
    /// Everything is permitted to whoever proved who they are.
    Authorisation,
}

impl Part {
    const ALL: [Part; 2] = [Part::Audit, Part::Authorisation];

    /// As the variable names it.
    pub const fn word(self) -> &'static str {
        match self {
            Part::Audit => "audit",
            Part::Authorisation => "authorisation",
        }
    }

    fn named(word: &str) -> Option<Self> {
        Part::ALL.into_iter().find(|part| part.word() == word)
    }
}

/// Read once: asking the environment each time would cost more than what is measured.
static OFF: LazyLock<Option<Part>> = LazyLock::new(|| Part::named(&std::env::var(VARIABLE).ok()?));

/// What is off in this process, if anything is.
pub fn what_is_off() -> Option<Part> {
    *OFF
}

/// Whether this part is off.
pub fn is_off(part: Part) -> bool {
    what_is_off() == Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_of_parts_switch_anything_off() {
        assert_eq!(Part::named("audit"), Some(Part::Audit));
        assert_eq!(Part::named("authorisation"), Some(Part::Authorisation));
        for word in ["", "Audit", "1", "all"] {
            assert_eq!(Part::named(word), None, "{word}");
        }
    }
}

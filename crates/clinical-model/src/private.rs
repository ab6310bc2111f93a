//! A wrapper for what identifies a person: no `Display`, and a `Debug` that shows nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name, a birth date, a record number: readable only by asking for it with [`Private::expose`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Private<T>(T);

impl<T> Private<T> {
    /// Wraps a value that must not reach a log.
    pub const fn new(value: T) -> Self {
        Private(value)
    }

    /// The value, for a chart, a screen of an authorised person, or a sealed record.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Private<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(private)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Some(Private::new("Doe"))), "Some((private))");
    }
}

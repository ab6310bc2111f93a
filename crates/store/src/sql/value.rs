//! What goes into statements and comes out of rows: 64-bit integers, text, bytes, or nothing.

use super::{DbError, Fault};

/// A value for a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// An integer; also a truth, as 0 or 1.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// An id, by value.
    Id([u8; 16]),
}

macro_rules! from_integers {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Value<'_> {
            fn from(number: $kind) -> Self {
                Value::Int(i64::from(number))
            }
        })*
    };
}
from_integers!(i64, u32, u16, u8, bool);

/// Counts, groups and sequences; far below the largest, which stands for any beyond it.
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Value::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Value::Bytes(bytes)
    }
}

impl From<[u8; 16]> for Value<'_> {
    fn from(id: [u8; 16]) -> Self {
        Value::Id(id)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A value in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Column<'a> {
    /// Nothing.
    Null,
    /// An integer.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// A row of either database.
pub trait Columns {
    /// The value in a column, counted from 0.
    ///
    /// # Errors
    /// [`DbError`] where there is no such column, or one of a type that we do not use.
    fn column(&self, at: usize) -> Result<Column<'_>, DbError>;
}

/// A row of a result.
pub struct Row<'a>(pub &'a dyn Columns);

impl Row<'_> {
    /// The value in a column, counted from 0.
    ///
    /// # Errors
    /// [`DbError`] where it is of another type or beyond its range: the row is damaged.
    pub fn get<T: FromColumn>(&self, at: usize) -> Result<T, DbError> {
        let column = self.0.column(at)?;
        T::from_column(column).ok_or_else(|| {
            let found = match column {
                Column::Null => "nothing".to_owned(),
                Column::Int(number) => format!("the number {number}"),
                Column::Text(_) => "text".to_owned(),
                Column::Bytes(bytes) => format!("{} bytes", bytes.len()),
            };
            DbError::new(Fault::Other, format!("column {at} holds {found}, which is not what belongs there"))
        })
    }
}

/// What a column can be read as.
pub trait FromColumn: Sized {
    /// `None` where it is something else.
    fn from_column(column: Column<'_>) -> Option<Self>;
}

impl FromColumn for i64 {
    fn from_column(column: Column<'_>) -> Option<Self> {
        match column {
            Column::Int(number) => Some(number),
            _ => None,
        }
    }
}

macro_rules! integers_from_column {
    ($($kind:ty),*) => {
        $(impl FromColumn for $kind {
            fn from_column(column: Column<'_>) -> Option<Self> {
                i64::from_column(column).and_then(|number| number.try_into().ok())
            }
        })*
    };
}
integers_from_column!(u64, u32, u16, u8);

impl FromColumn for bool {
    fn from_column(column: Column<'_>) -> Option<Self> {
        i64::from_column(column).map(|number| number != 0)
    }
}

impl FromColumn for String {
    fn from_column(column: Column<'_>) -> Option<Self> {
        match column {
            Column::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }
}

impl FromColumn for Vec<u8> {
    fn from_column(column: Column<'_>) -> Option<Self> {
        match column {
            Column::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }
}

impl<const N: usize> FromColumn for [u8; N] {
    fn from_column(column: Column<'_>) -> Option<Self> {
        match column {
            Column::Bytes(bytes) => bytes.try_into().ok(),
            _ => None,
        }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(column: Column<'_>) -> Option<Self> {
        match column {
            Column::Null => Some(None),
            other => T::from_column(other).map(Some),
        }
    }
}

/// A value of either database, kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owned {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Owned {
    pub(crate) fn of(column: Column<'_>) -> Self {
        match column {
            Column::Null => Owned::Null,
            Column::Int(number) => Owned::Int(number),
            Column::Text(text) => Owned::Text(text.to_owned()),
            Column::Bytes(bytes) => Owned::Bytes(bytes.to_vec()),
        }
    }

    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Owned::Null => Value::Null,
            Owned::Int(number) => Value::Int(*number),
            Owned::Text(text) => Value::Text(text),
            Owned::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

//! The series numbers, all of them in memory: every commit and every query asks for them.

use std::collections::HashMap;

use crate::sql::{DbError, Session, values};
use crate::{SeriesFilter, StoreError};
use clinical_model::{DeviceId, Measure, MeasureKind, SeriesKey, Subject};

/// Most series of one store: about 160 bytes each in memory, so this is 640 MB; larger sites use several nodes.
const SERIES_LIMIT: usize = 4_000_000;

/// Numbers and keys of all series.
#[derive(Default)]
pub(super) struct SeriesTable {
    by_key: HashMap<SeriesKey, u32>,
    /// The key of number n stands at n - 1.
    keys: Vec<SeriesKey>,
    by_subject: HashMap<Subject, Vec<u32>>,
    by_device: HashMap<DeviceId, Vec<u32>>,
}

impl SeriesTable {
    /// Reads the rows that are not here yet.
    pub(super) fn extend<S: Session>(&mut self, session: &S) -> Result<(), LoadError> {
        let mut later = Vec::new();
        let mut fault = None;
        session.query(
            "SELECT number, subject_kind, subject, measure, device FROM series WHERE number > ?1 ORDER BY number",
            &values![self.keys.len()],
            &mut |row| {
                let number: u32 = row.get(0)?;
                let subject = Subject::from_parts(row.get(1)?, row.get(2)?);
                let measure = Measure::by_number(row.get(3)?);
                let (Some(subject), Some(measure)) = (subject, measure) else {
                    fault = Some(LoadError::Unknown { number });
                    return Ok(false);
                };
                later.push((number, SeriesKey { subject, measure, device: DeviceId::from_bytes(row.get(4)?) }));
                Ok(true)
            },
        )?;
        for (number, key) in later {
            if number as usize > self.keys.len() + 1 {
                return Err(LoadError::Gap { number });
            }
            self.insert_numbered(number, key);
        }
        fault.map_or(Ok(()), Err)
    }

    pub(super) fn number(&self, key: &SeriesKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn key(&self, number: u32) -> Option<SeriesKey> {
        self.keys.get((number as usize).checked_sub(1)?).copied()
    }

    /// The numbers of all series of a subject, those without values included.
    pub(super) fn numbers_of(&self, subject: Subject) -> Vec<u32> {
        self.by_subject.get(&subject).cloned().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The series that match, without panels: they have no values of their own.
    pub(super) fn matching(&self, filter: &SeriesFilter) -> Vec<SeriesKey> {
        let fits = |key: &SeriesKey| {
            !is_panel(key.measure)
                && filter.subject.is_none_or(|subject| key.subject == subject)
                && filter.device.is_none_or(|device| key.device == device)
                && (filter.measures.is_empty() || filter.measures.contains(&key.measure))
        };
        let numbers = match (filter.subject, filter.device) {
            (Some(subject), _) => self.by_subject.get(&subject),
            (None, Some(device)) => self.by_device.get(&device),
            (None, None) => return self.keys.iter().copied().filter(fits).collect(),
        };
        numbers.into_iter().flatten().filter_map(|number| self.key(*number)).filter(fits).collect()
    }

    /// Adds a series whose row is committed, where its number is the next one; others come with those before them.
    pub(super) fn insert_numbered(&mut self, number: u32, key: SeriesKey) {
        if number as usize != self.keys.len() + 1 {
            return;
        }
        self.keys.push(key);
        self.by_key.insert(key, number);
        self.by_subject.entry(key.subject).or_default().push(number);
        self.by_device.entry(key.device).or_default().push(number);
    }
}

/// Series that a transaction is about to add: kept apart until it is committed.
pub(super) struct NewSeries {
    /// Numbers that were taken before.
    taken: usize,
    added: HashMap<SeriesKey, u32>,
    order: Vec<SeriesKey>,
}

impl NewSeries {
    pub(super) fn after(known: &SeriesTable) -> Self {
        NewSeries { taken: known.len(), added: HashMap::new(), order: Vec::new() }
    }

    /// The number of a series, taking a new one where needed. A component brings its panel along, so that the
    /// panel's identifier can be made.
    pub(super) fn number(&mut self, known: &SeriesTable, key: &SeriesKey) -> Result<u32, StoreError> {
        if let Some(number) = known.number(key).or_else(|| self.added.get(key).copied()) {
            return Ok(number);
        }
        if let Some(panel) = key.measure.panel() {
            self.number(known, &SeriesKey { measure: panel, ..*key })?;
        }
        let taken = self.taken + self.order.len();
        if taken >= SERIES_LIMIT {
            return Err(StoreError::Identity { how: format!("there are {taken} series already, the most") });
        }
        let number = taken as u32 + 1;
        self.added.insert(*key, number);
        self.order.push(*key);
        Ok(number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Writes the rows of the added series.
    pub(super) fn write<S: Session>(&self, session: &S) -> Result<(), DbError> {
        let rows: Vec<_> = self
            .order
            .iter()
            .map(|key| {
                let (kind, subject) = (key.subject.kind_number(), key.subject.id_bytes());
                let device = clinical_model::RecordId::to_bytes(key.device);
                values![self.added[key], kind, subject, key.measure.number, device].to_vec()
            })
            .collect();
        session
            .execute_each(
                "INSERT INTO series(number, subject_kind, subject, measure, device) VALUES(?1, ?2, ?3, ?4, ?5)",
                &rows,
            )
            .map(drop)
    }

    /// What was added, in the order of the numbers.
    pub(super) fn into_added(self) -> Vec<(u32, SeriesKey)> {
        self.order.into_iter().map(|key| (self.added[&key], key)).collect()
    }
}

pub(super) fn is_panel(measure: Measure) -> bool {
    matches!(measure.kind, MeasureKind::Panel)
}

/// Why the series could not be read.
pub(super) enum LoadError {
    /// A row names a measure or a kind of subject that this release does not have.
    Unknown { number: u32 },
    /// A number is missing before this one.
    Gap { number: u32 },
    /// The database said no.
    Database(DbError),
}

impl From<DbError> for LoadError {
    fn from(error: DbError) -> Self {
        LoadError::Database(error)
    }
}

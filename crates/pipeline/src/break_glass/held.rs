//! The glasses that have no review yet, held in memory; and how they are kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use clinical_model::{GlassId, PatientId, RecordId as _, Timestamp, UserId};
use store::{
    Document, DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order, Store, StoreError,
};

use super::words::{BreakGlass, Listed};
use super::{MISSES_LIMIT, STANDS_FOR};
use crate::records::{self, sortable};

/// So long a try without a patient counts.
const MISSES_WITHIN: Duration = Duration::from_secs(3_600);
/// People whose misses are counted; beyond it those longest ago are forgotten.
const MISSING_PEOPLE_LIMIT: usize = 10_000;
/// Documents read at once.
const PAGE: usize = 200;
/// The index: reviewed or not, then when it was broken.
const BY_REVIEW: &str = "review-time";
/// The index of what is about a patient.
const BY_PATIENT: &str = "about";

/// A glass in memory.
pub(super) struct Held {
    pub(super) glass: Arc<BreakGlass>,
    pub(super) version: u64,
    /// It stands no longer than this, wherever the wall clock is set.
    deadline: Instant,
}

/// The glasses that have no review yet; those that stand are among them.
#[derive(Default)]
pub struct Glasses {
    held: RwLock<HashMap<GlassId, Held>>,
    misses: Mutex<HashMap<UserId, VecDeque<Timestamp>>>,
}

fn damaged(error: &records::RecordError) -> StoreError {
    StoreError::Damaged { what: "document of a broken glass".to_owned(), how: error.to_string() }
}

/// Reads one as it is kept.
pub(super) fn glass_from(document: &Document) -> Result<BreakGlass, StoreError> {
    records::json_from(&document.body).map_err(|error| damaged(&error))
}

pub(super) fn write_of(glass: &BreakGlass, expected: Expected) -> DocumentWrite {
    let mut by_review = vec![u8::from(glass.review.is_some())];
    by_review.extend(sortable(glass.opened_at));
    let index = vec![
        IndexEntry { name: BY_REVIEW, value: by_review, unique: false },
        IndexEntry { name: BY_PATIENT, value: glass.patient.to_bytes().to_vec(), unique: false },
    ];
    let domain = KeyDomain::Patient(glass.patient);
    records::json_write(Kind::BreakGlass, glass.id.to_bytes(), expected, domain, glass, index)
}

impl Glasses {
    /// Those without a review, from the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(store: &dyn Store, at: Timestamp) -> Result<Self, StoreError> {
        let glasses = Glasses::default();
        glasses.reload(store, at)?;
        Ok(glasses)
    }

    /// Once more, in place of what was known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn reload(&self, store: &dyn Store, at: Timestamp) -> Result<(), StoreError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.documents(&listed(Listed::Open, Order::Ascending, after.take(), PAGE))?;
            for document in &page {
                found.push((glass_from(document)?, document.version));
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some((last.index_value.clone(), last.id)),
                _ => break,
            }
        }
        let ids: std::collections::HashSet<GlassId> = found.iter().map(|(glass, _)| glass.id).collect();
        self.write().retain(|id, _| ids.contains(id));
        for (glass, version) in found {
            self.put(glass, version, at);
        }
        Ok(())
    }

    /// Takes up one that another node wrote; what it says now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn refresh(
        &self,
        store: &dyn Store,
        id: [u8; 16],
        at: Timestamp,
    ) -> Result<Option<Arc<BreakGlass>>, StoreError> {
        let Some(document) = store.document(Kind::BreakGlass, id)? else {
            self.write().remove(&GlassId::from_bytes(id));
            return Ok(None);
        };
        Ok(self.put(glass_from(&document)?, document.version, at))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, HashMap<GlassId, Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<GlassId, Held>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a version of one, unless a later one is known; what is reviewed is held no longer.
    pub(super) fn put(&self, glass: BreakGlass, version: u64, at: Timestamp) -> Option<Arc<BreakGlass>> {
        let mut held = self.write();
        let before = held.get(&glass.id);
        if before.is_some_and(|before| version <= before.version) {
            return None;
        }
        let left = u64::try_from(glass.until.micros_since(at)).map_or(Duration::ZERO, Duration::from_micros);
        let deadline = Instant::now() + left.min(STANDS_FOR);
        let deadline = before.map_or(deadline, |before| before.deadline.min(deadline));
        let (id, is_closed) = (glass.id, glass.review.is_some());
        let glass = Arc::new(glass);
        if is_closed {
            held.remove(&id);
        } else {
            held.insert(id, Held { glass: Arc::clone(&glass), version, deadline });
        }
        Some(glass)
    }

    /// Those of a person that stand.
    pub(super) fn standing(&self, by: UserId, at: Timestamp) -> Vec<Arc<BreakGlass>> {
        let now = Instant::now();
        let held = self.read();
        let stands = |one: &&Held| one.glass.by == by && one.glass.stands_at(at) && now < one.deadline;
        let mut found: Vec<_> = held.values().filter(stands).map(|one| Arc::clone(&one.glass)).collect();
        found.sort_by_key(|glass| glass.until);
        found
    }

    pub(super) fn stands(&self, glass: &BreakGlass, at: Timestamp) -> bool {
        let deadline = self.read().get(&glass.id).map(|held| held.deadline);
        glass.stands_at(at) && deadline.is_some_and(|deadline| Instant::now() < deadline)
    }

    /// Forgets everything about a patient who was erased.
    pub fn forget_patient(&self, patient: PatientId) {
        self.write().retain(|_, held| held.glass.patient != patient);
    }

    fn misses(&self) -> MutexGuard<'_, HashMap<UserId, VecDeque<Timestamp>>> {
        self.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody tried too often; those of more than an hour ago no longer count.
    pub(super) fn tried_too_often(&self, by: UserId, at: Timestamp) -> bool {
        let since = at.minus(MISSES_WITHIN);
        self.misses().get_mut(&by).is_some_and(|misses| {
            misses.retain(|miss| *miss > since && *miss <= at);
            misses.len() >= MISSES_LIMIT
        })
    }

    pub(super) fn missed(&self, by: UserId, at: Timestamp) {
        let mut all = self.misses();
        if all.len() >= MISSING_PEOPLE_LIMIT && !all.contains_key(&by) {
            let since = at.minus(MISSES_WITHIN);
            all.retain(|_, misses| misses.back().is_some_and(|last| *last > since));
        }
        let misses = all.entry(by).or_default();
        if misses.len() < MISSES_LIMIT {
            misses.push_back(at);
        }
    }
}

pub(super) fn listed(
    which: Listed,
    order: Order,
    after: Option<(Vec<u8>, [u8; 16])>,
    limit: usize,
) -> DocumentQuery {
    let prefix = vec![u8::from(which == Listed::Closed)];
    DocumentQuery { kind: Kind::BreakGlass, index: BY_REVIEW, prefix, after, order, limit }
}

//! Quarantined items: kept once, counted while they wait, sealed like everything else.

use std::time::{Duration, Instant};

use clinical_model::quarantine::QuarantineState;
use clinical_model::{QuarantineId, QuarantineItem, RecordId, Timestamp, UserId};
use trust::Aad;

use super::SqlStore;
use super::bytes::{pack, unpack};
use super::keys::{Domain, Purpose};
use crate::StoreError;
use crate::sql::{Backend, Session, lock, read, values};
use crate::words::{News, QuarantineCount};

const DOING: &str = "keeping quarantined items";
/// Quarantined items are looked at by people: small matters more than fast.
const ZSTD_LEVEL: i32 = 3;

pub(super) fn place(id: &[u8; 16]) -> Aad<'_> {
    Aad { table: "quarantine", row: id, column: "item" }
}

impl<B: Backend> SqlStore<B> {
    pub(super) fn write_quarantined(
        &self,
        session: &B::Session,
        items: &[(QuarantineItem, Vec<u8>)],
    ) -> Result<CountChange, StoreError> {
        let mut change = CountChange::default();
        for (item, sealed) in items {
            let waiting = is_waiting(item);
            let at = item.received_at.as_micros();
            let inserted = session
                .execute(
                    "INSERT INTO quarantine(id, received_at, waiting, frame_bytes, sealed)
                     VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT(id) DO NOTHING",
                    &values![item.id.to_bytes(), at, waiting, item.bytes.len(), sealed],
                )
                .map_err(self.wrote(DOING))?;
            if inserted == 1 && waiting {
                change += CountChange::of(item, 1);
            }
        }
        Ok(change)
    }

    /// Marks an item released, where it is still waiting or was set aside.
    pub(super) fn release(
        &self,
        session: &B::Session,
        id: QuarantineId,
        by: UserId,
        at: Timestamp,
    ) -> Result<CountChange, StoreError> {
        let Some(mut item) = self.find_quarantined(session, id)? else {
            return Ok(CountChange::default());
        };
        item.state = QuarantineState::Released { at, by };
        self.put_quarantined(session, &item, at)
    }

    /// Writes an item with its state, whether or not it exists; tells how the count of waiting ones changes.
    pub(super) fn put_quarantined(
        &self,
        session: &B::Session,
        item: &QuarantineItem,
        at: Timestamp,
    ) -> Result<CountChange, StoreError> {
        let doing = "changing a quarantined item";
        let before = self.find_quarantined(session, item.id)?;
        let sealed = self.seal_item(item, at)?;
        let received = item.received_at.as_micros();
        session
            .execute(
                "INSERT INTO quarantine(id, received_at, waiting, frame_bytes, sealed)
                 VALUES(?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT(id) DO UPDATE SET received_at = excluded.received_at, waiting = excluded.waiting,
                     frame_bytes = excluded.frame_bytes, sealed = excluded.sealed",
                &values![item.id.to_bytes(), received, is_waiting(item), item.bytes.len(), &sealed],
            )
            .map_err(self.wrote(doing))?;
        let mut change = CountChange::default();
        if let Some(before) = before.filter(is_waiting) {
            change += CountChange::of(&before, -1);
        }
        if is_waiting(item) {
            change += CountChange::of(item, 1);
        }
        Ok(change)
    }

    pub(super) fn seal_item(&self, item: &QuarantineItem, at: Timestamp) -> Result<Vec<u8>, StoreError> {
        let what = || format!("quarantined item {}", item.id);
        let json = serde_json::to_vec(item)
            .map_err(|error| StoreError::Damaged { what: what(), how: error.to_string() })?;
        let named = self.keys.sealing(Domain::System(Purpose::Quarantine), at)?;
        Ok(named.seal(place(&item.id.to_bytes()), &pack(&json, ZSTD_LEVEL)))
    }

    pub(super) fn open_item(&self, id: QuarantineId, sealed: &[u8]) -> Result<QuarantineItem, StoreError> {
        let what = || format!("quarantined item {id}");
        let packed = self.keys.open_sealed(place(&id.to_bytes()), sealed, &what)?;
        let json = unpack(&packed).map_err(|malformed| malformed.of(what()))?;
        serde_json::from_slice(&json)
            .map_err(|error| StoreError::Damaged { what: what(), how: error.to_string() })
    }

    pub(super) fn find_quarantined(
        &self,
        session: &B::Session,
        id: QuarantineId,
    ) -> Result<Option<QuarantineItem>, StoreError> {
        let sealed: Option<Vec<u8>> = session
            .row("SELECT sealed FROM quarantine WHERE id = ?1", &values![id.to_bytes()], |row| row.get(0))
            .map_err(read("reading a quarantined item"))?;
        sealed.map(|sealed| self.open_item(id, &sealed)).transpose()
    }

    pub(super) fn read_quarantined(&self, id: QuarantineId) -> Result<Option<QuarantineItem>, StoreError> {
        self.find_quarantined(&*self.reader("reading a quarantined item")?, id)
    }

    pub(super) fn page_quarantine(
        &self,
        waiting_only: bool,
        before: Option<(Timestamp, QuarantineId)>,
        limit: usize,
    ) -> Result<Vec<QuarantineItem>, StoreError> {
        let doing = "listing the quarantine";
        let sql = if waiting_only {
            "SELECT id, sealed FROM quarantine
             WHERE waiting = 1 AND (received_at, id) < (?1, ?2) ORDER BY received_at DESC, id DESC LIMIT ?3"
        } else {
            "SELECT id, sealed FROM quarantine
             WHERE (received_at, id) < (?1, ?2) ORDER BY received_at DESC, id DESC LIMIT ?3"
        };
        // A blob longer than any id stands after all of them.
        let (at, id) =
            before.map_or((i64::MAX, vec![0xff; 17]), |(at, id)| (at.as_micros(), id.to_bytes().to_vec()));
        let found: Vec<([u8; 16], Vec<u8>)> = self
            .reader(doing)?
            .rows(sql, &values![at, &id, limit], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(read(doing))?;
        found.into_iter().map(|(id, sealed)| self.open_item(QuarantineId::from_bytes(id), &sealed)).collect()
    }

    /// How much is waiting. Where other processes write too, it is counted again when something was committed, though
    /// at most once in [`COUNT_EVERY`]; where that fails, what was counted last stands.
    pub(super) fn waiting_now(&self) -> QuarantineCount {
        let mut waiting = lock(&self.waiting);
        if B::SHARED && waiting.counted_at.elapsed() >= COUNT_EVERY && waiting.as_of != self.news.last() {
            let as_of = self.news.last();
            match self.reader("counting the quarantine").and_then(|session| count_waiting(&*session)) {
                Ok(count) => *waiting = Waiting { count, counted_at: Instant::now(), as_of },
                Err(error) => tracing::warn!(error = %error, "the quarantine could not be counted"),
            }
        }
        waiting.count
    }
}

/// What is waiting can be counted anew so often.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How much is waiting, and when it was counted.
pub(super) struct Waiting {
    pub(super) count: QuarantineCount,
    pub(super) counted_at: Instant,
    pub(super) as_of: News,
}

pub(super) fn count_waiting<S: Session>(session: &S) -> Result<QuarantineCount, StoreError> {
    session
        .row(
            "SELECT count(*), CAST(coalesce(sum(frame_bytes), 0) AS BIGINT) FROM quarantine WHERE waiting = 1",
            &[],
            |row| Ok(QuarantineCount { items: row.get(0)?, bytes: row.get(1)? }),
        )
        .map(Option::unwrap_or_default)
        .map_err(read("counting the quarantine"))
}

/// How the count of waiting items changes with a transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CountChange {
    items: i64,
    bytes: i64,
}

impl CountChange {
    fn of(item: &QuarantineItem, sign: i64) -> Self {
        CountChange { items: sign, bytes: sign * item.bytes.len() as i64 }
    }

    pub(super) fn apply(self, count: &mut QuarantineCount) {
        count.items = count.items.saturating_add_signed(self.items);
        count.bytes = count.bytes.saturating_add_signed(self.bytes);
    }
}

impl std::ops::AddAssign for CountChange {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
    }
}

pub(super) fn is_waiting(item: &QuarantineItem) -> bool {
    item.state == QuarantineState::Waiting
}

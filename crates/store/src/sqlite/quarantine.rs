//! Quarantined items: kept once, counted while they wait, sealed like everything else.

use clinical_model::quarantine::QuarantineState;
use clinical_model::{QuarantineId, QuarantineItem, RecordId, Timestamp, UserId};
use rusqlite::{Connection, OptionalExtension, params};
use trust::Aad;

use super::SqliteStore;
use super::bytes::{pack, unpack};
use super::connection::read;
use super::keys::{Domain, Purpose};
use crate::StoreError;
use crate::words::QuarantineCount;

const DOING: &str = "keeping quarantined items";
/// Quarantined items are looked at by people: small matters more than fast.
const ZSTD_LEVEL: i32 = 3;

fn place(id: &[u8; 16]) -> Aad<'_> {
    Aad { table: "quarantine", row: id, column: "item" }
}

impl SqliteStore {
    pub(super) fn write_quarantined(
        &self,
        connection: &Connection,
        items: &[(QuarantineItem, Vec<u8>)],
    ) -> Result<CountChange, StoreError> {
        let mut change = CountChange::default();
        for (item, sealed) in items {
            let waiting = is_waiting(item);
            let inserted = connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO quarantine(id, received_at, waiting, frame_bytes, sealed)
                     VALUES(?1, ?2, ?3, ?4, ?5)",
                )
                .and_then(|mut insert| {
                    let at = item.received_at.as_micros();
                    let bytes = item.bytes.len() as i64;
                    insert.execute(params![item.id.to_bytes(), at, waiting, bytes, sealed])
                })
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
        connection: &Connection,
        id: QuarantineId,
        by: UserId,
        at: Timestamp,
    ) -> Result<CountChange, StoreError> {
        let Some(mut item) = self.find_quarantined(connection, id)? else {
            return Ok(CountChange::default());
        };
        item.state = QuarantineState::Released { at, by };
        self.put_quarantined(connection, &item, at)
    }

    /// Writes an item with its state, whether or not it exists; tells how the count of waiting ones changes.
    pub(super) fn put_quarantined(
        &self,
        connection: &Connection,
        item: &QuarantineItem,
        at: Timestamp,
    ) -> Result<CountChange, StoreError> {
        let doing = "changing a quarantined item";
        let before = self.find_quarantined(connection, item.id)?;
        let sealed = self.seal_item(item, at)?;
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO quarantine(id, received_at, waiting, frame_bytes, sealed)
                 VALUES(?1, ?2, ?3, ?4, ?5)",
            )
            .and_then(|mut put| {
                let bytes = item.bytes.len() as i64;
                let received = item.received_at.as_micros();
                put.execute(params![item.id.to_bytes(), received, is_waiting(item), bytes, sealed])
            })
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
        connection: &Connection,
        id: QuarantineId,
    ) -> Result<Option<QuarantineItem>, StoreError> {
        let sealed: Option<Vec<u8>> = connection
            .prepare_cached("SELECT sealed FROM quarantine WHERE id = ?1")
            .and_then(|mut select| select.query_row([id.to_bytes()], |row| row.get(0)).optional())
            .map_err(read("reading a quarantined item"))?;
        sealed.map(|sealed| self.open_item(id, &sealed)).transpose()
    }

    pub(super) fn read_quarantined(&self, id: QuarantineId) -> Result<Option<QuarantineItem>, StoreError> {
        self.find_quarantined(&self.readers.get(), id)
    }

    pub(super) fn page_quarantine(
        &self,
        waiting_only: bool,
        before: Option<(Timestamp, QuarantineId)>,
        limit: usize,
    ) -> Result<Vec<QuarantineItem>, StoreError> {
        let doing = "listing the quarantine";
        let connection = self.readers.get();
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
        let mut select = connection.prepare_cached(sql).map_err(read(doing))?;
        let rows = select
            .query_map(params![at, id, limit.min(i64::MAX as usize) as i64], |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Vec<u8>>(1)?))
            })
            .map_err(read(doing))?;
        rows.map(|row| {
            let (id, sealed) = row.map_err(read(doing))?;
            self.open_item(QuarantineId::from_bytes(id), &sealed)
        })
        .collect()
    }
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

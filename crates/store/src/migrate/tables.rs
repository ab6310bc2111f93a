//! Making one table like another, page by page: rows that are gone go, rows that differ or are new come.

use std::collections::HashMap;

use crate::sql::{Begin, Column, DbError, Row, Session, Tx, Value};

/// Rows compared at once; the largest are some 64 KiB.
const PAGE_ROWS: usize = 200;

/// A table and what tells its rows apart.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Columns of the key.
    key: &'static [&'static str],
    /// The other columns.
    rest: &'static [&'static str],
    /// Whether the first bytes of the last column, which begin with a random nonce, tell one content from another;
    /// else all other columns are compared.
    is_sealed: bool,
}

const fn sealed(name: &'static str, key: &'static [&'static str], rest: &'static [&'static str]) -> Table {
    Table { name, key, rest, is_sealed: true }
}

const fn plain(name: &'static str, key: &'static [&'static str], rest: &'static [&'static str]) -> Table {
    Table { name, key, rest, is_sealed: false }
}

/// Everything of the data, what others name before what names it.
pub(super) const DATA: [Table; 19] = [
    plain("series", &["number"], &["subject_kind", "subject", "measure", "device"]),
    sealed("journal", &["number"], &["committed_at", "sealed"]),
    sealed("group_summary", &["number"], &["committed_at", "leaf", "sealed"]),
    plain("cursor", &["consumer"], &["position"]),
    sealed("latest", &["series"], &["measured_at", "sequence", "sealed"]),
    sealed("block", &["number"], &["series", "first_at", "first_sequence", "last_at", "count", "sealed"]),
    sealed("wave_block", &["number"], &["series", "start_at", "duration_us", "sealed"]),
    sealed("event", &["series", "at", "sequence", "version"], &["sealed"]),
    sealed(
        "frame_block",
        &["number"],
        &["device", "patient", "first_received", "last_received", "count", "plain_bytes", "sealed"],
    ),
    sealed("quarantine", &["id"], &["received_at", "waiting", "frame_bytes", "sealed"]),
    sealed("document", &["kind", "id"], &["version", "updated_at", "sealed"]),
    sealed("document_history", &["kind", "id", "version"], &["updated_at", "sealed"]),
    plain("document_index", &["kind", "name", "value", "id"], &["is_unique"]),
    sealed(
        "audit",
        &["sequence"],
        &["at", "action", "outcome", "patient", "device", "actor", "flags", "leaf", "sealed"],
    ),
    plain("document_change", &["change"], &["kind", "id", "version", "removed"]),
    plain("log_head", &["log"], &["size"]),
    plain("log_tile", &["log", "level", "number"], &["hashes"]),
    plain("log_checkpoint", &["log", "number"], &["size", "at", "note"]),
    plain("log_thinned", &["log"], &["note"]),
];

/// The wrapped data keys.
pub(super) const KEYS: Table = plain("data_key", &["number"], &["id", "domain", "created_at", "wrapped"]);

/// What else the key store holds: who was erased, and which keys are being turned over.
pub(super) const CARE: [Table; 3] = [
    plain("erasure", &["patient"], &["begun_at", "purged_at", "last_group", "epoch", "epoch_ended_at"]),
    plain("erased_key", &["id"], &["patient"]),
    plain("rekey", &["domain"], &["begun_at", "newest", "done", "total"]),
];

/// A value of either database, kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Owned {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Owned {
    fn of(column: Column<'_>) -> Self {
        match column {
            Column::Null => Owned::Null,
            Column::Int(number) => Owned::Int(number),
            Column::Text(text) => Owned::Text(text.to_owned()),
            Column::Bytes(bytes) => Owned::Bytes(bytes.to_vec()),
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Owned::Null => Value::Null,
            Owned::Int(number) => Value::Int(*number),
            Owned::Text(text) => Value::Text(text),
            Owned::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

type Key = Vec<Owned>;

/// Rows that went and came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Synced {
    pub(super) removed: u64,
    pub(super) added: u64,
}

/// Changes a row on its way; for keys that are wrapped anew.
pub(super) type Change<'a> = &'a dyn Fn(&mut [Owned]) -> Result<(), DbError>;

/// Makes the table on one side like that on the other.
pub(super) fn sync<F: Session, T: Session>(
    from: &F,
    to: &mut T,
    table: &Table,
    change: Change<'_>,
    each_page: &mut dyn FnMut(u64),
) -> Result<Synced, DbError> {
    let mut synced = Synced::default();
    // Everything that is gone goes first: a value that must be unique may have moved to another row.
    let mut after: Option<Key> = None;
    loop {
        let kept = keys(to, table, after.as_ref(), None)?;
        let Some((last, _)) = kept.last().cloned() else { break };
        let wanted = keys(from, table, after.as_ref(), Some(&last))?.into_iter().collect::<HashMap<_, _>>();
        let gone: Vec<Key> = kept
            .into_iter()
            .filter(|(key, print)| wanted.get(key) != Some(print))
            .map(|(key, _)| key)
            .collect();
        synced.removed += gone.len() as u64;
        remove(to, table, &gone)?;
        after = Some(last);
    }
    let mut after: Option<Key> = None;
    loop {
        let wanted = keys(from, table, after.as_ref(), None)?;
        let Some((last, _)) = wanted.last().cloned() else { break };
        let count = wanted.len();
        let kept = keys(to, table, after.as_ref(), Some(&last))?.into_iter().collect::<HashMap<_, _>>();
        let missing: Vec<Key> =
            wanted.into_iter().map(|(key, _)| key).filter(|key| !kept.contains_key(key)).collect();
        let mut rows = fetch(from, table, after.as_ref(), &last, &missing)?;
        for row in &mut rows {
            change(row)?;
        }
        synced.added += rows.len() as u64;
        add(to, table, &rows)?;
        each_page(count as u64);
        after = Some(last);
    }
    Ok(synced)
}

impl Table {
    fn columns(&self) -> String {
        [self.key, self.rest].concat().join(", ")
    }

    fn key_columns(&self) -> String {
        self.key.join(", ")
    }

    /// `(?1, ?2)` from a number on.
    fn placeholders(&self, first: usize) -> String {
        let names: Vec<String> = (first..first + self.key.len()).map(|at| format!("?{at}")).collect();
        names.join(", ")
    }

    /// The condition for keys after one and up to another, and its values.
    fn range<'a>(&self, after: Option<&'a Key>, up_to: Option<&'a Key>) -> (String, Vec<Value<'a>>) {
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        for (sign, key) in [(">", after), ("<=", up_to)] {
            if let Some(key) = key {
                conditions.push(format!(
                    "({}) {sign} ({})",
                    self.key_columns(),
                    self.placeholders(values.len() + 1)
                ));
                values.extend(key.iter().map(Owned::value));
            }
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        (condition, values)
    }
}

/// Keys with what tells contents apart, in order; a page of them where no end is given.
fn keys<S: Session>(
    session: &S,
    table: &Table,
    after: Option<&Key>,
    up_to: Option<&Key>,
) -> Result<Vec<(Key, Vec<Owned>)>, DbError> {
    let prints = if table.is_sealed { "substr(sealed, 1, 40)".to_owned() } else { table.rest.join(", ") };
    let (condition, values) = table.range(after, up_to);
    let limit = if up_to.is_none() { format!(" LIMIT {PAGE_ROWS}") } else { String::new() };
    let key = table.key_columns();
    let sql = format!("SELECT {key}, {prints} FROM {} {condition} ORDER BY {key}{limit}", table.name);
    let width = if table.is_sealed { 1 } else { table.rest.len() };
    session.rows(&sql, &values, |row| {
        let key = owned(row, 0..table.key.len())?;
        Ok((key, owned(row, table.key.len()..table.key.len() + width)?))
    })
}

fn owned(row: &Row<'_>, columns: std::ops::Range<usize>) -> Result<Vec<Owned>, DbError> {
    columns.map(|at| row.0.column(at).map(Owned::of)).collect()
}

/// Whole rows: where most of a page is wanted, the page.
fn fetch<S: Session>(
    session: &S,
    table: &Table,
    after: Option<&Key>,
    last: &Key,
    missing: &[Key],
) -> Result<Vec<Vec<Owned>>, DbError> {
    let width = table.key.len() + table.rest.len();
    let columns = table.columns();
    if missing.len() * 2 > PAGE_ROWS {
        let (condition, values) = table.range(after, Some(last));
        let sql = format!("SELECT {columns} FROM {} {condition}", table.name);
        let mut rows = session.rows(&sql, &values, |row| owned(row, 0..width))?;
        let missing: std::collections::HashSet<&[Owned]> = missing.iter().map(Vec::as_slice).collect();
        rows.retain(|row| missing.contains(&row[..table.key.len()]));
        return Ok(rows);
    }
    let sql = format!(
        "SELECT {columns} FROM {} WHERE ({}) = ({})",
        table.name,
        table.key_columns(),
        table.placeholders(1)
    );
    let mut rows = Vec::with_capacity(missing.len());
    for key in missing {
        let values: Vec<Value<'_>> = key.iter().map(Owned::value).collect();
        // A row that went meanwhile is found to be gone by the next comparison.
        rows.extend(session.row(&sql, &values, |row| owned(row, 0..width))?);
    }
    Ok(rows)
}

fn remove<S: Session>(session: &mut S, table: &Table, gone: &[Key]) -> Result<(), DbError> {
    if gone.is_empty() {
        return Ok(());
    }
    let sql =
        format!("DELETE FROM {} WHERE ({}) = ({})", table.name, table.key_columns(), table.placeholders(1));
    let rows: Vec<Vec<Value<'_>>> = gone.iter().map(|key| key.iter().map(Owned::value).collect()).collect();
    in_one(session, &sql, &rows)
}

fn add<S: Session>(session: &mut S, table: &Table, rows: &[Vec<Owned>]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    let places: Vec<String> = (1..=table.key.len() + table.rest.len()).map(|at| format!("?{at}")).collect();
    let sql = format!("INSERT INTO {}({}) VALUES({})", table.name, table.columns(), places.join(", "));
    let rows: Vec<Vec<Value<'_>>> = rows.iter().map(|row| row.iter().map(Owned::value).collect()).collect();
    in_one(session, &sql, &rows)
}

/// One page is one transaction.
fn in_one<S: Session>(session: &mut S, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<(), DbError> {
    let transaction = Tx::begin(session, Begin::Write)?;
    transaction.execute_each(sql, rows)?;
    transaction.commit()
}

//! Making one table like another, page by page: rows that are gone go, rows that differ or are new come.

use std::collections::HashMap;

use crate::rules::tables::{Table, table};
use crate::sql::{Begin, DbError, Owned, Row, Session, Tx, Value};

/// Rows compared at once; the largest are some 64 KiB.
const PAGE_ROWS: usize = 200;

/// The wrapped data keys.
pub(super) const KEYS: Table = table("data_key", &["number"], &["id", "domain", "created_at", "wrapped"]);

/// What else the key store holds: who was erased, and which keys are being turned over.
pub(super) const CARE: [Table; 3] = [
    table("erasure", &["patient"], &["begun_at", "purged_at", "last_group", "epoch", "epoch_ended_at"]),
    table("erased_key", &["id"], &["patient"]),
    table("rekey", &["domain"], &["begun_at", "newest", "done", "total"]),
];

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

fn key_columns(table: &Table) -> String {
    table.key.join(", ")
}

/// `(?1, ?2)` from a number on.
fn placeholders(table: &Table, first: usize) -> String {
    let names: Vec<String> = (first..first + table.key.len()).map(|at| format!("?{at}")).collect();
    names.join(", ")
}

/// The condition for keys after one and up to another, and its values.
fn range<'a>(table: &Table, after: Option<&'a Key>, up_to: Option<&'a Key>) -> (String, Vec<Value<'a>>) {
    let mut conditions = Vec::new();
    let mut values = Vec::new();
    for (sign, key) in [(">", after), ("<=", up_to)] {
        if let Some(key) = key {
            let places = placeholders(table, values.len() + 1);
            conditions.push(format!("({}) {sign} ({places})", key_columns(table)));
            values.extend(key.iter().map(Owned::value));
        }
    }
    let condition =
        if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    (condition, values)
}

/// Keys with what tells contents apart, in order; a page of them where no end is given.
fn keys<S: Session>(
    session: &S,
    table: &Table,
    after: Option<&Key>,
    up_to: Option<&Key>,
) -> Result<Vec<(Key, Vec<Owned>)>, DbError> {
    // The first bytes of what is sealed, which begin with a random nonce, tell one content from another.
    let prints = if table.is_sealed() { "substr(sealed, 1, 40)".to_owned() } else { table.rest.join(", ") };
    let (condition, values) = range(table, after, up_to);
    let limit = if up_to.is_none() { format!(" LIMIT {PAGE_ROWS}") } else { String::new() };
    let key = key_columns(table);
    let sql = format!("SELECT {key}, {prints} FROM {} {condition} ORDER BY {key}{limit}", table.name);
    let width = if table.is_sealed() { 1 } else { table.rest.len() };
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
    let width = table.width();
    let columns = table.columns();
    if missing.len() * 2 > PAGE_ROWS {
        let (condition, values) = range(table, after, Some(last));
        let sql = format!("SELECT {columns} FROM {} {condition}", table.name);
        let mut rows = session.rows(&sql, &values, |row| owned(row, 0..width))?;
        let missing: std::collections::HashSet<&[Owned]> = missing.iter().map(Vec::as_slice).collect();
        rows.retain(|row| missing.contains(&row[..table.key.len()]));
        return Ok(rows);
    }
    let sql = format!(
        "SELECT {columns} FROM {} WHERE ({}) = ({})",
        table.name,
        key_columns(table),
        placeholders(table, 1)
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
        format!("DELETE FROM {} WHERE ({}) = ({})", table.name, key_columns(table), placeholders(table, 1));
    let rows: Vec<Vec<Value<'_>>> = gone.iter().map(|key| key.iter().map(Owned::value).collect()).collect();
    in_one(session, &sql, &rows)
}

fn add<S: Session>(session: &mut S, table: &Table, rows: &[Vec<Owned>]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    let places: Vec<String> = (1..=table.width()).map(|at| format!("?{at}")).collect();
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

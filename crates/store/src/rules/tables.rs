//! Every table of the data, written down once: its key, its other columns, and which of them are sealed.

/// A table.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Columns of the key.
    pub(crate) key: &'static [&'static str],
    /// The other columns; the sealed one stands last.
    pub(crate) rest: &'static [&'static str],
}

pub(crate) const fn table(
    name: &'static str,
    key: &'static [&'static str],
    rest: &'static [&'static str],
) -> Table {
    Table { name, key, rest }
}

impl Table {
    /// All columns, those of the key first.
    pub(crate) fn columns(&self) -> String {
        [self.key, self.rest].concat().join(", ")
    }

    /// How many columns it has.
    pub(crate) fn width(&self) -> usize {
        self.key.len() + self.rest.len()
    }

    /// Whether its last column is sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.rest.last() == Some(&"sealed")
    }

    /// The table of a name.
    pub(crate) fn named(name: &str) -> Option<&'static Table> {
        DATA.iter().find(|table| table.name == name)
    }
}

/// The tables with sealed rows. A column `sealed` that is not among them fails the tests.
pub(crate) fn sealed() -> impl Iterator<Item = &'static Table> {
    DATA.iter().filter(|table| table.is_sealed())
}

/// All of them, what others name before what names it.
pub(crate) const DATA: [Table; 19] = [
    table("series", &["number"], &["subject_kind", "subject", "measure", "device"]),
    table("journal", &["number"], &["committed_at", "sealed"]),
    table("group_summary", &["number"], &["committed_at", "leaf", "sealed"]),
    table("cursor", &["consumer"], &["position"]),
    table("latest", &["series"], &["measured_at", "sequence", "sealed"]),
    table("block", &["number"], &["series", "first_at", "first_sequence", "last_at", "count", "sealed"]),
    table("wave_block", &["number"], &["series", "start_at", "duration_us", "sealed"]),
    table("event", &["series", "at", "sequence", "version"], &["sealed"]),
    table(
        "frame_block",
        &["number"],
        &["device", "patient", "first_received", "last_received", "count", "plain_bytes", "sealed"],
    ),
    table("quarantine", &["id"], &["received_at", "waiting", "frame_bytes", "sealed"]),
    table("document", &["kind", "id"], &["version", "updated_at", "sealed"]),
    table("document_history", &["kind", "id", "version"], &["updated_at", "sealed"]),
    table("document_index", &["kind", "name", "value", "id"], &["is_unique"]),
    table(
        "audit",
        &["sequence"],
        &["at", "action", "outcome", "patient", "device", "actor", "flags", "leaf", "sealed"],
    ),
    table("document_change", &["change"], &["kind", "id", "version", "removed"]),
    table("log_head", &["log"], &["size"]),
    table("log_tile", &["log", "level", "number"], &["hashes"]),
    table("log_checkpoint", &["log", "number"], &["size", "at", "note"]),
    table("log_thinned", &["log"], &["note"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_schema_is_here_with_all_its_columns() {
        let data = rusqlite::Connection::open_in_memory().unwrap();
        super::super::schema::DATA.iter().for_each(|script| data.execute_batch(script).unwrap());
        let sql = "SELECT m.name, c.name, c.pk FROM sqlite_master m, pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name <> 'meta' ORDER BY m.name, c.pk, c.name";
        let mut found = data.prepare(sql).unwrap();
        let columns = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let found: Vec<(String, String, u8)> = columns.map(Result::unwrap).collect();
        let mut known: Vec<(String, String, u8)> = Vec::new();
        for Table { name, key, rest } in &DATA {
            let key = key.iter().zip(1_u8..).map(|(column, at)| (*column, at));
            let all = key.chain(rest.iter().map(|column| (*column, 0)));
            known.extend(all.map(|(column, at)| ((*name).to_owned(), column.to_owned(), at)));
        }
        known.sort_by(|a, b| (&a.0, a.2, &a.1).cmp(&(&b.0, b.2, &b.1)));
        assert_eq!(found, known);
    }
}

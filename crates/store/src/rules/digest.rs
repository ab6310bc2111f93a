//! What a store says once everything is opened, in one hash a table that does not depend on any order.

use trust::digest::Sha256;

use super::SqlStore;
use super::tables::{DATA, Table};
use crate::StoreError;
use crate::sql::{Backend, Begin, Column, Session, Tx, read};

const DOING: &str = "hashing what is kept";

/// The rows of one table, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableDigest {
    pub(crate) table: &'static str,
    pub(crate) rows: u64,
    /// Of them, rows that cannot be opened because their patient was erased.
    pub(crate) erased: u64,
    /// The SHA-256 of every row, added up without carry.
    pub(crate) sum: [u8; 32],
}

impl<B: Backend> SqlStore<B> {
    /// Opens everything once, at one instant.
    pub(crate) fn digest(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<TableDigest>, StoreError> {
        let mut session = self.backend.another()?;
        let snapshot = Tx::begin(&mut session, Begin::Snapshot).map_err(read(DOING))?;
        let mut done = 0;
        let mut each = || {
            done += 1;
            progress(done);
        };
        DATA.iter().map(|table| self.digest_table(&snapshot, table, &mut each)).collect()
    }

    fn digest_table(
        &self,
        session: &B::Session,
        table: &'static Table,
        each: &mut dyn FnMut(),
    ) -> Result<TableDigest, StoreError> {
        // What is sealed stands last, and is hashed as what it says.
        let (name, is_sealed, width) = (table.name, table.is_sealed(), table.width());
        let mut digest = TableDigest { table: name, rows: 0, erased: 0, sum: [0; 32] };
        let mut outcome = Ok(());
        session
            .stream(&format!("SELECT {} FROM {name}", table.columns()), &[], &mut |row| {
                let mut hash = Sha256::new();
                for at in 0..width - usize::from(is_sealed) {
                    add_column(&mut hash, row.0.column(at)?);
                }
                if is_sealed {
                    match self.open_row(name, row, &row.get::<Vec<u8>>(width - 1)?) {
                        Ok(plain) => add_column(&mut hash, Column::Bytes(&plain)),
                        Err(StoreError::KeyGone { .. }) => digest.erased += 1,
                        Err(error) => {
                            outcome = Err(error);
                            return Ok(false);
                        }
                    }
                }
                for (sum, byte) in digest.sum.iter_mut().zip(hash.finish()) {
                    *sum ^= byte;
                }
                digest.rows += 1;
                each();
                Ok(true)
            })
            .map_err(read(DOING))?;
        outcome.map(|()| digest)
    }
}

/// Adds a value with its type and length, so that two rows never look alike by accident.
fn add_column(hash: &mut Sha256, column: Column<'_>) {
    let (tag, bytes): (u8, &[u8]) = match column {
        Column::Null => (0, &[]),
        Column::Int(number) => {
            hash.update(&[1]);
            return hash.update(&number.to_be_bytes());
        }
        Column::Text(text) => (2, text.as_bytes()),
        Column::Bytes(bytes) => (3, bytes),
    };
    hash.update(&[tag]);
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

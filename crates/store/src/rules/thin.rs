//! Thinning the checkpoints of a log: of old ones the last of each hour stays, of older ones the last of each day, and a
//! signed statement says which were left, so that one more that goes is found.

use std::time::Duration;

use clinical_model::Timestamp;
use trust::digest::Sha256;
use trust::log::note::{KeyKind, Note, Signer, VerifierKey};

use super::{SqlStore, describe};
use crate::proven::{Lease, Log, Thinned, Thinning, ThinningSpan};
use crate::sql::{Backend, Begin, Session, Tx, read, values};
use crate::{StoreError, TransactError};

const DOING: &str = "thinning the checkpoints";
/// All checkpoints stay for so long: whoever compares two of them lately compares any two.
const ALL_FOR: Duration = Duration::from_secs(30 * 86_400);
/// After that the last of each hour stays for so long, and then the last of each day.
const HOURLY_FOR: Duration = Duration::from_secs(366 * 86_400);
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// Checkpoints looked at in one step, in which a reading may have to wait for their removal.
const STEP_ROWS: usize = 1_000;

/// Which checkpoints were left of those up to a number.
struct Left {
    through: u64,
    count: u64,
    /// SHA-256 of their numbers, sizes and times, in hexadecimal.
    digest: String,
}

impl Left {
    fn text(&self, origin: &str) -> String {
        format!("{origin}thinned\nup to {}\n{} left\n{}\n", self.through, self.count, self.digest)
    }

    /// From a signed statement about this log.
    fn parse(note: &str, origin: &str, keys: &[VerifierKey]) -> Result<Left, String> {
        let note = Note::parse(note).map_err(|error| describe(&error))?;
        let signed = note.verify(keys).map_err(|error| describe(&error))?;
        if !signed.iter().any(|signed| signed.by.kind() == KeyKind::Log) {
            return Err("no key of the log signed it".to_owned());
        }
        let left = (|| {
            let mut lines = note.text().lines().skip(1);
            let through = lines.next()?.strip_prefix("up to ")?.parse().ok()?;
            let count = lines.next()?.strip_suffix(" left")?.parse().ok()?;
            Some(Left { through, count, digest: lines.next()?.to_owned() })
        })();
        // Written again it must be the same text: it is of this log, and there is nothing else in it.
        left.filter(|left| left.text(origin) == note.text())
            .ok_or_else(|| "it says something else".to_owned())
    }
}

/// The spans of time of which one checkpoint stays; `None` while all stay.
fn span_of(at: Timestamp, now: Timestamp) -> Option<(bool, i64)> {
    let seconds = at.as_micros().div_euclid(1_000_000);
    if at.plus(ALL_FOR) > now {
        None
    } else if at.plus(HOURLY_FOR) > now {
        Some((false, seconds.div_euclid(HOUR_S)))
    } else {
        Some((true, seconds.div_euclid(DAY_S)))
    }
}

impl Thinning {
    /// Takes up the next checkpoint, oldest first; the numbers of those that go now that it is there. The first of a log
    /// stays, the last of a span, and in it the last that each witness cosigned.
    fn next(&mut self, number: u64, span: ThinningSpan, cosigners: Vec<String>) -> Vec<u64> {
        let is_first = std::mem::replace(&mut self.after, number) == 0;
        if self.span.as_ref() != Some(&span) {
            self.held.clear();
            self.span = Some(span);
        }
        for (_, names) in &mut self.held {
            names.retain(|name| !cosigners.contains(name));
        }
        let gone =
            self.held.extract_if(.., |(_, names)| names.is_empty()).map(|(number, _)| number).collect();
        if !is_first {
            self.held.push((number, cosigners));
        }
        gone
    }
}

impl<B: Backend> SqlStore<B> {
    /// One step of a pass over a log's checkpoints.
    pub(super) fn thin_some(
        &self,
        log: Log,
        pass: &mut Thinning,
        now: Timestamp,
        lease: Lease,
    ) -> Result<Thinned, TransactError> {
        let (origin, signers) = {
            let session = self.reader(DOING)?;
            (self.log_origin(&session, log)?.0, self.read_signers(now)?)
        };
        let (gone, more) = self.outdated(log, pass, now, &signers)?;
        let Some(last) = gone.iter().max().copied() else { return Ok(Thinned { removed: 0, more }) };
        let mut writer = self.acts(DOING)?;
        let transaction = Tx::begin(&mut *writer, Begin::Write).map_err(self.wrote(DOING))?;
        self.check_lease(&transaction, lease)?;
        let keys: Vec<VerifierKey> = signers.iter().map(|signer| signer.verifier().clone()).collect();
        let before = self.left_in(&transaction, log, &origin, &keys, Some(last))?;
        let through = before.map_err(|how| StoreError::Damaged {
            what: format!("checkpoints of the log of {}", log.name()),
            how,
        })?;
        let rows: Vec<_> = gone.iter().map(|number| values![log as u8, *number].to_vec()).collect();
        transaction
            .execute_each("DELETE FROM log_checkpoint WHERE log = ?1 AND number = ?2", &rows)
            .map_err(self.wrote(DOING))?;
        let through = through.max(last);
        let (count, digest) = kept_up_to(&*transaction, log, through)?;
        let signer: Vec<&Signer> = signers.last().into_iter().collect();
        let note = Note::sign(&Left { through, count, digest }.text(&origin), &signer, 0);
        transaction
            .execute(
                "INSERT INTO log_thinned(log, note) VALUES(?1, ?2)
                 ON CONFLICT(log) DO UPDATE SET note = excluded.note",
                &values![log as u8, &note],
            )
            .map_err(self.wrote(DOING))?;
        transaction.commit().map_err(self.wrote(DOING))?;
        Ok(Thinned { removed: gone.len() as u64, more })
    }

    /// The numbers of some checkpoints that may go, and whether there are more to look at.
    fn outdated(
        &self,
        log: Log,
        pass: &mut Thinning,
        now: Timestamp,
        signers: &[Signer],
    ) -> Result<(Vec<u64>, bool), StoreError> {
        let session = self.reader(DOING)?;
        let rows: Vec<(u64, i64, String)> = session
            .rows(
                "SELECT number, at, note FROM log_checkpoint WHERE log = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
                &values![log as u8, pass.after, STEP_ROWS],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .map_err(read(DOING))?;
        drop(session);
        let mut gone = Vec::new();
        for (number, at, note) in &rows {
            let Some((is_day, index)) = span_of(Timestamp::from_micros(*at), now) else {
                return Ok((gone, false));
            };
            let damaged = |how: String| StoreError::Damaged {
                what: format!("checkpoint {number} of the log of {}", log.name()),
                how,
            };
            let parsed = Note::parse(note).map_err(|error| damaged(describe(&error)))?;
            let is_own = |name: &str| signers.iter().any(|signer| signer.verifier().name() == name);
            let cosigners = parsed.names().filter(|name| !is_own(name)).map(str::to_owned).collect();
            let origin = note.lines().next().unwrap_or_default().to_owned();
            gone.extend(pass.next(*number, ThinningSpan { origin, is_day, index }, cosigners));
        }
        Ok((gone, rows.len() == STEP_ROWS))
    }

    /// Up to which number checkpoints were thinned, where all stand there that should (up to a number, or all of them);
    /// else what is wrong.
    fn left_in(
        &self,
        session: &B::Session,
        log: Log,
        origin: &str,
        keys: &[VerifierKey],
        up_to: Option<u64>,
    ) -> Result<Result<u64, String>, StoreError> {
        let sql = "SELECT note FROM log_thinned WHERE log = ?1";
        let note: Option<String> =
            session.row(sql, &values![log as u8], |row| row.get(0)).map_err(read(DOING))?;
        let mut through = 0;
        if let Some(note) = note {
            let left = match Left::parse(&note, origin, keys) {
                Ok(left) => left,
                Err(how) => {
                    return Ok(Err(format!("the statement of those that were left was changed: {how}")));
                }
            };
            through = left.through;
            let (count, digest) = kept_up_to(session, log, through)?;
            if (count, digest) != (left.count, left.digest) {
                let how = format!(
                    "of those up to number {through}, {} were left when they were thinned; these are {count}, and \
                     not the same",
                    left.count
                );
                return Ok(Err(how));
            }
        }
        let sql = "SELECT coalesce(min(number), 0), coalesce(max(number), 0), count(*) FROM log_checkpoint
             WHERE log = ?1 AND number > ?2 AND number <= ?3";
        let bound = values![log as u8, through, up_to.unwrap_or(u64::MAX)];
        let found = session.row(sql, &bound, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (first, last, count): (u64, u64, u64) = found.map_err(read(DOING))?.unwrap_or_default();
        let expected = last.saturating_sub(through);
        if count > 0 && (first != through + 1 || expected != count) {
            let (from, gone) = (through + 1, expected.saturating_sub(count));
            return Ok(Err(format!("{gone} of those from number {from} to {last} were removed")));
        }
        Ok(Ok(through))
    }

    /// What is wrong with the numbers of a log's checkpoints.
    pub(super) fn missing_checkpoints(
        &self,
        session: &B::Session,
        log: Log,
        origin: &str,
        keys: &[VerifierKey],
    ) -> Result<Option<String>, StoreError> {
        Ok(self.left_in(session, log, origin, keys, None)?.err())
    }
}

/// How many checkpoints are there up to a number, and the hash of their numbers, sizes and times.
fn kept_up_to<S: Session>(session: &S, log: Log, through: u64) -> Result<(u64, String), StoreError> {
    let (mut hash, mut count) = (Sha256::new(), 0);
    session
        .stream(
            "SELECT number, size, at FROM log_checkpoint WHERE log = ?1 AND number <= ?2 ORDER BY number",
            &values![log as u8, through],
            &mut |row| {
                for at in 0..3 {
                    hash.update(&row.get::<i64>(at)?.to_be_bytes());
                }
                count += 1;
                Ok(true)
            },
        )
        .map_err(read(DOING))?;
    Ok((count, hash.finish().iter().map(|byte| format!("{byte:02x}")).collect()))
}

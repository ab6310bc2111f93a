//! Sessions: opaque tokens of which only the hash is kept, in the store, so that every node knows them; bound to where they
//! began; ended by idleness, age, sign-out or an administrator.

mod caller;
mod cookie;
mod current;
mod record;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use caller::Caller;
pub use caller::{Binding, RemoteAddress};
use clinical_model::{RecordId as _, Timestamp, UserId};
pub(crate) use cookie::{cookie, cookie_named, no_cookie, token_of};
pub(crate) use current::Current;
use pipeline::audited::Act;
use pipeline::records::json_from;
pub(crate) use record::{By, NewSession, Record, Stage};
use store::{
    Actor, AuditAction, AuditOutcome, AuditRecord, DocumentQuery, DocumentWrite, Expected, Kind, Order,
    Store, StoreError, TransactError, Transaction,
};
use tokio::sync::watch;
use trust::{TokenHash, TokenSecret};

/// Sessions that one node holds in memory; beyond it the one longest unseen is read again when it comes back.
const KNOWN_LIMIT: usize = 10_000;
/// Sessions of one person at one time, and as many in each stage before; the oldest of its stage ends beyond it. A ward's
/// account is used on many tablets.
const OF_ONE_USER_LIMIT: usize = 100;
/// Sessions beyond their age that are removed with each new one: more than one, so that they cannot pile up.
const SWEEP_LIMIT: usize = 16;
/// Activity is written down at most this often in the idle time: once a minute of the usual fifteen.
const TOUCHES_OF_IDLE_TIME: u32 = 15;
/// Where several nodes share the store, what one of them knows of a session is asked again after so long.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Times that a session is read again because another node was faster to write it.
const LOOK_LIMIT_TRIES: usize = 4;
/// Times that the sessions of a person are looked for again when all of them are ended.
const END_LIMIT_ROUNDS: usize = 8;
/// The index of sessions by their beginning.
const BY_START: &str = "started";
/// The index of sessions by person and beginning.
const BY_USER: &str = "user-started";

/// A second factor that was used so recently passes where one is asked for again.
pub(crate) const FRESH_SECOND_FACTOR: Duration = Duration::from_secs(300);
/// A session whose way in is not complete yet ends after so long.
const UNFINISHED_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Wrong codes in one session before it ends.
const WRONG_CODES_LIMIT: u8 = 5;

fn id_of(hash: &TokenHash) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.0[..16]);
    id
}

/// What this node knows of a session.
struct Known {
    record: Record,
    /// When activity was last written down.
    written_at: Timestamp,
    /// When the store was last asked.
    read_at: Instant,
    /// Another node has written it since.
    is_outdated: bool,
    ended: watch::Sender<bool>,
}

/// All sessions.
pub(crate) struct Sessions {
    store: Arc<dyn Store>,
    /// Whether other nodes write to the same store.
    is_shared: bool,
    idle_timeout: Duration,
    limit: Duration,
    known: Mutex<HashMap<[u8; 16], Known>>,
}

impl Sessions {
    pub(crate) fn new(store: Arc<dyn Store>, idle_timeout: Duration, limit: Duration) -> Self {
        Sessions { is_shared: store.shared(), store, idle_timeout, limit, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 16], Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session, with its row in the audit log, and returns its token, which is shown once; the one it takes the
    /// place of ends. Blocks.
    pub(crate) fn begin(&self, new: NewSession, now: Timestamp) -> Result<TokenSecret, TransactError> {
        let token = TokenSecret::generate();
        let record = Record {
            hash: token.hash().0,
            user: new.user,
            started_at: now,
            seen_at: now,
            stage: new.stage,
            by: new.by,
            second_factor_at: new.second_factor_at,
            caller: new.caller,
            vouched: new.vouched,
            wrong_codes: 0,
        };
        let over = self
            .oldest(SWEEP_LIMIT)?
            .into_iter()
            .filter(|old| now.duration_since(old.started_at) > self.limit);
        // All beyond the limit: those that began at one time may have passed it together. Whoever has proven less pushes
        // nobody out who has proven more.
        let alike = self.of_user(new.user)?.into_iter().filter(|old| old.stage == new.stage);
        let oldest = alike.skip(OF_ONE_USER_LIMIT - 1);
        let mut ending: BTreeSet<[u8; 16]> = over.chain(oldest).map(|record| record.id()).collect();
        ending.extend(new.replaces.as_ref().map(id_of));
        let mut writes = vec![record.write(Expected::Absent)];
        writes.extend(ending.iter().map(|id| DocumentWrite::removal(Kind::Session, *id)));
        let audit = vec![new.act.record(now, AuditOutcome::Success)];
        self.store.transact(&Transaction { at: now, writes, audit, ..Transaction::default() })?;
        ending.into_iter().for_each(|id| self.forget(id));
        self.learn(record);
        Ok(token)
    }

    /// All sessions of a person, the newest first. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn of_user(&self, user: UserId) -> Result<Vec<Record>, StoreError> {
        let (prefix, mut all, mut after) = (user.to_bytes().to_vec(), Vec::new(), None);
        loop {
            let query = DocumentQuery {
                kind: Kind::Session,
                index: BY_USER,
                prefix: prefix.clone(),
                after: after.take(),
                order: Order::Descending,
                limit: OF_ONE_USER_LIMIT,
            };
            let page = self.store.documents(&query)?;
            all.extend(page.iter().filter_map(|document| json_from::<Record>(&document.body).ok()));
            match page.last() {
                Some(last) if page.len() == OF_ONE_USER_LIMIT => {
                    after = Some((last.index_value.clone(), last.id));
                }
                _ => return Ok(all),
            }
        }
    }

    /// Those in which the person has proven something and that still run. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn running(&self, user: UserId, now: Timestamp) -> Result<Vec<Record>, StoreError> {
        let here = |mut record: Record| {
            let seen = self.lock().get(&record.id()).map(|one| one.record.seen_at);
            record.seen_at = record.seen_at.max(seen.unwrap_or(record.seen_at));
            record
        };
        let all = self.of_user(user)?.into_iter().filter(|record| record.stage != Stage::Linking).map(here);
        Ok(all.filter(|record| !self.is_over(record, now)).collect())
    }

    /// Ends the sessions of a person, but one, and tells how many; where there were any, with the row of the act. Blocks.
    ///
    /// # Errors
    /// [`TransactError`]; then all of them run on.
    pub(crate) fn end_all_of(
        &self,
        user: UserId,
        but: Option<&TokenHash>,
        act: Act,
        now: Timestamp,
    ) -> Result<usize, TransactError> {
        let but = but.map(id_of);
        let mut acts = vec![act.record(now, AuditOutcome::Success)];
        let mut ended = 0;
        // Again, for one may have begun meanwhile.
        for _ in 0..END_LIMIT_ROUNDS {
            let ending: Vec<[u8; 16]> =
                self.of_user(user)?.iter().map(Record::id).filter(|id| Some(*id) != but).collect();
            if ending.is_empty() {
                break;
            }
            self.end_these(&ending, std::mem::take(&mut acts), now)?;
            ended += ending.len();
        }
        Ok(ended)
    }

    /// Ends one session of a person by its id, with the row of the act; false where it is not theirs. Blocks.
    ///
    /// # Errors
    /// [`TransactError`]; then it runs on.
    pub(crate) fn end_one(
        &self,
        user: UserId,
        id: [u8; 16],
        act: Act,
        now: Timestamp,
    ) -> Result<bool, TransactError> {
        let found = self.store.document(Kind::Session, id)?;
        let found = found.and_then(|document| json_from::<Record>(&document.body).ok());
        let is_theirs = found.is_some_and(|record| record.user == user);
        if is_theirs {
            self.end_these(&[id], vec![act.record(now, AuditOutcome::Success)], now)?;
        }
        Ok(is_theirs)
    }

    /// Removes sessions, and only then, when that is kept with its rows, forgets them here.
    fn end_these(
        &self,
        ids: &[[u8; 16]],
        audit: Vec<AuditRecord>,
        now: Timestamp,
    ) -> Result<(), TransactError> {
        let writes = ids.iter().map(|id| DocumentWrite::removal(Kind::Session, *id)).collect();
        self.store.transact(&Transaction { at: now, writes, audit, ..Transaction::default() })?;
        ids.iter().for_each(|id| self.forget(*id));
        Ok(())
    }

    /// Changes a session at its version, with the row of the act. `None` where it has ended meanwhile. Blocks.
    fn change(
        &self,
        hash: &TokenHash,
        act: Option<&Act>,
        now: Timestamp,
        change: impl Fn(&mut Record),
    ) -> Result<Option<Current>, TransactError> {
        for _ in 0..LOOK_LIMIT_TRIES {
            let Some((mut record, version)) = self.read(hash)? else { return Ok(None) };
            change(&mut record);
            let writes = vec![record.write(Expected::Version(version))];
            let audit = act.cloned().map(|act| act.record(now, AuditOutcome::Success)).into_iter().collect();
            match self.store.transact(&Transaction { at: now, writes, audit, ..Transaction::default() }) {
                Ok(()) => return Ok(Some(self.learn(record))),
                Err(TransactError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes down that the second factor was used in a session, with the row of the act. Blocks.
    ///
    /// # Errors
    /// [`TransactError`]; then it counts as not used.
    pub(crate) fn proven(
        &self,
        hash: &TokenHash,
        act: &Act,
        now: Timestamp,
    ) -> Result<Option<Current>, TransactError> {
        self.change(hash, Some(act), now, |record| {
            record.second_factor_at = Some(now);
            record.wrong_codes = 0;
        })
    }

    /// Counts a try of a code before it is looked at; false, and the session has ended, after too many. Blocks.
    ///
    /// # Errors
    /// [`TransactError`].
    pub(crate) fn may_try_code(
        &self,
        hash: &TokenHash,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<bool, TransactError> {
        let counted = |record: &mut Record| record.wrong_codes = record.wrong_codes.saturating_add(1);
        let Some(current) = self.change(hash, None, now, counted)? else { return Ok(false) };
        let tries = self.lock().get(&id_of(hash)).map_or(u8::MAX, |one| one.record.wrong_codes);
        if tries > WRONG_CODES_LIMIT {
            let act = caller
                .by(Actor::User(current.user))
                .act(AuditAction::SignOut, "session")
                .detail("ended, for too many wrong codes were given");
            self.end(hash, act, AuditOutcome::Refused, now)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn read(&self, hash: &TokenHash) -> Result<Option<(Record, u64)>, StoreError> {
        let document = self.store.document(Kind::Session, id_of(hash))?;
        Ok(document.and_then(|document| {
            let record: Record = json_from(&document.body).ok()?;
            (record.hash == hash.0).then_some((record, document.version))
        }))
    }

    /// Another node wrote a session: what this one knows of it is asked again.
    pub(crate) fn outdated(&self, id: [u8; 16]) {
        if let Some(one) = self.lock().get_mut(&id) {
            one.is_outdated = true;
        }
    }

    /// The oldest sessions of all.
    fn oldest(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        let query = DocumentQuery {
            kind: Kind::Session,
            index: BY_START,
            prefix: Vec::new(),
            after: None,
            order: Order::Ascending,
            limit,
        };
        let found = self.store.documents(&query)?;
        Ok(found.iter().filter_map(|document| json_from(&document.body).ok()).collect())
    }

    /// Takes what the store says of a session, and answers with it as this node now knows it.
    fn learn(&self, record: Record) -> Current {
        let mut known = self.lock();
        if known.len() >= KNOWN_LIMIT && !known.contains_key(&record.id()) {
            // One that a stream waits for stays: dropping it would end the stream.
            let quiet = known.iter().filter(|(_, one)| one.ended.receiver_count() == 0);
            let quiet = quiet.min_by_key(|(_, one)| one.record.seen_at).map(|(id, _)| *id);
            quiet.and_then(|id| known.remove(&id));
        }
        let written_at = record.seen_at;
        let one = known.entry(record.id()).or_insert_with(|| Known {
            record: record.clone(),
            written_at,
            read_at: Instant::now(),
            is_outdated: false,
            ended: watch::Sender::new(false),
        });
        let seen_at = one.record.seen_at.max(written_at);
        one.record = Record { seen_at, ..record };
        one.written_at = written_at;
        one.read_at = Instant::now();
        one.is_outdated = false;
        self.shown(one)
    }

    /// How long a session may run without a request, and in all.
    fn limits(&self, record: &Record) -> (Duration, Duration) {
        match record.stage {
            Stage::Whole => (self.idle_timeout, self.limit),
            Stage::Linking | Stage::SecondFactor => (FRESH_SECOND_FACTOR, FRESH_SECOND_FACTOR),
            Stage::Enrolling => (UNFINISHED_LIMIT.min(self.limit), UNFINISHED_LIMIT.min(self.limit)),
        }
    }

    fn shown(&self, one: &Known) -> Current {
        let record = &one.record;
        let (idle, limit) = self.limits(record);
        Current {
            user: record.user,
            hash: TokenHash(record.hash),
            expires_at: record.started_at.plus(limit).min(record.seen_at.plus(idle)),
            stage: record.stage,
            by: record.by,
            second_factor_at: record.second_factor_at,
            vouched: record.vouched.clone(),
            caller: record.caller.clone(),
            ended: one.ended.subscribe(),
        }
    }

    fn is_over(&self, record: &Record, now: Timestamp) -> bool {
        let (idle, limit) = self.limits(record);
        record.started_at.is_ahead_of(now)
            || record.seen_at.is_ahead_of(now)
            || now.duration_since(record.seen_at) > idle
            || now.duration_since(record.started_at) > limit
    }

    /// The session of a token as far as this node knows it for certain; `None`: ask [`Sessions::look`]. `touch` counts
    /// the request as activity: streams that stay open by themselves must not keep a session alive. Never blocks.
    pub(crate) fn glance(&self, hash: &TokenHash, now: Timestamp, touch: bool) -> Option<Current> {
        let mut known = self.lock();
        let one = known.get_mut(&id_of(hash)).filter(|one| one.record.hash == hash.0)?;
        let is_fresh = !self.is_shared || (one.read_at.elapsed() < FRESH_FOR && !one.is_outdated);
        let touch_due =
            touch && now.duration_since(one.written_at) >= self.idle_timeout / TOUCHES_OF_IDLE_TIME;
        if !is_fresh || touch_due || self.is_over(&one.record, now) {
            return None;
        }
        if touch {
            one.record.seen_at = one.record.seen_at.max(now);
        }
        Some(self.shown(one))
    }

    /// The session of a token as the store knows it, if it still runs. Blocks.
    ///
    /// # Errors
    /// [`TransactError`] when the store failed.
    pub(crate) fn look(
        &self,
        hash: &TokenHash,
        now: Timestamp,
        touch: bool,
    ) -> Result<Option<Current>, TransactError> {
        let id = id_of(hash);
        for _ in 0..LOOK_LIMIT_TRIES {
            let Some((mut record, version)) = self.read(hash)? else {
                self.forget(id);
                return Ok(None);
            };
            let here = self.lock().get(&id).map(|one| one.record.seen_at);
            let written_at = record.seen_at;
            record.seen_at = record.seen_at.max(here.unwrap_or(record.seen_at));
            if self.is_over(&record, now) {
                // Nobody's act: it was over before it was removed.
                self.end_these(&[id], Vec::new(), now)?;
                return Ok(None);
            }
            if touch && now.duration_since(written_at) >= self.idle_timeout / TOUCHES_OF_IDLE_TIME {
                record.seen_at = record.seen_at.max(now);
                let writes = vec![record.write(Expected::Version(version))];
                match self.store.transact(&Transaction { at: now, writes, ..Transaction::default() }) {
                    Ok(()) => {}
                    // Another node wrote it down, or it was ended meanwhile: see which.
                    Err(TransactError::Conflict { .. }) => continue,
                    Err(error) => return Err(error),
                }
            } else {
                record.seen_at = written_at;
            }
            let current = self.learn(record);
            return Ok(if touch { self.glance(hash, now, true).or(Some(current)) } else { Some(current) });
        }
        Ok(None)
    }

    /// Whether a session still runs, for a stream that asks from time to time. Where the store cannot be asked, what this
    /// node knows stands. Blocks.
    pub(crate) fn runs(&self, hash: &TokenHash, now: Timestamp) -> bool {
        if self.glance(hash, now, false).is_some() {
            return true;
        }
        self.look(hash, now, false).map_or_else(
            |_| self.lock().get(&id_of(hash)).is_some_and(|one| !self.is_over(&one.record, now)),
            |current| current.is_some(),
        )
    }

    /// Ends one session everywhere, with the row of the act; its streams end too. Blocks.
    ///
    /// # Errors
    /// [`TransactError`] when it could not be removed or recorded: it runs on, and whoever ended it is told.
    pub(crate) fn end(
        &self,
        hash: &TokenHash,
        act: Act,
        outcome: AuditOutcome,
        now: Timestamp,
    ) -> Result<(), TransactError> {
        self.end_these(&[id_of(hash)], vec![act.record(now, outcome)], now)
    }

    /// A session was removed from the store: its streams on this node end.
    pub(crate) fn forget(&self, id: [u8; 16]) {
        if let Some(one) = self.lock().remove(&id) {
            one.ended.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests;

//! What outlives a connection, and the rule that a client has one connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clinical_model::DeviceId;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::protocol::Kept;

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ClientKey {
    /// A device has one connection and one session, by whatever client id.
    Device(DeviceId),
    /// A program has one a client id.
    Program { name: String, client_id: String },
}

/// A session at rest.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The client id that it was opened with, and is resumed with [MQTT-3.1.3-2].
    pub client_id: String,
    pub kept: Kept,
    /// Where commands for the device wait, while it is subscribed.
    pub commands: Option<mpsc::Receiver<Vec<u8>>>,
}

/// All sessions of one server.
pub(super) struct Sessions {
    slots: Mutex<Slots>,
    most_at_rest: usize,
    takeover_timeout: Duration,
}

#[derive(Default)]
struct Slots {
    next_lease: u64,
    by_client: HashMap<ClientKey, Slot>,
}

enum Slot {
    InUse { lease: u64, takeover: CancellationToken, ended: CancellationToken, waiting: usize },
    AtRest { session: Session, since: Instant, until: Instant },
}

/// The right to be the one connection of a client. Dropping it ends the session.
pub(super) struct Lease {
    sessions: Arc<Sessions>,
    client: ClientKey,
    number: u64,
    takeover: CancellationToken,
    released: bool,
}

/// The former connection of the client has not ended in time.
#[derive(Debug)]
pub(super) struct StillInUse;

impl Sessions {
    pub(super) fn new(most_at_rest: usize, takeover_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::default(), most_at_rest, takeover_timeout })
    }

    /// Becomes the client's one connection: ends the former one and waits for it. Gives the session it left, if
    /// that still lives.
    pub(super) async fn lease(
        self: &Arc<Self>,
        client: &ClientKey,
    ) -> Result<(Lease, Option<Session>), StillInUse> {
        let deadline = Instant::now() + self.takeover_timeout;
        loop {
            let (former, ended) = match self.take_or_wait(client) {
                Ok(leased) => return Ok(leased),
                Err(waiting) => waiting,
            };
            let in_time = tokio::time::timeout_at(deadline, ended.cancelled()).await.is_ok();
            if !in_time && self.stop_waiting(client, former) {
                return Err(StillInUse);
            }
        }
    }

    /// Forgets sessions whose time is over.
    pub(super) fn forget_expired(&self) {
        let now = Instant::now();
        self.lock().by_client.retain(|_, slot| !matches!(slot, Slot::AtRest { until, .. } if *until <= now));
    }

    fn take_or_wait(
        self: &Arc<Self>,
        client: &ClientKey,
    ) -> Result<(Lease, Option<Session>), (u64, CancellationToken)> {
        let mut slots = self.lock();
        if let Some(Slot::InUse { lease, takeover, ended, waiting }) = slots.by_client.get_mut(client) {
            #[cfg(feature = "planted")]
            let takeover = if trust::planted("no-takeover") { &CancellationToken::new() } else { &*takeover };
            takeover.cancel();
            *waiting += 1;
            return Err((*lease, ended.clone()));
        }
        let session = match slots.by_client.remove(client) {
            Some(Slot::AtRest { session, until, .. }) if until > Instant::now() => Some(session),
            _ => None,
        };
        let number = slots.next_lease;
        slots.next_lease += 1;
        let takeover = CancellationToken::new();
        let slot = Slot::InUse {
            lease: number,
            takeover: takeover.clone(),
            ended: CancellationToken::new(),
            waiting: 0,
        };
        slots.by_client.insert(client.clone(), slot);
        let lease =
            Lease { sessions: Arc::clone(self), client: client.clone(), number, takeover, released: false };
        Ok((lease, session))
    }

    /// Gives whether there is still something to wait for.
    fn stop_waiting(&self, client: &ClientKey, former: u64) -> bool {
        match self.lock().by_client.get_mut(client) {
            Some(Slot::InUse { lease, waiting, .. }) if *lease == former => {
                *waiting -= 1;
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Resolves when another connection of the client wants its place.
    pub(super) fn takeover(&self) -> CancellationToken {
        self.takeover.clone()
    }

    /// Ends the connection's hold, and puts its session to rest for a while or ends it. Gives whether another
    /// connection of the client has taken over.
    pub(super) fn release(mut self, rest: Option<(Session, Duration)>) -> bool {
        self.released = true;
        self.give_back(rest)
    }

    fn give_back(&self, rest: Option<(Session, Duration)>) -> bool {
        let mut slots = self.sessions.lock();
        let taken_over = match slots.by_client.remove(&self.client) {
            Some(Slot::InUse { lease, ended, waiting, .. }) if lease == self.number => {
                ended.cancel();
                waiting > 0
            }
            // Not ours: nobody else removes or replaces a lease, but nothing may be lost if they did.
            Some(other) => {
                slots.by_client.insert(self.client.clone(), other);
                return true;
            }
            None => false,
        };
        if let Some((session, rest)) = rest {
            slots.make_room(self.sessions.most_at_rest);
            let since = Instant::now();
            slots.by_client.insert(self.client.clone(), Slot::AtRest { session, since, until: since + rest });
        }
        taken_over
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.released {
            self.give_back(None);
        }
    }
}

impl Slots {
    /// Makes room for one more session at rest: the one at rest for longest goes.
    fn make_room(&mut self, most_at_rest: usize) {
        let at_rest = |slot: &Slot| match slot {
            Slot::AtRest { since, .. } => Some(*since),
            Slot::InUse { .. } => None,
        };
        // Connections are bounded by their own limit; only then can the map hold so many at rest.
        if self.by_client.len() < most_at_rest
            || self.by_client.values().filter_map(at_rest).count() < most_at_rest
        {
            return;
        }
        let oldest = self
            .by_client
            .iter()
            .filter_map(|(client, slot)| at_rest(slot).map(|since| (since, client)))
            .min_by_key(|(since, _)| *since)
            .map(|(_, client)| client.clone());
        if let Some(oldest) = oldest {
            self.by_client.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn client(n: u8) -> ClientKey {
        ClientKey::Device(DeviceId::from_bytes([n; 16]))
    }

    fn session(id: u16) -> Session {
        let mut session = Session::default();
        session.kept.unreleased.insert(id);
        session
    }

    #[tokio::test]
    async fn a_session_rests_until_its_time_is_over() {
        let sessions = Sessions::new(10, HOUR);
        let (lease, none) = sessions.lease(&client(1)).await.unwrap();
        assert!(none.is_none());
        assert!(!lease.release(Some((session(7), HOUR))));
        let (lease, found) = sessions.lease(&client(1)).await.unwrap();
        assert!(found.unwrap().kept.unreleased.contains(&7));
        lease.release(Some((session(8), Duration::ZERO)));
        assert!(sessions.lease(&client(1)).await.unwrap().1.is_none(), "its time is over");
    }

    #[tokio::test]
    async fn a_second_connection_waits_for_the_first_and_gets_its_session() {
        let sessions = Sessions::new(10, HOUR);
        let (first, _) = sessions.lease(&client(1)).await.unwrap();
        let takeover = first.takeover();
        let others = Arc::clone(&sessions);
        let second = tokio::spawn(async move { others.lease(&client(1)).await.map(|(_, kept)| kept) });
        takeover.cancelled().await;
        assert!(first.release(Some((session(9), HOUR))), "it was taken over");
        let kept = second.await.unwrap().unwrap();
        assert!(kept.unwrap().kept.unreleased.contains(&9));
    }

    #[tokio::test]
    async fn waiting_for_a_connection_that_does_not_end_has_an_end() {
        let sessions = Sessions::new(10, Duration::from_millis(20));
        let (first, _) = sessions.lease(&client(1)).await.unwrap();
        assert!(sessions.lease(&client(1)).await.is_err());
        assert!(!first.release(None), "nobody waits any more");
    }

    #[tokio::test]
    async fn a_dropped_lease_leaves_no_session_and_blocks_nobody() {
        let sessions = Sessions::new(10, HOUR);
        drop(sessions.lease(&client(1)).await.unwrap());
        assert!(sessions.lease(&client(1)).await.unwrap().1.is_none());
    }

    #[tokio::test]
    async fn the_session_at_rest_for_longest_gives_way() {
        let sessions = Sessions::new(2, HOUR);
        for n in 1..=3 {
            let (lease, _) = sessions.lease(&client(n)).await.unwrap();
            lease.release(Some((session(u16::from(n)), HOUR)));
        }
        assert!(sessions.lease(&client(1)).await.unwrap().1.is_none());
        assert!(sessions.lease(&client(2)).await.unwrap().1.is_some());
        assert!(sessions.lease(&client(3)).await.unwrap().1.is_some());
    }

    #[tokio::test]
    async fn expired_sessions_are_forgotten() {
        let sessions = Sessions::new(10, HOUR);
        let (lease, _) = sessions.lease(&client(1)).await.unwrap();
        lease.release(Some((session(1), Duration::ZERO)));
        let (lease, _) = sessions.lease(&client(2)).await.unwrap();
        lease.release(Some((session(2), HOUR)));
        sessions.forget_expired();
        assert_eq!(sessions.lock().by_client.keys().collect::<Vec<_>>(), [&client(2)]);
    }
}

//! Several nodes over one store: each follows what all of them commit, in order, and one at a time owns the alarms.
//!
//! The follower takes the place of the in-process queue after the commit. Groups are numbered without gaps over all nodes;
//! each node shows every one of them once, in that order. Changes of documents are numbered too, and refresh what the node
//! holds in memory. Whoever holds the lease of the alarms judges what was committed from the durable cursor on; its
//! transactions fail once the lease is another's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clinical_model::{Alert, AlertKind, AlertState, Subject, Timestamp};
use store::{DocumentChange, Kind, News, Store, StoreError};

use crate::after::{ALARMS_CURSOR, After, CATCH_UP_PAGE, CURSOR_EVERY_GROUPS, Lease, Rounds, Stages, TICK};
use crate::alarms::{Alarms, LoadAlertsError};
use crate::break_glass::{self, Glasses};
use crate::commit::{AFTER_LIMIT_GROUPS, AfterQueue, CommittedGroup};
use crate::consents::Consents;
use crate::corrections::Corrections;
use crate::gaps::MessageNumbers;
use crate::intake::remember;
use crate::live::Happening;
use crate::records;
use crate::registry::{LoadError, PreviousValues, Refreshed};
use crate::site::Stop;

/// The lease of the one who judges alarms.
pub const ALARMS_LEASE: &str = "alarms";
/// Life of that lease: so long no alarm is judged after a node died. Renewed at a third of it.
const LEASE_LIFE: Duration = Duration::from_secs(6);
/// Life of a node's presence: so long folding waits for groups that a node which died has not shown.
const PRESENCE_LIFE: Duration = Duration::from_secs(15);
/// How often presence is renewed: folding lags behind the screens by this much.
const PRESENCE_EVERY: Duration = Duration::from_secs(1);
/// Changes of documents read at once.
const CHANGES_PAGE: usize = 256;
/// A node that has not reached its store for so long says that it is not ready, and a balancer turns to another.
const READY_WITHIN: Duration = Duration::from_secs(3);

/// What a node that shares its store says of itself.
pub(crate) struct Health {
    begun: Instant,
    /// Milliseconds since `begun` when the store last answered.
    answered_ms: AtomicU64,
    /// Whether this node judges the alarms.
    judges: AtomicBool,
}

impl Health {
    pub(crate) fn new() -> Self {
        Health { begun: Instant::now(), answered_ms: AtomicU64::new(0), judges: AtomicBool::new(false) }
    }

    fn answered(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered_ms.store(now, Ordering::Relaxed);
    }

    /// How long the store has not answered.
    fn silent_for(&self) -> Duration {
        let answered = Duration::from_millis(self.answered_ms.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(answered)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.silent_for() < READY_WITHIN
    }

    pub(crate) fn judges(&self) -> bool {
        self.judges.load(Ordering::Relaxed)
    }
}

/// Told of changes of documents that the pipeline itself holds nothing of; `None`: any number of them may have changed. Where
/// it fails the change is told again, and nothing after it before, so that no node goes on with what holds no longer.
pub type Observer = Box<dyn Fn(Option<&DocumentChange>) -> Result<(), ObserverError> + Send + Sync>;

/// Why an observer could not take a change up just now.
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

/// The duty of the node that judges the alarms.
#[derive(Clone, Copy, Debug)]
struct Duty {
    /// The last group that was judged.
    judged: u64,
    /// Where the durable cursor stands.
    moved: u64,
}

/// Why the follower could not go on just now.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the registry cannot be refreshed")]
    Registry(#[source] LoadError),
    #[error("a change could not be told")]
    Observer(#[source] ObserverError),
    #[error("the open alerts cannot be loaded")]
    Alerts(#[from] LoadAlertsError),
}

/// What a node holds of documents besides the registry and the alarms.
#[derive(Clone)]
pub(crate) struct Documents {
    pub corrections: Arc<Corrections>,
    pub consents: Arc<Consents>,
    pub glasses: Arc<Glasses>,
}

impl Documents {
    pub(crate) fn load(store: &dyn Store, at: Timestamp) -> Result<Self, StoreError> {
        Ok(Documents {
            corrections: Arc::new(Corrections::load(store)?),
            consents: Arc::new(Consents::load(store)?),
            glasses: Arc::new(Glasses::load(store, at)?),
        })
    }
}

/// What the follower needs.
pub(crate) struct Follower {
    pub after: After,
    pub node: [u8; 16],
    pub documents: Documents,
    pub previous: Arc<Mutex<PreviousValues>>,
    pub numbers: Arc<Mutex<MessageNumbers>>,
    pub observers: Arc<Mutex<Vec<Observer>>>,
    pub health: Arc<Health>,
    pub stop: Arc<Stop>,
    /// What is shown and taken up already.
    pub seen: News,
}

/// What the follower keeps while it runs.
struct Running {
    duty: Option<Duty>,
    lease_asked_at: Option<Instant>,
    present_at: Option<Instant>,
    /// Groups of this node that came through the queue: they need not be read back.
    own: BTreeMap<u64, CommittedGroup>,
    rounds: Rounds,
    is_out: bool,
}

impl Follower {
    pub(crate) fn lease(node: [u8; 16]) -> Lease {
        (ALARMS_LEASE, node)
    }

    fn store(&self) -> &dyn Store {
        self.after.store.as_ref()
    }

    /// Runs on its own thread until the site stops and the commit is gone.
    pub(crate) fn run(mut self, queue: &AfterQueue) {
        let mut running = Running {
            duty: None,
            lease_asked_at: None,
            present_at: None,
            own: BTreeMap::new(),
            rounds: Rounds::begin(&self.after),
            is_out: false,
        };
        loop {
            let is_over = drain(queue, self.seen.group, &mut running.own);
            match self.step(&mut running) {
                Ok(()) => {
                    if std::mem::take(&mut running.is_out) {
                        tracing::info!("the store answers again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut running.is_out, true) {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "what is committed cannot be followed; trying again until it can"
                        );
                    }
                    // A lease that cannot be renewed is not counted on.
                    if !matches!(error, FollowError::Store(StoreError::TooFarBehind { .. })) {
                        self.stop.wait(TICK);
                    }
                }
            }
            if is_over {
                break;
            }
        }
        // Whoever is left takes over at once; where the store is away, after the lease's life.
        let released = self.store().release_lease(ALARMS_LEASE, self.node);
        if let Err(error) = released.and_then(|()| self.store().node_gone(self.node)) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the other nodes notice this end by its silence"
            );
        }
    }

    fn step(&mut self, running: &mut Running) -> Result<(), FollowError> {
        let news = self.store().wait_for_news(self.seen, TICK)?;
        let before = self.seen.group;
        self.take_up_changes(news)?;
        self.keep_lease(running)?;
        self.take_groups(news.group, running)?;
        if let Some(duty) = &mut running.duty {
            let behind = duty.judged - duty.moved;
            let is_due = behind >= CURSOR_EVERY_GROUPS || (behind > 0 && before == self.seen.group);
            if is_due && self.after.all_kept() && self.after.move_cursor(duty.judged).is_ok() {
                duty.moved = duty.judged;
            }
            running.rounds.check_silence(&self.after);
        }
        self.be_present(running)?;
        running.rounds.tell_quarantine(&self.after);
        Ok(())
    }

    fn be_present(&self, running: &mut Running) -> Result<(), StoreError> {
        if running.present_at.is_none_or(|at| at.elapsed() >= PRESENCE_EVERY) {
            self.store().node_progress(self.node, self.seen.group, PRESENCE_LIFE)?;
            self.store().care().follow_kek(self.node)?;
            // Only what was written proves that the store answers: news may be those of a minute ago.
            self.health.answered();
            running.present_at = Some(Instant::now());
        }
        Ok(())
    }

    // --- Alarms -------------------------------------------------------------------------------------------

    /// Renews the lease of the alarms, or tries to get it; takes the duty up with it, and puts it down without it.
    fn keep_lease(&self, running: &mut Running) -> Result<(), FollowError> {
        let is_lost = self.after.lost_lease();
        if !is_lost && running.lease_asked_at.is_some_and(|at| at.elapsed() < LEASE_LIFE / 3) {
            return Ok(());
        }
        let holds = self.store().hold_lease(ALARMS_LEASE, self.node, LEASE_LIFE);
        running.lease_asked_at = Some(Instant::now());
        let holds = holds.inspect_err(|_| running.lease_asked_at = None)?;
        if running.duty.is_some() && (is_lost || !holds) {
            tracing::warn!("another node judges the alarms now");
            running.duty = None;
            self.health.judges.store(false, Ordering::Relaxed);
            self.reload_alarms()?;
        }
        if holds && running.duty.is_none() {
            running.duty = Some(self.take_over(running)?);
            self.health.judges.store(true, Ordering::Relaxed);
            tracing::info!("this node judges the alarms now");
        }
        Ok(())
    }

    fn reload_alarms(&self) -> Result<(), FollowError> {
        let mut alarms = self.after.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        self.after.unkept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *alarms = Alarms::load(self.store())?;
        Ok(())
    }

    /// Judges what was committed since the last owner moved the cursor, up to what this node has shown.
    fn take_over(&self, running: &mut Running) -> Result<Duty, FollowError> {
        self.reload_alarms()?;
        let mut judged = self.store().cursor(ALARMS_CURSOR)?;
        let mut moved = judged;
        while judged < self.seen.group {
            let page = self.store().groups_after(judged, CATCH_UP_PAGE)?;
            if page.is_empty() {
                break;
            }
            for group in page.into_iter().take_while(|group| group.group <= self.seen.group) {
                judged = group.group;
                moved = self.after.take(&CommittedGroup::from(group), Stages::Alarms, moved);
            }
            if running.lease_asked_at.is_some_and(|at| at.elapsed() >= LEASE_LIFE / 3) {
                running.lease_asked_at = Some(Instant::now());
                if !self.store().hold_lease(ALARMS_LEASE, self.node, LEASE_LIFE)? {
                    break;
                }
            }
        }
        Ok(Duty { judged: judged.max(moved), moved })
    }

    // --- Groups -------------------------------------------------------------------------------------------

    fn take_groups(&mut self, last: u64, running: &mut Running) -> Result<(), FollowError> {
        while self.seen.group < last {
            if let Some(group) = running.own.remove(&(self.seen.group + 1)) {
                self.take(&group, running);
                continue;
            }
            let page = self.store().groups_after(self.seen.group, CATCH_UP_PAGE)?;
            if page.is_empty() {
                self.fell_behind(last);
            }
            for group in page {
                if group.group != self.seen.group + 1 {
                    self.fell_behind(group.group - 1);
                }
                self.take(&CommittedGroup::from(group), running);
            }
            self.keep_lease(running)?;
            self.be_present(running)?;
        }
        let seen = self.seen.group;
        running.own.retain(|number, _| *number > seen);
        Ok(())
    }

    /// Groups up to `group` were folded before this node saw them: it was away for too long. Screens fetch again.
    fn fell_behind(&mut self, group: u64) {
        tracing::warn!(
            from = self.seen.group,
            to = group,
            "this node was away; its screens fetch what they show again"
        );
        self.seen.group = group;
        self.after.live.lost();
    }

    fn take(&mut self, group: &CommittedGroup, running: &mut Running) {
        let number = group.appended.group;
        for record in group.frames.iter() {
            remember(&self.previous, &record.facts);
        }
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        for record in group.frames.iter() {
            numbers.heard_anywhere(record.frame.device, record.frame.received_at);
        }
        drop(numbers);
        match &mut running.duty {
            Some(duty) if duty.judged < number => {
                duty.moved = self.after.take(group, Stages::Both, duty.moved);
                duty.judged = number;
            }
            _ => drop(self.after.take(group, Stages::Screens, number)),
        }
        self.seen.group = number;
    }

    // --- Documents ----------------------------------------------------------------------------------------

    fn take_up_changes(&mut self, news: News) -> Result<(), FollowError> {
        while self.seen.change < news.change {
            match self.store().changes_after(self.seen.change, CHANGES_PAGE) {
                Ok(changes) if changes.is_empty() => break,
                Ok(changes) => {
                    for change in changes {
                        match self.take_up(&change) {
                            Err(FollowError::Store(error @ StoreError::Damaged { .. })) => {
                                not_taken_up(&change, &error)
                            }
                            Err(FollowError::Registry(LoadError::Store {
                                source: error @ StoreError::Damaged { .. },
                                ..
                            })) => not_taken_up(&change, &error),
                            taken => taken?,
                        }
                        self.seen.change = change.change;
                    }
                }
                Err(StoreError::TooFarBehind { .. }) => {
                    self.reload()?;
                    self.seen.change = news.change;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Everything that this node holds of documents, once more.
    fn reload(&self) -> Result<(), FollowError> {
        self.after.registry.reload(self.store()).map_err(FollowError::Registry)?;
        self.documents.corrections.reload(self.store())?;
        self.documents.consents.reload(self.store())?;
        self.documents.glasses.reload(self.store(), self.after.clock.now())?;
        let mut alarms = self.after.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        *alarms = Alarms::load(self.store())?;
        drop(alarms);
        self.tell(None)?;
        self.after.live.lost();
        Ok(())
    }

    fn tell(&self, change: Option<&DocumentChange>) -> Result<(), FollowError> {
        for observer in self.observers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            observer(change).map_err(FollowError::Observer)?;
        }
        Ok(())
    }

    fn take_up(&self, change: &DocumentChange) -> Result<(), FollowError> {
        let live = &self.after.live;
        match change.kind {
            Kind::Alert => return self.take_up_alert(change),
            Kind::Correction => {
                if let Some(correction) = self.documents.corrections.refresh(self.store(), change.id)? {
                    if self.health.judges() {
                        self.after.value_put_right(&correction);
                    }
                    live.happened(Happening::Assignment { subject: correction.position.series.subject });
                }
                return Ok(());
            }
            Kind::Consent => {
                if let Some(patient) = self.documents.consents.refresh(self.store(), change.id)? {
                    live.happened(Happening::Assignment { subject: Subject::Patient(patient) });
                }
                return Ok(());
            }
            Kind::BreakGlass => {
                let at = self.after.clock.now();
                let changed = self.documents.glasses.refresh(self.store(), change.id, at)?;
                self.documents.consents.moved();
                if let Some(glass) = changed {
                    live.happened(break_glass::happening(&glass));
                }
                return Ok(());
            }
            Kind::Setting if self.documents.consents.refresh_defaults(self.store(), change.id)? => {
                live.lost();
                return Ok(());
            }
            Kind::User | Kind::Session | Kind::Client | Kind::Setting => {
                return self.tell(Some(change));
            }
            _ => {}
        }
        match self.after.registry.refresh(self.store(), change.kind, change.id) {
            Ok(Refreshed::Nothing | Refreshed::Limits | Refreshed::Place) => {}
            Ok(Refreshed::Device(device)) => live.happened(Happening::Device(device)),
            Ok(Refreshed::Patient(patient)) => {
                if self.after.registry.patient(patient).is_none() {
                    // Erased on another node.
                    self.after.registry.forget_patient(patient);
                    self.documents.consents.forget_patient(patient);
                    self.documents.glasses.forget_patient(patient);
                    let mut alarms = self.after.alarms.lock().unwrap_or_else(PoisonError::into_inner);
                    alarms.forget_patient(patient);
                    drop(alarms);
                    live.forget_patient(patient);
                }
                live.happened(Happening::Assignment { subject: Subject::Patient(patient) });
            }
            Ok(Refreshed::Assignment(assignment)) => {
                live.happened(Happening::Assignment { subject: assignment.subject });
                live.happened(Happening::Device(assignment.device));
            }
            Err(error @ LoadError::Store { .. }) => return Err(FollowError::Registry(error)),
            Err(error) => not_taken_up(change, &error),
        }
        Ok(())
    }

    /// An alert that some node raised or changed: each version of it is shown once.
    fn take_up_alert(&self, change: &DocumentChange) -> Result<(), FollowError> {
        if change.removed {
            return Ok(());
        }
        let Some(document) = self.store().document(Kind::Alert, change.id)? else { return Ok(()) };
        let body = if document.version == change.version {
            document.body
        } else {
            // It was changed again since; the later change follows.
            let versions = self.store().document_versions(Kind::Alert, change.id)?;
            let Some(found) = versions.into_iter().find(|one| one.version == change.version) else {
                return Ok(());
            };
            found.body
        };
        let alert: Alert = match records::json_from(&body) {
            Ok(alert) => alert,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an alert of another node cannot be read"
                );
                return Ok(());
            }
        };
        let mut alarms = self.after.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        if !alarms.adopt(alert.clone(), change.version) {
            return Ok(());
        }
        drop(alarms);
        let is_silence = matches!(alert.what, AlertKind::DeviceSilent { .. });
        if is_silence && alert.condition_active && alert.state != AlertState::Resolved {
            self.after.live.update_heard(alert.device, |heard| !std::mem::replace(&mut heard.silent, true));
        }
        self.after.live.happened(Happening::Alert(Box::new(alert)));
        Ok(())
    }
}

/// One document that cannot be read must not keep this node from all the others, nor from its alarms.
fn not_taken_up(change: &DocumentChange, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, kind = ?change.kind, "a document of another node was not taken up");
}

/// Takes the groups that this node committed out of the queue, so that the commit never waits; true when the commit is
/// gone. What is not held is read back from the store.
fn drain(queue: &AfterQueue, seen: u64, own: &mut BTreeMap<u64, CommittedGroup>) -> bool {
    loop {
        match queue.try_recv() {
            Ok(group) => {
                if seen < group.appended.group && own.len() < AFTER_LIMIT_GROUPS {
                    own.insert(group.appended.group, group);
                }
            }
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => return true,
        }
    }
}

//! The site: everything of the loop put together over one store, and its threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use clinical_model::{Subject, Timestamp};
use store::{News, Store, StoreError};

use crate::admission::{Admission, CertificateUse};
use crate::after::After;
use crate::alarms::{Alarms, LoadAlertsError};
use crate::audit_group::AuditGroup;
use crate::chart::Chart;
use crate::checkpoints::LogWatch;
use crate::clock::Clock;
use crate::cluster::{Documents, Follower, Health, Observer};
use crate::commit::{self, AFTER_LIMIT_GROUPS, OnDurabilityFailure};
use crate::corrections::Corrections;
use crate::erasure;
use crate::intake::Intake;
use crate::live::Live;
use crate::queue::CommitQueue;
use crate::registry::{LoadError, Registry};

/// Groups folded in one transaction: short enough that a commit does not wait long behind it.
const FOLD_LIMIT_GROUPS: usize = 512;

/// How a site runs.
pub struct SiteOptions {
    /// How often the journal is folded into blocks.
    pub fold_every: Duration,
    /// What to do when stable storage fails under a commit.
    pub on_durability_failure: OnDurabilityFailure,
}

/// Why a site could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Devices, places, patients or assignments cannot be read.
    #[error("the registry cannot be loaded")]
    Registry(#[source] LoadError),
    /// Open alerts cannot be read.
    #[error("the open alerts cannot be loaded")]
    Alerts(#[source] LoadAlertsError),
    /// The store failed.
    #[error("reading the store failed")]
    Store(#[source] StoreError),
    /// A thread could not be started.
    #[error("the thread \"{name}\" cannot be started")]
    Thread {
        /// Which.
        name: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// How the threads of a site are told to end.
#[derive(Default)]
pub(crate) struct Stop {
    stopping: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Stop {
    /// Waits for so long, or until the site is stopping; whether it is.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |_: &mut ()| !self.stopping.load(Ordering::Acquire);
        drop(self.wake.wait_timeout_while(guard, at_most, waiting).unwrap_or_else(PoisonError::into_inner));
        self.stopping.load(Ordering::Acquire)
    }
}

/// A running site.
pub struct Site {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    alarms: Arc<Mutex<Alarms>>,
    live: Live,
    admission: Admission,
    pub(crate) documents: Documents,
    observers: Arc<Mutex<Vec<Observer>>>,
    health: Option<Arc<Health>>,
    intake: Mutex<Option<Intake>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Arc<Stop>,
    pub(crate) desk: Mutex<()>,
    pub(crate) audit_group: AuditGroup,
    log_watch: LogWatch,
}

impl Site {
    /// Loads what the store keeps, catches up with what was committed but not yet looked at, and starts the threads.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        options: SiteOptions,
    ) -> Result<Arc<Self>, StartError> {
        // Before anything is loaded: what changes meanwhile is taken up again, harmlessly.
        let seen = store.wait_for_news(News::default(), Duration::ZERO).map_err(StartError::Store)?;
        // What was erased is gone before anything is loaded or served.
        erasure::resume(store.as_ref()).map_err(StartError::Store)?;
        let registry = Arc::new(Registry::load(store.as_ref()).map_err(StartError::Registry)?);
        let alarms = Arc::new(Mutex::new(Alarms::load(store.as_ref()).map_err(StartError::Alerts)?));
        let live = Live::new(epoch_of(clock.as_ref()));
        let (admission, uses) = Admission::new(Arc::clone(&registry));
        let (queue, submissions) = CommitQueue::new();
        let intake = Intake {
            line: None,
            registry: Arc::clone(&registry),
            admission: admission.clone(),
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            queue,
            previous: Arc::default(),
            numbers: Arc::default(),
            live: live.clone(),
            quarantine_limit_items: crate::intake::QUARANTINE_LIMIT_ITEMS,
            bounds: crate::shedding::Bounds::default(),
        };
        recall_heard(store.as_ref(), &registry, &live).map_err(StartError::Store)?;
        let documents = Documents::load(store.as_ref(), clock.now()).map_err(StartError::Store)?;
        let health = store.shared().then(|| Arc::new(Health::new()));
        let (previous, numbers) = (Arc::clone(&intake.previous), Arc::clone(&intake.numbers));
        let site = Arc::new(Site {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            registry: Arc::clone(&registry),
            alarms: Arc::clone(&alarms),
            live: live.clone(),
            admission,
            documents: documents.clone(),
            observers: Arc::default(),
            health: health.clone(),
            intake: Mutex::new(Some(intake)),
            threads: Mutex::default(),
            stop: Arc::default(),
            desk: Mutex::default(),
            audit_group: AuditGroup::default(),
            log_watch: LogWatch::default(),
        });
        let node = crate::clock::new_id(clock.now());
        let after = After {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            registry,
            alarms,
            live,
            started_at: clock.now(),
            unkept: Mutex::default(),
            lease: health.is_some().then(|| Follower::lease(node)),
            is_lease_lost: AtomicBool::default(),
        };
        let (to_after, from_commit) = mpsc::sync_channel(AFTER_LIMIT_GROUPS);
        let on_failure = options.on_durability_failure;
        let commit_store = Arc::clone(&store);
        let commit = move || {
            commit::run(&submissions, commit_store.as_ref(), clock.as_ref(), &to_after, &on_failure);
        };
        site.spawn("commit", commit)?;
        match health {
            None => {
                let done = after.catch_up().map_err(StartError::Store)?;
                site.spawn("after-commit", move || after.run(&from_commit, done))?;
            }
            Some(health) => {
                let (observers, stop) = (Arc::clone(&site.observers), Arc::clone(&site.stop));
                let follower =
                    Follower { after, node, documents, previous, numbers, observers, health, stop, seen };
                site.spawn("follow", move || follower.run(&from_commit))?;
            }
        }
        let folder = Folder { store, clock: Arc::clone(&site.clock), stop: Arc::clone(&site.stop) };
        site.spawn("fold", move || folder.run(options.fold_every))?;
        site.finished(uses)
    }

    /// The site, with what was decided before the last stop charted before anybody asks.
    fn finished(self: Arc<Self>, uses: mpsc::Receiver<CertificateUse>) -> Result<Arc<Self>, StartError> {
        self.finish_pending(Timestamp::MAX).map_err(StartError::Store)?;
        let (site, stop) = (Arc::downgrade(&self), Arc::clone(&self.stop));
        self.spawn("finish", move || Site::keep_finishing(&site, &stop))?;
        self.escalate_glasses();
        let (site, stop) = (Arc::downgrade(&self), Arc::clone(&self.stop));
        self.spawn("glasses", move || Site::keep_watching_glasses(&site, &stop))?;
        let (site, stop) = (Arc::downgrade(&self), Arc::clone(&self.stop));
        self.spawn("certificates", move || Site::keep_noting_certificates(&site, &stop, &uses))?;
        Ok(self)
    }

    /// How threads of others learn that the site ends.
    pub(crate) fn stop_signal(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// What is wrong with the log, and how its witnesses stand.
    pub fn log_watch(&self) -> &LogWatch {
        &self.log_watch
    }

    /// Runs something on a thread that the end of the site waits for.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|source| StartError::Thread { name, source })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// The one way in for measurements; `None` once the site is stopping.
    pub fn intake(&self) -> Option<Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the disk does not keep up with what devices send: then what the site does for itself gives way.
    pub fn disk_is_behind(&self) -> bool {
        self.intake().is_some_and(|intake| intake.load().disk_is_behind)
    }

    /// What is kept. Only for what shows no patient's data; the chart is reached through [`Site::read`].
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The store, shared.
    pub fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Time.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// Devices, places, patients and assignments.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is happening now.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Who may send.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Whether this node can serve: where it shares its store, whether that answers. For a balancer.
    pub fn is_ready(&self) -> bool {
        self.health.as_ref().is_none_or(|health| health.is_ready())
    }

    /// Whether this node judges the alarms; where nobody shares the store it always does.
    pub fn judges_alarms(&self) -> bool {
        self.health.as_ref().is_none_or(|health| health.judges())
    }

    /// Tells `observer` of users, sessions and settings that any node writes or removes. Never called where no other
    /// process shares the store. It must not block for long: everything else that is committed waits behind it, and where
    /// the observer fails, until it succeeds.
    pub fn observe(&self, observer: Observer) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// Which series have corrections.
    pub(crate) fn corrections(&self) -> &Corrections {
        &self.documents.corrections
    }

    pub(crate) fn alarms(&self) -> &Mutex<Alarms> {
        &self.alarms
    }

    pub(crate) fn chart(&self) -> Chart<'_> {
        Chart::new(self)
    }

    /// Folds all that can be folded now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn fold_now(&self) -> Result<store::Folded, StoreError> {
        let mut total = store::Folded::default();
        loop {
            let folded = self.store.fold(FOLD_LIMIT_GROUPS, self.clock.now())?;
            if folded.groups == 0 {
                return Ok(total);
            }
            total.groups += folded.groups;
            total.readings += folded.readings;
            total.repeats += folded.repeats;
            total.blocks += folded.blocks;
        }
    }

    /// Takes nothing more, commits what is queued, and ends the threads. Clones of the intake must be gone, or the
    /// commit waits for them.
    pub fn stop(&self) {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stop.stopping.store(true, Ordering::Release);
        drop(self.stop.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.stop.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the site had panicked");
            }
        }
    }
}

/// A name that no other start of any node has.
fn epoch_of(clock: &dyn Clock) -> String {
    trust::uuid_v7(u64::try_from(clock.now().as_millis()).unwrap_or(0)).simple().to_string()
}

/// When each assigned device was last heard, from the latest values that are kept.
fn recall_heard(store: &dyn Store, registry: &Registry, live: &Live) -> Result<(), StoreError> {
    for patient in registry.patients() {
        for reading in store.latest(Subject::Patient(patient.id))? {
            live.update_heard(reading.series().device, |heard| {
                heard.last_heard_at = heard.last_heard_at.max(Some(reading.received_at()));
                false
            });
        }
    }
    for device in registry.devices() {
        for reading in store.latest(Subject::Device(device.id))? {
            live.update_heard(device.id, |heard| {
                heard.last_heard_at = heard.last_heard_at.max(Some(reading.received_at()));
                heard.battery = reading.value().number();
                false
            });
        }
    }
    Ok(())
}

/// Folds the journal into blocks from time to time.
struct Folder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    stop: Arc<Stop>,
}

impl Folder {
    fn run(&self, every: Duration) {
        let mut is_out = false;
        while !self.stop.wait(every) {
            loop {
                if self.stop.stopping.load(Ordering::Acquire) {
                    return;
                }
                match self.store.fold(FOLD_LIMIT_GROUPS, self.clock.now()) {
                    Ok(folded) if folded.groups > 0 => is_out = false,
                    Ok(_) => {
                        is_out = false;
                        break;
                    }
                    Err(error) => {
                        // Said once while the database is away, however long that is.
                        let said = is_out;
                        is_out = matches!(error, StoreError::Unavailable { .. });
                        if !said || !is_out {
                            tracing::error!(
                                error = &error as &dyn std::error::Error,
                                "folding failed; the journal is kept"
                            );
                        }
                        break;
                    }
                }
            }
        }
    }
}

/// The present instant of a site, cut to milliseconds: the resolution of times of receipt.
pub fn received_now(clock: &dyn Clock) -> Timestamp {
    clock.now().truncated_to_millis()
}

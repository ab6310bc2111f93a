//! Exports that are under way or ready: what they hold, how far they are, and when they are forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clinical_model::{Interval, SeriesKey, Subject, Timestamp};
use health_codecs::fhir::search::ResourceType;
use pipeline::Site;
use pipeline::audited::{Agent, ReadError};
use store::AuditAction;

use super::super::everything::{Changed, Observed, Place};
use super::super::records::updated_at;

/// Exports that are kept at one time: each holds the names of its series, about 100 KB for a ward.
pub const JOBS_LIMIT: usize = 64;
/// Exports of one caller.
pub const JOBS_LIMIT_EACH: usize = 8;
/// An export is forgotten after so long.
pub const KEPT_HOURS: i64 = 24;
/// Observations that are counted at once.
const COUNT_AT_ONCE: usize = 2_000;

/// What a file holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Patients, devices or places.
    Records(Vec<Subject>),
    /// The observations of a subject (of several that are no patients, where there is none named).
    Observations(Option<Subject>, Vec<SeriesKey>),
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Type of its resources.
    pub kind: ResourceType,
    /// What it holds.
    pub content: Content,
}

/// One export.
#[derive(Debug)]
pub(crate) struct Job {
    /// Who began it; nobody else sees it.
    pub owner: Agent,
    /// The address with which it was begun.
    pub request: String,
    /// What was committed from then on is not in it.
    pub transaction_at: Timestamp,
    /// Only what was changed since then.
    pub since: Option<Timestamp>,
    /// Its files.
    pub files: Vec<File>,
}

impl Job {
    /// What was changed when.
    pub(crate) fn changed(&self) -> Changed {
        Changed { since: self.since, before: Some(self.transaction_at) }
    }

    /// The observations of a file.
    pub(crate) fn observed(&self, series: &[SeriesKey]) -> Observed {
        Observed::new(series.to_vec(), Interval::since(Timestamp::MIN), self.changed())
    }
}

/// How far an export is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// So many of its files are counted.
    Counting { done: usize, of: usize },
    /// Resources of each file.
    Ready(Arc<Vec<u64>>),
    /// The store failed; the log says more.
    Failed,
}

struct Kept {
    job: Arc<Job>,
    step: Step,
    begun_at: Timestamp,
    /// Told to stop counting.
    is_deleted: Arc<AtomicBool>,
}

/// The exports of a server.
#[derive(Clone, Default)]
pub struct Exports {
    jobs: Arc<Mutex<BTreeMap<String, Kept>>>,
    /// One file is counted at a time: an export has time, the ward has not.
    counting: Arc<Mutex<()>>,
}

/// There is no room for another export.
pub(crate) struct NoRoom;

impl Exports {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Kept>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an export up and begins to count its files; its id, which cannot be guessed.
    pub(crate) fn begin(&self, site: Arc<Site>, job: Job, now: Timestamp) -> Result<String, NoRoom> {
        let job = Arc::new(job);
        let is_deleted = Arc::new(AtomicBool::new(false));
        let id = crate::json::hex(&trust::random_bytes::<16>());
        {
            let mut jobs = self.locked();
            forget_old(&mut jobs, now);
            let of_owner = jobs.values().filter(|kept| kept.job.owner.who == job.owner.who).count();
            if jobs.len() >= JOBS_LIMIT || of_owner >= JOBS_LIMIT_EACH {
                return Err(NoRoom);
            }
            let step = Step::Counting { done: 0, of: job.files.len() };
            let kept =
                Kept { job: Arc::clone(&job), step, begun_at: now, is_deleted: Arc::clone(&is_deleted) };
            jobs.insert(id.clone(), kept);
        }
        let (exports, of) = (self.clone(), id.clone());
        tokio::task::spawn_blocking(move || {
            let step = match exports.count(&site, &job, &of, &is_deleted) {
                Ok(counts) => Step::Ready(Arc::new(counts)),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "an export failed");
                    Step::Failed
                }
            };
            exports.step(&of, step);
        });
        Ok(id)
    }

    fn step(&self, id: &str, step: Step) {
        if let Some(kept) = self.locked().get_mut(id) {
            kept.step = step;
        }
    }

    /// Reads every file once, which also shows that all of it can be read.
    fn count(
        &self,
        site: &Site,
        job: &Job,
        id: &str,
        is_deleted: &AtomicBool,
    ) -> Result<Vec<u64>, ReadError> {
        let mut counts = Vec::with_capacity(job.files.len());
        for file in &job.files {
            let _turn = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
            if is_deleted.load(Ordering::Acquire) {
                return Ok(Vec::new());
            }
            let count = match &file.content {
                Content::Records(all) => {
                    let mut count = 0;
                    for subject in all {
                        count += u64::from(job.changed().holds(updated_at(site, *subject)?));
                    }
                    count
                }
                Content::Observations(subject, series) => {
                    let act = job.owner.act(AuditAction::Search, "export");
                    let act =
                        subject.and_then(Subject::patient).into_iter().fold(act, |act, id| act.patient(id));
                    let observed = job.observed(series);
                    site.read(act.detail("counted"), |chart| {
                        let (mut count, mut place) = (0, Some(Place::Observations(None)));
                        while let Some(at) = place.filter(|_| !is_deleted.load(Ordering::Acquire)) {
                            let (of_page, next) = observed.count_page(chart, at, COUNT_AT_ONCE)?;
                            count += of_page;
                            place = next;
                        }
                        Ok(count)
                    })?
                }
            };
            counts.push(count);
            self.step(id, Step::Counting { done: counts.len(), of: job.files.len() });
        }
        Ok(counts)
    }

    /// An export by its id.
    pub(crate) fn get(&self, id: &str, now: Timestamp) -> Option<(Arc<Job>, Step)> {
        let mut jobs = self.locked();
        forget_old(&mut jobs, now);
        jobs.get(id).map(|kept| (Arc::clone(&kept.job), kept.step.clone()))
    }

    /// Forgets an export.
    pub(crate) fn remove(&self, id: &str) {
        if let Some(kept) = self.locked().remove(id) {
            kept.is_deleted.store(true, Ordering::Release);
        }
    }
}

fn forget_old(jobs: &mut BTreeMap<String, Kept>, now: Timestamp) {
    jobs.retain(|_, kept| {
        let is_old = now.micros_since(kept.begun_at) > KEPT_HOURS * 3_600_000_000;
        if is_old {
            kept.is_deleted.store(true, Ordering::Release);
        }
        !is_old
    });
}

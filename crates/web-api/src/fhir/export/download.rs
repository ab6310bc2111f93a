//! Downloads of exported files: read from the chart line by line while they are sent, never held as a whole.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use clinical_model::{PatientId, SeriesKey, Subject};
use health_codecs::fhir::IssueCode;
use pipeline::audited::ReadError;
use serde_json::Value;
use store::AuditAction;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::super::answer::{Answer, Refusal};
use super::super::call::Call;
use super::super::everything::Place;
use super::super::{Waiting, blocking, records, refused};
use super::jobs::{Content, File, Job, Step};
use super::mine;
use crate::state::Web;

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader.
const CHUNKS_WAITING: usize = 4;
/// A reader that takes nothing for so long is cut off.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Observations that are read at once.
const READ_AT_ONCE: usize = 500;
/// Rows of the audit log that are written at once.
const AUDIT_AT_ONCE: usize = 500;

/// The media type of a file.
const NDJSON: &str = "application/fhir+ndjson";

/// `GET /fhir/$export-file/{id}`, where the id is that of the export and the number of the file.
pub(crate) fn download(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(run(web, call))
}

async fn run(web: Arc<Web>, call: Arc<Call>) -> Result<Answer, Refusal> {
    let permit = web.exports.downloads().try_acquire_owned().map_err(|_| {
        let what = "too many files are being downloaded; try again";
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, what);
        Refusal { retry_after_s: Some(5), ..refusal }
    })?;
    let opening = Arc::clone(&call);
    let (job, file) = blocking(&web, move |web| open(web, &opening)).await?;
    let (chunks, waiting) = channel(CHUNKS_WAITING);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut lines = Lines { chunks, runtime, buffer: Vec::with_capacity(CHUNK_BYTES), permit };
        if let Err(stopped) = lines.write(&web, &call, &job, &file) {
            lines.broken(stopped);
        }
    });
    Ok(Answer::stream(body_of(waiting), NDJSON))
}

/// The file, after everybody in it was put into the audit log. Who may not be seen any more is not in it.
fn open(web: &Web, call: &Call) -> Result<(Arc<Job>, File), Refusal> {
    let not_there = || Refusal::not_found("file of an export");
    let (id, index) = call.id.split_once('.').ok_or_else(not_there)?;
    let (job, step) = mine(web, call, id)?;
    let index: usize = index.parse().map_err(|_| not_there())?;
    let mut file =
        job.files.get(index).filter(|_| matches!(step, Step::Ready(_))).cloned().ok_or_else(not_there)?;
    let patients: Vec<PatientId> = match &mut file.content {
        Content::Records(all) => {
            all.retain(|subject| call.may_see(web, *subject));
            all.iter().filter_map(|subject| subject.patient()).collect()
        }
        Content::Observations(subject, series) => {
            if subject.is_some_and(|subject| !call.may_see(web, subject)) {
                let act = call.act(AuditAction::Read, "export")?.detail(call.id.clone());
                refused(
                    web,
                    subject.and_then(Subject::patient).into_iter().fold(act, |act, id| act.patient(id)),
                )?;
                return Err(not_there());
            }
            // What the patient no longer allows is not in it any more.
            let sight = call.sight_of(web, file.kind.name())?;
            series.retain(|series| sight.series(series));
            subject.iter().filter_map(|subject| subject.patient()).collect()
        }
    };
    let act = call.act(AuditAction::Read, "export")?.detail(format!("{} of {}", file.kind.name(), call.id));
    if patients.is_empty() {
        web.site.read(act.clone(), |_| Ok(()))?;
    }
    for some in patients.chunks(AUDIT_AT_ONCE) {
        let acts = some.iter().map(|id| act.clone().patient(*id)).collect();
        web.site.read_each(acts, |_| Ok(()))?;
    }
    Ok((job, file))
}

fn body_of(waiting: Receiver<Result<Bytes, Cut>>) -> Body {
    let next = |mut waiting: Receiver<Result<Bytes, Cut>>| async move {
        waiting.recv().await.map(|chunk| (chunk, waiting))
    };
    Body::from_stream(futures_util::stream::unfold(waiting, next))
}

/// A download that ends before its file does.
#[derive(Debug, thiserror::Error)]
#[error("the file could not be read to its end")]
struct Cut;

/// Why lines were written no further.
enum Stopped {
    /// Nobody takes them any more.
    Gone,
    /// They cannot be read.
    Failed(ReadError),
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Stopped::Failed(error)
    }
}

struct Lines {
    chunks: Sender<Result<Bytes, Cut>>,
    runtime: tokio::runtime::Handle,
    buffer: Vec<u8>,
    permit: OwnedSemaphorePermit,
}

impl Lines {
    fn write(&mut self, web: &Web, call: &Call, job: &Job, file: &File) -> Result<(), Stopped> {
        match &file.content {
            Content::Records(all) => {
                for subject in all {
                    if call.may_see(web, *subject)
                        && job.changed().holds(records::updated_at(&web.site, *subject)?)
                        && let Some((_, resource)) = records::shown_record(web, call, *subject)?
                    {
                        self.line(&resource)?;
                    }
                }
            }
            Content::Observations(_, series) => {
                let observed = job.observed(series);
                let mut place = Some(Place::Observations(None));
                while let Some(at) = place {
                    // Each page by itself: nothing is held while a slow reader takes the lines, and what a patient no
                    // longer allows is in no page from then on.
                    let Ok(sight) = call.sight_of(web, file.kind.name()) else { return Err(Stopped::Gone) };
                    let seen = |series: &SeriesKey| sight.series(series);
                    let page =
                        web.site.live_chart(|chart| observed.page(&chart.seen_by(&seen), at, READ_AT_ONCE));
                    let (rendered, next) = page?;
                    for one in &rendered {
                        self.line(&one.resource)?;
                    }
                    place = next;
                }
            }
        }
        self.flush()
    }

    fn line(&mut self, resource: &Value) -> Result<(), Stopped> {
        // A JSON value has string keys and valid numbers, so that writing it into memory cannot fail.
        self.buffer.extend(serde_json::to_vec(resource).unwrap_or_default());
        self.buffer.push(b'\n');
        if self.buffer.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        if chunk.is_empty() { Ok(()) } else { self.send(Ok(chunk)) }
    }

    fn send(&self, chunk: Result<Bytes, Cut>) -> Result<(), Stopped> {
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(STALLED_AFTER, self.chunks.send(chunk)).await });
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Stopped::Gone) }
    }

    /// Ends the answer in the middle, so that nobody takes the part for the whole.
    fn broken(self, stopped: Stopped) {
        match stopped {
            Stopped::Gone => tracing::info!("the reader of an exported file is gone"),
            Stopped::Failed(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an exported file cannot be read");
                // Whoever is gone needs no telling.
                let _ = self.send(Err(Cut));
            }
        }
        drop(self.permit);
    }
}

//! Downloads of exported files: read from the chart line by line while they are sent, never held as a whole.

use std::sync::Arc;

use axum::http::StatusCode;
use clinical_model::{PatientId, SeriesKey, Subject};
use health_codecs::fhir::IssueCode;
use serde_json::Value;
use store::AuditAction;

use super::super::answer::{Answer, Refusal};
use super::super::call::Call;
use super::super::everything::Place;
use super::super::{Waiting, blocking, records, refused};
use super::jobs::{Content, File, Job, Step};
use super::mine;
use crate::download::{self, Broken};
use crate::state::Web;

/// Observations that are read at once.
const READ_AT_ONCE: usize = 500;
/// Patients, devices or places that are read at once.
const RECORDS_AT_ONCE: usize = 100;
/// Rows of the audit log that are written at once.
const AUDIT_AT_ONCE: usize = 500;

/// The media type of a file.
const NDJSON: &str = "application/fhir+ndjson";

/// `GET /fhir/$export-file/{id}`, where the id is that of the export and the number of the file.
pub(crate) fn download(web: Arc<Web>, call: Arc<Call>) -> Waiting {
    Box::pin(run(web, call))
}

async fn run(web: Arc<Web>, call: Arc<Call>) -> Result<Answer, Refusal> {
    let access = call.access()?.clone();
    let place = web.downloads.begin(access.actor()).map_err(|why| {
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, why.to_string());
        Refusal { retry_after_s: Some(download::RETRY_AFTER_S), ..refusal }
    })?;
    let opening = Arc::clone(&call);
    let (job, file) = blocking(&web, move |web| open(web, &opening)).await?;
    let mut lines = Lines { call, job, file, next: Some(Next::Begin) };
    let body = download::body(web, access, place, move |web, out| lines.more(web, out));
    Ok(Answer::stream(body, NDJSON))
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

/// Where a file goes on.
enum Next {
    Begin,
    /// At this one of the records.
    Record(usize),
    /// At this place of the observations.
    Observed(Place),
}

/// The lines of a file, as far as they are written.
struct Lines {
    call: Arc<Call>,
    job: Arc<Job>,
    file: File,
    next: Option<Next>,
}

impl Lines {
    /// Writes some more of them; whether others follow. Who may not be seen any more, and what a patient no longer allows,
    /// is in none from then on.
    fn more(&mut self, web: &Web, out: &mut String) -> Result<bool, Broken> {
        self.next = match (self.next.take(), &self.file.content) {
            (None, _) => None,
            (Some(Next::Begin), Content::Records(_)) => Some(Next::Record(0)),
            (Some(Next::Begin), Content::Observations(..)) => Some(Next::Observed(Place::Observations(None))),
            (Some(Next::Record(from)), Content::Records(all)) => self.records(web, all, from, out)?,
            (Some(Next::Observed(at)), Content::Observations(_, series)) => {
                self.observed(web, series, at, out)?
            }
            (Some(Next::Record(_) | Next::Observed(_)), _) => None,
        };
        Ok(self.next.is_some())
    }

    fn records(
        &self,
        web: &Web,
        all: &[Subject],
        from: usize,
        out: &mut String,
    ) -> Result<Option<Next>, Broken> {
        let to = all.len().min(from + RECORDS_AT_ONCE);
        for subject in &all[from..to] {
            if self.call.may_see(web, *subject)
                && self.job.changed().holds(records::updated_at(&web.site, *subject)?)
                && let Some((_, resource)) = records::shown_record(web, &self.call, *subject)?
            {
                line(out, &resource);
            }
        }
        Ok((to < all.len()).then_some(Next::Record(to)))
    }

    fn observed(
        &self,
        web: &Web,
        series: &[SeriesKey],
        at: Place,
        out: &mut String,
    ) -> Result<Option<Next>, Broken> {
        let sight = self.call.sight_of(web, self.file.kind.name()).map_err(|_| Broken::Unseen)?;
        let seen = |series: &SeriesKey| sight.series(series);
        let observed = self.job.observed(series);
        let page = web.site.live_chart(|chart| observed.page(&chart.seen_by(&seen), at, READ_AT_ONCE));
        let (rendered, next) = page?;
        rendered.iter().for_each(|one| line(out, &one.resource));
        Ok(next.map(Next::Observed))
    }
}

fn line(out: &mut String, resource: &Value) {
    out.push_str(&resource.to_string());
    out.push('\n');
}

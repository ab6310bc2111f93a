//! A patient's whole record, taken out: FHIR NDJSON, or pages that open without this server; who read it stands in both.

mod pages;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clinical_analytics::Limit;
use clinical_model::{Alert, AlertId, Assignment, Patient, PatientId, Subject};
use health_codecs::fhir::watch::{self, LimitInput};
use pipeline::alarms;
use pipeline::consents::Kept;
use serde::Serialize;
use serde_json::Value;
use store::{AuditAction, AuditOutcome, AuditQuery, AuditRecord, AuditRow};

use super::paging::Place;
use super::{Answer, id_of, views};
use crate::access::{Access, Permission, Permit, Sight, may};
use crate::download::{self, Broken};
use crate::fhir::{self, everything::Everything};
use crate::problem::Problem;
use crate::state::Web;

/// Rows of the audit log, and alerts, that are read at once.
const ROWS_AT_ONCE: usize = 500;

#[derive(Serialize)]
pub(crate) struct Forms {
    patient: String,
    formats: [&'static str; 2],
}

/// The patient, for somebody who may take the record out.
fn known(web: &Web, access: &Access, id: &str) -> Result<Arc<Patient>, Problem> {
    let patient: PatientId = id_of(id, "patient")?;
    let leaving = access.clone().disclosing();
    let sight = leaving.sight(web);
    let known = web.site.registry().patient(patient).filter(|known| sight.patient(known));
    known
        .filter(|_| sight.may(Permission::ExportPatient, patient))
        .ok_or_else(|| Problem::not_found("patient"))
}

/// `GET /api/v1/patients/{id}/export`: asked before a download, which a browser cannot tell why it was refused.
pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ExportPatient>,
    Path(id): Path<String>,
) -> Answer<Forms> {
    web.blocking(move |web| {
        let patient = known(web, &permit, &id)?;
        // Free again at once: the download takes its own.
        drop(web.downloads.begin(permit.actor())?);
        Ok(Json(Forms { patient: patient.id.to_string(), formats: ["ndjson", "html"] }))
    })
    .await?
}

/// `GET /api/v1/patients/{id}/export/record.ndjson`
pub(crate) async fn ndjson(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ExportPatient>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    take_out(web, (*permit).clone(), id, "record.ndjson", "application/fhir+ndjson", |web, taken| {
        let everything =
            Everything::begin(web, &taken.access, &taken.patient).map_err(|_| Problem::internal())?;
        let mut next = Some(Next::Chart(Box::new(everything)));
        Ok(move |web: &Web, out: &mut String| {
            next = next.take().map_or(Ok(None), |next| more(web, &taken, next, out))?;
            Ok(next.is_some())
        })
    })
    .await
}

/// `GET /api/v1/patients/{id}/export/record.html`
pub(crate) async fn html(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ExportPatient>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    take_out(web, (*permit).clone(), id, "record.html", "text/html; charset=utf-8", |_, taken| {
        let mut next = Some(pages::Next::Head);
        Ok(move |web: &Web, out: &mut String| {
            next = next.take().map_or(Ok(None), |next| pages::more(web, &taken, next, out))?;
            Ok(next.is_some())
        })
    })
    .await
}

/// A record that is being taken out, and by whom.
struct Taken {
    access: Access,
    patient: Arc<Patient>,
}

impl Taken {
    /// The eyes of whoever takes it out, as they are now: asked again for each part.
    fn sight<'a>(&'a self, web: &'a Web) -> Result<Sight<'a>, Broken> {
        let sight = self.access.sight(web);
        if sight.patient_id(self.patient.id) { Ok(sight) } else { Err(Broken::Unseen) }
    }

    /// The assignments of devices to the patient, oldest first.
    fn assignments(&self, web: &Web) -> Result<Vec<Assignment>, Broken> {
        if !self.sight(web)?.devices_of(&self.patient) {
            return Ok(Vec::new());
        }
        let registry = web.site.registry();
        let all = registry.devices().into_iter().flat_map(|device| registry.assignments(device.id));
        let mut own: Vec<_> = all.filter(|one| one.subject == Subject::Patient(self.patient.id)).collect();
        own.sort_by_key(|one| (one.interval.start, one.id));
        Ok(own)
    }

    /// The alarm limits.
    fn limits(&self, web: &Web) -> Result<Vec<Limit>, Broken> {
        let sight = self.sight(web)?;
        let limits = web.site.registry().limits(self.patient.id);
        Ok(limits.iter().filter(|limit| sight.limit(&self.patient, limit.measure)).cloned().collect())
    }

    /// The rules of the patient.
    fn rules(&self, web: &Web) -> Result<Vec<Kept>, Broken> {
        match self.sight(web)?.may(Permission::ReadConsents, self.patient.id) {
            true => Ok(web.site.consents().of(self.patient.id)),
            false => Ok(Vec::new()),
        }
    }

    /// The same as resources, as they are kept.
    fn consents(&self, web: &Web) -> Result<Vec<Value>, Broken> {
        let rules = self.rules(web)?;
        let resources =
            rules.iter().filter_map(|kept| fhir::consents::resource_of(web, kept.consent.id).transpose());
        Ok(resources.collect::<Result<_, _>>()?)
    }

    /// Alerts that may be seen, newest first, and where the next page begins.
    fn alerts(
        &self,
        web: &Web,
        before: Option<Place<AlertId>>,
    ) -> Result<(Vec<Alert>, Option<Place<AlertId>>), Broken> {
        let sight = self.sight(web)?;
        let id = Some(self.patient.id);
        let mut alerts = web.site.live_chart(|chart| chart.alerts(id, before, ROWS_AT_ONCE))?;
        let last = alerts.last().filter(|_| alerts.len() == ROWS_AT_ONCE);
        let next = last.map(|last| (last.raised_at, last.id));
        alerts.retain(|alert| sight.alert(alert));
        for alert in &mut alerts {
            if !sight.notes(alert) {
                alert.steps.iter_mut().for_each(|step| step.note = None);
            }
        }
        Ok((alerts, next))
    }

    /// Rows of the audit log about the patient, newest first, and before which one the next page begins. From where staff
    /// asked is for those who may read the log.
    fn rows(&self, web: &Web, before: Option<u64>) -> Result<(Vec<AuditRow>, Option<u64>), Broken> {
        self.sight(web)?;
        let (patient, limit) = (Some(self.patient.id), ROWS_AT_ONCE);
        let query = AuditQuery { patient, before, limit, ..AuditQuery::default() };
        let mut rows = web.site.live_chart(|chart| chart.audit_rows(&query))?;
        let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.sequence);
        if !self.access.holds(Permission::ReadAudit) {
            for row in &mut rows {
                row.record = AuditRecord { address: None, ..row.record.clone() };
            }
        }
        Ok((rows, next))
    }
}

/// Where the lines of a record go on.
enum Next {
    Chart(Box<Everything>),
    Watch,
    Alerts(Option<Place<AlertId>>),
    Rows(Option<u64>),
}

/// Writes some more lines.
fn more(web: &Web, taken: &Taken, next: Next, out: &mut String) -> Result<Option<Next>, Broken> {
    let mut line = |resource: &Value| {
        out.push_str(&resource.to_string());
        out.push('\n');
    };
    Ok(match next {
        Next::Chart(mut everything) => match everything.page(web)? {
            Some(resources) => {
                resources.iter().for_each(&mut line);
                Some(Next::Chart(everything))
            }
            None => Some(Next::Watch),
        },
        Next::Watch => {
            let now = web.site.clock().now();
            for one in taken.assignments(web)? {
                line(&watch::assignment(&one, &views::named_device(web, one.device).name, now));
            }
            let limits: Vec<LimitInput> = taken.limits(web)?.iter().map(limit_input).collect();
            if !limits.is_empty() {
                line(&watch::limits(taken.patient.id, &limits));
            }
            taken.consents(web)?.iter().for_each(&mut line);
            Some(Next::Alerts(None))
        }
        Next::Alerts(before) => {
            let (alerts, next) = taken.alerts(web, before)?;
            let person = |id| web.people.by_id(id).map(|user| user.display);
            for alert in &alerts {
                let device = views::named_device(web, alert.device).name;
                let said = alarms::describe(alert);
                line(&watch::alert(alert, taken.patient.id, (&said, &device), &person));
            }
            Some(next.map_or(Next::Rows(None), |next| Next::Alerts(Some(next))))
        }
        Next::Rows(before) => {
            let (rows, next) = taken.rows(web, before)?;
            let sight = taken.sight(web)?;
            rows.iter().for_each(|row| line(&fhir::audit::rendered_row(web, &sight, row)));
            next.map(|next| Next::Rows(Some(next)))
        }
    })
}

fn limit_input(limit: &Limit) -> LimitInput {
    let Limit { measure, low, high, priority, persistence_s, .. } = *limit;
    LimitInput { measure, low, high, priority, persistence_s }
}

/// Records the export and sends the file while it is read.
async fn take_out<P>(
    web: Arc<Web>,
    access: Access,
    id: String,
    name: &'static str,
    media_type: &'static str,
    begin: impl FnOnce(&Web, Taken) -> Result<P, Problem> + Send + 'static,
) -> Result<Response, Problem>
where
    P: FnMut(&Web, &mut String) -> Result<bool, Broken> + Send + 'static,
{
    let place = web.downloads.begin(access.actor())?;
    // What patients do not let leave the house is in no file.
    let access = access.disclosing();
    let asked = access.clone();
    let parts = web
        .blocking(move |web| {
            let act = access.act(AuditAction::Export, "record").detail(name);
            match known(web, &access, &id) {
                Ok(patient) => {
                    web.site.record(act.patient(patient.id), AuditOutcome::Success)?;
                    begin(web, Taken { access, patient })
                }
                Err(problem) => {
                    web.site.record(act, AuditOutcome::Refused)?;
                    Err(problem)
                }
            }
        })
        .await??;
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, download::body(web, asked, place, parts)).into_response())
}

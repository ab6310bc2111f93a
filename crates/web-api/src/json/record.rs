//! A patient's whole record, taken out: FHIR NDJSON, or pages that open without this server; who read it stands in both.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clinical_model::{Patient, PatientId, SeriesKey, Subject, Timestamp};
use futures_util::stream;
use pipeline::audited::ReadError;
use pipeline::chart::{Chart, Trend};
use serde::Serialize;
use serde_json::Value;
use store::{AuditAction, AuditOutcome, AuditQuery, AuditRecord, AuditRow, Order, RangeQuery, SeriesFilter};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::audit::{action_word, actor_view, outcome_word};
use super::{Answer, id_of};
use crate::access::{Access, Permission, Permit, may};
use crate::fhir;
use crate::problem::Problem;
use crate::state::Web;

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader.
const CHUNKS_WAITING: usize = 4;
/// A reader that takes nothing for so long is cut off.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Rows of the audit log that are read at once.
const AUDIT_AT_ONCE: usize = 500;
/// Points of a chart on a page.
const CHART_POINTS: usize = 240;
/// Newest values of a measure that stand in a table; all of them are in the NDJSON.
const TABLE_ROWS: usize = 100;

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

/// `GET /api/v1/patients/{id}/export`
pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ExportPatient>,
    Path(id): Path<String>,
) -> Answer<Forms> {
    web.blocking(move |web| {
        let patient = known(web, &permit, &id)?;
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
    take_out(
        web,
        (*permit).clone(),
        id,
        "record.ndjson",
        "application/fhir+ndjson",
        |web, access, patient, out| {
            let mut lines =
                |resources: Vec<Value>| resources.iter().all(|resource| out.text(&format!("{resource}\n")));
            fhir::everything::each_page(web, access, patient, &mut lines).map_err(|_| Stopped)?;
            // From where staff asked is for those who may read the log.
            let shows_addresses = access.holds(Permission::ReadAudit);
            each_row(web, patient.id, &mut |row| {
                let address = row.record.address.clone().filter(|_| shows_addresses);
                let record = AuditRecord { address, ..row.record.clone() };
                let row = AuditRow { record, ..row.clone() };
                out.text(&format!("{}\n", fhir::audit::rendered_row(web, &row)))
            })
        },
    )
    .await
}

/// `GET /api/v1/patients/{id}/export/record.html`
pub(crate) async fn html(
    State(web): State<Arc<Web>>,
    permit: Permit<may::ExportPatient>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    take_out(web, (*permit).clone(), id, "record.html", "text/html; charset=utf-8", write_pages).await
}

/// The reader is gone, or the record cannot be read.
struct Stopped;

/// Where the parts of a file go.
struct Out {
    chunks: Sender<Result<Bytes, std::io::Error>>,
    runtime: tokio::runtime::Handle,
    buffer: String,
}

impl Out {
    /// Whether somebody is still there.
    fn text(&mut self, text: &str) -> bool {
        self.buffer.push_str(text);
        self.buffer.len() < CHUNK_BYTES || self.flush()
    }

    fn flush(&mut self) -> bool {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        chunk.is_empty() || self.send(Ok(chunk))
    }

    fn send(&self, chunk: Result<Bytes, std::io::Error>) -> bool {
        let sending = async { tokio::time::timeout(STALLED_AFTER, self.chunks.send(chunk)).await };
        matches!(self.runtime.block_on(sending), Ok(Ok(())))
    }
}

/// Records the export and sends the file while it is read.
async fn take_out(
    web: Arc<Web>,
    access: Access,
    id: String,
    name: &'static str,
    media_type: &'static str,
    write: impl FnOnce(&Web, &Access, &Patient, &mut Out) -> Result<(), Stopped> + Send + 'static,
) -> Result<Response, Problem> {
    // What patients do not let leave the house is in no file.
    let access = access.disclosing();
    let asking = access.clone();
    let patient = web
        .blocking(move |web| {
            let act = asking.act(AuditAction::Export, "record").detail(name);
            match known(web, &asking, &id) {
                Ok(patient) => {
                    web.site.record(act.patient(patient.id), AuditOutcome::Success)?;
                    Ok(patient)
                }
                Err(problem) => {
                    web.site.record(act, AuditOutcome::Refused)?;
                    Err(problem)
                }
            }
        })
        .await??;
    let (chunks, waiting) = channel(CHUNKS_WAITING);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut out = Out { chunks, runtime, buffer: String::with_capacity(CHUNK_BYTES) };
        let written = write(&web, &access, &patient, &mut out);
        if written.is_err() || !out.flush() {
            // Cut off in the middle, so that nobody takes the part for the whole.
            out.send(Err(std::io::Error::other("the record could not be read to its end")));
        }
    });
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, body_of(waiting)).into_response())
}

fn body_of(waiting: Receiver<Result<Bytes, std::io::Error>>) -> Body {
    Body::from_stream(stream::unfold(waiting, |mut waiting| async move {
        waiting.recv().await.map(|chunk| (chunk, waiting))
    }))
}

/// The rows of the audit log about a patient, newest first.
fn each_row(web: &Web, patient: PatientId, each: &mut dyn FnMut(&AuditRow) -> bool) -> Result<(), Stopped> {
    let mut before = None;
    loop {
        let query =
            AuditQuery { patient: Some(patient), before, limit: AUDIT_AT_ONCE, ..AuditQuery::default() };
        let rows = web.site.live_chart(|chart| chart.audit_rows(&query)).map_err(failed)?;
        for row in &rows {
            if !each(row) {
                return Err(Stopped);
            }
        }
        match rows.last() {
            Some(last) if rows.len() == AUDIT_AT_ONCE => before = Some(last.sequence),
            _ => return Ok(()),
        }
    }
}

fn failed(error: ReadError) -> Stopped {
    tracing::error!(error = &error as &dyn std::error::Error, "a record that is taken out cannot be read");
    Stopped
}

/// Text as it may stand in a page.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111;\
background:#fff}table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}th,td{text-align:left;padding:.25rem .5rem;\
border-bottom:1px solid #ccc;vertical-align:top}svg{width:100%;height:10rem;border:1px solid #ccc}h2{margin-top:2.5rem}\
@media print{h2{break-after:avoid}}";

fn write_pages(web: &Web, access: &Access, patient: &Patient, out: &mut Out) -> Result<(), Stopped> {
    let now = web.site.clock().now();
    let name = format!("{}, {}", patient.family.expose(), patient.given.expose());
    let birth = patient.birth_date.as_ref().map_or("—", |date| date.expose().as_str());
    let head = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Record of {0}</title><style>{STYLE}</style></head><body>\
         <h1>Record of {0}</h1><table><tr><th>Record number</th><td>{1}</td></tr><tr><th>Born</th><td>{2}</td></tr>\
         <tr><th>Taken out</th><td>{3} from {4}</td></tr></table>\
         <p>All values stand in record.ndjson (FHIR R4, one resource a line); this page shows their course and the newest.</p>",
        escaped(&name),
        escaped(patient.record_number.expose()),
        escaped(birth),
        now,
        escaped(&web.options.site_name),
    );
    if !out.text(&head) {
        return Err(Stopped);
    }
    let subject = Subject::Patient(patient.id);
    let filter = SeriesFilter { subject: Some(subject), ..SeriesFilter::default() };
    let sight = access.sight(web);
    let seen = |series: &SeriesKey| sight.series(series);
    let mut series = web.site.live_chart(|chart| chart.seen_by(&seen).series(&filter)).map_err(failed)?;
    series.sort();
    for one in series.iter().filter(|one| one.measure.is_scalar()) {
        let part = web.site.live_chart(|chart| section(&chart.seen_by(&seen), one, now)).map_err(failed)?;
        if !part.is_empty() && !out.text(&part) {
            return Err(Stopped);
        }
    }
    let curves = series.iter().filter(|one| one.measure.kind == clinical_model::MeasureKind::Waveform);
    let curves: Vec<String> = curves.map(|one| escaped(one.measure.display)).collect();
    if !curves.is_empty()
        && !out.text(&format!(
            "<h2>Waveforms</h2><p>{}: in record.ndjson, minute by minute.</p>",
            curves.join(", ")
        ))
    {
        return Err(Stopped);
    }
    write_readers(web, patient.id, out)
}

/// The course and the newest values of one measure.
fn section(chart: &Chart<'_>, series: &SeriesKey, now: Timestamp) -> Result<String, ReadError> {
    let newest =
        RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Descending, limit: TABLE_ROWS };
    let values = chart.observations(series, &newest)?;
    let oldest = RangeQuery { order: Order::Ascending, limit: 1, ..newest };
    let first = chart.observations(series, &oldest)?;
    let (Some(first), Some(last)) = (
        first.first().and_then(pipeline::chart::Observed::measured_at),
        values.first().and_then(pipeline::chart::Observed::measured_at),
    ) else {
        return Ok(String::new());
    };
    let to = last.plus_micros(1).min(now.max(last.plus_micros(1)));
    let trend = chart.trend_of(series, first, to, CHART_POINTS)?;
    let (display, unit_display) = (series.measure.display, series.measure.unit_display);
    let mut text =
        format!("<h2>{} ({})</h2><p>{first} to {last}</p>", escaped(display), escaped(unit_display));
    text.push_str(&drawn(&trend));
    text.push_str("<table><tr><th>Measured</th><th>Value</th></tr>");
    for reading in values.iter().flat_map(|observed| &observed.readings) {
        let value = match reading.value() {
            clinical_model::Value::Number(number) => number.to_string(),
            clinical_model::Value::Absent(_) => "—".to_owned(),
        };
        // Writing into a text cannot fail.
        let _ = write!(text, "<tr><td>{}</td><td>{}</td></tr>", reading.measured_at(), escaped(&value));
    }
    text.push_str("</table>");
    Ok(text)
}

/// A course as a drawing: means as a line between the smallest and the largest value.
fn drawn(trend: &Trend) -> String {
    let (low, high) = trend.buckets.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), bucket| {
        (low.min(bucket.min), high.max(bucket.max))
    });
    if !low.is_finite() || !high.is_finite() {
        return String::new();
    }
    let span = if high > low { high - low } else { 1.0 };
    let at = |index: usize, value: f64| {
        let x = index as f64 * 1_000.0 / (CHART_POINTS as f64 - 1.0);
        format!("{x:.1},{:.1}", 190.0 - (value - low) / span * 180.0)
    };
    let line: Vec<String> = trend.buckets.iter().map(|bucket| at(bucket.index, bucket.mean)).collect();
    format!(
        "<svg viewBox=\"0 0 1000 200\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"course from {low} to {high}\">\
         <polyline fill=\"none\" stroke=\"#06c\" stroke-width=\"2\" vector-effect=\"non-scaling-stroke\" points=\"{}\"/></svg>\
         <p>lowest {low}, highest {high}</p>",
        line.join(" ")
    )
}

/// Who read the record, from the audit log.
fn write_readers(web: &Web, patient: PatientId, out: &mut Out) -> Result<(), Stopped> {
    let head = "<h2>Who had this record before their eyes</h2><table><tr><th>When</th><th>Who</th><th>What</th>\
                <th>Outcome</th></tr>";
    if !out.text(head) {
        return Err(Stopped);
    }
    each_row(web, patient, &mut |row| {
        let record = &row.record;
        out.text(&format!(
            "<tr><td>{}</td><td>{}</td><td>{}: {}</td><td>{}</td></tr>",
            record.at,
            escaped(&actor_view(web, &record.actor).label),
            action_word(record.action),
            escaped(&record.object),
            outcome_word(record.outcome),
        ))
    })?;
    if out.text("</table></body></html>\n") { Ok(()) } else { Err(Stopped) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_record_becomes_markup() {
        assert_eq!(escaped("<b onx='1'>&\"\u{7}"), "&lt;b onx=&#39;1&#39;&gt;&amp;&quot;\u{fffd}");
    }
}

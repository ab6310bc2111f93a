//! The audit log taken out: as FHIR AuditEvents, one a line, or as a table that no spreadsheet can be made to run.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use pipeline::audited::ReadError;
use serde::Deserialize;
use store::{AuditAction, AuditQuery, AuditRow};
use tokio::sync::mpsc::{Sender, channel};

use super::audit::{RowsQuery, action_word, actor_view, outcome_word};
use super::{Asked, hex};
use crate::access::{Permit, may};
use crate::problem::Problem;
use crate::state::Web;

/// Rows read at once; nothing is held while a slow reader takes them.
const READ_ROWS: usize = 500;
/// Pages that wait for a slow reader.
const PAGES_WAITING: usize = 4;
/// A reader that takes nothing for so long is cut off.
const STALLED_AFTER: Duration = Duration::from_secs(60);

const COLUMNS: &str = "sequence,at,actor kind,actor id,actor,role,action,outcome,patient id,device id,object,detail,\
     purpose,break glass,policies,address,leaf\r\n";

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Ndjson,
    Csv,
}

#[derive(Deserialize)]
pub(crate) struct FormatQuery {
    format: Format,
}

/// Text on one line that shows what it is made of: control characters, and those that turn the direction of text round,
/// become visible escapes, so that no log, table or terminal is led astray by what somebody wrote.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}');
        if c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A field of a table: always quoted, and never a formula.
pub(crate) fn field(text: &str) -> String {
    let text = harmless(text);
    let begins_formula =
        text.trim_start().starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    let guard = if begins_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

fn csv_line(web: &Web, row: &AuditRow) -> String {
    let record = &row.record;
    let actor = actor_view(web, &record.actor);
    let fields = [
        row.sequence.to_string(),
        record.at.to_rfc3339(),
        actor.kind.to_owned(),
        actor.id,
        actor.label,
        record.role.clone().unwrap_or_default(),
        action_word(record.action).to_owned(),
        outcome_word(record.outcome).to_owned(),
        record.patient.map(|id| id.to_string()).unwrap_or_default(),
        record.device.map(|id| id.to_string()).unwrap_or_default(),
        record.object.clone(),
        record.detail.clone(),
        record.purpose.clone().unwrap_or_default(),
        record.break_glass.map(|id| hex(&id)).unwrap_or_default(),
        record.policies.join(" "),
        record.address.clone().unwrap_or_default(),
        hex(&row.leaf),
    ];
    let mut line = fields.map(|text| field(&text)).join(",");
    line.push_str("\r\n");
    line
}

/// An export that ends before the log does.
#[derive(Debug, thiserror::Error)]
#[error("the audit log could not be read to its end")]
struct Cut;

pub(crate) async fn export(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadAudit>,
    Asked(format): Asked<FormatQuery>,
    Asked(query): Asked<RowsQuery>,
) -> Result<Response, Problem> {
    let opened = web.blocking(move |web| {
        let page = query.page(web, READ_ROWS)?;
        let page = AuditQuery { limit: READ_ROWS, ..page };
        let act = query.act(&access.by(), AuditAction::Export, &page);
        access.read(web, act, |_| Ok(()))?;
        Ok::<_, Problem>(page)
    });
    let page = opened.await??;
    let (sender, receiver) = channel(PAGES_WAITING);
    let runtime = tokio::runtime::Handle::current();
    let reading = Arc::clone(&web);
    tokio::task::spawn_blocking(move || write(&reading, format.format, page, &runtime, &sender));
    let next = |mut receiver: tokio::sync::mpsc::Receiver<Result<Bytes, Cut>>| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    };
    let body = Body::from_stream(futures_util::stream::unfold(receiver, next));
    let (kind, name) = match format.format {
        Format::Ndjson => ("application/fhir+ndjson", "attachment; filename=\"audit.ndjson\""),
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"audit.csv\""),
    };
    Ok((
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (header::CONTENT_DISPOSITION, HeaderValue::from_static(name)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ],
        body,
    )
        .into_response())
}

/// Writes page after page, newest first, until the reader is gone.
fn write(
    web: &Web,
    format: Format,
    mut page: AuditQuery,
    runtime: &tokio::runtime::Handle,
    sender: &Sender<Result<Bytes, Cut>>,
) {
    let send = |chunk: Result<Bytes, Cut>| {
        let sent = runtime.block_on(async { tokio::time::timeout(STALLED_AFTER, sender.send(chunk)).await });
        matches!(sent, Ok(Ok(())))
    };
    if matches!(format, Format::Csv) && !send(Ok(Bytes::from_static(COLUMNS.as_bytes()))) {
        return;
    }
    loop {
        let rows = match web.site.live_chart(|chart| chart.audit_rows(&page)) {
            Ok(rows) => rows,
            Err(error) => {
                told(&error);
                // Ended in the middle, so that nobody takes the part for the whole.
                send(Err(Cut));
                return;
            }
        };
        let mut text = String::new();
        for row in &rows {
            match format {
                Format::Csv => text.push_str(&csv_line(web, row)),
                Format::Ndjson => {
                    text.push_str(&crate::fhir::audit::rendered_row(web, row).to_string());
                    text.push('\n');
                }
            }
        }
        if !text.is_empty() && !send(Ok(Bytes::from(text))) {
            return;
        }
        match rows.last() {
            Some(last) if rows.len() == page.limit => page.before = Some(last.sequence),
            _ => return,
        }
    }
}

fn told(error: &ReadError) {
    tracing::error!(error = error as &dyn std::error::Error, "an export of the audit log broke off");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formulas, control characters of terminals, line ends, markup and very long text: nothing of it acts.
    #[test]
    fn nothing_that_somebody_wrote_acts_in_a_table_or_a_terminal() {
        for formula in ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "  =1", "\u{ff1d}1"] {
            assert!(field(formula).starts_with("\"'"), "{formula}");
        }
        assert_eq!(field("\t=1"), "\"\\u{9}=1\"");
        assert_eq!(field("a\"b,c"), "\"a\"\"b,c\"");
        assert_eq!(harmless("a\r\nb\0\u{1b}[2Jc"), "a\\u{d}\\u{a}b\\u{0}\\u{1b}[2Jc");
        assert_eq!(harmless("user\u{202e}txt.exe\u{2028}"), "user\\u{202e}txt.exe\\u{2028}");
        let long = "x".repeat(100_000);
        assert_eq!(field(&long).len(), 100_002);
        assert_eq!(field("<script>"), "\"<script>\"");
        assert!(!field("a\nb").contains('\n'));
    }
}

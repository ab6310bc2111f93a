//! The audit log taken out: as FHIR AuditEvents, one a line, or as a table that no spreadsheet can be made to run.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use store::{AuditAction, AuditQuery, AuditRow};

use super::audit::{RowsQuery, action_word, actor_view, outcome_word};
use super::{Asked, hex};
use crate::access::{Access, Permit, Sight, may};
use crate::download::{self, Broken};
use crate::problem::Problem;
use crate::state::Web;

/// Rows read at once; nothing is held while a slow reader takes them.
const READ_ROWS: usize = 500;
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

fn csv_line(web: &Web, sight: &Sight<'_>, row: &AuditRow) -> String {
    let record = &row.record;
    let actor = actor_view(web, sight, &record.actor);
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

pub(crate) async fn export(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadAudit>,
    Asked(format): Asked<FormatQuery>,
    Asked(query): Asked<RowsQuery>,
) -> Result<Response, Problem> {
    let place = web.downloads.begin(access.actor())?;
    let (asking, asked) = ((*access).clone(), (*access).clone());
    let opened = web.blocking(move |web| {
        let page = query.page(web, READ_ROWS)?;
        let page = AuditQuery { limit: READ_ROWS, ..page };
        let act = query.act(web, &access.by(), AuditAction::Export, &page);
        access.read(web, act, |_| Ok(()))?;
        Ok::<_, Problem>(page)
    });
    let mut next = Some(opened.await??);
    let mut is_begun = false;
    let body = download::body(web, asked, place, move |web, out| {
        if !is_begun && matches!(format.format, Format::Csv) {
            out.push_str(COLUMNS);
        }
        is_begun = true;
        next = next.take().map_or(Ok(None), |page| write((web, &asking), format.format, page, out))?;
        Ok(next.is_some())
    });
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

/// Writes a page, newest first; where the next one begins.
fn write(
    (web, access): (&Web, &Access),
    format: Format,
    page: AuditQuery,
    out: &mut String,
) -> Result<Option<AuditQuery>, Broken> {
    let rows = web.site.live_chart(|chart| chart.audit_rows(&page))?;
    let sight = access.sight(web);
    for row in &rows {
        match format {
            Format::Csv => out.push_str(&csv_line(web, &sight, row)),
            Format::Ndjson => {
                out.push_str(&crate::fhir::audit::rendered_row(web, &sight, row).to_string());
                out.push('\n');
            }
        }
    }
    let last = rows.last().filter(|_| rows.len() == page.limit).map(|row| row.sequence);
    Ok(last.map(|last| AuditQuery { before: Some(last), ..page }))
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

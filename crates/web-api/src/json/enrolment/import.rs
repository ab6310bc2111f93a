//! Many expected devices from a table: `serial,model`, and what else is known.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use clinical_model::{ClockRule, Device, DeviceId};
use pipeline::desk::DeskError;
use serde::Serialize;

use super::not_csv;
use crate::access::{Permit, may};
use crate::json::Answer;
use crate::problem::{Code, Problem};
use crate::serve::{BODY_LIMIT_BYTES, read_body};
use crate::state::Web;

/// Rows of one table.
const ROWS_LIMIT: usize = 2_000;
/// Characters of one field, as for a device that is registered by hand.
const FIELD_LIMIT_CHARS: usize = 100;
/// Refused rows that are named in a problem.
const NAMED_LIMIT: usize = 20;
/// What a device is where the table does not say.
const UNKNOWN: &str = "unknown";

#[derive(Serialize)]
struct Added {
    line: usize,
    device_id: DeviceId,
    serial: String,
}

#[derive(Serialize)]
pub(crate) struct Imported {
    added: Vec<Added>,
    known: Vec<Added>,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    line: usize,
    serial: String,
    model: String,
    name: String,
    manufacturer: String,
    kind: String,
}

pub(crate) async fn import(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EnrolDevices>,
    request: Request,
) -> Answer<Imported> {
    let headers = request.headers().clone();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.split(';').next().map(str::trim) != Some("text/csv") {
        return Err(not_csv());
    }
    let body = read_body(request.into_body(), &headers, BODY_LIMIT_BYTES).await;
    let body = body.map_err(|error| Problem::new(Code::TooLarge, error.to_string()))?;
    let text = std::str::from_utf8(&body).map_err(|_| Problem::bad_request("the table must be UTF-8"))?;
    let rows = read(text)?;
    web.blocking(move |web| {
        let mut imported = Imported { added: Vec::new(), known: Vec::new() };
        let known = web.site.registry().devices();
        for row in rows {
            let same = |device: &&Arc<Device>| {
                device.serial == row.serial
                    && device.model == row.model
                    && device.manufacturer == row.manufacturer
            };
            if let Some(device) = known.iter().find(same) {
                imported.known.push(Added { line: row.line, device_id: device.id, serial: row.serial });
                continue;
            }
            let device = Device {
                id: DeviceId::from_bytes(pipeline::new_id(web.site.clock().now())),
                name: row.name,
                kind: row.kind,
                manufacturer: row.manufacturer,
                model: row.model,
                serial: row.serial.clone(),
                clock: ClockRule::Trust,
                utc_offset_min: 0,
                expected_interval_s: None,
                retired: false,
            };
            let added = web.site.add_device(permit.by(), device).map_err(|error| match error {
                DeskError::Taken { .. } | DeskError::Conflict { .. } => {
                    let what = format!("line {}: {error}; the lines before it were added", row.line);
                    Problem::new(Code::Exists, what)
                }
                error => error.into(),
            })?;
            imported.added.push(Added { line: row.line, device_id: added.id, serial: row.serial });
        }
        Ok(Json(imported))
    })
    .await?
}

/// All rows, or every fault there is.
fn read(text: &str) -> Result<Vec<Row>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((_, head)) = lines.next() else { return Err(Problem::bad_request("the table is empty")) };
    let separator = [',', ';', '\t'].into_iter().max_by_key(|one| head.matches(*one).count()).unwrap_or(',');
    let names: Vec<String> =
        fields(head, separator).into_iter().map(|name| name.trim().to_lowercase()).collect();
    let place = |name: &str| names.iter().position(|known| known == name);
    let (Some(serial), Some(model)) = (place("serial"), place("model")) else {
        let what =
            "the first line must name the columns serial and model (and may name name, manufacturer, kind)";
        return Err(Problem::bad_request(what));
    };
    let (name, manufacturer, kind) = (place("name"), place("manufacturer"), place("kind"));
    let (mut rows, mut faults, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (number, line) in lines {
        let line_number = number + 1;
        if rows.len() + faults.len() >= ROWS_LIMIT {
            return Err(Problem::bad_request(format!(
                "a table may have {ROWS_LIMIT} rows; send the rest apart"
            )));
        }
        let fields = fields(line, separator);
        let field = |at: usize| fields.get(at).map(|text| text.trim().to_owned()).unwrap_or_default();
        let or = |at: Option<usize>, other: &str| {
            at.map(field).filter(|text| !text.is_empty()).unwrap_or_else(|| other.to_owned())
        };
        let (serial, model) = (field(serial), field(model));
        let row = Row {
            line: line_number,
            name: or(name, &format!("{model} {serial}")),
            manufacturer: or(manufacturer, UNKNOWN),
            kind: or(kind, UNKNOWN),
            serial,
            model,
        };
        match fault(&row) {
            Some(why) => faults.push(format!("line {line_number}: {why}")),
            None if !seen.insert((row.serial.clone(), row.model.clone(), row.manufacturer.clone())) => {
                faults.push(format!("line {line_number}: this device stands in the table twice"));
            }
            None => rows.push(row),
        }
    }
    if faults.is_empty() {
        return Ok(rows);
    }
    let more = faults.len().saturating_sub(NAMED_LIMIT);
    faults.truncate(NAMED_LIMIT);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Problem::bad_request(format!("nothing was added: {}{more}", faults.join("; "))))
}

fn fault(row: &Row) -> Option<String> {
    let Row { serial, model, name, manufacturer, kind, .. } = row;
    for (what, text) in
        [("serial", serial), ("model", model), ("name", name), ("manufacturer", manufacturer), ("kind", kind)]
    {
        let chars = text.chars().count();
        if chars == 0 || chars > FIELD_LIMIT_CHARS {
            return Some(format!("{what} must have 1 to {FIELD_LIMIT_CHARS} characters"));
        }
        if text.chars().any(char::is_control) {
            return Some(format!("{what} holds control characters"));
        }
        // What a spreadsheet would run when somebody exports the list again.
        if text.starts_with(['=', '+', '@']) {
            return Some(format!("{what} begins like a formula"));
        }
        // What a spreadsheet makes of a long serial number.
        if what == "serial" && is_mangled(text) {
            return Some(format!(
                "the serial number {text:?} was mangled by a spreadsheet; format the column as text"
            ));
        }
    }
    None
}

/// `1.23E+11` instead of the digits.
fn is_mangled(text: &str) -> bool {
    let Some((digits, power)) = text.split_once("E+") else { return false };
    !power.is_empty()
        && power.bytes().all(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b',')
}

/// The fields of a line; quotes as in RFC 4180, without line ends inside.
fn fields(line: &str, separator: char) -> Vec<String> {
    let (mut all, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if is_quoted || field.is_empty() => is_quoted = !is_quoted,
            letter if letter == separator && !is_quoted => all.push(std::mem::take(&mut field)),
            letter => field.push(letter),
        }
    }
    all.push(field);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(String, String, String)> {
        read(text).unwrap().into_iter().map(|row| (row.serial, row.model, row.name)).collect()
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().detail().to_owned()
    }

    #[test]
    fn tables_of_spreadsheets_are_read() {
        let one =
            |serial: &str, model: &str, name: &str| (serial.to_owned(), model.to_owned(), name.to_owned());
        assert_eq!(rows("serial,model\nA1,Pulse 3\n"), [one("A1", "Pulse 3", "Pulse 3 A1")]);
        assert_eq!(rows("\u{feff}Model;Serial;Name\r\nX;7;Cuff\r\n\r\n"), [one("7", "X", "Cuff")]);
        assert_eq!(rows("serial\tmodel\n1\t\"a \"\"b\"\"\"\n"), [one("1", "a \"b\"", "a \"b\" 1")]);
        assert_eq!(rows("serial,model\n\"a,b\",c\n"), [one("a,b", "c", "c a,b")]);
    }

    #[test]
    fn every_fault_is_named_and_nothing_is_added() {
        assert!(refusal("").contains("empty"));
        assert!(refusal("number,kind\n1,2\n").contains("serial and model"));
        let text = refusal("serial,model\n1.23E+11,X\n=cmd,X\nA,\nA,X\nA,X\n");
        for part in [
            "line 2: the serial number",
            "line 3: serial begins",
            "line 4: model must",
            "line 6: this device",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let many: String = std::iter::once("serial,model\n".to_owned())
            .chain((0..=ROWS_LIMIT).map(|number| format!("S{number},X\n")))
            .collect();
        assert!(refusal(&many).contains("2000 rows"));
    }
}

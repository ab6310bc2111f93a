//! A record as pages that open without this server: courses, the newest values, what watched over the patient, and who had
//! it before their eyes.

use clinical_model::alert::AlertStep;
use clinical_model::{Alert, AlertId, AlertState, MeasureKind, Purpose, SeriesKey, Subject, Timestamp};
use pipeline::alarms;
use pipeline::audited::ReadError;
use pipeline::chart::{Chart, Observed, Trend};
use store::{Actor, AuditAction, AuditRow, Order, RangeQuery, SeriesFilter};

use super::super::audit::{action_word, actor_view, outcome_word};
use super::super::paging::Place;
use super::super::{consents, views};
use super::Taken;
use crate::access::Sight;
use crate::download::Broken;
use crate::state::Web;

/// Points of a chart on a page.
const CHART_POINTS: usize = 240;
/// Newest values of a measure that stand in a table; all of them are in the NDJSON.
const TABLE_ROWS: usize = 100;

/// Where the pages go on.
pub(super) enum Next {
    Head,
    /// At these measures.
    Measures(std::vec::IntoIter<SeriesKey>),
    Watch,
    Alerts(Option<Place<AlertId>>),
    Looks(Option<u64>),
    Others(Option<u64>),
}

/// Writes some more of them.
pub(super) fn more(web: &Web, taken: &Taken, next: Next, out: &mut String) -> Result<Option<Next>, Broken> {
    Ok(match next {
        Next::Head => {
            out.push_str(&head(web, taken));
            let mut series = series_of(web, taken)?;
            series.retain(|one| one.measure.is_scalar());
            Some(Next::Measures(series.into_iter()))
        }
        Next::Measures(mut left) => match left.next() {
            Some(one) => {
                let sight = taken.sight(web)?;
                let seen = |series: &SeriesKey| sight.series(series);
                let now = web.site.clock().now();
                out.push_str(&web.site.live_chart(|chart| section(&chart.seen_by(&seen), &one, now))?);
                Some(Next::Measures(left))
            }
            None => Some(Next::Watch),
        },
        Next::Watch => {
            out.push_str(&curves(&series_of(web, taken)?));
            out.push_str(&watched(web, taken)?);
            Some(Next::Alerts(None))
        }
        Next::Alerts(before) => {
            let (alerts, next) = taken.alerts(web, before)?;
            let is_any = before.is_some() || next.is_some() || !alerts.is_empty();
            if is_any && before.is_none() {
                out.push_str("<h2>Alerts</h2>");
                out.push_str(&headings(&["Raised", "What", "Priority", "Condition ended", "Answered"]));
            }
            alerts.iter().for_each(|alert| out.push_str(&alert_line(web, alert)));
            if is_any && next.is_none() {
                out.push_str(TABLE_END);
            }
            Some(next.map_or(Next::Looks(None), |next| Next::Alerts(Some(next))))
        }
        Next::Looks(before) => {
            let (rows, next) = taken.rows(web, before)?;
            if before.is_none() {
                out.push_str("<h2>Who had this record before their eyes</h2>");
                out.push_str(&headings(&["When", "Who", "As", "What", "Why", "Outcome"]));
            }
            write_rows(web, taken, rows.iter().filter(|row| is_look(web, taken, row)), out)?;
            if next.is_none() {
                out.push_str(TABLE_END);
            }
            Some(next.map_or(Next::Others(None), |next| Next::Looks(Some(next))))
        }
        Next::Others(before) => {
            let (rows, next) = taken.rows(web, before)?;
            if before.is_none() {
                out.push_str("<h2>What else was done, and the patient's own looks</h2>");
                out.push_str(&headings(&["When", "Who", "As", "What", "Why", "Outcome"]));
            }
            write_rows(web, taken, rows.iter().filter(|row| !is_look(web, taken, row)), out)?;
            if next.is_none() {
                out.push_str(TABLE_END);
                out.push_str("</body></html>\n");
            }
            next.map(|next| Next::Others(Some(next)))
        }
    })
}

fn write_rows<'a>(
    web: &Web,
    taken: &Taken,
    rows: impl Iterator<Item = &'a AuditRow>,
    out: &mut String,
) -> Result<(), Broken> {
    let sight = taken.sight(web)?;
    rows.for_each(|row| out.push_str(&look(web, &sight, row)));
    Ok(())
}

/// Whether somebody else than the patient looked, or broke the glass to look.
fn is_look(web: &Web, taken: &Taken, row: &AuditRow) -> bool {
    let looks = [
        AuditAction::Read,
        AuditAction::Search,
        AuditAction::Stream,
        AuditAction::Export,
        AuditAction::BreakGlass,
    ];
    let own = match &row.record.actor {
        Actor::User(id) => web.people.by_id(*id).and_then(|user| user.patient),
        _ => None,
    };
    looks.contains(&row.record.action) && own != Some(taken.patient.id)
}

fn series_of(web: &Web, taken: &Taken) -> Result<Vec<SeriesKey>, Broken> {
    let sight = taken.sight(web)?;
    let seen = |series: &SeriesKey| sight.series(series);
    let subject = Some(Subject::Patient(taken.patient.id));
    let filter = SeriesFilter { subject, ..SeriesFilter::default() };
    let mut series = web.site.live_chart(|chart| chart.seen_by(&seen).series(&filter))?;
    series.sort();
    Ok(series)
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

/// An instant as people read it: to the second, in UTC.
fn readable(at: Timestamp) -> String {
    let text = Timestamp::from_seconds(at.as_millis().div_euclid(1_000)).to_rfc3339();
    text.replacen('T', " ", 1).replacen('Z', " UTC", 1)
}

/// Ends what [`headings`] began: a table in a box of its own, which moves sideways by itself on a narrow screen.
const TABLE_END: &str = "</table></div>";

fn headings(names: &[&str]) -> String {
    let cells: String = names.iter().map(|name| format!("<th>{name}</th>")).collect();
    format!("<div><table><tr>{cells}</tr>")
}

fn line(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
    format!("<tr>{cells}</tr>")
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111;\
background:#fff}table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}th,td{text-align:left;padding:.25rem .5rem;\
border-bottom:1px solid #ccc;vertical-align:top}div{overflow-x:auto}svg{width:100%;height:10rem;border:1px solid #ccc}h2{margin-top:2.5rem}\
@media print{h2{break-after:avoid}}";

fn head(web: &Web, taken: &Taken) -> String {
    let (patient, registry) = (&taken.patient, web.site.registry());
    let name = escaped(&format!("{}, {}", patient.family.expose(), patient.given.expose()));
    let birth = patient.birth_date.as_ref().map_or("—", |date| date.expose().as_str());
    let places = [registry.ward_of(patient), patient.place];
    let places: Vec<String> =
        places.into_iter().flatten().filter_map(|id| Some(registry.place(id)?.name.clone())).collect();
    let place = if places.is_empty() { "—".to_owned() } else { places.join(", ") };
    let rows = [
        ("Record number", patient.record_number.expose().clone()),
        ("Born", birth.to_owned()),
        ("Place", place),
        ("Taken out", format!("{} from {}", readable(web.site.clock().now()), web.options.site_name)),
    ];
    let rows: String = rows
        .iter()
        .map(|(name, said)| format!("<tr><th>{name}</th><td>{}</td></tr>", escaped(said)))
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Record of {name}</title><style>{STYLE}</style></head><body>\
         <h1>Record of {name}</h1><table>{rows}</table>\
         <p>All values stand in record.ndjson (FHIR R4, one resource a line); this page shows their course and the newest.</p>",
    )
}

fn curves(series: &[SeriesKey]) -> String {
    let mut names: Vec<String> = series
        .iter()
        .filter(|one| one.measure.kind == MeasureKind::Waveform)
        .map(|one| escaped(one.measure.display))
        .collect();
    names.dedup();
    match names.is_empty() {
        true => String::new(),
        false => {
            format!("<h2>Waveforms</h2><p>{}: in record.ndjson, minute by minute.</p>", names.join(", "))
        }
    }
}

/// The course and the newest values of one measure.
fn section(chart: &Chart<'_>, series: &SeriesKey, now: Timestamp) -> Result<String, ReadError> {
    let newest =
        RangeQuery { from: Timestamp::MIN, to: Timestamp::MAX, order: Order::Descending, limit: TABLE_ROWS };
    let values = chart.observations(series, &newest)?;
    let oldest = RangeQuery { order: Order::Ascending, limit: 1, ..newest };
    let first = chart.observations(series, &oldest)?;
    let (Some(first), Some(last)) =
        (first.first().and_then(Observed::measured_at), values.first().and_then(Observed::measured_at))
    else {
        return Ok(String::new());
    };
    let to = last.plus_micros(1).min(now.max(last.plus_micros(1)));
    let trend = chart.trend_of(series, first, to, CHART_POINTS)?;
    let (display, unit_display) = (series.measure.display, series.measure.unit_display);
    let mut text = format!(
        "<h2>{} ({})</h2><p>{} to {}</p>",
        escaped(display),
        escaped(unit_display),
        readable(first),
        readable(last)
    );
    text.push_str(&drawn(&trend));
    text.push_str(&headings(&["Measured", "Value"]));
    for reading in values.iter().flat_map(|observed| &observed.readings) {
        let value = match reading.value() {
            clinical_model::Value::Number(number) => number.to_string(),
            clinical_model::Value::Absent(_) => "—".to_owned(),
        };
        text.push_str(&line(&[&readable(reading.measured_at()), &value]));
    }
    text.push_str(TABLE_END);
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
    let points: Vec<String> = trend.buckets.iter().map(|bucket| at(bucket.index, bucket.mean)).collect();
    format!(
        "<svg viewBox=\"0 0 1000 200\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"course from {low} to {high}\">\
         <polyline fill=\"none\" stroke=\"#06c\" stroke-width=\"2\" vector-effect=\"non-scaling-stroke\" points=\"{}\"/></svg>\
         <p>lowest {low}, highest {high}</p>",
        points.join(" ")
    )
}

/// Devices, limits and consents.
fn watched(web: &Web, taken: &Taken) -> Result<String, Broken> {
    let mut text = String::new();
    let assignments = taken.assignments(web)?;
    if !assignments.is_empty() {
        text.push_str("<h2>Devices</h2>");
        text.push_str(&headings(&["Device", "Made by", "From", "Until"]));
        for one in &assignments {
            let device = web.site.registry().device(one.device);
            let maker = device.map_or_else(String::new, |found| {
                format!("{} {}, {}", found.manufacturer, found.model, found.serial)
            });
            let until = one.interval.end.map_or_else(|| "—".to_owned(), readable);
            let name = views::named_device(web, one.device).name;
            text.push_str(&line(&[&name, &maker, &readable(one.interval.start), &until]));
        }
        text.push_str(TABLE_END);
    }
    let limits = taken.limits(web)?;
    if !limits.is_empty() {
        text.push_str("<h2>Alarm limits</h2>");
        text.push_str(&headings(&["Measure", "Below", "Above", "Unit"]));
        for limit in &limits {
            let side = |side: Option<f64>| side.map_or_else(|| "—".to_owned(), |value| value.to_string());
            let measure = limit.measure;
            text.push_str(&line(&[
                measure.display,
                &side(limit.low),
                &side(limit.high),
                measure.unit_display,
            ]));
        }
        text.push_str(TABLE_END);
    }
    let rules = taken.rules(web)?;
    if !rules.is_empty() {
        text.push_str("<h2>Who may see what</h2>");
        text.push_str(&headings(&["Rule", "State", "Written"]));
        for kept in &rules {
            let (rule, state) = (consents::says(web, &kept.consent), kept.consent.status.code());
            text.push_str(&line(&[&rule, state, &readable(kept.written_at)]));
        }
        text.push_str(TABLE_END);
    }
    Ok(text)
}

fn alert_line(web: &Web, alert: &Alert) -> String {
    let person = |step: &AlertStep| match step.by {
        Some(id) => web.people.by_id(id).map_or_else(|| "somebody who left".to_owned(), |user| user.display),
        None => "Auscult".to_owned(),
    };
    let answered = alert.steps.iter().filter(|step| step.state != AlertState::Raised).map(|step| {
        let note = step.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
        let word = if step.state == AlertState::Acknowledged { "taken" } else { "over" };
        format!("{} {word} by {}{note}", readable(step.at), person(step))
    });
    let priority = match alert.priority {
        clinical_model::Priority::High => "high",
        clinical_model::Priority::Medium => "medium",
        clinical_model::Priority::Low => "low",
    };
    let ended = alert.condition_ended_at.map_or_else(|| "—".to_owned(), readable);
    let answered = answered.collect::<Vec<_>>().join("; ");
    line(&[&readable(alert.raised_at), &alarms::describe(alert), priority, &ended, &answered])
}

/// What was done, in plain words where there are some.
fn done(action: AuditAction, object: &str) -> String {
    let thing = match object {
        "Patient" => "name and details",
        "ward board" => "the board of the ward",
        "trend" | "readings" | "Observation" => "readings",
        "waveform" | "live waveforms" => "curves",
        "live events" => "readings and alerts",
        "Alert" | "live alerts" => "alerts",
        "Device" => "devices",
        "Consent" => "what the patient allows",
        "provenance" => "where a reading came from",
        "audit log" | "own audit log" => "who looked",
        "record" | "everything" | "export" => "the whole record",
        _ => return format!("{}: {object}", action_word(action)),
    };
    let verb = match action {
        AuditAction::Read | AuditAction::Search => "Looked at",
        AuditAction::Stream => "Watched live:",
        AuditAction::Export => "Took out",
        AuditAction::Create => "Wrote",
        AuditAction::Update => "Changed",
        _ => return format!("{}: {object}", action_word(action)),
    };
    format!("{verb} {thing}")
}

/// One line of who looked: under which role, what for, and, where the glass was broken, with which reason.
fn look(web: &Web, sight: &Sight<'_>, row: &AuditRow) -> String {
    let record = &row.record;
    let what = done(record.action, &record.object);
    let purpose = record.purpose.as_deref().unwrap_or_default();
    let mut why = Purpose::by_code(purpose).map_or(purpose, |purpose| purpose.display()).to_owned();
    if record.break_glass.is_some() {
        why = format!("{why} (the glass was broken)");
    }
    if record.action == AuditAction::BreakGlass && !record.detail.is_empty() {
        why = format!("{why}: {}", record.detail);
    }
    let who = actor_view(web, sight, &record.actor).label;
    let role = record.role.as_deref().unwrap_or_default();
    line(&[&readable(record.at), &who, role, &what, &why, outcome_word(record.outcome)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_record_becomes_markup() {
        assert_eq!(escaped("<b onx='1'>&\"\u{7}"), "&lt;b onx=&#39;1&#39;&gt;&amp;&quot;\u{fffd}");
        assert_eq!(line(&["<i>"]), "<tr><td>&lt;i&gt;</td></tr>");
    }

    #[test]
    fn instants_are_readable() {
        let at: Timestamp = "2026-11-22T20:32:24.980368Z".parse().unwrap();
        assert_eq!(readable(at), "2026-11-22 20:32:24 UTC");
    }
}

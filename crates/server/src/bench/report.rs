//! The tables of the measurements, as Markdown, and everything as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::{Settings, disk};

/// What stands above all tables.
pub fn head(settings: &Settings) -> String {
    let build = build();
    let mut text = format!(
        "\nAuscult {} ({build}), {} cores shared by server, devices and peers; median of {} runs of {} s, least and \
         most in brackets; one machine, one run.\n",
        env!("CARGO_PKG_VERSION"),
        cores(),
        settings.runs,
        settings.length.as_secs()
    );
    if disk::is_memory(&settings.dir) {
        text.push_str("\n**The directory is in memory (tmpfs): fsync costs nothing there, these are not figures of a disk. Use --dir.**\n");
    }
    text
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "DEBUG BUILD, not for comparison" } else { "release build" }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// One measure.
pub fn section(section: &Section) -> String {
    let mut text = format!("\n## {}\n\n", section.title);
    for sentence in &section.settings {
        let _ = writeln!(text, "- {sentence}");
    }
    text.push_str(
        "\n| What | Auscult | Beside | Times as good | Goal | Met |\n|---|---:|---:|---:|---|---|\n",
    );
    for row in &section.rows {
        let beside = match &row.peer {
            Peer::None => "–".to_owned(),
            Peer::Measured(name, theirs) => format!("{name}: {}", shown(theirs, row.unit)),
            Peer::Missing(name, why) => format!("{name}: not measured ({why})"),
        };
        let ratio = row.ratio().map_or("–".to_owned(), number);
        let goals: Vec<String> = row.goals.iter().map(|goal| worded(goal, row.unit)).collect();
        let goals = if goals.is_empty() { "–".to_owned() } else { goals.join(", ") };
        let met = match row.is_met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        let ours = shown(&row.ours, row.unit);
        let _ = writeln!(text, "| {} | {ours} | {beside} | {ratio} | {goals} | {met} |", row.what);
    }
    text
}

fn worded(goal: &Goal, unit: &str) -> String {
    let unit = spaced(unit);
    match *goal {
        Goal::AtLeast(least) => format!("≥ {}{unit}", number(least)),
        Goal::AtMost(most) => format!("≤ {}{unit}", number(most)),
        Goal::Times(times) => format!("≥ {} ×", number(times)),
    }
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() || unit.starts_with('/') { unit.to_owned() } else { format!(" {unit}") }
}

/// Everything, for programs.
pub fn json(settings: &Settings, sections: &[(&'static str, Section)]) -> Value {
    let measured = |(name, section): &(&'static str, Section)| {
        let row = |row: &Row| {
            json!({
                "what": row.what, "unit": row.unit,
                "better": match row.better { Better::Higher => "higher", Better::Lower => "lower" },
                "ours": row.ours, "peer": row.peer, "ratio": row.ratio(), "goals": row.goals, "met": row.is_met(),
            })
        };
        json!({
            "measure": name, "title": section.title, "settings": section.settings,
            "rows": section.rows.iter().map(row).collect::<Vec<_>>(),
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"), "build": build(), "cores": cores(),
        "runs": settings.runs, "run_s": settings.length.as_secs_f64(),
        "measures": sections.iter().map(measured).collect::<Vec<_>>(),
    })
}

/// Median, and the least and most where there were several runs.
fn shown(spread: &Spread, unit: &str) -> String {
    let unit = spaced(unit);
    if spread.runs == 1 {
        return format!("{}{unit}", number(spread.median));
    }
    format!("{}{unit} ({}–{})", number(spread.median), number(spread.least), number(spread.most))
}

/// Three significant places or whole numbers, with commas between thousands.
fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown: Vec<String> =
            [0.5, 9.994, 42.0, 100.0, 1_234.4, 1_234_567.0, -1_500.0].into_iter().map(number).collect();
        assert_eq!(shown, ["0.50", "9.99", "42.0", "100", "1,234", "1,234,567", "-1,500"]);
    }

    #[test]
    fn a_row_says_who_was_beaten_and_who_was_missing() {
        let met = Row::new("fast", "/s", Better::Higher, Spread::of([1.0, 3.0, 2.0]).unwrap())
            .beside(Peer::Measured("peer", Spread::one(1.0)))
            .goal(Goal::Times(1.5));
        let missing = Row::new("small", "ms", Better::Lower, Spread::one(2.0))
            .beside(Peer::Missing("other", "not installed".into()))
            .goal(Goal::Times(2.0));
        let found = Section { title: "Title", settings: vec!["A setting.".into()], rows: vec![met, missing] };
        let text = section(&found);
        assert!(
            text.contains("| fast | 2.00/s (1.00–3.00) | peer: 1.00/s | 2.00 | ≥ 1.50 × | yes |"),
            "{text}"
        );
        assert!(
            text.contains("| small | 2.00 ms | other: not measured (not installed) | – | ≥ 2.00 × | – |"),
            "{text}"
        );
    }
}

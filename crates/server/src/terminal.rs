//! Writing to the terminal: results to standard output, errors with their causes and progress to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// A progress line is drawn again at most this often, in time: a person reads no faster.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Writes a result. A reader that went away (`| head`) is no failure of ours.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a result and a line end.
pub fn println(text: &str) {
    print(&format!("{text}\n"));
}

/// Writes an error with all its causes, one a line.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("auscult: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// A line that shows how far something has come; nothing where standard error is no terminal.
pub struct Progress {
    what: &'static str,
    drawn_at: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Of something: "verifying".
    pub fn new(what: &'static str) -> Self {
        Progress { what, drawn_at: None, shown: std::io::stderr().is_terminal() }
    }

    /// `done` of `total` parts.
    pub fn at(&mut self, done: u64, total: u64) {
        let due = self.drawn_at.is_none_or(|at| at.elapsed() >= REDRAW_EVERY) || done == total;
        if self.shown && due {
            self.drawn_at = Some(Instant::now());
            let percent = (done * 100).checked_div(total).unwrap_or(100);
            eprint!("\r{} {percent:>3} %  ({done} of {total})", self.what);
        }
    }

    /// `done` parts, of nobody knows how many.
    pub fn count(&mut self, done: u64) {
        if self.shown && self.drawn_at.is_none_or(|at| at.elapsed() >= REDRAW_EVERY) {
            self.drawn_at = Some(Instant::now());
            eprint!("\r{done} {}", self.what);
        }
    }

    /// Removes the line.
    pub fn end(self) {
        if self.drawn_at.is_some() {
            eprint!("\r{:width$}\r", "", width = self.what.len() + 48);
        }
    }
}

/// A number from the command line that must lie within a range.
///
/// # Errors
/// A sentence with the range.
pub fn parse_within(text: &str, (least, most): (f64, f64)) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("expected a number from {least} to {most}"))
}

/// A number with what it counts: "1 erasure", "2 erasures".
pub fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// Rows as an aligned table; the last column is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_range() {
        assert_eq!(parse_within("60", (1.0, 3_600.0)), Ok(60.0));
        for wrong in ["0.5", "3601", "NaN", "inf", "x", ""] {
            assert!(parse_within(wrong, (1.0, 3_600.0)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_is_no_plural() {
        let say = |count| counted(count, "warning");
        assert_eq!([say(0), say(1), say(2)], ["0 warnings", "1 warning", "2 warnings"]);
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = vec![vec!["°F".into(), "x".into()], vec!["abc".into(), "y".into()]];
        assert_eq!(table(&rows), "°F   x\nabc  y\n");
    }
}

//! Runs named steps one after another, with a header, a duration and a summary at the end.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::workshop::Workshop;

/// One part of the check.
pub struct Step {
    /// One word, for `--only`.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Workshop) -> anyhow::Result<()>,
}

/// What the caller asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Only these steps; all when empty.
    pub only: Vec<String>,
    /// Go on behind a failed step.
    pub keep_going: bool,
}

enum Result {
    Passed,
    Failed,
    NotRun,
}

/// Runs the steps that were asked for; returns how many failed.
pub fn run_all(
    steps: &[Step],
    wishes: &Wishes,
    workshop: &Workshop,
    out: &mut dyn Write,
) -> io::Result<usize> {
    let chosen: Vec<&Step> = steps
        .iter()
        .filter(|step| wishes.only.is_empty() || wishes.only.iter().any(|name| name == step.name))
        .collect();
    let mut rows = Vec::new();
    let mut failed = 0_usize;
    for (index, step) in chosen.iter().enumerate() {
        if 0 < failed && !wishes.keep_going {
            rows.push((step.name, Result::NotRun, Duration::ZERO));
            continue;
        }
        writeln!(out, "\n=== {}/{} {}: {}", index + 1, chosen.len(), step.name, step.about)?;
        out.flush()?;
        let start = Instant::now();
        let result = match (step.run)(workshop) {
            Ok(()) => Result::Passed,
            Err(error) => {
                failed += 1;
                writeln!(out, "{} failed: {error:#}", step.name)?;
                Result::Failed
            }
        };
        let took = start.elapsed();
        writeln!(out, "--- {} took {:.1} s", step.name, took.as_secs_f64())?;
        rows.push((step.name, result, took));
    }
    summary(&rows, out)?;
    Ok(failed)
}

fn summary(rows: &[(&'static str, Result, Duration)], out: &mut dyn Write) -> io::Result<()> {
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
    writeln!(out)?;
    for (name, result, took) in rows {
        let seconds = took.as_secs_f64();
        match result {
            Result::Passed => writeln!(out, "{name:width$}  passed   {seconds:8.1} s")?,
            Result::Failed => writeln!(out, "{name:width$}  FAILED   {seconds:8.1} s")?,
            Result::NotRun => writeln!(out, "{name:width$}  not run  a step before it failed")?,
        }
    }
    let count = |wanted: fn(&Result) -> bool| rows.iter().filter(|(_, result, _)| wanted(result)).count();
    let passed = count(|result| matches!(result, Result::Passed));
    let failed = count(|result| matches!(result, Result::Failed));
    writeln!(out, "\n{passed} passed, {failed} failed")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 3] = [
        Step { name: "good", about: "passes", run: |_| Ok(()) },
        Step { name: "planted", about: "fails", run: |_| anyhow::bail!("planted fault") },
        Step { name: "last", about: "passes", run: |_| Ok(()) },
    ];

    fn run(wishes: &Wishes) -> (usize, String) {
        let mut out = Vec::new();
        let failed = run_all(&STEPS, wishes, &Workshop::here(), &mut out).unwrap();
        (failed, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_first_failure_stops_the_rest() {
        let (failed, text) = run(&Wishes::default());
        assert_eq!(failed, 1);
        assert!(text.contains("planted failed: planted fault"), "{text}");
        assert!(text.contains("last     not run  a step before it failed"), "{text}");
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed"));
    }

    #[test]
    fn keep_going_runs_them_all() {
        let (failed, text) = run(&Wishes { keep_going: true, ..Wishes::default() });
        assert_eq!(failed, 1);
        assert_eq!(text.lines().last(), Some("2 passed, 1 failed"));
    }

    #[test]
    fn one_step_can_be_chosen() {
        let (failed, text) = run(&Wishes { only: vec!["last".to_owned()], ..Wishes::default() });
        assert_eq!(failed, 0);
        assert!(text.contains("=== 1/1 last: passes"), "{text}");
        assert_eq!(text.lines().last(), Some("1 passed, 0 failed"));
    }
}

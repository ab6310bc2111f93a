//! The table at the end of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::check::Verdict;
use super::plan::Kind;
use super::rounds::Outcome;

#[derive(Default)]
struct Row {
    rounds: usize,
    acked: usize,
    states: usize,
    verdict: Verdict,
    faults: usize,
    ends: BTreeMap<String, usize>,
    took: Duration,
}

impl Row {
    /// A round judges one state where it does not say otherwise.
    fn judged(&self) -> usize {
        if self.states == 0 { self.rounds } else { self.states }
    }
}

/// What all rounds came to, by kind.
pub struct Summary {
    seed: u64,
    rows: BTreeMap<Kind, Row>,
}

impl Summary {
    pub fn new(seed: u64) -> Self {
        Summary { seed, rows: BTreeMap::new() }
    }

    pub fn note(&mut self, kind: Kind, outcome: Outcome, took: Duration) {
        let row = self.rows.entry(kind).or_default();
        row.rounds += 1;
        row.acked += outcome.acked;
        row.states += outcome.states;
        row.faults += outcome.faults.len();
        row.took += took;
        row.verdict.lost += outcome.verdict.lost;
        row.verdict.twice += outcome.verdict.twice;
        row.verdict.disordered += outcome.verdict.disordered;
        row.verdict.changed += outcome.verdict.changed + outcome.verdict.invented;
        for end in outcome.ends {
            *row.ends.entry(end).or_default() += 1;
        }
    }

    /// How many things were that must not be.
    pub fn faults(&self) -> usize {
        self.rows.values().map(|row| row.faults).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = "| Fault | Rounds | Acknowledged readings | States judged | Lost | Twice | Out of order | Changed | \
                       Faults | Server ended with | Seconds a round |";
        writeln!(f, "{columns}\n|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|")?;
        let mut all = Row::default();
        for (kind, row) in &self.rows {
            write_row(f, kind.name(), row)?;
            all.rounds += row.rounds;
            all.acked += row.acked;
            all.states += row.judged();
            all.faults += row.faults;
            all.took += row.took;
            all.verdict.lost += row.verdict.lost;
            all.verdict.twice += row.verdict.twice;
            all.verdict.disordered += row.verdict.disordered;
            all.verdict.changed += row.verdict.changed;
        }
        write_row(f, "**all**", &all)?;
        write!(f, "\nSeed {}, {:.0} s in all.", self.seed, all.took.as_secs_f64())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, name: &str, row: &Row) -> fmt::Result {
    let ends: Vec<String> = row.ends.iter().map(|(end, count)| format!("{count} × {end}")).collect();
    let states = row.judged();
    let verdict = &row.verdict;
    writeln!(
        f,
        "| {name} | {} | {} | {states} | {} | {} | {} | {} | {} | {} | {:.1} |",
        row.rounds,
        row.acked,
        verdict.lost,
        verdict.twice,
        verdict.disordered,
        verdict.changed,
        row.faults,
        ends.join(", "),
        row.took.as_secs_f64() / row.rounds.max(1) as f64
    )
}

//! The check of a whole log, row by row, against its tree and its checkpoints: names what was changed, removed, added or
//! moved. It takes what was read in order and keeps only the edge of the tree, so that a log of any length fits.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::note::{KeyKind, VerifierKey};
use super::tree::{Edge, TILE_WIDTH};
use super::{Hash, tree};

/// Findings that are kept one by one; more are counted.
pub const FINDINGS_LIMIT: usize = 1_000;
/// Disagreements that are kept to tell moved rows from changed ones.
const MISMATCH_LIMIT: usize = 10_000;

/// What was done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A row does not say what it said.
    Changed,
    /// Rows are gone.
    Missing,
    /// A row came between others.
    Added,
    /// Rows stand in another order.
    Moved,
    /// A hash of the kept tree was changed.
    Tree,
    /// A checkpoint was changed or replaced.
    Checkpoint,
    /// The log is shorter than it was, or another one.
    RolledBack,
}

impl Fault {
    /// A word for machines.
    pub const fn word(self) -> &'static str {
        match self {
            Fault::Changed => "changed",
            Fault::Missing => "missing",
            Fault::Added => "added",
            Fault::Moved => "moved",
            Fault::Tree => "tree-changed",
            Fault::Checkpoint => "checkpoint-changed",
            Fault::RolledBack => "rolled-back",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was done.
    pub fault: Fault,
    /// First row that it concerns, where it is about rows; counted from 1.
    pub first: Option<u64>,
    /// Last row that it concerns.
    pub last: Option<u64>,
    /// A sentence for a person.
    pub what: String,
}

/// What was read of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The leaf, computed anew from what the row says.
    Leaf(Hash),
    /// It can no longer be read, on purpose; only the kept leaf stands.
    Erased,
    /// It does not say anything that could have been written.
    Damaged(String),
}

/// A checkpoint to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signpost {
    /// How findings name it.
    pub name: String,
    /// The signed note.
    pub note: String,
    /// Whether it was kept outside the log: by a witness, an auditor, on paper.
    pub outside: bool,
}

/// What a check is told before it begins.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Name of the log in findings: `acts`, `groups`.
    pub log: String,
    /// What origins begin with; the number of the epoch follows.
    pub origin: String,
    /// The epoch now.
    pub epoch: u64,
    /// Leaves that the kept tree says it has.
    pub size: u64,
    /// Keys of the log and of witnesses.
    pub keys: Vec<VerifierKey>,
    /// The log's checkpoints, and others'.
    pub signposts: Vec<Signpost>,
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Name of the log.
    pub log: String,
    /// Rows that were read.
    pub rows: u64,
    /// Of them, rows whose content was erased; their leaves still stand.
    pub erased: u64,
    /// Rows that no checkpoint covers yet.
    pub uncovered: u64,
    /// Checkpoints whose signature and root fit.
    pub checkpoints: u64,
    /// Cosignatures of witnesses that fit.
    pub cosignatures: u64,
    /// The last checkpoint that fits.
    pub head: Option<Checkpoint>,
    /// The root over all rows.
    pub root: Hash,
    /// What is wrong, first rows first.
    pub findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_LIMIT`].
    pub more_findings: u64,
    /// What a person should know and that is no fault.
    pub remarks: Vec<String>,
}

struct Due {
    checkpoint: Checkpoint,
    name: String,
    outside: bool,
    rows_fit: bool,
    tree_fits: bool,
}

/// A row that says something else than the tree.
struct Mismatch {
    sequence: u64,
    row: Option<Hash>,
    tree: Hash,
    how: Option<String>,
}

/// A check under way. Feed it, in order: [`Check::tile`] before the rows of the tile, [`Check::row`] for each row.
pub struct Check {
    expectation: Expectation,
    due: Vec<Due>,
    next_due: usize,
    rows: Edge,
    tree: Edge,
    tile: Vec<Hash>,
    tile_number: Option<u64>,
    upper: Vec<Hash>,
    expected: u64,
    mismatches: Vec<Mismatch>,
    unkept_mismatches: u64,
    /// Rows that did not come where they belong, as spans, and what the tree holds for the first of them: they may come
    /// later.
    missing: Vec<(u64, u64)>,
    awaited: BTreeMap<u64, Hash>,
    report: Report,
}

impl Check {
    /// Begins. Checkpoints are verified here; those that are not believed are findings and count no further.
    pub fn new(expectation: Expectation) -> Self {
        let report = Report { log: expectation.log.clone(), ..Report::default() };
        let mut check = Check {
            due: Vec::new(),
            next_due: 0,
            rows: Edge::default(),
            tree: Edge::default(),
            tile: Vec::new(),
            tile_number: None,
            upper: Vec::new(),
            expected: 1,
            mismatches: Vec::new(),
            unkept_mismatches: 0,
            missing: Vec::new(),
            awaited: BTreeMap::new(),
            report,
            expectation,
        };
        for signpost in std::mem::take(&mut check.expectation.signposts) {
            check.take_signpost(signpost);
        }
        check.due.sort_by_key(|due| due.checkpoint.size);
        check.pass_signposts();
        check
    }

    fn find(&mut self, fault: Fault, rows: Option<(u64, u64)>, what: String) {
        if self.report.findings.len() >= FINDINGS_LIMIT {
            self.report.more_findings += 1;
            return;
        }
        let (first, last) = (rows.map(|rows| rows.0), rows.map(|rows| rows.1));
        self.report.findings.push(Finding { fault, first, last, what });
    }

    fn take_signpost(&mut self, Signpost { name, note, outside }: Signpost) {
        let (checkpoint, signed) = match Checkpoint::verified(&note, &self.expectation.keys) {
            Ok(verified) => verified,
            Err(error) => {
                let mut how = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    how = format!("{how}: {inner}");
                    cause = inner.source();
                }
                return self.find(Fault::Checkpoint, None, format!("{name}: {how}"));
            }
        };
        if !signed.iter().any(|signed| signed.by.kind() == KeyKind::Log) {
            let what = format!("{name} is cosigned, but not signed by a key of the log");
            return self.find(Fault::Checkpoint, None, what);
        }
        let epoch =
            checkpoint.origin.strip_prefix(&self.expectation.origin).and_then(super::checkpoint::decimal);
        let Some(epoch) = epoch.filter(|epoch| (1..=self.expectation.epoch).contains(epoch)) else {
            let what = format!("{name} is of another log: {}", checkpoint.origin);
            return self.find(Fault::Checkpoint, None, what);
        };
        self.report.cosignatures +=
            signed.iter().filter(|signed| signed.by.kind() == KeyKind::Witness).count() as u64;
        if outside && epoch < self.expectation.epoch {
            self.report.remarks.push(format!(
                "{name} is of epoch {epoch}; epoch {} began when a backup was restored",
                self.expectation.epoch
            ));
        }
        self.due.push(Due { checkpoint, name, outside, rows_fit: false, tree_fits: false });
    }

    /// Compares what is due at the present size.
    fn pass_signposts(&mut self) {
        while let Some(due) = self.due.get_mut(self.next_due)
            && due.checkpoint.size <= self.tree.size().max(self.rows.size())
        {
            let size = due.checkpoint.size;
            due.rows_fit = self.rows.size() == size && self.rows.root() == due.checkpoint.root;
            due.tree_fits = self.tree.size() == size && self.tree.root() == due.checkpoint.root;
            self.next_due += 1;
        }
    }

    /// The hashes of a tile of level 0, before its rows.
    pub fn tile(&mut self, number: u64, hashes: Vec<Hash>) {
        let needed = self.expectation.size.saturating_sub(number * TILE_WIDTH).min(TILE_WIDTH);
        if (hashes.len() as u64) < needed {
            let (first, last) = (number * TILE_WIDTH + hashes.len() as u64 + 1, number * TILE_WIDTH + needed);
            let what = format!("the kept tree has no hashes for rows {first} to {last}");
            self.find(Fault::Tree, Some((first, last)), what);
        }
        self.tile = hashes;
        self.tile.truncate(needed as usize);
        self.tile_number = Some(number);
        if self.tile.len() as u64 == TILE_WIDTH {
            let mut edge = Edge::default();
            self.tile.iter().for_each(|hash| edge.push(*hash));
            self.upper.push(edge.root());
        }
    }

    /// What the kept tree holds for a row.
    fn in_tree(&self, sequence: u64) -> Option<Hash> {
        let index = sequence - 1;
        if index >= self.expectation.size || self.tile_number != Some(index / TILE_WIDTH) {
            return None;
        }
        self.tile.get((index % TILE_WIDTH) as usize).copied()
    }

    /// The tile that must be given before this row, if it was not yet.
    pub fn wants_tile(&self, sequence: u64) -> Option<u64> {
        let index = sequence.checked_sub(1)?;
        let number = index / TILE_WIDTH;
        (index < self.expectation.size && self.tile_number != Some(number)).then_some(number)
    }

    /// The number of the row that comes next.
    pub fn next_row(&self) -> u64 {
        self.expected
    }

    fn advance(&mut self, row: Option<Hash>, in_tree: Option<Hash>) {
        // What is missing on one side is taken from the other, so that the rest can still be compared.
        if let Some(hash) = row.or(in_tree) {
            self.rows.push(hash);
        }
        if self.expected <= self.expectation.size
            && let Some(hash) = in_tree.or(row)
        {
            self.tree.push(hash);
        }
        self.expected += 1;
        self.pass_signposts();
    }

    /// Says that the next row is not there.
    pub fn missing(&mut self) {
        let sequence = self.expected;
        let spans = self.missing.len();
        match self.missing.last_mut() {
            Some((_, last)) if *last == sequence - 1 => *last = sequence,
            _ if spans < FINDINGS_LIMIT => self.missing.push((sequence, sequence)),
            _ => self.report.more_findings += 1,
        }
        let in_tree = self.in_tree(sequence);
        if let Some(hash) = in_tree.filter(|_| self.awaited.len() < MISMATCH_LIMIT) {
            self.awaited.insert(sequence, hash);
        }
        self.advance(None, in_tree);
    }

    /// A row that comes behind a later one: moved, where it was missing at its place and says what was entered there.
    fn late(&mut self, sequence: u64, says: Option<Hash>) {
        let is_moved = says.is_some() && self.awaited.get(&sequence).copied() == says;
        if !is_moved {
            let what = format!("row {sequence} stands twice, or behind a later one");
            return self.find(Fault::Added, Some((sequence, sequence)), what);
        }
        self.awaited.remove(&sequence);
        if let Some(at) = self.missing.iter().position(|(first, last)| (*first..=*last).contains(&sequence)) {
            let (first, last) = self.missing.remove(at);
            let around = [(first, sequence - 1), (sequence + 1, last)];
            self.missing.splice(at..at, around.into_iter().filter(|(first, last)| first <= last));
        }
        let what = format!("row {sequence} stands behind row {}", self.expected - 1);
        self.find(Fault::Moved, Some((sequence, sequence)), what);
    }

    fn judge_missing(&mut self) {
        for (first, last) in std::mem::take(&mut self.missing) {
            let what = match first == last {
                true => format!("row {first} was removed"),
                false => format!("rows {first} to {last} were removed"),
            };
            self.find(Fault::Missing, Some((first, last)), what);
        }
    }

    /// Says that no row up to `to` is there, nor any hash of the tree for them. Nothing after it can be compared with a
    /// checkpoint.
    pub fn gap(&mut self, to: u64) {
        if to > self.expected {
            let rows = (self.expected, to - 1);
            self.find(Fault::Missing, Some(rows), format!("rows {} to {} are missing", rows.0, rows.1));
            self.expected = to;
        }
    }

    /// The next row: its number, the leaf kept beside it, and what it says. Rows before it that did not come must have
    /// been told by [`Check::missing`].
    pub fn row(&mut self, sequence: u64, kept: Option<Hash>, content: Content) {
        self.report.rows += 1;
        if sequence < self.expected {
            let says = match content {
                Content::Leaf(leaf) => Some(leaf),
                Content::Erased => kept,
                Content::Damaged(_) => None,
            };
            return self.late(sequence, says);
        }
        let in_tree = self.in_tree(sequence);
        let (says, how) = match content {
            Content::Leaf(leaf) if kept.is_some_and(|kept| kept != leaf) => {
                (Some(leaf), Some("its content and the leaf beside it do not fit".to_owned()))
            }
            Content::Leaf(leaf) => (Some(leaf), None),
            Content::Erased => {
                self.report.erased += 1;
                (kept, None)
            }
            Content::Damaged(how) => (kept, Some(how)),
        };
        match (in_tree, says, how) {
            (Some(tree), says, how) if says != Some(tree) || how.is_some() => {
                self.disagree(Mismatch { sequence, row: says.filter(|says| *says != tree), tree, how });
            }
            (None, _, Some(how)) => {
                let what = format!("row {sequence} was changed or added: {how}");
                let fault = if sequence > self.expectation.size { Fault::Added } else { Fault::Changed };
                self.find(fault, Some((sequence, sequence)), what);
            }
            _ => {}
        }
        self.advance(says, in_tree);
    }

    fn disagree(&mut self, mismatch: Mismatch) {
        if self.mismatches.len() < MISMATCH_LIMIT {
            self.mismatches.push(mismatch);
        } else {
            self.unkept_mismatches += 1;
        }
    }

    /// Ends: `upper` gives the hashes of a tile above level 0, for the comparison with what they must be.
    pub fn finish(mut self, mut upper: impl FnMut(u8, u64) -> Option<Vec<Hash>>) -> Report {
        while self.expected <= self.expectation.size {
            if self.wants_tile(self.expected).is_some() {
                // The tiles end here as well; there is nothing more to compare.
                break;
            }
            self.missing();
        }
        self.report.root = self.rows.root();
        if self.expected <= self.expectation.size {
            let (first, last) = (self.expected, self.expectation.size);
            let what = format!("rows {first} to {last} are missing at the end");
            self.find(Fault::Missing, Some((first, last)), what);
        }
        self.judge_missing();
        self.judge_mismatches();
        self.judge_signposts();
        self.judge_upper(&mut upper);
        let covered = self.report.head.as_ref().map_or(0, |head| head.size);
        self.report.uncovered = (self.expected - 1).saturating_sub(covered);
        self.report.findings.sort_by_key(|finding| finding.first.unwrap_or(u64::MAX));
        self.report
    }

    /// Whether the tree, or else the rows, lead to the first checkpoint that covers a row.
    fn arbiter(&self, sequence: u64) -> Option<(bool, bool)> {
        let due = self.due[..self.next_due].iter().find(|due| due.checkpoint.size >= sequence)?;
        Some((due.tree_fits, due.rows_fit))
    }

    fn judge_mismatches(&mut self) {
        let mismatches = std::mem::take(&mut self.mismatches);
        if self.judge_shift(&mismatches) {
            return;
        }
        for mismatch in &mismatches {
            let Mismatch { sequence, row, how, .. } = mismatch;
            let rows = Some((*sequence, *sequence));
            let elsewhere = row.and_then(|row| mismatches.iter().find(|other| other.tree == row));
            if let Some(other) = elsewhere {
                let what = format!("row {sequence} holds what was written as row {}", other.sequence);
                self.find(Fault::Moved, rows, what);
                continue;
            }
            match self.arbiter(*sequence) {
                Some((false, true)) if how.is_none() => {
                    let what = format!(
                        "the kept tree holds another hash for row {sequence}; the row itself is sound"
                    );
                    self.find(Fault::Tree, rows, what);
                }
                _ => {
                    let how = how
                        .clone()
                        .unwrap_or_else(|| "its content is not what was entered into the log".to_owned());
                    self.find(Fault::Changed, rows, format!("row {sequence} was changed: {how}"));
                }
            }
        }
        self.report.more_findings += self.unkept_mismatches;
    }

    /// Where every row from one on holds what the tree has one place further on, or before: one row was taken out or put
    /// in, and the others were renumbered.
    fn judge_shift(&mut self, mismatches: &[Mismatch]) -> bool {
        let [first, .., last] = mismatches else { return false };
        let runs_on = mismatches.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1);
        if !runs_on || mismatches.len() < 3 {
            return false;
        }
        let up = mismatches.windows(2).all(|pair| pair[0].row == Some(pair[1].tree));
        let down = mismatches.windows(2).all(|pair| pair[1].row == Some(pair[0].tree));
        let (number, end) = (first.sequence, last.sequence);
        if up {
            let what =
                format!("row {number} was removed, and the rows after it were moved up to hide the gap");
            self.find(Fault::Missing, Some((number, number)), what);
        } else if down {
            let what =
                format!("a row was added as row {number}, and the rows after it were moved down (to {end})");
            self.find(Fault::Added, Some((number, number)), what);
        }
        up || down
    }

    fn judge_signposts(&mut self) {
        let (mut from, mut told) = (1, false);
        let reached = self.rows.size();
        let is_named = !self.report.findings.is_empty();
        for at in 0..self.due.len() {
            let due = &self.due[at];
            let (size, name, outside) = (due.checkpoint.size, due.name.clone(), due.outside);
            if at >= self.next_due || size > reached {
                let what = format!(
                    "{name} says that there were {size} rows, there are {reached}: the log was rolled back"
                );
                self.find(Fault::RolledBack, Some((reached + 1, size)), what);
                continue;
            }
            match (due.rows_fit, due.tree_fits) {
                (true, true) => {
                    self.report.checkpoints += 1;
                    if self.report.head.as_ref().is_none_or(|head| head.size <= size) {
                        self.report.head = Some(self.due[at].checkpoint.clone());
                    }
                    from = size + 1;
                }
                (false, false) if outside => {
                    let what = format!(
                        "{name} has another root: up to row {size} the log is not the one that was seen"
                    );
                    self.find(Fault::RolledBack, Some((from, size)), what);
                }
                // A fault that was named already is why.
                _ if told || is_named => {}
                (true, false) => {
                    let what = format!("the kept tree does not lead to the root of {name}; the rows do");
                    self.find(Fault::Tree, Some((from, size)), what);
                    told = true;
                }
                _ => {
                    let what = format!(
                        "rows {from} to {size} do not lead to the root of {name}: a row among them was changed with its \
                         place in the tree, or the checkpoint was replaced"
                    );
                    self.find(Fault::Changed, Some((from, size)), what);
                    told = true;
                }
            }
        }
    }

    fn judge_upper(&mut self, upper: &mut impl FnMut(u8, u64) -> Option<Vec<Hash>>) {
        let mut level = 1_u8;
        let mut hashes = std::mem::take(&mut self.upper);
        while !hashes.is_empty() {
            let mut above = Vec::new();
            for (number, must_be) in (0_u64..).zip(hashes.chunks(TILE_WIDTH as usize)) {
                if upper(level, number).is_some_and(|found| found != must_be) {
                    let span = TILE_WIDTH.pow(u32::from(level));
                    let (first, last) = (number * TILE_WIDTH * span + 1, (number + 1) * TILE_WIDTH * span);
                    let last = last.min(self.expectation.size);
                    let what = format!("tile {number} of level {level} of the kept tree was changed");
                    self.find(Fault::Tree, Some((first, last)), what);
                }
                if must_be.len() as u64 == TILE_WIDTH {
                    let mut edge = tree::Edge::default();
                    must_be.iter().for_each(|hash| edge.push(*hash));
                    above.push(edge.root());
                }
            }
            hashes = above;
            level += 1;
        }
    }
}

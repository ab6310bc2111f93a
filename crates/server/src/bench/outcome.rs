//! What a measure found: figures with their spread, beside whom, and whether the goal was met.

use serde::Serialize;

/// Median of several runs, with the least and the most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; the mean of the two middle ones where their number is even.
    pub median: f64,
    /// Least.
    pub least: f64,
    /// Most.
    pub most: f64,
    /// How many runs.
    pub runs: usize,
}

impl Spread {
    /// Of these figures; `None` where there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            (figures[middle - 1] + figures[middle]) / 2.0
        };
        Some(Spread { median, least, most, runs: figures.len() })
    }

    /// One figure.
    pub const fn one(figure: f64) -> Self {
        Spread { median: figure, least: figure, most: figure, runs: 1 }
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Better {
    /// More is better: a rate.
    Higher,
    /// Less is better: a time, a size.
    Lower,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Goal {
    /// Our figure is at least this.
    AtLeast(f64),
    /// Our figure is at most this.
    AtMost(f64),
    /// We are so many times as good as the peer.
    Times(f64),
}

/// Who is measured beside us.
#[derive(Clone, Debug, Serialize)]
pub enum Peer {
    /// Nobody.
    None,
    /// A peer, and what it reached.
    Measured(&'static str, Spread),
    /// A peer that could not be measured, and why.
    Missing(&'static str, String),
}

/// One line of a table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// In which unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// Ours.
    pub ours: Spread,
    /// Theirs.
    pub peer: Peer,
    /// What is wanted.
    pub goals: Vec<Goal>,
}

impl Row {
    /// A line without a peer and without a goal.
    pub fn new(what: impl Into<String>, unit: &'static str, better: Better, ours: Spread) -> Self {
        Row { what: what.into(), unit, better, ours, peer: Peer::None, goals: Vec::new() }
    }

    /// Beside a peer.
    #[must_use]
    pub fn beside(mut self, peer: Peer) -> Self {
        self.peer = peer;
        self
    }

    /// With a goal.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// How many times as good as the peer, by the medians.
    pub fn ratio(&self) -> Option<f64> {
        let Peer::Measured(_, theirs) = &self.peer else { return None };
        let (ours, theirs) = (self.ours.median, theirs.median);
        let ratio = match self.better {
            Better::Higher => ours / theirs,
            Better::Lower => theirs / ours,
        };
        ratio.is_finite().then_some(ratio)
    }

    /// Whether every goal was met; `None` where there is none, or where one needs a peer that is missing.
    pub fn is_met(&self) -> Option<bool> {
        let mut all = None;
        for goal in &self.goals {
            let met = match *goal {
                Goal::AtLeast(least) => self.ours.median >= least,
                Goal::AtMost(most) => self.ours.median <= most,
                Goal::Times(times) => self.ratio()? >= times,
            };
            all = Some(all.unwrap_or(true) && met);
        }
        all
    }
}

/// What one measure found.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Heading.
    pub title: &'static str,
    /// Settings of both sides, a sentence each.
    pub settings: Vec<String>,
    /// The table.
    pub rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_between_its_bounds() {
        let spread = Spread::of([30.0, 10.0, 20.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most, spread.runs), (20.0, 10.0, 30.0, 3));
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn goals_are_judged_by_medians_and_never_without_their_peer() {
        let row = Row::new("rate", "/s", Better::Higher, Spread::one(300.0));
        assert_eq!(row.is_met(), None);
        assert_eq!(row.clone().goal(Goal::AtLeast(300.0)).is_met(), Some(true));
        assert_eq!(row.clone().goal(Goal::AtLeast(301.0)).is_met(), Some(false));
        let missing = row.clone().beside(Peer::Missing("peer", "not there".into())).goal(Goal::Times(1.0));
        assert_eq!(missing.is_met(), None);
        let beside = |theirs| row.clone().beside(Peer::Measured("peer", Spread::one(theirs)));
        assert_eq!(beside(100.0).ratio(), Some(3.0));
        assert_eq!(beside(100.0).goal(Goal::Times(3.0)).is_met(), Some(true));
        assert_eq!(beside(101.0).goal(Goal::Times(3.0)).is_met(), Some(false));
        assert_eq!(beside(10.0).goal(Goal::Times(3.0)).goal(Goal::AtLeast(999.0)).is_met(), Some(false));
        let time = Row::new("time", "ms", Better::Lower, Spread::one(2.0))
            .beside(Peer::Measured("peer", Spread::one(40.0)));
        assert_eq!(time.ratio(), Some(20.0));
        assert_eq!(time.goal(Goal::AtMost(5.0)).is_met(), Some(true));
    }
}

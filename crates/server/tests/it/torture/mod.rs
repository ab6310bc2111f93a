//! The fault harness: rounds of faults against the real binary under load, with ledgers outside of it and an
//! independent judge.
//!
//! A short mix by default. The long run: `cargo xtask torture`, which sets `AUSCULT_TORTURE_ROUNDS`, `…_SEED` and
//! `…_ONLY` (kinds, separated by commas). With the feature `planted`, each kind must find the bug made for it.

pub mod check;
mod flips;
mod plan;
mod powercut;
pub mod proxy;
mod rounds;
mod served;
pub mod site;
mod summary;
mod system;

use std::time::{Duration, Instant};

use pipeline::{Clock as _, SystemClock};
use simulator::random::Random;

use self::plan::Kind;
use self::rounds::{Outcome, Round};
use self::site::Site;
use self::summary::Summary;

/// Rounds after which a site's data are left behind, so that judging stays quick.
const ROUNDS_A_SITE: usize = 8;
/// The short mix, which every run of the tests does: kinds that need nothing but Rust.
const SHORT_MIX: [Kind; 7] =
    [Kind::Kill, Kind::Cut, Kind::Terminate, Kind::Repeat, Kind::HalfOpen, Kind::Backup, Kind::BitFlip];
/// Kinds that need programs of the system: strace, libfaketime, prlimit, and a small disk that only root may mount.
const SYSTEM_MIX: [Kind; 8] = [
    Kind::SyncError,
    Kind::WriteError,
    Kind::PowerCut,
    Kind::Clock,
    Kind::DiskFull,
    Kind::Memory,
    Kind::SyncError,
    Kind::WriteError,
];

/// What is asked for.
struct Wishes {
    seed: u64,
    rounds: Vec<Kind>,
}

impl Wishes {
    fn from_environment(mix: &[Kind]) -> Self {
        let read = |name: &str| {
            std::env::var(format!("AUSCULT_TORTURE_{name}")).ok().filter(|text| !text.is_empty())
        };
        let seed = read("SEED").map_or_else(
            || u64::from(std::process::id()) ^ u64::try_from(SystemClock.now().as_micros()).unwrap_or(0),
            |text| text.parse().expect("a seed is a number"),
        );
        let only: Vec<Kind> = read("ONLY").map_or_else(Vec::new, |names| {
            names
                .split(',')
                .map(|name| Kind::named(name).unwrap_or_else(|| panic!("no kind {name}")))
                .collect()
        });
        let rounds = match read("ROUNDS") {
            Some(text) => plan::plan(seed, text.parse().expect("rounds are a number"), &only),
            None if only.is_empty() => mix.to_vec(),
            None => only,
        };
        Wishes { seed, rounds }
    }
}

/// Runs rounds, one after another, on sites that live for some of them. With a planted bug, until it is found.
fn torture(wishes: &Wishes, planted: Option<&'static str>) -> Summary {
    println!("AUSCULT_TORTURE_SEED={}", wishes.seed);
    let template = Site::template(planted);
    let mut site = template.branch();
    let mut summary = Summary::new(wishes.seed);
    for (number, kind) in wishes.rounds.iter().enumerate() {
        // Kinds that look at many states look at small ones.
        if number > 0 && number % ROUNDS_A_SITE == 0 || kind.has_many_states() {
            site = template.branch();
        }
        let began = Instant::now();
        let random = Random::for_part(wishes.seed, &format!("round {number}"));
        let outcome = Round { site: &mut site, random, outcome: Outcome::default() }.run(*kind);
        println!("{}", line(number + 1, wishes.rounds.len(), *kind, &outcome, began.elapsed()));
        let failed = !outcome.faults.is_empty();
        summary.note(*kind, outcome, began.elapsed());
        if failed {
            if planted.is_some() {
                break;
            }
            // What is lost stays lost: the next round begins on another site.
            site = template.branch();
        }
    }
    summary
}

fn line(number: usize, of: usize, kind: Kind, outcome: &Outcome, took: Duration) -> String {
    let mut text = format!(
        "{number:>4}/{of} {:<12} {:>6} acked {:>6.1} s  {}",
        kind.name(),
        outcome.acked,
        took.as_secs_f64(),
        outcome.ends.join(", ")
    );
    if !outcome.note.is_empty() {
        text.push_str(&format!("  ({})", outcome.note));
    }
    for fault in &outcome.faults {
        text.push_str(&format!("\n     FAULT: {fault}"));
    }
    text
}

fn survives(mix: &[Kind]) {
    let summary = torture(&Wishes::from_environment(mix), None);
    println!("\n{summary}");
    assert_eq!(summary.faults(), 0, "see above; the seed repeats the plan");
}

#[test]
fn the_loop_survives_every_fault() {
    survives(&SHORT_MIX);
}

#[test]
#[ignore = "needs strace, libfaketime and root; the step \"clients\" of the check runs it"]
fn the_loop_survives_faults_of_the_system() {
    survives(&SYSTEM_MIX);
}

/// Each kind of fault with a bug that only this kind must find.
#[cfg(feature = "planted")]
const PLANTED: [(Kind, &str); 13] = [
    (Kind::Kill, "early-acknowledgement"),
    (Kind::Terminate, "unflushed-stop"),
    (Kind::DiskFull, "swallowed-failure"),
    (Kind::SyncError, "swallowed-failure"),
    (Kind::WriteError, "swallowed-failure"),
    (Kind::Cut, "spoiled-identity"),
    (Kind::HalfOpen, "no-takeover"),
    (Kind::Repeat, "order-swap"),
    (Kind::Clock, "clock-believed"),
    (Kind::Backup, "stale-backup"),
    (Kind::Memory, "early-acknowledgement"),
    (Kind::PowerCut, "no-sync"),
    (Kind::BitFlip, "unnamed-damage"),
];

/// Rounds of one kind in which a planted bug must show: faults come at random moments.
#[cfg(feature = "planted")]
const ROUNDS_TO_FIND: usize = 6;

/// A harness that cannot fail proves nothing.
#[test]
#[cfg(feature = "planted")]
fn every_kind_finds_the_bug_that_is_planted_for_it() {
    let only = std::env::var("AUSCULT_TORTURE_ONLY").unwrap_or_default();
    let mut missed = Vec::new();
    for (kind, bug) in
        PLANTED.iter().filter(|(kind, _)| only.is_empty() || only.split(',').any(|o| o == kind.name()))
    {
        println!("{}: {bug} is planted", kind.name());
        let wishes = Wishes { seed: 1, rounds: vec![*kind; ROUNDS_TO_FIND] };
        let summary = torture(&wishes, Some(bug));
        if summary.faults() == 0 {
            missed.push((kind.name(), bug));
        }
    }
    assert!(missed.is_empty(), "the harness did not notice: {missed:?}");
}

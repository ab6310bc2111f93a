//! What is done to the server: the kinds of faults, and a seeded order of rounds.

use simulator::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9 under load, restart, devices send again.
    Kill,
    /// SIGTERM under load.
    Terminate,
    /// The disk is full for a while.
    DiskFull,
    /// A sync of a file fails once.
    SyncError,
    /// A write to a file fails once.
    WriteError,
    /// Connections are cut.
    Cut,
    /// Connections break and the server does not notice.
    HalfOpen,
    /// Messages come twice, times are out of order.
    Repeat,
    /// The server's clock jumps by a day.
    Clock,
    /// A backup is taken under load and restored.
    Backup,
    /// The system refuses memory.
    Memory,
    /// The power fails: what was written and not synced is gone.
    PowerCut,
    /// A bit of a file flips.
    BitFlip,
}

impl Kind {
    /// All of them, with how often each comes among the rounds of a long run.
    pub const WEIGHTS: [(Kind, usize); 13] = [
        (Kind::Kill, 4),
        (Kind::Terminate, 2),
        (Kind::DiskFull, 2),
        (Kind::SyncError, 4),
        (Kind::WriteError, 4),
        (Kind::Cut, 3),
        (Kind::HalfOpen, 2),
        (Kind::Repeat, 3),
        (Kind::Clock, 2),
        (Kind::Backup, 2),
        (Kind::Memory, 2),
        (Kind::PowerCut, 2),
        (Kind::BitFlip, 2),
    ];

    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Terminate => "terminate",
            Kind::DiskFull => "disk-full",
            Kind::SyncError => "sync-error",
            Kind::WriteError => "write-error",
            Kind::Cut => "cut",
            Kind::HalfOpen => "half-open",
            Kind::Repeat => "repeat",
            Kind::Clock => "clock",
            Kind::Backup => "backup",
            Kind::Memory => "memory",
            Kind::PowerCut => "power-cut",
            Kind::BitFlip => "bit-flip",
        }
    }

    /// Whether one round makes and judges many states of the disk.
    pub const fn has_many_states(self) -> bool {
        matches!(self, Kind::PowerCut | Kind::BitFlip)
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::WEIGHTS.into_iter().map(|(kind, _)| kind).find(|kind| kind.name() == name)
    }
}

/// Rounds in a seeded order in which every kind comes by its weight, and each at least once where there is room.
pub fn plan(seed: u64, rounds: usize, only: &[Kind]) -> Vec<Kind> {
    let mut deck: Vec<Kind> = Vec::new();
    for turn in 0..4 {
        let fits =
            |(kind, weight): &(Kind, usize)| (only.is_empty() || only.contains(kind)) && turn < *weight;
        deck.extend(Kind::WEIGHTS.iter().filter(|entry| fits(entry)).map(|(kind, _)| *kind));
    }
    assert!(!deck.is_empty(), "no kind is left to choose from");
    let mut chosen: Vec<Kind> = deck.iter().copied().cycle().take(rounds).collect();
    let mut random = Random::for_part(seed, "plan");
    for index in (1..chosen.len()).rev() {
        chosen.swap(index, random.below(index + 1));
    }
    chosen
}

#[test]
fn every_kind_has_a_name_of_its_own_and_comes_in_a_plan() {
    for (kind, weight) in Kind::WEIGHTS {
        assert_eq!(Kind::named(kind.name()), Some(kind));
        assert!(plan(1, Kind::WEIGHTS.len(), &[]).contains(&kind), "{kind:?}");
        assert!((1..=4).contains(&weight), "the deck is dealt in four turns");
        assert_eq!(plan(7, 3, &[kind]), [kind; 3]);
    }
    assert_eq!(plan(3, 50, &[]), plan(3, 50, &[]));
    assert_ne!(plan(3, 50, &[]), plan(4, 50, &[]));
}

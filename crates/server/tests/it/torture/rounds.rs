//! One round of each kind of fault over the real server, under load from every way in.

use std::path::Path;
use std::time::Duration;

use simulator::client::Reconnect;
use simulator::random::Random;

use super::check::{Verdict, judge};
use super::plan::Kind;
use super::site::{Lines, Loads, Shape, Site, Start, acknowledges, shown};
use crate::process::Server;

/// A server lives at least so long after its first acknowledgements of the round, and up to three times as long.
const LIFE: Duration = Duration::from_millis(250);
/// Longest wait until devices are heard again after a fault that the server survives.
const RECOVERY_LIMIT: Duration = Duration::from_secs(12);

/// What came of a round.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What must not be; empty when the round passed.
    pub faults: Vec<String>,
    /// How the server's processes ended.
    pub ends: Vec<String>,
    /// Readings acknowledged in this round.
    pub acked: usize,
    /// What was judged, in kinds that look at more than one state: images, flips.
    pub states: usize,
    pub verdict: Verdict,
    /// What else is worth a word.
    pub note: String,
}

/// A round under way.
pub struct Round<'a> {
    pub site: &'a mut Site,
    pub random: Random,
    pub outcome: Outcome,
}

/// A server with its devices.
pub struct Live {
    pub server: Server,
    pub lines: Lines,
    pub loads: Loads,
}

impl Round<'_> {
    /// Does what the kind says, then judges everything the site ever acknowledged.
    pub fn run(mut self, kind: Kind) -> Outcome {
        let before = self.site.acknowledged().len();
        match kind {
            Kind::Kill => self.kill(),
            Kind::Terminate => self.terminate(),
            Kind::DiskFull => self.disk_full(),
            Kind::SyncError => self.injected("fsync,fdatasync", super::system::SYNCS, "EIO"),
            Kind::WriteError => {
                let error = if self.random.below(3) == 0 { "ENOSPC" } else { "EIO" };
                self.injected("pwrite64,write", super::system::WRITES, error);
            }
            Kind::Cut => self.cut(),
            Kind::HalfOpen => self.half_open(),
            Kind::Repeat => self.repeat(),
            Kind::Clock => self.clock(),
            Kind::Backup => self.backup(),
            Kind::Memory => self.memory(),
            Kind::PowerCut => self.power_cut(),
            Kind::BitFlip => self.bit_flip(),
        }
        let acked = self.site.acknowledged();
        self.outcome.acked = acked.len() - before;
        match judge(self.site, &self.site.place.data(), &acked) {
            Ok(verdict) => {
                self.outcome.faults.extend(verdict.faults());
                self.outcome.verdict = verdict;
            }
            Err(error) => self.fault(error),
        }
        if kind == Kind::Terminate && self.outcome.faults.is_empty() {
            match super::served::compare(self.site) {
                Ok(compared) => self.outcome.note = format!("{compared} readings told over FHIR compared"),
                Err(error) => self.fault(error),
            }
        }
        self.outcome
    }

    pub fn fault(&mut self, what: impl Into<String>) {
        self.outcome.faults.push(what.into());
    }

    pub fn life(&mut self) -> Duration {
        LIFE.mul_f64(self.random.between(1.0, 3.0))
    }

    /// Every fourth round folds while it runs; the others keep the journal, and with it the order of commits.
    pub fn start(&mut self) -> Start {
        let fold_interval_s = if self.random.below(4) == 0 { 1 } else { 3_600 };
        Start { fold_interval_s, ..self.site.start() }
    }

    /// Serves and sends until something was acknowledged in every way; `None` (with a fault noted) where it was not.
    pub fn live(&mut self, start: &Start, shape: Shape) -> Option<Live> {
        match self.site.serve(start) {
            Ok(server) => self.loaded(server, shape),
            Err(status) => {
                let log = self.log_tail();
                self.fault(format!("the server did not start ({}): {log}", shown(status)));
                None
            }
        }
    }

    fn loaded(&mut self, server: Server, shape: Shape) -> Option<Live> {
        let lines = Lines::to(&server);
        let beyond = self.site.ledger_lengths();
        let loads = self.site.load(&lines, shape);
        let mut live = Live { server, lines, loads };
        if acknowledges(self.site, &mut live.server, &beyond, None) {
            return Some(live);
        }
        self.fault(format!("nothing was acknowledged in some way in; log: {}", live.server.log()));
        live.server.kill();
        live.loads.end();
        None
    }

    /// Whether every way in is heard again.
    pub fn recovers(&mut self, live: &mut Live, after: &str) -> bool {
        let beyond = self.site.ledger_lengths();
        let recovered = acknowledges(self.site, &mut live.server, &beyond, Some(RECOVERY_LIMIT));
        if !recovered {
            let lengths = self.site.ledger_lengths();
            let groups = self.site.groups.iter().zip(lengths.iter().zip(&beyond));
            let stuck: Vec<&str> =
                groups.filter(|(_, (now, then))| now <= then).map(|(g, _)| g.name).collect();
            self.fault(format!(
                "{} not heard within {} s after {after}",
                stuck.join(", "),
                RECOVERY_LIMIT.as_secs()
            ));
        }
        recovered
    }

    /// The end of a round that the server must survive: stopped, or killed, by chance.
    pub fn finish(&mut self, live: Live) {
        if self.random.below(2) == 0 {
            self.stop(live);
        } else {
            live.server.kill();
            self.outcome.ends.push("signal 9".to_owned());
            live.loads.end();
        }
    }

    fn stop(&mut self, live: Live) {
        let log = live.server.log();
        let (status, _) = live.server.stop();
        self.outcome.ends.push(shown(status));
        if !status.success() {
            self.fault(format!("a stop ended with {}; log: {log}", shown(status)));
        }
        live.loads.end();
    }

    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.site.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(4).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// kill -9, and again, while devices come back and send again what was not acknowledged.
    fn kill(&mut self) {
        let start = self.start();
        let Some(mut live) = self.live(&start, Shape::PATIENT) else { return };
        for _ in 0..self.random.below(2) {
            // The moment of death, not a wait for something to happen.
            std::thread::sleep(self.life());
            live.server.kill();
            self.outcome.ends.push("signal 9".to_owned());
            let again = self.start();
            match self.site.serve(&again) {
                Ok(server) => {
                    live.lines.retarget(&server);
                    live.server = server;
                }
                Err(status) => {
                    live.loads.end();
                    return self.fault(format!(
                        "no start after kill -9 ({}): {}",
                        shown(status),
                        self.log_tail()
                    ));
                }
            }
            if !self.recovers(&mut live, "kill -9 and a start") {
                break;
            }
        }
        std::thread::sleep(self.life());
        live.server.kill();
        self.outcome.ends.push("signal 9".to_owned());
        live.loads.end();
    }

    fn terminate(&mut self) {
        let start = self.start();
        let Some(live) = self.live(&start, Shape { reconnect: Reconnect::Never, ..Shape::PATIENT }) else {
            return;
        };
        std::thread::sleep(self.life());
        self.stop(live);
    }

    /// Connections break again and again; devices come back at once.
    fn cut(&mut self) {
        let start = self.start();
        let mark_resent = self.random.below(2) == 0;
        let Some(mut live) = self.live(&start, Shape { mark_resent, ..Shape::PATIENT }) else { return };
        let mut cut = 0;
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(20 + self.random.below(100) as u64));
            let (random, lines) = (&mut self.random, &live.lines);
            cut += lines.mqtt.cut(|_| random.below(2) == 0) + lines.https.cut(|_| random.below(2) == 0);
        }
        self.outcome.note = format!("{cut} connections cut");
        self.recovers(&mut live, "cuts");
        self.finish(live);
    }

    /// Devices lose their connection, and the server does not hear of it: the next connection must take over.
    fn half_open(&mut self) {
        let start = self.start();
        let Some(mut live) = self.live(&start, Shape::PATIENT) else { return };
        let mut stranded = 0;
        for _ in 0..2 {
            std::thread::sleep(self.life() / 2);
            stranded += live.lines.mqtt.strand(|_| true) + live.lines.https.strand(|_| true);
            if !self.recovers(&mut live, "sockets that the server still holds for open") {
                break;
            }
        }
        self.outcome.note = format!("{stranded} sockets left half open");
        self.finish(live);
    }

    /// Messages twice, marked as repeats or not, with times in disorder, and some cuts.
    fn repeat(&mut self) {
        let start = self.start();
        let mark_resent = self.random.below(2) == 0;
        let shape = Shape { mark_resent, repeat_every: 2, disorder: 24, ..Shape::PATIENT };
        let Some(mut live) = self.live(&start, shape) else { return };
        for _ in 0..3 {
            std::thread::sleep(self.life() / 2);
            let random = &mut self.random;
            live.lines.mqtt.cut(|_| random.below(3) == 0);
        }
        self.recovers(&mut live, "cuts among repeats");
        self.finish(live);
    }

    /// A backup of the running server holds everything that was acknowledged before it began, and restores.
    fn backup(&mut self) {
        let start = self.start();
        let Some(mut live) = self.live(&start, Shape::PATIENT) else { return };
        std::thread::sleep(self.life());
        let before = self.site.acknowledged();
        let path = |name: &str| self.site.place.path(name).to_str().unwrap().to_owned();
        let (backup, restored) = (path("backup"), path("restored"));
        let arguments = self.site.place.arguments();
        let mut asked = vec!["backup"];
        asked.extend(arguments.iter().map(String::as_str));
        asked.push(&backup);
        let made = self.site.run(&asked);
        if !made.status.success() {
            self.fault(format!("the backup failed: {}", String::from_utf8_lossy(&made.stderr)));
        }
        self.recovers(&mut live, "a backup");
        self.finish(live);
        let back = self.site.run(&["restore", &backup, &restored, "--key-file", &arguments[3]]);
        if back.status.success() {
            match judge(self.site, Path::new(&restored), &before) {
                Ok(verdict) => {
                    let faults = verdict.faults();
                    self.outcome.faults.extend(faults.into_iter().map(|fault| format!("restored: {fault}")));
                    self.outcome.note = format!("{} readings acknowledged before it restored", verdict.acked);
                }
                Err(error) => self.fault(format!("restored: {error}")),
            }
        } else {
            self.fault(format!("restoring failed: {}", String::from_utf8_lossy(&back.stderr)));
        }
        for directory in [backup, restored] {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

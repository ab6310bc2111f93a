//! One round of each kind of fault over the real server, under load from every way in.

use std::path::Path;
use std::time::Duration;

use simulator::client::Reconnect;
use simulator::random::Random;

use super::check::{Verdict, judge};
use super::plan::Kind;
use super::site::{Lines, Loads, Shape, Site, SmallDisk, Start, acknowledges, shown, system, wait_for};
use crate::process::{Server, copy};

/// A server lives at least so long after its first acknowledgements of the round, and up to three times as long.
const LIFE: Duration = Duration::from_millis(250);
/// Longest wait until devices are heard again after a fault that the server survives.
const RECOVERY_LIMIT: Duration = Duration::from_secs(12);
/// Longest wait for a fault that comes with the next writes to show.
const FAULT_LIMIT: Duration = Duration::from_secs(8);
/// The exit status after stable storage failed.
const STORAGE_FAILED: i32 = 74;
/// Syncs and writes among which one fails: a start makes some dozens, a second under load some hundreds.
const SYNCS: usize = 160;
const WRITES: usize = 900;

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
            Kind::SyncError => self.injected("fsync,fdatasync", SYNCS, "EIO"),
            Kind::WriteError => {
                let error = if self.random.below(3) == 0 { "ENOSPC" } else { "EIO" };
                self.injected("pwrite64,write", WRITES, error);
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
    fn recovers(&mut self, live: &mut Live, after: &str) -> bool {
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

    fn log_tail(&self) -> String {
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

    /// Room runs out under load; what was refused is taken when there is room again, without a restart.
    fn disk_full(&mut self) {
        let data = self.site.place.data();
        let used: u64 = system("du", &["-sb", data.to_str().unwrap()])
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap();
        let disk = match SmallDisk::mount(&self.site.place.path("disk"), 2 * used + (24 << 20)) {
            Ok(disk) => disk,
            Err(error) => return self.fault(format!("no small disk: {error}")),
        };
        copy(&data, &disk.path);
        let start = Start { data: disk.path.join("data"), ..self.start() };
        if let Some(mut live) = self.live(&start, Shape::PATIENT) {
            let filler = disk.path.join("filler");
            // Everything but some hundred kilobytes, so that it ends amid commits.
            fill(&disk.path, &filler, (64 + self.random.below(512) as u64) << 10);
            if self.stalls(&mut live) {
                std::fs::remove_file(&filler).unwrap();
                if live.server.ended().is_none() {
                    self.recovers(&mut live, "there was room again");
                }
            } else {
                self.fault(format!("a full disk stopped nothing within {} s", FAULT_LIMIT.as_secs()));
            }
            match live.server.ended() {
                None => self.finish(live),
                Some(status) => {
                    self.ended_by_storage(status);
                    live.loads.end();
                }
            }
        }
        std::fs::remove_dir_all(&data).unwrap();
        copy(&start.data, &data);
    }

    /// Whether acknowledging comes to a halt.
    fn stalls(&mut self, live: &mut Live) -> bool {
        let mut last = self.site.ledger_lengths();
        let site = &*self.site;
        wait_for(FAULT_LIMIT, || {
            std::thread::sleep(Duration::from_millis(400));
            let now = site.ledger_lengths();
            let halted = now == last || live.server.ended().is_some();
            last = now;
            halted
        })
    }

    fn ended_by_storage(&mut self, status: std::process::ExitStatus) {
        self.outcome.ends.push(shown(status));
        let log = std::fs::read_to_string(self.site.log()).unwrap_or_default();
        if status.code() != Some(STORAGE_FAILED) || !log.contains("auscult doctor") {
            self.fault(format!(
                "storage failed and it ended with {}, saying: {}",
                shown(status),
                self.log_tail()
            ));
        }
    }

    /// One call of the system that stores something fails, somewhere from the start on.
    fn injected(&mut self, calls: &str, among: usize, error: &str) {
        let trace = self.site.place.path("trace.txt");
        let nth = 1 + self.random.below(among);
        let inject = format!("inject={calls}:error={error}:when={nth}");
        let mut start = self.start();
        // Only files of the store: a sentence to the log or a packet is not what is to fail.
        let store: Vec<String> =
            ["data.db", "data.db-wal", "keystore.db", "keystore.db-wal", "keystore.db-journal"]
                .iter()
                .flat_map(|name| ["-P".to_owned(), start.data.join(name).to_str().unwrap().to_owned()])
                .collect();
        let arguments =
            ["-D", "-f", "--seccomp-bpf", "-qq", "-e", &format!("trace={calls}"), "-e", &inject, "-o"];
        start.wrapper = std::iter::once("strace".into())
            .chain(arguments.iter().map(Into::into))
            .chain([trace.clone().into_os_string()])
            .chain(store.iter().map(Into::into))
            .collect();
        let _ = std::fs::remove_file(&trace);
        self.outcome.note = format!("{error} at the {nth}th of {calls}");
        let injected =
            |trace: &Path| std::fs::read_to_string(trace).is_ok_and(|text| text.contains("(INJECTED)"));
        match self.site.serve(&start) {
            Err(status) => {
                self.outcome.ends.push(format!("{} at start", shown(status)));
                if status.code() != Some(1) && status.code() != Some(STORAGE_FAILED) {
                    self.fault(format!(
                        "a failure at start ended with {}: {}",
                        shown(status),
                        self.log_tail()
                    ));
                }
            }
            Ok(mut server) => {
                let lines = Lines::to(&server);
                let beyond = self.site.ledger_lengths();
                let loads = self.site.load(&lines, Shape::PATIENT);
                wait_for(FAULT_LIMIT, || server.ended().is_some() || injected(&trace));
                // A failure of storage ends the process with the next commit at the latest; a full disk need not.
                let ends = wait_for(Duration::from_secs(2), || server.ended().is_some());
                let mut live = Live { server, lines, loads };
                match live.server.ended() {
                    Some(status) => {
                        self.ended_by_storage(status);
                        live.loads.end();
                    }
                    None if !injected(&trace) => {
                        self.outcome.note.push_str(", not reached");
                        acknowledges(self.site, &mut live.server, &beyond, None);
                        self.finish(live);
                    }
                    None => {
                        if error == "EIO" && !ends {
                            self.fault("it went on after stable storage had failed");
                        }
                        self.recovers(&mut live, "a write that found no room");
                        self.finish(live);
                    }
                }
            }
        }
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

    /// A day forward or back and right again, while devices send.
    fn clock(&mut self) {
        let Some(library) = FAKETIME.iter().find(|path| Path::new(path).exists()) else {
            return self.fault("libfaketime is not installed (Debian: faketime)");
        };
        let steps = self.site.place.path("clock.txt");
        let step = |to: &str| {
            // At once, so that no half of it is read.
            let next = steps.with_extension("next");
            std::fs::write(&next, format!("{to}\n")).unwrap();
            std::fs::rename(&next, &steps).unwrap();
        };
        step("+0");
        let mut start = self.start();
        start.environment = vec![
            ("LD_PRELOAD".to_owned(), (*library).to_owned()),
            ("FAKETIME_TIMESTAMP_FILE".to_owned(), steps.to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE".to_owned(), "1".to_owned()),
            // Timers follow the monotonic clock, which no administrator sets.
            ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
            ("DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
        ];
        self.site.clock_is_straight = false;
        let Some(mut live) = self.live(&start, Shape::PATIENT) else { return };
        let order = if self.random.below(2) == 0 { ["+1d", "-1d"] } else { ["-1d", "+1d"] };
        for to in order {
            step(to);
            std::thread::sleep(self.life());
        }
        step("+0");
        self.outcome.note = format!("clock {}, {}, right", order[0], order[1]);
        self.recovers(&mut live, "the clock was right again");
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

    /// The system gives no more memory than the server has, and a little.
    fn memory(&mut self) {
        let start = self.start();
        let Some(mut live) = self.live(&start, Shape::PATIENT) else { return };
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", live.server.id())).unwrap_or_default();
        let data_kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
            .unwrap_or(64 << 10);
        let limit = (data_kib + self.random.below(512) as u64) << 10;
        let (id, limit) = (live.server.id().to_string(), format!("--data={limit}"));
        if let Err(error) = system("prlimit", &["--pid", &id, &limit])
            && live.server.ended().is_none()
        {
            self.fault(error);
        }
        // New connections need memory; those that have theirs may go on.
        for _ in 0..6 {
            std::thread::sleep(self.life() / 4);
            live.lines.mqtt.cut(|_| true);
            live.lines.https.cut(|_| true);
            if live.server.ended().is_some() {
                break;
            }
        }
        match live.server.ended() {
            Some(status) => {
                self.outcome.ends.push(shown(status));
                live.loads.end();
            }
            None => {
                live.server.kill();
                self.outcome.ends.push("went on; signal 9".to_owned());
                live.loads.end();
            }
        }
    }
}

/// Where Debian and others keep the library that shifts clocks.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Fills a disk but for so many bytes, while others write to it.
fn fill(disk: &Path, filler: &Path, but_bytes: u64) {
    let file = std::fs::File::create(filler).unwrap();
    let filled = wait_for(FAULT_LIMIT, || {
        let found = rustix::fs::statvfs(disk).unwrap();
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let length = free.saturating_sub(but_bytes).max(1);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).is_ok()
    });
    assert!(filled, "the disk cannot be filled");
}

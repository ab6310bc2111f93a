//! Faults that the system makes: a full disk, failing writes and syncs, a clock that jumps, no memory.

use std::path::Path;
use std::time::Duration;

use super::rounds::{Live, Round};
use super::site::{Lines, Shape, SmallDisk, Start, acknowledges, shown, system, wait_for};
use crate::process::copy;

/// Longest wait for a fault that comes with the next writes to show.
const FAULT_LIMIT: Duration = Duration::from_secs(8);
/// The exit status after stable storage failed.
const STORAGE_FAILED: i32 = 74;
/// Syncs and writes among which one fails: a start makes some dozens, a second under load some hundreds.
pub const SYNCS: usize = 160;
pub const WRITES: usize = 900;
/// Where Debian and others keep the library that shifts clocks.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

impl Round<'_> {
    /// Room runs out under load; what was refused is taken when there is room again, without a restart.
    pub fn disk_full(&mut self) {
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
    pub fn injected(&mut self, calls: &str, among: usize, error: &str) {
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

    /// A day forward or back and right again, while devices send.
    pub fn clock(&mut self) {
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

    /// The system gives no more memory than the server has, and a little.
    pub fn memory(&mut self) {
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

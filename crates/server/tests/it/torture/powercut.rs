//! The power fails: the disk keeps what was synced, and of the rest what chance wants.
//!
//! The calls of the system that write or sync the store's files are recorded from outside, with their bytes. From the
//! record every state is made that a disk may hold when the power goes before one of the calls: what was synced is
//! there, what was not is there in part or not at all. Each state must open and hold what had been acknowledged by then.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use clinical_model::Timestamp;
use simulator::load::LedgerLine;
use simulator::random::Random;

use super::check::judge;
use super::rounds::Round;
use super::site::{Shape, Site, Start};

/// Calls that are recorded.
const CALLS: &str = "trace=openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink,rename";
/// States that are made in one round where not all are asked for.
const STATES_A_ROUND: usize = 16;
/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;
/// The files of the store.
pub const STORE_FILES: [&str; 6] =
    ["data.db", "data.db-wal", "data.db-journal", "keystore.db", "keystore.db-wal", "keystore.db-journal"];

/// One recorded call.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Write {
        file: String,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        length: u64,
    },
    /// What was written to the file before the call `since` began is on the disk.
    Sync {
        file: String,
        since: usize,
    },
    Remove {
        file: String,
    },
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    at: Timestamp,
    call: Call,
}

impl Round<'_> {
    /// Records a server under load, then judges states that a power failure leaves.
    pub fn power_cut(&mut self) {
        let base = self.site.branch();
        let trace = self.site.place.path("power.txt");
        let fold_interval_s = if self.random.below(2) == 0 { 1 } else { 3_600 };
        let mut start = Start { fold_interval_s, ..self.site.start() };
        let paths = STORE_FILES
            .iter()
            .flat_map(|name| ["-P".to_owned(), start.data.join(name).to_str().unwrap().to_owned()]);
        let options =
            ["-D", "-f", "--seccomp-bpf", "-qq", "-ttt", "-y", "-xx", "-s", "1048576", "-e", CALLS, "-o"];
        start.wrapper = std::iter::once("strace")
            .chain(options)
            .map(Into::into)
            .chain([trace.clone().into_os_string()])
            .chain(paths.map(Into::into))
            .collect();
        self.recorded(&start);
        let text = fs::read_to_string(&trace).unwrap_or_default();
        fs::remove_file(&trace).unwrap();
        let events = read_trace(&text);
        if events.iter().filter(|event| matches!(event.call, Call::Write { .. })).count() < 10 {
            return self.fault("the record of writes is empty: strace did not see the server");
        }
        let all = std::env::var_os("AUSCULT_TORTURE_EVERY_STATE").is_some();
        let acked = self.site.acknowledged();
        let chosen: Vec<usize> = if all || events.len() <= STATES_A_ROUND {
            (1..=events.len()).collect()
        } else {
            (0..STATES_A_ROUND).map(|_| 1 + self.random.below(events.len())).collect()
        };
        self.outcome.note = format!("{} of {} states", chosen.len(), events.len());
        for cut in chosen {
            let mut random = Random::for_part(cut as u64, "state");
            self.outcome.states += 1;
            let faults = judge_state(self.site, &base, &events, cut, &acked, &mut random);
            if !faults.is_empty() {
                self.fault(format!("power cut before call {cut} of {}: {}", events.len(), faults.join(", ")));
                return;
            }
        }
    }

    fn recorded(&mut self, start: &Start) {
        let Some(live) = self.live(start, Shape::PATIENT) else { return };
        std::thread::sleep(self.life());
        self.finish(live);
    }
}

/// Makes the state of the disk before call number `cut` and judges it by what had been acknowledged before that call.
fn judge_state(
    site: &Site,
    base: &Site,
    events: &[Event],
    cut: usize,
    acked: &[LedgerLine],
    random: &mut Random,
) -> Vec<String> {
    // A call that follows has its time; behind the last one, everything that was acknowledged counts.
    let moment = events.get(cut).map_or(Timestamp::MAX, |event| event.at);
    let by_then: Vec<LedgerLine> = acked.iter().filter(|line| line.acked_at < moment).copied().collect();
    let directory = tempfile::tempdir_in(memory_disk()).unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    for name in STORE_FILES {
        let from = base.place.data().join(name);
        if from.exists() {
            fs::copy(from, data.join(name)).unwrap();
        }
    }
    make_state(&data, &events[..cut.min(events.len())], random);
    match judge(site, &data, &by_then) {
        Ok(verdict) => verdict.faults(),
        Err(error) => vec![error],
    }
}

/// Images are many and short-lived: kept in memory where there is such a place.
pub fn memory_disk() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() }
}

/// Lays what a disk may hold after `events` over the files in `data`.
fn make_state(data: &Path, events: &[Event], random: &mut Random) {
    let mut synced: HashMap<&str, usize> = HashMap::new();
    for event in events {
        if let Call::Sync { file, since } = &event.call {
            let before = synced.entry(file).or_default();
            *before = (*before).max(*since);
        }
    }
    // Nothing, everything, or a part of what was not synced.
    let keep_one_in = [0, 1, 2, 4][random.below(4)];
    for (number, event) in events.iter().enumerate() {
        match &event.call {
            Call::Write { file, offset, bytes } => {
                let is_synced = synced.get(file.as_str()).is_some_and(|before| number < *before);
                let is_kept = is_synced || (keep_one_in > 0 && random.below(keep_one_in) == 0);
                // What was not synced may be there in part, by sectors.
                let is_torn = !is_synced && random.below(4) == 0;
                let length = if is_torn {
                    random.below(bytes.len() / SECTOR_BYTES + 1) * SECTOR_BYTES
                } else {
                    bytes.len()
                };
                if is_kept && length > 0 {
                    let open = File::options().create(true).truncate(false).write(true).open(data.join(file));
                    open.unwrap().write_all_at(&bytes[..length], *offset).unwrap();
                }
            }
            // A file system that orders its own structures: these hold at once.
            Call::Truncate { file, length } => {
                let open = File::options().create(true).truncate(false).write(true).open(data.join(file));
                open.unwrap().set_len(*length).unwrap();
            }
            Call::Remove { file } => drop(fs::remove_file(data.join(file))),
            Call::Sync { .. } => {}
        }
    }
}

/// Reads what strace wrote with `-f -ttt -y -xx`. A call that others interrupt stands in two lines; it counts from the
/// second, and a sync for what was written before its first.
fn read_trace(text: &str) -> Vec<Event> {
    let mut begun: HashMap<&str, (String, usize)> = HashMap::new();
    let mut events = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ').filter(|word| !word.is_empty());
        let (Some(thread), Some(rest)) = (words.next(), line.split_once(' ')) else { continue };
        let Some((time, call)) = rest.1.trim_start().split_once(' ') else { continue };
        let Some(at) = micros(time) else { continue };
        let (whole, since) = if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (first.to_owned(), events.len()));
            continue;
        } else if let Some((_, second)) =
            call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"))
        {
            let Some((first, since)) = begun.remove(thread) else { continue };
            (format!("{first}{second}"), since)
        } else {
            (call.to_owned(), events.len())
        };
        if let Some(call) = read_call(&whole, since) {
            events.push(Event { at, call });
        }
    }
    events
}

fn micros(time: &str) -> Option<Timestamp> {
    let (seconds, micros) = time.split_once('.')?;
    Some(Timestamp::from_micros(seconds.parse::<i64>().ok()? * 1_000_000 + micros.parse::<i64>().ok()?))
}

/// One whole call that succeeded.
fn read_call(text: &str, since: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    if result.trim_start().starts_with('-') {
        return None;
    }
    let descriptor = || Some(file_name(arguments.split_once('<')?.1.split_once('>')?.0));
    match name {
        "pwrite64" => {
            let mut fields = arguments.rsplitn(3, ", ");
            let offset = fields.next()?.parse().ok()?;
            let _length = fields.next()?;
            let bytes = unescape(fields.next()?.split_once('"')?.1.strip_suffix('"')?)?;
            Some(Call::Write { file: descriptor()?, offset, bytes })
        }
        "write" => {
            panic!("a file of the store is written without a position: {}", &text[..text.len().min(80)])
        }
        "ftruncate" => {
            let length = arguments.rsplit_once(", ")?.1.parse().ok()?;
            Some(Call::Truncate { file: descriptor()?, length })
        }
        "fsync" | "fdatasync" => Some(Call::Sync { file: descriptor()?, since }),
        "unlink" => Some(Call::Remove { file: path_name(arguments)? }),
        "rename" => panic!("a file of the store is renamed, which the record does not know"),
        "openat" if arguments.contains("O_TRUNC") => {
            Some(Call::Truncate { file: path_name(arguments)?, length: 0 })
        }
        _ => None,
    }
}

fn file_name(path: &str) -> String {
    // Paths of descriptors are escaped as everything is.
    let plain =
        unescape(path).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| path.to_owned());
    plain.rsplit('/').next().unwrap_or_default().to_owned()
}

fn path_name(arguments: &str) -> Option<String> {
    Some(file_name(arguments.split_once('"')?.1.split_once('"')?.0))
}

/// `\x41\x42` to bytes.
fn unescape(text: &str) -> Option<Vec<u8>> {
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
}

#[test]
fn a_record_of_calls_is_read() {
    let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let (wal, db) = (hex("/d/data.db-wal"), hex("/d/data.db"));
    let text = format!(
        "7 1.000001 pwrite64(12<{wal}>, \"\\x41\\x42\", 2, 4096) = 2\n\
         7 1.000002 fdatasync(12<{wal}> <unfinished ...>\n\
         8 1.000003 pwrite64(12<{wal}>, \"\\x43\", 1, 0) = 1\n\
         7 1.000004 <... fdatasync resumed>)      = 0\n\
         7 1.000005 ftruncate(9<{db}>, 10)        = 0\n\
         7 1.000006 fsync(9<{db}>)                = -1 EIO (Input/output error)\n\
         7 1.000007 unlink(\"{wal}\")             = 0\n"
    );
    let event = |micros: i64, call| Event { at: Timestamp::from_micros(1_000_000 + micros), call };
    let (wal, db) = ("data.db-wal".to_owned(), "data.db".to_owned());
    let expected = [
        event(1, Call::Write { file: wal.clone(), offset: 4096, bytes: b"AB".to_vec() }),
        event(3, Call::Write { file: wal.clone(), offset: 0, bytes: b"C".to_vec() }),
        event(4, Call::Sync { file: wal.clone(), since: 1 }),
        event(5, Call::Truncate { file: db, length: 10 }),
        event(7, Call::Remove { file: wal }),
    ];
    assert_eq!(read_trace(&text), expected);
}

#[test]
fn what_was_not_synced_may_be_gone_and_what_was_is_there() {
    let wal = || "data.db-wal".to_owned();
    let write = |offset: u64, byte| Event {
        at: Timestamp::from_micros(0),
        call: Call::Write { file: wal(), offset: offset * 1_024, bytes: vec![byte; 1_024] },
    };
    let sync = Event { at: Timestamp::from_micros(0), call: Call::Sync { file: wal(), since: 1 } };
    let events = [write(0, 7), write(1, 8), sync];
    let mut seen = std::collections::HashSet::new();
    for seed in 0..400 {
        let directory = tempfile::tempdir().unwrap();
        make_state(directory.path(), &events, &mut Random::seeded(seed));
        seen.insert(fs::read(directory.path().join(wal())).unwrap());
    }
    let state = |eights: usize| [vec![7; 1_024], vec![8; eights]].concat();
    assert_eq!(seen, std::collections::HashSet::from([state(0), state(512), state(1_024)]));
}

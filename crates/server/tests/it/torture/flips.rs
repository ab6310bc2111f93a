//! A bit flips on the disk: it is found and named, and nothing wrong is ever served as truth.

use std::fs;
use std::path::Path;
use std::time::Duration;

use simulator::random::Random;

use super::check::{Chart, chart};
use super::powercut::memory_disk;
use super::rounds::Round;
use super::site::{Shape, Site, Start};
use crate::devices;
use crate::process::copy;

/// Flips of one round, spread over the files.
const FLIPS_A_ROUND: usize = 18;
/// A fold every second has run once by then.
const FOLDED_AFTER: Duration = Duration::from_millis(1_100);
/// How often a file of the store is chosen where a file of the authority is chosen once.
const STORE_WEIGHT: usize = 4;

/// What a flip came to.
enum Found {
    /// A tool or the start said so.
    Named,
    /// It lies where nothing is kept, or what it changes means nothing: everything is as it was.
    Harmless,
}

impl Round<'_> {
    /// Sends, ends the server, and flips bits in copies of what it left.
    pub fn bit_flip(&mut self) {
        // Long enough for one fold: blocks, journal and log then all hold something.
        let start = Start { fold_interval_s: 1, ..self.start() };
        let Some(live) = self.live(&start, Shape::PATIENT) else { return };
        std::thread::sleep(FOLDED_AFTER + self.life());
        // A killed server leaves its log, a stopped one has moved it into the file.
        self.finish(live);
        let truth_site = self.site.branch();
        let truth = devices::try_open(&truth_site.place, &truth_site.place.data())
            .and_then(|store| chart(&store).map_err(|error| error.to_string()));
        let truth = match truth {
            Ok(truth) => truth,
            Err(error) => return self.fault(error),
        };
        let backup = truth_site.place.path("backup");
        let arguments = truth_site.place.arguments();
        let mut asked = vec!["backup"];
        asked.extend(arguments.iter().map(String::as_str));
        asked.push(backup.to_str().unwrap());
        if !truth_site.run(&asked).status.success() {
            return self.fault("no backup to flip bits in");
        }
        let mut random = self.random.clone();
        let (mut named, mut harmless) = (0, 0);
        for number in 0..FLIPS_A_ROUND {
            let outcome = match number % 3 {
                0 => flip_in_backup(&truth_site, &backup, &truth, &mut random),
                _ => flip_in_data(self.site, &truth, &mut random),
            };
            self.outcome.states += 1;
            match outcome {
                Ok(Found::Named) => named += 1,
                Ok(Found::Harmless) => harmless += 1,
                Err(fault) => self.fault(fault),
            }
        }
        self.outcome.note = format!("{named} flips named, {harmless} harmless");
    }
}

/// Flips a bit of a file that is not empty; which file, which bit.
fn flip(directory: &Path, random: &mut Random) -> String {
    let mut files: Vec<_> = ["", "pki"]
        .iter()
        .flat_map(|below| fs::read_dir(directory.join(below)).into_iter().flatten().flatten())
        // The index of the log is made anew at every start; the lock is empty.
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with("-shm"))
        .filter(|entry| entry.metadata().is_ok_and(|file| file.is_file() && file.len() > 0))
        .flat_map(|entry| {
            let weight = if entry.file_name().to_string_lossy().contains(".db") { STORE_WEIGHT } else { 1 };
            std::iter::repeat_n(entry.path(), weight)
        })
        .collect();
    files.sort();
    let path = random.pick(&files);
    let mut bytes = fs::read(path).unwrap();
    let (place, bit) = (random.below(bytes.len()), random.below(8));
    bytes[place] ^= 1 << bit;
    // A key may be read-only, even to its owner.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    set_private(path);
    format!("{} byte {place} bit {bit}", path.strip_prefix(directory).unwrap_or(path).display())
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn flip_in_data(site: &Site, truth: &Chart, random: &mut Random) -> Result<Found, String> {
    let directory = tempfile::tempdir_in(memory_disk()).unwrap();
    copy(&site.place.data(), directory.path());
    let data = directory.path().join("data");
    let what = flip(&data, random);
    let is_pki = what.starts_with("pki");
    let tool = if is_pki { "doctor" } else { "verify" };
    let (data_text, key) = (data.to_str().unwrap(), site.place.key());
    let said = site.run(&[tool, "--data", data_text, "--key-file", key.to_str().unwrap()]);
    let words = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let is_named = match said.status.code() {
        Some(0) => false,
        Some(1) => true,
        other => return Err(format!("{what}: {tool} ended with {other:?}: {words}")),
    };
    if is_named && words.trim().is_empty() {
        return Err(format!("{what}: {tool} failed without a word"));
    }
    if is_pki {
        return if is_named { Ok(Found::Named) } else { still_admits(site, &data, &what) };
    }
    compare(site, &data, truth, is_named, &what)
}

/// Whatever is served must be true; where no damage was named, all of the truth must be there.
fn compare(site: &Site, data: &Path, truth: &Chart, is_named: bool, what: &str) -> Result<Found, String> {
    let opened = devices::try_open(&site.place, data)
        .and_then(|store| chart(&store).map_err(|error| error.to_string()));
    match opened {
        Err(_) if is_named => Ok(Found::Named),
        Err(error) => Err(format!("{what}: not named by verify, and then: {error}")),
        Ok(served) => {
            let wrong = served.iter().filter(|(identity, kept)| truth.get(*identity) != Some(*kept)).count();
            let missing = truth.keys().filter(|identity| !served.contains_key(*identity)).count();
            match (wrong, missing, is_named) {
                (0, _, true) => Ok(Found::Named),
                (0, 0, false) => Ok(Found::Harmless),
                (0, missing, false) => {
                    Err(format!("{what}: {missing} readings are gone and nothing says so"))
                }
                (wrong, ..) => Err(format!("{what}: {wrong} wrong readings are served as truth")),
            }
        }
    }
}

/// A change in the authority's files that no tool names must change nothing: the server starts, or says why not.
fn still_admits(site: &Site, data: &Path, what: &str) -> Result<Found, String> {
    let start = Start { data: data.to_owned(), ..site.start() };
    match site.serve(&start) {
        Err(status) if status.code() == Some(1) => Ok(Found::Named),
        Err(status) => Err(format!("{what}: the start ended with {status}")),
        Ok(server) => {
            let (status, _) = server.stop();
            if status.success() {
                Ok(Found::Harmless)
            } else {
                Err(format!("{what}: a stop ended with {status}"))
            }
        }
    }
}

fn flip_in_backup(site: &Site, backup: &Path, truth: &Chart, random: &mut Random) -> Result<Found, String> {
    let directory = tempfile::tempdir_in(memory_disk()).unwrap();
    copy(backup, directory.path());
    let copied = directory.path().join("backup");
    let what = format!("backup: {}", flip(&copied, random));
    let (key, restored) = (site.place.key(), directory.path().join("restored"));
    let (key, copied) = (key.to_str().unwrap(), copied.to_str().unwrap());
    let verified = site.run(&["verify", "--backup", copied, "--key-file", key]);
    let back = site.run(&["restore", copied, restored.to_str().unwrap(), "--key-file", key]);
    let refused = |status: std::process::ExitStatus| status.code() == Some(1);
    match (refused(verified.status), refused(back.status)) {
        (true, true) => Ok(Found::Named),
        (false, false) => compare(site, &restored, truth, false, &what),
        (verified, _) => Err(format!(
            "{what}: verify {} and restore {}",
            if verified { "refuses it" } else { "takes it" },
            if verified { "takes it" } else { "refuses it" }
        )),
    }
}

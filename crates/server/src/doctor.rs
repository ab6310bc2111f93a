//! `auscult doctor`: looks at a site, running or not, broken or not, and says what to mend.

pub mod health;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use connectors::mqtt::limits::MAX_CONNECTIONS;
use rustix::process::{Resource, getrlimit};
use store::sqlite::SqliteStore;
use store::{OpenError, Store};

use crate::admin_socket::{self, Answer, Request};
use crate::config::{Config, ConfigArguments, DatabaseUrl};
use crate::listening::Addresses;
use crate::pki::{self, PkiDirectory};
use crate::terminal::{self, Progress};
use crate::{kek, keys, opening};

use health::HealthSummary;

/// Less free space than this is a warning: a day of a full ward with waveforms and its backup.
const SPACE_WARN_BYTES: u64 = 10 << 30;
/// Less free space than this is a failure: the store stops taking readings soon.
const SPACE_FAIL_BYTES: u64 = 1 << 30;
/// A certificate with less than this left is a warning.
const EXPIRY_WARN: Duration = Duration::from_secs(30 * 24 * 3_600);
/// A data file larger than this is not read in full unless it is asked for: it would take minutes.
const QUICK_VERIFY_LIMIT_BYTES: u64 = 256 << 20;
/// Files that the process opens besides connections: store, listeners, logs.
const OTHER_FILES: u64 = 256;
/// Before this instant no clock of a running release can be right: 2026-01-01T00:00:00Z, in seconds.
const CLOCK_AT_LEAST_S: u64 = 1_767_225_600;
/// Time in which a server that runs must say how it is: it reads some rows.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The clock may be behind the latest write by so much before it counts as set back.
const CLOCK_BACK_LIMIT: Duration = Duration::from_secs(60);

/// What `auscult doctor` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult doctor --config /etc/auscult/auscult.toml
  auscult doctor --data /var/lib/auscult --key-file /etc/auscult/key --full

Exit status 1 when something has failed. A stopped store is opened as a start would open it.")]
pub struct DoctorArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Read everything that is kept, however long it takes
    #[arg(long)]
    full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Ok,
    Warn,
    Fail,
}

/// One line of the table.
#[derive(Debug)]
struct Check {
    mark: Mark,
    what: &'static str,
    found: String,
    advice: String,
}

fn ok(what: &'static str, found: impl Into<String>) -> Check {
    Check { mark: Mark::Ok, what, found: found.into(), advice: String::new() }
}

fn warn(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { mark: Mark::Warn, what, found: found.into(), advice: advice.into() }
}

fn fail(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { mark: Mark::Fail, what, found: found.into(), advice: advice.into() }
}

/// Examines and prints.
///
/// # Errors
/// When the settings cannot be read: nothing can be examined then.
pub fn run(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let config = Config::assemble(&arguments.config)?;
    let checks = examine(&config, arguments.full);
    terminal::print(&render(&checks));
    let failed = checks.iter().filter(|check| check.mark == Mark::Fail).count();
    let warned = checks.iter().filter(|check| check.mark == Mark::Warn).count();
    let counts = [(checks.len(), "check"), (warned, "warning"), (failed, "failure")];
    let counts = counts.map(|(count, what)| terminal::counted(count as u64, what));
    terminal::println(&counts.join(", "));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(config: &Config, full: bool) -> Vec<Check> {
    let data_dir = &config.site.data_dir;
    let mut checks = vec![clock(data_dir), directory(data_dir)];
    checks.extend(space(data_dir));
    let (kek, key_checks) = key(config);
    checks.extend(key_checks);
    let asked = admin_socket::ask_within(data_dir, &Request::Health, ANSWER_LIMIT);
    let running = !matches!(asked, Ok(None));
    let mut addresses =
        Addresses { web: config.web.listen, mqtt: config.mqtt.listen, devices: config.devices.listen };
    if let Ok(Some(Answer::Health(health))) = &asked {
        addresses = health.addresses().unwrap_or(addresses);
    }
    checks.extend(match asked {
        Ok(None) => store(config, kek, full),
        Ok(Some(Answer::Health(health))) => served(&health, config),
        Ok(Some(_)) => vec![unanswered("it answered something else; it may be another release")],
        Err(error) => vec![unanswered(&format!("{error:#}"))],
    });
    checks.push(health::policies(config));
    checks.extend(certificates(config));
    let ports =
        [("web port", addresses.web), ("MQTT port", addresses.mqtt), ("device port", addresses.devices)];
    checks.extend(ports.map(|(what, address)| port(what, address, running)));
    checks.push(files());
    checks
}

fn render(checks: &[Check]) -> String {
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            let mark = match check.mark {
                Mark::Ok => "ok",
                Mark::Warn => "WARN",
                Mark::Fail => "FAIL",
            };
            vec![mark.to_owned(), check.what.to_owned(), check.found.clone()]
        })
        .collect();
    let table = terminal::table(&rows);
    let mut text = String::new();
    for (line, check) in table.lines().zip(checks) {
        text.push_str(line);
        text.push('\n');
        if !check.advice.is_empty() {
            text.push_str(&format!("      → {}\n", check.advice));
        }
    }
    text
}

fn clock(data_dir: &Path) -> Check {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let shown = pki::timestamp(now).to_string();
    if since.as_secs() < CLOCK_AT_LEAST_S {
        return fail(
            "clock",
            format!("it shows {shown}"),
            "set the clock and keep it by NTP: readings get its time",
        );
    }
    let written = std::fs::metadata(data_dir.join("data.db")).and_then(|file| file.modified());
    match written {
        Ok(written) if written > now + CLOCK_BACK_LIMIT => fail(
            "clock",
            format!("it shows {shown}, but the data were written at {}", pki::timestamp(written)),
            "it was ahead then, or is behind now: set it right, and keep it by NTP",
        ),
        _ => ok("clock", shown),
    }
}

fn directory(data_dir: &Path) -> Check {
    let what = "data directory";
    let shown = data_dir.display();
    let Ok(metadata) = std::fs::metadata(data_dir) else {
        return warn(
            what,
            format!("{shown} does not exist"),
            "it is made at the first start; is the path right?",
        );
    };
    if !metadata.is_dir() {
        return fail(what, format!("{shown} is not a directory"), "set site.data_dir to a directory");
    }
    if let Err(error) = tempfile::tempfile_in(data_dir) {
        return fail(
            what,
            format!("{shown} cannot be written: {error}"),
            "give the directory to the server's user, or run this as that user",
        );
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return warn(
            what,
            format!("{shown} has mode {mode:04o}"),
            format!("others may look into it (all of it is encrypted); run `chmod 0700 {shown}`"),
        );
    }
    ok(what, shown.to_string())
}

fn space(data_dir: &Path) -> Option<Check> {
    let what = "free space";
    let found = rustix::fs::statvfs(data_dir).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let shown = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    let advice =
        "make room or move the data directory; a full disk stops ingest, devices keep what they have";
    Some(match free {
        0..SPACE_FAIL_BYTES => fail(what, shown, advice),
        SPACE_FAIL_BYTES..SPACE_WARN_BYTES => warn(what, shown, advice),
        _ => ok(what, shown),
    })
}

fn key(config: &Config) -> (Option<trust::KekRing>, Vec<Check>) {
    let what = "key";
    let data_dir = &config.site.data_dir;
    let keks = match kek::ring(config) {
        Ok(keks) => keks,
        Err(error) => {
            let advice = "nothing can be opened without the key; put it back from the copy in the safe";
            return (None, vec![fail(what, format!("{error:#}"), advice)]);
        }
    };
    let shown = keks.source().map(|source| source.place()).unwrap_or_default();
    let mut checks = vec![ok(what, format!("{shown}, fingerprint {}", keks.current().fingerprint_text()))];
    if let Some(next) = keks.next() {
        let found = format!("the next key {} waits beside it", next.fingerprint_text());
        checks.push(warn("key's turn", found, "`auscult keys rotate` ends the turn"));
    }
    let shares = keys::path(&config.key).is_ok_and(|path| keys::shares_file_system(&path, data_dir));
    let advice = "whoever takes the disk has both; better another disk, a USB token or systemd's LoadCredentialEncrypted=";
    if shares {
        let mark = if config.key.production { fail } else { warn };
        checks.push(mark("key's home", "key and data lie on the same file system", advice));
    }
    let list = config.key.erasures_file(data_dir);
    let is_kept = list.exists() || list.parent().is_some_and(|parent| tempfile::tempfile_in(parent).is_ok());
    if !is_kept {
        let found = format!("{} cannot be written", list.display());
        checks.push(warn(
            "list of erasures",
            found,
            "a restore needs it; let key.erasures name a file that can",
        ));
    }
    (Some(keks), checks)
}

/// What a server that runs says of its site.
fn served(health: &HealthSummary, config: &Config) -> Vec<Check> {
    let advice = "to read everything while it runs: `auscult verify`";
    let store = Check { advice: advice.into(), ..ok("store", "a server runs and has it open") };
    let mut checks = vec![store];
    checks.extend(health::checks(health, config.key.turn_within_days));
    checks
}

fn unanswered(why: &str) -> Check {
    let found = format!("a server runs and has it open, but does not say how it is: {why}");
    warn("store", found, "run this as the server's user; look into the server's log")
}

fn store(config: &Config, kek: Option<trust::KekRing>, full: bool) -> Vec<Check> {
    let what = "store";
    let data_dir = &config.site.data_dir;
    let Some(kek) = kek else {
        return vec![fail(what, "not looked at, for there is no key", "mend the key first")];
    };
    match config.store.url() {
        Ok(Some(url)) => return database(&url, kek, config, full),
        Ok(None) => {}
        Err(error) => return vec![fail("database", format!("{error:#}"), "set store.database_file right")],
    }
    if !data_dir.join("data.db").exists() && !data_dir.join("keystore.db").exists() {
        return vec![warn(what, "there is none yet", "it is made at the first start")];
    }
    match SqliteStore::open(data_dir, kek, store::sqlite::Options::default()) {
        Ok(store) => {
            let found =
                format!("opens with the key; schema and SQLite fit; last group {}", store.last_group());
            let mut checks = vec![ok(what, found), integrity(&store, data_dir, full)];
            checks.extend(stored(&store, config));
            checks
        }
        Err(error) => vec![not_opened(what, &error)],
    }
}

/// The database in which everything is kept. Other nodes may use it meanwhile.
fn database(url: &DatabaseUrl, kek: trust::KekRing, config: &Config, full: bool) -> Vec<Check> {
    let what = "database";
    let store = match opening::database(url, kek) {
        Ok(store) => store,
        Err(error) => {
            let advice =
                "is the database up, does this machine reach it, and is the key the one of the other nodes?";
            return vec![fail(what, format!("{error:#}"), advice)];
        }
    };
    let opened = format!("{url} opens with the key; last group {}", store.last_group());
    let mut checks = stored(store.as_ref(), config);
    if full {
        let read = read_everything(store.as_ref());
        checks.insert(0, Check { found: format!("{opened}; {}", read.found), what, ..read });
    } else {
        let advice = "`auscult doctor --full` or `auscult verify` reads everything";
        checks.insert(0, Check { advice: advice.into(), ..ok(what, opened) });
    }
    checks
}

/// What a store says of its site that nobody serves, or others do.
fn stored(store: &dyn Store, config: &Config) -> Vec<Check> {
    match health::of_store(store) {
        Ok(health) => health::checks(&health, config.key.turn_within_days),
        Err(error) => vec![fail("erasures", format!("{error:#}"), "`auscult verify` says more")],
    }
}

fn not_opened(what: &'static str, error: &OpenError) -> Check {
    let mut found = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        found.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    let advice = match error {
        OpenError::InUse { .. } => "another process has it open: stop it, or run doctor as the server's user",
        OpenError::WrongKey { .. } => "use the key with the expected fingerprint; nothing was changed",
        OpenError::Damaged { .. } => {
            "keep the directory as it is, restore the last good backup into another one (`auscult restore`)"
        }
        OpenError::TooNew { .. } => "run the release that wrote it, or a later one",
        OpenError::OldSqlite { .. } => "build with the bundled SQLite",
        OpenError::Path { .. } => "give the files to the server's user",
        _ => "look at the disk (`dmesg`, SMART); then restore the last good backup into another directory",
    };
    fail(what, found, advice)
}

fn integrity(store: &SqliteStore, data_dir: &Path, full: bool) -> Check {
    let what = "integrity";
    let bytes = std::fs::metadata(data_dir.join("data.db")).map_or(0, |file| file.len());
    if bytes > QUICK_VERIFY_LIMIT_BYTES && !full {
        let found = format!("not read in full ({} MiB)", bytes >> 20);
        return warn(what, found, "`auscult doctor --full` or `auscult verify` reads everything");
    }
    read_everything(store)
}

fn read_everything(store: &dyn Store) -> Check {
    let what = "integrity";
    let mut line = Progress::new("verifying");
    let report = store.verify(&mut |done, all| line.at(done, all));
    line.end();
    match report {
        Ok(report) if report.findings.is_empty() => {
            ok(what, format!("{} rows and blocks opened, {} readings", report.opened, report.readings))
        }
        Ok(report) => fail(
            what,
            format!(
                "{} rows are damaged, first {}: {}",
                report.findings.len(),
                report.findings[0].place,
                report.findings[0].what
            ),
            "`auscult verify` lists them; restore the last good backup into another directory",
        ),
        Err(error) => fail(what, format!("it cannot be read: {error}"), "restore the last good backup"),
    }
}

fn certificates(config: &Config) -> Vec<Check> {
    let directory = config.pki_dir();
    if !directory.join("authority.pem").exists() && config.site.data_dir.join("data.db").exists() {
        return vec![fail(
            "authority",
            format!("there is none in {}, though there is a store", directory.display()),
            "put the copy of the directory back that was taken with the backup; no device is believed without it",
        )];
    }
    if !directory.join("authority.pem").exists() {
        return vec![warn(
            "authority",
            format!("there is none in {}", directory.display()),
            "it is made at the first start",
        )];
    }
    // With its keys, where they can be had: one that does not open is found here and not at the next start. A directory of
    // an earlier release is only looked at: its plain key is sealed by the server.
    let is_plain = directory.join("authority.key").exists();
    let opened = match crate::kek::ring(config) {
        Ok(keks) if !is_plain => PkiDirectory::open(&directory, &keks),
        _ => PkiDirectory::look(&directory),
    };
    let pki = match opened {
        Ok(pki) => pki,
        Err(error) => {
            let advice =
                "put the directory back from its copy; a new authority is not believed by the devices";
            return vec![fail("authority", format!("{error:#}"), advice)];
        }
    };
    let mut checks = vec![expiry(
        "authority",
        &directory.join("authority.pem"),
        "every device needs a new certificate by then",
    )];
    let own = config.tls.certificate.clone();
    let advice = if own.is_some() {
        "replace the file of tls.certificate"
    } else {
        "restart the server: it renews it"
    };
    let server = own.unwrap_or_else(|| directory.join("server.pem"));
    if server.exists() {
        checks.push(expiry("server certificate", &server, advice));
    } else if config.tls.certificate.is_some() {
        let found = format!("{} does not exist", server.display());
        checks.push(fail("server certificate", found, "set tls.certificate right"));
    }
    checks.push(match (pki.revoked(), pki.issued()) {
        (Ok(revoked), Ok(issued)) => {
            ok("certificates", format!("{} issued, {} revoked", issued.len(), revoked.len()))
        }
        (Err(error), _) | (_, Err(error)) => {
            fail("certificates", format!("{error:#}"), "the server does not start with an unreadable list")
        }
    });
    checks
}

fn expiry(what: &'static str, path: &Path, advice: &str) -> Check {
    let shown = path.display();
    let Ok(text) = std::fs::read(path) else {
        return fail(what, format!("{shown} cannot be read"), "give it to the server's user");
    };
    let parsed = x509_parser::pem::parse_x509_pem(&text).ok();
    let not_after = parsed
        .and_then(|(_, pem)| pem.parse_x509().ok().map(|found| found.validity().not_after.timestamp()))
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let Some(not_after) = not_after else {
        return fail(what, format!("{shown} is no certificate"), "replace the file");
    };
    let until = format!("until {}", pki::timestamp(not_after));
    match not_after.duration_since(SystemTime::now()) {
        Err(_) => fail(what, format!("expired ({until})"), advice),
        Ok(left) if left < EXPIRY_WARN => warn(what, until, advice),
        Ok(_) => ok(what, until),
    }
}

fn port(what: &'static str, address: SocketAddr, running: bool) -> Check {
    if running {
        return ok(what, format!("{address} (of the running server)"));
    }
    match TcpListener::bind(address) {
        Ok(_) => ok(what, format!("{address} is free")),
        Err(error) => fail(
            what,
            format!("{address}: {error}"),
            "stop the other program, or choose another port in the settings",
        ),
    }
}

fn files() -> Check {
    let what = "open files";
    let needed = MAX_CONNECTIONS as u64 + OTHER_FILES;
    // The server raises the soft limit to the hard one by itself.
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < needed => warn(
            what,
            format!("at most {limit}"),
            format!("{MAX_CONNECTIONS} connections need {needed}; set LimitNOFILE={needed} in the unit"),
        ),
        Some(limit) => ok(what, format!("at most {limit}")),
        None => ok(what, "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyConfig;

    struct Bench {
        _directories: [tempfile::TempDir; 2],
        config: Config,
    }

    fn bench() -> Bench {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut config = Config::default();
        config.site.data_dir = directories[0].path().to_owned();
        let key = directories[1].path().join("key");
        let kek = keys::generate(&key).unwrap();
        config.key = KeyConfig::of_file(&key);
        for listen in [&mut config.web.listen, &mut config.mqtt.listen, &mut config.devices.listen] {
            listen.set_port(0);
        }
        let keks = trust::KekRing::from(kek);
        let options = store::sqlite::Options::default();
        drop(SqliteStore::open(&config.site.data_dir, keks.clone(), options).unwrap());
        PkiDirectory::open_or_init(&config.pki_dir(), "Site", &keks).unwrap();
        Bench { _directories: directories, config }
    }

    fn failures(config: &Config) -> Vec<(&'static str, String)> {
        let checks = examine(config, true);
        checks.into_iter().filter(|c| c.mark == Mark::Fail).map(|c| (c.what, c.found)).collect()
    }

    #[test]
    fn a_sound_site_has_no_failure() {
        let bench = bench();
        assert_eq!(failures(&bench.config), []);
    }

    #[test]
    fn a_wrong_key_is_named_with_both_fingerprints() {
        let bench = bench();
        let key = bench.config.key.file.clone().unwrap();
        std::fs::remove_file(&key).unwrap();
        let other = keys::generate(&key).unwrap();
        let found = failures(&bench.config);
        let named: Vec<&str> = found.iter().map(|(what, _)| *what).collect();
        assert_eq!(named, ["store", "authority"], "{found:?}");
        assert!(found.iter().all(|(_, text)| text.contains(&other.fingerprint_text())), "{found:?}");
    }

    #[test]
    fn a_truncated_file_is_named() {
        let bench = bench();
        for name in ["data.db", "keystore.db"] {
            let path = bench.config.site.data_dir.join(name);
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            let found = failures(&bench.config);
            assert!(found.iter().any(|(_, text)| text.contains(name)), "{name}: {found:?}");
            std::fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn a_missing_key_and_a_taken_port_are_named() {
        let mut bench = bench();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        bench.config.web.listen = taken.local_addr().unwrap();
        std::fs::remove_file(bench.config.key.file.clone().unwrap()).unwrap();
        let found: Vec<_> = failures(&bench.config).into_iter().map(|(what, _)| what).collect();
        assert_eq!(found, ["key", "store", "web port"]);
    }

    #[test]
    fn a_damaged_list_of_revoked_certificates_is_named() {
        let bench = bench();
        std::fs::write(bench.config.pki_dir().join("revoked.txt"), "zz\n").unwrap();
        let found = failures(&bench.config);
        assert!(found.len() == 1 && found[0].0 == "certificates", "{found:?}");
    }
}

//! `auscult backup`, `restore` and `verify`: through the running server where one runs, directly otherwise.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clinical_model::Timestamp;
use pipeline::restored::Restored;
use serde::{Deserialize, Serialize};
use store::{RestoreReport, VerifyReport};
use trust::Kek;
use web_api::restored::end_access;

use crate::admin_socket::{self, Answer, Request};
use crate::audit::{self, LogSummary};
use crate::config::{Config, ConfigArguments, KeyConfig};
use crate::terminal::{self, Progress};
use crate::{erasures, kek, keys, opening};

/// Findings that are shown one by one; a destroyed disk has millions.
const FINDINGS_SHOWN: usize = 50;
/// Longest note of a restore that was looked at, in characters: a paragraph.
const NOTE_LIMIT_CHARS: usize = 1_000;

/// What `auscult backup` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult backup --config /etc/auscult/auscult.toml /backup/2026-11-22
  auscult backup --data /var/lib/auscult --key-file /etc/auscult/key /backup/2026-11-22

The backup is encrypted like the data. The key and the directory of the authority (pki) are not part of it: keep
copies of both in a safe.")]
pub struct BackupArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// An empty or new directory
    #[arg(value_name = "TARGET")]
    target: PathBuf,
}

/// What `auscult restore` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  auscult restore /backup/2026-11-22 /var/lib/auscult-new --key-file /etc/auscult/key
  auscult restore /backup/2026-11-22 /var/lib/auscult-new --config /etc/auscult/auscult.toml

The key is that of the time of the backup: with --config the one in force, from wherever it lives. The hashes are
compared before, the key and the counts after. What the backup would let in again is ended: sessions, grants, one-time
links, recovery codes. Then copy the directory of the authority (pki), with the newest revoked.txt, to its place and
start the server on the new directory.")]
pub struct RestoreArguments {
    /// Directory of the backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// An empty or new directory that becomes the data directory
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    #[command(flatten)]
    key: BackupKeyArguments,
    /// The signed list of erasures; without it the one beside the key (its name with .erasures)
    #[arg(long, value_name = "FILE")]
    erasures: Option<PathBuf>,
    /// There is no list, for nobody was ever erased
    #[arg(long, conflicts_with = "erasures")]
    without_erasures: bool,
}

/// Where the key of a backup is.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct BackupKeyArguments {
    /// File with the key-encryption key of the backup
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Configuration of the site, where the key-encryption key has another home than a file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The key of a backup, and where the list of erasures lies by default. The key must not lie in `directory`.
fn key_of_backup(
    key_file: Option<&Path>,
    config: Option<&Path>,
    directory: &Path,
) -> anyhow::Result<(Arc<Kek>, PathBuf)> {
    if let Some(file) = key_file {
        let key = KeyConfig::of_file(file);
        return Ok((Arc::new(keys::load(&key, directory)?), key.erasures_file(directory)));
    }
    let Some(config) = config else {
        bail!("name the key of the backup with --key-file FILE, or the site's settings with --config FILE")
    };
    let arguments = ConfigArguments { config: Some(config.to_owned()), ..ConfigArguments::default() };
    let config = Config::assemble(&arguments)?;
    let ring = kek::ring(&config)?;
    Ok((Arc::clone(ring.current()), config.key.erasures_file(&config.site.data_dir)))
}

/// What `auscult verify` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult verify --config /etc/auscult/auscult.toml
  auscult verify --config /etc/auscult/auscult.toml --against /media/auditor/checkpoint
  auscult verify --backup /backup/2026-11-22 --key-file /etc/auscult/key
  auscult verify audit.jsonl --log-key 'auscult/0123…+abcdef01+AQ…'

Without more it reads everything that is kept, the audit log with its tree and checkpoints too. Exit status: 0 sound,
1 damaged or not readable, 3 the audit log is not what it was.")]
pub struct VerifyArguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    log: audit::LogArguments,
    /// Prove a backup instead of the data directory
    #[arg(long, value_name = "DIR", conflicts_with = "data")]
    backup: Option<PathBuf>,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// File name, bytes, SHA-256 in hexadecimal.
    pub files: Vec<(String, u64, String)>,
    /// What was counted, and how many.
    pub counts: Vec<(String, u64)>,
    /// The last committed group.
    pub last_group: u64,
    /// The last audit sequence.
    pub last_audit: u64,
}

impl From<RestoreReport> for BackupSummary {
    fn from(report: RestoreReport) -> Self {
        let RestoreReport { files, counts, last_group, last_audit } = report;
        BackupSummary { files, counts, last_group, last_audit }
    }
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifySummary {
    /// Rows and blocks that were opened.
    pub opened: u64,
    /// Readings in them.
    pub readings: u64,
    /// How many were damaged.
    pub damaged: u64,
    /// The first of them: where, and what is wrong.
    pub findings: Vec<(String, String)>,
    /// What was read of each log.
    pub logs: Vec<LogSummary>,
}

impl From<VerifyReport> for VerifySummary {
    fn from(report: VerifyReport) -> Self {
        VerifySummary {
            opened: report.opened,
            readings: report.readings,
            damaged: report.findings.len() as u64,
            findings: report
                .findings
                .into_iter()
                .take(FINDINGS_SHOWN)
                .map(|finding| (finding.place, finding.what))
                .collect(),
            logs: report.logs.into_iter().map(LogSummary::from).collect(),
        }
    }
}

/// Backs up.
///
/// # Errors
/// What failed and where; an unfinished copy is removed.
pub fn run_backup(arguments: &BackupArguments) -> anyhow::Result<ExitCode> {
    let config = Config::assemble(&arguments.config)?;
    let target = std::path::absolute(&arguments.target)
        .with_context(|| format!("{} is no path", arguments.target.display()))?;
    let data_dir = &config.site.data_dir;
    let mut line = Progress::new("copying");
    let request = Request::Backup { target: target.clone() };
    let summary = match admin_socket::ask(data_dir, &request, &mut |done, all| line.at(done, all))? {
        Some(Answer::Copied(summary)) => summary,
        Some(_) => bail!("the running server answered something else; it may be another release"),
        None => {
            let store = opening::open_existing(&config)?;
            let copied = store.backup(&target, &mut |done, all| line.at(done, all));
            BackupSummary::from(copied.context("the backup failed")?)
        }
    };
    line.end();
    terminal::println(&format!("Backed up to {}", target.display()));
    print_summary(&summary);
    Ok(ExitCode::SUCCESS)
}

/// Restores with proof.
///
/// # Errors
/// What is wrong with the backup, the key or the target; the target is as it was before then.
pub fn run_restore(arguments: &RestoreArguments) -> anyhow::Result<ExitCode> {
    let BackupKeyArguments { key_file, config } = &arguments.key;
    let (kek, beside_key) = key_of_backup(key_file.as_deref(), config.as_deref(), &arguments.target)?;
    let list = erasures::for_restore(arguments.erasures.as_deref(), &beside_key, arguments.without_erasures)?;
    let report = store::sqlite::restore(&arguments.backup, &arguments.target, Arc::clone(&kek))
        .with_context(|| {
            format!("{} cannot be restored to {}", arguments.backup.display(), arguments.target.display())
        })?;
    let (applied, restored) = make_safe(&arguments.target, kek, list.as_deref())?;
    terminal::println(&format!(
        "Restored to {}: hashes compared before, key and counts compared after.",
        arguments.target.display()
    ));
    print_summary(&BackupSummary::from(report));
    if let Some(list) = &list {
        let applied = terminal::counted(applied as u64, "erasure");
        terminal::println(&format!("  applied to it: {applied} of {}", list.display()));
    }
    print_ended(&restored);
    Ok(ExitCode::SUCCESS)
}

fn print_ended(restored: &Restored) {
    let ended = &restored.ended;
    let counts = [(ended.sessions, "session"), (ended.grants, "grant"), (ended.claims, "claim code")];
    let counts = counts.map(|(count, what)| terminal::counted(count, what)).join(", ");
    let people = if ended.people == 1 { "1 person".to_owned() } else { format!("{} people", ended.people) };
    terminal::println(&format!("  ended in it: {counts}, one-time links and recovery codes of {people}"));
    terminal::println(&format!(
        "Mind that {}. Disable, reset, revoke and write them again after the start, then run `auscult confirm-restore`; \
         until then `auscult doctor` warns.\n\
         Copy the directory of the authority (pki) to its place before the first start, with the newest revoked.txt that \
         there is, or devices must get new certificates and revoked ones are believed again.",
        restored.unknown()
    ));
}

/// Erases in the restored store whoever was erased since the backup, and ends what would let in again whoever came in, or was
/// shut out, since. Where that fails nothing is left that could serve.
fn make_safe(target: &Path, kek: Arc<Kek>, list: Option<&Path>) -> anyhow::Result<(usize, Restored)> {
    let now = crate::pki::timestamp(std::time::SystemTime::now());
    let made: anyhow::Result<_> = (|| {
        let store: Arc<dyn store::Store> = Arc::new(opening::directory(target, kek)?);
        let applied = list.map_or(Ok(0), |list| {
            erasures::apply(&store, list, now).context("erasures could not be applied to it")
        })?;
        let ended =
            end_access(store.as_ref(), now).context("access that was taken away since would come back")?;
        Ok((applied, ended))
    })();
    if made.is_err() {
        for entry in std::fs::read_dir(target).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    made.context("nothing was restored")
}

/// What `auscult confirm-restore` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  auscult confirm-restore --config /etc/auscult/auscult.toml --note \"two people disabled, one hub revoked, no consents\"

A backup knows nothing of what came after it. `auscult doctor` warns until this was said.")]
pub struct ConfirmArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// What was looked at and done; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    note: String,
}

/// Notes that somebody has looked at what a restored site cannot know.
///
/// # Errors
/// What failed.
pub fn run_confirm(arguments: &ConfirmArguments) -> anyhow::Result<ExitCode> {
    let config = Config::assemble(&arguments.config)?;
    let request = Request::ConfirmRestore { note: arguments.note.clone() };
    let text = match admin_socket::ask(&config.site.data_dir, &request, &mut |_, _| {})? {
        Some(Answer::Text(text)) => text,
        Some(_) => bail!("the running server answered something else; it may be another release"),
        None => {
            let now = crate::pki::timestamp(std::time::SystemTime::now());
            confirm(opening::open_existing(&config)?.as_ref(), now, &arguments.note)?
        }
    };
    terminal::println(&text);
    Ok(ExitCode::SUCCESS)
}

/// Does it on a store; what there is to say.
///
/// # Errors
/// When nothing was said, or it could not be kept.
pub fn confirm(store: &dyn store::Store, at: Timestamp, note: &str) -> anyhow::Result<String> {
    let note = note.trim();
    if note.is_empty() || note.chars().count() > NOTE_LIMIT_CHARS {
        bail!("say what was looked at and done, in 1 to {NOTE_LIMIT_CHARS} characters (--note)");
    }
    let confirmed = pipeline::restored::confirm(store, at, note).context("it could not be kept")?;
    Ok(match confirmed {
        Some(restored) => format!("Noted for the restore of {}.", restored.restored_at),
        None => "No restore waits to be looked at.".to_owned(),
    })
}

/// Verifies everything that is kept, or a backup.
///
/// # Errors
/// When it cannot even be read. Damage is printed and gives exit status 1.
pub fn run_verify(arguments: &VerifyArguments) -> anyhow::Result<ExitCode> {
    if arguments.log.is_log_only() {
        return audit::verify(&arguments.log, &arguments.config);
    }
    if let Some(backup) = &arguments.backup {
        return verify_backup(backup, &arguments.config);
    }
    let config = Config::assemble(&arguments.config)?;
    let data_dir = &config.site.data_dir;
    let mut line = Progress::new("verifying");
    let summary = match admin_socket::ask(data_dir, &Request::Verify, &mut |done, all| line.at(done, all))? {
        Some(Answer::Verified(summary)) => summary,
        Some(_) => bail!("the running server answered something else; it may be another release"),
        None => {
            let store = opening::open_existing(&config)?;
            let report = store.verify(&mut |done, all| line.at(done, all));
            VerifySummary::from(report.context("the store could not be read")?)
        }
    };
    line.end();
    terminal::println(&format!(
        "{} rows and blocks opened, {} readings in them, {} damaged",
        summary.opened, summary.readings, summary.damaged
    ));
    summary.logs.iter().for_each(audit::describe);
    for (place, what) in &summary.findings {
        terminal::println(&format!("  {place}: {what}"));
    }
    if summary.damaged == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    terminal::println(
        "Stop the server, keep this directory as it is, and restore the last good backup into another one.",
    );
    Ok(ExitCode::FAILURE)
}

fn verify_backup(backup: &Path, arguments: &ConfigArguments) -> anyhow::Result<ExitCode> {
    let (kek, _) = key_of_backup(arguments.key_file.as_deref(), arguments.config.as_deref(), backup)?;
    let report = store::sqlite::verify_backup(backup, &kek)
        .with_context(|| format!("the backup {} is not sound", backup.display()))?;
    terminal::println(&format!("{} is sound: hashes, key and counts agree.", backup.display()));
    print_summary(&BackupSummary::from(report));
    Ok(ExitCode::SUCCESS)
}

fn print_summary(summary: &BackupSummary) {
    let mut rows = Vec::new();
    for (name, bytes, sha256) in &summary.files {
        rows.push(vec![format!("  {name}"), format!("{bytes} bytes"), format!("SHA-256 {sha256}")]);
    }
    terminal::print(&terminal::table(&rows));
    let mut rows: Vec<Vec<String>> =
        summary.counts.iter().map(|(of, count)| vec![format!("  {of}"), count.to_string()]).collect();
    rows.push(vec!["  last committed group".to_owned(), summary.last_group.to_string()]);
    rows.push(vec!["  last audit row".to_owned(), summary.last_audit.to_string()]);
    terminal::print(&terminal::table(&rows));
}

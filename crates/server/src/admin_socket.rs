//! The admin socket: a Unix socket in the data directory by which `auscult backup` and `verify` reach a running
//! server. One JSON line asks; JSON lines answer, the last one with `done` or `failed`.

use std::future::Future;
use std::io::{BufRead as _, BufReader as StdBufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pipeline::Site;
use pipeline::audited::Act;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction, AuditOutcome};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use web_api::Web;

use crate::backup::{self, BackupSummary, VerifySummary};
use crate::care::{self, KeysSummary};
use crate::doctor::health::{self, HealthSummary};
use crate::listening::Addresses;
use crate::pki::OnlineAuthority;
use crate::user::{self, UserLink};

/// Name of the socket in the data directory.
const SOCKET_FILE: &str = "admin.sock";
/// Longest request line, in bytes: a path and a word, or a file of checkpoints.
const REQUEST_LIMIT_BYTES: u64 = 512 << 10;
/// Time in which a request must have come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at one time: a backup and a verification, not a queue of them.
const REQUEST_LIMIT: usize = 4;
/// Progress lines that wait for a slow reader; later ones are left out.
const PROGRESS_LIMIT: usize = 16;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Copy the running store into an empty directory.
    Backup {
        /// An absolute path.
        target: PathBuf,
    },
    /// Read everything once and check it.
    Verify,
    /// Something about the audit log.
    Audit(crate::audit::Question),
    /// Say which keys are in force.
    Keys,
    /// Turn the key-encryption key over.
    RotateKeys {
        /// Why.
        reason: String,
    },
    /// Read the files of the certificate authority again.
    ReadAuthority,
    /// Say how the site is.
    Health,
    /// Note that somebody has looked at a restored site.
    ConfirmRestore {
        /// What they found.
        note: String,
    },
    /// Forget every way in of a person, and make a one-time link.
    ResetUser {
        /// The name to sign in with.
        name: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Parts done and parts in all.
    Progress(u64, u64),
    /// The backup is complete.
    Copied(BackupSummary),
    /// The verification is complete.
    Verified(VerifySummary),
    /// The one-time link of a person.
    Link(UserLink),
    /// The keys in force.
    Keys(KeysSummary),
    /// How the site is.
    Health(HealthSummary),
    /// A text to print.
    Text(String),
    /// The check of the logs is complete.
    LogChecked(Vec<crate::audit::LogSummary>),
    /// It failed, and why.
    Failed(String),
}

/// Listens in the data directory. Whoever calls this holds the store's lock, so that a socket that is there already
/// is left over.
///
/// # Errors
/// When the socket cannot be made: most often its path is too long.
pub fn bind(data_dir: &Path) -> anyhow::Result<UnixListener> {
    let path = data_dir.join(SOCKET_FILE);
    if path.exists() {
        std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
    }
    let listener = UnixListener::bind(&path).with_context(|| {
        format!(
            "the admin socket {} cannot be made; choose a data directory with a shorter path",
            path.display()
        )
    })?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("{} cannot be protected", path.display()))?;
    Ok(listener)
}

/// What requests are about.
#[derive(Clone)]
pub struct Serving {
    /// The web side, and the site behind it.
    pub web: Arc<Web>,
    /// The authority.
    pub authority: Arc<OnlineAuthority>,
    /// The beginning of links for people's browsers.
    pub link_base: String,
    /// Where it listens.
    pub addresses: Addresses,
}

/// Answers until `stop`.
///
/// # Errors
/// Never by itself; single connections that fail are logged.
pub async fn serve(
    listener: UnixListener,
    serving: Serving,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = running.join_next() => {}
            accepted = listener.accept(), if running.len() < REQUEST_LIMIT => match accepted {
                Ok((stream, _)) => {
                    let serving = serving.clone();
                    running.spawn(async move {
                        if let Err(error) = answer(stream, serving).await {
                            tracing::warn!("the admin socket: {error:#}");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "the admin socket could not accept"),
            },
        }
    }
    if let Ok(address) = listener.local_addr()
        && let Some(path) = address.as_pathname()
    {
        let _ = std::fs::remove_file(path);
    }
    // What was begun is finished: a backup that is broken off would leave its caller in doubt.
    while running.join_next().await.is_some() {}
    Ok(())
}

async fn answer(stream: UnixStream, serving: Serving) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(REQUEST_LIMIT_BYTES));
    let read = tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line));
    read.await.context("no request came")?.context("the request could not be read")?;
    if line.is_empty() {
        // Somebody looked whether a server runs.
        return Ok(());
    }
    let (sender, mut answers) = mpsc::channel(PROGRESS_LIMIT);
    match serde_json::from_str::<Request>(&line) {
        Ok(request) => drop(tokio::task::spawn_blocking(move || perform(&serving, &request, &sender))),
        Err(error) => {
            sender.send(Answer::Failed(format!("the request is not understood: {error}"))).await?;
            drop(sender);
        }
    }
    while let Some(answer) = answers.recv().await {
        let mut text = serde_json::to_vec(&answer).context("an answer could not be written as JSON")?;
        text.push(b'\n');
        if let Err(error) = writer.write_all(&text).await {
            // What was begun goes on; the audit log has what comes of it.
            tracing::debug!(%error, "whoever asked on the admin socket went away");
            break;
        }
    }
    Ok(())
}

fn perform(serving: &Serving, request: &Request, answers: &mpsc::Sender<Answer>) {
    let Serving { web, authority, link_base, addresses } = serving;
    let site = web.site();
    // Progress that finds no room is left out; the next one says more anyway.
    let mut progress = |done: u64, total: u64| drop(answers.try_send(Answer::Progress(done, total)));
    let result = match request {
        Request::Backup { target } => back_up(site, target, &mut progress).map(Answer::Copied),
        Request::Keys => care::summary(site.store().care()).map(Answer::Keys),
        Request::RotateKeys { reason } => care::rotate(site, reason, &mut progress).map(Answer::Keys),
        Request::Verify => verify(site, &mut progress).map(Answer::Verified),
        Request::Audit(question) => crate::audit::perform_on(site, question, &mut progress),
        Request::ReadAuthority => read_authority(authority).map(|()| Answer::Text(String::new())),
        Request::Health => health::of_web(web, *addresses).map(Answer::Health),
        Request::ConfirmRestore { note } => {
            backup::confirm(site.store(), site.clock().now(), note).map(Answer::Text)
        }
        Request::ResetUser { name } => user::reset(web, link_base, name).map(Answer::Link),
    };
    let answer = result.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
    // Nobody there any more: the audit log has what happened.
    let _ = answers.blocking_send(answer);
}

fn back_up(site: &Site, target: &Path, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<BackupSummary> {
    if !target.is_absolute() {
        bail!("the target {} is not an absolute path", target.display());
    }
    let act =
        || Act::new(Actor::System, AuditAction::Administer, "Backup").detail(target.display().to_string());
    let copied = site.store().backup(target, progress);
    let outcome = if copied.is_ok() { AuditOutcome::Success } else { AuditOutcome::Failed };
    site.record(act(), outcome).context("the backup could not be noted in the audit log")?;
    Ok(BackupSummary::from(copied.context("the backup failed")?))
}

fn read_authority(authority: &OnlineAuthority) -> anyhow::Result<()> {
    authority.refresh()?;
    authority.read_lists().map(drop)
}

fn verify(site: &Site, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<VerifySummary> {
    let report = site.store().verify(progress).context("the store could not be read")?;
    let detail = format!("{} rows opened, {} damaged", report.opened, report.findings.len());
    let act = Act::new(Actor::System, AuditAction::Administer, "Verification").detail(detail);
    site.record(act, AuditOutcome::Success)
        .context("the verification could not be noted in the audit log")?;
    Ok(VerifySummary::from(report))
}

/// Asks the server that runs on a data directory; `None` where none runs.
///
/// # Errors
/// What the server says, or that it went away.
pub fn ask(
    data_dir: &Path,
    request: &Request,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Option<Answer>> {
    connect(data_dir)?.map(|stream| exchange(stream, request, progress)).transpose()
}

/// As [`ask`], for what the server would find out by itself soon: it need not answer, and gets so long.
///
/// # Errors
/// What the server says, or that it did not answer in time.
pub fn tell(data_dir: &Path, request: &Request, limit: Duration) -> anyhow::Result<()> {
    ask_within(data_dir, request, limit).map(drop)
}

/// As [`ask`], of a server that must answer within so long.
///
/// # Errors
/// What the server says, or that it did not answer in time.
pub fn ask_within(data_dir: &Path, request: &Request, limit: Duration) -> anyhow::Result<Option<Answer>> {
    let Some(stream) = connect(data_dir)? else { return Ok(None) };
    stream.set_read_timeout(Some(limit)).context("the wait for an answer cannot be bounded")?;
    exchange(stream, request, &mut |_, _| {}).map(Some)
}

/// The server that runs on a data directory, where one does.
fn connect(data_dir: &Path) -> anyhow::Result<Option<StdUnixStream>> {
    let path = data_dir.join(SOCKET_FILE);
    match StdUnixStream::connect(&path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| {
            format!(
                "the server's admin socket {} cannot be used; run this as the server's user",
                path.display()
            )
        }),
    }
}

fn exchange(
    mut stream: StdUnixStream,
    request: &Request,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("the server did not take the request")?;
    for line in StdBufReader::new(stream).lines() {
        let line = line.context("the server went away")?;
        match serde_json::from_str(&line).context("the server's answer is not understood")? {
            Answer::Progress(done, total) => progress(done, total),
            Answer::Failed(what) => bail!("the running server says: {what}"),
            answer => return Ok(answer),
        }
    }
    bail!("the server went away before it had finished; look into its log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_one_line_of_json() {
        let request = Request::Backup { target: "/b".into() };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"do":"backup","target":"/b"}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>(r#"{"do":"verify"}"#).unwrap(), Request::Verify);
        assert!(serde_json::from_str::<Request>(r#"{"do":"erase"}"#).is_err());
        let answer = Answer::Progress(1, 2);
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"progress":[1,2]}"#);
    }

    #[test]
    fn where_no_server_runs_nobody_answers() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(ask(directory.path(), &Request::Verify, &mut |_, _| {}).unwrap(), None);
        // A socket that a killed server left behind is nobody too.
        drop(std::os::unix::net::UnixListener::bind(directory.path().join(SOCKET_FILE)).unwrap());
        assert_eq!(ask(directory.path(), &Request::Verify, &mut |_, _| {}).unwrap(), None);
    }
}

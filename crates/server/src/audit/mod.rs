//! The audit log on the command line: exports, proofs, checkpoints, keys, and the check of all of it.

pub mod export;
mod judging;
mod verifying;
pub mod watching;
pub mod witness;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clinical_model::Timestamp;
use pipeline::Site;
use pipeline::audited::Act;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction, AuditOutcome, Log, LogAgainst, Store};
use trust::log::check::{Report, Signpost};
use trust::log::checkpoint::Checkpoint;
use trust::log::note::VerifierKey;
use trust::log::receipt::Receipt;

use crate::admin_socket::{self, Answer, Request};
use crate::config::{Config, ConfigArguments};
use crate::opening;
use crate::terminal::{self, Progress};

pub use verifying::{LogArguments, describe, verify};

/// The exit status where the log is not what it was: removed, changed, added, moved or rolled back.
pub const EXIT_TAMPERED: u8 = 3;
/// Findings that are shown one by one.
const FINDINGS_SHOWN: usize = 50;

/// What to do with the audit log.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Take the log out for a check elsewhere: rows, tree, checkpoints, cosignatures and public keys in one file
    #[command(after_help = "Example:
  auscult audit export --config /etc/auscult/auscult.toml /media/auditor/audit.jsonl

The file holds what was done to whom, readable by anybody who has it: handle it like the chart. It is checked with
`auscult verify FILE`, on any machine, without a key of the site.")]
    Export {
        #[command(flatten)]
        config: ConfigArguments,
        /// The file; it must not exist
        file: PathBuf,
    },
    /// Print what proves one row (a .tlog-proof, C2SP)
    Prove {
        #[command(flatten)]
        config: ConfigArguments,
        /// Sequence of the row
        sequence: u64,
    },
    /// Print the last signed checkpoints, to be kept elsewhere
    Checkpoint {
        #[command(flatten)]
        config: ConfigArguments,
    },
    /// Print the public keys that sign checkpoints; the last one signs
    Key {
        #[command(flatten)]
        config: ConfigArguments,
        /// Make a new signing key first
        #[arg(long)]
        turn: bool,
        /// Print them as PEM
        #[arg(long)]
        pem: bool,
    },
}

/// What is asked about the log through the admin socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Write an export.
    Export(PathBuf),
    /// What proves a row.
    Prove(u64),
    /// The last checkpoints.
    Checkpoints,
    /// The public keys; `true` makes a new one first.
    Keys(bool),
    /// Check the log, against these checkpoints too.
    Check(Vec<(String, String)>),
}

/// What a check of one log found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSummary {
    /// Name of the log.
    pub log: String,
    /// Rows that were read.
    pub rows: u64,
    /// Of them, rows whose content was erased on purpose.
    pub erased: u64,
    /// Rows that no checkpoint covers yet.
    pub uncovered: u64,
    /// Checkpoints that fit.
    pub checkpoints: u64,
    /// Cosignatures of witnesses that fit.
    pub cosignatures: u64,
    /// Size of the last checkpoint that fits.
    pub head_size: Option<u64>,
    /// Root over all rows, in hexadecimal.
    pub root: String,
    /// What is wrong: what was done, first and last row, a sentence.
    pub findings: Vec<FoundSummary>,
    /// Findings beyond those.
    pub more_findings: u64,
    /// What is no fault and should be known.
    pub remarks: Vec<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundSummary {
    /// `changed`, `missing`, `added`, `moved`, `tree-changed`, `checkpoint-changed`, `rolled-back`.
    pub fault: String,
    /// First row.
    pub first: Option<u64>,
    /// Last row.
    pub last: Option<u64>,
    /// A sentence.
    pub what: String,
}

impl From<Report> for LogSummary {
    fn from(report: Report) -> Self {
        let shown = report.findings.len().min(FINDINGS_SHOWN);
        LogSummary {
            rows: report.rows,
            erased: report.erased,
            uncovered: report.uncovered,
            checkpoints: report.checkpoints,
            cosignatures: report.cosignatures,
            head_size: report.head.map(|head| head.size),
            root: report.root.iter().map(|byte| format!("{byte:02x}")).collect(),
            more_findings: report.more_findings + (report.findings.len() - shown) as u64,
            findings: report
                .findings
                .into_iter()
                .take(FINDINGS_SHOWN)
                .map(|finding| FoundSummary {
                    fault: finding.fault.word().to_owned(),
                    first: finding.first,
                    last: finding.last,
                    what: finding.what,
                })
                .collect(),
            log: report.log,
            remarks: report.remarks,
        }
    }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Does what was asked about the log on a store.
///
/// # Errors
/// What failed.
pub fn perform(
    store: &dyn Store,
    question: &Question,
    witnesses: &[String],
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Answer> {
    let signers = || store.log().log_signers(now()).context("the keys of the log cannot be read");
    match question {
        Question::Export(target) => {
            let rows = export::write(store, witnesses, target, now(), progress)?;
            Ok(Answer::Text(format!("{rows} rows to {}\n", target.display())))
        }
        Question::Prove(sequence) => prove(store, *sequence).map(Answer::Text),
        Question::Checkpoints => {
            let mut text = String::new();
            for log in Log::ALL {
                for kept in store.log().checkpoints(log, None, 1)? {
                    text.push_str(&kept.note);
                    text.push('\n');
                }
            }
            Ok(Answer::Text(text))
        }
        Question::Keys(turn) => {
            if *turn {
                store.log().turn_log_key(now()).context("a new key was not made")?;
            }
            let keys: Vec<String> = signers()?.iter().map(|signer| signer.verifier().to_string()).collect();
            Ok(Answer::Text(format!("{}\n", keys.join("\n"))))
        }
        Question::Check(against) => {
            let keys: Vec<VerifierKey> = witnesses.iter().filter_map(|key| key.parse().ok()).collect();
            let origins = Log::ALL.map(|log| store.log().log_state(log).map(|state| state.origin));
            let origins = origins.into_iter().collect::<Result<Vec<_>, _>>()?;
            let given = against.iter().map(|(name, note)| Signpost {
                name: name.clone(),
                note: note.clone(),
                outside: true,
            });
            let mut shared = shared_out(given, &origins).into_iter();
            let mut summaries = Vec::new();
            for log in Log::ALL {
                let signposts = shared.next().unwrap_or_default();
                let against = LogAgainst { signposts, witnesses: keys.clone() };
                let report = store.log().check_log(log, &against, now(), progress);
                summaries.push(LogSummary::from(report.context("the log could not be read")?));
            }
            Ok(Answer::LogChecked(summaries))
        }
    }
}

/// The checkpoints from elsewhere by the log that judges each: the one whose origin it names. One that names none of them
/// goes to the first, which finds that it is another log's.
fn shared_out(given: impl Iterator<Item = Signpost>, origins: &[String]) -> Vec<Vec<Signpost>> {
    let mut shared = vec![Vec::new(); origins.len()];
    for signpost in given {
        let own = origins.iter().position(|origin| signpost.note.starts_with(origin.as_str()));
        if let Some(of) = shared.get_mut(own.unwrap_or(0)) {
            of.push(signpost);
        }
    }
    shared
}

/// Does what was asked through the running server, and records it.
///
/// # Errors
/// What failed.
pub fn perform_on(
    site: &Site,
    question: &Question,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Answer> {
    let (action, object, detail) = match question {
        Question::Export(target) => (AuditAction::Export, "audit log", target.display().to_string()),
        Question::Prove(sequence) => (AuditAction::Read, "audit proof", format!("row {sequence}")),
        Question::Checkpoints => (AuditAction::Read, "audit checkpoint", String::new()),
        Question::Keys(false) => (AuditAction::Read, "audit keys", String::new()),
        Question::Keys(true) => (AuditAction::Keys, "audit key", "a new signing key".to_owned()),
        Question::Check(_) => (AuditAction::Administer, "Verification of the log", String::new()),
    };
    let act = Act::new(Actor::System, action, object).detail(detail);
    site.record(act, AuditOutcome::Success).context("the act could not be recorded; nothing was done")?;
    let witnesses: Vec<String> =
        site.log_watch().witnesses().into_iter().map(|witness| witness.key).collect();
    perform(site.store(), question, &witnesses, progress)
}

fn prove(store: &dyn Store, sequence: u64) -> anyhow::Result<String> {
    let (entry, _) = store
        .log()
        .log_entry(sequence)?
        .with_context(|| format!("there is no row {sequence} in the audit log"))?;
    let last = store.log().checkpoints(Log::Acts, None, 1)?.into_iter().next();
    let last = last
        .filter(|last| last.size >= sequence)
        .with_context(|| format!("no signed checkpoint covers row {sequence} yet"))?;
    let (head, _) = Checkpoint::parse(&last.note).context("the last checkpoint cannot be read")?;
    let index = sequence - 1;
    let path = store.log().log_inclusion(Log::Acts, index, head.size)?;
    let extra = entry
        .content
        .as_ref()
        .map(|(blinding, payload)| trust::audit::leaf_input(&entry.header, blinding, payload))
        .unwrap_or_default();
    let keys: Vec<VerifierKey> =
        store.log().log_signers(now())?.iter().map(|signer| signer.verifier().clone()).collect();
    let receipt = Receipt { index, path, extra, checkpoint: last.note };
    receipt.verify(&entry.leaf, &keys).context("the proof does not hold; run `auscult verify`")?;
    Ok(receipt.to_text())
}

/// Asks the running server, or the store where none runs.
fn ask(config: &Config, question: Question, what: &'static str) -> anyhow::Result<Answer> {
    let mut line = Progress::new(what);
    let request = Request::Audit(question.clone());
    let mut progress = |done: u64, all: u64| line.at(done, all);
    let answer = match admin_socket::ask(&config.site.data_dir, &request, &mut progress)? {
        Some(answer) => answer,
        None => {
            let store = opening::open_existing(config)?;
            let witnesses: Vec<String> =
                config.audit.witnesses.iter().map(|witness| witness.key.clone()).collect();
            perform(store.as_ref(), &question, &witnesses, &mut progress)?
        }
    };
    line.end();
    Ok(answer)
}

fn text_of(answer: Answer) -> anyhow::Result<String> {
    match answer {
        Answer::Text(text) => Ok(text),
        _ => bail!("the running server answered something else; it may be another release"),
    }
}

/// Does what a command asks.
///
/// # Errors
/// What failed, where, and what to do.
pub fn run(command: &AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::Export { config, file } => {
            let target =
                std::path::absolute(file).with_context(|| format!("{} is no path", file.display()))?;
            let text = text_of(ask(&Config::assemble(config)?, Question::Export(target), "writing")?)?;
            terminal::print(&text);
        }
        AuditCommand::Prove { config, sequence } => {
            terminal::print(&text_of(ask(
                &Config::assemble(config)?,
                Question::Prove(*sequence),
                "proving",
            )?)?);
        }
        AuditCommand::Checkpoint { config } => {
            let text = text_of(ask(&Config::assemble(config)?, Question::Checkpoints, "reading")?)?;
            if text.is_empty() {
                bail!(
                    "no checkpoint was signed yet: a server that runs signs one within seconds of the first act"
                );
            }
            terminal::print(&text);
        }
        AuditCommand::Key { config, turn, pem } => {
            let text = text_of(ask(&Config::assemble(config)?, Question::Keys(*turn), "reading")?)?;
            match pem {
                false => terminal::print(&text),
                true => {
                    for key in text.lines() {
                        terminal::print(
                            &key.parse::<VerifierKey>().context("a key cannot be read")?.to_pem(),
                        );
                    }
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

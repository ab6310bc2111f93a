//! `auscult keys`: what is in force, turning it over, and proof of a copy; through the running server where one runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use pipeline::Site;
use serde::{Deserialize, Serialize};
use store::{Actor, Care, KekTurn};

use crate::admin_socket::{self, Answer, Request};
use crate::config::{Config, ConfigArguments, KeyConfig};
use crate::terminal::{self, Progress};
use crate::{kek, keys, opening, pki};

/// Data keys wrapped anew in one step.
const WRAP_LIMIT_KEYS: usize = 1_000;
/// Between two looks at a turn that the server or other nodes are busy with.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// What `auscult keys` does.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Say where the key-encryption key lives, and make the first one in a token
    #[command(after_help = "Examples:
  auscult keys provider --config /etc/auscult/auscult.toml
  auscult keys provider --make --config /etc/auscult/auscult.toml")]
    Provider {
        #[command(flatten)]
        config: ConfigArguments,
        /// Make the first secret in a token (PKCS #11) that has none
        #[arg(long)]
        make: bool,
    },
    /// Say which keys are in force and which turns are under way
    #[command(after_help = "Example:
  auscult keys status --config /etc/auscult/auscult.toml")]
    Status {
        #[command(flatten)]
        config: ConfigArguments,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Turn the key-encryption key over: wrap all data keys with a new one and destroy the one before
    #[command(after_help = "Example:
  auscult keys rotate --config /etc/auscult/auscult.toml --reason \"the yearly turn\"

Nothing but the data keys is rewritten, and a server may run meanwhile. A turn that was broken off goes on when this is
run again. Backups made before open with the key before only, which is destroyed: make a new backup afterwards.")]
    Rotate {
        #[command(flatten)]
        config: ConfigArguments,
        /// Why; kept in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Prove that a copy of the key (from the safe) is the one in force
    #[command(after_help = "Example:
  auscult keys export-check --config /etc/auscult/auscult.toml /media/safe/key")]
    ExportCheck {
        #[command(flatten)]
        config: ConfigArguments,
        /// The file of the copy
        #[arg(value_name = "FILE")]
        copy: PathBuf,
    },
}

/// The state of the keys, as it crosses the admin socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysSummary {
    /// Fingerprint of the key-encryption key in force.
    pub epoch: String,
    /// Since when; empty where no epoch has turned yet.
    pub since: String,
    /// The turn that is under way: to which key, nodes that wait, data keys done, data keys in all.
    pub turn: Option<(String, u64, u64, u64)>,
    /// Keys of patients.
    pub patient_keys: u64,
    /// Keys of the system.
    pub system_keys: u64,
    /// Keys of the journal.
    pub journal_keys: u64,
    /// Patients' keys that are being turned over.
    pub patient_turns: u64,
    /// Erasures that wait for the epoch to turn, and the first instant by which it must have.
    pub erasures_waiting: u64,
}

/// The state of the keys of a store.
///
/// # Errors
/// When the store cannot be read.
pub fn summary(care: &dyn Care) -> anyhow::Result<KeysSummary> {
    let status = care.key_status().context("the keys cannot be read")?;
    let erasures = care.erasures().context("the erasures cannot be read")?;
    Ok(KeysSummary {
        epoch: status.epoch,
        since: status.epoch_since.map(|at| at.to_string()).unwrap_or_default(),
        turn: status.turn.map(|KekTurn { to, nodes_waiting, done, all }| (to, nodes_waiting, done, all)),
        patient_keys: status.patient_keys,
        system_keys: status.system_keys,
        journal_keys: status.journal_keys,
        patient_turns: status.rekeys.len() as u64,
        erasures_waiting: erasures.iter().filter(|erased| erased.epoch_ended_at.is_none()).count() as u64,
    })
}

/// Begins a turn on a running server, and waits until it has ended.
///
/// # Errors
/// What the home of the key or the store says.
pub fn rotate(site: &Site, reason: &str, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<KeysSummary> {
    let turn = site.turn_kek(&Actor::System, reason).context("the key-encryption key was not turned over")?;
    let care = site.store().care();
    loop {
        let summary = summary(care)?;
        match &summary.turn {
            // The care of keys in the background does the work; this only looks.
            Some((_, _, done, all)) => progress(*done, *all),
            None if summary.epoch == turn.to => return Ok(summary),
            None => bail!("the turn to {} was ended by another one", turn.to),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Runs one of them.
///
/// # Errors
/// What failed, where, and what to do.
pub fn run(command: &KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Provider { config, make } => provider(&Config::assemble(config)?, *make),
        KeysCommand::Status { config, json } => status(&Config::assemble(config)?, *json),
        KeysCommand::Rotate { config, reason } => rotate_here(&Config::assemble(config)?, reason),
        KeysCommand::ExportCheck { config, copy } => export_check(&Config::assemble(config)?, copy),
    }
}

fn provider(config: &Config, make: bool) -> anyhow::Result<ExitCode> {
    let source = kek::source(&config.key, &config.site.data_dir)?;
    if make {
        if source.current().is_ok() {
            bail!("{} has a key already; `auscult keys rotate` makes the next one", source.place());
        }
        source.make_next().with_context(|| format!("{} made no key", source.place()))?;
    }
    let kek = source.current().with_context(|| format!("{} gives no key", source.place()))?;
    terminal::println(&format!(
        "{}: {}, fingerprint {}",
        source.kind(),
        source.place(),
        kek.fingerprint_text()
    ));
    if let Some(next) = source.next()? {
        terminal::println(&format!("  the next key is there too, fingerprint {}", next.fingerprint_text()));
    }
    Ok(ExitCode::SUCCESS)
}

fn state(config: &Config) -> anyhow::Result<KeysSummary> {
    match admin_socket::ask(&config.site.data_dir, &Request::Keys, &mut |_, _| {})? {
        Some(Answer::Keys(summary)) => Ok(summary),
        Some(_) => bail!("the running server answered something else; it may be another release"),
        None => summary(opening::open_existing(config)?.care()),
    }
}

fn status(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let summary = state(config)?;
    if json {
        terminal::println(&serde_json::to_string(&summary)?);
        return Ok(ExitCode::SUCCESS);
    }
    print(&summary);
    Ok(ExitCode::SUCCESS)
}

fn print(summary: &KeysSummary) {
    let since = if summary.since.is_empty() { "the first start" } else { &summary.since };
    terminal::println(&format!("Key-encryption key {} in force since {since}", summary.epoch));
    let KeysSummary { patient_keys, system_keys, journal_keys, .. } = summary;
    terminal::println(&format!(
        "  {patient_keys} keys of patients, {system_keys} of the system, {journal_keys} of the journal"
    ));
    if let Some((to, waiting, done, all)) = &summary.turn {
        terminal::println(&format!(
            "  turning to {to}: {done} of {all} data keys wrapped; {waiting} nodes lack the next key"
        ));
    }
    if summary.patient_turns > 0 {
        terminal::println(&format!("  {} keys of patients are being turned over", summary.patient_turns));
    }
    if summary.erasures_waiting > 0 {
        terminal::println(&format!(
            "  a turn is due (`auscult keys rotate`): older backups still hold the patients of {}",
            terminal::counted(summary.erasures_waiting, "erasure")
        ));
    }
}

fn rotate_here(config: &Config, reason: &str) -> anyhow::Result<ExitCode> {
    let mut line = Progress::new("wrapping data keys");
    let request = Request::RotateKeys { reason: reason.to_owned() };
    let asked = admin_socket::ask(&config.site.data_dir, &request, &mut |done, all| line.at(done, all))?;
    let summary = match asked {
        Some(Answer::Keys(summary)) => summary,
        Some(_) => bail!("the running server answered something else; it may be another release"),
        None => {
            let store = opening::open_existing(config)?;
            let care = store.care();
            care.begin_kek_turn().context("the key-encryption key was not turned over")?;
            let now = pki::timestamp(SystemTime::now());
            while let Some(turn) =
                care.step_kek_turn(WRAP_LIMIT_KEYS, now).context("the turn stands still")?
            {
                line.at(turn.done, turn.all);
                if turn.nodes_waiting > 0 {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
            let act =
                pipeline::audited::Act::new(Actor::System, store::AuditAction::Keys, "key-encryption key")
                    .detail(format!("turned over beside the server, because: {reason}"));
            let record = act.record(now, store::AuditOutcome::Success);
            let audit = store::Transaction { at: now, audit: vec![record], ..store::Transaction::default() };
            store.transact(&audit).context("the turn could not be noted in the audit log")?;
            summary(care)?
        }
    };
    line.end();
    print(&summary);
    terminal::println("Make a new backup now: those made before need the key before, which is destroyed.");
    Ok(ExitCode::SUCCESS)
}

fn export_check(config: &Config, copy: &std::path::Path) -> anyhow::Result<ExitCode> {
    let copied = keys::load(&KeyConfig::of_file(copy), &config.site.data_dir)?.fingerprint_text();
    let summary = state(config)?;
    if copied == summary.epoch {
        terminal::println(&format!("{} is the key in force ({copied}).", copy.display()));
        return Ok(ExitCode::SUCCESS);
    }
    terminal::println(&format!(
        "{} is another key ({copied}); the one in force is {}. Backups of its time open with it, if it was not destroyed.",
        copy.display(),
        summary.epoch
    ));
    Ok(ExitCode::FAILURE)
}

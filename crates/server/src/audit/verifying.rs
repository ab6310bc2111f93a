//! `auscult verify` of the audit log: what it is told, the checkpoints that were kept elsewhere, and what it prints.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use trust::log::check::Signpost;
use trust::log::checkpoint::Checkpoint;
use trust::log::note::VerifierKey;

use super::{EXIT_TAMPERED, LogSummary, Question, ask, export};
use crate::admin_socket::Answer;
use crate::config::{Config, ConfigArguments};
use crate::terminal::{self, Progress, counted};

/// Largest file of checkpoints that is read, in bytes: two logs print some kilobytes, cosignatures included.
const CHECKPOINTS_LIMIT_BYTES: u64 = 256 << 10;

/// What `auscult verify` is told about the log.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogArguments {
    /// An export of the audit log (auscult audit export), checked without any store or key
    #[arg(value_name = "EXPORT", conflicts_with_all = ["data", "config"])]
    pub export: Option<PathBuf>,
    /// Checkpoints that were kept elsewhere, as `auscult audit checkpoint` prints them; the log must have grown out of them.
    /// May be given several times
    #[arg(long, value_name = "FILE")]
    pub against: Vec<PathBuf>,
    /// Believe only this key of the log (name+id+key), not those that an export names. May be given several times
    #[arg(long, value_name = "KEY")]
    pub log_key: Vec<VerifierKey>,
    /// Believe only this key of a witness. May be given several times
    #[arg(long, value_name = "KEY")]
    pub witness_key: Vec<VerifierKey>,
    /// Check the log only, not everything that is kept
    #[arg(long)]
    pub log_only: bool,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

impl LogArguments {
    /// Whether it is the log that is to be checked, and nothing else.
    pub fn is_log_only(&self) -> bool {
        self.export.is_some() || self.log_only || !self.against.is_empty()
    }
}

/// The checkpoints in a file: one signed note, or several with an empty line between, as `auscult audit checkpoint` prints
/// them.
fn read_checkpoints(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let shown = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CHECKPOINTS_LIMIT_BYTES + 1).read_to_string(&mut text))
        .with_context(|| format!("{shown} cannot be read"))?;
    if text.len() as u64 > CHECKPOINTS_LIMIT_BYTES {
        bail!("{shown} has more than {CHECKPOINTS_LIMIT_BYTES} bytes, which is no file of checkpoints");
    }
    let notes = notes_in(&text);
    if notes.is_empty() {
        bail!("{shown} holds no checkpoint");
    }
    let is_one = notes.len() == 1;
    let named = (1..).zip(notes).map(|(number, note)| {
        let name = if is_one { shown.clone() } else { format!("{shown} (note {number})") };
        Checkpoint::parse(&note).with_context(|| format!("{name} is no checkpoint"))?;
        Ok((name, note))
    });
    named.collect()
}

/// The notes of a text. A note is a text, an empty line and its signatures; the text of a checkpoint has no empty line.
fn notes_in(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    let mut parts = text.split("\n\n").map(|part| part.trim_matches('\n')).filter(|part| !part.is_empty());
    let mut notes = Vec::new();
    while let Some(body) = parts.next() {
        // A text without signatures is no note, and is said to be none.
        let signatures = parts.next().map(|signatures| format!("\n\n{signatures}")).unwrap_or_default();
        notes.push(format!("{body}{signatures}\n"));
    }
    notes
}

/// Checks the log: of an export, or of a site.
///
/// # Errors
/// Where it could not be checked. Whatever is wrong is printed and gives exit status [`EXIT_TAMPERED`].
pub fn verify(arguments: &LogArguments, config: &ConfigArguments) -> anyhow::Result<ExitCode> {
    let against =
        arguments.against.iter().map(|path| read_checkpoints(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let against: Vec<_> = against.into_iter().flatten().collect();
    let summaries = match &arguments.export {
        Some(path) => {
            let signposts = against.into_iter().map(|(name, note)| Signpost { name, note, outside: true });
            let believed = export::Believed {
                log_keys: arguments.log_key.clone(),
                witness_keys: arguments.witness_key.clone(),
                against: signposts.collect(),
            };
            let mut line = Progress::new("checking");
            let reports = export::check(path, &believed, &mut |done, all| line.at(done, all))?;
            line.end();
            reports.into_iter().map(LogSummary::from).collect()
        }
        None => match ask(&Config::assemble(config)?, Question::Check(against), "checking")? {
            Answer::LogChecked(summaries) => summaries,
            _ => bail!("the running server answered something else; it may be another release"),
        },
    };
    show(&summaries, arguments)
}

/// Prints what was read of a log, without what is wrong with it.
pub fn describe(summary: &LogSummary) {
    let rows = counted(summary.rows, "row");
    terminal::println(&format!(
        "log of {}: {rows}, {} erased, {} not yet covered, {} and {} fit",
        summary.log,
        summary.erased,
        summary.uncovered,
        counted(summary.checkpoints, "checkpoint"),
        counted(summary.cosignatures, "cosignature")
    ));
    terminal::println(&format!("  root {} over {rows}", summary.root));
    for remark in &summary.remarks {
        terminal::println(&format!("  note: {remark}"));
    }
}

fn show(summaries: &[LogSummary], arguments: &LogArguments) -> anyhow::Result<ExitCode> {
    let is_sound = summaries.iter().all(|summary| summary.findings.is_empty() && summary.more_findings == 0);
    if arguments.json {
        let text = serde_json::json!({ "sound": is_sound, "logs": summaries });
        terminal::println(&serde_json::to_string_pretty(&text).context("the answer could not be written")?);
    } else {
        for summary in summaries {
            describe(summary);
            for finding in &summary.findings {
                terminal::println(&format!("  {}: {}", finding.fault.to_uppercase(), finding.what));
            }
            if summary.more_findings > 0 {
                terminal::println(&format!("  and {} more", summary.more_findings));
            }
        }
        if arguments.export.is_some() && arguments.log_key.is_empty() {
            terminal::println(
                "The keys that were believed are those that the export names; compare them with `auscult audit key`, or \
                 give them with --log-key.",
            );
        }
        terminal::println(if is_sound { "The log is sound." } else { "The log is NOT what it was." });
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_TAMPERED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_checkpoints_holds_one_note_or_several() {
        let note = |log: &str| format!("auscult/x/{log}/1\n7\nAAAA\n\n— auscult/x AAAA\n— witness BBBB\n");
        let (acts, groups) = (note("acts"), note("groups"));
        assert_eq!(notes_in(&acts), vec![acts.clone()]);
        let printed = format!("{acts}\n{groups}\n");
        assert_eq!(notes_in(&printed), [acts.clone(), groups.clone()]);
        assert_eq!(notes_in(&printed.replace('\n', "\r\n")), [acts.clone(), groups.clone()]);
        assert_eq!(notes_in(&format!("\n\n{acts}\n\n\n{groups}")), [acts, groups]);
        assert_eq!(notes_in("\n\n"), [""; 0]);
        assert_eq!(notes_in("only a text\n"), ["only a text\n"]);
    }
}

//! The log: lines on standard error, in the form that the reader at the other end expects.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Variable that systemd sets when standard error goes to its journal, which adds time and host by itself.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// Starts the log at a level (`info`) or with a filter (`info,connectors=debug`).
///
/// # Errors
/// When the filter cannot be read.
pub fn start(level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level).with_context(|| {
        format!("log.level = \"{level}\" is no level (error, warn, info, debug, trace) or filter")
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true);
    let started = if std::env::var_os(JOURNAL_VARIABLE).is_some() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot start: {error}"))
}

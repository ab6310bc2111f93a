//! The log: lines on standard error, in the form that the reader at the other end expects. Whatever an event quotes, it
//! stays one line, and nothing in it speaks to a terminal.

use std::fmt::Write as _;
use std::io;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format};
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder};

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
    let log = log(filter, io::stderr);
    let started = if std::env::var_os(JOURNAL_VARIABLE).is_some() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot start: {error}"))
}

/// The log into any writer.
fn log<W>(filter: EnvFilter, writer: W) -> SubscriberBuilder<DefaultFields, Format, EnvFilter, Lines<W>>
where
    W: for<'w> MakeWriter<'w> + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines { writer })
        // Colours of our own could not be told from those of a name.
        .with_ansi(false)
        .with_target(true)
}

/// Makes one line of every event: each is written by one call, with a line feed at its end.
struct Lines<W> {
    writer: W,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Lines<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Line { writer: self.writer.make_writer() }
    }
}

/// Where one event goes.
struct Line<W> {
    writer: W,
}

impl<W: io::Write> io::Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (event, end) = text.strip_suffix('\n').map_or((&*text, ""), |event| (event, "\n"));
        let mut line = String::with_capacity(text.len());
        for c in event.chars() {
            if !is_command(c) {
                line.push(c);
            } else if write!(line, "{}", c.escape_default()).is_err() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        line.push_str(end);
        self.writer.write_all(line.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether a character does something instead of being seen: controls of both ranges, ends of lines and paragraphs, and what
/// turns the direction of writing.
fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Failed(String, io::Error);

    impl std::fmt::Display for Failed {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "it failed with {}", self.0)
        }
    }

    impl std::error::Error for Failed {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.1)
        }
    }

    /// What names, headers, paths, user agents and payloads may bring along.
    const QUOTED: &[&str] = &[
        "a\n2026-11-22T08:30:00Z  INFO web_api: administrator signed in",
        "a\r\nb",
        "a\rb",
        "a\0b",
        "a\u{1b}[31mred\u{1b}[0m\u{1b}[2J\u{1b}]0;title\u{7}",
        "a\u{9b}31mred\u{85}b",
        "a\u{8}\u{8}\u{7f}\u{c}\u{b}b",
        "a\u{2028}b\u{2029}c\u{202e}d\u{2066}e",
    ];

    fn logged(text: &str) -> String {
        let kept = Kept::default();
        let out = kept.clone();
        let log = log(EnvFilter::new("trace"), move || out.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let error = Failed(text.to_owned(), io::Error::other(text.to_owned()));
            let span = tracing::info_span!("request", path = %text);
            let _inside = span.enter();
            tracing::info!(name = %text, quoted = ?text, plain = text, "said {text}");
            tracing::error!(error = &error as &dyn std::error::Error, "failed");
            tracing::warn!("{text}");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_is_quoted_makes_no_line_and_no_colour() {
        for text in QUOTED {
            let said = logged(text);
            assert_eq!(said.matches('\n').count(), 3, "{said:?}");
            assert_eq!(said.chars().find(|c| is_command(*c) && *c != '\n'), None, "{said:?}");
            assert!(said.contains("a\\") && said.lines().all(|line| line.contains("request{")), "{said:?}");
        }
        assert!(logged("Zoë Ω 心").contains("Zoë Ω 心"), "what can be read stays as it is");
    }
}

//! The key-encryption key from a command of the operator's (a key service, a password store): bounded in time and output.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::bail;
use trust::keyring::MAX_KEK_TEXT_BYTES;
use trust::{Kek, KekSource, SourceError};

/// Time in which the command must have answered.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most words of a command.
const WORDS_LIMIT: usize = 32;
/// Exit status that says that there is no next key.
const NONE: i32 = 3;
/// Bytes of what the command says about a failure that are shown.
const SAID_LIMIT_BYTES: u64 = 512;

/// A program with its arguments; the last one says what is asked: `current`, `next`, `make` or `promote`.
#[derive(Debug)]
pub struct CommandSource {
    words: Vec<String>,
    timeout: Duration,
}

impl CommandSource {
    /// This command. It is started as it is, without a shell.
    ///
    /// # Errors
    /// When it is empty, too long, or not given by an absolute path.
    pub fn new(words: &[String]) -> anyhow::Result<Self> {
        let Some(program) = words.first() else { bail!("key.command is empty") };
        if !Path::new(program).is_absolute() {
            bail!("key.command begins with \"{program}\"; name the program by its absolute path");
        }
        if words.len() > WORDS_LIMIT {
            bail!("key.command has {} words, more than {WORDS_LIMIT}", words.len());
        }
        Ok(CommandSource { words: words.to_vec(), timeout: TIMEOUT })
    }

    /// What the command gives; `None` where it says that there is none.
    fn ask(&self, what: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let program = &self.words[0];
        let failed = |how: String| SourceError::failed(format!("key.command {program} {what}: {how}"));
        let mut child = Command::new(program)
            .args(&self.words[1..])
            .arg(what)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("it cannot be started: {error}")))?;
        let (Some(mut out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed("it has no output".to_owned()));
        };
        let (sender, answer) = mpsc::sync_channel(1);
        let reader = std::thread::Builder::new().name("key command".to_owned()).spawn(move || {
            let mut text = Vec::with_capacity(MAX_KEK_TEXT_BYTES + 1);
            let read = out.by_ref().take(MAX_KEK_TEXT_BYTES as u64 + 1).read_to_end(&mut text);
            let mut said = String::new();
            // What it says beside the key is for people; it may be no text at all. Whoever floods never comes to it.
            if text.len() <= MAX_KEK_TEXT_BYTES {
                let _ = err.take(SAID_LIMIT_BYTES).read_to_string(&mut said);
            }
            let _ = sender.send(read.map(|_| (text, said)));
        });
        reader.map_err(|error| failed(format!("a thread cannot be started: {error}")))?;
        let answered = answer.recv_timeout(self.timeout);
        let Ok(read) = answered else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!("it did not answer within {} s", self.timeout.as_secs_f32())));
        };
        let (text, said) = read.map_err(|error| failed(format!("its answer cannot be read: {error}")))?;
        if text.len() > MAX_KEK_TEXT_BYTES {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!(
                "it answered with more than {MAX_KEK_TEXT_BYTES} bytes, which is no key"
            )));
        }
        let status = child.wait().map_err(|error| failed(format!("it cannot be waited for: {error}")))?;
        match status.code() {
            Some(0) => Ok(Some(text)),
            Some(NONE) => Ok(None),
            _ => Err(failed(format!("it failed ({status}): {}", said.trim()))),
        }
    }

    fn key(&self, what: &str) -> Result<Option<Kek>, SourceError> {
        let Some(text) = self.ask(what)? else { return Ok(None) };
        let key = Kek::parse(&text).map(Some);
        key.map_err(|error| SourceError::failed(format!("key.command {} {what}: {error}", self.words[0])))
    }

    fn by_hand(&self, what: &str) -> SourceError {
        SourceError::ByHand {
            advice: format!("key.command {} does not know `{what}`: do it by hand", self.words[0]),
        }
    }
}

impl KekSource for CommandSource {
    fn kind(&self) -> &'static str {
        "command"
    }

    fn place(&self) -> String {
        self.words[0].clone()
    }

    fn current(&self) -> Result<Kek, SourceError> {
        let none = || SourceError::failed(format!("key.command {} gives no key", self.words[0]));
        self.key("current")?.ok_or_else(none)
    }

    fn next(&self) -> Result<Option<Kek>, SourceError> {
        self.key("next")
    }

    fn make_next(&self) -> Result<Kek, SourceError> {
        if let Some(next) = self.next()? {
            return Ok(next);
        }
        self.ask("make")?;
        self.next()?.ok_or_else(|| self.by_hand("make"))
    }

    fn promote(&self) -> Result<(), SourceError> {
        match self.ask("promote")? {
            Some(_) => Ok(()),
            None => Err(self.by_hand("promote")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that keeps its keys in files beside it.
    const SCRIPT: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
case "$1" in
    current) cat key ;;
    next) [ -e next ] || exit 3; cat next ;;
    make) head -c 32 /dev/urandom | base64 >next ;;
    promote) [ ! -e next ] || mv next key ;;
    *) echo "what is $1?" >&2; exit 1 ;;
esac
"#;

    fn script(text: &str) -> (tempfile::TempDir, Vec<String>) {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(directory.path().join("key"), Kek::generate().to_text().expose()).unwrap();
        (directory, vec![path.to_string_lossy().into_owned()])
    }

    #[test]
    fn a_command_gives_makes_and_promotes_keys() {
        let (_directory, words) = script(SCRIPT);
        let source = CommandSource::new(&words).unwrap();
        let before = source.current().unwrap().fingerprint();
        assert!(source.next().unwrap().is_none());
        let next = source.make_next().unwrap().fingerprint();
        assert_ne!(before, next);
        source.promote().unwrap();
        source.promote().unwrap();
        assert_eq!(source.current().unwrap().fingerprint(), next);
        assert!(source.next().unwrap().is_none());
    }

    #[test]
    fn a_command_that_hangs_floods_or_fails_is_named() {
        let said = |text: &str| {
            let (_directory, words) = script(text);
            let mut source = CommandSource::new(&words).unwrap();
            source.timeout = Duration::from_millis(300);
            source.current().unwrap_err().to_string()
        };
        assert!(said("#!/bin/sh\nexec sleep 60\n").contains("did not answer"));
        let mut patient = CommandSource::new(&["/usr/bin/yes".to_owned()]).unwrap();
        patient.timeout = Duration::from_secs(5);
        assert!(patient.current().unwrap_err().to_string().contains("no key"));
        let (_directory, words) = script("#!/bin/sh\necho locked >&2\nexit 9\n");
        let failed = CommandSource::new(&words).unwrap().current().unwrap_err().to_string();
        assert!(failed.contains("locked") && failed.contains("current"), "{failed}");
        assert!(CommandSource::new(&[]).is_err());
        assert!(CommandSource::new(&["sh".to_owned()]).unwrap_err().to_string().contains("absolute"));
    }
}

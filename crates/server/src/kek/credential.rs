//! The key-encryption key as a credential of systemd: read-only, so that a person brings the next one.

use std::path::PathBuf;

use trust::{Kek, KekSource, SourceError};

use super::{NEXT, file};

/// A file in `$CREDENTIALS_DIRECTORY`.
#[derive(Debug)]
pub struct CredentialSource {
    path: PathBuf,
}

impl CredentialSource {
    /// The credential at this path.
    pub fn new(path: PathBuf) -> Self {
        CredentialSource { path }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn next_path(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.{NEXT}", self.name()))
    }
}

impl KekSource for CredentialSource {
    fn kind(&self) -> &'static str {
        "credential"
    }

    fn place(&self) -> String {
        format!("credential {}", self.name())
    }

    fn current(&self) -> Result<Kek, SourceError> {
        file::read(&self.path)
    }

    fn next(&self) -> Result<Option<Kek>, SourceError> {
        let next = self.next_path();
        if next.exists() { file::read(&next).map(Some) } else { Ok(None) }
    }

    fn make_next(&self) -> Result<Kek, SourceError> {
        self.next()?.ok_or_else(|| SourceError::ByHand {
            advice: format!(
                "make the next key with `auscult key generate FILE`, add LoadCredential={}.{NEXT}:FILE (or \
                 LoadCredentialEncrypted=) to the unit, restart it, and ask again",
                self.name()
            ),
        })
    }

    fn promote(&self) -> Result<(), SourceError> {
        if self.next()?.is_none() {
            return Ok(());
        }
        Err(SourceError::ByHand {
            advice: format!(
                "let LoadCredential={0}: name the file of {0}.{NEXT}, remove the line of {0}.{NEXT}, restart the unit, \
                 and destroy every copy of the key before",
                self.name()
            ),
        })
    }
}

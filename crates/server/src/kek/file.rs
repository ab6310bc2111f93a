//! The key-encryption key in a file that only its owner may read; the next epoch's stands beside it until it takes its place.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use trust::keyring::MAX_KEK_TEXT_BYTES;
use trust::{Kek, KekSource, SourceError};

use super::NEXT;
use crate::keys;

/// What follows the name of the file while the key before is being overwritten.
const OLD: &str = "old";

/// A file, and its neighbours of the next and the last epoch.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
}

impl FileSource {
    /// The key in this file.
    pub fn new(path: PathBuf) -> Self {
        FileSource { path }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{ending}"));
        name.into()
    }

    /// Overwrites and removes the key of the epoch before, as far as the file system lets us.
    fn destroy_old(&self) -> std::io::Result<()> {
        let old = self.beside(OLD);
        let Ok(metadata) = fs::metadata(&old) else { return Ok(()) };
        fs::set_permissions(&old, fs::Permissions::from_mode(0o600))?;
        let mut file = File::options().write(true).open(&old)?;
        let len = usize::try_from(metadata.len()).unwrap_or(0).clamp(64, 4_096);
        for fill in [trust::random_bytes::<64>(), [0; 64]] {
            let text: Vec<u8> = fill.iter().copied().cycle().take(len).collect();
            std::io::Seek::rewind(&mut file)?;
            file.write_all(&text)?;
            file.sync_all()?;
        }
        fs::remove_file(&old)?;
        sync_parent(&old)
    }
}

/// Reads a key from a file with a bound.
pub(super) fn read(path: &Path) -> Result<Kek, SourceError> {
    let shown = path.display();
    let mut text = Vec::with_capacity(MAX_KEK_TEXT_BYTES + 1);
    File::open(path)
        .and_then(|file| file.take(MAX_KEK_TEXT_BYTES as u64 + 1).read_to_end(&mut text))
        .map_err(|error| failed(format!("the key file {shown} cannot be read"), error))?;
    let kek = Kek::parse(&text).map_err(|error| failed(format!("the key file {shown} holds no key"), error));
    text.fill(0);
    kek
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

pub(super) fn failed(
    what: String,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> SourceError {
    SourceError::Failed { what, source: Some(source.into()) }
}

/// A directory that the server may not write is no fault: then a person brings the key.
fn by_hand(error: &std::io::Error, advice: String) -> Option<SourceError> {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
        .then_some(SourceError::ByHand { advice })
}

impl KekSource for FileSource {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn current(&self) -> Result<Kek, SourceError> {
        keys::check_mode(&self.path, "key file")
            .map_err(|error| SourceError::failed(format!("{error:#}")))?;
        read(&self.path)
    }

    fn next(&self) -> Result<Option<Kek>, SourceError> {
        let next = self.beside(NEXT);
        if !next.exists() {
            return Ok(None);
        }
        keys::check_mode(&next, "key file").map_err(|error| SourceError::failed(format!("{error:#}")))?;
        read(&next).map(Some)
    }

    fn make_next(&self) -> Result<Kek, SourceError> {
        if let Some(next) = self.next()? {
            return Ok(next);
        }
        let next = self.beside(NEXT);
        let advice = format!(
            "the server may not write {}; make the next key as the owner of that directory with `auscult key generate \
             {0}`, give it to the server's user, and ask again",
            next.display()
        );
        keys::generate(&next)
            .and_then(|kek| sync_parent(&next).map(|()| kek).map_err(anyhow::Error::new))
            .map_err(|error| {
                let cause = error.root_cause().downcast_ref::<std::io::Error>();
                cause
                    .and_then(|cause| by_hand(cause, advice))
                    .unwrap_or_else(|| failed("the next key file cannot be made".to_owned(), error))
            })
    }

    fn promote(&self) -> Result<(), SourceError> {
        let (next, old) = (self.beside(NEXT), self.beside(OLD));
        let shown = self.path.display();
        let advice =
            format!("move {} over {shown}, and destroy every copy of the key before", next.display());
        let moved = || -> std::io::Result<()> {
            if next.exists() {
                if old.exists() {
                    fs::remove_file(&old)?;
                }
                // The key before keeps a name, so that it can be overwritten when the next one stands in its place.
                fs::hard_link(&self.path, &old)?;
                fs::rename(&next, &self.path)?;
                sync_parent(&self.path)?;
            }
            self.destroy_old()
        };
        moved().map_err(|error| {
            by_hand(&error, advice).unwrap_or_else(|| failed(format!("{shown} cannot be replaced"), error))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> (tempfile::TempDir, FileSource) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        keys::generate(&path).unwrap();
        (directory, FileSource::new(path))
    }

    #[test]
    fn the_next_key_takes_the_place_of_the_one_before() {
        let (directory, source) = source();
        let before = source.current().unwrap().fingerprint();
        assert!(source.next().unwrap().is_none());
        let next = source.make_next().unwrap().fingerprint();
        assert_eq!(source.make_next().unwrap().fingerprint(), next, "asked again it is the same");
        assert_eq!(
            (source.current().unwrap().fingerprint(), source.next().unwrap().unwrap().fingerprint()),
            (before, next)
        );
        source.promote().unwrap();
        assert_eq!(source.current().unwrap().fingerprint(), next);
        assert!(source.next().unwrap().is_none());
        source.promote().unwrap();
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left of the key before"
        );
    }

    #[test]
    fn a_promotion_that_was_broken_off_is_made_up_for() {
        let (directory, source) = source();
        let next = source.make_next().unwrap().fingerprint();
        // The process ended between the link and the renaming, and again after it.
        fs::hard_link(&source.path, source.beside(OLD)).unwrap();
        source.promote().unwrap();
        assert_eq!(source.current().unwrap().fingerprint(), next);
        fs::write(source.beside(OLD), "the key before").unwrap();
        source.promote().unwrap();
        assert_eq!(source.current().unwrap().fingerprint(), next);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

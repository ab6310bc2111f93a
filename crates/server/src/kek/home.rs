//! A home of key-encryption keys together with what else on this machine they wrap: the authority's keys.

use std::path::PathBuf;
use std::sync::Arc;

use trust::{Kek, KekRing, KekSource, SourceError};

use crate::pki;

/// A source whose turn of the epoch takes the authority's sealing key along.
#[derive(Debug)]
pub struct Home {
    source: Arc<dyn KekSource>,
    pki_dir: PathBuf,
}

impl Home {
    /// A source, and the directory of the authority.
    pub fn new(source: Arc<dyn KekSource>, pki_dir: PathBuf) -> Self {
        Home { source, pki_dir }
    }
}

impl KekSource for Home {
    fn kind(&self) -> &'static str {
        self.source.kind()
    }

    fn place(&self) -> String {
        self.source.place()
    }

    fn current(&self) -> Result<Kek, SourceError> {
        self.source.current()
    }

    fn next(&self) -> Result<Option<Kek>, SourceError> {
        self.source.next()
    }

    fn make_next(&self) -> Result<Kek, SourceError> {
        self.source.make_next()
    }

    fn take_along(&self, next: &Kek) -> Result<(), SourceError> {
        let ring = KekRing::load(Arc::clone(&self.source))?;
        pki::rewrap(&self.pki_dir, &ring, next).map_err(|error| SourceError::Failed {
            what: format!(
                "the sealing key of the authority in {} was not wrapped anew",
                self.pki_dir.display()
            ),
            source: Some(error.into()),
        })
    }

    fn promote(&self) -> Result<(), SourceError> {
        // Before the key that wrapped it is destroyed; again after a crash, when it is wrapped anew already.
        if let Some(next) = self.source.next()? {
            self.take_along(&next)?;
        }
        self.source.promote()
    }
}

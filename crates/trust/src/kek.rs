//! Where key-encryption keys come from, and the ring of those in force: one, or two while an epoch turns.

use std::fmt;
use std::sync::Arc;

use crate::keyring::{Kek, wrapped_by};

/// Why a source of key-encryption keys did not give one, make one, or destroy one.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or what it gives is no key.
    #[error("{what}")]
    Failed {
        /// What failed, where, and what to do.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The source cannot make or destroy keys itself: a person must.
    #[error("{advice}")]
    ByHand {
        /// What a person has to do.
        advice: String,
    },
}

impl SourceError {
    /// A failure with words of our own.
    pub fn failed(what: impl Into<String>) -> Self {
        SourceError::Failed { what: what.into(), source: None }
    }
}

/// A home of key-encryption keys outside the data: a file, a credential, a token, a command.
///
/// A turn of the epoch is made of four steps, and each may be repeated after a crash: make the next key, wrap every
/// data key anew, promote the next key to the current one, and with that destroy the one before.
pub trait KekSource: Send + Sync + fmt::Debug {
    /// Which kind: `file`, `credential`, `command`, `pkcs11`.
    fn kind(&self) -> &'static str;

    /// Which one, for people; never the key.
    fn place(&self) -> String;

    /// The key in force.
    ///
    /// # Errors
    /// [`SourceError::Failed`].
    fn current(&self) -> Result<Kek, SourceError>;

    /// The key of the next epoch, while there is one.
    ///
    /// # Errors
    /// [`SourceError::Failed`].
    fn next(&self) -> Result<Option<Kek>, SourceError>;

    /// Makes the key of the next epoch; gives the one that is there where it was made already.
    ///
    /// # Errors
    /// [`SourceError::ByHand`] where only a person can; [`SourceError::Failed`].
    fn make_next(&self) -> Result<Kek, SourceError>;

    /// Wraps with the next key whatever else on this machine is wrapped by these keys. Called before this machine says
    /// that it has the next key, and again after a crash; after that the one before may be destroyed at any time.
    ///
    /// # Errors
    /// [`SourceError::Failed`].
    fn take_along(&self, _next: &Kek) -> Result<(), SourceError> {
        Ok(())
    }

    /// Makes the next key the current one and destroys the one before; nothing where there is no next key.
    ///
    /// # Errors
    /// As [`KekSource::make_next`].
    fn promote(&self) -> Result<(), SourceError>;
}

/// The key-encryption keys that open data keys now: the current one, and the next one while an epoch turns.
#[derive(Clone)]
pub struct KekRing {
    keks: Vec<Arc<Kek>>,
    source: Option<Arc<dyn KekSource>>,
}

impl KekRing {
    /// The keys of a source.
    ///
    /// # Errors
    /// [`SourceError`] where the current key cannot be had.
    pub fn load(source: Arc<dyn KekSource>) -> Result<Self, SourceError> {
        let mut ring = KekRing { keks: Vec::new(), source: Some(source) };
        ring.reload()?;
        Ok(ring)
    }

    /// Asks the source again: a next key may have come, or become the current one.
    ///
    /// # Errors
    /// [`SourceError`]; the keys stay as they were then.
    pub fn reload(&mut self) -> Result<(), SourceError> {
        let Some(source) = &self.source else { return Ok(()) };
        let mut keks = vec![Arc::new(source.current()?)];
        keks.extend(source.next()?.map(Arc::new));
        self.keks = keks;
        Ok(())
    }

    /// The key in force.
    pub fn current(&self) -> &Arc<Kek> {
        &self.keks[0]
    }

    /// The key of the next epoch, while there is one.
    pub fn next(&self) -> Option<&Arc<Kek>> {
        self.keks.get(1)
    }

    /// The key of a fingerprint, in hexadecimal digits.
    pub fn find(&self, fingerprint: &str) -> Option<&Arc<Kek>> {
        self.keks.iter().find(|kek| kek.fingerprint_text() == fingerprint)
    }

    /// The key that wrapped a data key.
    pub fn that_wrapped(&self, wrapped: &[u8]) -> Option<&Arc<Kek>> {
        let by = wrapped_by(wrapped)?;
        self.keks.iter().find(|kek| kek.fingerprint() == by)
    }

    /// Where the keys come from; `None` where one was given by hand.
    pub fn source(&self) -> Option<&Arc<dyn KekSource>> {
        self.source.as_ref()
    }
}

impl From<Kek> for KekRing {
    fn from(kek: Kek) -> Self {
        KekRing { keks: vec![Arc::new(kek)], source: None }
    }
}

impl From<Arc<Kek>> for KekRing {
    fn from(kek: Arc<Kek>) -> Self {
        KekRing { keks: vec![kek], source: None }
    }
}

impl fmt::Debug for KekRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keks.iter().map(|kek| kek.fingerprint_text())).finish()
    }
}

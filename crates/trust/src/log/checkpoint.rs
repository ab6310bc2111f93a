//! Checkpoints (C2SP tlog-checkpoint): how large a log was and which root it had, as the text of a signed note.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Hash;
use super::note::{Note, NoteError, Signed, Signer, VerifierKey};

/// The head of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log; without spaces.
    pub origin: String,
    /// Leaves in the tree.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

/// Why a checkpoint is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error("the checkpoint is not believed")]
    Note(#[source] NoteError),
    /// The text is no checkpoint.
    #[error("the note is no checkpoint: {what}")]
    Malformed {
        /// In what way.
        what: &'static str,
    },
}

impl From<NoteError> for CheckpointError {
    fn from(error: NoteError) -> Self {
        CheckpointError::Note(error)
    }
}

/// A decimal number as checkpoints write it: no sign, no leading zeroes.
pub(super) fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// A hash in base64.
pub(super) fn hash_from(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

impl Checkpoint {
    /// The text that is signed: origin, size and root, a line each.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// The checkpoint as a signed note.
    pub fn sign(&self, signers: &[&Signer], at_s: u64) -> String {
        Note::sign(&self.text(), signers, at_s)
    }

    /// Reads the text of a note. Extension lines are passed over.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let wrong = |what| CheckpointError::Malformed { what };
        let mut lines = text.lines();
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or(wrong("it names no log"))?;
        let size = lines.next().and_then(decimal).ok_or(wrong("its second line is no size"))?;
        let root = lines.next().and_then(hash_from).ok_or(wrong("its third line is no hash"))?;
        if lines.any(str::is_empty) {
            return Err(wrong("it has an empty line"));
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root })
    }

    /// Reads a signed checkpoint without believing it.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse(note: &str) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(note)?;
        Ok((Self::parse_text(note.text())?, note))
    }

    /// Reads a checkpoint that one of these keys signed.
    ///
    /// # Errors
    /// [`CheckpointError`] where it is malformed or not signed by any of them.
    pub fn verified(note: &str, keys: &[VerifierKey]) -> Result<(Self, Vec<Signed>), CheckpointError> {
        let (checkpoint, note) = Self::parse(note)?;
        Ok((checkpoint, note.verify(keys)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::KeyKind;
    use super::*;
    use crate::Key;

    #[test]
    fn a_checkpoint_is_written_and_read() {
        let checkpoint = Checkpoint { origin: "auscult/ab/acts/1".into(), size: 17, root: [3; 32] };
        let signer = Signer::derive(&Key::from_bytes(&[1; 32]), KeyKind::Log, "auscult/ab/acts");
        let note = checkpoint.sign(&[&signer], 0);
        let (read, signed) = Checkpoint::verified(&note, &[signer.verifier().clone()]).unwrap();
        assert_eq!((read, signed.len()), (checkpoint, 1));
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for text in ["", "a\n", "a\n01\n", "a\n1\nAAAA\n", "\n1\n", "a\n-1\n", "a\n1\n=\n"] {
            assert!(Checkpoint::parse_text(text).is_err(), "{text:?}");
        }
    }
}

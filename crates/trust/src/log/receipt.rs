//! Receipts (C2SP tlog-proof): one entry's proof with the checkpoint it leads to, to be checked without a connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Hash;
use super::checkpoint::{Checkpoint, CheckpointError, decimal, hash_from};
use super::note::{Signed, VerifierKey};
use super::tree::{PROOF_LIMIT, ProofError, verify_inclusion};

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// A proof of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Place of the entry, from 0.
    pub index: u64,
    /// The inclusion proof, the sibling of the leaf first.
    pub path: Vec<Hash>,
    /// What else goes with it; not proven by it.
    pub extra: Vec<u8>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It is not of the form.
    #[error("it is no proof of a log: {what}")]
    Malformed {
        /// In what way.
        what: &'static str,
    },
    /// Its checkpoint.
    #[error("its checkpoint is not believed")]
    Checkpoint(#[source] CheckpointError),
    /// Its path.
    #[error("its path does not prove the entry")]
    Path(#[source] ProofError),
}

impl Receipt {
    /// As it is kept in a `.tlog-proof` file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        if !self.extra.is_empty() {
            text.push_str(&format!("extra {}\n", STANDARD.encode(&self.extra)));
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a `.tlog-proof` file.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        let wrong = |what| ReceiptError::Malformed { what };
        let (head, checkpoint) = text.split_once("\n\n").ok_or(wrong("it has no checkpoint"))?;
        let mut lines = head.lines().peekable();
        if lines.next() != Some(HEADER) {
            return Err(wrong("its first line is not that of a proof"));
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(packed) => {
                let extra = STANDARD.decode(packed).map_err(|_| wrong("its extra data are not base64"))?;
                lines.next();
                extra
            }
            None => Vec::new(),
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(wrong("it names no place"))?;
        let path: Option<Vec<Hash>> = lines.map(hash_from).collect();
        let path = path.filter(|path| path.len() <= PROOF_LIMIT).ok_or(wrong("a hash is none"))?;
        Ok(Receipt { index, path, extra, checkpoint: checkpoint.to_owned() })
    }

    /// Proves that the entry with this leaf hash is in the log that one of the keys signs.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(
        &self,
        leaf: &Hash,
        keys: &[VerifierKey],
    ) -> Result<(Checkpoint, Vec<Signed>), ReceiptError> {
        let (checkpoint, signed) =
            Checkpoint::verified(&self.checkpoint, keys).map_err(ReceiptError::Checkpoint)?;
        verify_inclusion(leaf, self.index, checkpoint.size, &self.path, &checkpoint.root)
            .map_err(ReceiptError::Path)?;
        Ok((checkpoint, signed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::{KeyKind, Signer};
    use super::super::tree::{MemoryTiles, Tree, append, leaf_hash};
    use super::*;
    use crate::Key;

    #[test]
    fn a_receipt_proves_its_entry_and_no_other() {
        let leaves: Vec<Hash> = (0_u8..100).map(|n| leaf_hash(&[n])).collect();
        let mut tiles = MemoryTiles::default();
        let written = append(&mut tiles, 0, &leaves).unwrap();
        tiles.put(written);
        let mut tree = Tree::new(tiles, 100);
        let root = tree.root().unwrap();
        let signer = Signer::derive(&Key::from_bytes(&[1; 32]), KeyKind::Log, "auscult/ab/acts");
        let checkpoint =
            Checkpoint { origin: "auscult/ab/acts/1".into(), size: 100, root }.sign(&[&signer], 0);
        for extra in [Vec::new(), b"more".to_vec()] {
            let path = tree.inclusion(41).unwrap();
            let receipt = Receipt { index: 41, path, extra, checkpoint: checkpoint.clone() };
            let read = Receipt::parse(&receipt.to_text()).unwrap();
            assert_eq!(read, receipt);
            let keys = [signer.verifier().clone()];
            assert_eq!(read.verify(&leaves[41], &keys).unwrap().0.size, 100);
            assert_eq!(read.verify(&leaves[42], &keys), Err(ReceiptError::Path(ProofError::Root)));
        }
        assert!(Receipt::parse("c2sp.org/tlog-proof@v1\nindex 041\n\nx").is_err());
    }
}

//! What a witness decides and how it is asked (C2SP tlog-witness, `add-checkpoint`): it cosigns a checkpoint only when
//! the log grew out of what it cosigned before, and so a log cannot be rolled back or shown differently to others.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Hash;
use super::checkpoint::{Checkpoint, decimal, hash_from};
use super::note::{NoteError, Signer, VerifierKey};
use super::tree::{PROOF_LIMIT, empty_root, verify_consistency};

/// Longest request that is read, in bytes: 63 hashes and a note.
pub const REQUEST_LIMIT_BYTES: usize = 96 * 1024;

/// A request to cosign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Size of the checkpoint that the witness cosigned last.
    pub old_size: u64,
    /// Consistency proof from that size to the checkpoint's.
    pub path: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl Request {
    /// The body of the request.
    pub fn to_text(&self) -> String {
        let mut text = format!("old {}\n", self.old_size);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads the body of a request; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        let old_size = decimal(lines.next()?.strip_prefix("old ")?)?;
        let path: Vec<Hash> = lines.map(hash_from).collect::<Option<_>>()?;
        (path.len() <= PROOF_LIMIT).then(|| Request { old_size, path, checkpoint: checkpoint.to_owned() })
    }
}

/// A log that a witness knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLog {
    /// Its origin line.
    pub origin: String,
    /// Who may sign for it.
    pub keys: Vec<VerifierKey>,
    /// Size and root of the checkpoint that was cosigned last.
    pub last: Option<(u64, Hash)>,
}

/// Why a witness does not cosign. Each has its HTTP status in the specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400: the request is not of the form.
    #[error("the request is malformed")]
    Malformed,
    /// 404: nobody told the witness of this log.
    #[error("the log is not known")]
    UnknownLog,
    /// 403: not signed by the log's keys.
    #[error("the checkpoint is not signed by a key of the log")]
    Unsigned(#[source] NoteError),
    /// 409: the witness has seen another size.
    #[error("the last checkpoint seen has size {size}")]
    Stale {
        /// Size that was cosigned last.
        size: u64,
    },
    /// 409: of the same size, with another root: the log shows two histories.
    #[error("another tree of the same size {size} was seen: the log was forked or rolled back")]
    Forked {
        /// The size.
        size: u64,
    },
    /// 422: the log did not grow out of what was seen.
    #[error("the log did not grow out of the {size} entries that were seen: it was forked or rolled back")]
    Inconsistent {
        /// Size that was cosigned last.
        size: u64,
    },
}

impl Refusal {
    /// The HTTP status that the specification gives it.
    pub const fn status(&self) -> u16 {
        match self {
            Refusal::Malformed => 400,
            Refusal::UnknownLog => 404,
            Refusal::Unsigned(_) => 403,
            Refusal::Stale { .. } | Refusal::Forked { .. } => 409,
            Refusal::Inconsistent { .. } => 422,
        }
    }

    /// Whether it is proof that the log misbehaved, for the log's key signed what does not fit.
    pub const fn is_misbehaviour(&self) -> bool {
        matches!(self, Refusal::Forked { .. } | Refusal::Inconsistent { .. })
    }
}

/// Decides a request against what is known of the log; `Ok` is the checkpoint that must be kept before it is cosigned.
///
/// # Errors
/// [`Refusal`]; nothing may be cosigned then.
pub fn judge(request: &Request, log: Option<&KnownLog>) -> Result<Checkpoint, Refusal> {
    let (checkpoint, note) = Checkpoint::parse(&request.checkpoint).map_err(|_| Refusal::Malformed)?;
    let log = log.filter(|log| log.origin == checkpoint.origin).ok_or(Refusal::UnknownLog)?;
    note.verify(&log.keys).map_err(Refusal::Unsigned)?;
    if request.old_size > checkpoint.size {
        return Err(Refusal::Malformed);
    }
    let (size, root) = log.last.unwrap_or((0, empty_root()));
    if request.old_size != size {
        return Err(Refusal::Stale { size });
    }
    if size == checkpoint.size && root != checkpoint.root {
        return Err(Refusal::Forked { size });
    }
    verify_consistency((size, &root), (checkpoint.size, &checkpoint.root), &request.path)
        .map_err(|_| Refusal::Inconsistent { size })?;
    Ok(checkpoint)
}

/// The cosignature line of a witness.
pub fn cosign(checkpoint: &Checkpoint, signer: &Signer, at_s: u64) -> String {
    signer.sign_line(&checkpoint.text(), at_s)
}

#[cfg(test)]
mod tests {
    use super::super::note::KeyKind;
    use super::super::tree::{Edge, MemoryTiles, Tree, append, leaf_hash};
    use super::*;
    use crate::Key;

    const ORIGIN: &str = "auscult/ab/acts/1";

    fn signer() -> Signer {
        Signer::derive(&Key::from_bytes(&[1; 32]), KeyKind::Log, "auscult/ab/acts")
    }

    fn leaves(from: u8, to: u8) -> Vec<Hash> {
        (from..to).map(|n| leaf_hash(&[n])).collect()
    }

    fn tree(leaves: &[Hash]) -> Tree<MemoryTiles> {
        let mut tiles = MemoryTiles::default();
        let written = append(&mut tiles, 0, leaves).unwrap();
        tiles.put(written);
        Tree::new(tiles, leaves.len() as u64)
    }

    fn request(leaves: &[Hash], old: u64) -> Request {
        let mut tree = tree(leaves);
        let root = tree.root().unwrap();
        let checkpoint = Checkpoint { origin: ORIGIN.into(), size: leaves.len() as u64, root };
        let path = tree.consistency(old.min(leaves.len() as u64)).unwrap();
        Request { old_size: old, path, checkpoint: checkpoint.sign(&[&signer()], 0) }
    }

    fn known(last: &[Hash]) -> KnownLog {
        let mut edge = Edge::default();
        last.iter().for_each(|leaf| edge.push(*leaf));
        let last = (!last.is_empty()).then(|| (edge.size(), edge.root()));
        KnownLog { origin: ORIGIN.into(), keys: vec![signer().verifier().clone()], last }
    }

    #[test]
    fn a_log_that_grew_is_cosigned_and_one_that_did_not_is_refused() {
        let seen = leaves(0, 20);
        let grown = request(&leaves(0, 33), 20);
        assert_eq!(Request::parse(&grown.to_text()), Some(grown.clone()));
        assert_eq!(judge(&grown, Some(&known(&seen))).unwrap().size, 33);
        assert_eq!(judge(&request(&leaves(0, 5), 0), Some(&known(&[]))).unwrap().size, 5);
        assert_eq!(judge(&request(&seen, 20), Some(&known(&seen))).unwrap().size, 20);
        // Rolled back, and grown again differently.
        let mut other = leaves(0, 10);
        other.extend(leaves(100, 123));
        let rolled = judge(&request(&other, 20), Some(&known(&seen)));
        assert_eq!(rolled, Err(Refusal::Inconsistent { size: 20 }));
        assert_eq!(judge(&request(&other[..20], 20), Some(&known(&seen))), Err(Refusal::Forked { size: 20 }));
        assert_eq!(
            judge(&request(&leaves(0, 10), 10), Some(&known(&seen))),
            Err(Refusal::Stale { size: 20 })
        );
        assert_eq!(judge(&request(&leaves(0, 10), 20), Some(&known(&seen))), Err(Refusal::Malformed));
    }

    #[test]
    fn unknown_logs_and_foreign_signatures_are_refused() {
        let seen = leaves(0, 20);
        let grown = request(&leaves(0, 33), 20);
        assert_eq!(judge(&grown, None), Err(Refusal::UnknownLog));
        let other = Signer::derive(&Key::from_bytes(&[2; 32]), KeyKind::Log, "auscult/ab/acts");
        let log = KnownLog { keys: vec![other.verifier().clone()], ..known(&seen) };
        assert_eq!(judge(&grown, Some(&log)).unwrap_err().status(), 403);
        for body in ["", "old 1", "old 01\n\nx", "new 1\n\nx", "old 1\nzz\n\nx"] {
            assert!(Request::parse(body).is_none(), "{body:?}");
        }
    }
}

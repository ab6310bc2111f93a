//! SHA-256 over several pieces, for content addresses and manifests.

use aws_lc_rs::digest::{Context, SHA256};

/// A digest that is fed piece by piece.
pub struct Sha256(Context);

impl Sha256 {
    /// Nothing fed yet.
    #[must_use]
    pub fn new() -> Self {
        Sha256(Context::new(&SHA256))
    }

    /// Feeds one piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all that was fed.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// SHA-256 over length-prefixed pieces, so that moving a byte from one piece to the next changes the digest.
#[must_use]
pub fn sha256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for piece in pieces {
        digest.update(&(piece.len() as u64).to_be_bytes());
        digest.update(piece);
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha256_and_pieces_do_not_run_together() {
        let mut digest = Sha256::new();
        digest.update(b"a");
        digest.update(b"bc");
        // FIPS 180-4, the example "abc".
        assert_eq!(digest.finish()[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_ne!(sha256(&[b"ab", b"c"]), sha256(&[b"a", b"bc"]));
    }
}

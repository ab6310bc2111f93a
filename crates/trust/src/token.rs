//! Random tokens for sessions, claim codes and one-time links: shown once, stored as a hash only.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::encoding::hex;
use crate::random::{equal, random_bytes};
use crate::secret::SecretText;

/// Length of a token, in bytes (256 bits: nobody guesses it, so a fast hash protects it enough).
pub const TOKEN_LEN: usize = 32;

/// Length of a token as text, in characters of unpadded base64url.
pub const TOKEN_TEXT_LEN: usize = 43;

/// A random token in the clear. Wiped when dropped; `Debug` shows nothing.
pub struct TokenSecret(Zeroizing<[u8; TOKEN_LEN]>);

impl TokenSecret {
    /// A fresh random token.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    /// Reads a token as a client sends it back.
    ///
    /// # Errors
    /// [`MalformedToken`] for anything but the base64url of 32 bytes.
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        let malformed = MalformedToken { len: text.len() };
        if text.len() != TOKEN_TEXT_LEN {
            return Err(malformed);
        }
        let mut bytes = Zeroizing::new([0_u8; TOKEN_LEN]);
        match URL_SAFE_NO_PAD.decode_slice(text, &mut *bytes) {
            Ok(TOKEN_LEN) => Ok(Self(bytes)),
            _ => Err(malformed),
        }
    }

    /// The token as 43 characters of base64url, to be given to its owner once.
    pub fn to_text(&self) -> SecretText {
        SecretText::new(URL_SAFE_NO_PAD.encode(*self.0))
    }

    /// What is stored instead of the token.
    pub fn hash(&self) -> TokenHash {
        let mut out = [0_u8; TOKEN_LEN];
        out.copy_from_slice(digest::digest(&digest::SHA256, &*self.0).as_ref());
        TokenHash(out)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(redacted)")
    }
}

/// SHA-256 of a token: what the store keeps and looks up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub [u8; TOKEN_LEN]);

impl TokenHash {
    /// Whether this is the hash of `token`, in constant time.
    pub fn matches(&self, token: &TokenSecret) -> bool {
        equal(&self.0, &token.hash().0)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A few digits tell sessions apart in a log without giving away the look-up key.
        write!(f, "TokenHash({}…)", hex(&self.0[..4]))
    }
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is {TOKEN_TEXT_LEN} characters of base64url; this text of {len} bytes is not")]
pub struct MalformedToken {
    /// Length of the text, in bytes.
    pub len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text_and_only_its_hash_matches() {
        let token = TokenSecret::generate();
        let text = token.to_text();
        assert_eq!(text.expose().len(), TOKEN_TEXT_LEN);
        let back = TokenSecret::parse(text.expose()).unwrap();
        assert!(token.hash().matches(&back));
        assert!(!token.hash().matches(&TokenSecret::generate()));
    }

    #[test]
    fn malformed_texts_are_refused() {
        let good = TokenSecret::generate().to_text().expose().to_owned();
        for text in ["", "x", &good[1..], &format!("{good}="), &format!("{}+", &good[1..]), &"é".repeat(22)]
        {
            assert_eq!(TokenSecret::parse(text).unwrap_err(), MalformedToken { len: text.len() });
        }
    }

    #[test]
    fn debug_shows_neither_token_nor_whole_hash() {
        let token = TokenSecret::generate();
        assert_eq!(format!("{token:?}"), "TokenSecret(redacted)");
        assert_eq!(format!("{:?}", token.to_text()), "SecretText(redacted)");
        let hash = token.hash();
        assert!(!format!("{hash:?}").contains(&hash.to_string()[8..]));
    }
}

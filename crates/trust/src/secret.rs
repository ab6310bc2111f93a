//! Text that must not reach a log: private keys, tokens and key-encryption keys on their way to a person or a file.

use std::fmt;

use zeroize::Zeroizing;

/// A secret as text. It is wiped when dropped, has no `Display`, and its `Debug` shows nothing.
///
/// The one way to read it is [`SecretText::expose`], so a search for that word finds every place
/// where a secret leaves this room.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes ownership of a secret text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself. Write it to a file with mode 0600 or show it once; never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

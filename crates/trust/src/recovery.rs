//! Recovery codes: ten words shown once, of which only hashes are kept, each good for one sign-in.

use crate::digest::sha256;
use crate::random::{equal, random_bytes};
use crate::secret::SecretText;

/// Codes of one person.
pub const CODES: usize = 10;
/// Groups of five letters in a code: 50 bits, tried a few times an hour at most.
const GROUPS: usize = 2;
/// Letters of readable secrets: none that is mistaken for another. 32 of them, so that a byte cut to five bits picks each
/// with the same chance.
pub const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A random text of so many groups of five letters, 25 bits a group, that everybody can read and type.
pub fn readable(groups: usize) -> SecretText {
    let group = || {
        let bytes = random_bytes::<5>();
        bytes.map(|byte| char::from(LETTERS[usize::from(byte & 31)])).iter().collect::<String>()
    };
    SecretText::new((0..groups).map(|_| group()).collect::<Vec<_>>().join("-"))
}

/// Ten new codes, and what is kept of them. `owner` makes equal codes of two people differ.
pub fn generate(owner: &[u8]) -> Vec<(SecretText, [u8; 32])> {
    let one = |_| {
        let code = readable(GROUPS);
        let hash = hash(owner, code.expose());
        (code, hash)
    };
    (0..CODES).map(one).collect()
}

/// What is kept of a code. Case, spaces and dashes do not count.
pub fn hash(owner: &[u8], code: &str) -> [u8; 32] {
    let letters: String = code
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .take(GROUPS * 5 + 1)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    sha256(&[b"recovery code", owner, letters.as_bytes()])
}

/// Which of the kept hashes a code is of; all are compared, so that the time tells nothing.
pub fn find(kept: &[[u8; 32]], owner: &[u8], code: &str) -> Option<usize> {
    let given = hash(owner, code);
    let mut found = None;
    for (at, one) in kept.iter().enumerate() {
        if equal(one, &given) {
            found = Some(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_codes_are_found_by_their_owner_only_and_however_they_are_typed() {
        let codes = generate(b"one");
        assert_eq!(codes.len(), CODES);
        let kept: Vec<[u8; 32]> = codes.iter().map(|(_, hash)| *hash).collect();
        for (at, (code, _)) in codes.iter().enumerate() {
            assert_eq!(code.expose().len(), 11);
            assert_eq!(find(&kept, b"one", code.expose()), Some(at));
            let typed = format!("  {} ", code.expose().to_uppercase().replace('-', " "));
            assert_eq!(find(&kept, b"one", &typed), Some(at));
            assert_eq!(find(&kept, b"two", code.expose()), None);
            assert_eq!(find(&kept, b"one", &code.expose()[1..]), None);
            assert_eq!(find(&kept, b"one", &format!("{}x", code.expose())), None);
        }
        assert_eq!(find(&kept, b"one", ""), None);
    }
}

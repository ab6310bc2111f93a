//! Random bytes, time-ordered ids and comparison that does not leak by its duration.

use aws_lc_rs::{constant_time, rand};
use uuid::Uuid;

/// `N` bytes from the cryptographic random generator, which the operating system seeds.
///
/// # Panics
/// When the generator cannot be seeded. Going on without randomness would produce guessable keys,
/// so there is nothing a caller could do better.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    rand::fill(&mut bytes).expect("the operating system gave no randomness");
    bytes
}

/// A UUID version 7 (RFC 9562, section 5.7) for the instant `now_millis`, in milliseconds since
/// 1970-01-01T00:00:00Z; the other 74 bits are random.
///
/// Ids of one millisecond are not ordered among themselves. Only the low 48 bits of the instant
/// fit, which last until the year 10889.
pub fn uuid_v7(now_millis: u64) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(now_millis, &random_bytes::<10>()).into_uuid()
}

/// Whether two byte strings are equal, in a time that depends on their lengths only.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
    }

    #[test]
    fn a_uuid_carries_its_instant_version_and_variant() {
        let id = uuid_v7(1_795_680_000_123);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        let mut millis = [0_u8; 8];
        millis[2..].copy_from_slice(&id.as_bytes()[..6]);
        assert_eq!(u64::from_be_bytes(millis), 1_795_680_000_123);
        assert_ne!(id, uuid_v7(1_795_680_000_123), "two ids of one millisecond");
    }

    #[test]
    fn equality_is_of_content_and_length() {
        assert!(equal(b"", b""));
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
    }
}

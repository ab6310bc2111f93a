//! The trust room seen from outside: published vectors, round trips, tampering and real handshakes.

mod envelope;
mod identity;
mod jwt;
mod keyring;
mod log;
mod password;
mod pki;
mod tiers;
mod tls;
mod vectors;
mod webauthn;

/// Bytes from hexadecimal text, for vectors.
fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of digits");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// 0, 1, 2, …, 31: the key of the vectors.
fn counting_key() -> [u8; 32] {
    std::array::from_fn(|index| u8::try_from(index).unwrap())
}

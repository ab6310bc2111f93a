//! One-time codes of an authenticator app: RFC 6238 over HMAC-SHA-1, six digits, thirty seconds.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::random::{equal, random_bytes};
use crate::secret::SecretText;

/// Length of a secret, in bytes: that of the hash (RFC 4226, section 4, R6).
pub const SECRET_LEN: usize = 20;
/// Digits of a code.
pub const DIGITS: usize = 6;
/// Length of a step, in seconds.
pub const STEP_S: u64 = 30;
/// Steps before and after the present one that are taken: clocks differ, and people type slowly.
pub const STEPS_BESIDE: u64 = 1;

/// The secret that a person's authenticator app and the site share. Wiped when dropped; `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct TotpSecret(Zeroizing<[u8; SECRET_LEN]>);

impl std::fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpSecret(redacted)")
    }
}

impl TotpSecret {
    /// A fresh random secret.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    /// The secret as it is kept, sealed.
    pub fn bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// Reads a secret that was kept.
    pub fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret in base32, as people type it into an app: 32 letters.
    pub fn to_base32(&self) -> SecretText {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut text = String::with_capacity(SECRET_LEN * 8 / 5);
        for five in self.0.chunks_exact(5) {
            let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            text.extend((0..8).rev().map(|at| char::from(LETTERS[(bits >> (at * 5) & 31) as usize])));
        }
        SecretText::new(text)
    }

    /// Reads base32 of exactly [`SECRET_LEN`] bytes, for programs that compute codes.
    pub fn parse_base32(text: &str) -> Option<Self> {
        let mut out = Zeroizing::new([0; SECRET_LEN]);
        if text.len() != SECRET_LEN * 8 / 5 {
            return None;
        }
        for (eight, five) in text.as_bytes().chunks_exact(8).zip(out.chunks_exact_mut(5)) {
            let mut bits = 0_u64;
            for letter in eight {
                let value = match letter {
                    b'A'..=b'Z' => letter - b'A',
                    b'2'..=b'7' => letter - b'2' + 26,
                    _ => return None,
                };
                bits = bits << 5 | u64::from(value);
            }
            five.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        Some(Self(out))
    }

    /// The address that an authenticator app reads from a QR code. `site` and `name` are what the app shows.
    pub fn otpauth_uri(&self, site: &str, name: &str) -> SecretText {
        let (site, name) = (percent(site), percent(name));
        let secret = self.to_base32();
        let uri = format!(
            "otpauth://totp/{site}:{name}?secret={}&issuer={site}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}",
            secret.expose()
        );
        SecretText::new(uri)
    }

    /// The code of a step, with so many digits (at most nine).
    fn code_of(&self, step: u64, digits: usize) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &*self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[tag.len() - 1] & 15);
        let word = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
        format!("{:0digits$}", u64::from(word) % 10_u64.pow(digits as u32))
    }

    /// The code at an instant, in seconds since 1970.
    pub fn code_at(&self, at_s: u64) -> String {
        self.code_of(at_s / STEP_S, DIGITS)
    }

    /// The step whose code was given, if it is one of those around `at_s` (seconds since 1970) and later than
    /// `last_step`: a code that was used, and every earlier one, is never taken again (RFC 6238, section 5.2).
    pub fn verify(&self, given: &str, at_s: u64, last_step: Option<u64>) -> Option<u64> {
        let given: String = given.chars().filter(|letter| !letter.is_whitespace()).take(DIGITS + 1).collect();
        let present = at_s / STEP_S;
        let mut found = None;
        // All are compared, so that the time tells nothing.
        for step in present.saturating_sub(STEPS_BESIDE)..=present + STEPS_BESIDE {
            let is_it = equal(self.code_of(step, DIGITS).as_bytes(), given.as_bytes());
            if is_it && last_step.is_none_or(|last| step > last) && found.is_none() {
                found = Some(step);
            }
        }
        found
    }
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&crate::encoding::hex(&[byte]).to_uppercase());
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> TotpSecret {
        TotpSecret::from_bytes(*b"12345678901234567890")
    }

    #[test]
    fn codes_are_those_of_rfc_6238_appendix_b() {
        for (at_s, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(reference().code_of(at_s / STEP_S, 8), code, "{at_s}");
            assert_eq!(reference().code_at(at_s), code[2..]);
        }
    }

    #[test]
    fn a_used_step_and_every_earlier_one_are_never_taken_again() {
        let secret = reference();
        let at_s = 1_000_000;
        let (before, present) = (secret.code_at(at_s - STEP_S), secret.code_at(at_s));
        let step = secret.verify(&present, at_s, None).unwrap();
        assert_eq!(step, at_s / STEP_S);
        assert_eq!(secret.verify(&present, at_s, Some(step)), None, "replayed");
        assert_eq!(secret.verify(&before, at_s, Some(step)), None, "older than the one that was used");
        assert_eq!(secret.verify(&present, at_s + STEP_S, None), Some(step), "one step late");
        assert_eq!(secret.verify(&present, at_s + 2 * STEP_S, None), None, "two steps late");
        assert_eq!(secret.verify(&present, at_s - STEP_S, None), Some(step), "a clock behind");
        assert_eq!(secret.verify(&present, at_s - 2 * STEP_S, None), None);
    }

    #[test]
    fn what_is_no_code_is_no_code() {
        let secret = reference();
        let code = secret.code_at(59);
        let spaced = format!("{} {}", &code[..3], &code[3..]);
        assert!(secret.verify(&spaced, 59, None).is_some(), "as apps show it");
        for wrong in ["", "0", &code[1..], &format!("{code}0"), &format!("0{code}"), "２８７０８２", "abcdef"]
        {
            assert_eq!(secret.verify(wrong, 59, None), None, "{wrong}");
        }
    }

    #[test]
    fn base32_goes_there_and_back() {
        assert_eq!(reference().to_base32().expose(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let secret = TotpSecret::generate();
        assert_eq!(TotpSecret::parse_base32(secret.to_base32().expose()), Some(secret));
        for text in ["", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ1", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ"] {
            assert_eq!(TotpSecret::parse_base32(text), None, "{text}");
        }
    }

    #[test]
    fn the_address_for_apps_is_escaped() {
        let uri = reference().otpauth_uri("Ward & Sons", "müller@x");
        assert!(uri.expose().starts_with("otpauth://totp/Ward%20%26%20Sons:m%C3%BCller%40x?secret=GEZDG"));
    }
}

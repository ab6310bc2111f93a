//! Revoked certificates: a set of serial numbers kept as plain text, one a line.
//!
//! A line is the serial number in hexadecimal, the instant in RFC 3339, and the reason, separated
//! by spaces. Empty lines and lines that begin with `#` are skipped, so a person can edit the file.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use crate::encoding::hex;

/// Most serial numbers in one set; beyond it the authority itself should be replaced.
pub const MAX_REVOKED: usize = 100_000;

/// Longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 200;

/// Longest serial number, in bytes (RFC 5280, section 4.1.2.2).
const MAX_SERIAL_BYTES: usize = 20;

/// When and why a certificate was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The instant, kept to the second.
    pub revoked_at: SystemTime,
    /// Why, in one line.
    pub reason: String,
}

/// The serial numbers that are no longer believed. Ask it for every request, not only at the
/// handshake: a connection can outlive its certificate's good name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedSerials {
    entries: BTreeMap<String, Revocation>,
}

impl RevokedSerials {
    /// Reads the text that `Display` writes.
    ///
    /// # Errors
    /// [`RevokedParseError`] with the line. A set that cannot be read whole is not read at all:
    /// skipping a line would let a revoked device back in.
    pub fn parse(text: &str) -> Result<Self, RevokedParseError> {
        let mut set = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |source| RevokedParseError { line: index + 1, source };
            let (serial, rest) = line.split_once(' ').ok_or_else(|| error(RevocationError::Incomplete))?;
            let (instant, reason) =
                rest.trim_start().split_once(' ').ok_or_else(|| error(RevocationError::Incomplete))?;
            let revoked_at: jiff::Timestamp =
                instant.parse().map_err(|source| error(RevocationError::Instant { source }))?;
            set.insert(serial, revoked_at.into(), reason.trim()).map_err(error)?;
        }
        Ok(set)
    }

    /// Adds a serial number; the first entry of a serial number stays, for revocation has no repeal.
    /// Gives whether it was new.
    ///
    /// # Errors
    /// [`RevocationError`] when serial, instant or reason cannot be kept, or the set is full.
    pub fn insert(
        &mut self,
        serial: &str,
        revoked_at: SystemTime,
        reason: &str,
    ) -> Result<bool, RevocationError> {
        let serial = normal_serial_hex(serial)?;
        if reason.is_empty() || reason.len() > MAX_REASON_BYTES || reason.chars().any(char::is_control) {
            return Err(RevocationError::Reason { len: reason.len() });
        }
        let revoked_at = whole_seconds(revoked_at)?;
        if self.entries.contains_key(&serial) {
            return Ok(false);
        }
        if self.entries.len() >= MAX_REVOKED {
            return Err(RevocationError::Full);
        }
        self.entries
            .insert(serial, Revocation { revoked_at: revoked_at.into(), reason: reason.trim().to_owned() });
        Ok(true)
    }

    /// Whether a serial number is revoked. A text that is no serial number counts as revoked.
    pub fn contains(&self, serial: &str) -> bool {
        normal_serial_hex(serial).map_or(true, |serial| self.entries.contains_key(&serial))
    }

    /// When and why a serial number was revoked.
    pub fn get(&self, serial: &str) -> Option<&Revocation> {
        self.entries.get(&normal_serial_hex(serial).ok()?)
    }

    /// All entries, ordered by serial number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Revocation)> {
        self.entries.iter().map(|(serial, revocation)| (serial.as_str(), revocation))
    }

    /// How many serial numbers are revoked.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl fmt::Display for RevokedSerials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# revoked certificates: serial number, instant, reason")?;
        for (serial, revocation) in &self.entries {
            let instant = jiff::Timestamp::try_from(revocation.revoked_at).map_err(|_| fmt::Error)?;
            writeln!(f, "{serial} {instant} {}", revocation.reason)?;
        }
        Ok(())
    }
}

/// A serial number's one spelling here: lower-case hexadecimal, whole bytes, no leading zero bytes,
/// no colons.
///
/// # Errors
/// [`RevocationError::Serial`] for anything but 1 to 20 bytes of hexadecimal digits.
pub fn normal_serial_hex(serial: &str) -> Result<String, RevocationError> {
    let digits: String = serial.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    let malformed = RevocationError::Serial { len: serial.len() };
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.bytes().all(|d| d.is_ascii_hexdigit())
    {
        return Err(malformed);
    }
    let mut significant = digits.as_str();
    while significant.len() > 2 && significant.starts_with("00") {
        significant = &significant[2..];
    }
    if significant.len() > 2 * MAX_SERIAL_BYTES {
        return Err(malformed);
    }
    Ok(significant.to_owned())
}

/// The same spelling from the bytes of a certificate.
pub(super) fn serial_bytes_hex(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    hex(&bytes[zeros.min(bytes.len().saturating_sub(1))..])
}

/// Why a revocation could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// A line without all three parts.
    #[error("expected a serial number, an instant and a reason")]
    Incomplete,
    /// Not a serial number.
    #[error(
        "a serial number is 1 to {MAX_SERIAL_BYTES} bytes in hexadecimal; this text of {len} bytes is not"
    )]
    Serial {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// Not an instant in RFC 3339.
    #[error("the instant is not RFC 3339, such as 2026-11-22T09:30:00Z")]
    Instant {
        /// What the parser says.
        source: jiff::Error,
    },
    /// An instant no calendar holds.
    #[error("the instant of revocation lies outside the years -9999 to 9999")]
    InstantOutOfRange,
    /// Empty, too long, or with control characters.
    #[error("the reason must be one line of 1 to {MAX_REASON_BYTES} bytes; it has {len}")]
    Reason {
        /// Length in bytes.
        len: usize,
    },
    /// No room.
    #[error("{MAX_REVOKED} certificates are revoked already; replace the authority")]
    Full,
}

/// A line of a revocation file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the revoked certificates cannot be read")]
pub struct RevokedParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub source: RevocationError,
}

fn whole_seconds(instant: SystemTime) -> Result<jiff::Timestamp, RevocationError> {
    let exact = jiff::Timestamp::try_from(instant).map_err(|_| RevocationError::InstantOutOfRange)?;
    jiff::Timestamp::from_second(exact.as_second()).map_err(|_| RevocationError::InstantOutOfRange)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut set = RevokedSerials::default();
        assert!(set.insert("00:AB:01", at(1_795_680_000), "pump sold, key not wiped").unwrap());
        assert!(!set.insert("ab01", at(1_795_690_000), "again").unwrap(), "the first entry stays");
        assert!(set.insert("0f", at(1_795_680_001), "lost").unwrap());
        let text = set.to_string();
        assert!(text.contains("ab01 2026-11-26T08:00:00Z pump sold, key not wiped\n"), "{text}");
        assert_eq!(RevokedSerials::parse(&text).unwrap(), set);
        assert!(set.contains("AB01") && set.contains("00ab01") && !set.contains("ab02"));
        assert_eq!(set.get("ab01").unwrap().reason, "pump sold, key not wiped");
    }

    #[test]
    fn a_text_that_is_no_serial_number_is_not_trusted() {
        let set = RevokedSerials::default();
        assert!(set.contains("") && set.contains("xyz") && set.contains("abc"));
    }

    #[test]
    fn a_damaged_line_is_named_and_nothing_is_read() {
        let cases = [
            ("ab01", 1),
            ("ab01 2026-11-22T10:00:00Z lost\nab02 yesterday lost", 2),
            ("# head\n\nxx 2026-11-22T10:00:00Z lost", 3),
            ("ab01 2026-11-22T10:00:00Z", 1),
            ("ab01 2026-11-22T10:00:00 lost", 1),
        ];
        for (text, line) in cases {
            assert_eq!(RevokedSerials::parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn a_reason_cannot_smuggle_a_second_line() {
        let mut set = RevokedSerials::default();
        assert!(set.insert("ab", at(0), "lost\ncd 2026-01-01T00:00:00Z forged").is_err());
        assert!(set.insert("ab", at(0), &"x".repeat(MAX_REASON_BYTES + 1)).is_err());
        assert!(set.is_empty());
    }
}

//! Why an authority cannot be made, loaded, or asked to issue.

use std::time::SystemTime;

use super::authority::{MAX_AUTHORITY_YEARS, MAX_COMMON_NAME_CHARS, MAX_SERVER_NAMES};
use super::request::RequestError;

/// An instant as people read it, to the second.
fn shown(at: &SystemTime) -> String {
    let instant = jiff::Timestamp::try_from(*at).and_then(|at| at.round(jiff::Unit::Second));
    instant.map_or_else(|_| "an instant that no calendar has".to_owned(), |at| at.to_string())
}

/// Why an authority could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Empty, too long, or with control characters.
    #[error(
        "an authority's name has 1 to {MAX_COMMON_NAME_CHARS} printable characters; this one has {chars}"
    )]
    Name {
        /// Characters given.
        chars: usize,
    },
    /// No years, or too many.
    #[error("an authority lives 1 to {MAX_AUTHORITY_YEARS} years, not {years}")]
    Years {
        /// Years asked for.
        years: u32,
    },
    /// A clock far off: the certificate's life would leave the years that certificates can write.
    #[error("the clock shows {}, outside the years 1950 to 9999", shown(now))]
    Now {
        /// The instant given.
        now: SystemTime,
    },
    /// The certificate's file is not PEM.
    #[error("the authority's certificate is not readable PEM")]
    CertificatePem {
        /// What the parser says.
        source: rustls_pki_types::pem::Error,
    },
    /// PEM, but no certificate inside.
    #[error("the authority's certificate is not X.509: {reason}")]
    Certificate {
        /// What the parser says.
        reason: String,
    },
    /// A device's or server's certificate.
    #[error("the certificate is not an authority's and may sign nothing")]
    NotAnAuthority,
    /// The private key cannot be read.
    #[error("the authority's private key is not readable PKCS #8 PEM")]
    Key {
        /// What the certificate library says.
        source: rcgen::Error,
    },
    /// Two files that do not belong together.
    #[error("the authority's private key belongs to another certificate")]
    KeyMismatch,
    /// A name or a network to which an issuing key cannot be held.
    #[error("{text:?} is no host name or network (such as hospital.example or 10.0.0.0/8)")]
    Limit {
        /// What was given.
        text: String,
    },
    /// The certificate library refused.
    #[error("the certificate library refused the authority")]
    Library {
        /// What it says.
        source: rcgen::Error,
    },
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Empty, too long, or with control characters.
    #[error("a common name has 1 to {MAX_COMMON_NAME_CHARS} printable characters; this one has {chars}")]
    CommonName {
        /// Characters given.
        chars: usize,
    },
    /// Ends before it begins.
    #[error(
        "the certificate would end ({}) before it begins ({}); is the clock of this machine right?",
        shown(not_after),
        shown(not_before)
    )]
    Period {
        /// First instant asked for.
        not_before: SystemTime,
        /// Last instant asked for.
        not_after: SystemTime,
    },
    /// Would be valid when the authority is not.
    #[error(
        "the certificate ({} to {}) would reach beyond its authority ({} to {}); is the clock of this machine right?",
        shown(not_before),
        shown(not_after),
        shown(authority_not_before),
        shown(authority_not_after)
    )]
    OutsideAuthority {
        /// First instant asked for.
        not_before: SystemTime,
        /// Last instant asked for.
        not_after: SystemTime,
        /// The authority's first instant.
        authority_not_before: SystemTime,
        /// The authority's last instant.
        authority_not_after: SystemTime,
    },
    /// A peer URI that could not be read back.
    #[error("{uri:?} is no valid peer URI")]
    Uri {
        /// The URI.
        uri: String,
    },
    /// No name at all, or too many.
    #[error("a server certificate carries 1 to {MAX_SERVER_NAMES} names and addresses, not {count}")]
    ServerNames {
        /// Names and addresses given.
        count: usize,
    },
    /// Not a host name.
    #[error("{name:?} is no host name")]
    DnsName {
        /// The name.
        name: String,
    },
    /// A signing request that cannot be read, or whose signature is wrong.
    #[error("the certificate signing request cannot be believed")]
    SigningRequest {
        /// What is wrong with it.
        source: RequestError,
    },
    /// The certificate library refused.
    #[error("the certificate library refused the request")]
    Library {
        /// What it says.
        source: rcgen::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn periods_are_said_in_instants() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let period = IssueError::Period { not_before: at(1_800_000_000), not_after: at(1_789_935_918) };
        let text = period.to_string();
        assert!(text.contains("2026-09-20T20:25:18Z") && text.contains("2027-01-15T08:00:00Z"), "{text}");
        assert!(text.contains("clock") && !text.contains("SystemTime"), "{text}");
        let outside = IssueError::OutsideAuthority {
            not_before: at(0),
            not_after: at(1),
            authority_not_before: at(1_800_000_000),
            authority_not_after: at(1_900_000_000),
        };
        assert!(outside.to_string().contains("1970-01-01T00:00:01Z"), "{outside}");
    }
}

//! Why an authority cannot be made, loaded, or asked to issue.

use std::time::SystemTime;

use super::authority::{MAX_AUTHORITY_YEARS, MAX_COMMON_NAME_CHARS, MAX_SERVER_NAMES};
use super::request::RequestError;

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
    #[error("the clock shows {now:?}, outside the years 1950 to 9999")]
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
    #[error("the certificate would end ({not_after:?}) before it begins ({not_before:?})")]
    Period {
        /// First instant asked for.
        not_before: SystemTime,
        /// Last instant asked for.
        not_after: SystemTime,
    },
    /// Would be valid when the authority is not.
    #[error(
        "the certificate ({not_before:?} to {not_after:?}) would reach beyond its authority \
         ({authority_not_before:?} to {authority_not_after:?})"
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

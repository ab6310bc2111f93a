//! Certificates: the built-in authority, what a peer's certificate says, what devices ask for, and which were revoked.
//!
//! [`Authority`] is whoever issues: an issuing key under an offline root, or one that signed itself (a site of an
//! earlier release, and most tests). The TLS builders take chains.

mod authority;
mod errors;
mod peer;
mod pkcs7;
mod request;
mod revocation;
mod sealed;
mod tiers;

pub use authority::{
    AUTHORITY_BACKDATE_S, Authority, AuthorityPem, ID_DIGITS, IssueRequest, IssueServerRequest, Issued,
    IssuedForRequest, MAX_AUTHORITY_YEARS, MAX_COMMON_NAME_CHARS, MAX_SERVER_NAMES,
};
pub use errors::{AuthorityError, IssueError};
pub use peer::{
    MAX_PROGRAM_NAME_BYTES, PeerIdentity, PeerIdentityError, PeerUri, PeerUriError, fingerprint_hex,
};
pub use pkcs7::{certificates_of, certs_only, request_attributes};
pub use request::{MAX_REQUEST_BYTES, MAX_REQUEST_TEXT_BYTES, RSA_BITS, RequestError, SigningRequest};
pub use revocation::{
    MAX_REASON_BYTES, MAX_REVOKED, Revocation, RevocationError, RevokedParseError, RevokedSerials,
    normal_serial_hex,
};
pub use sealed::{
    SealedError, SealingKey, is_plain_key, is_under_passphrase, open_with_passphrase, seal_with_passphrase,
};
pub use tiers::{NameLimits, begins_at, is_signed_by};
